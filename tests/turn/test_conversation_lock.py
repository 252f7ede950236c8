"""The conversation lock: one turn at a time, each from the head that successful turns move."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from antiphon.core.ids import new_conversation_id
from antiphon.core.turns import DEFAULT_TENANT, Response, TurnRequest
from antiphon.errors import (
    ConversationLockedError,
    InvalidRequestError,
    ModelError,
    NotFoundError,
)
from antiphon.models.model_registry import ModelRegistry
from antiphon.models.scripted import ScriptedModel, cut, fail, finish, hang, say, wait
from antiphon.stores.memory.store import MemoryStore
from antiphon.stores.sqlite.store import SqliteStore, open_sqlite
from antiphon.turn.conversations import ConversationService
from antiphon.turn.running_turns import RunningTurn
from antiphon.turn.service import TurnService
from support.stored_responses import response_ids_of_service
from support.turn_service import (
    STORES,
    GatedStore,
    contents,
    read_until,
    run,
    run_ready_tasks,
    texts,
    turn_request,
)

AnyStore = MemoryStore | SqliteStore


class LockedConversation:
    """A service, its model, and one conversation."""

    def __init__(self, store: AnyStore, model: ScriptedModel) -> None:
        self.model = model
        self.ledgers = store.stores
        catalog = ModelRegistry({"scripted": model}, default="scripted")
        self.service = TurnService(store, catalog, store.stores)
        self.conversations = ConversationService(
            self.service, self.ledgers.conversations, self.ledgers.search
        )
        self.id = ""

    async def start(self, text: str, **fields: Any) -> RunningTurn:
        return await self.service.start(request(self.id, text, **fields))

    async def run_turn(self, text: str, **fields: Any) -> Response:
        return await (await self.start(text, **fields)).result()

    async def head(self) -> str | None:
        found = await self.conversations.get(DEFAULT_TENANT, self.id)
        return found.head

    async def input_texts(self) -> list[str]:
        """The texts of the users' messages in the conversation."""
        turns = await self.conversations.turns(DEFAULT_TENANT, self.id)
        return [str(item.content) for turn in turns for item in turn.input]  # type: ignore[union-attr]


def request(conversation: str, text: str, *, queue: bool = False, **fields: Any) -> TurnRequest:
    return msgspec.structs.replace(
        turn_request(text, **fields),
        conversation=conversation,
        on_busy="queue" if queue else "refuse",
    )


@asynccontextmanager
async def open_conversation(
    store: AnyStore, model: ScriptedModel
) -> AsyncIterator[LockedConversation]:
    conversation = LockedConversation(store, model)
    conversation.id = (await conversation.conversations.create(DEFAULT_TENANT)).id
    try:
        yield conversation
    finally:
        await conversation.service.close()


@pytest.fixture(params=STORES)
def run_in_store(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Callable[[ScriptedModel, Callable[[LockedConversation], Awaitable[None]]], None]:
    """Runs a scenario with a conversation, in each kind of store."""

    def run_scenario(
        model: ScriptedModel, main: Callable[[LockedConversation], Awaitable[None]]
    ) -> None:
        async def main_with_store() -> None:
            store: AnyStore = (
                MemoryStore() if request.param == "memory" else await open_sqlite(tmp_path / "a.db")
            )
            async with open_conversation(store, model) as conversation:
                await main(conversation)

        run(main_with_store())

    return run_scenario


ScenarioRunner = Callable[[ScriptedModel, Callable[[LockedConversation], Awaitable[None]]], None]


async def check_locked(work: Awaitable[Any]) -> None:
    with pytest.raises(ConversationLockedError) as caught:
        await work
    assert (caught.value.code, caught.value.param, caught.value.status) == (
        "conversation_locked",
        "conversation",
        409,
    )


def test_each_turn_continues_from_the_previous_turn(run_in_store: ScenarioRunner) -> None:
    model = ScriptedModel()

    async def main(conversation: LockedConversation) -> None:
        previous = None
        for number in range(4):
            turn = await conversation.run_turn(f"{number}")
            assert turn.previous_response_id == previous
            assert turn.header.conversation == conversation.id
            assert await conversation.head() == turn.id
            previous = turn.id
        assert await conversation.input_texts() == ["0", "1", "2", "3"]

    run_in_store(model, main)


def test_second_turn_is_refused_while_a_turn_runs(run_in_store: ScenarioRunner) -> None:
    opened, reached = asyncio.Event(), asyncio.Event()
    model = ScriptedModel([say("One ") + wait(opened, reached) + say("two."), "Three."])

    async def main(conversation: LockedConversation) -> None:
        running = await conversation.start("first")
        # Before the turn is on disk, and after.
        await check_locked(conversation.start("second"))
        await read_until(running, "One ")
        await reached.wait()
        await check_locked(conversation.start("second"))
        await check_locked(
            conversation.conversations.add(
                DEFAULT_TENANT, conversation.id, turn_request("third").input
            )
        )
        opened.set()
        first = await running.result()
        assert (await conversation.run_turn("second")).previous_response_id == first.id
        assert len(model.calls) == 2
        assert await conversation.input_texts() == ["first", "second"]

    run_in_store(model, main)


def test_queued_turns_run_in_arrival_order(run_in_store: ScenarioRunner) -> None:
    opened = asyncio.Event()
    model = ScriptedModel([say("One ") + wait(opened) + say("two."), *["Yes."] * 5])

    async def main(conversation: LockedConversation) -> None:
        running = await conversation.start("0")
        await read_until(running, "One ")
        waiting = []
        for number in range(1, 6):
            waiting.append(asyncio.create_task(conversation.run_turn(f"{number}", queue=True)))
            await run_ready_tasks()
        await check_locked(conversation.start("impatient"))
        opened.set()
        ended = [await running.result(), *await asyncio.gather(*waiting)]
        assert [one.previous_response_id for one in ended[1:]] == [one.id for one in ended[:-1]]
        assert await conversation.input_texts() == ["0", "1", "2", "3", "4", "5"]

    run_in_store(model, main)


def test_cancelled_waiter_does_not_block_other_waiters(run_in_store: ScenarioRunner) -> None:
    opened = asyncio.Event()
    model = ScriptedModel([say("One ") + wait(opened) + say("two."), "Yes."])

    async def main(conversation: LockedConversation) -> None:
        await read_until(running := await conversation.start("0"), "One ")
        leaving = asyncio.create_task(conversation.run_turn("leaves", queue=True))
        await run_ready_tasks()
        remaining = asyncio.create_task(conversation.run_turn("stays", queue=True))
        await run_ready_tasks()
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        opened.set()
        assert (await remaining).previous_response_id == running.response_id
        assert await conversation.input_texts() == ["0", "stays"]

    run_in_store(model, main)


def test_failed_or_cancelled_turn_does_not_move_the_head(run_in_store: ScenarioRunner) -> None:
    model = ScriptedModel(
        [
            "Hello.",
            fail(ModelError("It broke.")),
            say("Half") + cut(),
            say("Long") + hang(),
            "At last.",
        ]
    )

    async def main(conversation: LockedConversation) -> None:
        first = await conversation.run_turn("Hi.")
        for _ in range(2):
            failed = await conversation.run_turn("And?")
            assert failed.status == "failed"
            assert failed.previous_response_id == first.id
            assert await conversation.head() == first.id
        await read_until(running := await conversation.start("And?"), "Long")
        await running.cancel()
        assert await conversation.head() == first.id
        good = await conversation.run_turn("And?")
        assert contents(model) == ["Hi.", "Hello.", "And?"]
        assert good.previous_response_id == first.id
        assert await conversation.input_texts() == ["Hi.", "And?"]
        # The failed turn is stored, and can be continued by its id.
        assert (
            await conversation.service.reader.response(DEFAULT_TENANT, failed.id)
        ).status == "failed"

    run_in_store(model, main)


def test_incomplete_turn_moves_the_head(run_in_store: ScenarioRunner) -> None:
    model = ScriptedModel([say("Much") + finish("length")])

    async def main(conversation: LockedConversation) -> None:
        turn = await conversation.run_turn("Hi.")
        assert turn.status == "incomplete"
        assert await conversation.head() == turn.id

    run_in_store(model, main)


def test_failed_first_turn_leaves_the_conversation_empty(run_in_store: ScenarioRunner) -> None:
    model = ScriptedModel([fail(ModelError("It broke.")), "Hello."])

    async def main(conversation: LockedConversation) -> None:
        await conversation.run_turn("Hi.")
        assert await conversation.head() is None
        assert (await conversation.run_turn("Hi.")).previous_response_id is None
        assert await conversation.input_texts() == ["Hi."]

    run_in_store(model, main)


def test_unstored_turn_reads_the_conversation_without_changing_it(
    run_in_store: ScenarioRunner,
) -> None:
    opened = asyncio.Event()
    model = ScriptedModel(["Hello.", "Unheard.", say("One ") + wait(opened), "Aside."])

    async def main(conversation: LockedConversation) -> None:
        first = await conversation.run_turn("Hi.")
        aside = await conversation.run_turn("Aside?", store=False)
        assert contents(model) == ["Hi.", "Hello.", "Aside?"]
        assert texts(aside) == ["Unheard."]
        assert await conversation.head() == first.id
        # Also while a turn runs, which it does not see.
        await read_until(running := await conversation.start("Slow."), "One ")
        await conversation.run_turn("Aside?", store=False)
        assert contents(model) == ["Hi.", "Hello.", "Aside?"]
        opened.set()
        await running.result()
        assert await conversation.input_texts() == ["Hi.", "Slow."]

    run_in_store(model, main)


def test_refused_turn_releases_the_lock(run_in_store: ScenarioRunner) -> None:
    async def main(conversation: LockedConversation) -> None:
        for _ in range(2):
            with pytest.raises(InvalidRequestError):
                await conversation.start("")
        assert (await conversation.run_turn("Hi.")).status == "completed"

    run_in_store(ScriptedModel(), main)


def test_empty_input_on_an_empty_conversation_is_refused(run_in_store: ScenarioRunner) -> None:
    async def main(conversation: LockedConversation) -> None:
        for store in (True, False):
            nothing = TurnRequest((), conversation=conversation.id, store=store)
            with pytest.raises(InvalidRequestError) as caught:
                await conversation.service.start(nothing)
            assert caught.value.code == "empty_input"
        await conversation.run_turn("Hi.")
        turn = await conversation.service.start(TurnRequest((), conversation=conversation.id))
        assert (await turn.result()).status == "completed"

    run_in_store(ScriptedModel(), main)


def test_other_tenants_conversation_is_not_found_even_while_locked(
    run_in_store: ScenarioRunner,
) -> None:
    opened = asyncio.Event()
    model = ScriptedModel([say("One ") + wait(opened), "Two."])

    async def refusal(
        conversation: LockedConversation, name: str, **fields: Any
    ) -> tuple[str, ...]:
        with pytest.raises(NotFoundError) as caught:
            await conversation.service.start(request(name, "Hi.", tenant="other", **fields))
        error = caught.value
        return (error.code, str(error.param), error.message.replace(f"'{name}'", "ID"))

    async def main(conversation: LockedConversation) -> None:
        refusals = set()

        async def check_refusals() -> None:
            for name in (conversation.id, new_conversation_id(), "conv_1", ""):
                for fields in ({}, {"queue": True}, {"store": False}):
                    refusals.add(await refusal(conversation, name, **fields))

        await check_refusals()
        await read_until(running := await conversation.start("Hi."), "One ")
        await check_refusals()
        queued = asyncio.create_task(conversation.run_turn("Next.", queue=True))
        await run_ready_tasks()
        await asyncio.wait_for(check_refusals(), 30)
        opened.set()
        await running.result()
        await queued
        await check_refusals()
        assert {one[:2] for one in refusals} == {("conversation_not_found", "conversation")}
        assert len(refusals) == 1

    run_in_store(model, main)


def test_deleting_a_conversation_ends_running_and_queued_turns(
    run_in_store: ScenarioRunner,
) -> None:
    model = ScriptedModel([say("One ") + hang()])

    async def main(conversation: LockedConversation) -> None:
        await read_until(running := await conversation.start("Hi."), "One ")
        waiting = asyncio.create_task(conversation.run_turn("Next.", queue=True))
        await run_ready_tasks()
        await conversation.conversations.delete(DEFAULT_TENANT, conversation.id)
        # The queued turn began before the deletion, or found nothing.
        await asyncio.wait([waiting])
        assert waiting.exception() is None or isinstance(waiting.exception(), NotFoundError)
        with pytest.raises(NotFoundError):
            await conversation.service.reader.response(DEFAULT_TENANT, running.response_id)
        with pytest.raises(NotFoundError):
            await conversation.run_turn("More.")
        assert await response_ids_of_service(conversation.service) == []
        assert model.cancelled.is_set()

    run_in_store(model, main)


async def test_queued_turn_waits_until_the_previous_turn_is_stored() -> None:
    store = GatedStore()
    async with open_conversation(store, ScriptedModel(["One.", "Two."])) as conversation:
        store.begins.close()
        first = asyncio.create_task(conversation.start("1"))
        await run_ready_tasks()
        second = asyncio.create_task(conversation.run_turn("2", queue=True))
        await run_ready_tasks()
        await check_locked(conversation.start("impatient"))
        store.begins.open()
        assert (await second).previous_response_id == (await first).response_id


async def test_conversation_deleted_before_its_first_turn_is_stored_stores_none() -> None:
    store = GatedStore()
    async with open_conversation(store, ScriptedModel(["One."])) as conversation:
        store.begins.close()
        first = asyncio.create_task(conversation.start("1"))
        await run_ready_tasks()
        await conversation.conversations.delete(DEFAULT_TENANT, conversation.id)
        store.begins.open()
        with pytest.raises(NotFoundError):
            await first
        assert await response_ids_of_service(conversation.service) == []


async def test_turn_in_another_process_is_refused_or_queued(tmp_path: Path) -> None:
    opened = asyncio.Event()
    here = await open_sqlite(tmp_path / "a.db")
    there = await open_sqlite(tmp_path / "a.db")
    model = ScriptedModel([say("One ") + wait(opened) + say("two.")])
    async with (
        open_conversation(here, model) as one,
        open_conversation(there, ScriptedModel(["Three."])) as two,
    ):
        two.id = one.id
        await read_until(running := await one.start("1"), "One ")
        await check_locked(two.start("2"))
        queued = asyncio.create_task(two.run_turn("2", queue=True))
        await run_ready_tasks()
        opened.set()
        first = await running.result()
        assert (await queued).previous_response_id == first.id
        assert await one.input_texts() == await two.input_texts() == ["1", "2"]


async def test_simultaneous_turns_in_two_processes_refuse_one(tmp_path: Path) -> None:
    here = await open_sqlite(tmp_path / "a.db")
    there = await open_sqlite(tmp_path / "a.db")
    async with (
        open_conversation(here, ScriptedModel()) as one,
        open_conversation(there, ScriptedModel()) as two,
    ):
        two.id = one.id
        for number in range(10):
            ended = await asyncio.gather(
                one.run_turn(f"{number} a"), two.run_turn(f"{number} b"), return_exceptions=True
            )
            errors = [one for one in ended if isinstance(one, BaseException)]
            assert [type(error) for error in errors] in ([], [ConversationLockedError])
            turns = await one.conversations.turns(DEFAULT_TENANT, one.id)
            completed_ids = {one.id for one in ended if isinstance(one, Response)}
            assert {turn.id for turn in turns[-len(completed_ids) :]} == completed_ids


CHILD = (sys.executable, str(Path(__file__).parents[1] / "support" / "turns_child.py"))


def check_chain(turns: list[Response], ids: set[str]) -> None:
    """The turns form one chain, and it has every acknowledged turn."""
    assert {turn.id for turn in turns} == ids
    assert len(turns) == len(ids)
    assert [turn.previous_response_id for turn in turns] == [None, *(one.id for one in turns[:-1])]
    times = [turn.created_at for turn in turns]
    assert times == sorted(times)


async def test_queued_turn_waits_for_a_faster_process(tmp_path: Path) -> None:
    """Both find the conversation free and begin at once: the later one waits."""
    here = await open_sqlite(tmp_path / "a.db")
    there = await open_sqlite(tmp_path / "a.db")
    model, other = ScriptedModel(), ScriptedModel()
    async with open_conversation(here, model) as one, open_conversation(there, other) as two:
        two.id = one.id
        ids: set[str] = set()
        for number in range(10):
            ended = await asyncio.gather(
                one.run_turn(f"{number} a", queue=True),
                two.run_turn(f"{number} b", queue=True, stream=False),
                one.service.store_turn(request(one.id, "aside", queue=True)),
            )
            assert [turn.status for turn in ended[:2]] == ["completed"] * 2
            ids |= {ended[0].id, ended[1].id}
        turns = await two.conversations.turns(DEFAULT_TENANT, one.id)
        assert ids < {turn.id for turn in turns}
        check_chain(turns, {turn.id for turn in turns})
        assert len(turns) == 30


async def test_two_processes_that_queue_turns_lose_none(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with open_conversation(await open_sqlite(path), ScriptedModel()) as conversation:
        children = [
            await asyncio.create_subprocess_exec(
                *(*CHILD, "queue", str(path), conversation.id, name, "50"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            for name in "ab"
        ]
        for child in children:
            assert child.stdout is not None
            assert await child.stdout.readline() == b"ready\n"
        input_texts = await asyncio.gather(*[child.communicate(b"go\n") for child in children])
        assert [child.returncode for child in children] == [0, 0]
        ends = [line.split() for out, _ in input_texts for line in out.decode().splitlines()]
        assert [status for _, status in ends] == ["completed"] * 100
        turns = await conversation.conversations.turns(DEFAULT_TENANT, conversation.id)
        check_chain(turns, {name for name, _ in ends})
        words = [str(item.content) for turn in turns for item in turn.input]  # type: ignore[union-attr]
        for name in "ab":
            # Turns of one process run in the order in which it requested them.
            mine = [one for one in words if one.startswith(name)]
            assert mine == [f"{name} {number}" for number in range(50)]
