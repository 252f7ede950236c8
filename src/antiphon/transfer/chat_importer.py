"""Chat importer: writes the chats of an export file to a store, a few at a time.

Reading and encoding happen in a thread, writing in transactions of a few chats each, so that other
turns go on meanwhile. An import that ends in the middle leaves whole chats only; importing the same
file again writes the rest, and nothing twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import islice
from typing import Any, Final, Literal

import msgspec

from antiphon.core.ids import new_response_id
from antiphon.core.images import extract_blobs
from antiphon.core.items import encode_item
from antiphon.errors import AntiphonError
from antiphon.transfer.chat_file import ChatFile, ReadChat, UnreadableChat
from antiphon.transfer.source_chat import Source
from antiphon.transfer.whole_chat import WholeChat, WholeTurn
from antiphon.turn.message_rendering import render_turn
from antiphon.turn.transfer_protocols import (
    ChatImport,
    ChatImportResult,
    ChatTransferStore,
    TurnImport,
)

#: How many chats are read at once, and how many turns of them are written in one transaction.
_READ_AHEAD: Final = 16
_TURNS_PER_COMMIT: Final = 64
_MAX_TITLE: Final = 500
#: Seconds that reading rests after a chat, at most as long as that took.
_MAX_REST: Final = 0.005


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
    turns: int = 0
    new_turns: int = 0
    branches: int = 0
    images: int = 0
    skipped: tuple[str, ...] = ()


class _PreparedChat(msgspec.Struct, frozen=True):
    """A chat that is ready to be written."""

    chat: WholeChat
    request: ChatImport
    images: int


class ChatImporter:
    """Writes the chats of one file. ``file`` tells how far it is read, and what it skipped."""

    def __init__(self, store: ChatTransferStore, tenant: str, file: ChatFile) -> None:
        self._store = store
        self._tenant = tenant
        self.file = file

    async def run(self) -> AsyncIterator[ImportedChat]:
        """The report of each chat, once it is on disk.

        Raises ``InvalidRequestError`` where the file is no export file.
        """
        chats = self.file.chats()
        while batch := await asyncio.to_thread(self._read, chats):
            for group in _groups(batch):
                for report in await asyncio.gather(*map(self._write, group)):
                    yield report

    def _read(self, chats: Iterator[ReadChat]) -> list[_PreparedChat | ImportedChat]:
        """The next few chats, as they are written; runs in a thread.

        It rests in between, so that the event loop need not wait for the interpreter each time.
        """
        prepared = []
        began = time.monotonic()
        for chat in islice(chats, _READ_AHEAD):
            prepared.append(self._prepare(chat))
            time.sleep(min(time.monotonic() - began, _MAX_REST))
            began = time.monotonic()
        return prepared

    def _prepare(self, chat: ReadChat) -> _PreparedChat | ImportedChat:
        if isinstance(chat, UnreadableChat):
            return ImportedChat("failed", _title(chat.title), skipped=(chat.reason,))
        if not chat.turns:
            reasons = chat.skipped or ("there are no messages in it",)
            return _failed(chat, reasons)
        try:
            turns = [_encoded(turn) for turn in chat.turns]
        except (AntiphonError, ValueError, TypeError, RecursionError) as error:
            return _failed(chat, (*chat.skipped, f"it cannot be stored: {error}"))
        request = ChatImport(
            self._tenant,
            turns,
            created_at=(
                min(turn.created_at for turn in chat.turns)
                if chat.created_at is None
                else chat.created_at
            ),
            updated_at=max(turn.end.ended_at for turn in chat.turns),
            title=_title(chat.title),
            is_pinned=chat.pinned,
            metadata=chat.metadata,
        )
        images = len({blob.hash for turn in turns for blob in turn.blobs})
        return _PreparedChat(chat, request, images)

    async def _write(self, prepared: _PreparedChat | ImportedChat) -> ImportedChat:
        if isinstance(prepared, ImportedChat):
            return prepared
        chat = prepared.chat
        try:
            result = await self._store.import_chat(prepared.request)
        except AntiphonError as error:
            return _failed(chat, (*chat.skipped, f"it cannot be stored: {error.message}"))
        return _report(prepared, result)


def _encoded(turn: WholeTurn) -> TurnImport:
    """A turn as it is stored. Raises what keeps it from that."""
    shown, stored, blobs = extract_blobs((*turn.input, *turn.output))
    # What a model could not be shown is refused now, not when the chat goes on.
    render_turn(shown)
    given = len(turn.input)
    return TurnImport(
        response_id=turn.response_id or new_response_id(),
        created_at=turn.created_at,
        header=turn.header,
        input=[encode_item(item) for item in stored[:given]],
        output=[encode_item(item) for item in stored[given:]],
        end=turn.end,
        digest=turn.digest,
        parent=turn.parent,
        blobs=blobs,
        is_of_words=turn.is_of_words,
    )


def _groups(
    batch: Sequence[_PreparedChat | ImportedChat],
) -> Iterator[list[_PreparedChat | ImportedChat]]:
    """Chats that share a transaction: one at least, and few turns where they are several."""
    group: list[_PreparedChat | ImportedChat] = []
    turns = 0
    for one in batch:
        size = len(one.chat.turns) if isinstance(one, _PreparedChat) else 0
        if group and turns + size > _TURNS_PER_COMMIT:
            yield group
            group, turns = [], 0
        group.append(one)
        turns += size
    if group:
        yield group


def _report(prepared: _PreparedChat, result: ChatImportResult) -> ImportedChat:
    chat = prepared.chat
    skipped = chat.skipped
    if result.erased:
        skipped = (*skipped, f"turns that were erased here before: {result.erased}")
    status: Any = "imported"
    if not result.added:
        status = "unchanged"
    elif result.added < len(chat.turns):
        status = "updated"
    return ImportedChat(
        status,
        _title(chat.title),
        chat.source,
        chat_id=result.chat_id,
        response_id=result.response_ids[-1],
        turns=len(chat.turns),
        new_turns=result.added,
        branches=len(chat.turns) - len({turn.parent for turn in chat.turns} - {None}),
        images=prepared.images,
        skipped=skipped,
    )


def _failed(chat: WholeChat, reasons: Sequence[str]) -> ImportedChat:
    return ImportedChat("failed", _title(chat.title), chat.source, skipped=tuple(reasons))


def _title(title: str | None) -> str | None:
    """A title on one line, without control characters."""
    if title is None:
        return None
    shown = "".join(one if one.isprintable() else " " for one in title)
    return " ".join(shown.split())[:_MAX_TITLE] or None
