"""SSE parser: splits server-sent events from bytes as they arrive. No I/O.

Follows the WHATWG HTML specification's event stream, except where servers do not, and what
they mean is plain:

- An event that the stream's end cuts short of its blank line counts.
- A data line that is whole JSON, or begins no JSON, is an event at once: some servers write
  no blank lines.
- A line that begins as a JSON object or is the end marker, without a field's name, is data; so is
  one that goes on with JSON that is not whole.
- A field's name may have other letters' case, and spaces or stray bytes around it.
- A line without a field's name goes on with an object that is not yet whole.
- An event's name goes into its data, see ``_name_event``: the dialects repeat it there.
- An event that is named as an error or as the end is one without data, too.

Written here because the maintained parser, httpx-sse, reads httpx responses, and no
maintained library parses bytes without I/O, for aiohttp.
"""

from __future__ import annotations

import re

import msgspec

from antiphon.errors import ModelError

_BOM = b"\xef\xbb\xbf"
#: What may stand before a field, though it should not: spaces, padding, separators of records.
STRAY_BYTES = b" \t\x00\x1e" + _BOM
_JSON_SIGNS = (b'"', b"{", b"}", b"[", b"]")
_LOOSE_FIELD = re.compile(rb"(data|event)[ \t]*:", re.IGNORECASE)
_OTHER_FIELD = re.compile(rb":|(id|retry)[ \t]*:", re.IGNORECASE)
#: How text begins that no server means as a field.
_STRAY_TEXT = re.compile(rb"<|[\w.]*(error|exception|traceback)\b|[^:]+ [^:]", re.IGNORECASE)
#: Names of events that are errors, and of those that are the end.
_ERROR_NAMES = frozenset(
    (b"error", b"exception", b"failed", b"failure", b"fatal", b"abort", b"aborted")
)
_END_NAMES = frozenset(
    (b"done", b"end", b"complete", b"completed", b"finish", b"finished", b"close", b"closed")
)
#: The data of an event whose name alone says that the stream ends.
END_NOTICE = b'{"type":"done"}'
_ERROR_WITHOUT_DATA = b'{"error":{"message":"it gives no reason"}}'
#: The size limit of an event, in bytes.
MAX_EVENT_BYTES = 16 * 1024 * 1024

#: What decoding JSON may raise: wrong syntax, wrong shapes, wrong UTF-8, too deep.
DECODE_ERRORS = (msgspec.DecodeError, UnicodeError, RecursionError)
_NAMED_EVENT = re.compile(rb"event: ([^\n]*)\ndata: ([^\n]*)\n\n")
_decode_raw = msgspec.json.Decoder(msgspec.Raw).decode
_decode_keys = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class SseParser:
    """Incremental parser: takes the stream in pieces of any size, returns each event's data.

    Raises ``ModelError`` (``upstream_invalid_response``) for an event of more than
    ``max_event_bytes`` bytes.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        #: The first bytes while they may still become a byte order mark; then None.
        self._bom_prefix: bytes | None = b""
        self._line = bytearray()
        #: The lines of an event that is not yet whole.
        self._data: list[bytes] = []
        self._name = b""
        #: The last line that is no field but words, such as those of a proxy.
        self.stray_text = b""
        #: Whether the event has had any data.
        self._has_data = False
        self._size = 0
        self._after_cr = False

    def feed(self, data: bytes) -> list[bytes]:
        """The data of the events that end in ``data``."""
        if self._bom_prefix is not None:
            data = self._strip_bom(data)
        if not (self._line or self._data or self._name or self._after_cr):
            events = _split_events(data)
            if events is not None and len(data) <= self._max_event_bytes:
                return events
        return self._feed_lines(data)

    def close(self) -> list[bytes]:
        """The last event, if the stream ended before its blank line."""
        rest, self._bom_prefix = self._bom_prefix or b"", None
        return self._feed_lines(rest + b"\n\n")

    def _strip_bom(self, data: bytes) -> bytes:
        data = (self._bom_prefix or b"") + data
        if len(data) < len(_BOM) and _BOM.startswith(data):
            self._bom_prefix = data
            return b""
        self._bom_prefix = None
        return data.removeprefix(_BOM)

    def _feed_lines(self, data: bytes) -> list[bytes]:
        if self._after_cr and data:
            # The line ended with the CR; an LF now is its other half.
            data = data.removeprefix(b"\n")
            self._after_cr = False
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        first, *others = data.split(b"\n")
        self._line += first
        self._check_size(self._size + len(self._line))
        if not others:
            return []
        events: list[bytes] = []
        self._handle_line(bytes(self._line), events)
        self._line = bytearray(others.pop())
        for line in others:
            self._handle_line(line, events)
        return events

    def _handle_line(self, line: bytes, events: list[bytes]) -> None:
        if not line:
            self._end_event(events)
            if not self._has_data and self._name:
                events += _event_without_data(self._name)
            self._name = b""
            self._has_data = False
        elif line.startswith(b"data:"):
            self._add_data(line[6:] if line.startswith(b"data: ") else line[5:], events)
        elif line.startswith(b"event:"):
            self._name = line[6:].strip()
        elif line.startswith((b"{", b"[DONE]")):
            self._add_data(line, events)
        else:
            self._handle_loose_line(line, events)

    def _handle_loose_line(self, line: bytes, events: list[bytes]) -> None:
        """A line that is a field for whoever does not insist on how it is written."""
        text = line.lstrip(STRAY_BYTES)
        if self._data and text.startswith(_JSON_SIGNS):
            # JSON over many lines, of which only the first is marked.
            self._add_data(text, events)
        elif field := _LOOSE_FIELD.match(text):
            self._handle_line(field[1].lower() + b":" + text[field.end() :], events)
        elif text.startswith((b"{", b"[DONE]")):
            self._add_data(text, events)
        elif self._data and not _OTHER_FIELD.match(text):
            self._add_data(line, events)
        elif _STRAY_TEXT.match(text):
            self.stray_text = text

    def _add_data(self, value: bytes, events: list[bytes]) -> None:
        text = value.strip()
        self._has_data = True
        if text and self._data and (text == b"[DONE]" or _is_boundary(self._data[-1], text)):
            self._end_event(events)
        if self._data or (text.startswith(b"{") and not _is_json(text)):
            if text:
                self._data.append(value)
            # Whole lines are counted: endless empty ones are endless too.
            self._size += len(value) + len(b"data:\n")
            self._check_size(self._size)
        else:
            self._check_size(len(value))
            events.append(_name_event(self._name, value))

    def _end_event(self, events: list[bytes]) -> None:
        if self._data:
            events.append(_name_event(self._name, b"\n".join(self._data)))
            self._data = []
            self._size = 0

    def _check_size(self, size: int) -> None:
        if size > self._max_event_bytes:
            raise ModelError(
                f"The upstream sent an event of more than {self._max_event_bytes} bytes.",
                code="upstream_invalid_response",
            )


def _split_events(data: bytes) -> list[bytes] | None:
    """Fast path: the events of ``data`` if it holds one-line events of one form only, or None.

    Nearly every read looks like this, and then no Python step runs per line.
    """
    if not data.endswith(b"\n\n") or b"\r" in data:
        return None
    if data.startswith(b"data: "):
        if data.find(b"\n") == len(data) - 2:
            return [data[6:-2]]
        events = data[6:-2].split(b"\n\ndata: ")
        # Two line ends for each event: then there is no other line between them.
        return events if data.count(b"\n") == 2 * len(events) else None
    named = _NAMED_EVENT.findall(data)
    if sum(len(name) + len(value) for name, value in named) + 16 * len(named) != len(data):
        return None
    return [_name_event(name, value) for name, value in named]


def _is_boundary(line: bytes, next_line: bytes) -> bool:
    """Whether an object has ended: within a larger one, ``,``, ``]`` or ``}`` follows it."""
    return line.rstrip().endswith(b"}") and next_line[:1] not in (b",", b"]", b"}")


def _is_json(data: bytes) -> bool:
    try:
        _decode_raw(data)
    except DECODE_ERRORS:
        return False
    return True


def _name_event(name: bytes, data: bytes) -> bytes:
    """An event's data with its name in it.

    An event ``error`` becomes an object with an ``error``, whatever it holds; another
    object gets its name as its ``type``, before its own type, which therefore counts.
    """
    lower_name = name.lower()
    if lower_name in _ERROR_NAMES:
        return _error_event(data)
    if lower_name in _END_NAMES and not data.lstrip().startswith((b'{"', b"[")):
        return END_NOTICE
    if not name or data.startswith(b'{"type"') or not data.startswith(b'{"'):
        return data
    return b'{"type":' + msgspec.json.encode(name.decode(errors="replace")) + b"," + data[1:]


def _event_without_data(name: bytes) -> list[bytes]:
    """What an event says by its name alone."""
    lower_name = name.lower()
    if lower_name in _ERROR_NAMES:
        return [_ERROR_WITHOUT_DATA]
    return [END_NOTICE] if lower_name in _END_NAMES else []


def _error_event(data: bytes) -> bytes:
    if not data.strip():
        return _ERROR_WITHOUT_DATA
    try:
        value = _decode_raw(data)
        if data.lstrip().startswith(b"{") and _decode_keys(data).get("error") is not None:
            return data
    except DECODE_ERRORS:
        return msgspec.json.encode({"error": data.decode(errors="replace")})
    return msgspec.json.encode({"error": value})
