import gzip
import sys
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.content_decoding import ContentDecoder, ContentDecodingError, decode_content

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TEXT = b"data: hello\n\n" * 50_000


def _zipped(data: bytes) -> bytes:
    """The same bytes whenever they are made: they are in the names of tests."""
    return gzip.compress(data, mtime=0)


def decode(body: bytes, label: str, size: int) -> bytes:
    decoder = ContentDecoder(label)
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(plain for piece in pieces for plain in decoder.feed(piece))


@pytest.mark.parametrize("size", [1, 7, 1000, 10**7])
@pytest.mark.parametrize(
    ("label", "body"),
    [
        ("gzip", _zipped(TEXT)),
        ("GZip", _zipped(TEXT)),
        ("x-gzip, identity", _zipped(TEXT)),
        ("", _zipped(TEXT)),
        ("gzip", _zipped(TEXT[:13]) + _zipped(TEXT[13:])),
        ("gzip", _zipped(TEXT) + b"\0\0"),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", zlib.compress(TEXT)[2:-4]),
        ("zstd", zstd.compress(TEXT)),
        ("", zstd.compress(TEXT)),
        ("gzip", _zipped(_zipped(TEXT))),
        ("gzip, gzip", _zipped(_zipped(TEXT))),
        ("gzip, gzip", _zipped(TEXT)),
        ("deflate, gzip", _zipped(zlib.compress(TEXT))),
        ("gzip, zstd", zstd.compress(_zipped(TEXT))),
    ],
)
def test_compressed_body_is_decoded_in_pieces(label: str, body: bytes, size: int) -> None:
    assert decode(body, label, size) == TEXT


@pytest.mark.parametrize("label", ["", "identity", "gzip", "zstd", "utf-8", "chunked"])
def test_plain_body_is_unchanged(label: str) -> None:
    assert decode(TEXT, label, 1000) == TEXT


@given(st.binary(min_size=1), st.sampled_from(["", "gzip", "deflate", "zstd", "br"]))
def test_any_bytes_are_decoded_or_refused(body: bytes, label: str) -> None:
    with suppress(ContentDecodingError):
        decode(body, label, 3)


@pytest.mark.parametrize("label", ["br", "gzip, br", "gzip, gzip, gzip, gzip", "compress"])
def test_unsupported_encoding_is_named(label: str) -> None:
    with pytest.raises(ContentDecodingError, match=label):
        decode(b"x", label, 1)


def test_truncated_body_is_decoded_as_far_as_it_came() -> None:
    compressed = _zipped(TEXT)
    assert TEXT.startswith(decode(compressed[:-20], "gzip", 5))
    assert decode(compressed[:-8], "gzip", 5) == TEXT


def test_decompressed_size_is_limited() -> None:
    bomb = _zipped(b"\0" * 50_000_000)
    assert max(map(len, ContentDecoder("gzip").feed(bomb))) < 1_000_000
    assert decode_content(bomb, "gzip", 1000) == b"\0" * 1000
