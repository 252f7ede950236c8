"""Tree command: all branches of a chat on a full screen, to go on from any turn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from antiphon.cli.interactive.chat_commands import go_to
from antiphon.cli.interactive.chat_loop import ChatLoop, Handler
from antiphon.cli.interactive.chat_session import answer_text, user_text
from antiphon.cli.interactive.row_picker import Row, pick_row
from antiphon.cli.terminal_output import format_ago
from antiphon.core.items import shorten
from antiphon.core.turns import DEFAULT_TENANT
from antiphon.errors import InvalidRequestError, NotFoundError
from antiphon.turn.transfer_protocols import TreeTurn

_MAX_QUESTION = 90
_MAX_DETAIL = 300
_MAX_DEPTH = 12
#: A plain terminal shows so many turns: the labels of all have to be read.
_MAX_HITS = 100


async def show_tree(loop: ChatLoop, _: str) -> None:
    """Choose a turn of the chat and go on from it."""
    head = loop.session.head
    if head is None:
        raise InvalidRequestError("nothing has been asked yet")
    stores = loop.engine.stores
    turns = await stores.chat_transfer.tree(DEFAULT_TENANT, head)
    shape = outline(turns)
    known = {one.response_id for one in turns}

    async def find(query: str) -> list[Row]:
        if not query.strip():
            return [Row(response_id, prefix) for response_id, prefix in shape]
        hits = await stores.search.search(DEFAULT_TENANT, query, _MAX_HITS)
        return [Row(hit.response_id, "", "") for hit in hits if hit.response_id in known]

    async def load(row: Row) -> Row:
        """The words of a row that is shown."""
        try:
            turn = await loop.session.service.reader.response(DEFAULT_TENANT, row.id)
        except NotFoundError:
            return Row(row.id, f"{row.label}(erased)")
        question = shorten(user_text(turn.input) or "(no words)", _MAX_QUESTION)
        mark = "→ " if row.id == head else ""
        detail = f"{format_ago(turn.created_at)}, {turn.model}: {answer_text(turn)}"
        return Row(row.id, f"{row.label}{mark}{question}", shorten(detail, _MAX_DETAIL))

    chosen = await pick_row(loop.output, "turns", find, load=load, chosen=head)
    if chosen is not None:
        await go_to(loop, chosen)


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


HANDLERS: dict[str, Handler] = {"tree": show_tree}
