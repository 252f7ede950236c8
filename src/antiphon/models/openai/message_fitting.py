"""Message fitting: a call's messages as every upstream of chat completions takes them. Pure.

Most histories go as they are. What the messages carry for some models (``core.reasoning_sidecar``)
is inserted or left out, and pictures in outputs of tools become a user's, once for each piece.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from antiphon.core.reasoning_sidecar import UNCOMMON_MARK, insert_fields
from antiphon.models.openai.message_rules import text_tool_outputs
from antiphon.models.piece_cache import CAPACITY, PieceCache
from antiphon.turn.protocols import ModelCall

_encode = msgspec.json.Encoder().encode
#: How an output of a tool begins, as ``turn.message_encoding`` writes it.
_OUTPUT_START = b'{"role":"tool"'


class MessageFitter:
    """Fits the messages of calls."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._pieces = PieceCache(_fit_piece, len, capacity)

    def fit(self, call: ModelCall, origin: str) -> bytes:
        """The messages array, as JSON; ``origin`` is the model that is called."""
        if b"\n" not in call.messages and UNCOMMON_MARK not in call.messages:
            return call.messages
        return b"[%b]" % b",".join(self._pieces.get_all(_group_outputs(call.pieces), origin))


def _group_outputs(pieces: Iterable[bytes]) -> list[bytes]:
    """The pieces, with outputs behind the calls that they answer: they are fitted together."""
    groups: list[bytes] = []
    for piece in pieces:
        if groups and piece.startswith(_OUTPUT_START):
            groups[-1] = b"%b,%b" % (groups[-1], piece)
        else:
            groups.append(piece)
    return groups


def _fit_piece(piece: bytes, origin: str) -> bytes:
    messages = insert_fields(piece, origin)
    if UNCOMMON_MARK not in messages:
        return messages
    fitted = _encode(text_tool_outputs(msgspec.json.decode(b"[%b]" % messages)))[1:-1]
    return fitted.replace(b'"detail":"original"', b'"detail":"high"')
