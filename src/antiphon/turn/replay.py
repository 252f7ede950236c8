"""Replay: streams the events of a stored turn again, as its first reader got them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import msgspec

from antiphon.core.events import Created, Event
from antiphon.core.replay_trace import replay_events
from antiphon.core.turns import Response
from antiphon.errors import AntiphonError

#: Seconds between two looks at a turn that another process runs.
_POLL_INTERVAL = 0.25


class Replay:
    """Reads like a ``RunningTurn``. ``reload`` reads the turn from the store again.

    A turn that another process runs is told when it has ended: its deltas are not shared
    before that.
    """

    #: A stored turn's failure is told by its last event.
    error: AntiphonError | None = None
    is_stored = True

    def __init__(self, response: Response, reload: Callable[[], Awaitable[Response]]) -> None:
        self.initial_response = msgspec.structs.replace(response, output=(), end=None)
        self.response_id = response.id
        self._response = response
        self._reload = reload

    async def events(self, *, relay: object = None) -> AsyncIterator[Sequence[Event]]:
        """The turn's events from its first. They come together: ``relay`` gets none of them."""
        running = self._response.end is None
        if running:
            yield [Created(self.initial_response)]
        events = list(replay_events(await self.result()))
        yield events[1:] if running else events

    async def result(self) -> Response:
        """The turn, once it has ended. Raises ``NotFoundError`` if it is erased meanwhile."""
        while self._response.end is None:
            await asyncio.sleep(_POLL_INTERVAL)
            self._response = await self._reload()
        return self._response

    async def detach(self) -> None:
        """Nothing depends on its readers."""
