"""Content decoding: decompresses an HTTP body as it arrives, in pieces of bounded size. No I/O."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Protocol

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdDecompressor, ZstdError
else:
    from backports.zstd import ZstdDecompressor, ZstdError

#: The size limit of a decompressed piece, in bytes: whoever reads can stop between two.
_MAX_PIECE_BYTES = 256 * 1024
#: How often a body is decompressed that was compressed more than once.
MAX_LAYERS = 3
GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
#: Codings that nothing here decompresses. Other names are no codings, but mistakes of a server
#: that means the character set, say, and the body is as it is.
_UNSUPPORTED = frozenset({"br", "compress", "x-compress", "dcb", "dcz"})
#: How a body begins that is not compressed, whatever its label says.
_PLAIN_STARTS = (b'{"', b"{\n", b'[{"', b"data:", b"event:", b": ", b"<html", b"<!")


class ContentDecodingError(Exception):
    """A body that cannot be decompressed; the message names its ``Content-Encoding``."""


class _Decompressor(Protocol):
    """Decompresses one stream, as ``zlib``'s objects do."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def unconsumed_tail(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _ZstdStream:
    """A stream of zstd in the form of ``zlib``'s objects."""

    #: It holds back itself what it has not decompressed.
    unconsumed_tail = b""

    def __init__(self) -> None:
        self._stream = ZstdDecompressor()

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        return self._stream.decompress(data, max_length)


class ContentDecoder:
    """Decompresses one body of this ``Content-Encoding``: gzip, deflate, zstd, or none.

    What is gzip or zstd is known by its first bytes, so a wrong label does no harm: proxies
    compress and forget the header, or decompress and keep it. They also compress what is
    compressed: ``max_layers`` is how often a body is decompressed at most.
    """

    def __init__(self, content_encoding: str, max_layers: int = MAX_LAYERS) -> None:
        codings = _read_codings(content_encoding)
        self._coding = codings[-1] if codings else ""
        self._label = ", ".join(codings)
        self._is_supported = len(codings) <= max_layers and not _UNSUPPORTED.intersection(codings)
        self._has_started = False
        self._decompressor: _Decompressor | None = None
        #: Decodes what was compressed before it was compressed again.
        self._inner: ContentDecoder | None = None
        self._inner_codings = ", ".join(codings[:-1])
        self._max_layers = max_layers

    @property
    def is_complete(self) -> bool:
        """Whether the body may end here; False: it is cut off."""
        is_whole = self._decompressor is None or self._decompressor.eof
        return is_whole and (self._inner is None or self._inner.is_complete)

    def feed(self, data: bytes) -> Iterable[bytes]:
        """The decompressed pieces of ``data``. Iterating raises ``ContentDecodingError``."""
        if self._has_started and self._decompressor is None:
            return (data,)
        return self._decode(data)

    def _decode(self, data: bytes) -> Iterator[bytes]:
        if not self._has_started and data:
            self._decompressor = self._create_decompressor(data)
            is_known = self._decompressor is not None or data.startswith(_PLAIN_STARTS)
            if not (self._is_supported or (is_known and not self._inner_codings)):
                text = f"its Content-Encoding is {self._label!r}, which is not supported"
                raise ContentDecodingError(text)
            self._has_started = True
            if self._decompressor is not None and self._max_layers > 1:
                self._inner = ContentDecoder(self._inner_codings, self._max_layers - 1)
        if self._decompressor is None:
            yield data
            return
        try:
            for piece in self._decompress(data):
                yield from (piece,) if self._inner is None else self._inner.feed(piece)
        except (zlib.error, ZstdError) as error:
            label = f" as {self._label!r}" if self._label else ""
            text = f"it cannot be decompressed{label}: {error}"
            raise ContentDecodingError(text) from None

    def _create_decompressor(self, start: bytes) -> _Decompressor | None:
        if _ZSTD_MAGIC.startswith(start[:4]):
            return _ZstdStream()
        if GZIP_MAGIC.startswith(start[:2]):
            return zlib.decompressobj(16 + zlib.MAX_WBITS)
        if self._coding == "deflate" and not start.startswith(_PLAIN_STARTS):
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
            # A body may be several files in a row; anything else behind one is padding.
            data = self._decompressor.unused_data
            if data and GZIP_MAGIC.startswith(data[:2]):
                self._decompressor = zlib.decompressobj(16 + zlib.MAX_WBITS)
            elif data and _ZSTD_MAGIC.startswith(data[:4]):
                self._decompressor = _ZstdStream()
            else:
                return


@lru_cache(maxsize=64)
def _read_codings(content_encoding: str) -> tuple[str, ...]:
    named = [name.strip().lower() for name in content_encoding.split(",")]
    return tuple(name for name in named if name not in ("", "identity"))


def decode_content(body: bytes, content_encoding: str, max_bytes: int) -> bytes:
    """A whole body, cut off after ``max_bytes``. Raises ``ContentDecodingError``."""
    decoded = bytearray()
    for piece in ContentDecoder(content_encoding).feed(body):
        decoded += piece
        if len(decoded) > max_bytes:
            break
    return bytes(decoded[:max_bytes])
