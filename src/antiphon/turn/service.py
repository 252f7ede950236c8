"""Turn service: starts, stores, summarizes, cancels and deletes turns for every interface."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec

from antiphon.core.context_policies import Summarize
from antiphon.core.ids import new_response_id, to_response_id
from antiphon.core.items import Item, encode_item
from antiphon.core.retention import RETAIN_FOREVER, RetentionPolicy
from antiphon.core.token_prices import PriceLookup, no_prices
from antiphon.core.turns import ConversationRecord, End, Response, TurnRequest
from antiphon.errors import (
    ConversationLockedError,
    HistoryChangedError,
    MethodNotAllowedError,
)
from antiphon.turn.cancellation import TurnCancellation
from antiphon.turn.context_builder import ContextBuilder
from antiphon.turn.conversation_lock import ConversationLocks, TurnRetries, wait_until_accepted
from antiphon.turn.exchanges import render_exchanges
from antiphon.turn.handover import TurnHandover
from antiphon.turn.history_cache import HistoryCache, UnstoredHistory
from antiphon.turn.message_rendering import (
    build_messages,
    is_system_message,
    shown_items,
)
from antiphon.turn.open_calls import pair_tool_outputs
from antiphon.turn.other_nodes import OtherNodes
from antiphon.turn.planning import TurnPlan, TurnPlanner, expires_at, extract_images
from antiphon.turn.protocols import McpToolProvider, ModelProvider, Token, Tokenizer, ToolExecutor
from antiphon.turn.queued_turns import QueuedTurns
from antiphon.turn.references import ApprovalDecisions, resolve_history, resolve_references
from antiphon.turn.replay import Replay
from antiphon.turn.runner import TurnRunner
from antiphon.turn.running_turns import OnStart, RunningTurn, TurnRegistry
from antiphon.turn.store_protocols import Continuations, NewTurn, Store, Stores
from antiphon.turn.summarization import (
    Summary,
    SummaryRequest,
    can_summarize,
    store_whole_turn,
    summarize_history,
    summarize_turns,
)
from antiphon.turn.trimming import tokens_of
from antiphon.turn.turn_reader import TurnReader, decode_messages
from antiphon.turn.validation import (
    is_queueing,
    nothing_to_summarize_error,
    render_input,
    turn_header,
    validate_images,
    validate_input,
)

log = logging.getLogger("antiphon.turn")

T = TypeVar("T")


class _Attempt(msgspec.Struct, frozen=True):
    """A request as it stands now: with its conversation, and what others may have decided."""

    request: TurnRequest
    conversation: ConversationRecord | None = None
    seen: Sequence[Continuations] = ()


class TurnService:
    """What every interface calls. ``reader`` reads turns, ``registry`` has the running ones."""

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        store: Store,
        models: ModelProvider,
        stores: Stores | None = None,
        mcp_tool_provider: McpToolProvider | None = None,
        retention: RetentionPolicy = RETAIN_FOREVER,
        prices: PriceLookup = no_prices,
        other_nodes: OtherNodes | None = None,
    ) -> None:
        self._store = store
        self.stores = stores
        #: The turns that run in this process.
        self.registry = TurnRegistry()
        #: For those who only read.
        self.reader = TurnReader(store, self.registry)
        #: Stops turns, whichever node runs them.
        self.cancellation = TurnCancellation(store, self.registry, self.reader, other_nodes)
        self._other_nodes = other_nodes
        self._retention = retention
        self._history_cache = HistoryCache(store)
        self._conversation_locks = ConversationLocks(
            stores.conversations if stores else None, self.registry.check_open
        )
        self.models = models
        #: What else is to be stopped before the store is closed.
        self.on_close: list[Callable[[], Awaitable[None]]] = []
        self._planner = TurnPlanner(
            self.reader,
            models,
            self._history_cache,
            mcp_tool_provider,
            retention,
            stores.response_index if stores else None,
            stores.chats if stores else None,
            prices,
        )
        self._decisions = ApprovalDecisions(self.reader, stores.chats if stores else None)
        nodes = stores.nodes if stores else None
        self._queued_turns = QueuedTurns(
            store, models, self.registry, self.reader, self._planner, self.cancellation, nodes
        )
        self.cancellation.on_erased = self._queued_turns.recheck
        #: Gives turns to other processes, and goes on with theirs.
        self.handover = TurnHandover(
            store, self.registry, self._planner, self._queued_turns, self._start_planned, nodes
        )

    async def start(
        self,
        request: TurnRequest,
        tools: ToolExecutor | None = None,
        unstored_history: UnstoredHistory | None = None,
        on_start: OnStart | None = None,
    ) -> RunningTurn:
        """Validate a request and start its turn as a task.

        ``tools`` runs the model's tool calls; None: the caller does. ``unstored_history`` is
        what an unstored turn may continue, and is appended to. An invalid request raises here,
        before anything is stored. Summaries that are due are made first. Planning is retried
        when part of the history is erased meanwhile, or when another process takes the
        conversation of a request that queues. A background turn that queues behind a response
        begins once that has been answered. ``on_start`` gets the turn before the store has
        accepted it, and another one where that is retried: a stored turn runs on where its
        caller is cancelled meanwhile.
        """
        if is_queueing(request):
            queued = await self._queued_turns.start(request)
            if queued is not None:
                return queued

        async def attempt(one: _Attempt) -> RunningTurn:
            plan = await self._planner.plan(one.request, tools, unstored_history, one.conversation)
            if one.seen:
                plan = msgspec.structs.replace(plan, seen=one.seen)
            return await self._start_accepted(plan, on_start)

        return await self._attempt(request, attempt)

    async def run(self, request: TurnRequest, on_start: OnStart) -> RunningTurn:
        """Run a turn to its end, by fewer steps than ``start`` and ``RunningTurn.result``.

        The turn is the same. ``on_start`` gets it before it begins. An unstored one runs in the
        caller's own task: what cancels that stops the turn, and no stored one. Raises what
        ``start`` raises.
        """
        retries = TurnRetries(request)
        while True:
            try:
                plan = await self._planner.plan(request, None, None, None)
                turn, runner = await self._new_turn(plan)
                on_start(turn)
                if not request.store:
                    await self.registry.run(turn, runner.run())
                    return turn
                self.registry.start(turn, runner.run())
                await turn.wait_for_end()
                if not (turn.is_rejected and turn.error):
                    return turn
                raise turn.error
            except HistoryChangedError as error:
                retries.raise_if_last(error)

    async def _attempt(
        self,
        request: TurnRequest,
        attempt: Callable[[_Attempt], Awaitable[T]],
    ) -> T:
        """The result of an attempt with the request's conversation, once one is not rejected."""
        retries = TurnRetries(request)
        if request.conversation is None:
            while True:
                try:
                    seen = await self._decisions.look(request, retries.unseen)
                    return await attempt(_Attempt(request, seen=seen))
                except HistoryChangedError as error:
                    retries.raise_if_last(error)
        async with self._conversation_locks.acquire(request) as read:
            while True:
                conversation, continuing = await read()
                try:
                    seen = await self._decisions.look(continuing, retries.unseen)
                    return await attempt(_Attempt(continuing, conversation, seen))
                except (ConversationLockedError, HistoryChangedError) as error:
                    retries.raise_if_last(error)

    async def _start_accepted(self, plan: TurnPlan, on_start: OnStart | None) -> RunningTurn:
        """A turn that the store has accepted, or that failed otherwise. Raises its rejection."""
        turn = await self._start_planned(plan)
        if on_start is not None:
            on_start(turn)
        if turn.is_stored and (plan.conversation or turn.is_continuation):
            # No latency for the reader, who gets no event before that in any case.
            await wait_until_accepted(turn)
        return turn

    async def _start_planned(self, plan: TurnPlan) -> RunningTurn:
        """A planned turn as a task. Raises ``ServerBusyError``."""
        turn, runner = await self._new_turn(plan)
        self.registry.start(turn, runner.run())
        request = plan.request
        if request.conversation is not None:
            self._conversation_locks.set_active_turn(request.tenant, request.conversation, turn)
        return turn

    async def _new_turn(self, plan: TurnPlan) -> tuple[RunningTurn, TurnRunner]:
        """A planned turn, to be started before anything else is awaited.

        Raises ``ServerBusyError`` where the server has begun to end while the turn was planned.
        """
        if self.registry.is_closed:
            await plan.aclose()
            self.registry.check_open()
        request = plan.request
        turn = RunningTurn(plan.initial_response, is_streamed=request.stream, request=request)
        return turn, TurnRunner(plan, turn, self._store)

    async def store_turn(
        self, request: TurnRequest, output: Sequence[Item] = (), *, completed: bool = True
    ) -> str:
        """Store a turn that has happened elsewhere; its response id.

        ``completed`` False: calls that it leaves open will never get their outputs.
        Raises what ``start`` raises, and nothing is stored then.
        """

        async def attempt(one: _Attempt) -> str:
            return await self._store_new_turn(one, output, completed)

        return await self._attempt(request, attempt)

    async def create_conversation_with_turn(
        self, request: TurnRequest, conversation: ConversationRecord
    ) -> str:
        """Store a new conversation, ``request.conversation``, and its first turn at once."""
        attempt = _Attempt(request, conversation)
        return await self._store_new_turn(attempt, (), True, creates_conversation=True)

    async def _store_new_turn(
        self,
        attempt: _Attempt,
        output: Sequence[Item],
        completed: bool,
        *,
        creates_conversation: bool = False,
    ) -> str:
        request = attempt.request
        name, _ = self.models.get(request.model)
        base = await resolve_history(request, self._history_cache, self.reader)
        paired = pair_tool_outputs(base.history.turns, request.input)
        shown, stored, blobs = await extract_images((*paired, *output))
        given = len(paired)
        render_input(shown, request.instructions)
        turn = NewTurn(
            response_id=new_response_id(),
            tenant=request.tenant,
            created_at=time.time(),
            header=turn_header(name, request),
            input=[encode_item(item) for item in stored[:given]],
            parent=base.head,
            is_awaited=False,
            blobs=blobs,
            conversation=attempt.conversation,
            creates_conversation=creates_conversation,
            reservation=request.reservation,
            seen=attempt.seen,
        )
        end = End("completed" if completed else "incomplete", time.time())
        await store_whole_turn(self._store, turn, stored[given:], end)
        return turn.response_id

    async def summarize(self, request: TurnRequest, policy: Summarize) -> Response:
        """Have the model sum up a conversation now, but for its newest turns.

        ``request`` names the conversation (``previous_response_id``) and says how to ask;
        its input is not used. The response, whose one output item is a ``compaction``,
        continues that conversation. Raises ``InvalidRequestError`` where nothing is left to
        sum up, ``HistoryChangedError`` where something of it is erased meanwhile.
        """
        name, model = self.models.get(request.model)
        base = await resolve_history(request, self._history_cache, self.reader)
        head, history = base.head, base.history
        if head is None or not can_summarize(policy, history):
            raise nothing_to_summarize_error()
        call = SummaryRequest(request, turn_header(name, request), model)
        new, _ = await summarize_history(self._history_cache, head, history, policy, call)
        return await self.reader.response(request.tenant, new.response_id)

    async def compact(self, request: TurnRequest) -> Summary:
        """Have the model sum up a conversation and what is sent along; nothing is stored.

        The item stands for all of it at the beginning of another conversation, behind the
        system messages that were sent along. Raises
        ``InvalidRequestError`` where there is nothing to sum up, ``HistoryChangedError`` where
        something of it is erased meanwhile.
        """
        name, model = self.models.get(request.model)
        request, _ = await self._planner.continue_beside(request)
        found = await resolve_references(
            await self._conversation_locks.resolve_head(request), self.reader
        )
        request = found.request
        validate_images(request, model)
        shown, _, _ = await extract_images(request.input)
        render_input(shown, request.instructions)
        base = await resolve_history(request, self._history_cache, self.reader)
        history = base.history
        # In parts, the oldest of which are left out where the model cannot read all of it.
        given = render_exchanges(shown_items(shown), by_rounds=True) if shown else []
        covered = (*history.turns, *given)

        async def check() -> None:
            await self._history_cache.require_unchanged(base.stored_head, *found.sources)

        if not covered:
            raise nothing_to_summarize_error()
        # Nothing is kept: of the policy only what the model is asked counts.
        policy = Summarize(max_messages=1, keep_turns=0)
        made = await summarize_turns(
            covered, (), policy, turn_header(name, request), model, check=check
        )
        await check()
        item = msgspec.structs.replace(made.item, retained_turns=0, replaced_turns=0)
        systems = tuple(filter(is_system_message, shown))
        return msgspec.structs.replace(made, item=item, system_messages=systems)

    async def subscribe(self, tenant: str, response_id: str) -> RunningTurn | Replay:
        """A turn to read along with from its first event, running or over.

        Raises ``NotFoundError``.
        """
        response_id = to_response_id(response_id)
        live = await self.cancellation.find_here(tenant, response_id)
        if live is not None:
            return live

        async def wait() -> None:
            await self.cancellation.wait_elsewhere(tenant, response_id)

        async def reload() -> Response:
            response = await self.reader.response(tenant, response_id)
            # As in the first answer, however long the conversation has gone on since.
            expiry = expires_at(self._retention, tenant, response.created_at)
            return msgspec.structs.replace(response, expires_at=expiry)

        return Replay(await reload(), reload, wait)

    async def cancel(self, tenant: str, response_id: str) -> Response:
        """Stop a turn (``TurnCancellation.cancel``)."""
        return await self.cancellation.cancel(tenant, response_id)

    async def count_tokens(self, request: TurnRequest) -> int:
        """About how many tokens a turn would begin with: the model's own count, if it has one."""
        name, model = self.models.get(request.model)
        request, _ = await self._planner.continue_beside(request)
        request = (
            await resolve_references(
                await self._conversation_locks.resolve_head(request), self.reader
            )
        ).request
        validate_input(request, model)
        shown, _, _ = await extract_images(request.input)
        new = render_input(shown, request.instructions)
        base = await resolve_history(request, self._history_cache, self.reader)
        viewer = ContextBuilder(turn_header(name, request), model, ())
        segments = (*base.history.turns, new)
        exact = await model.count_tokens(
            viewer.model_call(segments, turn_header(name, request), stream=False)
        )
        return viewer.other_tokens(segments) + tokens_of(new) if exact is None else exact

    async def tokenize(self, model: str | None, text: str) -> tuple[str, Sequence[Token]]:
        """A model's name, and the tokens that it makes of a text: exactly, or not at all.

        Raises ``MethodNotAllowedError`` for a model that does not show its tokens.
        """
        name, found = self.models.get(model or None)
        tokens = await found.tokenize(name, text) if isinstance(found, Tokenizer) else None
        if tokens is None:
            raise MethodNotAllowedError(
                f"The model '{name}' does not show its tokens.", code="tokenizer_unavailable"
            )
        return name, tokens

    async def preview_context(self, request: TurnRequest) -> list[dict[str, Any]]:
        """The messages array that a continuation would begin with, before its new input.

        With the request's instructions and context policies, and with summaries in place
        of what they replace; without a model's primer.
        """
        name, model = self.models.get(request.model)
        viewer = ContextBuilder(turn_header(name, request), model, request.context_policies)
        retries = TurnRetries(request)
        while True:
            base = await resolve_history(request, self._history_cache, self.reader)
            turns = await viewer.turns_before_input(base.history)
            if await self._history_cache.is_unchanged(base.stored_head):
                return decode_messages(build_messages(turns, instructions=request.instructions))
            retries.raise_if_last(HistoryChangedError())

    async def delete(self, tenant: str, response_id: str, *, cascade: bool = False) -> None:
        """Erase a response; its descendants go on without it. Raises ``NotFoundError``."""
        await self.cancellation.delete(tenant, response_id, cascade=cascade)

    async def interrupt(self) -> None:
        """Stop what runs, and keep it as interrupted (``TurnHandover.interrupt``)."""
        await self.handover.interrupt()

    async def close(self) -> None:
        """Interrupt what runs, keep it as that, and close the store."""
        try:
            for stop in self.on_close:
                await stop()
            await self.interrupt()
        finally:
            if self._other_nodes is not None:
                await self._other_nodes.close()
            await self._store.close()
