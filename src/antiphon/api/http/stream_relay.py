"""Stream relay: writes a turn's events at once, from the task that makes them.

Otherwise each piece of a stream costs a change to the task of its request, and an iteration of
the event loop. Where a client is slow, or anything else is in the way, that task goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.types import Scope

from antiphon.api.http.asgi_responses import WRITER, ChunkWriter, KeepAlive, escape_line_separators
from antiphon.core.events import Event


class StreamRelay:
    """The relay of one request, to be given to ``RunningTurn.events``; closed at first.

    ``encode`` makes the bytes of events.
    """

    def __init__(self, scope: Scope, encode: Callable[[Sequence[Event]], bytes]) -> None:
        self._writer: ChunkWriter | None = scope.get(WRITER)
        self._encode = encode
        self._keep_alive: KeepAlive | None = None

    def open(self, keep_alive: KeepAlive) -> None:
        """The stream has begun: from now on its events need nothing but to be encoded."""
        self._keep_alive = keep_alive

    def __call__(self, events: Sequence[Event]) -> bool:
        """Write events. False: they are for the reader, and nothing was written."""
        if self._keep_alive is None or self._writer is None or not self._writer.is_writable:
            return False
        try:
            body = self._encode(events)
        except Exception:  # noqa: BLE001  it is the reader's, which meets it again
            return False
        if body:
            self._keep_alive.note_written()
            self._writer.write_chunk(body if body.isascii() else escape_line_separators(body))
        return True
