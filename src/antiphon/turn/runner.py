"""Runs one turn: asks the model, feeds the machine, keeps what comes, ends it.

The order is the promise: the input goes to the store first (its commit runs while
the model is called), finished items follow as they come, and the terminal event
leaves only after the end is on disk.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing

import msgspec

from antiphon.core.events import Created, Ended, Event
from antiphon.core.items import encode_item
from antiphon.core.turns import End, Response, TurnError, TurnRequest
from antiphon.errors import AntiphonError, ContextLengthExceeded, ModelError, StoreError
from antiphon.turn.context import Segment, assemble, render, shorten
from antiphon.turn.live import LiveTurn
from antiphon.turn.machine import Machine
from antiphon.turn.ports import Head, Model, ModelCall, NewTurn, Store

log = logging.getLogger("antiphon.turn")


class Plan(msgspec.Struct, frozen=True):
    """All that a turn needs to run; ``segments`` ends with the new input's."""

    request: TurnRequest
    opening: Response
    model: Model
    segments: Sequence[Segment]
    parent: Head | None
    #: Told of the finished turn, rendered, once it is on disk.
    on_kept: Callable[[Plan, Segment], None]


class Runner:
    """One run of one plan. ``run`` never raises: what goes wrong ends the turn."""

    def __init__(self, plan: Plan, live: LiveTurn, store: Store) -> None:
        self._plan = plan
        self._live = live
        self._store = store
        self._machine = Machine()
        #: Items on their way to the disk, and what became of one that did not get there.
        self._pending: set[asyncio.Future[None]] = set()
        self._lost: AntiphonError | None = None
        self._id = plan.opening.id

    async def run(self) -> None:
        try:
            await self._run()
        except Exception as unforeseen:
            # Whoever waits for the turn's end must get one.
            log.exception("turn %s could not be ended", self._id)
            error = AntiphonError("The server failed while it kept this turn.")
            error.__cause__ = unforeseen
            self._live.unkept = self._live.stored
            self._live.fail(error)

    async def _run(self) -> None:
        if self._plan.opening.store:
            self._begin()
        self._live.emit([Created(self._plan.opening)])
        self._live.running()
        error: AntiphonError | None = None
        stopped = False
        try:
            if self._live.stopping:
                raise asyncio.CancelledError
            await self._ask()
        except asyncio.CancelledError:
            # stop() is the only one who cancels, and once.
            error, stopped = self._live.stopped_by, True
        except AntiphonError as foreseen:
            error = foreseen
        except Exception as unforeseen:
            log.exception("turn %s failed unexpectedly", self._id)
            error = AntiphonError("The server failed while it ran this turn.")
            error.__cause__ = unforeseen
        # From here on a stop would not end the turn sooner, only lose it.
        self._live.ending()
        await self._end(error, stopped=stopped)

    def _begin(self) -> None:
        opening, plan = self._plan.opening, self._plan
        kept = self._store.begin(
            NewTurn(
                response_id=opening.id,
                tenant=plan.request.tenant,
                created_at=opening.created_at,
                header=opening.header,
                input=[encode_item(item) for item in opening.input],
                parent=plan.parent,
                awaited=plan.request.stream,
            )
        )
        kept.add_done_callback(self._live.release)

    async def _ask(self) -> None:
        """Call the model; where asked to, again with less if the context is too long."""
        segments = self._plan.segments
        while True:
            try:
                await self._listen(segments)
                return
            except ContextLengthExceeded as overflow:
                if self._plan.request.options.truncation != "auto" or not self._machine.silent:
                    raise
                shorter = shorten(segments, overflow.used, overflow.limit)
                if sum(one.size for one in shorter) >= sum(one.size for one in segments):
                    raise
                segments = shorter

    async def _listen(self, segments: Sequence[Segment]) -> None:
        plan, machine = self._plan, self._machine
        header = plan.opening.header
        call = ModelCall(
            model=header.model,
            messages=assemble(
                segments, instructions=header.instructions, primer=plan.model.info.primer
            ),
            options=header.options,
            stream=plan.request.stream,
        )
        async with aclosing(plan.model.generate(call)) as batches:
            async for batch in batches:
                self._live.emit(machine.feed(batch))
                if plan.opening.store and machine.finish is None:
                    self._keep_finished()
        if machine.finish is None:
            raise ModelError("The model's answer broke off before its end.")

    def _keep_finished(self) -> None:
        """Append items that are whole while the turn goes on; its end waits for them."""
        items = self._machine.take_finished()
        if items:
            kept = self._store.write(self._id, [encode_item(item) for item in items])
            self._pending.add(kept)
            kept.add_done_callback(self._on_item_kept)

    def _on_item_kept(self, kept: asyncio.Future[None]) -> None:
        self._pending.discard(kept)
        error = None if kept.cancelled() else kept.exception()
        if isinstance(error, AntiphonError):
            self._lost = self._lost or error
            self._live.stop(error)

    async def _end(self, error: AntiphonError | None, *, stopped: bool) -> None:
        machine, live = self._machine, self._live
        if self._pending:
            # A good end must not be kept where an item before it was lost.
            await asyncio.wait(self._pending)
            error = error or self._lost
        events: list[Event] = machine.close(whole=error is None and not stopped)
        live.emit(events)
        end = self._verdict(error, stopped=stopped)
        response = msgspec.structs.replace(self._plan.opening, output=machine.output, end=end)
        if live.stored:
            items = [encode_item(item) for item in machine.take_finished()]
            try:
                await self._store.write(self._id, items, end)
            except StoreError as lost:
                live.unkept = True
                # What was lost first says why.
                first = live.stopped_by
                live.fail(first if isinstance(first, StoreError) else lost)
                return
            if error is not None:
                error.response_id = self._id
            if self._lost is not None:
                # Nothing may look kept that is not.
                live.fail(self._lost)
                return
            completed = end.status == "completed"
            self._plan.on_kept(
                self._plan, render((*response.input, *response.output), completed=completed)
            )
        live.finish(response, Ended(response), error)

    def _verdict(self, error: AntiphonError | None, *, stopped: bool) -> End:
        now, usage = time.time(), self._machine.usage
        if error is not None:
            return End("failed", now, usage, TurnError(error.code, error.message))
        if stopped:
            return End("cancelled", now, usage)
        verdict = self._machine.verdict()
        return End(verdict.status, now, usage, reason=verdict.reason)
