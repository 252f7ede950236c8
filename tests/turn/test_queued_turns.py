"""Queued turns: what waits behind a turn that runs, when it begins, and what keeps it waiting."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.cli.interactive.chat_session import ChatSession
from antiphon.core.ids import item_id
from antiphon.core.items import FunctionCallOutput
from antiphon.core.retention import DAY_SECONDS, RETAIN_FOREVER, Clock, RetentionPolicy
from antiphon.core.turns import FunctionTool, Options, Response
from antiphon.errors import (
    InvalidRequestError,
    ModelError,
    NotFoundError,
    ResponseInProgressError,
    ServerBusyError,
)
from antiphon.models.model_registry import ModelRegistry
from antiphon.models.scripted import Messages, ScriptedModel, ScriptedReply, call, calls, fail, say
from antiphon.models.scripted import wait as until
from antiphon.transfer.chat_exporter import ChatExporter
from antiphon.transfer.chat_file import ChatFile
from antiphon.transfer.chat_importer import ChatImporter
from antiphon.turn.chats import ChatService
from antiphon.turn.conversations import ConversationService
from antiphon.turn.queued_turns import _RECHECK_INTERVAL
from antiphon.turn.running_turns import RunningTurn
from antiphon.turn.service import TurnService
from antiphon.turn.store_protocols import Stores
from support.store_turns import STORES, ManualClock, opener
from support.turn_service import contents, run_turn, texts, turn_request


class Steered:
    """A model that answers "a" to "a" and so on; a turn that ends with "…" waits for its gate."""

    def __init__(self) -> None:
        self.gates: dict[str, asyncio.Event] = {}
        self.reached: dict[str, asyncio.Event] = {}
        self.model = ScriptedModel(self._answer)

    def open(self, text: str) -> None:
        self.gates.setdefault(text, asyncio.Event()).set()

    async def asked(self, turn: RunningTurn, text: str) -> None:
        """Wait until the turn is stored, and its model is asked."""
        await turn.wait_until_stored()
        await self.reached.setdefault(text, asyncio.Event()).wait()

    def _answer(self, messages: Messages) -> ScriptedReply | str:
        text = str(messages[-1]["content"])
        if text.startswith("fail"):
            return until(self.gates.setdefault(text, asyncio.Event())) + fail(ModelError("No."))
        reached = self.reached.setdefault(text, asyncio.Event())
        if text.startswith("call"):
            gate = self.gates.setdefault(text, asyncio.Event())
            return until(gate, reached) + calls(call("look", {}, call_id="c"))
        if not text.endswith("…"):
            return text
        return until(self.gates.setdefault(text, asyncio.Event()), reached) + say(text)


@asynccontextmanager
async def serving(
    kind: str, folder: Path, lifetimes: RetentionPolicy = RETAIN_FOREVER, clock: Clock = time.time
) -> AsyncIterator[tuple[TurnService, Steered]]:
    async with opener(kind, folder)(clock, lifetimes) as store:
        steered = Steered()
        registry = ModelRegistry({"scripted": steered.model}, default="scripted")
        service = TurnService(store, registry, store.stores)
        yield service, steered
        await service.interrupt()


async def queue(service: TurnService, text: str, after: str, tenant: str = "") -> RunningTurn:
    request = turn_request(text, after=after, background=True, on_busy="queue")
    return await service.start(msgspec.structs.replace(request, tenant=tenant))


async def status(service: TurnService, turn: RunningTurn) -> str:
    return (await service.reader.response("", turn.response_id)).status


async def ended(turn: RunningTurn) -> Response:
    return await asyncio.wait_for(turn.result(), 30)


@pytest.fixture(params=STORES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_turn_begins_though_what_waits_behind_it_is_erased_just_then(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(kind, tmp_path) as (service, steered):
        first = await service.start(turn_request("one…"))
        await steered.asked(first, "one…")
        second = await queue(service, "two", first.response_id)
        third = await queue(service, "three", second.response_id)
        planner = service._planner
        plan = planner._plan_restart
        erased: list[str] = []

        async def plan_while_erasing(*arguments: Any) -> Any:
            if not erased:
                erased.append(third.response_id)
                await service.delete("", third.response_id)
            return await plan(*arguments)

        monkeypatch.setattr(planner, "_plan_restart", plan_while_erasing)
        steered.open("one…")
        assert (await ended(second)).status == "completed"
        assert erased


async def test_queued_turns_run_one_after_another_in_their_order(kind: str, tmp_path: Path) -> None:
    async with serving(kind, tmp_path) as (service, steered):
        first = await service.start(turn_request("one…"))
        await steered.asked(first, "one…")
        second = await queue(service, "two…", first.response_id)
        third = await queue(service, "three", second.response_id)
        assert [await status(service, one) for one in (first, second, third)] == [
            "in_progress",
            "queued",
            "queued",
        ]
        steered.open("one…")
        await steered.asked(second, "two…")
        assert [await status(service, one) for one in (first, second, third)] == [
            "completed",
            "in_progress",
            "queued",
        ]
        steered.open("two…")
        assert texts(await ended(third)) == ["three"]
        assert contents(steered.model) == ["one…", "one…", "two…", "two…", "three"]
        assert len(steered.model.calls) == 3
        chain = await service.reader.chain("", third.response_id)
        assert [one.status for one in chain] == ["completed"] * 3


async def test_turn_behind_an_answered_one_begins_at_once(kind: str, tmp_path: Path) -> None:
    async with serving(kind, tmp_path) as (service, _):
        first = await run_turn(service, "one")
        second = await queue(service, "two", first.id)
        assert not second.is_queued
        assert texts(await ended(second)) == ["two"]


@pytest.mark.parametrize("way", ["fails", "is stopped"])
async def test_turn_behind_one_that_is_not_answered_waits(
    kind: str, tmp_path: Path, way: str
) -> None:
    async with serving(kind, tmp_path) as (service, steered):
        text = "fail" if way == "fails" else "one…"
        first = await service.start(turn_request(text))
        await first.wait_until_stored()
        second = await queue(service, "two", first.response_id)
        third = await queue(service, "three", second.response_id)
        if way == "fails":
            steered.open(text)
        else:
            await steered.asked(first, text)
            await service.cancel("", first.response_id)
        await ended(first)
        late = await queue(service, "late", first.response_id)
        assert [await status(service, one) for one in (second, third, late)] == ["queued"] * 3
        # Whoever wants it to be sent says so.
        again = await run_turn(service, "two", after=first.response_id, background=True)
        assert texts(again) == ["two"]
        assert await status(service, second) == "queued"
        # What was erased holds nothing back.
        await service.delete("", first.response_id)
        assert texts(await ended(third)) == ["three"]
        assert texts(await ended(late)) == ["late"]


async def test_removed_turn_is_never_sent_and_the_next_one_goes_on(
    kind: str, tmp_path: Path
) -> None:
    async with serving(kind, tmp_path) as (service, steered):
        first = await service.start(turn_request("one…"))
        await steered.asked(first, "one…")
        second = await queue(service, "two", first.response_id)
        third = await queue(service, "three", second.response_id)
        await service.delete("", second.response_id)
        with pytest.raises(NotFoundError):
            await service.reader.response("", second.response_id)
        assert await status(service, third) == "queued"
        steered.open("one…")
        assert texts(await ended(third)) == ["three"]
        assert contents(steered.model) == ["one…", "one…", "three"]


async def test_stopped_queued_turn_keeps_its_words_and_holds_back_the_next(
    kind: str, tmp_path: Path
) -> None:
    async with serving(kind, tmp_path) as (service, steered):
        first = await service.start(turn_request("one…"))
        await steered.asked(first, "one…")
        second = await queue(service, "two", first.response_id)
        third = await queue(service, "three", second.response_id)
        stopped = await service.cancel("", second.response_id)
        assert (stopped.status, stopped.output) == ("cancelled", ())
        steered.open("one…")
        await ended(first)
        assert [await status(service, one) for one in (second, third)] == ["cancelled", "queued"]
        assert len(steered.model.calls) == 1


async def test_turn_waits_behind_calls_without_outputs(kind: str, tmp_path: Path) -> None:
    async with serving(kind, tmp_path) as (service, steered):
        tools = Options(tools=(FunctionTool("look", parameters={"type": "object"}),))
        first = await service.start(turn_request("call", options=tools))
        await steered.asked(first, "call")
        second = await queue(service, "two", first.response_id)
        steered.open("call")
        await ended(first)
        assert await status(service, second) == "queued"
        with pytest.raises(ResponseInProgressError):
            await queue(service, "late", first.response_id)
        output = FunctionCallOutput("c", "seen")
        answered = await run_turn(service, output, "well", after=first.response_id)
        assert texts(answered) == ["well"]
        assert await status(service, second) == "queued"


async def test_requests_that_cannot_wait_are_refused(kind: str, tmp_path: Path) -> None:
    async with serving(kind, tmp_path) as (service, steered):
        first = await service.start(turn_request("one…"))
        await steered.asked(first, "one…")
        with pytest.raises(ResponseInProgressError):
            await service.start(turn_request("two", after=first.response_id, background=True))
        with pytest.raises(ResponseInProgressError):
            await service.start(turn_request("two", after=first.response_id, on_busy="queue"))
        with pytest.raises(InvalidRequestError):
            await queue(service, "", first.response_id)
        with pytest.raises(NotFoundError):
            await queue(service, "two", first.response_id, tenant="other")
        output = turn_request(
            FunctionCallOutput("c", "seen"),
            after=first.response_id,
            background=True,
            on_busy="queue",
        )
        with pytest.raises(InvalidRequestError):
            await service.start(output)
        steered.open("one…")
        await ended(first)
        chats = await ChatService(service, _stores(service)).list_chats("", 10)
        assert [one.turns for one in chats] == [1]


def _stores(service: TurnService) -> Stores:
    assert service.stores is not None
    return service.stores


async def test_chat_shows_what_its_queue_waits_for(kind: str, tmp_path: Path) -> None:
    async with serving(kind, tmp_path) as (service, steered):
        chats = ChatService(service, _stores(service))
        first = await service.start(turn_request("one…"))
        await steered.asked(first, "one…")
        last = await queue(service, "two", first.response_id)
        # More than are read at once.
        for _ in range(17):
            last = await queue(service, "more", last.response_id)
        (running,) = await chats.list_chats("", 10)
        assert running.status == "running"
        await service.cancel("", first.response_id)
        (idle,) = await chats.list_chats("", 10)
        assert idle.status == "idle"
        assert await chats.get("", first.response_id) == idle


async def test_queued_turn_is_exported_as_that_and_nothing_is_asked_where_it_is_imported(
    kind: str, tmp_path: Path
) -> None:
    async with serving(kind, tmp_path / "here") as (service, steered):
        first = await service.start(turn_request("one…"))
        await steered.asked(first, "one…")
        last = await queue(service, "two", first.response_id)
        document = await _exported(service)
        ends = [(one["status"], one["incomplete_reason"]) for one in document["turns"]]
        assert ends == [("incomplete", "interrupted"), ("incomplete", "queued")]
    async with serving("memory", tmp_path) as (service, steered):
        file = ChatFile(io.BytesIO(json.dumps(document).encode()))
        importer = ChatImporter(_stores(service).chat_transfer, "", file)
        assert [one.status async for one in importer.run()] == ["imported"]
        assert await _exported(service) == document
        assert await status(service, last) == "incomplete"
        assert steered.model.calls == []


async def _exported(service: TurnService) -> dict[str, Any]:
    exporter = ChatExporter(service, ChatService(service, _stores(service)), "")
    pieces = [piece async for piece in exporter.all_documents()]
    document: dict[str, Any] = json.loads(b"".join(pieces))
    return document


async def test_erased_chat_takes_its_queue_along(kind: str, tmp_path: Path) -> None:
    async with serving(kind, tmp_path) as (service, steered):
        chats = ChatService(service, _stores(service))
        first = await service.start(turn_request("one…"))
        await steered.asked(first, "one…")
        second = await queue(service, "two", first.response_id)
        third = await queue(service, "three", second.response_id)
        await chats.delete("", first.response_id)
        for turn in (first, second, third):
            with pytest.raises(NotFoundError):
                await service.reader.response("", turn.response_id)
        assert service.registry.all() == []
        assert len(steered.model.calls) == 1


async def test_turn_begins_once_the_call_that_it_waits_for_is_erased(
    kind: str, tmp_path: Path
) -> None:
    async with serving(kind, tmp_path) as (service, steered):
        conversations = ConversationService(
            service, _stores(service).conversations, _stores(service).search
        )
        name = (await conversations.create("")).id
        first = await service.start(turn_request("call…", conversation=name))
        await steered.asked(first, "call…")
        second = await queue(service, "two", first.response_id)
        steered.open("call…")
        call_at = len((await ended(first)).input)
        await conversations.erase_item(
            "", name, item_id(first.response_id, "function_call", call_at)
        )
        # Long before it would look again by itself.
        answered = await asyncio.wait_for(second.result(), _RECHECK_INTERVAL / 2)
        assert texts(answered) == ["two"]


async def test_queue_is_erased_with_what_it_waits_for(kind: str, tmp_path: Path) -> None:
    async with serving(kind, tmp_path) as (service, steered):
        first = await service.start(turn_request("one…"))
        await steered.asked(first, "one…")
        second = await queue(service, "two", first.response_id)
        await service.delete("", first.response_id, cascade=True)
        with pytest.raises(NotFoundError):
            await service.reader.response("", second.response_id)
        await service.registry.wait_all()
        assert len(steered.model.calls) == 1


async def test_queue_that_nobody_has_sent_expires_with_its_chat(kind: str, tmp_path: Path) -> None:
    clock = ManualClock(time.time())
    lifetimes = RetentionPolicy(DAY_SECONDS)
    async with serving(kind, tmp_path, lifetimes, clock) as (service, steered):
        first = await service.start(turn_request("one…"))
        await steered.asked(first, "one…")
        second = await queue(service, "two", first.response_id)
        await service.cancel("", first.response_id)
        await run_turn(service, "other")
        clock.now += 2 * DAY_SECONDS
        with pytest.raises(NotFoundError):
            await service.reader.response("", second.response_id)
        index = _stores(service).response_index
        deleted = await index.delete_expired()
        # A look at what it waits for ends it; a node of a database may have looked by now.
        assert deleted in {1, 3}
        service._queued_turns.recheck()
        await service.registry.wait_all()
        assert deleted + await index.delete_expired() == 3
        assert len(steered.model.calls) == 2


@given(st.lists(st.integers(-6, 12), max_size=10))
def test_each_queued_turn_is_sent_once_and_in_order_unless_it_is_removed(steps: list[int]) -> None:
    async def scenario() -> None:
        async with serving("memory", Path()) as (service, steered):
            first = await service.start(turn_request("first…"))
            await steered.asked(first, "first…")
            waiting: list[tuple[str, RunningTurn]] = []
            for number, step in enumerate(steps):
                if step >= 0 or not waiting:
                    # Behind the last one, which may have been removed.
                    after = waiting[-1][1].response_id if waiting else first.response_id
                    waiting.append(
                        (f"text {number}", await queue(service, f"text {number}", after))
                    )
                else:
                    _, removed = waiting.pop(step % len(waiting))
                    await service.delete("", removed.response_id)
            steered.open("first…")
            for _, turn in waiting:
                await ended(turn)
            await service.registry.wait_all()
            asked = [
                steered.model.context(number)[-1]["content"]
                for number in range(len(steered.model.calls))
            ]
            assert asked == ["first…", *(text for text, _ in waiting)]

    asyncio.run(scenario())


async def test_terminal_goes_on_from_the_turn_that_others_wait_for(
    kind: str, tmp_path: Path
) -> None:
    async with serving(kind, tmp_path) as (service, steered):
        first = await service.start(turn_request("one…"))
        await steered.asked(first, "one…")
        second = await queue(service, "two", first.response_id)
        third = await queue(service, "three", second.response_id)
        session = ChatSession(service, model="scripted", head=third.response_id)
        last = await session.skip_queued()
        assert last is not None
        assert last.id == session.head == first.response_id


async def test_nothing_is_queued_once_the_server_has_ended_its_turns(
    kind: str, tmp_path: Path
) -> None:
    async with serving(kind, tmp_path) as (service, steered):
        first = await service.start(turn_request("one…"))
        await steered.asked(first, "one…")
        service.registry.is_closed = True
        with pytest.raises(ServerBusyError):
            await queue(service, "two", first.response_id)
        assert [turn.id for turn in await service.reader.chain("", first.response_id)] == [
            first.response_id
        ]
        assert [turn.response_id for turn in service.registry.all()] == [first.response_id]
