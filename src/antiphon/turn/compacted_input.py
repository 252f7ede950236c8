"""Compacted input: which items of an input that is a whole history a summary stands for. Pure.

Clients that keep their histories send them as one input. A summary of such an input replaces its
older items for the model: all but system messages, and the exchange or round that is still
to be answered.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from antiphon.core.context_policies import Summarize
from antiphon.core.items import Compaction, Item
from antiphon.turn.exchanges import split_exchanges
from antiphon.turn.message_rendering import is_system_message, render_turn
from antiphon.turn.trimming import tokens_of


def count_items_to_replace(items: Sequence[Item], policy: Summarize, base: int) -> int:
    """How many of the first items a summary is to stand for; 0: there is nothing to replace.

    The last exchange stays. Where that alone, with ``base`` tokens before it, exceeds the policy,
    as that of an agent with many rounds of tools may, only the last round does.
    """
    last = split_exchanges(items)[-1]
    limit = policy.max_tokens
    if limit is not None and base + tokens_of(render_turn(last)) > limit:
        last = split_exchanges(items, by_rounds=True)[-1]
    count = len(items) - len(last)
    covered = max((one.replaced_items for one in items if isinstance(one, Compaction)), default=0)
    return count if _has_words(items[covered:count]) else 0


def apply_given_summary(items: Sequence[Item], threshold: int | None) -> Sequence[Item]:
    """An input in which a client has put a summary behind what that covers, as it came.

    What was still to be answered when the summary was made comes before it, and stays. Of a client
    that asks for no summaries (``threshold`` None), one is words like any others.
    """
    if threshold is None:
        return items
    for position in range(len(items) - 1, 0, -1):
        item = items[position]
        if not isinstance(item, Compaction):
            continue
        count = position - len(split_exchanges(items[:position])[-1])
        if not _has_words(items[:count]):
            break
        marked = msgspec.structs.replace(item, replaced_items=count)
        return [*items[:position], marked, *items[position + 1 :]]
    return items


def _has_words(items: Sequence[Item]) -> bool:
    """Whether there is something that no summary stands for yet, and that may go."""
    return any(not (isinstance(one, Compaction) or is_system_message(one)) for one in items)
