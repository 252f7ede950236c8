"""Control-token escaping: sanitizes chat-template markup in users' text.

A tokenizer reads ``<|im_start|>`` in a user's message as the beginning of a turn, so a user
could inject a system turn. An invisible character inside turns the token into plain text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

#: ZERO WIDTH SPACE: no control token has one, and neither a person nor a model reads it.
ZERO_WIDTH_SPACE = "\u200b"


class ControlTokenEscaper:
    """The control tokens of one vocabulary. Those of one character stay as they are."""

    def __init__(self, tokens: Iterable[str]) -> None:
        self._tokens = frozenset(token for token in tokens if len(token) > 1)
        self._lengths = sorted({len(token) for token in self._tokens})
        firsts = "".join(sorted({token[0] for token in self._tokens}))
        self._first_character = re.compile(f"[{re.escape(firsts)}]") if firsts else None

    def escape(self, text: str) -> str:
        """The text with an invisible character inside of every control token in it."""
        if self._first_character is None:
            return text
        pieces = []
        done = 0
        # Every position is checked, so overlapping tokens are all broken in one pass.
        for match in self._first_character.finditer(text):
            start = match.start()
            if any(text[start : start + length] in self._tokens for length in self._lengths):
                pieces.append(text[done : start + 1])
                done = start + 1
        pieces.append(text[done:])
        return ZERO_WIDTH_SPACE.join(pieces)
