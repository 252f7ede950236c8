"""``TurnService``: the one thing every interface calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import msgspec

from antiphon.core.context_policies import Summarize
from antiphon.core.ids import new_response_id
from antiphon.core.images import Blob, extract_blobs
from antiphon.core.items import Item, encode_item, has_image
from antiphon.core.retention import RETAIN_FOREVER, RetentionPolicy
from antiphon.core.turns import ConversationRecord, End, Header, Response, TurnRequest
from antiphon.errors import (
    ConflictError,
    ConversationLockedError,
    HistoryChanged,
    InvalidRequestError,
    ResponseInProgressError,
)
from antiphon.turn.context_builder import ContextBuilder
from antiphon.turn.conversation_lock import ConversationLocks, Retries, accepted
from antiphon.turn.history_cache import History, HistoryCache, Lineage, UnstoredHistory
from antiphon.turn.message_rendering import RenderedTurn, build_messages, validate_tool_outputs
from antiphon.turn.protocols import (
    Head,
    McpToolProvider,
    McpToolset,
    Model,
    NewTurn,
    Store,
    ToolExecutor,
)
from antiphon.turn.references import resolve_references
from antiphon.turn.replay import Replay
from antiphon.turn.runner import Plan, TurnRunner
from antiphon.turn.running_turns import RunningTurn, TurnRegistry
from antiphon.turn.store_protocols import Stores
from antiphon.turn.summarization import (
    Question,
    Summary,
    is_due,
    keep_turn,
    sum_up,
    summarize_turns,
)
from antiphon.turn.tool_calls import new_tool_listings, with_effective_approvals, with_mcp_tools
from antiphon.turn.trimming import has_unsummarized_turns, split_for_summary, tokens_of
from antiphon.turn.turn_reader import TurnReader, decode_messages, response_not_found
from antiphon.turn.validation import (
    nothing_to_summarize_error,
    render_input,
    turn_header,
    validate_images,
    validate_input,
)

_ExtractedBlobs: TypeAlias = tuple[tuple[Item, ...], tuple[Item, ...], tuple[Blob, ...]]


class ModelProvider(Protocol):
    """The models there are, by name."""

    def get(self, name: str | None) -> tuple[str, Model]:
        """A model and the name it is called by; None is the default one.

        Raises ``ModelNotFoundError``.
        """
        ...

    def items(self) -> list[tuple[str, Model]]:
        """The configured ones, the default first."""
        ...


class TurnService:
    """Starts turns, finds them again (``TurnReader``), and forgets them on request."""

    def __init__(
        self,
        store: Store,
        models: ModelProvider,
        stores: Stores | None = None,
        mcp_tool_provider: McpToolProvider | None = None,
        retention: RetentionPolicy = RETAIN_FOREVER,
    ) -> None:
        self._store = store
        self.stores = stores
        #: The turns that run in this process.
        self.registry = TurnRegistry()
        #: For those who only read.
        self.reader = TurnReader(store, self.registry)
        self._retention = retention
        self._history_cache = HistoryCache(store)
        self._conversation_locks = ConversationLocks(stores.conversations if stores else None)
        self._mcp_tool_provider = mcp_tool_provider
        self.models = models

    async def start(
        self,
        request: TurnRequest,
        tools: ToolExecutor | None = None,
        unstored_history: UnstoredHistory | None = None,
    ) -> RunningTurn:
        """Check a request and set its turn going.

        ``tools`` runs the calls that the model makes; without it they are the caller's.
        ``memory`` is where an unstored turn may go on from, and what remembers it.
        Whatever is wrong with the request is raised here, before anything is stored.
        Where the request's context asks for a summary that is due, that is made first.
        Where something of its history is erased meanwhile, or a request that queues finds
        another process faster, that is done anew, unseen.
        """
        retries = Retries(request)
        async with self._conversation_locks.acquire(request) as look:
            while True:
                conversation, continuing = await look()
                try:
                    return await self._accepted(continuing, tools, unstored_history, conversation)
                except (ConversationLockedError, HistoryChanged) as refusal:
                    retries.count(refusal)

    async def _accepted(
        self,
        request: TurnRequest,
        tools: ToolExecutor | None,
        memory: UnstoredHistory | None,
        conversation: ConversationRecord | None,
    ) -> RunningTurn:
        """A turn that the store has taken, or that failed otherwise. Raises its refusal."""
        live = await self._start(request, tools, memory, conversation)
        if conversation is not None:
            self._conversation_locks.set_active_turn(request.tenant, conversation.id, live)
        if live.is_stored and (conversation or live.is_continuation):
            # Costs its reader nothing, to whom nothing is told before that in any case.
            await accepted(live)
        return live

    async def _start(
        self,
        request: TurnRequest,
        tools: ToolExecutor | None,
        unstored_history: UnstoredHistory | None,
        conversation: ConversationRecord | None,
    ) -> RunningTurn:
        found = await resolve_references(request, self.reader)
        request, agreed = found.request, found.approved_calls
        lent = await self._open_toolset(request) if request.mcp else None
        try:
            plan = await self._plan(request, unstored_history, lent, found.sources)
        except BaseException:
            if lent is not None:
                await lent.aclose()
            raise
        plan = msgspec.structs.replace(
            plan, tools=tools or lent, conversation=conversation, approved_calls=agreed
        )
        live = RunningTurn(plan.initial_response, is_streamed=request.stream)
        self.registry.start(live, TurnRunner(plan, live, self._store).run())
        return live

    async def _plan(
        self,
        request: TurnRequest,
        unstored_history: UnstoredHistory | None,
        toolset: McpToolset | None,
        sources: Sequence[Head],
    ) -> Plan:
        name, model = self.models.get(request.model)
        validate_input(request, model)
        shown, stored, blobs = await _extract_blobs(request.input)
        new = render_input(shown, request.instructions)
        lineage = await self._lineage(request, unstored_history)
        head, past = lineage.head, lineage.past
        validate_tool_outputs(past.turns[-1] if past.turns else None, shown, request.approved_calls)
        header = turn_header(name, request)
        asking = with_mcp_tools(header, toolset)
        if toolset is not None:
            header = with_effective_approvals(header, toolset)
        viewer = ContextBuilder(asking, model, request.context_policies)
        if head is not None:
            question = Question(request, header, model)
            for policy in request.context_policies:
                if isinstance(policy, Summarize) and is_due(policy, past, new, question):
                    # Not to be paid for by a turn that is over its budget in any case.
                    await viewer.build([*_without_summaries(past), new], 0)
                    head, past = await sum_up(self._history_cache, head, past, policy, question)
        lineage = msgspec.structs.replace(
            lineage, past=past, head=head, origin=head or lineage.origin
        )
        view = await viewer.build((*past.turns, new), past.tokens)
        # Summaries, counts and MCP servers may have taken long.
        await self._history_cache.check(lineage.origin, *sources)
        return Plan(
            request=request,
            # From here to the turn's beginning nothing is waited for: turns are begun in the
            # order of their times.
            initial_response=self._opening(request, header, shown, head),
            header=asking,
            model=model,
            lineage=lineage,
            history=self._history_cache,
            context=view,
            context_builder=viewer,
            sources=sources,
            stored_input=stored,
            on_stored=self._cache_history,
            blobs=blobs,
            unstored_history=unstored_history,
            mcp_toolset=toolset,
            tool_listings=new_tool_listings(toolset, past.turns) if toolset else (),
        )

    def _opening(
        self, request: TurnRequest, header: Header, shown: Sequence[Item], head: Head | None
    ) -> Response:
        now = time.time()
        return Response(
            id=new_response_id(),
            created_at=now,
            header=header,
            input=tuple(shown),
            previous_response_id=head.response_id if head else request.previous_response_id,
            store=request.store,
            expires_at=self._expires_at(request.tenant, now) if request.store else None,
        )

    async def _open_toolset(self, request: TurnRequest) -> McpToolset:
        if self._mcp_tool_provider is None:
            raise InvalidRequestError(
                "This server calls no MCP servers.", code="unsupported_parameter", param="tools"
            )
        return await self._mcp_tool_provider.open_toolset(
            request.mcp, reserved_names=[tool.name for tool in request.options.tools]
        )

    async def store_turn(
        self, request: TurnRequest, output: Sequence[Item] = (), *, completed: bool = True
    ) -> str:
        """Store a turn that has happened elsewhere; its response id.

        ``completed`` False: calls that it leaves open will never get their outputs.
        Raises what ``start`` raises, and nothing is stored then.
        """
        retries = Retries(request)
        async with self._conversation_locks.acquire(request) as look:
            while True:
                conversation, continuing = await look()
                try:
                    return await self._store_new_turn(continuing, output, completed, conversation)
                except (ConversationLockedError, HistoryChanged) as refusal:
                    retries.count(refusal)

    async def create_conversation_with_turn(
        self, request: TurnRequest, conversation: ConversationRecord
    ) -> str:
        """``keep`` the first turn of a new conversation, together with that.

        ``request`` names it, too.
        """
        return await self._store_new_turn(
            request, (), True, conversation, creates_conversation=True
        )

    async def _store_new_turn(
        self,
        request: TurnRequest,
        output: Sequence[Item],
        completed: bool,
        conversation: ConversationRecord | None,
        *,
        creates_conversation: bool = False,
    ) -> str:
        name, _ = self.models.get(request.model)
        shown, stored, blobs = await _extract_blobs((*request.input, *output))
        given = len(request.input)
        render_input(shown, request.instructions)
        lineage = await self._lineage(request)
        segments = lineage.past.turns
        validate_tool_outputs(segments[-1] if segments else None, shown[:given])
        turn = NewTurn(
            response_id=new_response_id(),
            tenant=request.tenant,
            created_at=time.time(),
            header=turn_header(name, request),
            input=[encode_item(item) for item in stored[:given]],
            parent=lineage.head,
            is_awaited=False,
            blobs=blobs,
            conversation=conversation,
            creates_conversation=creates_conversation,
            reservation=request.reservation,
        )
        end = End("completed" if completed else "incomplete", time.time())
        await keep_turn(self._store, turn, stored[given:], end)
        return turn.response_id

    async def summarize(self, request: TurnRequest, policy: Summarize) -> Response:
        """Have the model sum up a conversation now, but for its newest turns.

        ``request`` names the conversation (``previous_response_id``) and says how to ask;
        its input is not used. The response, whose one output item is a ``compaction``,
        continues that conversation. Raises ``InvalidRequestError`` where nothing is left to
        sum up, ``HistoryChanged`` where something of it is erased meanwhile.
        """
        name, model = self.models.get(request.model)
        lineage = await self._lineage(request)
        head, past = lineage.head, lineage.past
        if head is None or not has_unsummarized_turns(
            split_for_summary(past.turns, policy.keep_turns)[0]
        ):
            raise nothing_to_summarize_error()
        question = Question(request, turn_header(name, request), model)
        new, _ = await sum_up(self._history_cache, head, past, policy, question)
        return await self.reader.response(request.tenant, new.response_id)

    async def compact(self, request: TurnRequest) -> Summary:
        """Have the model sum up a conversation and what is sent along; nothing is stored.

        The item stands for all of it at the beginning of another conversation. Raises
        ``InvalidRequestError`` where there is nothing to sum up, ``HistoryChanged`` where something
        of it is erased meanwhile.
        """
        name, model = self.models.get(request.model)
        found = await resolve_references(
            await self._conversation_locks.resolve_head(request), self.reader
        )
        request = found.request
        validate_images(request, model)
        shown, _, _ = await _extract_blobs(request.input)
        new = render_input(shown, request.instructions)
        lineage = await self._lineage(request)
        past = lineage.past
        covered = (*past.turns, new) if shown else past.turns

        async def check() -> None:
            await self._history_cache.check(lineage.origin, *found.sources)

        if not covered:
            raise nothing_to_summarize_error()
        # Nothing is kept: of the policy only what the model is asked counts.
        policy = Summarize(max_messages=1, keep_turns=0)
        made = await summarize_turns(
            covered, (), policy, turn_header(name, request), model, check=check
        )
        await check()
        item = msgspec.structs.replace(made.item, retained_turns=0, replaced_turns=0)
        return msgspec.structs.replace(made, item=item)

    async def subscribe(self, tenant: str, response_id: str) -> RunningTurn | Replay:
        """A turn to read along with from its first event, running or over.

        Raises ``NotFoundError``.
        """
        live = self.registry.get(response_id)
        if live is not None and await self._store.head(tenant, response_id):
            return live

        async def look() -> Response:
            response = await self.reader.response(tenant, response_id)
            # As it was told first, however long the conversation has gone on since.
            expires_at = self._expires_at(tenant, response.created_at)
            return msgspec.structs.replace(response, expires_at=expires_at)

        return Replay(await look(), look)

    def _expires_at(self, tenant: str, created_at: float) -> float | None:
        """When a turn will be erased if no other follows it."""
        lifetime = self._retention.seconds_for(tenant)
        return None if lifetime is None else created_at + lifetime

    async def cancel(self, tenant: str, response_id: str) -> Response:
        """Stop a turn and keep what arrived; one that was stopped before stays as it is.

        Raises ``NotFoundError``, ``InvalidRequestError`` for a turn that ended otherwise before, and
        ``ConflictError`` where another process runs the turn.
        """
        live = self.registry.get(response_id)
        if live is not None and not live.done() and await self._store.head(tenant, response_id):
            return await live.cancel()
        response = await self.reader.response(tenant, response_id)
        if response.end is None:
            raise ConflictError(
                f"Response '{response_id}' runs in another process: cancel it there.",
                code="response_elsewhere",
            )
        if response.status != "cancelled":
            article = "an" if response.status == "incomplete" else "a"
            raise InvalidRequestError(
                # OpenAI's own words, which clients may compare.
                f"Cannot cancel {article} {response.status} response.",
                code="response_not_cancellable",
            )
        return response

    async def count_tokens(self, request: TurnRequest) -> int:
        """About how many tokens a turn would begin with: the model's own count, if it has one."""
        name, model = self.models.get(request.model)
        request = (
            await resolve_references(
                await self._conversation_locks.resolve_head(request), self.reader
            )
        ).request
        validate_input(request, model)
        shown, _, _ = await _extract_blobs(request.input)
        new = render_input(shown, request.instructions)
        lineage = await self._lineage(request)
        viewer = ContextBuilder(turn_header(name, request), model, ())
        segments = (*lineage.past.turns, new)
        exact = await model.count_tokens(
            viewer.model_call(segments, turn_header(name, request), stream=False)
        )
        return viewer.other_tokens(segments) + tokens_of(new) if exact is None else exact

    async def preview_context(self, request: TurnRequest) -> list[dict[str, Any]]:
        """The messages array that a continuation would begin with, before its new input.

        With the request's instructions and context policies, and with summaries in place
        of what they replace; without a model's primer.
        """
        name, model = self.models.get(request.model)
        viewer = ContextBuilder(turn_header(name, request), model, request.context_policies)
        retries = Retries(request)
        while True:
            lineage = await self._lineage(request)
            messages = await _messages(viewer, lineage.past, request.instructions)
            if await self._history_cache.unchanged(lineage.origin):
                return messages
            retries.count(HistoryChanged())

    async def delete(self, tenant: str, response_id: str, *, cascade: bool = False) -> None:
        """Erase a response; its descendants go on without it. Raises ``NotFoundError``."""
        live = self.registry.get(response_id)
        if live is not None and await self._store.head(tenant, response_id):
            await live.cancel()
        running = await self._running_turns(tenant) if cascade else ()
        if not await self._store.delete(tenant, response_id, cascade=cascade):
            raise response_not_found(response_id)
        for turn in running:
            if await self._store.head(tenant, turn.response_id) is None:
                await turn.cancel()

    async def close(self) -> None:
        """Interrupt what runs, keep it as that, and close the store."""
        await self.registry.close()
        await self._store.close()

    async def _running_turns(self, tenant: str) -> list[RunningTurn]:
        """A tenant's turns that run in this process and are on disk."""
        return [
            turn
            for turn in self.registry.all()
            if await self._store.head(tenant, turn.response_id) is not None
        ]

    async def _lineage(
        self, request: TurnRequest, memory: UnstoredHistory | None = None
    ) -> Lineage:
        previous = request.previous_response_id
        if previous is None:
            return Lineage()
        remembered = memory.lineage(previous) if memory and not request.store else None
        if remembered is not None:
            return await self._refreshed(remembered)
        head = await self._store.head(request.tenant, previous)
        if head is None:
            raise response_not_found(previous, param="previous_response_id")
        if head.is_running and await self.reader.persist_missing_end(previous):
            head = await self._store.head(request.tenant, previous) or head
        if head.is_running:
            raise ResponseInProgressError(
                f"Response '{previous}' is still running: continue it when it has ended.",
                param="previous_response_id",
            )
        return Lineage(await self._history_cache.get(head), head, head)

    async def _refreshed(self, lineage: Lineage) -> Lineage:
        """A remembered chain without what was erased from its stored part since."""
        origin = lineage.origin
        if origin is None or await self._history_cache.unchanged(origin):
            return lineage
        now = await self._store.head(origin.tenant, origin.response_id)
        if now is None:
            raise response_not_found(origin.response_id, param="previous_response_id")
        return lineage.renewed(await self._history_cache.get(now), now)

    def _cache_history(self, plan: Plan, turn: RenderedTurn) -> None:
        opening, lineage = plan.initial_response, plan.lineage
        past, origin = lineage.past, lineage.origin
        if opening.store:
            parent = lineage.head.response_id if lineage.head else None
            epoch = origin.epoch if origin else 0
            self._history_cache.extend(opening.id, epoch, past, turn, parent)
        elif plan.unstored_history is not None:
            longer = History((*past.turns, turn), past.tokens + tokens_of(turn))
            unstored = (*lineage.unstored, turn)
            plan.unstored_history.update(opening.id, Lineage(longer, None, origin, unstored))


def _without_summaries(history: History) -> list[RenderedTurn]:
    """Its turns without the summaries among them."""
    return [one for one in history.turns if one.retained_turns is None]


async def _extract_blobs(items: tuple[Item, ...]) -> _ExtractedBlobs:
    """``extract_blobs``, in a thread where there are images: those take a while to hash."""
    if any(map(has_image, items)):
        return await asyncio.to_thread(extract_blobs, items)
    return extract_blobs(items)


async def _messages(
    viewer: ContextBuilder, past: History, instructions: str | None
) -> list[dict[str, Any]]:
    """What a continuation of that chain would show before its new input."""
    # What comes next has no words yet; all that is known of it is whose outputs it brings.
    newest = past.turns[-1] if past.turns else RenderedTurn(b"")
    owed = newest.open_calls if newest.completed else ()
    coming = RenderedTurn(b"", outputs=dict.fromkeys(owed, b""))
    view = await viewer.build((*past.turns, coming), past.tokens)
    return decode_messages(build_messages(view.turns[:-1], instructions=instructions))
