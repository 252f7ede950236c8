"""Which of the turns that hold all words of a query come first: BM25, then the newest. No I/O.

The formula is Okapi's with Lucene's weights, which are never negative: a word counts for more
the fewer turns hold it, for less each time it comes again, and for less in a longer turn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec

#: How fast a word that comes again counts for less, and how much a turn's length matters.
_AGAIN: Final = 1.2
_LENGTH: Final = 0.75
#: A word that comes more often in a turn counts as this often.
MAX_COUNT: Final = 255


class Scale(msgspec.Struct, frozen=True):
    """What a tenant's turns are measured by: each term's weight, and what length costs."""

    weights: tuple[float, ...]
    drag: float
    drag_per_word: float


def scale_of(turns: int, words: int, holding: Sequence[int]) -> Scale:
    """``turns`` have ``words`` among them; so many of them hold each term of the query."""
    mean = words / turns if words else 1.0
    weights = [math.log1p((turns - held + 0.5) / (held + 0.5)) for held in holding]
    return Scale(
        weights=tuple([(_AGAIN + 1) * weight for weight in weights]),
        drag=_AGAIN * (1 - _LENGTH),
        drag_per_word=_AGAIN * _LENGTH / mean,
    )


def score(scale: Scale, counts: Sequence[int], length: int) -> float:
    """How good a turn of ``length`` words is that holds each term so often."""
    drag = scale.drag + scale.drag_per_word * length
    good = 0.0
    # Up to a hundred thousand times in a search.
    for weight, count in zip(scale.weights, counts):  # noqa: B905
        good += weight * count / (count + drag)
    return good
