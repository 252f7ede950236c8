"""Tree commands: all chats, or all branches of one, on a full screen, to go on from there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from antiphon.cli.interactive.chat_loop import ChatLoop, Handler
from antiphon.cli.interactive.chat_picker import pick_chat
from antiphon.cli.interactive.chat_session import answer_text, user_text
from antiphon.cli.interactive.row_picker import Row, pick_row
from antiphon.cli.interactive.turn_commands import DECISION
from antiphon.cli.terminal_output import format_ago
from antiphon.cli.tree_outline import outline
from antiphon.core.items import shorten
from antiphon.core.turns import DEFAULT_TENANT
from antiphon.errors import InvalidRequestError, NotFoundError

if TYPE_CHECKING:
    from antiphon.bootstrap import Engine

_MAX_QUESTION = 90
_MAX_DETAIL = 300
#: How many turns a search shows.
_MAX_HITS = 100


async def show_tree(loop: ChatLoop, _: str) -> None:
    """Choose a turn of the chat and go on from it."""
    head = loop.session.head
    if head is None:
        raise InvalidRequestError("nothing has been asked yet")
    stores = loop.engine.stores
    turns = await stores.chat_transfer.tree(DEFAULT_TENANT, head)
    shape = outline(turns, head)
    known = {one.response_id for one in turns}

    async def find(query: str) -> list[Row]:
        if not query.strip():
            return [Row(response_id, prefix) for response_id, prefix in shape]
        hits = await stores.search.search(DEFAULT_TENANT, query, _MAX_HITS, chat_id=head)
        return [Row(hit.response_id, "", "") for hit in hits if hit.response_id in known]

    async def load(row: Row) -> Row:
        """The words of a row that is shown."""
        try:
            turn = await loop.session.service.reader.response(DEFAULT_TENANT, row.id)
        except NotFoundError:
            return Row(row.id, f"{row.label}(erased)")
        question = shorten(user_text(turn.input) or DECISION, _MAX_QUESTION)
        mark = "→ " if row.id == head else ""
        detail = f"{format_ago(turn.created_at)}, {turn.model}: {answer_text(turn)}"
        return Row(row.id, f"{row.label}{mark}{question}", shorten(detail, _MAX_DETAIL))

    async with loop.prompt.hold_draft():
        chosen = await pick_row(loop.output, "turns", find, load=load, chosen=head)
    if chosen is not None:
        await loop.go_to(chosen)


async def resume(loop: ChatLoop, _: str) -> None:
    """Choose a chat and go on with it."""

    async def find_engine() -> Engine:
        return loop.engine

    async with loop.prompt.hold_draft():
        chosen = await pick_chat(find_engine, loop.output)
    if chosen is not None:
        await loop.go_to(chosen)


HANDLERS: dict[str, Handler] = {"tree": show_tree, "resume": resume}
