"""Stream throttle: a minimum interval between two messages of a gRPC stream.

A message costs the server as much as a dozen pieces of a model's text. The first text is sent at
once, and a single stream hardly ever waits. With many streams each pauses between two messages,
so that all of them together leave the event loop time for the models.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Seconds between two messages of a stream, for each stream under way; and the most.
_INTERVAL_PER_STREAM = 0.002
_MAX_INTERVAL = 0.016


class StreamThrottle:
    """One server's streams. ``clock`` is in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._stream_count = 0

    @contextmanager
    def open_stream(self) -> Iterator[StreamPause]:
        """While entered, one more stream is under way."""
        self._stream_count += 1
        try:
            yield StreamPause(self)
        finally:
            self._stream_count -= 1

    def interval(self) -> float:
        """Seconds between two messages, as things are now."""
        return min(_MAX_INTERVAL, _INTERVAL_PER_STREAM * self._stream_count)


class StreamPause:
    """One stream's pauses."""

    def __init__(self, throttle: StreamThrottle) -> None:
        self._throttle = throttle
        self._until = 0.0

    def start(self) -> None:
        """A message was written."""
        self._until = self._throttle.clock() + self._throttle.interval()

    def remaining(self) -> float:
        """Seconds until the next one is welcome; not above 0: it is."""
        return self._until - self._throttle.clock()
