"""Tree command: all branches of a chat on a full screen, to go on from any turn."""

from __future__ import annotations

from antiphon.cli.interactive.chat_commands import go_to
from antiphon.cli.interactive.chat_loop import ChatLoop, Handler
from antiphon.cli.interactive.chat_session import user_text
from antiphon.cli.interactive.row_picker import Row, pick_row
from antiphon.cli.terminal_output import format_ago
from antiphon.core.items import shorten

_MAX_QUESTION = 90


async def show_tree(loop: ChatLoop, _: str) -> None:
    """Choose a turn of the chat and go on from it."""
    turns = await loop.session.chain()
    rows = [
        Row(
            turn.id,
            f"{format_ago(turn.created_at):>10}  {shorten(user_text(turn.input), _MAX_QUESTION)}",
        )
        for turn in turns
    ]

    async def find(query: str) -> list[Row]:
        words = query.lower().split()
        return [row for row in rows if all(word in row.label.lower() for word in words)]

    chosen = await pick_row(loop.output, "turns", find, chosen=loop.session.head)
    if chosen is not None:
        await go_to(loop, chosen)


HANDLERS: dict[str, Handler] = {"tree": show_tree}
