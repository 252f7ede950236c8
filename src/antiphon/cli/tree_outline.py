"""Tree outline: the turns of a chat with all its branches, one a line. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from antiphon.turn.transfer_protocols import TreeTurn

_MAX_DEPTH = 12


def outline(turns: Sequence[TreeTurn], head: str | None = None) -> list[tuple[str, str]]:
    """The turns of a tree in the order in which they are shown, each with what stands before it.

    A chain stays in its column. Where turns continue the same one, that on the way to ``head``
    does, else that with the most turns behind it, else the newest; the others are shown one column
    to the right, before it.
    """
    children: dict[str | None, list[str]] = defaultdict(list)
    for one in turns:
        children[one.parent].append(one.response_id)
    sizes = _sizes(children)
    current = _chain_of(turns, head)

    def branches(ids: Sequence[str], depth: int) -> list[tuple[str, int, bool]]:
        """Turns beside each other, the one to show first at the end."""
        if not ids:
            return []
        trunk = max(enumerate(ids), key=lambda one: (one[1] in current, sizes[one[1]], one[0]))[1]
        others = [(one, depth + 1, True) for one in ids if one != trunk]
        return [(trunk, depth, False), *others[::-1]]

    shown: list[tuple[str, str]] = []
    waiting = branches(children[None], 0)
    while waiting:
        response_id, depth, is_branch = waiting.pop()
        indent = "│ " * min(depth - is_branch, _MAX_DEPTH)
        shown.append((response_id, f"{indent}{'├─' if is_branch else ''}"))
        waiting += branches(children[response_id], depth)
    return shown


def _sizes(children: Mapping[str | None, Sequence[str]]) -> dict[str, int]:
    """How many turns each one has behind it, itself included."""
    order = [*children.get(None, ())]
    for response_id in order:
        order += children.get(response_id, ())
    sizes: dict[str, int] = {}
    for response_id in reversed(order):
        sizes[response_id] = 1 + sum(sizes[one] for one in children.get(response_id, ()))
    return sizes


def _chain_of(turns: Sequence[TreeTurn], head: str | None) -> set[str]:
    """A turn and its ancestors."""
    parents = {one.response_id: one.parent for one in turns}
    chain: set[str] = set()
    while head is not None and head not in chain:
        chain.add(head)
        head = parents.get(head)
    return chain
