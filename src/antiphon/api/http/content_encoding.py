"""Content encodings: request bodies compressed by gzip, deflate or zstd are read as plain ones."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from starlette.types import Message, Receive

from antiphon.api.common.body import MAX_BODY, read_body
from antiphon.core.content_decoding import (
    GZIP_MAGIC,
    MAX_LAYERS,
    ContentDecoder,
    ContentDecodingError,
)
from antiphon.errors import (
    BodyTooLargeError,
    InvalidRequestError,
    UnsupportedContentEncodingError,
)

#: Bytes of a compressed body that are decompressed on the event loop; more are in a thread.
_MAX_INLINE: Final = 4096
_HEADER: Final = b"content-encoding"
_SUPPORTED: Final = ("gzip", "deflate", "zstd")


def has_content_encoding(names: Iterable[bytes]) -> bool:
    """Whether these names of headers include that of a content encoding."""
    return _HEADER in names


def decompress_body(headers: Iterable[tuple[bytes, bytes]], receive: Receive) -> Receive:
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
    encodings = [one.strip().lower().removeprefix("x-") for one in names]
    return [one for one in encodings if one not in {"", "identity"}]


def _check(encodings: Iterable[str]) -> None:
    for one in encodings:
        if one not in _SUPPORTED:
            raise UnsupportedContentEncodingError(
                f"The body's Content-Encoding {one[:40]!r} is not supported:"
                f" it may be {', '.join(_SUPPORTED)} or identity.",
                param="Content-Encoding",
            )


def decompress(encodings: Iterable[str], body: bytes) -> bytes:
    """A body without its encodings. Pure. Raises ``BodyTooLargeError``, ``InvalidRequestError``."""
    # Each layer counts against the limit, so each is decompressed by itself.
    layers = [*reversed(list(encodings)), *("gzip",) * MAX_LAYERS]
    for number, encoding in enumerate(layers):
        if number >= len(layers) - MAX_LAYERS and not body.startswith(GZIP_MAGIC):
            break
        decoder, plain = ContentDecoder(encoding, 1), bytearray()
        try:
            for piece in decoder.feed(body):
                plain += piece
                if len(plain) > MAX_BODY:
                    raise BodyTooLargeError(
                        f"The body is larger than {MAX_BODY // 2**20} MiB when it is decompressed."
                    )
        except ContentDecodingError as error:
            raise _invalid_error(str(error)) from error
        if not decoder.is_complete:
            raise _invalid_error(f"its {encoding!r} is cut off")
        body = bytes(plain)
    return body


def _invalid_error(reason: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"The body cannot be decompressed: {reason}.",
        code="invalid_content_encoding",
        param="Content-Encoding",
    )
