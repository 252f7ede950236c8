"""Chat importer: writes the chats of an export file to a store, a few at a time.

Reading and encoding happen in a process of their own, or in a thread (a small file, and where no
event loop has to answer others); writing happens in transactions of a few chats each, so that other
turns go on meanwhile. An import that ends in the middle leaves whole chats only; importing the same
file again writes the rest, and nothing twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from itertools import islice
from typing import Any, Final, Literal

import msgspec

from antiphon.core.chat_titles import TITLE_ITEMS, opening_of
from antiphon.errors import AntiphonError
from antiphon.transfer.chat_file import ChatFile, ReadChat
from antiphon.transfer.chat_preparation import (
    PreparedChat,
    ReadyChat,
    RefusedChat,
    prepare_chat,
)
from antiphon.transfer.import_process import ImportProcess
from antiphon.transfer.source_chat import Source
from antiphon.turn.transfer_protocols import ChatImportResult, ChatTransferStore

#: How many chats are read at once, and how many turns of them are written in one transaction.
_READ_AHEAD: Final = 16
_TURNS_PER_COMMIT: Final = 64
#: Seconds that reading rests after a chat, at most as long as that took.
_MAX_REST: Final = 0.005


#: What may become of a chat of a file.
CHAT_STATUSES: Final = ("imported", "updated", "unchanged", "failed")


class ImportedChat(msgspec.Struct, frozen=True):
    """What became of a chat of a file. ``turns`` is all that it has, ``new_turns`` what was added.

    ``unchanged``: all of it was there before. ``updated``: some of it was. ``skipped`` says what
    was not taken over, and why; where it ``failed``, why nothing was.
    """

    status: Literal["imported", "updated", "unchanged", "failed"]
    title: str | None
    source: Source | None = None
    chat_id: str | None = None
    response_id: str | None = None
    conversation_id: str | None = None
    turns: int = 0
    new_turns: int = 0
    branches: int = 0
    images: int = 0
    skipped: tuple[str, ...] = ()


class ChatImporter:
    """Writes the chats of one file. ``file`` tells how far it is read, and what it skipped."""

    def __init__(
        self, store: ChatTransferStore, tenant: str, file: ChatFile | ImportProcess
    ) -> None:
        self._store = store
        self._tenant = tenant
        self.file = file

    async def run(self) -> AsyncGenerator[ImportedChat, None]:
        """The report of each chat, once it is on disk.

        Raises ``InvalidRequestError`` where the file is no export file.
        """
        async with aclosing(self._batches()) as batches:
            async for batch in batches:
                for group in _groups(batch):
                    for report in await asyncio.gather(*map(self._write, group)):
                        yield report

    async def _batches(self) -> AsyncGenerator[list[ReadyChat], None]:
        """The chats of the file, a few at a time."""
        if isinstance(self.file, ImportProcess):
            async with aclosing(self.file.batches()) as batches:
                async for batch in batches:
                    yield batch
            return
        chats = self.file.chats()
        while batch := await asyncio.to_thread(self._read, chats):
            yield batch

    def _read(self, chats: Iterator[ReadChat]) -> list[ReadyChat]:
        """The next few chats, as they are written; runs in a thread.

        It rests in between, so that the event loop need not wait for the interpreter each time.
        """
        prepared = []
        began = time.monotonic()
        for chat in islice(chats, _READ_AHEAD):
            prepared.append(prepare_chat(self._tenant, chat))
            time.sleep(min(time.monotonic() - began, _MAX_REST))
            began = time.monotonic()
        return prepared

    async def _write(self, chat: ReadyChat) -> ImportedChat:
        if isinstance(chat, RefusedChat):
            return _failed(chat.title, chat.source, chat.reasons)
        try:
            result = await self._store.import_chat(chat.request)
        except AntiphonError as error:
            reasons = (*chat.skipped, f"it cannot be stored: {error.message}")
            return _failed(_shown_title(chat), chat.source, reasons)
        return _report(chat, result)


def _groups(batch: Sequence[ReadyChat]) -> Iterator[list[ReadyChat]]:
    """Chats that share a transaction: one at least, and few turns where they are several."""
    group: list[ReadyChat] = []
    turns = 0
    for one in batch:
        size = len(one.request.turns) if isinstance(one, PreparedChat) else 0
        if group and turns + size > _TURNS_PER_COMMIT:
            yield group
            group, turns = [], 0
        group.append(one)
        turns += size
    if group:
        yield group


def _report(chat: PreparedChat, result: ChatImportResult) -> ImportedChat:
    request = chat.request
    skipped = chat.skipped
    if result.erased:
        skipped = (*skipped, f"turns that were erased here before: {result.erased}")
    here = result.conversation_id
    if request.conversation is not None and here not in (None, request.conversation.id):
        skipped = (*skipped, f"the id of its conversation, which was taken: it is {here} here")
    status: Any = "imported"
    if not result.added:
        status = "unchanged"
    elif result.added < len(request.turns):
        status = "updated"
    return ImportedChat(
        status,
        _shown_title(chat),
        chat.source,
        chat_id=result.chat_id,
        response_id=result.response_ids[-1],
        conversation_id=here,
        turns=len(request.turns),
        new_turns=result.added,
        branches=len(request.turns) - len({turn.parent for turn in request.turns} - {None}),
        images=chat.images,
        skipped=skipped,
    )


def _shown_title(chat: PreparedChat) -> str | None:
    """What lists call the chat: its title, else its first words."""
    request = chat.request
    return request.title or opening_of(request.turns[0].input[:TITLE_ITEMS])


def _failed(title: str | None, source: Source | None, reasons: Sequence[str]) -> ImportedChat:
    return ImportedChat("failed", title, source, skipped=tuple(reasons))
