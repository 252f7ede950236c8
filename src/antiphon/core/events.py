"""Events: what a running turn emits, one after another.

``index`` is the item's place in the response's output; an item's text is always
its part 0. An interface numbers what it makes of these (``sequence_number``), from
the turn's first event on, so every reader of a turn counts alike. The garbage collector knows
nothing of deltas: the log of a long answer has thousands, and none holds what holds it.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from antiphon.core.items import Item
from antiphon.core.turns import Response


class Created(msgspec.Struct, frozen=True):
    """The turn exists and, if it is stored, what the user said is safe."""

    response: Response


class ItemAdded(msgspec.Struct, frozen=True):
    """An output item begins; ``item`` is its empty shell."""

    index: int
    item: Item


class TextDelta(msgspec.Struct, frozen=True, gc=False):
    index: int
    text: str
    logprobs: tuple[Any, ...] = ()


class RefusalDelta(msgspec.Struct, frozen=True, gc=False):
    index: int
    text: str


class ReasoningDelta(msgspec.Struct, frozen=True, gc=False):
    """More of a reasoning's summary."""

    index: int
    text: str


class RawReasoningDelta(msgspec.Struct, frozen=True, gc=False):
    """More of a reasoning's content."""

    index: int
    text: str


class ArgumentsDelta(msgspec.Struct, frozen=True, gc=False):
    index: int
    text: str


class ItemDone(msgspec.Struct, frozen=True):
    """An output item is whole, or as whole as it will be."""

    index: int
    item: Item


class Ended(msgspec.Struct, frozen=True):
    """The turn is over and, if it is stored, its end is on disk. Always the last."""

    response: Response


Event: TypeAlias = (
    Created
    | ItemAdded
    | TextDelta
    | RefusalDelta
    | ReasoningDelta
    | RawReasoningDelta
    | ArgumentsDelta
    | ItemDone
    | Ended
)
