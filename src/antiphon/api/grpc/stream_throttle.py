"""How often a stream writes: a message costs a server as much as a dozen of a model's pieces.

The first words leave at once, and a stream that is alone hardly ever waits: no model writes that
fast. With many streams under way each waits a little between two messages, so that all of them
together leave the loop time for the models.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

#: Seconds between two messages of a stream, for each stream under way; and the most.
_EACH = 0.002
_MOST = 0.016


class Pace:
    """One server's streams."""

    def __init__(self) -> None:
        self._streams = 0

    @contextmanager
    def stream(self) -> Iterator[Rest]:
        """While entered, one more stream is under way."""
        self._streams += 1
        try:
            yield Rest(self)
        finally:
            self._streams -= 1

    def pause(self) -> float:
        """Seconds between two messages, as things are now."""
        return min(_MOST, _EACH * self._streams)


class Rest:
    """One stream's pauses."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._until = 0.0

    def begin(self) -> None:
        """A message was written."""
        self._until = time.monotonic() + self._pace.pause()

    def left(self) -> float:
        """Seconds until the next one is welcome; not above 0: it is."""
        return self._until - time.monotonic()
