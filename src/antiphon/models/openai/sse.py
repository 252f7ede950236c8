"""SSE parser: splits server-sent events from bytes as they arrive. No I/O.

Follows the WHATWG HTML specification's event stream, with two differences: only ``data`` is
read, because neither dialect needs other fields, and an event that the stream's end cuts
short of its blank line still counts. Written here because the maintained parser, httpx-sse,
reads httpx responses, and no maintained library parses bytes without I/O, for aiohttp.
"""

from __future__ import annotations

from antiphon.errors import ModelError

_BOM = b"\xef\xbb\xbf"
#: The size limit of an event, in bytes.
MAX_EVENT_BYTES = 16 * 1024 * 1024


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
        self._data: list[bytes] = []
        self._size = 0
        self._after_cr = False

    def feed(self, data: bytes) -> list[bytes]:
        """The data of the events that end in ``data``."""
        if self._bom_prefix is not None:
            data = self._strip_bom(data)
        if not (self._line or self._data or self._after_cr):
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
            if self._data:
                events.append(b"\n".join(self._data))
                self._data = []
                self._size = 0
        elif line.startswith(b"data:"):
            value = line[6:] if line.startswith(b"data: ") else line[5:]
            self._data.append(value)
            self._count_line(line)
        elif line == b"data":
            self._data.append(b"")
            self._count_line(line)

    def _count_line(self, line: bytes) -> None:
        # Whole lines are counted: endless empty ones are endless too.
        self._size += len(line) + 1
        self._check_size(self._size)

    def _check_size(self, size: int) -> None:
        if size > self._max_event_bytes:
            raise ModelError(
                f"The upstream sent an event of more than {self._max_event_bytes} bytes.",
                code="upstream_invalid_response",
            )


def _split_events(data: bytes) -> list[bytes] | None:
    """Fast path: the events of ``data`` if it holds plain one-line events only, or None.

    Nearly every read looks like this, and then no Python step runs per line.
    """
    if not (data.startswith(b"data: ") and data.endswith(b"\n\n")) or b"\r" in data:
        return None
    events = data[6:-2].split(b"\n\ndata: ")
    # Two line ends for each event: then there is no other line between them.
    return events if data.count(b"\n") == 2 * len(events) else None
