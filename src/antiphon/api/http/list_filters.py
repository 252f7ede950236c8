"""Lists of what a tenant has: which, and how they are shown. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from antiphon.core.turns import TurnStatus
from antiphon.errors import InvalidRequest
from antiphon.turn.store_protocols import Wanted

#: How a turn may stand.
STATUSES: dict[str, TurnStatus] = {status: status for status in get_args(TurnStatus)}


def wanted_of(query: Mapping[str, Sequence[str]]) -> Wanted:
    """``?model=…&status=…&metadata[key]=…``. Raises ``InvalidRequest``."""
    status = query.get("status", [None])[-1]
    if status is not None and status not in STATUSES:
        raise InvalidRequest(f"The status is one of {', '.join(STATUSES)}.", param="status")
    return Wanted(
        model=query.get("model", [None])[-1],
        status=STATUSES[status] if status else None,
        metadata={
            name[len("metadata[") : -1]: values[-1]
            for name, values in query.items()
            if name.startswith("metadata[") and name.endswith("]")
        },
    )


def listed(page: Sequence[dict[str, Any]], *, more: bool) -> dict[str, Any]:
    """One page as OpenAI's ``list`` object."""
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": more,
    }
