"""Repetition detection: finds an answer that repeats its last passage without end. Pure.

Small models, and base models most of all, fall into a loop of one token, line or paragraph, and
would go on to their limit. What people ask for repeats too: rulers, tables, code, a chorus. So
only the same text, character by character, very many times in a row and up to the end, counts.
"""

from __future__ import annotations

from typing import Final

#: A repetition is at least this long, in characters, whatever is repeated.
MIN_LENGTH: Final = 2400
#: How often a passage comes at least, by its greatest length in characters; longer ones never
#: count.
MIN_REPEATS: Final = ((12, 160), (80, 60), (1200, 24))

_MAX_LENGTH: Final = max(length * repeats for length, repeats in MIN_REPEATS)
#: What is searched for in the text before it: longer than any word between two repetitions.
_PROBE: Final = 64
#: So many new characters are worth another look.
_STEP: Final = 200


def find_endless_passage(text: str) -> str | None:
    """The passage that a text repeats up to its end, too often to mean it; None: there is none.

    The passage may begin in its middle: where it begins, nobody can say.
    """
    if len(text) < MIN_LENGTH:
        return None
    # The last characters stood here before: so far back begins the passage before the last one.
    before = text.rfind(text[-_PROBE:], 0, len(text) - 1)
    period = len(text) - _PROBE - before
    for length, repeats in MIN_REPEATS:
        if before >= 0 and period <= length:
            needed = max(repeats, -(-MIN_LENGTH // period))
            passage = text[-period:]
            return passage if text.endswith(passage * needed) else None
    return None


class RepetitionDetector:
    """Looks at an answer while it is written, every few hundred characters."""

    def __init__(self) -> None:
        #: Whether the answer repeats itself without end.
        self.is_endless = False
        self._text = ""
        self._unseen = 0

    def feed(self, piece: str) -> bool:
        """Take the next piece; whether the answer repeats itself without end."""
        self._text += piece
        self._unseen += len(piece)
        if self._unseen >= _STEP and not self.is_endless:
            self._text, self._unseen = self._text[-_MAX_LENGTH:], 0
            self.is_endless = find_endless_passage(self._text) is not None
        return self.is_endless
