"""What a request only names, put into it: items kept elsewhere, and calls a person decided on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from antiphon.core.ids import item_id, parse_item_id
from antiphon.core.items import ApprovedCall, FunctionCall, FunctionCallOutput, Item, McpApproval
from antiphon.core.tool_rules import denied_output
from antiphon.core.turns import TurnRequest
from antiphon.errors import InvalidRequestError, NotFoundError
from antiphon.turn.protocols import Head
from antiphon.turn.turn_reader import TurnReader


class ResolvedRequest(msgspec.Struct, frozen=True):
    """A request with nothing left to look up.

    ``agreed`` are the calls of earlier turns that it approves, by call id. ``sources`` are
    the responses that something was found in, as they were before it was read.
    """

    request: TurnRequest
    approved_calls: Mapping[str, ApprovedCall] = {}
    sources: Sequence[Head] = ()


async def resolve_references(request: TurnRequest, reader: TurnReader) -> ResolvedRequest:
    """Find what a request names. Raises ``NotFoundError`` and ``InvalidRequestError``."""
    items: Sequence[Item] = request.input
    sources: list[Head] = []
    if request.references:
        items = await _insert_references(request, reader, sources)
    agreed: dict[str, ApprovedCall] = {}
    if any(isinstance(item, McpApproval) for item in items):
        items = await _apply_approval_decisions(items, request, reader, agreed, sources)
    if not agreed and items is request.input:
        return ResolvedRequest(request)
    approved = (*request.approved_calls, *(one.call for one in agreed.values()))
    return ResolvedRequest(
        msgspec.structs.replace(
            request, input=tuple(items), approved_calls=approved, references=()
        ),
        agreed,
        sources,
    )


async def _insert_references(
    request: TurnRequest, reader: TurnReader, sources: list[Head]
) -> list[Item]:
    found: dict[int, list[Item]] = {}
    for reference in request.references:
        await _note_source(reference.id, request.tenant, reader, sources)
        there = await reader.item(request.tenant, reference.id)
        if not there:
            raise NotFoundError(
                f"No item found with id '{reference.id}'.",
                code="item_not_found",
                param=reference.param,
            )
        found.setdefault(reference.position, []).extend(there)
    items: list[Item] = []
    for place, item in enumerate((*request.input, None)):
        items += found.get(place, ())
        if item is not None:
            items.append(item)
    return items


async def _note_source(
    item_name: str, tenant: str, records: TurnReader, sources: list[Head]
) -> None:
    """Note where an item lies before it is read: what is erased after that shows then."""
    place = parse_item_id(item_name)
    head = await records.head(tenant, place[0]) if place else None
    if head is not None:
        sources.append(head)


async def _apply_approval_decisions(
    items: Sequence[Item],
    request: TurnRequest,
    reader: TurnReader,
    approved_calls: dict[str, ApprovedCall],
    sources: list[Head],
) -> list[Item]:
    """The items, each refusal followed by the output that the model reads of it."""
    own = {item.call_id for item in items if isinstance(item, FunctionCall)}
    decided: list[Item] = []
    for item in items:
        decided.append(item)
        if not isinstance(item, McpApproval) or item.approval_request_id in own:
            continue
        await _note_source(item.approval_request_id, request.tenant, reader, sources)
        waiting = await _pending_approval(item.approval_request_id, request.tenant, reader)
        if item.approve:
            approved_calls[waiting.call.call_id] = waiting
        else:
            refused = FunctionCallOutput(
                waiting.call.call_id, denied_output(item), is_error=True, approved_call=waiting
            )
            decided.append(refused)
    return decided


async def _pending_approval(request_id: str, tenant: str, reader: TurnReader) -> ApprovedCall:
    """The call that a person was asked about; whether it still waits is checked with the rest."""
    place = parse_item_id(request_id)
    if place is not None and request_id == item_id(place[0], "mcp_approval_request", place[1]):
        for item in await reader.items_at(tenant, *place):
            if isinstance(item, FunctionCall) and item.server is not None:
                return ApprovedCall(request_id, item)
    raise InvalidRequestError(
        f"There is no approval request with id '{request_id}'.",
        code="approval_request_not_found",
        param="input",
    )
