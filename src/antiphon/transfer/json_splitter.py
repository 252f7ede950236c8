"""JSON splitter: cuts a stream of JSON into its values, without decoding them.

A file of chats is an array of some hundred megabytes. Its elements are read one at a time, each
as bytes, so that memory is bounded by the largest chat, and decoded by msgspec, several times as
fast as by a parser of events. A file with one value a line (NDJSON) is read in the same way.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import Final, Protocol

#: Bytes of one chat.
MAX_VALUE_BYTES: Final = 256 * 1024 * 1024
_CHUNK_BYTES: Final = 1024 * 1024
#: All up to the next bracket, strings whole. Where it stops at a quote, that string is not whole.
_TO_BRACKET: Final = re.compile(rb'(?:[^\[\]{}"]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_BETWEEN: Final = re.compile(rb"[ \t\r\n,]*+")
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_SCALAR_END: Final = re.compile(rb"[\s,\[\]{}]")


class ByteStream(Protocol):
    """What bytes are read from, such as a file."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none: the end."""
        ...


class BrokenJsonError(Exception):
    """The stream is no JSON from here on, or a value is too large. ``str()`` says which."""


def split_json(stream: ByteStream) -> Iterator[bytes]:
    """The elements of each array at the top level, and each other value there, as bytes.

    Raises ``BrokenJsonError`` after the last whole value where the rest cannot be read.
    """
    return _Splitter(stream).values()


class _Splitter:
    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        #: What was read and not taken begins at ``_at``.
        self._buffer = b""
        self._at = 0
        self._is_in_array = False

    def values(self) -> Iterator[bytes]:
        self._read_more()
        self._buffer = self._buffer.removeprefix(codecs.BOM_UTF8)
        while self._skip_between():
            first = self._buffer[self._at : self._at + 1]
            if first == b"[" and not self._is_in_array:
                self._is_in_array = True
                self._at += 1
            elif first == b"]" and self._is_in_array:
                self._is_in_array = False
                self._at += 1
            else:
                end = self._end_of_value(first)
                value, self._at = self._buffer[self._at : end], end
                yield value
        if self._is_in_array:
            raise BrokenJsonError("it ends in the middle")

    def _skip_between(self) -> bool:
        """Go on to the next value or bracket. False: the stream has ended."""
        while True:
            found = _BETWEEN.match(self._buffer, self._at)
            assert found is not None, "the pattern matches nothing, too"
            self._at = found.end()
            if self._at < len(self._buffer):
                return True
            if not self._read_more():
                return False

    def _read_more(self) -> bool:
        """Read as much again as there is, so that no byte is looked at more than a few times."""
        left = self._buffer[self._at :]
        if len(left) > MAX_VALUE_BYTES:
            limit = MAX_VALUE_BYTES >> 20
            raise BrokenJsonError(f"one chat in it is larger than {limit} MiB")
        chunk = self._stream.read(max(_CHUNK_BYTES, len(left)))
        self._buffer, self._at = left + chunk, 0
        return bool(chunk)

    def _end_of_value(self, first: bytes) -> int:
        if first in {b"]", b"}", b":"}:
            raise BrokenJsonError("it is not valid JSON")
        if first in {b"{", b"[", b'"'}:
            return self._end_of_nested()
        while (end := _SCALAR_END.search(self._buffer, self._at)) is None:
            if not self._read_more():
                return len(self._buffer)
        return end.start()

    def _end_of_nested(self) -> int:
        """Where the value at the beginning ends: a string, an object or an array."""
        depth = looked = 0
        while True:
            found = _TO_BRACKET.match(self._buffer, self._at + looked)
            assert found is not None, "the pattern matches nothing, too"
            end = found.end()
            byte = self._buffer[end : end + 1]
            if depth == 0 and self._buffer[self._at : self._at + 1] == b'"':
                if (string := _STRING.match(self._buffer, self._at)) is not None:
                    return string.end()
                byte = b'"'
            if byte in {b"", b'"'}:
                looked = end - self._at if depth else 0
                if not self._read_more():
                    raise BrokenJsonError("it ends in the middle")
                continue
            depth += 1 if byte in {b"{", b"["} else -1
            if depth == 0:
                return end + 1
            looked = end + 1 - self._at
