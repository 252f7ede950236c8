"""References: resolves what a request refers to by id.

Item references become items, approval decisions the calls that they are about, and a previous
response the history that the turn continues.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

import msgspec

from antiphon.core.ids import item_id, parse_item_id, to_response_id
from antiphon.core.items import (
    ApprovedCall,
    FunctionCall,
    FunctionCallOutput,
    Item,
    McpApproval,
    decode_item,
)
from antiphon.core.tool_rules import denied_output
from antiphon.core.turns import TurnRequest
from antiphon.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    ResponseInProgressError,
)
from antiphon.turn.chat_protocols import ChatStore
from antiphon.turn.history_cache import (
    NO_HISTORY,
    HistoryCache,
    ResolvedHistory,
    UnstoredHistory,
)
from antiphon.turn.open_calls import already_decided_error
from antiphon.turn.store_protocols import Head, StoredTurn
from antiphon.turn.turn_reader import TurnReader, response_not_found


class ResolvedRequest(msgspec.Struct, frozen=True):
    """A request without references.

    ``approved_calls`` are the calls of earlier turns that it approves, by call id. ``sources``
    are the responses that something was read from, in the state before it was read.
    """

    request: TurnRequest
    approved_calls: Mapping[str, ApprovedCall] = {}
    sources: Sequence[Head] = ()


async def resolve_references(request: TurnRequest, reader: TurnReader) -> ResolvedRequest:
    """Put the items that a request refers to into it.

    Raises ``NotFoundError`` and ``InvalidRequestError``.
    """
    items: Sequence[Item] = request.input
    sources: list[Head] = []
    if request.references:
        items = await _insert_references(request, reader, sources)
    approved: dict[str, ApprovedCall] = {}
    if McpApproval in map(type, items):
        items = await _apply_approval_decisions(items, request, reader, approved, sources)
    if not approved and items is request.input:
        return ResolvedRequest(request)
    approved_calls = (*request.approved_calls, *(one.call for one in approved.values()))
    return ResolvedRequest(
        msgspec.structs.replace(
            request, input=tuple(items), approved_calls=approved_calls, references=()
        ),
        approved,
        sources,
    )


async def resolve_history(
    request: TurnRequest,
    cache: HistoryCache,
    reader: TurnReader,
    unstored_history: UnstoredHistory | None = None,
) -> ResolvedHistory:
    """The history that a request continues.

    Raises ``NotFoundError``, and ``ResponseInProgressError`` while the previous turn runs.
    """
    if request.previous_response_id is None:
        return NO_HISTORY
    previous = to_response_id(request.previous_response_id)
    unstored = unstored_history.get(previous) if unstored_history and not request.store else None
    if unstored is not None:
        return await _reread_stored_part(unstored, cache)
    store = cache.store
    head, newest = await cache.find_head(request.tenant, previous)
    if head is None:
        raise response_not_found(previous, param="previous_response_id")
    if head.is_running and await reader.persist_missing_end(previous):
        head = await store.head(request.tenant, previous) or head
    if head.is_running:
        raise ResponseInProgressError(
            f"Response '{previous}' is still running: continue it when it has ended.",
            param="previous_response_id",
        )
    history = cache.join(head, newest)
    if history is not None:
        return ResolvedHistory(history, head, head, is_current=True)
    history, is_current = await cache.read(head)
    return ResolvedHistory(history, head, head, is_current=is_current)


async def _reread_stored_part(base: ResolvedHistory, cache: HistoryCache) -> ResolvedHistory:
    """An unstored chain without what was erased from its stored part since."""
    stored_head = base.stored_head
    if stored_head is None or await cache.is_unchanged(stored_head):
        return base
    now = await cache.store.head(stored_head.tenant, stored_head.response_id)
    if now is None:
        raise response_not_found(stored_head.response_id, param="previous_response_id")
    return base.with_stored_history(await cache.get(now), now)


async def _insert_references(
    request: TurnRequest, reader: TurnReader, sources: list[Head]
) -> list[Item]:
    items_by_position: dict[int, list[Item]] = {}
    for reference in request.references:
        await _add_source(reference.id, request.tenant, reader, sources)
        referenced = await reader.item(request.tenant, reference.id)
        if not referenced:
            raise NotFoundError(
                f"No item found with id '{reference.id}'.",
                code="item_not_found",
                param=reference.param,
            )
        items_by_position.setdefault(reference.position, []).extend(referenced)
    items: list[Item] = []
    for position, item in enumerate((*request.input, None)):
        items += items_by_position.get(position, ())
        if item is not None:
            items.append(item)
    return items


async def _add_source(item_name: str, tenant: str, reader: TurnReader, sources: list[Head]) -> None:
    """Add the response of an item before the item is read: a later erasure shows in its epoch."""
    parsed = parse_item_id(item_name)
    head = await reader.head(tenant, parsed[0]) if parsed else None
    if head is not None:
        sources.append(head)


async def _apply_approval_decisions(
    items: Sequence[Item],
    request: TurnRequest,
    reader: TurnReader,
    approved_calls: dict[str, ApprovedCall],
    sources: list[Head],
) -> list[Item]:
    """The items, each denial followed by the output that the model reads in place of a result."""
    own_calls = {item.call_id for item in items if isinstance(item, FunctionCall)}
    resolved: list[Item] = []
    for item in items:
        resolved.append(item)
        if not isinstance(item, McpApproval) or item.approval_request_id in own_calls:
            continue
        await _add_source(item.approval_request_id, request.tenant, reader, sources)
        pending = await _pending_approval(item.approval_request_id, request.tenant, reader)
        if item.approve:
            approved_calls[pending.call.call_id] = pending
        else:
            denied = FunctionCallOutput(
                pending.call.call_id, denied_output(item), is_error=True, approved_call=pending
            )
            resolved.append(denied)
    return resolved


async def _pending_approval(request_id: str, tenant: str, reader: TurnReader) -> ApprovedCall:
    """The call of an approval request; ``pair_tool_outputs`` checks that it is still open."""
    parsed = parse_item_id(request_id)
    if parsed is not None and request_id == item_id(parsed[0], "mcp_approval_request", parsed[1]):
        for item in await reader.items_at(tenant, *parsed):
            if isinstance(item, FunctionCall) and item.server is not None:
                return ApprovedCall(request_id, item)
    raise InvalidRequestError(
        f"There is no approval request with id '{request_id}'.",
        code="approval_request_not_found",
        param="input",
    )


class ApprovalDecisions:
    """The decisions on calls that wait for a person: the first one holds, whoever makes it.

    Those of a conversation's own turns are made one at a time anyway: it has one head.
    """

    def __init__(self, reader: TurnReader, chats: ChatStore | None) -> None:
        self._reader = reader
        self._chats = chats
        #: Held by who decides on calls of a tenant's response, until that is stored.
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def reserve(self, request: TurnRequest) -> AsyncIterator[None]:
        """Nobody else in this process decides on these calls meanwhile.

        Raises ``ConflictError`` with the id of the response that somebody has decided with.
        """
        decided = {
            item.approval_request_id: item for item in request.input if type(item) is McpApproval
        }
        if not decided or request.previous_response_id is None or self._chats is None:
            yield
            return
        key = (request.tenant, to_response_id(request.previous_response_id))
        async with self._locks.setdefault(key, asyncio.Lock()):
            for branch in await self._chats.children(*key) or ():
                turn = await self._reader.stored_turn(request.tenant, branch.response_id)
                if turn is not None and (made := _decision_in(turn, decided)):
                    raise _decided_error(made, turn.response_id)
            yield


def _decision_in(turn: StoredTurn, calls: Mapping[str, McpApproval]) -> McpApproval | None:
    """What a turn has decided on one of some calls; one that failed before any ran, nothing."""
    has_failed = turn.end is not None and turn.end.status == "failed"
    if has_failed and not any(
        type(one) is FunctionCallOutput for one in map(decode_item, turn.output)
    ):
        return None
    items = map(decode_item, turn.input)
    return next(
        (one for one in items if type(one) is McpApproval and one.approval_request_id in calls),
        None,
    )


def _decided_error(made: McpApproval, response_id: str) -> ConflictError:
    how = "approved" if made.approve else "refused"
    error = already_decided_error(how, f"response '{response_id}' has what came of it")
    error.response_id = response_id
    return error
