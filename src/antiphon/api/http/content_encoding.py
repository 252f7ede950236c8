"""Content encodings: request bodies compressed by gzip, deflate or zstd are read as plain ones."""

from __future__ import annotations

import asyncio
import sys
import zlib
from collections.abc import Callable, Iterable
from typing import Final, Protocol, TypeAlias

from starlette.types import Message, Receive

from antiphon.api.common.body import MAX_BODY, read_body
from antiphon.errors import (
    AntiphonError,
    BodyTooLargeError,
    InvalidRequestError,
    UnsupportedContentEncodingError,
)

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdDecompressor, ZstdError
else:
    from backports.zstd import ZstdDecompressor, ZstdError

#: Bytes of a compressed body that are decompressed on the event loop; more are in a thread.
_MAX_INLINE: Final = 4096
#: The streams of which a body may consist, one behind the other.
_MAX_STREAMS: Final = 1000
#: What a gzip file may be filled up with.
_PADDING: Final = b"\0"
_HEADER: Final = b"content-encoding"


class _Decompressor(Protocol):
    """Decompresses one stream; ``zlib``'s and ``zstd``'s objects are such."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


_MakeDecompressor: TypeAlias = Callable[[bytes], _Decompressor]


def _gzip(_: bytes) -> _Decompressor:
    return zlib.decompressobj(zlib.MAX_WBITS | 16)


def _deflate(body: bytes) -> _Decompressor:
    """By RFC 9110 deflate has zlib's header; some clients send the bare stream."""
    has_header = len(body) > 1 and body[0] & 15 == 8 and (body[0] << 8 | body[1]) % 31 == 0
    return zlib.decompressobj(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)


def _zstd(_: bytes) -> _Decompressor:
    return ZstdDecompressor()


_DECOMPRESSORS: Final[dict[str, _MakeDecompressor]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "zstd": _zstd,
}
SUPPORTED_ENCODINGS: Final = "gzip, deflate, zstd"


def has_content_encoding(headers: Iterable[bytes]) -> bool:
    """Whether these names of headers include that of a content encoding."""
    return _HEADER in headers


def decompressing(headers: Iterable[tuple[bytes, bytes]], receive: Receive) -> Receive:
    """``receive`` for a compressed body: the body in one plain message, then what follows it.

    It raises ``UnsupportedContentEncodingError``, ``BodyTooLargeError`` and
    ``InvalidRequestError`` to the handler that reads the body.
    """
    encodings = _parse(headers)
    if not encodings:
        return receive
    is_read = False

    async def receive_plain() -> Message:
        nonlocal is_read
        if is_read:
            return await receive()
        is_read = True
        _check(encodings)
        body = await read_body(receive)
        if len(body) > _MAX_INLINE:
            body = await asyncio.to_thread(decompress, encodings, body)
        else:
            body = decompress(encodings, body)
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_plain


def _parse(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """The encodings in the order in which they were applied, ``identity`` left out."""
    values = [value for name, value in headers if name == _HEADER]
    names = b",".join(values).decode("latin-1").split(",")
    return [name for one in names if (name := one.strip().lower()) not in {"", "identity"}]


def _check(encodings: Iterable[str]) -> None:
    for one in encodings:
        if one not in _DECOMPRESSORS:
            raise UnsupportedContentEncodingError(
                f"The body's Content-Encoding {one[:40]!r} is not supported:"
                f" it may be {SUPPORTED_ENCODINGS} or identity.",
                param="Content-Encoding",
            )


def decompress(encodings: Iterable[str], body: bytes) -> bytes:
    """A body without its encodings. Pure. Raises ``BodyTooLargeError``, ``InvalidRequestError``."""
    for encoding in reversed(list(encodings)):
        if body:
            body = _decompress_streams(encoding, body)
    return body


def _decompress_streams(encoding: str, body: bytes) -> bytes:
    plain: list[bytes] = []
    size = 0
    for _ in range(_MAX_STREAMS):
        stream = _DECOMPRESSORS[encoding](body)
        try:
            plain.append(stream.decompress(body, MAX_BODY + 1 - size))
        except (zlib.error, ZstdError, EOFError) as error:
            raise _invalid_error(encoding) from error
        size += len(plain[-1])
        if size > MAX_BODY:
            raise BodyTooLargeError(
                f"The body is larger than {MAX_BODY // 2**20} MiB when it is decompressed."
            )
        if not stream.eof:
            raise _invalid_error(encoding)
        body = stream.unused_data.lstrip(_PADDING)
        if not body:
            return b"".join(plain)
    raise _invalid_error(encoding)


def _invalid_error(encoding: str) -> AntiphonError:
    return InvalidRequestError(
        f"The body is not valid {encoding}, which its Content-Encoding says it is.",
        code="invalid_content_encoding",
        param="Content-Encoding",
    )
