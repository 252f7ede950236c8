"""Words that were erased before a turn is stored are in no later call of a model, nor cached."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from antiphon.core.context_policies import TokenBudget
from antiphon.core.ids import item_id
from antiphon.core.items import FunctionCall, Message
from antiphon.core.retention import DAY_SECONDS, RetentionPolicy
from antiphon.core.turns import DEFAULT_TENANT, ItemReference, Options, Response, TurnRequest
from antiphon.errors import ContextLengthExceededError, HistoryChangedError, NotFoundError
from antiphon.models.scripted import Script, ScriptedModel, fail, say, wait
from antiphon.stores.memory.store import MemoryStore
from antiphon.stores.sqlite.store import SqliteStore, open_sqlite
from antiphon.turn.conversations import ConversationService
from antiphon.turn.history_cache import UnstoredHistory
from antiphon.turn.protocols import Model, ModelCall
from antiphon.turn.service import TurnService
from antiphon.turn.store_protocols import Head, StoredTurn
from support.turn_service import (
    ONE_CALL,
    STORES,
    GatedStore,
    RecordingTools,
    contents,
    run,
    run_ready_tasks,
    run_turn,
    turn_request,
)

CHILD = (sys.executable, str(Path(__file__).parents[1] / "support" / "turns_child.py"))
SECRET = "The secret is 42."
#: Makes the model count, which is when things are erased here.
BUDGET = (TokenBudget(10_000),)
AnyStore = MemoryStore | SqliteStore
Erase = Callable[[], Awaitable[object]]


class SlowCounter(ScriptedModel):
    """Something is erased while it counts for the first time."""

    def __init__(self, script: Script = lambda _: "Yes.") -> None:
        super().__init__(script)
        self.erase: Erase | None = None

    async def count_tokens(self, call: ModelCall) -> int | None:
        erase, self.erase = self.erase, None
        if erase is not None:
            await erase()
        return await super().count_tokens(call)


class Teller:
    """A service over a store, and a model during whose counting something is erased."""

    def __init__(self, store: AnyStore) -> None:
        self.store = store
        self._seen = 0
        self.model = SlowCounter()
        self.service = TurnService(store, self, store.stores)
        self.conversations = ConversationService(
            self.service, store.stores.conversations, store.stores.search
        )

    def get(self, name: str | None) -> tuple[str, Model]:
        """The model of all turns: this is the service's ``ModelProvider``."""
        return name or "slow", self.model

    def items(self) -> list[tuple[str, Model]]:
        return [("slow", self.model)]

    async def turned(self, text: str, after: str | None = None, **more: Any) -> Response:
        return await run_turn(self.service, text, after=after, context_policies=BUDGET, **more)

    def use(self, script: Script = lambda _: "Yes.") -> None:
        """Another model from now on."""
        self._seen = 0
        self.model = SlowCounter(script)

    def shown(self) -> str:
        """All that the model was asked since ``forget``."""
        return b"\n".join(call.messages for call in self.model.calls[self._seen :]).decode()

    def forget(self) -> None:
        self._seen = len(self.model.calls)


async def opened(
    kind: str, folder: Path, lifetimes: RetentionPolicy, clock: Callable[[], float]
) -> AnyStore:
    if kind == "memory":
        return MemoryStore(lifetimes, clock=clock)
    return await open_sqlite(folder / "a.db", lifetimes, clock=clock)


@pytest.fixture(params=STORES)
def told(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., None]:
    """Runs a story with a service, over each kind of store."""

    def tell(story: Callable[[Teller], Awaitable[None]]) -> None:
        async def main() -> None:
            store = await opened(request.param, tmp_path, RetentionPolicy(None), lambda: 0.0)
            teller = Teller(store)
            try:
                await story(teller)
            finally:
                await teller.service.close()

        run(main())

    return tell


Told = Callable[[Callable[[Teller], Awaitable[None]]], None]


async def another_process(*command: str) -> str:
    child = await asyncio.create_subprocess_exec(*CHILD, *command, stdout=asyncio.subprocess.PIPE)
    said, _ = await child.communicate()
    assert child.returncode == 0
    return said.decode().strip()


async def gone_on(teller: Teller, response: Response) -> None:
    """The secret is in no call from here on, from the cache or from the store."""
    teller.forget()
    await teller.turned("And then?", response.id)
    assert "secret" not in teller.shown()
    fresh = Teller(teller.store)
    await fresh.turned("And then?", response.id)
    assert teller.shown() == fresh.shown()


def test_a_parent_that_is_erased_in_between_is_missing(told: Told) -> None:
    async def story(teller: Teller) -> None:
        first = await teller.turned(SECRET)
        teller.forget()
        teller.model.erase = lambda: teller.service.delete(DEFAULT_TENANT, first.id)
        for stored in (True, False):
            with pytest.raises(NotFoundError) as caught:
                await teller.turned("What is it?", first.id, store=stored)
            assert caught.value.code == "previous_response_not_found"
        assert teller.shown() == ""
        assert await teller.service.reader.recent_threads(DEFAULT_TENANT, 5) == []

    told(story)


@pytest.mark.parametrize("stored", [True, False])
def test_an_ancestor_that_is_erased_in_between_is_not_shown(told: Told, stored: bool) -> None:
    async def story(teller: Teller) -> None:
        first = await teller.turned(SECRET)
        second = await teller.turned("Thanks.", first.id)
        teller.forget()
        teller.model.erase = lambda: teller.service.delete(DEFAULT_TENANT, first.id)
        third = await teller.turned("What is it?", second.id, store=stored)
        assert "secret" not in teller.shown()
        assert third.previous_response_id == second.id
        await gone_on(teller, third if stored else second)

    told(story)


def test_an_item_that_is_erased_in_between_is_not_shown(told: Told) -> None:
    async def story(teller: Teller) -> None:
        first = await teller.turned(SECRET)
        erase = teller.store.stores.conversations.erase_item
        await erase(DEFAULT_TENANT, first.id, 1)
        teller.forget()
        teller.model.erase = lambda: erase(DEFAULT_TENANT, first.id, 0)
        second = await teller.turned("What is it?", first.id)
        assert "secret" not in teller.shown()
        await gone_on(teller, second)

    told(story)


def test_a_conversation_that_is_deleted_in_between_is_missing(told: Told) -> None:
    async def story(teller: Teller) -> None:
        talk = (await teller.conversations.create(DEFAULT_TENANT)).id
        await teller.turned(SECRET, conversation=talk)
        teller.forget()
        teller.model.erase = lambda: teller.conversations.delete(DEFAULT_TENANT, talk)
        with pytest.raises(NotFoundError) as caught:
            await teller.turned("What is it?", conversation=talk)
        assert caught.value.code == "conversation_not_found"
        assert teller.shown() == ""

    told(story)


def test_a_conversation_goes_on_from_what_is_left_of_it(told: Told) -> None:
    async def story(teller: Teller) -> None:
        talk = (await teller.conversations.create(DEFAULT_TENANT)).id
        first = await teller.turned("Hi.", conversation=talk)
        second = await teller.turned(SECRET, conversation=talk)
        teller.forget()
        teller.model.erase = lambda: teller.service.delete(DEFAULT_TENANT, second.id)
        third = await teller.turned("What is it?", conversation=talk)
        assert "secret" not in teller.shown()
        assert third.previous_response_id == first.id

    told(story)


def test_an_item_that_is_only_referred_to_may_go_in_between(told: Told) -> None:
    async def story(teller: Teller) -> None:
        first = await teller.turned(SECRET)
        name = item_id(first.id, "message", 0)
        teller.forget()
        teller.model.erase = lambda: teller.service.delete(DEFAULT_TENANT, first.id)
        for store in (True, False):
            request = TurnRequest(
                (Message("user", "What is it?"),),
                references=(ItemReference(name, 0, "input[0]"),),
                context_policies=BUDGET,
                store=store,
            )
            with pytest.raises(NotFoundError) as caught:
                await (await teller.service.start(request)).result()
            assert caught.value.code == "item_not_found"
        assert teller.shown() == ""

    told(story)


def test_an_approved_call_that_is_erased_in_between_does_not_run(told: Told) -> None:
    async def story(teller: Teller) -> None:
        call = FunctionCall("a", "look", '{"secret": 42}')
        after = await teller.service.store_turn(turn_request("Go."), [call])
        hands = RecordingTools()
        teller.model.erase = lambda: teller.service.delete(DEFAULT_TENANT, after)
        with pytest.raises(NotFoundError):
            await teller.service.start(
                turn_request(after=after, approved_calls=(call,), context_policies=BUDGET), hands
            )
        assert hands.calls == []

    told(story)


def test_a_history_that_never_stops_changing_is_a_conflict(told: Told) -> None:
    async def story(teller: Teller) -> None:
        first = await teller.turned("Hi.")

        async def change() -> None:
            beside = await teller.service.store_turn(turn_request("Beside.", after=first.id))
            await teller.service.delete(DEFAULT_TENANT, beside)
            teller.model.erase = change

        teller.model.erase = change
        with pytest.raises(HistoryChangedError) as caught:
            await teller.turned("What is it?", first.id)
        assert (caught.value.status, caught.value.code) == (409, "conversation_changed")

    told(story)


@pytest.mark.parametrize("kind", STORES)
async def test_a_parent_that_is_swept_in_between_is_missing(kind: str, tmp_path: Path) -> None:
    now = 1_000_000.0
    store = await opened(kind, tmp_path, RetentionPolicy(DAY_SECONDS), lambda: now)
    teller = Teller(store)
    first = await teller.service.store_turn(turn_request(SECRET))
    teller.forget()

    async def sweep() -> None:
        nonlocal now
        now = 1e11
        assert await store.stores.response_index.delete_expired() == 1

    teller.model.erase = sweep
    with pytest.raises(NotFoundError):
        await teller.turned("What is it?", first)
    assert teller.shown() == ""
    await teller.service.close()


async def test_what_another_process_erases_in_between_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    teller = Teller(await open_sqlite(path))
    talk = (await teller.conversations.create(DEFAULT_TENANT)).id
    first = await teller.turned(SECRET, conversation=talk)
    second = await teller.turned("Thanks.", conversation=talk)
    teller.forget()
    teller.model.erase = lambda: another_process("delete", str(path), first.id)
    third = await teller.turned("What is it?", conversation=talk)
    assert third.previous_response_id == second.id
    assert "secret" not in teller.shown()
    teller.forget()
    teller.model.erase = lambda: another_process("drop", str(path), talk)
    with pytest.raises(NotFoundError):
        await teller.turned("What is it?", conversation=talk)
    assert teller.shown() == ""
    await teller.service.close()


async def test_what_is_erased_before_the_beginning_is_on_disk_is_not_built_upon() -> None:
    """The model is being asked already: what it says of those words is thrown away."""
    store = GatedStore()
    teller = Teller(store)
    first = await teller.turned(SECRET)
    second = await teller.turned("Thanks.", first.id)
    store.begins.close()
    starting = asyncio.create_task(teller.turned("What is it?", second.id))
    await run_ready_tasks()
    assert SECRET in teller.shown()
    await teller.service.delete(DEFAULT_TENANT, first.id)
    teller.forget()
    store.begins.open()
    third = await starting
    assert contents(teller.model)[0] == "Thanks."
    assert [one.id for one in await teller.service.reader.chain(DEFAULT_TENANT, third.id)] == [
        second.id,
        third.id,
    ]
    await gone_on(teller, third)


@pytest.mark.parametrize("stored", [True, False])
def test_what_is_erased_while_a_tool_runs_is_not_shown_after_it(told: Told, stored: bool) -> None:
    async def story(teller: Teller) -> None:
        first = await teller.turned(SECRET)
        second = await teller.turned("Thanks.", first.id)
        teller.use([ONE_CALL, "Done."])

        async def work(call: FunctionCall) -> str:
            await teller.service.delete(DEFAULT_TENANT, first.id)
            teller.forget()
            return "erased"

        third = await run_turn(
            teller.service, "Go.", after=second.id, store=stored, tools=RecordingTools(work)
        )
        assert third.status == "completed"
        assert "secret" not in teller.shown()
        assert contents(teller.model)[0] == "Thanks."
        teller.use()
        await gone_on(teller, third if stored else second)

    told(story)


def test_what_is_erased_while_a_context_is_found_too_long_is_not_shown_again(told: Told) -> None:
    async def story(teller: Teller) -> None:
        ids: list[str] = []
        for text in (SECRET, "One.", "Two.", SECRET, "Three."):
            ids.append((await teller.turned(text, ids[-1] if ids else None)).id)
        go, asked = asyncio.Event(), asyncio.Event()
        too_long = ContextLengthExceededError("Too long.", used=100, limit=90)
        teller.use([wait(go, asked) + fail(too_long), say("Yes.")])
        options = Options(truncation="auto")
        turn = await teller.service.start(turn_request("Go.", after=ids[-1], options=options))
        await asked.wait()
        for gone in (ids[0], ids[3]):
            await teller.service.delete(DEFAULT_TENANT, gone)
        teller.forget()
        go.set()
        assert (await turn.result()).status == "completed"
        assert "secret" not in teller.shown()

    told(story)


def test_what_lies_in_memory_on_top_of_erased_words_goes_on_without_them(told: Told) -> None:
    async def story(teller: Teller) -> None:
        first = await teller.turned(SECRET)
        second = await teller.turned("Thanks.", first.id)
        memory = UnstoredHistory()

        async def aside(text: str, after: str) -> str:
            request = turn_request(text, after=after, store=False)
            return (
                await (await teller.service.start(request, unstored_history=memory)).result()
            ).id

        last = await aside("Aside?", second.id)
        last = await aside("More?", last)
        assert contents(teller.model)[0] == SECRET
        await teller.service.delete(DEFAULT_TENANT, first.id)
        teller.forget()
        last = await aside("And?", last)
        assert "secret" not in teller.shown()
        assert contents(teller.model)[:3] == ["Thanks.", "Yes.", "Aside?"]
        await teller.service.delete(DEFAULT_TENANT, second.id)
        with pytest.raises(NotFoundError) as caught:
            await aside("And?", last)
        assert caught.value.code == "previous_response_not_found"

    told(story)


def test_a_context_shown_to_a_person_is_without_what_is_erased_meanwhile(told: Told) -> None:
    async def story(teller: Teller) -> None:
        first = await teller.turned(SECRET)
        second = await teller.turned("Thanks.", first.id)
        teller.model.erase = lambda: teller.service.delete(DEFAULT_TENANT, first.id)
        request = TurnRequest((), previous_response_id=second.id, context_policies=BUDGET)
        shown = await teller.service.preview_context(request)
        assert shown[0]["content"] == "Thanks."
        assert SECRET not in str(shown)

    told(story)


def test_a_summary_of_what_is_erased_meanwhile_is_not_handed_out(told: Told) -> None:
    async def story(teller: Teller) -> None:
        first = await teller.turned(SECRET)
        go, asked = asyncio.Event(), asyncio.Event()
        teller.use([wait(go, asked) + say(SECRET)])
        compacting = asyncio.create_task(
            teller.service.compact(turn_request("And?", after=first.id))
        )
        await asked.wait()
        await teller.service.delete(DEFAULT_TENANT, first.id)
        go.set()
        with pytest.raises(HistoryChangedError):
            await compacting

    told(story)


async def test_a_turn_whose_response_goes_between_two_reads_is_missing() -> None:
    """Its ancestors must not pass for it."""

    class Late(MemoryStore):
        late = False

        async def chain(self, head: Head) -> list[StoredTurn]:
            if self.late:
                await self.delete(head.tenant, head.response_id)
            return await super().chain(head)

    store = Late()
    teller = Teller(store)
    first = await teller.turned("Hi.")
    for read in (
        teller.service.reader.context,
        teller.service.reader.messages,
        teller.service.reader.chain,
    ):
        second = await teller.turned(SECRET, first.id)
        store.late = True
        with pytest.raises(NotFoundError):
            await read(DEFAULT_TENANT, second.id)
        store.late = False


def test_turns_are_listed_in_the_order_they_began(told: Told) -> None:
    async def story(teller: Teller) -> None:
        quick: list[Response] = []

        async def overtake() -> None:
            quick.append(await run_turn(teller.service, "Quick."))

        teller.model.erase = overtake
        slow = await teller.turned("Slow.")
        assert slow.created_at >= quick[0].created_at
        listed = await teller.store.stores.response_index.list_responses(
            DEFAULT_TENANT, 5, newest_first=False
        )
        assert [turn.response_id for turn in listed] == [quick[0].id, slow.id]

    told(story)
