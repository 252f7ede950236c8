"""Piece cache: what a dialect makes of the pieces of a context, made once for each. Pure.

A context is the same pieces as before and a few new ones (``ModelCall.pieces``), so a call looks
up what was made of them, by their bytes, whose hash Python remembers.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Final, Generic, TypeVar

_Form = TypeVar("_Form")
_Key = TypeVar("_Key", bound=Hashable)

#: Bytes of memory that the forms and their pieces may take.
CAPACITY: Final = 16 * 1024 * 1024
#: What objects take besides their bytes.
_ENTRY_BYTES = 400


class PieceCache(Generic[_Key, _Form]):
    """Remembers forms of pieces, in two generations: what is not looked up for one is forgotten.

    ``make`` makes the form of a piece for a key, which is all else that the form depends on;
    ``size_of`` is about how many bytes it holds. Forms are not None and not empty.
    """

    def __init__(
        self,
        make: Callable[[bytes, _Key], _Form],
        size_of: Callable[[_Form], int],
        capacity: int = CAPACITY,
    ) -> None:
        self._make = make
        self._size_of = size_of
        self._capacity = capacity
        self._young: dict[_Key, dict[bytes, _Form]] = {}
        self._old: dict[_Key, dict[bytes, _Form]] = {}
        self._young_size = 0

    def get(self, piece: bytes, key: _Key) -> _Form:
        """The form of one piece."""
        return self._young.get(key, {}).get(piece) or self._load(piece, key)

    def get_all(self, pieces: Sequence[bytes], key: _Key) -> list[_Form]:
        """The forms of pieces, in their order."""
        look_up = self._young.get(key, {}).get
        return [look_up(piece) or self._load(piece, key) for piece in pieces]

    def _load(self, piece: bytes, key: _Key) -> _Form:
        form = self._old.get(key, {}).get(piece)
        if form is None:
            form = self._make(piece, key)
        self._young.setdefault(key, {})[piece] = form
        self._young_size += len(piece) + self._size_of(form) + _ENTRY_BYTES
        if self._young_size > self._capacity // 2:
            self._old, self._young, self._young_size = self._young, {}, 0
        return form
