"""Chat picker: a list of all chats to choose from; what is typed searches in all that was said."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from antiphon.cli.interactive.chat_output import ChatOutput
from antiphon.cli.interactive.row_picker import Row, pick_row
from antiphon.cli.terminal_output import chat_mark, format_ago
from antiphon.core.items import shorten
from antiphon.core.turns import DEFAULT_TENANT

if TYPE_CHECKING:
    from antiphon.bootstrap import Engine
    from antiphon.turn.chat_protocols import ChatRecord

_MAX_CHATS = 200


async def pick_chat(find_engine: Callable[[], Awaitable[Engine]], output: ChatOutput) -> str | None:
    """The newest response of the chat that was chosen; None: none was, begin a new one.

    ``find_engine`` may wait for it: the list is shown, and typed in, before it has rows.
    """

    async def find(query: str) -> list[Row]:
        engine = await find_engine()
        from antiphon.turn.chats import ChatService  # loaded on first use

        chats = ChatService(engine.service, engine.stores)
        if not query.strip():
            found = await chats.list_chats(DEFAULT_TENANT, _MAX_CHATS)
            return [_row(chat, "") for chat in found]
        matches = (await chats.search(DEFAULT_TENANT, query, _MAX_CHATS)).matches
        return [_row(match.chat, match.hit.excerpt) for match in matches]

    return await pick_row(output, "chats", find, limit=_MAX_CHATS)


def _row(chat: ChatRecord, excerpt: str) -> Row:
    label = f"{chat_mark(chat)} {format_ago(chat.updated_at):>10}  {shorten(chat.title or '', 70)}"
    branches = f", {chat.branches} branches" if chat.branches > 1 else ""
    detail = f"{chat.turns} turn{'s' * (chat.turns != 1)}{branches}, {chat.model}"
    return Row(chat.head, label, shorten(excerpt, 160) if excerpt else detail)
