"""Usage groups: sums of tokens and cost by day, model or API key, or by several of them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Final

from antiphon.errors import InvalidRequestError
from antiphon.turn.chat_protocols import UsageSum

#: What a sum may be of, in the order of a row's fields.
GROUPINGS: Final = ("day", "model", "key")
#: How several are named.
GROUPING_NAMES: Final = tuple(
    ",".join(names)
    for count in range(1, len(GROUPINGS) + 1)
    for names in combinations(GROUPINGS, count)
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def parse_groupings(text: str) -> list[str]:
    """The names in a list like ``day,key``. Raises ``InvalidRequestError``."""
    given = text.split(",")
    if len(set(given)) < len(given) or not set(given) <= set(GROUPINGS):
        raise InvalidRequestError(
            "by is day, model or key, or several of them, as in day,key.", param="by"
        )
    return [name for name in GROUPINGS if name in given]


def add_up(sums: Sequence[UsageSum], groupings: Sequence[str]) -> list[UsageSum]:
    """The sum of each group, in order.

    By key there are none where no turn came with a key.
    """
    if "key" in groupings and all(one.key_id is None for one in sums):
        return []
    groups: dict[tuple[int | str, ...], UsageSum] = {}
    for one in sums:
        values: dict[str, int | str] = {
            "day": one.day,
            "model": one.model,
            "key": one.key_id or "",
        }
        group = tuple(values[name] for name in groupings)
        groups[group] = groups[group] + one if group in groups else one
    return [groups[group] for group in sorted(groups)]


def group_fields(one: UsageSum, groupings: Sequence[str]) -> dict[str, str | None]:
    """What a sum is of; ``key`` None: turns that came without a key."""
    date = (_EPOCH + timedelta(days=one.day)).date().isoformat()
    values = {"day": date, "model": one.model, "key": one.key_id}
    return {name: values[name] for name in groupings}
