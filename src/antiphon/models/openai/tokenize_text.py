"""Tokenize text: xAI's ``/tokenize-text``, as request and answer. Pure.

xAI has it, and so has antiphon.
"""

from __future__ import annotations

import msgspec

from antiphon.models.openai.sse import DECODE_ERRORS
from antiphon.models.openai.upstream_errors import Unreadable
from antiphon.turn.protocols import Token

TOKENIZE_PATH = "/tokenize-text"
#: How an endpoint answers that does not have it.
MISSING_STATUSES = frozenset({404, 405, 501})


class _Token(msgspec.Struct, frozen=True):
    token_id: int
    token_bytes: list[int]


class _Answer(msgspec.Struct, frozen=True):
    token_ids: list[_Token]


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Answer).decode


def encode_tokenize_request(model: str, text: str) -> bytes:
    return _encode({"model": model, "text": text})


def decode_tokens(body: bytes) -> tuple[Token, ...]:
    """The tokens of an answer. Raises ``Unreadable``."""
    try:
        tokens = _decode(body).token_ids
        return tuple(Token(one.token_id, bytes(one.token_bytes)) for one in tokens)
    except (*DECODE_ERRORS, ValueError) as error:
        raise Unreadable(str(error), body, error) from None
