"""Answer framing: finds the JSON in the body of an answer, whatever its form and label. No I/O.

An answer is an event stream or one JSON document. Servers send the one where the other was
requested, and label either as anything, so the first bytes decide and nothing else.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from antiphon.errors import ModelError
from antiphon.models.openai.lenient_json import split_objects
from antiphon.models.openai.sse import DECODE_ERRORS, STRAY_BYTES, SseParser
from antiphon.models.openai.upstream_errors import Unreadable
from antiphon.models.retry import AttemptError

#: The size limit of an answer that is not streamed, in bytes.
MAX_BODY_BYTES = 64 * 1024 * 1024
#: How much of a page, or of a body without any JSON, is read for the error message, in bytes.
_MAX_QUOTED_BYTES = 2048

_SPACE = b"\r\n" + STRAY_BYTES
#: The end marker as the parsers know it, and the words of its other spellings.
DONE = b"[DONE]"
_END_WORDS = frozenset((b"done", b"end", b"eos", b"finish", b"finished", b"complete", b"completed"))
_END_MARKS = b" .\"'[]<>|"
_LONGEST_END = 16
#: The size limit of an object that only says that the stream ends, in bytes.
_MAX_NOTICE_BYTES = 100

_decode_raw = msgspec.json.Decoder(msgspec.Raw).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
#: The beginnings of bodies in UTF-16, and what may become one of them.
_WIDE_CHARSETS = {
    **{first + b"\0": "utf-16-le" for first in (b"{", b"[", b"d", b":", b"e")},
    **{b"\0" + first + b"\0": "utf-16-be" for first in (b"{", b"[", b"d", b":", b"e")},
}
_WIDE_BEGINNINGS = frozenset((b"\xff", b"\xfe", b"[", b"d", b":", b"e"))
#: How an answer begins that is within a JSON string.
_QUOTED_STARTS = (b'"{', b'"[', b'"data:')
#: How a line of an event stream begins.
_SSE_LINE = re.compile(rb"(data|event|id|retry)?[ \t]*(:|$)", re.MULTILINE)
#: A line within a body that may begin another object.
_LATER_LINE = re.compile(rb"[\r\n](\{|data:)")


class AnswerFraming:
    """Takes a body in pieces of any size and returns the events of a stream, as JSON objects.

    The end marker is an event too, always as ``DONE``. A document is in ``document`` when the
    body has been closed. Signs of life are left out.

    ``charset`` is the declared one: JSON is UTF-8, and only what is not is read by it.
    Raises ``AttemptError`` for a page, and for a document that is too long, and what
    ``SseParser`` raises.
    """

    def __init__(self, charset: str | None = None) -> None:
        self._charset = charset
        self.document: bytes | None = None
        self._plain_words = b""
        #: Whether an object has said that the stream ends, and nothing else.
        self.has_ended = False
        self._form: Literal["stream", "document", "page"] | None = None
        #: The body from its beginning: a document's, or as much as an error message needs.
        self._head = bytearray()
        self._sse_parser = SseParser()
        self._half_joiner = HalfJoiner()
        self._has_events = False
        #: Decodes a body of two bytes a character.
        self._wide_decoder: codecs.IncrementalDecoder | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """The events that end in ``data``."""
        if self._wide_decoder is not None:
            data = self._wide_decoder.decode(data).encode(errors="replace")
        if self._form == "stream":
            return self._filter(self._sse_parser.feed(data))
        self._head += data
        if self._form is None:
            if self._wide_decoder is None and (name := _wide_charset(self._head)):
                self._wide_decoder = codecs.getincrementaldecoder(name)("replace")
                decoded = self._wide_decoder.decode(bytes(self._head))
                self._head = bytearray(decoded.encode(errors="replace"))
            self._form = _find_form(self._head)
            if self._form == "stream":
                head, self._head = bytes(self._head), self._head[:_MAX_QUOTED_BYTES]
                return self._filter(self._sse_parser.feed(head))
        if self._form == "page" and len(self._head) >= _MAX_QUOTED_BYTES:
            raise self._page_error()
        if len(self._head) > MAX_BODY_BYTES:
            text = f"The upstream's answer is longer than {MAX_BODY_BYTES} bytes."
            raise AttemptError(ModelError(text, code="upstream_invalid_response"))
        return []

    def close(self) -> list[bytes]:
        """The last events, at the end of the body."""
        if self._form == "page":
            raise self._page_error()
        if self._form == "document":
            return self._close_document(bytes(self._head.strip(_SPACE)))
        events = self._filter(self._sse_parser.close())
        if not self._has_events and not _SSE_LINE.match(self._head.lstrip(_SPACE)):
            raise Unreadable("it is neither JSON nor an event stream", bytes(self._head))
        return [*events, DONE] if self.has_ended else events

    def may_be_whole(self) -> bool:
        """Whether a document may end here: only ``is_whole`` looks at all of it."""
        return self._form == "document" and self._head[-80:].rstrip(_SPACE).endswith((b"}", b"]"))

    def is_whole(self) -> bool:
        """Whether a document is whole."""
        return self.may_be_whole() and _is_json(self._head.strip(_SPACE))

    @property
    def plain_words(self) -> bytes:
        """The last of the stream that is no JSON: a sign of life, or an error in words."""
        return self._sse_parser.stray_text or self._plain_words

    def _page_error(self) -> AttemptError:
        return Unreadable("it is an HTML page, so check the base URL", bytes(self._head))

    def _close_document(self, body: bytes) -> list[bytes]:
        """The events of a body that is not one document, but many in a row or in a list."""
        body = _quoted_json(body) or body
        events = _listed_objects(body)
        if not events and not _is_json(body):
            if body.startswith(b"["):
                # A list of events that lacks its end.
                events = split_objects(body[1:])
            elif body.startswith(b"data:") or _LATER_LINE.search(body):
                events = self._filter(SseParser().feed(body + b"\n\n"))
            else:
                events = split_objects(body)
        if len([one for one in events if one != DONE]) > 1:
            return self._filter(events)
        document = events[0] if events else body
        self.document = self._mend(document)
        return []

    def _filter(self, events: Iterable[bytes]) -> list[bytes]:
        """The objects and the end marker among a stream's events."""
        objects: list[bytes] = []
        for event in events:
            if event.startswith(b"{"):
                if len(event) <= _MAX_NOTICE_BYTES and _is_end_notice(event):
                    self.has_ended = self._has_events = True
                elif event.isascii() and b"\\" not in event:
                    objects.append(event)
                else:
                    objects += self._mended_objects(event)
                continue
            data = event.strip(_SPACE)
            while data.startswith(b"data:"):
                # A proxy framed the events of another once more.
                data = data.removeprefix(b"data:").strip(_SPACE)
            if _is_end_mark(data):
                objects.append(DONE)
            elif data.startswith(b"{"):
                objects.append(self._mend(data))
            elif listed := _listed_objects(data):
                objects += [self._mend(one) for one in listed]
            elif quoted := _quoted_json(data):
                objects.append(self._mend(quoted))
            elif data:
                self._plain_words = data
        self._has_events = self._has_events or bool(objects)
        return objects

    def _mended_objects(self, data: bytes) -> list[bytes]:
        """An object; or several in a row, if halves of characters may go over their ends."""
        is_one = b"\\u" not in data or not _HALF.search(data) or _is_json(data)
        return [self._mend(one) for one in ([] if is_one else split_objects(data)) or [data]]

    def _mend(self, data: bytes) -> bytes:
        """JSON of whole characters in UTF-8, with U+FFFD for bytes that are none."""
        if not data.isascii():
            data = self._decode(data).encode()
        return self._half_joiner.join(data)

    def _decode(self, data: bytes) -> str:
        for charset in ("utf-8", self._charset or "utf-8"):
            try:
                return data.decode(charset)
            except (UnicodeDecodeError, LookupError):
                continue
        return data.decode(errors="replace")


class HalfJoiner:
    """Joins characters whose halves, as UTF-16 escapes, came in two events of a stream.

    Servers that cut text between two UTF-16 units send ``\\ud83d`` as the end of a string, and
    ``\\ude00`` as the beginning of a string in a later event. Half a character is none, and
    strict decoders refuse it: a half whose other half does not come is left out.
    """

    def __init__(self) -> None:
        self._first_half = b""

    def join(self, event: bytes) -> bytes:
        """The event's JSON without lone halves."""
        if b"\\u" not in event or not _HALF.search(event):
            return event
        first_half, last_half, is_joined = self._first_half, b"", False

        def replace(found: re.Match[bytes]) -> bytes:
            nonlocal last_half, is_joined
            if found["last"]:
                last_half = found["last"]
            elif found["first"] and first_half:
                is_joined = True
                return b'"' + first_half + found["first"]
            elif found["first"]:
                return b'"'
            elif not found["lone"]:
                return found[0]
            return b""

        joined = _ESCAPES.sub(replace, event)
        if last_half or is_joined:
            self._first_half = last_half
        return joined


_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
#: All escapes of a JSON text, each as a whole, so that an escaped backslash begins none.
_ESCAPES = re.compile(
    rb"\\u[dD][89abAB]..\\u[dD][c-fC-F].."
    rb'|(?P<last>\\u[dD][89abAB]..)(?=")'
    rb'|"(?P<first>\\u[dD][c-fC-F]..)'
    rb"|(?P<lone>\\u[dD][89a-fA-F]..)"
    rb"|\\.",
    re.DOTALL,
)


def _wide_charset(head: bytearray) -> str | None:
    """The charset of a body in UTF-16, by its mark or by the zeros in it; None: it is no such."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    # One zero at the beginning is padding.
    return _WIDE_CHARSETS.get(bytes(head[: 3 if head.startswith(b"\0") else 2]))


def _find_form(head: bytearray) -> Literal["stream", "document", "page"] | None:
    """What a body is by its first bytes; None: they are not enough."""
    start = bytes(head.lstrip(_SPACE)[:6])
    if any(len(start) < len(one) and one.startswith(start) for one in _QUOTED_STARTS):
        return None
    if start in _WIDE_BEGINNINGS or (head.startswith(b"\0") and len(head) < 3):
        return None
    if start.startswith((b"{", b"[", *_QUOTED_STARTS)):
        return "document"
    return "page" if start.startswith(b"<") else "stream"


def _quoted_json(data: bytes) -> bytes:
    """The JSON in a JSON string, as gateways send it that encode twice; empty: there is none."""
    if not data.startswith(_QUOTED_STARTS):
        return b""
    try:
        return _decode_text(data).encode(errors="replace")
    except DECODE_ERRORS:
        return b""


def _is_end_mark(data: bytes) -> bool:
    """Whether a text is the end marker, in any spelling."""
    return len(data) <= _LONGEST_END and data.strip(_END_MARKS).lower() in _END_WORDS


def _is_end_notice(data: bytes) -> bool:
    """Whether an object says that the stream ends, and nothing else."""
    try:
        value = _decode_object(data)
    except DECODE_ERRORS:
        return False
    names = (value.pop("type", None), value.pop("event", None), value.pop("status", None))
    marks = [value.pop(name, None) for name in ("done", "finished", "is_end", "end")]
    words = [one.lower().encode(errors="replace") for one in names if isinstance(one, str)]
    is_end = True in marks or (bool(words) and all(one in _END_WORDS for one in words))
    return is_end and not any(value.values())


def _listed_objects(data: bytes) -> list[bytes]:
    """The objects of a JSON array; none, if it is no such array."""
    if not data.startswith(b"["):
        return []
    try:
        return [bytes(one) for one in _decode_list(data) if bytes(one)[:1] == b"{"]
    except DECODE_ERRORS:
        return []


def _is_json(data: bytes | bytearray) -> bool:
    try:
        _decode_raw(data)
    except DECODE_ERRORS:
        return False
    return True
