"""References: resolves what a request refers to by id.

Item references become items, approval decisions the calls that they are about, and a previous
response the history that the turn continues.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

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
from antiphon.turn.store_protocols import Continuations, Head, StoredTurn
from antiphon.turn.turn_reader import (
    TurnReader,
    is_summary_turn,
    response_not_found,
    response_of,
)


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

    Who decides looks for what others have decided, and the store refuses the turn where somebody
    has continued the response since (``NewTurn.seen``): at any node, and whatever dies.
    """

    def __init__(self, reader: TurnReader, chats: ChatStore | None) -> None:
        self._reader = reader
        self._chats = chats

    async def look(
        self, request: TurnRequest, gone: frozenset[str] = frozenset()
    ) -> Sequence[Continuations]:
        """What continues the response with the calls that a request decides on; nothing for others.

        ``gone`` are continuations that the store has, but nobody can read any more. Raises
        ``ConflictError`` with the id of the response that somebody has decided with.
        """
        if self._chats is None or request.previous_response_id is None or not request.is_decision:
            return ()
        decisions = {one.approval_request_id for one in request.input if type(one) is McpApproval}
        asking = await self._asking_turn(request.tenant, request.previous_response_id)
        is_waiting = asking is not None and bool(response_of(asking).open_calls)
        if asking is None or not (is_waiting or decisions):
            return ()
        seen: list[Continuations] = []
        # Grows as it is walked: behind a summary the calls wait still.
        turns = [asking]
        for turn in turns:
            head = await self._reader.head(request.tenant, turn.response_id)
            names = set(gone)
            for branch in await self._chats.children(request.tenant, turn.response_id) or ():
                names.add(branch.response_id)
                child = await self._reader.stored_turn(request.tenant, branch.response_id)
                if child is None:
                    continue
                if is_summary_turn(child):
                    turns.append(child)
                elif _has_decided(child, decisions, request, is_waiting=is_waiting):
                    raise _decided_error(child)
            if head is not None:
                seen.append(Continuations(head, frozenset(names)))
        return seen

    async def _asking_turn(self, tenant: str, response_id: str) -> StoredTurn | None:
        """The turn whose calls are open at a response: itself, or the one that summaries follow."""
        turn = await self._reader.stored_turn(tenant, response_id)
        while turn is not None and is_summary_turn(turn):
            turn = await self._reader.previous(tenant, turn.response_id)
        return turn


def _has_decided(
    turn: StoredTurn, decisions: Set[str], request: TurnRequest, *, is_waiting: bool
) -> bool:
    """Whether a continuation has decided on calls; one that failed before any ran has not.

    ``is_waiting``: nothing but decisions goes on there, as the calls need their outputs.
    """
    status = turn.end.status if turn.end is not None else None
    if request.on_decided == "retry" and status in ("failed", "cancelled"):
        return False
    if status == "failed" and FunctionCallOutput not in map(type, map(decode_item, turn.output)):
        return False
    if is_waiting:
        # What was queued while the calls were being made waits as well.
        return turn.header.restart is None or not turn.header.restart.waits
    made = _decisions_of(turn)
    return any(one.approval_request_id in decisions for one in made)


def _decisions_of(turn: StoredTurn) -> list[McpApproval]:
    return [one for one in map(decode_item, turn.input) if type(one) is McpApproval]


def _decided_error(turn: StoredTurn) -> ConflictError:
    words = {"approved" if one.approve else "refused" for one in _decisions_of(turn)}
    how = words.pop() if len(words) == 1 else "decided on"
    error = already_decided_error(how, f"response '{turn.response_id}' has what came of it")
    error.response_id = turn.response_id
    return error
