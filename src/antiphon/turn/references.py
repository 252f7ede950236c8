"""What a request only names, put into it: items kept elsewhere, and calls a person decided on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from antiphon.core.ids import item_id, place_of_item
from antiphon.core.items import Approved, FunctionCall, FunctionCallOutput, Item, McpApproval
from antiphon.core.tool_rules import denial
from antiphon.core.turns import TurnRequest
from antiphon.errors import InvalidRequest, NotFound
from antiphon.turn.protocols import Head
from antiphon.turn.turn_reader import Records


class Asked(msgspec.Struct, frozen=True):
    """A request with nothing left to look up.

    ``agreed`` are the calls of earlier turns that it approves, by call id. ``sources`` are
    the responses that something was found in, as they were before it was read.
    """

    request: TurnRequest
    agreed: Mapping[str, Approved] = {}
    sources: Sequence[Head] = ()


async def looked_up(request: TurnRequest, records: Records) -> Asked:
    """Find what a request names. Raises ``NotFound`` and ``InvalidRequest``."""
    items: Sequence[Item] = request.input
    sources: list[Head] = []
    if request.references:
        items = await _with_references(request, records, sources)
    agreed: dict[str, Approved] = {}
    if any(isinstance(item, McpApproval) for item in items):
        items = await _decided(items, request, records, agreed, sources)
    if not agreed and items is request.input:
        return Asked(request)
    approved = (*request.approved, *(one.call for one in agreed.values()))
    return Asked(
        msgspec.structs.replace(request, input=tuple(items), approved=approved, references=()),
        agreed,
        sources,
    )


async def _with_references(
    request: TurnRequest, records: Records, sources: list[Head]
) -> list[Item]:
    found: dict[int, list[Item]] = {}
    for reference in request.references:
        await _note_source(reference.id, request.tenant, records, sources)
        there = await records.item(request.tenant, reference.id)
        if not there:
            raise NotFound(
                f"No item found with id '{reference.id}'.",
                code="item_not_found",
                param=reference.param,
            )
        found.setdefault(reference.place, []).extend(there)
    items: list[Item] = []
    for place, item in enumerate((*request.input, None)):
        items += found.get(place, ())
        if item is not None:
            items.append(item)
    return items


async def _note_source(item_name: str, tenant: str, records: Records, sources: list[Head]) -> None:
    """Note where an item lies before it is read: what is erased after that shows then."""
    place = place_of_item(item_name)
    head = await records.head(tenant, place[0]) if place else None
    if head is not None:
        sources.append(head)


async def _decided(
    items: Sequence[Item],
    request: TurnRequest,
    records: Records,
    agreed: dict[str, Approved],
    sources: list[Head],
) -> list[Item]:
    """The items, each refusal followed by the output that the model reads of it."""
    own = {item.call_id for item in items if isinstance(item, FunctionCall)}
    decided: list[Item] = []
    for item in items:
        decided.append(item)
        if not isinstance(item, McpApproval) or item.approval_request_id in own:
            continue
        await _note_source(item.approval_request_id, request.tenant, records, sources)
        waiting = await _waiting(item.approval_request_id, request.tenant, records)
        if item.approve:
            agreed[waiting.call.call_id] = waiting
        else:
            refused = FunctionCallOutput(
                waiting.call.call_id, denial(item), failed=True, approved=waiting
            )
            decided.append(refused)
    return decided


async def _waiting(request_id: str, tenant: str, records: Records) -> Approved:
    """The call that a person was asked about; whether it still waits is checked with the rest."""
    place = place_of_item(request_id)
    if place is not None and request_id == item_id(place[0], "mcp_approval_request", place[1]):
        for item in await records.at(tenant, *place):
            if isinstance(item, FunctionCall) and item.server is not None:
                return Approved(request_id, item)
    raise InvalidRequest(
        f"There is no approval request with id '{request_id}'.",
        code="approval_request_not_found",
        param="input",
    )
