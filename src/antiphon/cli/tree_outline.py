"""Tree outline: the turns of a chat with all its branches, one a line. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from antiphon.turn.transfer_protocols import TreeTurn

_MAX_DEPTH = 12


def outline(turns: Sequence[TreeTurn]) -> list[tuple[str, str]]:
    """The turns of a tree in the order in which they are shown, each with what stands before it.

    A chain stays in its column. Where turns continue the same one, all but the newest are shown
    one column to the right, before it.
    """
    children: dict[str | None, list[str]] = defaultdict(list)
    for one in turns:
        children[one.parent].append(one.response_id)
    shown: list[tuple[str, str]] = []
    waiting = _branches(children[None], 0)
    while waiting:
        response_id, depth, is_branch = waiting.pop()
        indent = "│ " * min(depth - is_branch, _MAX_DEPTH)
        shown.append((response_id, f"{indent}{'├─' if is_branch else ''}"))
        waiting += _branches(children[response_id], depth)
    return shown


def _branches(ids: Sequence[str], depth: int) -> list[tuple[str, int, bool]]:
    """Turns beside each other, the one to show first at the end."""
    branches = [(one, depth + 1, True) for one in ids[:-1]]
    return [(one, depth, False) for one in ids[-1:]] + branches[::-1]
