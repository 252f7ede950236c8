"""Turn planning: turns a request into a ``TurnPlan``, each step from the result of the one before.

References are resolved, the input is validated, the history that it continues is found and
summarized where that is due, and the context of the first call is built.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TypeAlias

import msgspec

from antiphon.core.chain_fingerprints import fingerprint_history
from antiphon.core.context_policies import Summarize
from antiphon.core.deltas import Delta, Finish
from antiphon.core.ids import new_response_id, to_response_id
from antiphon.core.images import Blob, extract_blobs
from antiphon.core.items import ApprovedCall, Item, McpListTools, encode_item, has_image
from antiphon.core.mcp_servers import McpServerRequest
from antiphon.core.retention import RetentionPolicy
from antiphon.core.secrets import Secret
from antiphon.core.token_prices import PriceLookup, no_prices, token_cost
from antiphon.core.tool_rules import calls_to_approve
from antiphon.core.turns import (
    ConversationRecord,
    End,
    Header,
    McpTool,
    Response,
    RestartOptions,
    TurnRequest,
)
from antiphon.errors import InvalidRequestError
from antiphon.turn.chat_protocols import ChatStore
from antiphon.turn.compacted_input import apply_given_summary
from antiphon.turn.context_builder import ContextBuilder, ModelContext
from antiphon.turn.history_cache import (
    History,
    HistoryCache,
    ResolvedHistory,
    UnstoredHistory,
)
from antiphon.turn.message_rendering import RenderedTurn
from antiphon.turn.open_calls import pair_tool_outputs
from antiphon.turn.protocols import (
    McpToolProvider,
    McpToolset,
    Model,
    ModelCall,
    ModelInfo,
    ModelProvider,
    ToolExecutor,
)
from antiphon.turn.references import ResolvedRequest, resolve_history, resolve_references
from antiphon.turn.repeated_items import without_repeated_items
from antiphon.turn.store_protocols import Continuations, Head, NewTurn, ResponseIndex
from antiphon.turn.summarization import (
    SummaryRequest,
    due_compaction,
    needs_summary,
    summarize_history,
)
from antiphon.turn.tool_calls import (
    new_tool_listings,
    require_tools,
    tools_of_turn,
    with_effective_approvals,
    with_offered_tools,
)
from antiphon.turn.turn_reader import TurnReader, response_not_found
from antiphon.turn.validation import render_input, turn_header, validate_input, with_served_options

#: Items as a model is sent them, the same as they are stored, and their images.
ExtractedImages: TypeAlias = tuple[tuple[Item, ...], tuple[Item, ...], tuple[Blob, ...]]


class TurnPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a turn needs to run.

    ``context`` is what the first call contains. Its newest turn is the new input, which
    ``stored_input`` and ``blobs`` hold in the form that a store gets.
    """

    request: TurnRequest
    initial_response: Response
    model: Model
    #: What the turn continues, and the cache that it was read through.
    base: ResolvedHistory
    history_cache: HistoryCache
    context: ModelContext
    context_builder: ContextBuilder
    #: The response that a turn without a previous one belongs beside.
    sibling: Head | None = None
    #: What continues the response whose calls the turn decides on, and those beside it.
    seen: Sequence[Continuations] = ()
    #: Other responses that the input quotes.
    sources: Sequence[Head] = ()
    stored_input: Sequence[Item]
    blobs: Sequence[Blob] = ()
    tools: ToolExecutor | None = None
    #: Whoever runs the turn runs its functions too.
    has_own_tools: bool = False
    conversation: ConversationRecord | None = None
    unstored_history: UnstoredHistory | None = None
    #: The header that the model is called with: the stored one, and the tools of MCP servers.
    header: Header
    #: Approved calls of earlier turns, by call id.
    approved_calls: Mapping[str, ApprovedCall] = {}
    mcp_toolset: McpToolset | None = None
    tool_listings: Sequence[McpListTools] = ()
    #: The turn begins with a summary of those before it, made by this policy; or of its own input,
    #: to stand for so many of its first items.
    compaction: Summarize | None = None
    replaced_items: int = 0
    #: What models cost.
    prices: PriceLookup = no_prices
    #: Where chains are found by their fingerprints.
    response_index: ResponseIndex | None = None
    #: What the turn has said already, in a process that died; None: it is new.
    stored_output: Sequence[Item] | None = None

    def new_turn(self, *, is_awaited: bool) -> NewTurn:
        """The turn's beginning, as a store gets it; ``is_awaited``: somebody waits for that."""
        opening, request = self.initial_response, self.request
        return NewTurn(
            response_id=opening.id,
            tenant=request.tenant,
            created_at=opening.created_at,
            header=opening.header,
            input=[encode_item(item) for item in self.stored_input],
            parent=self.base.head,
            sibling=self.sibling,
            sources=self.sources,
            is_awaited=is_awaited,
            blobs=self.blobs,
            conversation=self.conversation,
            reservation=request.reservation,
            seen=self.seen,
        )

    async def aclose(self) -> None:
        """Let go of what was opened for the turn."""
        if self.mcp_toolset is not None:
            await self.mcp_toolset.aclose()

    def with_cost_and_approvals(self, end: End, output: Sequence[Item]) -> End:
        """An end with what its tokens cost, and with the calls that wait for a person."""
        approvals: tuple[str, ...] = ()
        if self.tools is not None and end.status == "completed":
            servers = self.initial_response.header.options.mcp_servers
            approvals = calls_to_approve(output, servers, has_own_tools=self.has_own_tools)
        price = self.prices(end.model or self.header.model) if end.usage else None
        if price is None and not approvals:
            return end
        cost = token_cost(end.usage, price) if end.usage and price else None
        return msgspec.structs.replace(end, cost=cost, approvals=approvals)


class _SilentModel:
    """The model of turns without output: nothing is generated, and nobody is called."""

    def __init__(self, info: ModelInfo) -> None:
        self.info = info

    async def generate(self, call: ModelCall) -> AsyncGenerator[Sequence[Delta]]:
        yield [Finish("stop")]

    async def count_tokens(self, call: ModelCall) -> int | None:
        return None

    async def close(self) -> None:
        pass


class TurnPlanner:
    """Plans turns; stores nothing but the summaries that are due before one."""

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        reader: TurnReader,
        models: ModelProvider,
        history_cache: HistoryCache,
        mcp_tool_provider: McpToolProvider | None,
        retention: RetentionPolicy,
        response_index: ResponseIndex | None = None,
        chats: ChatStore | None = None,
        prices: PriceLookup = no_prices,
    ) -> None:
        self._reader = reader
        self._models = models
        self._history_cache = history_cache
        self._mcp_tool_provider = mcp_tool_provider
        self._retention = retention
        self._response_index = response_index
        self._chats = chats
        self._prices = prices

    async def plan(
        self,
        request: TurnRequest,
        tools: ToolExecutor | None,
        unstored_history: UnstoredHistory | None,
        conversation: ConversationRecord | None,
    ) -> TurnPlan:
        """The plan of a turn. Raises what is wrong with the request.

        ``HistoryChangedError``: something that it needs was erased meanwhile; plan it again.
        """
        sibling = None
        if request.sibling_of is not None:
            request, sibling = await self.continue_beside(request)
        if request.chat_completion and request.store:
            request = await self._continue_known_history(request)
        if request.item_ids or request.references:
            request = await without_repeated_items(request, self._reader)
        resolved = await resolve_references(request, self._reader)
        toolset = await self.open_toolset(resolved.request) if resolved.request.mcp else None
        try:
            plan = await self._plan(resolved, tools, toolset, unstored_history, conversation)
            if sibling is None and self._prices is no_prices:
                return plan
            return msgspec.structs.replace(plan, sibling=sibling, prices=self._prices)
        except BaseException:
            if toolset is not None:
                await toolset.aclose()
            raise

    async def continue_beside(self, request: TurnRequest) -> tuple[TurnRequest, Head | None]:
        """The request with what its sibling continues; the sibling itself, where it begins a chat.

        Raises ``NotFoundError``.
        """
        if request.sibling_of is None:
            return request, None
        response_id = to_response_id(request.sibling_of)
        chats = self._chats
        origin = await chats.origin(request.tenant, response_id) if chats else None
        if origin is None:
            raise response_not_found(response_id, param="sibling_of")
        request = msgspec.structs.replace(request, previous_response_id=origin.parent)
        return request, None if origin.parent else origin.head

    async def plan_restart(self, tenant: str, response_id: str) -> TurnPlan:
        """The plan of a turn that has begun in another process, and whose rest is to be run here.

        Raises ``NotFoundError``, and what keeps the turn from being run, such as a model that this
        process does not have.
        """
        head = await self._reader.head(tenant, response_id)
        response = await self._reader.response(tenant, response_id)
        if head is None or response.header.restart is None:
            raise response_not_found(response_id)
        request = _request_of(response, tenant)
        _, model = self._models.get(request.model)
        toolset = await self.open_toolset(request) if request.mcp else None
        try:
            return await self._plan_restart(head, response, request, model, toolset)
        except BaseException:
            if toolset is not None:
                await toolset.aclose()
            raise

    async def _plan_restart(
        self,
        head: Head,
        response: Response,
        request: TurnRequest,
        model: Model,
        toolset: McpToolset | None,
    ) -> TurnPlan:
        previous = response.previous_response_id
        parent = await self._reader.head(head.tenant, previous) if previous else None
        # A summary that the turn itself has made counts.
        history = await self._history_cache.get_before(head)
        new = render_input(response.input, request.instructions)
        added_tools = (*history.added_tools, *new.added_tools)
        header = with_offered_tools(response.header, toolset, added_tools)
        builder = ContextBuilder(header, model, ())
        has_begun = bool(response.output)
        compaction, replaced = None, 0
        if not has_begun:
            call = SummaryRequest(request, header, model)
            compaction, replaced = due_compaction(call, history, response.input, new)
        return TurnPlan(
            request=request,
            initial_response=msgspec.structs.replace(response, output=()),
            header=header,
            model=model,
            base=ResolvedHistory(history, parent, head if previous else None),
            history_cache=self._history_cache,
            context=await builder.build(history, new),
            context_builder=builder,
            stored_input=(),
            tools=toolset,
            mcp_toolset=toolset,
            tool_listings=(
                new_tool_listings(toolset, history.turns) if toolset and not has_begun else ()
            ),
            compaction=compaction,
            replaced_items=replaced,
            prices=self._prices,
            response_index=self._response_index,
            stored_output=response.output,
        )

    async def _continue_known_history(self, request: TurnRequest) -> TurnRequest:
        """A chat completion to store, without the longest beginning that is stored already.

        The request continues that one's turn instead. What differs from it is new.
        """
        if self._response_index is None or request.previous_response_id is not None:
            return request
        history = fingerprint_history(request.tenant, request.input)
        request = msgspec.structs.replace(request, fingerprint=history.digest)
        found = await self._response_index.find_chain(
            request.tenant, [digest for _, digest in history.answers]
        )
        if found is None:
            return request
        position, response_id = found
        known, _ = history.answers[position]
        return msgspec.structs.replace(
            request, previous_response_id=response_id, input=request.input[known:]
        )

    async def _plan(
        self,
        resolved: ResolvedRequest,
        tools: ToolExecutor | None,
        toolset: McpToolset | None,
        unstored_history: UnstoredHistory | None,
        conversation: ConversationRecord | None,
    ) -> TurnPlan:
        request = resolved.request
        name, model = self._models.get(request.model)
        validate_input(request, model)
        request = with_served_options(request, model)
        require_tools(request.approved_calls, tools, toolset)
        base = await resolve_history(request, self._history_cache, self._reader, unstored_history)
        items = stored_input = _input_behind(base.history, request)
        blobs: Sequence[Blob] = ()
        if any(map(has_image, items)):
            items, stored_input, blobs = await extract_images(items)
        new = render_input(items, request.instructions)
        header = turn_header(name, request)
        model_header = header
        if header.options is not request.options:
            model_header = msgspec.structs.replace(header, options=request.options)
        added_tools = (*base.history.added_tools, *new.added_tools)
        model_header = with_offered_tools(model_header, toolset, added_tools)
        if toolset is not None:
            header = with_effective_approvals(header, toolset)
        builder = ContextBuilder(model_header, model, request.context_policies)
        if base.head is not None and request.context_policies and not request.is_decision:
            base = await self._summarize(base, new, builder, SummaryRequest(request, header, model))
        call = SummaryRequest(request, model_header, model)
        compaction, replaced = due_compaction(call, base.history, items, new)
        context = await builder.build(base.history, new)
        if not base.is_current or request.context_policies or blobs or toolset or resolved.sources:
            # Reads, images, summaries, token counts and MCP servers may have taken long.
            await self._history_cache.require_unchanged(base.stored_head, *resolved.sources)
        return TurnPlan(
            request=request,
            # From here to the beginning nothing is awaited: turns begin in order of their times.
            initial_response=self._initial_response(request, header, items, base.head),
            header=model_header,
            model=model if request.generate else _SilentModel(model.info),
            base=base,
            history_cache=self._history_cache,
            context=context,
            context_builder=builder,
            sources=resolved.sources,
            stored_input=stored_input,
            blobs=blobs,
            tools=tools_of_turn(tools, toolset),
            has_own_tools=tools is not None,
            conversation=conversation,
            approved_calls=resolved.approved_calls,
            unstored_history=unstored_history,
            mcp_toolset=toolset,
            tool_listings=new_tool_listings(toolset, base.history.turns) if toolset else (),
            compaction=compaction,
            replaced_items=replaced,
            response_index=self._response_index,
        )

    async def _summarize(
        self,
        base: ResolvedHistory,
        new: RenderedTurn,
        builder: ContextBuilder,
        call: SummaryRequest,
    ) -> ResolvedHistory:
        """What the turn continues once the summaries that are due have been made."""
        head, history = base.head, base.history
        for policy in call.request.context_policies:
            if head is None or not isinstance(policy, Summarize):
                continue
            if needs_summary(policy, history, new, call.header, call.model):
                # A turn that exceeds its budget in any case should not pay for a summary.
                unsummarized = [one for one in history.turns if one.retained_turns is None]
                await builder.build(History(tuple(unsummarized)), new)
                head, history = await summarize_history(
                    self._history_cache, head, history, policy, call
                )
        if history is base.history:
            return base
        return msgspec.structs.replace(base, history=history, head=head, stored_head=head)

    def _initial_response(
        self, request: TurnRequest, header: Header, items: Sequence[Item], head: Head | None
    ) -> Response:
        now = time.time()
        return Response(
            id=new_response_id(),
            created_at=now,
            header=header,
            input=tuple(items),
            previous_response_id=head.response_id if head else request.previous_response_id,
            store=request.store,
            expires_at=expires_at(self._retention, request.tenant, now) if request.store else None,
        )

    async def open_toolset(self, request: TurnRequest) -> McpToolset:
        """The tools of a request's MCP servers, to be closed."""
        if self._mcp_tool_provider is None:
            raise InvalidRequestError(
                "This server calls no MCP servers.", code="unsupported_parameter", param="tools"
            )
        return await self._mcp_tool_provider.open_toolset(
            request.mcp, reserved_names=[tool.name for tool in request.options.tools]
        )


def _input_behind(history: History, request: TurnRequest) -> tuple[Item, ...]:
    """The input of a request that continues a history."""
    given = pair_tool_outputs(history.turns, request.input, request.approved_calls)
    if not history.turns:
        given = apply_given_summary(given, request.compact_threshold)
    return tuple(given)


async def extract_images(items: tuple[Item, ...]) -> ExtractedImages:
    """``extract_blobs``, in a thread where there are images: hashing them takes a while."""
    if any(map(has_image, items)):
        return await asyncio.to_thread(extract_blobs, items)
    return items, items, ()


def _request_of(response: Response, tenant: str) -> TurnRequest:
    """The request of a stored turn, as far as it is needed to run the turn again."""
    header = response.header
    restart = header.restart or RestartOptions()
    return TurnRequest(
        input=response.input,
        model=header.model,
        previous_response_id=response.previous_response_id,
        conversation=header.conversation,
        instructions=header.instructions,
        options=header.options,
        stream=restart.stream,
        background=header.background,
        tenant=tenant,
        compact_threshold=restart.compact_threshold,
        max_tool_rounds=restart.max_tool_rounds,
        timeout=restart.timeout,
        mcp=tuple(map(_server_request, header.options.mcp_servers)),
        key_id=header.key_id,
    )


def _server_request(server: McpTool) -> McpServerRequest:
    return McpServerRequest(
        label=server.server_label,
        url=None if server.server_url is None else Secret(server.server_url),
        allowed_tools=server.allowed_tools,
        require_approval=server.require_approval,
        exempt=server.exempt,
    )


def expires_at(retention: RetentionPolicy, tenant: str, created_at: float) -> float | None:
    """When a turn expires if no other one continues it, in seconds since 1970; None: never."""
    lifetime = retention.seconds_for(tenant)
    return None if lifetime is None else created_at + lifetime
