"""Message fitting: a call's messages as every upstream of chat completions takes them. Pure.

Most histories go as they are. What the messages carry for some models (``core.reasoning_sidecar``)
is inserted or left out, and pictures in outputs of tools become a user's, once for each piece.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from antiphon.core.provider_fields import THINKING_PARTS
from antiphon.core.reasoning_sidecar import UNCOMMON_MARK, insert_fields
from antiphon.models.openai.message_rules import text_tool_outputs
from antiphon.models.piece_cache import CAPACITY, PieceCache
from antiphon.turn.protocols import ModelCall

_encode = msgspec.json.Encoder().encode
#: In a string every quote is escaped: nobody's words look like this.
_THINKING_PARTS = b'"%b":' % THINKING_PARTS.encode()
#: How an output of a tool begins, as ``turn.message_encoding`` writes it.
_OUTPUT_START = b'{"role":"tool"'


class MessageFitter:
    """Fits the messages of calls."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._pieces = PieceCache(_fit_piece, len, capacity)

    def fit(self, call: ModelCall, origin: str) -> bytes:
        """The messages array, as JSON; ``origin`` is the model that is called."""
        messages = call.messages
        if b"\n" not in messages and UNCOMMON_MARK not in messages:
            return messages
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


def _with_thinking(message: dict[str, Any]) -> dict[str, Any]:
    """A message whose thoughts came as a part of its content, with that part."""
    thoughts = message.pop(THINKING_PARTS, None)
    if thoughts is None:
        return message
    content = message["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": thoughts}]}
    return {**message, "content": [thinking, *(parts if content else ())]}


def _fit_piece(piece: bytes, origin: str) -> bytes:
    messages = insert_fields(piece, origin)
    if _THINKING_PARTS in messages:
        decoded = msgspec.json.decode(b"[%b]" % messages)
        messages = _encode([_with_thinking(one) for one in decoded])[1:-1]
    if UNCOMMON_MARK not in messages:
        return messages
    fitted = _encode(text_tool_outputs(msgspec.json.decode(b"[%b]" % messages)))[1:-1]
    return fitted.replace(b'"detail":"original"', b'"detail":"high"')
