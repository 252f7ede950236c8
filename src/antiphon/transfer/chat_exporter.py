"""Chat exporter: chats as documents that lose nothing, as Markdown, and as pages. Streamed.

One turn is in memory at a time, and one image, however long a chat is.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from typing import Final, Literal, TypeAlias

from antiphon.core.chat_titles import opening_of
from antiphon.core.turns import ConversationRecord, Response
from antiphon.errors import NotFoundError
from antiphon.transfer.chat_document import (
    DOCUMENT_END,
    ChatFields,
    blobs_head,
    document_blob,
    document_head,
    document_turn,
)
from antiphon.transfer.html_page import page_end, page_head, turn_html
from antiphon.transfer.messages_export import as_markdown
from antiphon.turn.chat_protocols import ChatRecord
from antiphon.turn.chats import ChatService, chat_not_found
from antiphon.turn.service import TurnService
from antiphon.turn.shares import chain_windows
from antiphon.turn.transfer_protocols import TreeTurn

ExportFormat: TypeAlias = Literal["json", "markdown", "html"]
EXPORT_FORMATS: Final[tuple[ExportFormat, ...]] = ("json", "markdown", "html")
_PAGE: Final = 100


class ChatExporter:
    """Exports the chats of one tenant."""

    def __init__(self, service: TurnService, chats: ChatService, tenant: str) -> None:
        stores = service.stores
        assert stores is not None, "every store has them"
        self._service = service
        self._chats = chats
        self._transfer = stores.chat_transfer
        self._conversations = stores.conversations
        self._tenant = tenant

    async def find(self, chat_id: str, head: str | None = None) -> tuple[ChatRecord, str]:
        """A chat by any of its ids, and the response that its chain is shown up to.

        ``head`` None: its newest. Raises ``NotFoundError``.
        """
        chat = await self._chats.get(self._tenant, chat_id)
        if head is None:
            return chat, chat.head
        other = await self._chats.get(self._tenant, head)
        if other.id != chat.id:
            raise chat_not_found(head)
        return chat, head

    def export(self, chat: ChatRecord, head: str, form: ExportFormat) -> AsyncIterator[bytes]:
        """A chat in a format, in pieces: all of it as JSON, or else the chain up to ``head``."""
        match form:
            case "json":
                return self.document(chat)
            case "markdown":
                return self._markdown(chat, head)
            case "html":
                return self._html(chat, head)

    async def all_documents(self) -> AsyncIterator[bytes]:
        """All chats as documents, one a line, the one that was written to last at the end."""
        seen: set[str] = set()
        after: str | None = None
        while True:
            page = await self._chats.list_chats(
                self._tenant, _PAGE, after=after, newest_first=False
            )
            for chat in page:
                # One that somebody writes to meanwhile comes again, at the end.
                if chat.id in seen:
                    continue
                seen.add(chat.id)
                async for piece in self.document(chat):
                    yield piece
                yield b"\n"
            if len(page) < _PAGE:
                return
            after = page[-1].id

    async def document(self, chat: ChatRecord) -> AsyncIterator[bytes]:
        """A chat with all its branches as JSON on one line."""
        tree = ordered_tree(await self._transfer.tree(self._tenant, chat.head))
        reader = self._service.reader
        first = await reader.stored_turn(self._tenant, tree[0].response_id) if tree else None
        # A title that is the first words is made of these again.
        opening = opening_of(first.input) if first is not None else None
        title = None if chat.title == opening else chat.title
        conversation = await self._conversation_of(chat)
        fields = ChatFields(title, chat.created_at, chat.is_pinned, dict(chat.metadata))
        yield document_head(fields, conversation)
        #: A turn that has it, by image.
        blobs: dict[str, str] = {}
        divider = b""
        for one in tree:
            turn = await reader.stored_turn(self._tenant, one.response_id)
            if turn is None:
                # It was erased since the tree was read.
                continue
            blobs |= dict.fromkeys(turn.blobs.keys() - blobs.keys(), one.response_id)
            (turn,) = await reader.with_queued(self._tenant, [turn])
            yield divider + document_turn(turn, one.parent, conversation)
            divider = b","
        yield blobs_head()
        divider = b""
        for name, response_id in sorted(blobs.items()):
            turn = await reader.stored_turn(self._tenant, response_id)
            if turn is not None and name in turn.blobs:
                yield divider + await asyncio.to_thread(document_blob, name, turn.blobs[name])
                divider = b","
        yield DOCUMENT_END

    async def _conversation_of(self, chat: ChatRecord) -> ConversationRecord | None:
        if chat.conversation is None:
            return None
        return await self._conversations.get(self._tenant, chat.conversation)

    async def _markdown(self, chat: ChatRecord, head: str) -> AsyncIterator[bytes]:
        messages = await self._service.reader.messages(self._tenant, head)
        text = await asyncio.to_thread(as_markdown, messages, chat.title)
        yield text.encode()

    async def _html(self, chat: ChatRecord, head: str) -> AsyncIterator[bytes]:
        is_begun = False
        async for turns in chain_windows(self._service, self._tenant, head):
            start = (
                ""
                if is_begun
                else page_head(chat.title, turns[0], instructions=turns[0].header.instructions)
            )
            is_begun = True
            # A page's Markdown takes long: the event loop has other things to do meanwhile.
            yield (start + await asyncio.to_thread(_render, turns)).encode()
        if not is_begun:
            raise NotFoundError("Nothing of this chat is left.", code="chat_not_found")
        yield page_end().encode()


def _render(turns: Sequence[Response]) -> str:
    return "".join(map(turn_html, turns))


def ordered_tree(turns: Sequence[TreeTurn]) -> list[TreeTurn]:
    """The turns of a chat in the order of its document: parents first. Pure.

    Of siblings that with the newest turn among its descendants comes last, so that the last turn
    is the newest, whatever order they are stored in.
    """
    children: dict[str | None, list[TreeTurn]] = defaultdict(list)
    newest: dict[str, tuple[float, str]] = {}
    for turn in turns:
        children[turn.parent].append(turn)
        newest[turn.response_id] = (turn.created_at, turn.response_id)
    for turn in reversed(turns):
        # Parents come first: all below it was seen by now.
        if turn.parent is not None:
            newest[turn.parent] = max(newest[turn.parent], newest[turn.response_id])
    ordered: list[TreeTurn] = []
    waiting = _by_newest(children[None], newest)
    while waiting:
        turn = waiting.pop()
        ordered.append(turn)
        waiting += _by_newest(children[turn.response_id], newest)
    return ordered


def _by_newest(turns: list[TreeTurn], newest: dict[str, tuple[float, str]]) -> list[TreeTurn]:
    """Turns as a stack: the one with the newest descendant is taken last."""
    return sorted(turns, key=lambda turn: newest[turn.response_id], reverse=True)
