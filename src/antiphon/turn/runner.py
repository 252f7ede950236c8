"""Runs one turn: asks the model, feeds the machine, keeps what comes, ends it.

The order is the promise: the input goes to the store first (its commit runs while
the model is called), finished items follow as they come, and the terminal event
leaves only after the end is on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from antiphon.core.events import Created, Ended, Event
from antiphon.core.images import Blob
from antiphon.core.items import (
    Approved,
    FunctionCall,
    FunctionCallOutput,
    Item,
    McpListTools,
    encode_item,
)
from antiphon.core.stream_trace import odds_of, trace_of
from antiphon.core.turns import Conversation, End, Header, Response, TurnError, TurnRequest
from antiphon.errors import (
    AntiphonError,
    ContextLengthExceeded,
    ModelError,
    ModelTimeout,
    StoreError,
)
from antiphon.turn.context_builder import View, Viewer
from antiphon.turn.history_cache import History, Lineage, Memory
from antiphon.turn.message_rendering import Segment, render
from antiphon.turn.protocols import Fault, Head, LentTools, Model, NewTurn, Store, ToolSource
from antiphon.turn.running_turns import LiveTurn
from antiphon.turn.tool_calls import run_calls
from antiphon.turn.trimming import shorten, turns_in
from antiphon.turn.turn_accumulator import Machine
from antiphon.turn.turn_reader import missing

log = logging.getLogger("antiphon.turn")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All that a turn needs to run.

    ``view`` is what the first call shows, its newest turn being the new input, which
    ``stored_input`` and ``blobs`` hold as a store keeps it.
    """

    request: TurnRequest
    opening: Response
    model: Model
    lineage: Lineage
    history: History
    view: View
    viewer: Viewer
    sources: Sequence[Head] = ()
    stored_input: Sequence[Item]
    #: Told of the finished turn, rendered, once it is on disk, or over if it is not stored.
    on_kept: Callable[[Plan, Segment], None]
    blobs: Sequence[Blob] = ()
    tools: ToolSource | None = None
    conversation: Conversation | None = None
    memory: Memory | None = None
    #: What the model is asked with, where that is more than what is kept.
    header: Header
    #: Approved calls of earlier turns, by call id.
    agreed: Mapping[str, Approved] = {}
    lent: LentTools | None = None
    listed: Sequence[McpListTools] = ()


class Runner:
    """One run of one plan. ``run`` never raises: what goes wrong ends the turn."""

    def __init__(self, plan: Plan, live: LiveTurn, store: Store) -> None:
        self._plan = plan
        self._live = live
        self._store = store
        self._machine = Machine(plan.lent.server_of if plan.lent else None)
        #: Items on their way to the disk, and what became of one that did not get there.
        self._pending: set[asyncio.Future[None]] = set()
        self._lost: AntiphonError | None = None
        self._id = plan.opening.id
        #: The turn's beginning on its way to the disk; None: nothing is kept.
        self._begun: asyncio.Future[None] | None = None
        #: What the last call showed besides this turn, in tokens.
        self._around = 0
        #: What the last call showed, this turn included, where that may not be all there is.
        self._shown: Sequence[Segment] | None = None

    async def run(self) -> None:
        try:
            try:
                await self._run()
            finally:
                if self._plan.lent is not None:
                    await self._plan.lent.aclose()
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
            await self._within_time()
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
        asked = plan.request
        self._begun = self._store.begin(
            NewTurn(
                response_id=opening.id,
                tenant=asked.tenant,
                created_at=opening.created_at,
                header=opening.header,
                input=[encode_item(item) for item in plan.stored_input],
                parent=plan.lineage.head,
                sources=plan.sources,
                awaited=(asked.stream and asked.announced) or asked.background,
                blobs=plan.blobs,
                conversation=plan.conversation,
                claim=asked.claim,
            )
        )
        self._begun.add_done_callback(self._live.release)

    async def _within_time(self) -> None:
        seconds = self._plan.request.timeout
        if seconds is None:
            await self._work()
            return
        try:
            async with asyncio.timeout(seconds):
                await self._work()
        except TimeoutError as late:
            raise ModelTimeout(
                f"The turn took longer than its {seconds:g} seconds.", code="turn_timeout"
            ) from late

    async def _work(self) -> None:
        """Ask the model, run the tools it calls, and ask again until it has answered."""
        plan, machine = self._plan, self._machine
        header, view = plan.header, plan.view
        for listing in plan.listed:
            self._live.emit(machine.add(listing))
        if plan.request.approved:
            await self._run_calls(plan.request.approved, approved=True)
            machine.next_round()
            view = await self._view()
        elif plan.listed:
            machine.next_round()
        rounds = made = 0
        while True:
            await self._ask(view, header)
            if plan.tools is None:
                return
            calls, ends = machine.end_round()
            self._live.emit(ends)
            if not calls:
                return
            made += len(calls)
            most = header.options.max_tool_calls
            machine.exhausted = rounds >= plan.request.max_tool_rounds or (
                most is not None and made > most
            )
            if machine.exhausted or not await self._run_calls(calls):
                return
            rounds += 1
            machine.next_round()
            header = _after_tools(header)
            view = await self._view()

    async def _run_calls(self, calls: Sequence[FunctionCall], *, approved: bool = False) -> bool:
        """Run calls and take their outputs as they come. False: some are left open.

        No tool runs before its turn and its call are on disk: a crash must not hide what
        was done.
        """
        plan = self._plan
        if self._begun is not None:
            self._keep_finished()
            await asyncio.wait({self._begun, *self._pending})

        def take(call: FunctionCall, text: str) -> None:
            agreed = plan.agreed.get(call.call_id)
            failed = isinstance(text, Fault)
            output = FunctionCallOutput(call.call_id, str(text), failed=failed, approved=agreed)
            self._live.emit(self._machine.add(output))
            if plan.opening.store:
                self._keep_finished()

        assert plan.tools is not None
        return await run_calls(
            plan.tools,
            calls,
            take,
            parallel=plan.request.options.parallel_tool_calls,
            approved=approved,
        )

    async def _view(self) -> View:
        """What the next call shows: the turn has grown since the last one."""
        turn = render((*self._plan.opening.input, *self._machine.output))
        await self._refresh()
        while True:
            past = self._plan.lineage.past
            view = await self._plan.viewer.view((*past.segments, turn), past.tokens)
            if not await self._refresh():
                return view

    async def _refresh(self) -> bool:
        """Read the history again where something was erased from it; whether it was.

        What was erased while a tool ran or a model was asked is not shown at the next call.
        """
        plan, origin = self._plan, self._plan.lineage.origin
        if origin is None:
            return False
        if self._begun is not None:
            # Where the store refuses the turn, this is cancelled.
            await asyncio.wait({self._begun})
        seen_from = self._id if plan.opening.store else origin.response_id
        now = await self._store.head(origin.tenant, seen_from)
        if now is not None and now.epoch == origin.epoch:
            return False
        if now is None and plan.opening.store:
            # The turn itself was erased, by another process.
            self._live.stop(None)
            await asyncio.sleep(0)
        if now is None:
            raise missing(origin.response_id, param="previous_response_id")
        if plan.opening.store:
            past = await plan.history.above(now)
            origin = msgspec.structs.replace(origin, epoch=now.epoch)
        else:
            past, origin = await plan.history.past(now), now
        lineage = plan.lineage.renewed(past, origin)
        self._plan = msgspec.structs.replace(plan, lineage=lineage)
        return True

    async def _ask(self, view: View, header: Header) -> None:
        """Call the model; where asked to, again with less if the context is too long."""
        segments, self._around = view.segments, view.around
        self._shown = segments if self._plan.request.context else None
        while True:
            try:
                await self._listen(segments, header)
                return
            except ContextLengthExceeded as overflow:
                if header.options.truncation != "auto" or not self._machine.silent:
                    raise
                shorter = shorten(segments, overflow.used, overflow.limit)
                if sum(one.size for one in shorter) >= sum(one.size for one in segments):
                    raise
                if await self._refresh():
                    view = await self._view()
                    shorter = list(view.segments)
                self._shown = segments = shorter
                self._around = self._plan.viewer.around(segments)

    async def _listen(self, segments: Sequence[Segment], header: Header) -> None:
        plan, machine = self._plan, self._machine
        call = plan.viewer.call(segments, header, stream=plan.request.stream)
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
            await _uncut(asyncio.gather(*self._pending, return_exceptions=True))
            error = error or self._lost
        events: list[Event] = machine.close(whole=error is None and not stopped)
        live.emit(events)
        end = self._verdict(error, stopped=stopped)
        if live.stored and self._shown is not None:
            end = msgspec.structs.replace(end, shown=self._turns_shown(self._shown))
        if live.stored and self._plan.request.stream:
            odds = odds_of(live.told, machine.output)
            end = msgspec.structs.replace(end, trace=trace_of(live.told), odds=odds)
        response = msgspec.structs.replace(self._plan.opening, output=machine.output, end=end)
        if live.stored:
            items = [encode_item(item) for item in machine.take_finished()]
            try:
                await _uncut(self._store.write(self._id, items, end))
            except StoreError as lost:
                self._lose(lost)
                return
            if error is not None:
                error.response_id = self._id
            if self._lost is not None:
                # Nothing may look kept that is not.
                live.fail(self._lost)
                return
        if live.stored or (self._plan.memory is not None and error is None):
            self._plan.on_kept(self._plan, rendered(response))
        live.finish(response, Ended(response), error)

    def _lose(self, lost: StoreError) -> None:
        """The turn's end could not be kept. What was lost first says why."""
        live, first = self._live, self._not_begun()
        if isinstance(first, AntiphonError) and not isinstance(first, StoreError):
            # Not that the store could not take the turn: it would not, and has nothing of it.
            live.refused = True
            live.fail(first)
            return
        first = first or live.stopped_by
        live.unkept = True
        live.fail(first if isinstance(first, StoreError) else lost)

    def _not_begun(self) -> BaseException | None:
        """Why the turn's beginning is not on disk, as far as that is known."""
        begun = self._begun
        return begun.exception() if begun and begun.done() and not begun.cancelled() else None

    def _verdict(self, error: AntiphonError | None, *, stopped: bool) -> End:
        now, usage = time.time(), self._machine.usage
        if error is not None:
            return End("failed", now, usage, TurnError(error.code, error.message))
        if stopped:
            return End("cancelled", now, usage)
        verdict = self._machine.verdict()
        return End(verdict.status, now, usage, reason=verdict.reason, tokens=self._tokens())

    def _turns_shown(self, segments: Sequence[Segment]) -> int | None:
        """How many earlier turns a call showed, None: all there were."""
        shown = turns_in(segments[:-1])
        return shown if shown < turns_in(self._plan.lineage.past.segments) else None

    def _tokens(self) -> int | None:
        """What this turn takes in a context: all that was shown and said, less the rest.

        Thoughts are said, but never shown again.
        """
        last = self._machine.last
        if last is None:
            return None
        said = last.output_tokens - last.reasoning_tokens
        return max(1, last.input_tokens + said - self._around)


async def _uncut(kept: asyncio.Future[Any]) -> None:
    """Wait for the disk to the end. A loop that ends cancels all that runs in it, and then
    waits for it: whoever reads the turn would wait for its end for ever."""
    while not kept.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(kept)
    kept.result()


def rendered(response: Response) -> Segment:
    """A turn that is over, as the next one shows it."""
    end = response.end
    segment = render(
        (*response.input, *response.output), completed=end is not None and end.status == "completed"
    )
    tokens = end.tokens if end else None
    return segment if tokens is None else msgspec.structs.replace(segment, tokens=tokens)


def _after_tools(header: Header) -> Header:
    """A tool that had to be called has been: to demand it again would never end."""
    options = header.options
    if options.tool_choice in ("auto", "none"):
        return header
    options = msgspec.structs.replace(options, tool_choice="auto")
    return msgspec.structs.replace(header, options=options)
