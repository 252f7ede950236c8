"""Chat files: reads the chats of an export file one at a time, whatever program wrote it.

The format is told by the contents, never by a name. A zip is read entry by entry: its names are
keys for looking up images and nothing else, and what is unpacked is bounded. No chat stops the
others: what cannot be read is reported in its place.
"""

from __future__ import annotations

import codecs
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import IO, Any, Final, TypeAlias

import msgspec

from antiphon.core.images import MAX_IMAGE_BYTES
from antiphon.errors import InvalidRequestError
from antiphon.transfer.chat_document import is_chat_document, read_chat_document
from antiphon.transfer.formats.chatgpt import is_chatgpt, read_chatgpt
from antiphon.transfer.formats.claude import is_claude, read_claude
from antiphon.transfer.formats.librechat import is_librechat, read_librechat
from antiphon.transfer.formats.llama_cpp import is_llama_cpp, read_llama_cpp
from antiphon.transfer.formats.messages import is_message, is_messages, read_messages
from antiphon.transfer.formats.open_webui import is_open_webui, read_open_webui
from antiphon.transfer.json_fields import Json, decode_json, object_at, text_at
from antiphon.transfer.json_splitter import BrokenJsonError, split_json
from antiphon.transfer.source_chat import FileReader, SourceChat
from antiphon.transfer.whole_chat import WholeChat, whole_chat_of

#: The bytes that all entries of a zip may have together, unpacked, and how many there may be.
MAX_UNPACKED_BYTES: Final = 8 << 30
MAX_ENTRIES: Final = 200_000
#: How much of an entry tells whether it is JSON.
_FIRST_BYTES: Final = 64
#: An id of a file in ChatGPT's exports: the name of its entry begins with it.
_FILE_ID: Final = re.compile(r"file[-_][A-Za-z0-9]+")
_ZIP_ERRORS: Final = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    # Encrypted entries, and ways of compression that Python does not know.
    RuntimeError,
    ValueError,
)

_Check: TypeAlias = Callable[[Json], bool]
_Read: TypeAlias = Callable[[Json, FileReader], SourceChat]
#: The readers by format. The first that knows a value reads it.
_READERS: Final[tuple[tuple[_Check, _Read], ...]] = (
    (is_chatgpt, read_chatgpt),
    (is_claude, read_claude),
    (is_llama_cpp, read_llama_cpp),
    (is_open_webui, read_open_webui),
    (is_librechat, read_librechat),
    (is_messages, read_messages),
)


class UnreadableChat(msgspec.Struct, frozen=True):
    """What stands in a file where a chat should be, and why it cannot be read."""

    title: str | None
    reason: str


class SkippedFile(msgspec.Struct, frozen=True):
    """An entry of a zip that holds no chats."""

    name: str
    reason: str


ReadChat: TypeAlias = WholeChat | UnreadableChat


class ChatFile:
    """An export file that has been opened, for reading it once. ``file`` can be sought.

    Raises ``InvalidRequestError`` where it is neither JSON nor a zip.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        #: Entries without chats, as far as the file was read. Images are not among them.
        self.skipped_files: list[SkippedFile] = []
        self._archive = _open_archive(file)
        self._read_bytes = 0
        self._total_bytes = 0

    @property
    def progress(self) -> float:
        """How much of the file was read, from 0 to 1."""
        return min(1.0, self._read_bytes / self._total_bytes) if self._total_bytes else 0.0

    def chats(self) -> Iterator[ReadChat]:
        """The chats of the file, in its order."""
        if self._archive is None:
            self._file.seek(0, 2)
            self._total_bytes = self._file.tell()
            self._file.seek(0)
            stream = _CountedStream(self._file, self._count)
            yield from _StreamReader(stream, _no_files).chats()
            return
        archive = self._archive
        entries = archive.json_entries()
        self._total_bytes = sum(entry.file_size for entry in entries)
        for entry in entries:
            yield from self._entry_chats(archive, entry)

    def _entry_chats(self, archive: _Archive, entry: zipfile.ZipInfo) -> Iterator[ReadChat]:
        """The chats of one entry; where there are none, the entry is noted."""
        shown = entry.filename[-100:]
        try:
            with archive.open(entry) as stream:
                reader = _StreamReader(_CountedStream(stream, self._count), archive.read_image)
                unread: list[UnreadableChat] = []
                for chat in reader.chats():
                    if isinstance(chat, WholeChat) or reader.has_chats:
                        yield from unread
                        unread = []
                        yield chat
                    elif len(unread) < _MAX_UNREAD:
                        unread.append(chat)
        except _ZIP_ERRORS as error:
            self.skipped_files.append(SkippedFile(shown, f"it cannot be unpacked: {error}"))
            return
        if not reader.has_chats:
            self.skipped_files.append(SkippedFile(shown, "there are no chats in it"))

    def _count(self, size: int) -> None:
        self._read_bytes += size


#: So many values that are no chats are remembered until an entry shows its first chat.
_MAX_UNREAD: Final = 100


class _CountedStream:
    """A stream that reports how much was read of it."""

    def __init__(self, stream: IO[bytes], count: Callable[[int], None]) -> None:
        self._stream = stream
        self._count = count

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._count(len(data))
        return data


class _StreamReader:
    """Reads the chats of one stream of JSON. ``has_chats``: one was found so far."""

    def __init__(self, stream: _CountedStream, read_file: FileReader) -> None:
        self._stream = stream
        self._read_file = read_file
        self.has_chats = False
        #: Messages, one a value, that are collected for one chat, and what that is besides.
        self._messages: list[Any] = []
        self._session: Json | None = None

    def chats(self) -> Iterator[ReadChat]:
        try:
            for raw in split_json(self._stream):
                yield from self._read(raw)
        except BrokenJsonError as error:
            yield UnreadableChat(None, f"the rest of the file cannot be read: {error}")
        yield from self._end_messages()

    def _read(self, raw: bytes) -> Iterator[ReadChat]:
        if is_chat_document(raw):
            try:
                chat = read_chat_document(raw)
            except ValueError as error:
                yield UnreadableChat(None, str(error))
                return
            self.has_chats = True
            yield chat
            return
        try:
            value = decode_json(raw)
        except ValueError as error:
            yield UnreadableChat(None, str(error))
            return
        if isinstance(value, dict) and self._is_part(value):
            if text_at(value, "type") == "session":
                yield from self._end_messages()
                self._session = value
            else:
                self._messages.append(value.get("message", value))
            return
        yield from self._end_messages()
        if isinstance(value, list) and value and is_message(value[0]):
            value = {"messages": value}
        yield self._convert(value)

    def _is_part(self, value: Json) -> bool:
        """Whether a value is a line of a chat: a message, or what llama.cpp writes before them."""
        if text_at(value, "type") == "session":
            return "currNode" in value or "harness" in value
        if self._session is not None and text_at(value, "type") == "message":
            return bool(object_at(value, "message"))
        return is_message(value) and "mapping" not in value and "messages" not in value

    def _end_messages(self) -> Iterator[ReadChat]:
        """The chat of the messages collected so far."""
        messages, session = self._messages, self._session
        self._messages, self._session = [], None
        if session is not None:
            yield self._convert({"conv": session, "messages": messages})
        elif messages:
            yield self._convert({"messages": messages})

    def _convert(self, value: Any) -> ReadChat:
        if not isinstance(value, dict):
            return UnreadableChat(None, "it is no chat of a known program")
        title = text_at(value, "title", "name") or None
        for is_known, read in _READERS:
            if is_known(value):
                self.has_chats = True
                try:
                    return whole_chat_of(read(value, self._read_file))
                except RecursionError:
                    return UnreadableChat(title, "it is nested too deeply")
        return UnreadableChat(title, "it is no chat of a known program")


def _no_files(name: str) -> None:
    """There are no files beside a chat that comes alone."""


def _open_archive(file: IO[bytes]) -> _Archive | None:
    """The zip that a file is, None: it is JSON."""
    file.seek(0)
    first = file.read(4096).removeprefix(codecs.BOM_UTF8).lstrip()
    file.seek(0)
    if first[:1] in {b"[", b"{"}:
        return None
    if first[:2] == b"PK":
        try:
            return _Archive(zipfile.ZipFile(file))
        except _ZIP_ERRORS as error:
            raise InvalidRequestError(
                "The file begins like a zip, and cannot be opened as one.",
                code="unsupported_file",
            ) from error
    what = "The file is neither JSON nor a zip." if first else "The file is empty."
    raise InvalidRequestError(what, code="unsupported_file")


class _Archive:
    """A zip, whose entries are read as long as they are not too much together."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._left = MAX_UNPACKED_BYTES
        if len(archive.infolist()) > MAX_ENTRIES:
            raise InvalidRequestError(
                f"The zip has more than {MAX_ENTRIES} entries.", code="file_too_large"
            )
        #: Entries by each name that a message may have for them; the first of a name counts.
        self._entries: dict[str, zipfile.ZipInfo] = {}
        for entry in archive.infolist():
            for name in _names_of(entry.filename):
                self._entries.setdefault(name, entry)

    def json_entries(self) -> list[zipfile.ZipInfo]:
        """The entries that begin like JSON, in the order of their names."""
        entries = sorted(self._archive.infolist(), key=lambda entry: entry.filename)
        return [entry for entry in entries if not entry.is_dir() and self._is_json(entry)]

    def _is_json(self, entry: zipfile.ZipInfo) -> bool:
        try:
            with self.open(entry) as stream:
                first = stream.read(_FIRST_BYTES)
        except _ZIP_ERRORS:
            # It is reported where it is read.
            return entry.filename.lower().endswith((".json", ".jsonl", ".ndjson"))
        return first.removeprefix(codecs.BOM_UTF8).lstrip()[:1] in {b"[", b"{"}

    def open(self, entry: zipfile.ZipInfo) -> IO[bytes]:
        """An entry for reading. Raises one of ``_ZIP_ERRORS``."""
        return _BoundedEntry(self._archive.open(entry), self._take)  # type: ignore[return-value]

    def read_image(self, pointer: str) -> bytes | None:
        """The bytes of an image by its id or name; None: it is not there, or too large."""
        for name in _names_of(pointer.rpartition("://")[2]):
            entry = self._entries.get(name)
            if entry is None or entry.is_dir():
                continue
            try:
                with self.open(entry) as stream:
                    return stream.read(MAX_IMAGE_BYTES + 1)
            except _ZIP_ERRORS:
                return None
        return None

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise OSError(f"the zip holds more than {MAX_UNPACKED_BYTES >> 30} GiB")


class _BoundedEntry:
    """An entry of a zip that counts what is read of it."""

    def __init__(self, stream: IO[bytes], take: Callable[[int], None]) -> None:
        self._stream = stream
        self._take = take

    def __enter__(self) -> _BoundedEntry:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._take(len(data))
        return data


def _names_of(path: str) -> list[str]:
    """What a file may be called: its path, its name, and the id that the name begins with."""
    name = PurePosixPath(path).name
    found = _FILE_ID.search(name)
    return [one for one in (path, name, found[0] if found else "") if one]
