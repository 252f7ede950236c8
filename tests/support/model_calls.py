"""Model calls by their messages as one array."""

from __future__ import annotations

from antiphon.core.turns import Options
from antiphon.turn.protocols import ModelCall


def call_with_messages(model: str, messages: bytes, options: Options, stream: bool) -> ModelCall:
    """The call of a JSON array of messages, which are one piece."""
    pieces = (messages[1:-1],) if len(messages) > len(b"[]") else ()
    return ModelCall(model, pieces, options, stream)
