"""What an MCP server's program writes, line by line, and no line without an end.

The SDK collects a line until it is over, however long that takes, but lets one choose the
encoding it is read in. Ours is UTF-8 that gives out whole lines only, so that nothing is
collected but here; in place of a line that is too long comes one that says so, and nothing
after it.
"""

from __future__ import annotations

import codecs
import json

from mcp.types import JSONRPCNotification

from antiphon.tools.mcp.http_transport import MAX_BYTES

#: The encoding's name.
LINE_ENCODING = "antiphon_lines"
#: What is wrong with a program that writes such a line.
LINE_TOO_LONG = f"it wrote a line of more than {MAX_BYTES >> 20} MiB"

_METHOD = "antiphon/too_long"
_NOTICE = json.dumps({"jsonrpc": "2.0", "method": _METHOD}) + "\n"


def is_too_long(message: object) -> bool:
    """Whether a message stands in the place of a line that was too long."""
    return isinstance(message, JSONRPCNotification) and message.method == _METHOD


class LineDecoder(codecs.IncrementalDecoder):
    """Bytes to text, line by line. What is no UTF-8 becomes what is no text."""

    def __init__(self, errors: str = "strict") -> None:
        super().__init__(errors)
        self._partial_line: list[bytes] = []
        self._size = 0
        self._is_stopped = False

    def decode(self, data: bytes, final: bool = False) -> str:  # type: ignore[override]
        """The lines that are over by now, "" if there are none."""
        if self._is_stopped:
            return ""
        whole, newline, rest = data.rpartition(b"\n")
        lines = b"".join((*self._partial_line, whole, newline)) if newline else b""
        if newline:
            self._partial_line, self._size = [], 0
        self._partial_line.append(rest)
        self._size += len(rest)
        text = lines.decode(errors="replace")
        if self._size <= MAX_BYTES:
            return text
        self._partial_line, self._is_stopped = [], True
        return text + _NOTICE

    def reset(self) -> None:
        """Nothing has been read."""
        self._partial_line, self._size, self._is_stopped = [], 0, False


def _find_codec(name: str) -> codecs.CodecInfo | None:
    if name != LINE_ENCODING:
        return None
    # What is written to the program is plain UTF-8.
    return codecs.CodecInfo(
        codecs.utf_8_encode, codecs.utf_8_decode, incrementaldecoder=LineDecoder, name=LINE_ENCODING
    )


codecs.register(_find_codec)
