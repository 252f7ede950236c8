"""Turns on a conversation: one at a time, each from the head, and only good ones move it."""

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


class Talk:
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

    async def turned(self, text: str, **fields: Any) -> Response:
        return await (await self.start(text, **fields)).result()

    async def head(self) -> str | None:
        found = await self.conversations.get(DEFAULT_TENANT, self.id)
        return found.head

    async def said(self) -> list[str]:
        """What the conversation holds: the users' words."""
        turns = await self.conversations.turns(DEFAULT_TENANT, self.id)
        return [str(item.content) for turn in turns for item in turn.input]  # type: ignore[union-attr]


def request(conversation: str, text: str, *, queue: bool = False, **fields: Any) -> TurnRequest:
    return msgspec.structs.replace(
        turn_request(text, **fields),
        conversation=conversation,
        on_busy="queue" if queue else "refuse",
    )


@asynccontextmanager
async def talking(store: AnyStore, model: ScriptedModel) -> AsyncIterator[Talk]:
    talk = Talk(store, model)
    talk.id = (await talk.conversations.create(DEFAULT_TENANT)).id
    try:
        yield talk
    finally:
        await talk.service.close()


@pytest.fixture(params=STORES)
def story(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Callable[[ScriptedModel, Callable[[Talk], Awaitable[None]]], None]:
    """Runs a test's story with a conversation, in each kind of store."""

    def told(model: ScriptedModel, main: Callable[[Talk], Awaitable[None]]) -> None:
        async def whole() -> None:
            store: AnyStore = (
                MemoryStore() if request.param == "memory" else await open_sqlite(tmp_path / "a.db")
            )
            async with talking(store, model) as talk:
                await main(talk)

        run(whole())

    return told


Teller = Callable[[ScriptedModel, Callable[[Talk], Awaitable[None]]], None]


async def locked(work: Awaitable[Any]) -> None:
    with pytest.raises(ConversationLockedError) as caught:
        await work
    assert (caught.value.code, caught.value.param, caught.value.status) == (
        "conversation_locked",
        "conversation",
        409,
    )


def test_each_turn_goes_on_from_the_last(story: Teller) -> None:
    model = ScriptedModel()

    async def main(talk: Talk) -> None:
        previous = None
        for number in range(4):
            turn = await talk.turned(f"{number}")
            assert turn.previous_response_id == previous
            assert turn.header.conversation == talk.id
            assert await talk.head() == turn.id
            previous = turn.id
        assert await talk.said() == ["0", "1", "2", "3"]

    story(model, main)


def test_a_second_turn_is_refused_while_one_runs(story: Teller) -> None:
    opened, reached = asyncio.Event(), asyncio.Event()
    model = ScriptedModel([say("One ") + wait(opened, reached) + say("two."), "Three."])

    async def main(talk: Talk) -> None:
        running = await talk.start("first")
        # Before it is on disk, and after.
        await locked(talk.start("second"))
        await read_until(running, "One ")
        await reached.wait()
        await locked(talk.start("second"))
        await locked(talk.conversations.add(DEFAULT_TENANT, talk.id, turn_request("third").input))
        opened.set()
        first = await running.result()
        assert (await talk.turned("second")).previous_response_id == first.id
        assert len(model.calls) == 2
        assert await talk.said() == ["first", "second"]

    story(model, main)


def test_who_queues_is_served_in_the_order_of_coming(story: Teller) -> None:
    opened = asyncio.Event()
    model = ScriptedModel([say("One ") + wait(opened) + say("two."), *["Yes."] * 5])

    async def main(talk: Talk) -> None:
        running = await talk.start("0")
        await read_until(running, "One ")
        waiting = []
        for number in range(1, 6):
            waiting.append(asyncio.create_task(talk.turned(f"{number}", queue=True)))
            await run_ready_tasks()
        await locked(talk.start("impatient"))
        opened.set()
        ended = [await running.result(), *await asyncio.gather(*waiting)]
        assert [one.previous_response_id for one in ended[1:]] == [one.id for one in ended[:-1]]
        assert await talk.said() == ["0", "1", "2", "3", "4", "5"]

    story(model, main)


def test_who_stops_waiting_keeps_nobody_else(story: Teller) -> None:
    opened = asyncio.Event()
    model = ScriptedModel([say("One ") + wait(opened) + say("two."), "Yes."])

    async def main(talk: Talk) -> None:
        await read_until(running := await talk.start("0"), "One ")
        leaves = asyncio.create_task(talk.turned("leaves", queue=True))
        await run_ready_tasks()
        stays = asyncio.create_task(talk.turned("stays", queue=True))
        await run_ready_tasks()
        leaves.cancel()
        await asyncio.gather(leaves, return_exceptions=True)
        opened.set()
        assert (await stays).previous_response_id == running.response_id
        assert await talk.said() == ["0", "stays"]

    story(model, main)


def test_a_turn_that_ends_badly_leaves_the_head_and_is_not_shown(story: Teller) -> None:
    model = ScriptedModel(
        [
            "Hello.",
            fail(ModelError("It broke.")),
            say("Half") + cut(),
            say("Long") + hang(),
            "At last.",
        ]
    )

    async def main(talk: Talk) -> None:
        first = await talk.turned("Hi.")
        for _ in range(2):
            failed = await talk.turned("And?")
            assert failed.status == "failed"
            assert failed.previous_response_id == first.id
            assert await talk.head() == first.id
        await read_until(running := await talk.start("And?"), "Long")
        await running.cancel()
        assert await talk.head() == first.id
        good = await talk.turned("And?")
        assert contents(model) == ["Hi.", "Hello.", "And?"]
        assert good.previous_response_id == first.id
        assert await talk.said() == ["Hi.", "And?"]
        # What failed is kept, and can be continued by its id.
        assert (await talk.service.reader.response(DEFAULT_TENANT, failed.id)).status == "failed"

    story(model, main)


def test_an_incomplete_turn_moves_the_head(story: Teller) -> None:
    model = ScriptedModel([say("Much") + finish("length")])

    async def main(talk: Talk) -> None:
        turn = await talk.turned("Hi.")
        assert turn.status == "incomplete"
        assert await talk.head() == turn.id

    story(model, main)


def test_the_first_turn_may_fail_too(story: Teller) -> None:
    model = ScriptedModel([fail(ModelError("It broke.")), "Hello."])

    async def main(talk: Talk) -> None:
        await talk.turned("Hi.")
        assert await talk.head() is None
        assert (await talk.turned("Hi.")).previous_response_id is None
        assert await talk.said() == ["Hi."]

    story(model, main)


def test_an_unstored_turn_reads_a_conversation_and_leaves_it(story: Teller) -> None:
    opened = asyncio.Event()
    model = ScriptedModel(["Hello.", "Unheard.", say("One ") + wait(opened), "Aside."])

    async def main(talk: Talk) -> None:
        first = await talk.turned("Hi.")
        aside = await talk.turned("Aside?", store=False)
        assert contents(model) == ["Hi.", "Hello.", "Aside?"]
        assert texts(aside) == ["Unheard."]
        assert await talk.head() == first.id
        # Also while a turn runs, which it does not see.
        await read_until(running := await talk.start("Slow."), "One ")
        await talk.turned("Aside?", store=False)
        assert contents(model) == ["Hi.", "Hello.", "Aside?"]
        opened.set()
        await running.result()
        assert await talk.said() == ["Hi.", "Slow."]

    story(model, main)


def test_a_refused_turn_lets_the_next_one_in(story: Teller) -> None:
    async def main(talk: Talk) -> None:
        for _ in range(2):
            with pytest.raises(InvalidRequestError):
                await talk.start("")
        assert (await talk.turned("Hi.")).status == "completed"

    story(ScriptedModel(), main)


def test_nothing_to_say_on_an_empty_conversation_is_empty(story: Teller) -> None:
    async def main(talk: Talk) -> None:
        for store in (True, False):
            nothing = TurnRequest((), conversation=talk.id, store=store)
            with pytest.raises(InvalidRequestError) as caught:
                await talk.service.start(nothing)
            assert caught.value.code == "empty_input"
        await talk.turned("Hi.")
        turn = await talk.service.start(TurnRequest((), conversation=talk.id))
        assert (await turn.result()).status == "completed"

    story(ScriptedModel(), main)


def test_a_foreign_conversation_is_a_missing_one_even_while_it_is_busy(story: Teller) -> None:
    opened = asyncio.Event()
    model = ScriptedModel([say("One ") + wait(opened), "Two."])

    async def refusal(talk: Talk, name: str, **fields: Any) -> tuple[str, ...]:
        with pytest.raises(NotFoundError) as caught:
            await talk.service.start(request(name, "Hi.", tenant="other", **fields))
        error = caught.value
        return (error.code, str(error.param), error.message.replace(f"'{name}'", "ID"))

    async def main(talk: Talk) -> None:
        seen = set()

        async def look() -> None:
            for name in (talk.id, new_conversation_id(), "conv_1", ""):
                for fields in ({}, {"queue": True}, {"store": False}):
                    seen.add(await refusal(talk, name, **fields))

        await look()
        await read_until(running := await talk.start("Hi."), "One ")
        await look()
        queued = asyncio.create_task(talk.turned("Next.", queue=True))
        await run_ready_tasks()
        await asyncio.wait_for(look(), 30)
        opened.set()
        await running.result()
        await queued
        await look()
        assert {one[:2] for one in seen} == {("conversation_not_found", "conversation")}
        assert len(seen) == 1

    story(model, main)


def test_a_conversation_that_is_deleted_is_gone_for_who_waits(story: Teller) -> None:
    model = ScriptedModel([say("One ") + hang()])

    async def main(talk: Talk) -> None:
        await read_until(running := await talk.start("Hi."), "One ")
        waiting = asyncio.create_task(talk.turned("Next.", queue=True))
        await run_ready_tasks()
        await talk.conversations.delete(DEFAULT_TENANT, talk.id)
        # It has begun on what was still there, or found nothing.
        await asyncio.wait([waiting])
        assert waiting.exception() is None or isinstance(waiting.exception(), NotFoundError)
        with pytest.raises(NotFoundError):
            await talk.service.reader.response(DEFAULT_TENANT, running.response_id)
        with pytest.raises(NotFoundError):
            await talk.turned("More.")
        assert await talk.service.reader.recent_threads(DEFAULT_TENANT, 10) == []
        assert model.cancelled.is_set()

    story(model, main)


async def test_a_turn_whose_beginning_is_late_is_not_overtaken_nor_left_behind() -> None:
    store = GatedStore()
    async with talking(store, ScriptedModel(["One.", "Two."])) as talk:
        store.begins.close()
        first = asyncio.create_task(talk.start("1"))
        await run_ready_tasks()
        second = asyncio.create_task(talk.turned("2", queue=True))
        await run_ready_tasks()
        await locked(talk.start("impatient"))
        store.begins.open()
        assert (await second).previous_response_id == (await first).response_id


async def test_a_conversation_deleted_before_its_first_turn_is_on_disk_takes_none() -> None:
    store = GatedStore()
    async with talking(store, ScriptedModel(["One."])) as talk:
        store.begins.close()
        first = asyncio.create_task(talk.start("1"))
        await run_ready_tasks()
        await talk.conversations.delete(DEFAULT_TENANT, talk.id)
        store.begins.open()
        with pytest.raises(NotFoundError):
            await first
        assert await talk.service.reader.recent_threads(DEFAULT_TENANT, 10) == []


async def test_another_process_is_waited_for_or_refused(tmp_path: Path) -> None:
    opened = asyncio.Event()
    here = await open_sqlite(tmp_path / "a.db")
    there = await open_sqlite(tmp_path / "a.db")
    model = ScriptedModel([say("One ") + wait(opened) + say("two.")])
    async with talking(here, model) as one, talking(there, ScriptedModel(["Three."])) as two:
        two.id = one.id
        await read_until(running := await one.start("1"), "One ")
        await locked(two.start("2"))
        queued = asyncio.create_task(two.turned("2", queue=True))
        await run_ready_tasks()
        opened.set()
        first = await running.result()
        assert (await queued).previous_response_id == first.id
        assert await one.said() == await two.said() == ["1", "2"]


async def test_of_two_processes_that_begin_at_once_one_is_refused(tmp_path: Path) -> None:
    here = await open_sqlite(tmp_path / "a.db")
    there = await open_sqlite(tmp_path / "a.db")
    async with talking(here, ScriptedModel()) as one, talking(there, ScriptedModel()) as two:
        two.id = one.id
        for number in range(10):
            ended = await asyncio.gather(
                one.turned(f"{number} a"), two.turned(f"{number} b"), return_exceptions=True
            )
            errors = [one for one in ended if isinstance(one, BaseException)]
            assert [type(error) for error in errors] in ([], [ConversationLockedError])
            turns = await one.conversations.turns(DEFAULT_TENANT, one.id)
            kept = {one.id for one in ended if isinstance(one, Response)}
            assert {turn.id for turn in turns[-len(kept) :]} == kept


CHILD = (sys.executable, str(Path(__file__).parents[1] / "support" / "turns_child.py"))


def check_line(turns: list[Response], ids: set[str]) -> None:
    """One line of turns, each behind the one before, and all that were acknowledged."""
    assert {turn.id for turn in turns} == ids
    assert len(turns) == len(ids)
    assert [turn.previous_response_id for turn in turns] == [None, *(one.id for one in turns[:-1])]
    times = [turn.created_at for turn in turns]
    assert times == sorted(times)


async def test_who_queues_waits_for_another_process_that_was_faster(tmp_path: Path) -> None:
    """Both find the conversation free and begin at once: the one that comes late waits."""
    here = await open_sqlite(tmp_path / "a.db")
    there = await open_sqlite(tmp_path / "a.db")
    model, other = ScriptedModel(), ScriptedModel()
    async with talking(here, model) as one, talking(there, other) as two:
        two.id = one.id
        ids: set[str] = set()
        for number in range(10):
            ended = await asyncio.gather(
                one.turned(f"{number} a", queue=True),
                two.turned(f"{number} b", queue=True, stream=False),
                one.service.store_turn(request(one.id, "aside", queue=True)),
            )
            assert [turn.status for turn in ended[:2]] == ["completed"] * 2
            ids |= {ended[0].id, ended[1].id}
        turns = await two.conversations.turns(DEFAULT_TENANT, one.id)
        assert ids < {turn.id for turn in turns}
        check_line(turns, {turn.id for turn in turns})
        assert len(turns) == 30


async def test_two_processes_that_queue_lose_no_turn(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with talking(await open_sqlite(path), ScriptedModel()) as talk:
        children = [
            await asyncio.create_subprocess_exec(
                *(*CHILD, "queue", str(path), talk.id, name, "50"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            for name in "ab"
        ]
        for child in children:
            assert child.stdout is not None
            assert await child.stdout.readline() == b"ready\n"
        said = await asyncio.gather(*[child.communicate(b"go\n") for child in children])
        assert [child.returncode for child in children] == [0, 0]
        ends = [line.split() for out, _ in said for line in out.decode().splitlines()]
        assert [status for _, status in ends] == ["completed"] * 100
        turns = await talk.conversations.turns(DEFAULT_TENANT, talk.id)
        check_line(turns, {name for name, _ in ends})
        words = [str(item.content) for turn in turns for item in turn.input]  # type: ignore[union-attr]
        for name in "ab":
            # Those of one process come in the order in which they asked.
            mine = [one for one in words if one.startswith(name)]
            assert mine == [f"{name} {number}" for number in range(50)]
