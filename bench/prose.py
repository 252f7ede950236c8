"""Texts with the words that a language has: few that come often, many that are rare.

A turn's text has about 100 words of 20,000, by Zipf's law, one word of its own, and one of its
conversation and of others with the same remainder.
"""

from __future__ import annotations

import itertools
import random

#: Words of a user's message. The fake's reply has some 30 more.
WORDS = 90
#: Conversations whose numbers have the same remainder share a word.
SHARED = 500

_SYLLABLES = ["ba", "co", "di", "fe", "gu", "la", "mo", "ni", "pe", "ra", "so", "ti", "vu", "we"]
_VOCABULARY = [
    "".join(parts) for n in (1, 2, 3, 4) for parts in itertools.product(_SYLLABLES, repeat=n)
]
_VOCABULARY = _VOCABULARY[:20_000]
_WEIGHTS = list(itertools.accumulate(1 / (rank + 3) for rank in range(len(_VOCABULARY))))


def rare_word(conversation: int, turn: int) -> str:
    """A word that this turn alone has."""
    return f"rare{conversation}x{turn}"


def shared_word(conversation: int) -> str:
    """A word in all turns of one conversation in ``SHARED``."""
    return f"shared{conversation % SHARED}"


def prose_text(conversation: int, turn: int) -> str:
    """What is said in one turn, never twice the same."""
    chance = random.Random(conversation << 16 | turn)
    words = chance.choices(_VOCABULARY, cum_weights=_WEIGHTS, k=WORDS)
    own = f"{rare_word(conversation, turn)} {shared_word(conversation)}"
    return f"{own}: {' '.join(words)}."
