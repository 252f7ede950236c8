"""What the tests of turns share: a service to ask, and a store whose disk is slow or bad."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from antiphon.core.events import Event, TextDelta
from antiphon.core.items import FunctionCall, FunctionCallOutput, Item, Message, text_of
from antiphon.core.turns import DEFAULT_TENANT, End, Options, Response, TurnRequest
from antiphon.errors import StoreError
from antiphon.models.model_registry import ModelRegistry
from antiphon.models.scripted import ScriptedModel, call, calls
from antiphon.stores.memory.store import MemoryStore
from antiphon.stores.sqlite.store import open_sqlite
from antiphon.turn.protocols import ModelCall, ToolExecutor
from antiphon.turn.running_turns import RunningTurn
from antiphon.turn.service import TurnService
from antiphon.turn.store_protocols import NewTurn, Store, StoredTurn

T = TypeVar("T")

STORES = ["memory", "sqlite"]


#: What a model says to call a tool once, or twice at once.
ONE_CALL = calls(call("look", {}, call_id="a"))
TWO_CALLS = calls(call("look", {"at": 1}, call_id="a"), call("look", {"at": 2}, call_id="b"))


def run(main: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(main)


class Gate:
    """Where one kind of write waits. Open unless it is shut.

    ``error`` is what the write fails with when it gets through; ``asked`` is set when a
    write comes to the gate.
    """

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self.reached = asyncio.Event()
        self.error: StoreError | None = None

    def close(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    async def wait_open(self) -> None:
        self.reached.set()
        await self._open.wait()
        if self.error is not None:
            raise self.error


class GatedStore(MemoryStore):
    """Writes one after another, as a disk does, each when its gate is open.

    ``written`` holds the end, or None, of each ``write`` that was called so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.begins, self.items, self.ends = Gate(), Gate(), Gate()
        self.written: list[End | None] = []
        self._last: asyncio.Future[None] | None = None

    def begin(self, turn: NewTurn) -> asyncio.Future[None]:
        return self._queue(self.begins, lambda: super(GatedStore, self).begin(turn))

    def write(
        self, response_id: str, items: Sequence[bytes], end: End | None = None, inline: bool = False
    ) -> asyncio.Future[None]:
        self.written.append(end)
        gate = self.items if end is None else self.ends
        return self._queue(gate, lambda: super(GatedStore, self).write(response_id, items, end))

    def _queue(self, gate: Gate, work: Callable[[], asyncio.Future[None]]) -> asyncio.Future[None]:
        before = self._last

        async def later() -> None:
            if before is not None:
                await asyncio.wait([before])
            await gate.wait_open()
            await work()

        self._last = asyncio.ensure_future(later())
        return self._last


class RecordingTools:
    """A tool source: ``work`` gives each call's output, or None. ``asked`` are the calls so far.

    ``agreed`` are the ids of those that came as approved, ``cancelled`` of those that were
    stopped.
    """

    def __init__(self, work: Callable[[FunctionCall], Awaitable[str | None]] | None = None) -> None:
        self._work = work
        self.calls: list[FunctionCall] = []
        self.approved_ids: list[str] = []
        self.cancelled_ids: list[str] = []

    async def call_tool(self, call: FunctionCall, *, approved: bool = False) -> str | None:
        self.calls.append(call)
        if approved:
            self.approved_ids.append(call.call_id)
        if self._work is None:
            return f"{call.name} done"
        try:
            return await self._work(call)
        except asyncio.CancelledError:
            self.cancelled_ids.append(call.call_id)
            raise


class UncountedModel(ScriptedModel):
    """A model that cannot count tokens, like most upstreams."""

    async def count_tokens(self, call: ModelCall) -> int | None:
        return None


def service_with(model: ScriptedModel, store: Store | None = None) -> TurnService:
    """A service with one model, over a store in memory unless another is given."""
    catalog = ModelRegistry({model.info.name: model}, default=model.info.name)
    return TurnService(store or MemoryStore(), catalog)


def turn_request(
    *inputs: str | Item,
    after: str | None = None,
    store: bool = True,
    stream: bool = True,
    tenant: str = "",
    instructions: str | None = None,
    model: str | None = None,
    options: Options | None = None,
    **more: Any,
) -> TurnRequest:
    """A request whose strings are the user's messages; ``more`` are further fields of it."""
    return TurnRequest(
        input=tuple(Message("user", one) if isinstance(one, str) else one for one in inputs),
        model=model,
        previous_response_id=after,
        instructions=instructions,
        options=options or Options(),
        store=store,
        stream=stream,
        tenant=tenant,
        **more,
    )


async def run_turn(
    service: TurnService, *inputs: str | Item, tools: ToolExecutor | None = None, **request: Any
) -> Response:
    """A turn from its start to its end."""
    turn = await service.start(turn_request(*inputs, **request), tools)
    return await turn.result()


async def collect_events(turn: RunningTurn) -> list[Event]:
    """All events of a turn, to its end."""
    return [event async for batch in turn.events() for event in batch]


async def append_events(turn: RunningTurn, events: list[Event]) -> None:
    """Add all events of a turn to ``events``, as they come."""
    async for batch in turn.events():
        events.extend(batch)


async def read_until(turn: RunningTurn, text: str) -> None:
    """Read a turn until its answer contains ``text``."""
    answer = ""
    async for batch in turn.events():
        answer += "".join(event.text for event in batch if isinstance(event, TextDelta))
        if text in answer:
            return
    raise AssertionError(f"the turn ended without {text!r}: {answer!r}")


async def run_ready_tasks() -> None:
    """Let everything run that can run without anything new happening."""
    for _ in range(20):
        await asyncio.sleep(0)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def contents(model: ScriptedModel) -> list[str]:
    """What the model was shown last, message by message."""
    return [message["content"] for message in model.context()]


def texts(response: Response) -> list[str]:
    """The answers' texts."""
    return [text_of(item.content) for item in response.output if isinstance(item, Message)]


def outputs(response: Response) -> dict[str, Any]:
    """What each call of a response was answered with."""
    return {
        item.call_id: item.output
        for item in response.output
        if isinstance(item, FunctionCallOutput)
    }


def kinds(response: Response) -> list[str]:
    """The kinds of its items."""
    return [type(item).__name__ for item in response.output]


async def stored_turn(store: Store, turn: RunningTurn) -> StoredTurn:
    """A turn as it lies in the store, where it must be."""
    stored = await store.turn(DEFAULT_TENANT, turn.response_id)
    assert stored is not None
    return stored


@asynccontextmanager
async def open_store(kind: str, folder: Path) -> AsyncIterator[Store]:
    """A store of one of ``STORES``."""
    store: Store = MemoryStore() if kind == "memory" else await open_sqlite(folder / "turns.db")
    try:
        yield store
    finally:
        await store.close()


def run_with_store(kind: str, folder: Path, test: Callable[[Store], Awaitable[None]]) -> None:
    """Run a test's story over a store of one of ``STORES``."""

    async def main() -> None:
        async with open_store(kind, folder) as store:
            await test(store)

    run(main())


async def wait_forever(call: FunctionCall) -> str:
    await asyncio.Event().wait()
    return "never"
