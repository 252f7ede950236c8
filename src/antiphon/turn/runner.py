"""Turn runner: calls the model and its tools, stores the items, and ends the turn.

The order is the promise: the input goes to the store first (its commit runs while
the model is called), finished items follow as they come, and the terminal event
leaves only after the end is on disk.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

import msgspec

from antiphon.core.chain_fingerprints import ChainFingerprint, extend_fingerprint
from antiphon.core.events import Created, Ended
from antiphon.core.items import FunctionCall, FunctionCallOutput, Item, encode_item, replaces_turns
from antiphon.core.replay_trace import logprob_counts, trace_of
from antiphon.core.turns import End, Header, TurnError
from antiphon.errors import (
    AntiphonError,
    ContextLengthExceededError,
    HistoryChangedError,
    ModelError,
    ModelTimeoutError,
    StoreError,
    TurnTakenOverError,
)
from antiphon.turn.context_builder import ModelContext
from antiphon.turn.exchanges import context_turn_count, render_exchanges, turns_besides
from antiphon.turn.history_cache import ResolvedHistory
from antiphon.turn.message_rendering import RenderedTurn, render_response, render_turn, shown_items
from antiphon.turn.planning import TurnPlan
from antiphon.turn.protocols import ToolErrorOutput
from antiphon.turn.running_turns import RunningTurn, wait_uncancelled
from antiphon.turn.store_protocols import Store, is_answered
from antiphon.turn.summarization import Summary, can_summarize, compact_history, compact_input
from antiphon.turn.tool_calls import interrupted_outputs, run_tool_calls, without_forced_tool
from antiphon.turn.trimming import trim_by_ratio
from antiphon.turn.turn_accumulator import TurnAccumulator
from antiphon.turn.turn_reader import response_not_found

log = logging.getLogger("antiphon.turn")


class TurnRunner:
    """One run of one plan. ``run`` never raises: what goes wrong ends the turn."""

    def __init__(self, plan: TurnPlan, running_turn: RunningTurn, store: Store) -> None:
        self._plan = plan
        self._running_turn = running_turn
        self._store = store
        self._accumulator = TurnAccumulator(
            plan.mcp_toolset.server_of if plan.mcp_toolset else None,
            plan.header.options.tools,
            plan.request.call_id,
        )
        #: Items on their way to the disk, and what became of one that did not get there.
        self._pending_writes: set[asyncio.Future[None]] = set()
        self._store_error: AntiphonError | None = None
        self._response_id = plan.initial_response.id
        #: The turn's beginning on its way to the disk; None: nothing is kept.
        self._begin_write: asyncio.Future[None] | None = None
        #: What the last call showed besides this turn, in tokens.
        self._other_tokens = 0
        #: What the last call showed, this turn included, where that may not be all there is.
        self._context_turns: Sequence[RenderedTurn] | None = None
        #: The turn's exchanges, where it was shown without some of them.
        self._exchanges: Sequence[RenderedTurn] = ()

    async def run(self) -> None:
        try:
            try:
                await self._run()
            finally:
                await self._plan.aclose()
        except Exception as unforeseen:
            # Whoever waits for the turn's end must get one.
            log.exception("turn %s could not be ended", self._response_id)
            error = AntiphonError("The server failed while it kept this turn.")
            error.__cause__ = unforeseen
            self._running_turn.end_not_persisted = self._running_turn.is_stored
            self._running_turn.fail(error)

    async def _run(self) -> None:
        if self._plan.stored_output is not None:
            self._begin_write = asyncio.get_running_loop().create_future()
            self._begin_write.add_done_callback(self._running_turn.on_request_stored)
            self._begin_write.set_result(None)
        elif self._plan.initial_response.store:
            self._begin()
        self._running_turn.emit([Created(self._plan.initial_response)])
        self._running_turn.mark_running()
        error: AntiphonError | None = None
        stopped = False
        try:
            if self._running_turn.is_stopping:
                raise asyncio.CancelledError
            if self._plan.request.timeout is None:
                await self._run_rounds()
            else:
                await self._run_rounds_with_timeout(self._plan.request.timeout)
        except asyncio.CancelledError:
            # stop() is the only one who cancels, and once.
            error, stopped = self._running_turn.stop_error, True
        except AntiphonError as foreseen:
            error = foreseen
        except Exception as unforeseen:
            log.exception("turn %s failed unexpectedly", self._response_id)
            error = AntiphonError("The server failed while it ran this turn.")
            error.__cause__ = unforeseen
        # From here on a stop would not end the turn sooner, only lose it.
        self._running_turn.mark_ending()
        await self._end_turn(error, stopped=stopped)

    def _begin(self) -> None:
        new = self._plan.new_turn(is_awaited=self._is_begin_awaited())
        self._begin_write = self._store.begin(new)
        self._begin_write.add_done_callback(self._running_turn.on_request_stored)

    def _is_begin_awaited(self) -> bool:
        """Whether somebody waits for the beginning, a reader or the turn itself."""
        plan, request = self._plan, self._plan.request
        needs_begin = request.approved_calls or plan.compaction or request.reservation or plan.seen
        return request.stream or request.background or bool(needs_begin)

    async def _run_rounds_with_timeout(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._run_rounds()
        except TimeoutError as late:
            raise ModelTimeoutError(
                f"The turn took longer than its {seconds:g} seconds.", code="turn_timeout"
            ) from late

    async def _run_rounds(self) -> None:
        """Ask the model, run the tools it calls, and ask again until it has answered."""
        plan, machine = self._plan, self._accumulator
        header, view = plan.header, plan.context
        if plan.seen and self._begin_write is not None:
            # Of several who decide on a call one may begin: no model is asked for the others.
            await asyncio.wait({self._begin_write})
        is_compacted = plan.compaction is not None and await self._compact_history()
        for listing in plan.tool_listings:
            self._running_turn.emit(machine.add_item(listing))
        if plan.stored_output:
            self._restore_output(plan.stored_output)
            machine.start_round()
            view = await self._next_context()
        elif plan.request.approved_calls:
            await self._run_tool_calls(plan.request.approved_calls, approved=True)
            machine.start_round()
            view = await self._next_context()
        elif is_compacted:
            machine.start_round()
            view = await self._next_context()
        elif plan.tool_listings:
            machine.start_round()
        rounds = made = 0
        while True:
            await self._call_model(view, header)
            if plan.tools is None:
                return
            calls, ends = machine.end_round()
            self._running_turn.emit(ends)
            if not calls:
                return
            made += len(calls)
            most = header.options.max_tool_calls
            machine.tool_limit_reached = rounds >= plan.request.max_tool_rounds or (
                most is not None and made > most
            )
            if machine.tool_limit_reached or not await self._run_tool_calls(calls):
                return
            rounds += 1
            machine.start_round()
            header = without_forced_tool(header)
            view = await self._next_context()

    def _restore_output(self, stored: Sequence[Item]) -> None:
        """Begin with what the turn said in a process that died, which is on disk."""
        machine = self._accumulator
        for item in stored:
            self._running_turn.emit(machine.add_item(item))
        machine.pop_completed_items()
        for output in interrupted_outputs(stored):
            self._running_turn.emit(machine.add_item(output))
        self._store_completed_items()

    async def _compact_history(self) -> bool:
        """Sum up the turns before this one where that is due; whether it was.

        The summary is the first item of this turn, on disk before anything else of it: what it
        tells of may be erased at any time.
        """
        policy = self._plan.compaction
        if policy is not None and self._plan.replaced_items:
            plan, items = self._plan, self._plan.initial_response.input
            count = plan.replaced_items
            self._add_summary(await compact_input(items, count, policy, plan.header, plan.model))
            return True

        async def check() -> None:
            if await self._refresh():
                raise HistoryChangedError()

        while policy is not None and can_summarize(policy, self._plan.base.history):
            plan = self._plan
            try:
                await check()
                made, history = await compact_history(
                    plan.base.history, policy, plan.header, plan.model, check=check
                )
                await check()
            except HistoryChangedError:
                continue
            base = msgspec.structs.replace(plan.base, history=history)
            self._plan = msgspec.structs.replace(plan, base=base)
            self._add_summary(made)
            return True
        return False

    def _add_summary(self, made: Summary) -> None:
        self._accumulator.add_usage(made.usage)
        self._running_turn.emit(self._accumulator.add_item(made.item))
        if self._plan.initial_response.store:
            self._store_completed_items()

    async def _run_tool_calls(
        self, calls: Sequence[FunctionCall], *, approved: bool = False
    ) -> bool:
        """Run calls and take their outputs as they come. False: some are left open.

        No tool runs before its turn and its call are on disk: a crash must not hide what
        was done.
        """
        plan = self._plan
        if self._begin_write is not None:
            self._store_completed_items()
            await asyncio.wait({self._begin_write, *self._pending_writes})

        def take(call: FunctionCall, text: str) -> None:
            agreed = plan.approved_calls.get(call.call_id)
            failed = isinstance(text, ToolErrorOutput)
            output = FunctionCallOutput(
                call.call_id, str(text), is_error=failed, approved_call=agreed
            )
            self._running_turn.emit(self._accumulator.add_item(output))
            if plan.initial_response.store:
                self._store_completed_items()

        assert plan.tools is not None
        return await run_tool_calls(
            plan.tools,
            calls,
            take,
            parallel=plan.request.options.parallel_tool_calls,
            approved=approved,
        )

    async def _next_context(self) -> ModelContext:
        """What the next call shows: the turn has grown since the last one."""
        turn = render_turn(self._items_so_far())
        await self._refresh()
        while True:
            view = await self._plan.context_builder.build(self._plan.base.history, turn)
            if not await self._refresh():
                return view

    def _items_so_far(self) -> Sequence[Item]:
        """What of this turn its model is shown."""
        output = [item for item in self._accumulator.output if not replaces_turns(item)]
        return (*self._plan.initial_response.input, *output)

    async def _refresh(self) -> bool:
        """Read the history again where something was erased from it; whether it was.

        What was erased while a tool ran or a model was asked is not shown at the next call.
        """
        plan, stored_head = self._plan, self._plan.base.stored_head
        if stored_head is None:
            return False
        if self._begin_write is not None:
            # Where the store refuses the turn, this is cancelled.
            await asyncio.wait({self._begin_write})
        seen_from = self._response_id if plan.initial_response.store else stored_head.response_id
        now = await self._store.head(stored_head.tenant, seen_from)
        if now is not None and now.epoch == stored_head.epoch:
            return False
        if now is None and plan.initial_response.store:
            # The turn itself was erased, by another process.
            self._running_turn.stop(None)
            await asyncio.sleep(0)
        if now is None:
            raise response_not_found(stored_head.response_id, param="previous_response_id")
        if plan.initial_response.store:
            history = await plan.history_cache.get_before(now)
            stored_head = msgspec.structs.replace(stored_head, epoch=now.epoch)
        else:
            history, stored_head = await plan.history_cache.get(now), now
        base = plan.base.with_stored_history(history, stored_head)
        self._plan = msgspec.structs.replace(plan, base=base)
        return True

    async def _call_model(self, context: ModelContext, header: Header) -> None:
        """Call the model; where asked to, again with less if the context is too long."""
        self._context_turns = context.turns if self._plan.request.context_policies else None
        while True:
            self._other_tokens = context.other_tokens
            try:
                await self._consume_stream(context, header)
                return
            except ContextLengthExceededError as overflow:
                if header.options.truncation != "auto" or not self._accumulator.is_round_empty:
                    raise
                segments = context.turns
                if turns_besides(segments[-1:], self._exchanges):
                    self._exchanges = render_exchanges(shown_items(self._items_so_far()))
                    segments = [*segments[:-1], *self._exchanges]
                shorter = trim_by_ratio(segments, overflow.used, overflow.limit)
                if sum(one.size for one in shorter) >= sum(one.size for one in segments):
                    raise
                if await self._refresh():
                    shorter = list((await self._next_context()).turns)
                earlier = turns_besides(shorter, self._exchanges)
                others = self._plan.context_builder.other_tokens([*earlier, shorter[-1]])
                context, self._context_turns = ModelContext(shorter, others), shorter

    async def _consume_stream(self, context: ModelContext, header: Header) -> None:
        plan, machine = self._plan, self._accumulator
        stream, gather = plan.request.stream, plan.request.gather_seconds
        call = plan.context_builder.model_call(
            context.turns, header, stream=stream, joined=context.joined, gather_seconds=gather
        )
        machine.set_context(call.pieces)
        emit, feed = self._running_turn.emit, machine.feed
        # Of a turn that can be run again, an answer is stored whole or not at all: its model is
        # asked again for one that was cut.
        is_stored = plan.initial_response.store and header.restart is None
        batches = plan.model.generate(call)
        try:
            async for batch in batches:
                emit(feed(batch))
                if machine.has_completed_items and is_stored and machine.finish_reason is None:
                    self._store_completed_items()
        finally:
            await batches.aclose()
        if machine.finish_reason is None:
            raise ModelError("The model's answer broke off before its end.")

    def _store_completed_items(self) -> None:
        """Append items that are whole while the turn goes on; its end waits for them."""
        items = self._accumulator.pop_completed_items()
        if items:
            write = self._store.write(self._response_id, [encode_item(item) for item in items])
            self._pending_writes.add(write)
            write.add_done_callback(self._on_items_stored)

    def _on_items_stored(self, write: asyncio.Future[None]) -> None:
        self._pending_writes.discard(write)
        error = None if write.cancelled() else write.exception()
        if isinstance(error, AntiphonError):
            self._store_error = self._store_error or error
            self._running_turn.stop(error)

    async def _end_turn(self, error: AntiphonError | None, *, stopped: bool) -> None:
        machine, live = self._accumulator, self._running_turn
        if self._pending_writes:
            # A good end must not be kept where an item before it was lost.
            await wait_uncancelled(asyncio.gather(*self._pending_writes, return_exceptions=True))
            error = error or self._store_error
        if isinstance(error, TurnTakenOverError):  # Its end is another process's to say.
            if self._begin_write is not None:
                # Whoever asked for it is told that it is stored, or is not.
                await wait_uncancelled(asyncio.gather(self._begin_write, return_exceptions=True))
            self._lose(error)
            return
        live.emit(machine.close(is_complete=error is None and not stopped))
        output = machine.output
        end = self._plan.with_cost_and_approvals(self._build_end(error, stopped=stopped), output)
        if live.is_stored and self._context_turns is not None:
            end = msgspec.structs.replace(
                end,
                context_turns=context_turn_count(
                    self._context_turns, self._exchanges, self._plan.base.history.turns
                ),
            )
        if live.is_stored and self._plan.request.stream:
            seen, rhythm = live.events_so_far, live.rhythm
            trace, counts = trace_of(seen), logprob_counts(seen, output)
            end = msgspec.structs.replace(end, trace=trace, logprob_counts=counts, rhythm=rhythm)
        response = msgspec.structs.replace(self._plan.initial_response, output=output, end=end)
        if live.is_stored:
            items = [encode_item(item) for item in machine.pop_completed_items()]
            try:
                inline = self._plan.request.fingerprint is None
                write = self._store.write(self._response_id, items, end, inline=inline)
                indexing = self._index_chain(end)
                await wait_uncancelled(write)
                if indexing is not None:
                    await asyncio.wait({indexing})
            except StoreError as lost:
                self._lose(lost)
                return
            if error is not None:
                error.response_id = self._response_id
            if self._store_error is not None:
                # Nothing may look kept that is not.
                live.fail(self._store_error)
                return
        if live.is_stored or (self._plan.unstored_history is not None and error is None):
            # By a policy the model may not have been shown all of the input.
            has_policies = bool(self._plan.request.context_policies)
            given = None if has_policies else self._plan.context.turns[-1]
            self._cache_history(render_response(response, given))
        live.finish(response, Ended(response), error)

    def _index_chain(self, end: End) -> asyncio.Future[None] | None:
        """Have the chain recognized where it is sent as a whole again.

        If that fails, it is stored once more then: nothing that is worth failing this turn.
        """
        plan = self._plan
        digest, index = plan.request.fingerprint, plan.response_index
        if digest is None or index is None or not is_answered(end):
            return None
        digest = extend_fingerprint(digest, self._accumulator.output)
        epoch = plan.base.stored_head.epoch if plan.base.stored_head else 0
        write = index.add_fingerprint(self._response_id, ChainFingerprint(digest, epoch))
        write.add_done_callback(lambda done: None if done.cancelled() else done.exception())
        return write

    def _cache_history(self, turn: RenderedTurn) -> None:
        """Have the next turn find this one rendered."""
        plan, base = self._plan, self._plan.base
        response_id, history = plan.initial_response.id, base.history
        if plan.initial_response.store:
            plan.history_cache.extend(
                response_id, history, turn, base.head, stored_head=base.stored_head
            )
        elif plan.unstored_history is not None:
            unstored = (*base.unstored_turns, turn)
            chain = ResolvedHistory(history.extended((turn,)), None, base.stored_head, unstored)
            plan.unstored_history.update(response_id, chain)

    def _lose(self, lost: StoreError) -> None:
        """The turn's end could not be kept. What was lost first says why."""
        live, first = self._running_turn, self._begin_error()
        if isinstance(first, AntiphonError) and not isinstance(first, StoreError):
            # Not that the store could not take the turn: it would not, and has nothing of it.
            live.is_rejected = True
            live.fail(first)
            return
        first = first or live.stop_error
        live.end_not_persisted = not isinstance(lost, TurnTakenOverError)
        live.fail(first if isinstance(first, StoreError) else lost)

    def _begin_error(self) -> BaseException | None:
        """Why the turn's beginning is not on disk, as far as that is known."""
        begun = self._begin_write
        return begun.exception() if begun and begun.done() and not begun.cancelled() else None

    def _build_end(self, error: AntiphonError | None, *, stopped: bool) -> End:
        now, usage, model = time.time(), self._accumulator.usage, self._accumulator.answering_model
        if error is not None:
            failure = TurnError(error.code, error.message)
            return End("failed", now, usage, failure, model=model)
        if stopped:
            return End("cancelled", now, usage, model=model)
        verdict = self._accumulator.outcome()
        tokens = self._turn_tokens()
        return End(verdict.status, now, usage, reason=verdict.reason, tokens=tokens, model=model)

    def _turn_tokens(self) -> int | None:
        """What this turn takes in a context: all that was shown and said, less the rest.

        Thoughts are said, and shown again only with a call that they led to.
        """
        last = self._accumulator.last_usage
        if last is None:
            return None
        shown_output = last.output_tokens
        if last.reasoning_tokens and not self._accumulator.returns_thoughts:
            shown_output -= last.reasoning_tokens
        return max(1, last.input_tokens + shown_output - self._other_tokens)
