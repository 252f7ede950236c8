"""Identity cache: what was computed of the last objects, found by the objects themselves. Pure."""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class IdentityCache(Generic[K, V]):
    """Values of at most ``size`` immutable objects; the oldest goes first.

    It is for objects that are shared, such as the tools that a client sends with each request: to
    compare equal ones would cost as much as to compute again.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        #: The objects are held, so that no other one gets the id of one.
        self._entries: dict[int, tuple[K, V]] = {}

    def get(self, key: K) -> V | None:
        """The value of an object; None: it is not known."""
        found = self._entries.get(id(key))
        return None if found is None else found[1]

    def put(self, key: K, value: V) -> V:
        """Remember the value of an object, and return it."""
        if len(self._entries) >= self._size:
            del self._entries[next(iter(self._entries))]
        self._entries[id(key)] = key, value
        return value
