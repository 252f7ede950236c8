"""Pages of lists, as OpenAI's ``list`` objects. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from antiphon.errors import InvalidRequest
from antiphon.turn.store_protocols import unknown_cursor


def page_of(items: Sequence[dict[str, Any]], query: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """One page of ``items``, which come oldest first.

    ``limit`` is 1 to 100 (20), ``order`` asc or desc (desc: newest first), ``after``
    the id of the last item of the page before. Raises ``InvalidRequest``.
    """
    limit = limit_of(query)
    ordered = list(items) if order_of(query) == "asc" else list(reversed(items))
    after = query.get("after", [None])[-1]
    if after is not None:
        ordered = behind(ordered, after)
    page = ordered[:limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(ordered) > limit,
    }


def behind(ordered: Sequence[dict[str, Any]], after: str) -> list[dict[str, Any]]:
    """What comes behind the one with the id ``after``. Raises ``InvalidRequest``."""
    for place, item in enumerate(ordered, 1):
        if item["id"] == after:
            return list(ordered[place:])
    raise unknown_cursor(after)


def limit_of(query: Mapping[str, Sequence[str]]) -> int:
    """How many to show. Raises ``InvalidRequest``."""
    text = query.get("limit", ["20"])[-1]
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= 100):
        raise InvalidRequest("The limit is a number from 1 to 100.", param="limit")
    return int(text)


def order_of(query: Mapping[str, Sequence[str]]) -> str:
    """``asc`` or ``desc``. Raises ``InvalidRequest``."""
    order = query.get("order", ["desc"])[-1]
    if order not in {"asc", "desc"}:
        raise InvalidRequest("The order is asc or desc.", param="order")
    return order
