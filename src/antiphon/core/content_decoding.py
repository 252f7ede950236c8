"""Content decoding: decompresses an HTTP body as it arrives, in pieces of bounded size. No I/O."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

#: The size limit of a decompressed piece, in bytes: whoever reads can stop between two.
_MAX_PIECE_BYTES = 256 * 1024
_GZIP_MAGIC = b"\x1f\x8b"
#: Codings that nothing here decompresses. Other names are no codings, but mistakes of a server
#: that means the character set, say, and the body is as it is.
_UNSUPPORTED = frozenset({"br", "zstd", "compress", "x-compress", "dcb", "dcz"})


class ContentDecodingError(Exception):
    """A body that cannot be decompressed; the message names its ``Content-Encoding``."""


class ContentDecoder:
    """Decompresses one body of this ``Content-Encoding``: gzip, deflate, or none.

    What is gzip is known by its first bytes, so a wrong label does no harm: proxies compress
    and forget the header, or decompress and keep it.
    """

    def __init__(self, content_encoding: str) -> None:
        named = [name.strip().lower() for name in content_encoding.split(",")]
        codings = [name for name in named if name not in ("", "identity")]
        self._coding = ", ".join(codings)
        self._is_supported = len(codings) < 2 and not _UNSUPPORTED.intersection(codings)
        self._has_started = False
        self._decompressor: zlib._Decompress | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The decompressed pieces of ``data``. Raises ``ContentDecodingError``."""
        if not self._is_supported:
            text = f"its Content-Encoding is {self._coding!r}, which is not supported"
            raise ContentDecodingError(text)
        if not self._has_started and data:
            self._has_started = True
            self._decompressor = self._create_decompressor(data)
        if self._decompressor is None:
            yield data
            return
        try:
            yield from self._decompress(data)
        except zlib.error as error:
            text = f"it cannot be decompressed as {self._coding or 'gzip'!r}: {error}"
            raise ContentDecodingError(text) from None

    def _create_decompressor(self, start: bytes) -> zlib._Decompress | None:
        if _GZIP_MAGIC.startswith(start[:2]):
            return zlib.decompressobj(16 + zlib.MAX_WBITS)
        if self._coding == "deflate":
            # With zlib's header, as the standard says, or without it, as some servers do.
            return zlib.decompressobj(zlib.MAX_WBITS if start[0] & 0x0F == 8 else -zlib.MAX_WBITS)
        return None

    def _decompress(self, data: bytes) -> Iterator[bytes]:
        while self._decompressor is not None:
            piece = self._decompressor.decompress(data, _MAX_PIECE_BYTES)
            if piece:
                yield piece
            if not self._decompressor.eof:
                data = self._decompressor.unconsumed_tail
                if not data and len(piece) < _MAX_PIECE_BYTES:
                    return
                continue
            # A body may be several files of gzip in a row; anything else behind one is padding.
            data = self._decompressor.unused_data
            if not data or not _GZIP_MAGIC.startswith(data[:2]):
                return
            self._decompressor = zlib.decompressobj(16 + zlib.MAX_WBITS)


def decode_content(body: bytes, content_encoding: str, max_bytes: int) -> bytes:
    """A whole body, cut off after ``max_bytes``. Raises ``ContentDecodingError``."""
    decoded = bytearray()
    for piece in ContentDecoder(content_encoding).feed(body):
        decoded += piece
        if len(decoded) > max_bytes:
            break
    return bytes(decoded[:max_bytes])
