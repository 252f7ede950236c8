"""Erasure during a turn: erased content reaches no later model call and no cache."""

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
from support.stored_responses import response_ids
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
    """A model whose first token count runs an erasure."""

    def __init__(self, script: Script = lambda _: "Yes.") -> None:
        super().__init__(script)
        self.erase: Erase | None = None

    async def count_tokens(self, call: ModelCall) -> int | None:
        erase, self.erase = self.erase, None
        if erase is not None:
            await erase()
        return await super().count_tokens(call)


class ErasingService:
    """A service over a store, with a model whose token count erases something."""

    def __init__(self, store: AnyStore) -> None:
        self.store = store
        self._skipped_calls = 0
        self.model = SlowCounter()
        self.service = TurnService(store, self, store.stores)
        self.conversations = ConversationService(
            self.service, store.stores.conversations, store.stores.search
        )

    def get(self, name: str | None) -> tuple[str, Model]:
        """The model of all turns: the service's ``ModelProvider``."""
        return name or "slow", self.model

    def items(self) -> list[tuple[str, Model]]:
        return [("slow", self.model)]

    async def run_turn(self, text: str, after: str | None = None, **more: Any) -> Response:
        return await run_turn(self.service, text, after=after, context_policies=BUDGET, **more)

    def set_script(self, script: Script = lambda _: "Yes.") -> None:
        """Replaces the model by one with this script."""
        self._skipped_calls = 0
        self.model = SlowCounter(script)

    def sent_messages(self) -> str:
        """All messages that the model was sent since ``reset_sent``."""
        return b"\n".join(
            call.messages for call in self.model.calls[self._skipped_calls :]
        ).decode()

    def reset_sent(self) -> None:
        self._skipped_calls = len(self.model.calls)


async def open_store(
    kind: str, folder: Path, lifetimes: RetentionPolicy, clock: Callable[[], float]
) -> AnyStore:
    if kind == "memory":
        return MemoryStore(lifetimes, clock=clock)
    return await open_sqlite(folder / "a.db", lifetimes, clock=clock)


@pytest.fixture(params=STORES)
def run_in_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., None]:
    """Runs a scenario with a service, over each kind of store."""

    def run_scenario(scenario: Callable[[ErasingService], Awaitable[None]]) -> None:
        async def main() -> None:
            store = await open_store(request.param, tmp_path, RetentionPolicy(None), lambda: 0.0)
            erasing = ErasingService(store)
            try:
                await scenario(erasing)
            finally:
                await erasing.service.close()

        run(main())

    return run_scenario


ScenarioRunner = Callable[[Callable[[ErasingService], Awaitable[None]]], None]


async def run_child(*command: str) -> str:
    child = await asyncio.create_subprocess_exec(*CHILD, *command, stdout=asyncio.subprocess.PIPE)
    said, _ = await child.communicate()
    assert child.returncode == 0
    return said.decode().strip()


async def check_secret_is_not_sent(erasing: ErasingService, response: Response) -> None:
    """No further call has the secret, neither from the cache nor from the store."""
    erasing.reset_sent()
    await erasing.run_turn("And then?", response.id)
    assert "secret" not in erasing.sent_messages()
    fresh = ErasingService(erasing.store)
    await fresh.run_turn("And then?", response.id)
    assert erasing.sent_messages() == fresh.sent_messages()


def test_parent_erased_while_a_turn_starts_is_not_found(run_in_store: ScenarioRunner) -> None:
    async def scenario(erasing: ErasingService) -> None:
        first = await erasing.run_turn(SECRET)
        erasing.reset_sent()
        erasing.model.erase = lambda: erasing.service.delete(DEFAULT_TENANT, first.id)
        for stored in (True, False):
            with pytest.raises(NotFoundError) as caught:
                await erasing.run_turn("What is it?", first.id, store=stored)
            assert caught.value.code == "previous_response_not_found"
        assert erasing.sent_messages() == ""
        assert await response_ids(erasing.store) == []

    run_in_store(scenario)


@pytest.mark.parametrize("stored", [True, False])
def test_ancestor_erased_while_a_turn_starts_is_not_sent(
    run_in_store: ScenarioRunner, stored: bool
) -> None:
    async def scenario(erasing: ErasingService) -> None:
        first = await erasing.run_turn(SECRET)
        second = await erasing.run_turn("Thanks.", first.id)
        erasing.reset_sent()
        erasing.model.erase = lambda: erasing.service.delete(DEFAULT_TENANT, first.id)
        third = await erasing.run_turn("What is it?", second.id, store=stored)
        assert "secret" not in erasing.sent_messages()
        assert third.previous_response_id == second.id
        await check_secret_is_not_sent(erasing, third if stored else second)

    run_in_store(scenario)


def test_item_erased_while_a_turn_starts_is_not_sent(run_in_store: ScenarioRunner) -> None:
    async def scenario(erasing: ErasingService) -> None:
        first = await erasing.run_turn(SECRET)
        erase = erasing.store.stores.conversations.erase_item
        await erase(DEFAULT_TENANT, first.id, 1)
        erasing.reset_sent()
        erasing.model.erase = lambda: erase(DEFAULT_TENANT, first.id, 0)
        second = await erasing.run_turn("What is it?", first.id)
        assert "secret" not in erasing.sent_messages()
        await check_secret_is_not_sent(erasing, second)

    run_in_store(scenario)


def test_conversation_deleted_while_a_turn_starts_is_not_found(
    run_in_store: ScenarioRunner,
) -> None:
    async def scenario(erasing: ErasingService) -> None:
        conversation = (await erasing.conversations.create(DEFAULT_TENANT)).id
        await erasing.run_turn(SECRET, conversation=conversation)
        erasing.reset_sent()
        erasing.model.erase = lambda: erasing.conversations.delete(DEFAULT_TENANT, conversation)
        with pytest.raises(NotFoundError) as caught:
            await erasing.run_turn("What is it?", conversation=conversation)
        assert caught.value.code == "conversation_not_found"
        assert erasing.sent_messages() == ""

    run_in_store(scenario)


def test_conversation_continues_from_its_remaining_turns(run_in_store: ScenarioRunner) -> None:
    async def scenario(erasing: ErasingService) -> None:
        conversation = (await erasing.conversations.create(DEFAULT_TENANT)).id
        first = await erasing.run_turn("Hi.", conversation=conversation)
        second = await erasing.run_turn(SECRET, conversation=conversation)
        erasing.reset_sent()
        erasing.model.erase = lambda: erasing.service.delete(DEFAULT_TENANT, second.id)
        third = await erasing.run_turn("What is it?", conversation=conversation)
        assert "secret" not in erasing.sent_messages()
        assert third.previous_response_id == first.id

    run_in_store(scenario)


def test_referenced_item_erased_while_a_turn_starts_is_not_found(
    run_in_store: ScenarioRunner,
) -> None:
    async def scenario(erasing: ErasingService) -> None:
        first = await erasing.run_turn(SECRET)
        name = item_id(first.id, "message", 0)
        erasing.reset_sent()
        erasing.model.erase = lambda: erasing.service.delete(DEFAULT_TENANT, first.id)
        for store in (True, False):
            request = TurnRequest(
                (Message("user", "What is it?"),),
                references=(ItemReference(name, 0, "input[0]"),),
                context_policies=BUDGET,
                store=store,
            )
            with pytest.raises(NotFoundError) as caught:
                await (await erasing.service.start(request)).result()
            assert caught.value.code == "item_not_found"
        assert erasing.sent_messages() == ""

    run_in_store(scenario)


def test_approved_call_erased_while_a_turn_starts_does_not_run(
    run_in_store: ScenarioRunner,
) -> None:
    async def scenario(erasing: ErasingService) -> None:
        call = FunctionCall("a", "look", '{"secret": 42}')
        after = await erasing.service.store_turn(turn_request("Go."), [call])
        tools = RecordingTools()
        erasing.model.erase = lambda: erasing.service.delete(DEFAULT_TENANT, after)
        with pytest.raises(NotFoundError):
            await erasing.service.start(
                turn_request(after=after, approved_calls=(call,), context_policies=BUDGET), tools
            )
        assert tools.calls == []

    run_in_store(scenario)


def test_constantly_changing_history_is_a_conflict(run_in_store: ScenarioRunner) -> None:
    async def scenario(erasing: ErasingService) -> None:
        first = await erasing.run_turn("Hi.")

        async def change() -> None:
            sibling = await erasing.service.store_turn(turn_request("Beside.", after=first.id))
            await erasing.service.delete(DEFAULT_TENANT, sibling)
            erasing.model.erase = change

        erasing.model.erase = change
        with pytest.raises(HistoryChangedError) as caught:
            await erasing.run_turn("What is it?", first.id)
        assert (caught.value.status, caught.value.code) == (409, "conversation_changed")

    run_in_store(scenario)


@pytest.mark.parametrize("kind", STORES)
async def test_parent_expired_while_a_turn_starts_is_not_found(kind: str, tmp_path: Path) -> None:
    now = 1_000_000.0
    store = await open_store(kind, tmp_path, RetentionPolicy(DAY_SECONDS), lambda: now)
    erasing = ErasingService(store)
    first = await erasing.service.store_turn(turn_request(SECRET))
    erasing.reset_sent()

    async def sweep() -> None:
        nonlocal now
        now = 1e11
        assert await store.stores.response_index.delete_expired() == 1

    erasing.model.erase = sweep
    with pytest.raises(NotFoundError):
        await erasing.run_turn("What is it?", first)
    assert erasing.sent_messages() == ""
    await erasing.service.close()


async def test_content_erased_by_another_process_is_not_sent(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    erasing = ErasingService(await open_sqlite(path))
    conversation = (await erasing.conversations.create(DEFAULT_TENANT)).id
    first = await erasing.run_turn(SECRET, conversation=conversation)
    second = await erasing.run_turn("Thanks.", conversation=conversation)
    erasing.reset_sent()
    erasing.model.erase = lambda: run_child("delete", str(path), first.id)
    third = await erasing.run_turn("What is it?", conversation=conversation)
    assert third.previous_response_id == second.id
    assert "secret" not in erasing.sent_messages()
    erasing.reset_sent()
    erasing.model.erase = lambda: run_child("drop", str(path), conversation)
    with pytest.raises(NotFoundError):
        await erasing.run_turn("What is it?", conversation=conversation)
    assert erasing.sent_messages() == ""
    await erasing.service.close()


async def test_content_erased_before_the_turn_is_stored_restarts_the_turn() -> None:
    """The model call already runs: its answer about the erased content is discarded."""
    store = GatedStore()
    erasing = ErasingService(store)
    first = await erasing.run_turn(SECRET)
    second = await erasing.run_turn("Thanks.", first.id)
    store.begins.close()
    starting = asyncio.create_task(erasing.run_turn("What is it?", second.id))
    await run_ready_tasks()
    assert SECRET in erasing.sent_messages()
    await erasing.service.delete(DEFAULT_TENANT, first.id)
    erasing.reset_sent()
    store.begins.open()
    third = await starting
    assert contents(erasing.model)[0] == "Thanks."
    assert [one.id for one in await erasing.service.reader.chain(DEFAULT_TENANT, third.id)] == [
        second.id,
        third.id,
    ]
    await check_secret_is_not_sent(erasing, third)


@pytest.mark.parametrize("stored", [True, False])
def test_content_erased_while_a_tool_runs_is_not_sent_afterwards(
    run_in_store: ScenarioRunner, stored: bool
) -> None:
    async def scenario(erasing: ErasingService) -> None:
        first = await erasing.run_turn(SECRET)
        second = await erasing.run_turn("Thanks.", first.id)
        erasing.set_script([ONE_CALL, "Done."])

        async def work(call: FunctionCall) -> str:
            await erasing.service.delete(DEFAULT_TENANT, first.id)
            erasing.reset_sent()
            return "erased"

        third = await run_turn(
            erasing.service, "Go.", after=second.id, store=stored, tools=RecordingTools(work)
        )
        assert third.status == "completed"
        assert "secret" not in erasing.sent_messages()
        assert contents(erasing.model)[0] == "Thanks."
        erasing.set_script()
        await check_secret_is_not_sent(erasing, third if stored else second)

    run_in_store(scenario)


def test_content_erased_before_a_truncation_retry_is_not_sent_again(
    run_in_store: ScenarioRunner,
) -> None:
    async def scenario(erasing: ErasingService) -> None:
        ids: list[str] = []
        for text in (SECRET, "One.", "Two.", SECRET, "Three."):
            ids.append((await erasing.run_turn(text, ids[-1] if ids else None)).id)
        go, asked = asyncio.Event(), asyncio.Event()
        too_long = ContextLengthExceededError("Too long.", used=100, limit=90)
        erasing.set_script([wait(go, asked) + fail(too_long), say("Yes.")])
        options = Options(truncation="auto")
        turn = await erasing.service.start(turn_request("Go.", after=ids[-1], options=options))
        await asked.wait()
        for erased_id in (ids[0], ids[3]):
            await erasing.service.delete(DEFAULT_TENANT, erased_id)
        erasing.reset_sent()
        go.set()
        assert (await turn.result()).status == "completed"
        assert "secret" not in erasing.sent_messages()

    run_in_store(scenario)


def test_unstored_history_continues_without_erased_stored_turns(
    run_in_store: ScenarioRunner,
) -> None:
    async def scenario(erasing: ErasingService) -> None:
        first = await erasing.run_turn(SECRET)
        second = await erasing.run_turn("Thanks.", first.id)
        memory = UnstoredHistory()

        async def aside(text: str, after: str) -> str:
            request = turn_request(text, after=after, store=False)
            return (
                await (await erasing.service.start(request, unstored_history=memory)).result()
            ).id

        last = await aside("Aside?", second.id)
        last = await aside("More?", last)
        assert contents(erasing.model)[0] == SECRET
        await erasing.service.delete(DEFAULT_TENANT, first.id)
        erasing.reset_sent()
        last = await aside("And?", last)
        assert "secret" not in erasing.sent_messages()
        assert contents(erasing.model)[:3] == ["Thanks.", "Yes.", "Aside?"]
        await erasing.service.delete(DEFAULT_TENANT, second.id)
        with pytest.raises(NotFoundError) as caught:
            await aside("And?", last)
        assert caught.value.code == "previous_response_not_found"

    run_in_store(scenario)


def test_preview_context_omits_content_erased_meanwhile(run_in_store: ScenarioRunner) -> None:
    async def scenario(erasing: ErasingService) -> None:
        first = await erasing.run_turn(SECRET)
        second = await erasing.run_turn("Thanks.", first.id)
        erasing.model.erase = lambda: erasing.service.delete(DEFAULT_TENANT, first.id)
        request = TurnRequest((), previous_response_id=second.id, context_policies=BUDGET)
        sent_messages = await erasing.service.preview_context(request)
        assert sent_messages[0]["content"] == "Thanks."
        assert SECRET not in str(sent_messages)

    run_in_store(scenario)


def test_compaction_of_content_erased_meanwhile_is_a_conflict(run_in_store: ScenarioRunner) -> None:
    async def scenario(erasing: ErasingService) -> None:
        first = await erasing.run_turn(SECRET)
        go, asked = asyncio.Event(), asyncio.Event()
        erasing.set_script([wait(go, asked) + say(SECRET)])
        compacting = asyncio.create_task(
            erasing.service.compact(turn_request("And?", after=first.id))
        )
        await asked.wait()
        await erasing.service.delete(DEFAULT_TENANT, first.id)
        go.set()
        with pytest.raises(HistoryChangedError):
            await compacting

    run_in_store(scenario)


async def test_response_deleted_between_two_reads_is_not_found() -> None:
    """Its ancestors are not returned in its place."""

    class DeletingStore(MemoryStore):
        is_deleting = False

        async def chain(self, head: Head) -> list[StoredTurn]:
            if self.is_deleting:
                await self.delete(head.tenant, head.response_id)
            return await super().chain(head)

    store = DeletingStore()
    erasing = ErasingService(store)
    first = await erasing.run_turn("Hi.")
    for read in (
        erasing.service.reader.context,
        erasing.service.reader.messages,
        erasing.service.reader.chain,
    ):
        second = await erasing.run_turn(SECRET, first.id)
        store.is_deleting = True
        with pytest.raises(NotFoundError):
            await read(DEFAULT_TENANT, second.id)
        store.is_deleting = False


def test_turns_are_listed_in_start_order(run_in_store: ScenarioRunner) -> None:
    async def scenario(erasing: ErasingService) -> None:
        quick: list[Response] = []

        async def overtake() -> None:
            quick.append(await run_turn(erasing.service, "Quick."))

        erasing.model.erase = overtake
        slow = await erasing.run_turn("Slow.")
        assert slow.created_at >= quick[0].created_at
        listed = await erasing.store.stores.response_index.list_responses(
            DEFAULT_TENANT, 5, newest_first=False
        )
        assert [turn.response_id for turn in listed] == [quick[0].id, slow.id]

    run_in_store(scenario)
