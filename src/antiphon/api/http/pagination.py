"""Cursor pagination: ``limit``, ``order``, ``after``, filters, and the ``list`` object. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from antiphon.core.turns import TurnStatus
from antiphon.errors import InvalidRequestError
from antiphon.turn.store_protocols import ResponseFilter, unknown_cursor


def paginate(
    items: Sequence[dict[str, Any]],
    query: Mapping[str, Sequence[str]],
    default_order: str = "desc",
) -> dict[str, Any]:
    """One page of ``items``, which come oldest first.

    ``limit`` is 1 to 100 (20), ``order`` asc or desc (desc: newest first), ``after``
    the id of the last item of the page before. Raises ``InvalidRequestError``.
    """
    limit = parse_limit(query)
    ordered = list(items) if parse_order(query, default_order) == "asc" else list(reversed(items))
    after = query.get("after", [None])[-1]
    if after is not None:
        ordered = items_after(ordered, after)
    return list_body(ordered[:limit], has_more=len(ordered) > limit)


def items_after(
    ordered: Sequence[dict[str, Any]], after: str, key: str = "id"
) -> list[dict[str, Any]]:
    """The items after the one with the id ``after``. Raises ``InvalidRequestError``.

    ``key`` is the field that has the id.
    """
    for end, item in enumerate(ordered, 1):
        if item[key] == after:
            return list(ordered[end:])
    raise unknown_cursor(after)


def parse_limit(
    query: Mapping[str, Sequence[str]],
    default: str = "20",
    maximum: int = 100,
    *,
    name: str = "limit",
) -> int:
    """The page size, under its name. Raises ``InvalidRequestError``."""
    text = query.get(name, [default])[-1]
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= maximum):
        raise InvalidRequestError(f"The {name} is a number from 1 to {maximum}.", param=name)
    return int(text)


def parse_order(query: Mapping[str, Sequence[str]], default: str = "desc") -> str:
    """``asc`` or ``desc``. Raises ``InvalidRequestError``."""
    order = query.get("order", [default])[-1].lower()
    if order not in {"asc", "desc"}:
        raise InvalidRequestError("The order is asc or desc.", param="order")
    return order


#: The statuses of a response, and what they are to a store: there a queued turn has no end yet.
STATUSES: dict[str, TurnStatus] = {
    **{status: status for status in get_args(TurnStatus)},
    "queued": "in_progress",
}


def parse_response_filter(query: Mapping[str, Sequence[str]]) -> ResponseFilter:
    """``?model=…&status=…&metadata[key]=…``. Raises ``InvalidRequestError``."""
    status = query.get("status", [None])[-1]
    if status is not None and status not in STATUSES:
        raise InvalidRequestError(f"The status is one of {', '.join(STATUSES)}.", param="status")
    return ResponseFilter(
        model=query.get("model", [None])[-1],
        status=STATUSES[status] if status else None,
        metadata=parse_metadata(query),
    )


def parse_metadata(query: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """``?metadata[key]=…``"""
    return {
        name[len("metadata[") : -1]: values[-1]
        for name, values in query.items()
        if name.startswith("metadata[") and name.endswith("]")
    }


def list_body(page: Sequence[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """One page as OpenAI's ``list`` object."""
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": has_more,
    }
