"""Replay: streams the events of a stored turn again, as its first reader got them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import msgspec

from antiphon.core.events import Created, Event
from antiphon.core.replay_trace import replay_events
from antiphon.core.turns import Response
from antiphon.errors import AntiphonError


class Replay:
    """Reads like a ``RunningTurn``. ``reload`` reads the turn from the store again.

    A turn that another process runs is shown once it has ended, for which ``wait`` waits; it may
    return before that. What reads it while it runs asks its node (``api/http/node_relay.py``).
    """

    #: A stored turn's failure is in its last event.
    error: AntiphonError | None = None
    is_stored = True

    def __init__(
        self,
        response: Response,
        reload: Callable[[], Awaitable[Response]],
        wait: Callable[[], Awaitable[None]],
    ) -> None:
        self.initial_response = msgspec.structs.replace(response, output=(), end=None)
        self.response_id = response.id
        self._response = response
        self._reload = reload
        self._wait = wait

    @property
    def is_running(self) -> bool:
        """Whether another process runs it, as far as is known here."""
        return self._response.end is None

    @property
    def response(self) -> Response:
        """The turn as it was read last."""
        return self._response

    async def events(self, *, relay: object = None) -> AsyncIterator[Sequence[Event]]:
        """The turn's events from its first. They come together: ``relay`` gets none of them."""
        running = self.is_running
        if running:
            yield [Created(self.initial_response)]
        events = list(replay_events(await self.result()))
        yield events[1:] if running else events

    async def result(self) -> Response:
        """The turn, once it has ended. Raises ``NotFoundError`` if it is erased meanwhile."""
        while self._response.end is None:
            await self._wait()
            self._response = await self._reload()
        return self._response

    async def detach(self) -> None:
        """Nothing depends on its readers."""
