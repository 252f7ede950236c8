"""Running turns: who reads along, what they have missed, and how a turn is stopped.

A turn is a task of its own and outlives whoever asked for it. Its events lie in one
log that every reader walks at its own pace, so a slow reader costs the turn nothing
and a late one misses nothing; the log is as long as the turn and goes with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, Protocol

from antiphon.core.events import Event
from antiphon.core.turns import Response
from antiphon.errors import AntiphonError, Interrupted


class LiveTurn:
    """One running turn: a log of events, and its end.

    ``stored`` turns hold back their events until the request is on disk
    (``release``), so that the first event is a promise. ``error`` is what made the
    turn fail, None for a turn that is running or ended otherwise. ``streamed``: its
    model was asked to answer word by word.
    """

    def __init__(self, opening: Response, *, streamed: bool = False) -> None:
        self.opening = opening
        self.response_id = opening.id
        self.stored = opening.store
        self.streamed = streamed
        self.error: AntiphonError | None = None
        #: Why the turn was told to stop, for the runner to read when it is cancelled.
        self.stopped_by: AntiphonError | None = None
        self._log: list[Event] = []
        self._released = not opening.store
        self._loop = asyncio.get_running_loop()
        #: Readers who wait for more, and those who wait for the end.
        self._waiting: list[asyncio.Future[None]] = []
        self._patient: list[asyncio.Future[None]] = []
        self._over = False
        self._response: Response | None = None
        #: On the loop's clock: when it began, and when the first of its answer came.
        self.began_at = self._loop.time()
        self.spoke_at: float | None = None
        #: What runs the turn.
        self.task: asyncio.Task[None] | None = None
        self._running = False
        #: Whether the turn was told to stop.
        self.stopping = False
        #: Whether the turn's end could not be kept: the store takes it for running.
        self.unkept = False
        #: Whether the store did not take it: it is as if it had never begun.
        self.refused = False

    # What readers use.

    async def events(
        self, rest: Callable[[], float] | None = None
    ) -> AsyncIterator[Sequence[Event]]:
        """The turn's events from its first, in batches of what came together.

        ``rest`` is for a reader to whom each batch is dear: before one, so many seconds are
        waited for more to come together, but never beyond the turn's end.

        Raises the turn's error only if nothing of the turn was kept; otherwise a
        failed turn ends in ``Ended`` like every other.
        """
        seen = 0
        while True:
            if self._released and seen < len(self._log):
                if rest is not None and (seconds := rest()) > 0:
                    await self._ended(within=seconds)
                batch = self._log[seen:]
                seen += len(batch)
                yield batch
            elif self._over:
                self._end()
                return
            else:
                # A future of its own: a reader that is cancelled takes nothing else with it.
                waiter: asyncio.Future[None] = self._loop.create_future()
                self._waiting.append(waiter)
                await waiter

    async def result(self) -> Response:
        """The turn's end, failed or not (see ``error``). Raises only what kept nothing."""
        await self._ended()
        return self._end()

    def done(self) -> bool:
        return self._over

    async def kept(self) -> None:
        """Wait until what was asked is on disk. Raises what kept it from getting there."""
        async for _ in self.events():
            return

    async def cancel(self) -> Response:
        """Stop the turn and keep what arrived. A turn that is over stays as it is."""
        self.stop(None)
        return await self.result()

    async def leave(self) -> None:
        """The reader who asked for this turn is gone: an unstored turn has no other."""
        if not self.stored:
            await self.cancel()

    # What the runner uses.

    def emit(self, events: Sequence[Event]) -> None:
        if events:
            if self.spoke_at is None and self._log:
                self.spoke_at = self._loop.time()
            self._log.extend(events)
            if self._released and self._waiting:
                self._waiting = _wake(self._waiting)

    def release(self, kept: asyncio.Future[None]) -> None:
        """The request is on disk, or could not be put there."""
        if kept.cancelled():
            return
        error = kept.exception()
        if error is None:
            self._released = True
            self._waiting = _wake(self._waiting)
        elif isinstance(error, AntiphonError):
            self.stop(error)

    def finish(self, response: Response, last: Event, error: AntiphonError | None) -> None:
        self.error = error
        self._log.append(last)
        self._response = response
        self._close()

    def fail(self, error: AntiphonError) -> None:
        """End without a response: nothing of the turn could be kept."""
        self.error = error
        self._close()

    @property
    def is_continuation(self) -> bool:
        return self.opening.previous_response_id is not None

    @property
    def response(self) -> Response | None:
        """The turn's end; None while it runs, and if nothing of it could be kept."""
        return self._response

    @property
    def told(self) -> Sequence[Event]:
        """All events so far."""
        return self._log

    def running(self) -> None:
        """The work has begun, and can be cancelled without being lost."""
        self._running = True

    def ending(self) -> None:
        """The work is over but for keeping its end: too late to cancel it."""
        self._running = False

    def stop(self, error: AntiphonError | None) -> None:
        """Stop the work once; ``error`` says why, None: because someone asked.

        Work that has not begun sees ``stopping`` when it does: a task cancelled
        before its first step would never get to end the turn.
        """
        if not self.stopping and not self._over:
            self.stopping = True
            self.stopped_by = error
            if self.task is not None and self._running:
                self.task.cancel()

    async def _ended(self, within: float | None = None) -> None:
        """Wait for the end, but no longer than ``within`` seconds."""
        if self._over:
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._patient.append(waiter)
        if within is None:
            await waiter
            return
        timer = self._loop.call_later(within, _wake, [waiter])
        try:
            await waiter
        finally:
            timer.cancel()
            if waiter in self._patient:
                self._patient.remove(waiter)

    def _end(self) -> Response:
        if self._response is None:
            assert self.error is not None
            raise self.error
        return self._response

    def _close(self) -> None:
        self._over = True
        self._waiting = _wake(self._waiting)
        self._patient = _wake(self._patient)


def _wake(waiting: list[asyncio.Future[None]]) -> list[asyncio.Future[None]]:
    for waiter in waiting:
        if not waiter.done():
            waiter.set_result(None)
    return []


class Watch(Protocol):
    """Is told of turns: of each as it begins, where it was asked for, and when it is over."""

    def began(self, turn: LiveTurn) -> None: ...

    def over(self, turn: LiveTurn) -> None: ...


class Live:
    """All turns that run in this process, by response id.

    ``unkept`` are the ids of turns that are over, but the store could not be told.
    """

    def __init__(self) -> None:
        self.unkept: set[str] = set()
        self.watches: list[Watch] = []
        self._turns: dict[str, LiveTurn] = {}

    def start(self, turn: LiveTurn, work: Coroutine[Any, Any, None]) -> None:
        self._turns[turn.response_id] = turn
        for watch in self.watches:
            watch.began(turn)
        turn.task = asyncio.get_running_loop().create_task(self._until_over(turn, work))
        turn.task.add_done_callback(lambda _: self._settle(turn, work))

    async def _until_over(self, turn: LiveTurn, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        finally:
            del self._turns[turn.response_id]
            if turn.unkept:
                self.unkept.add(turn.response_id)
            for watch in self.watches:
                watch.over(turn)

    def _settle(self, turn: LiveTurn, work: Coroutine[Any, Any, None]) -> None:
        # A loop that ends cancels even what has not begun, which cannot end itself.
        work.close()
        if not turn.done():
            self._turns.pop(turn.response_id, None)
            turn.fail(Interrupted("The program ended before the turn did."))

    def get(self, response_id: str) -> LiveTurn | None:
        return self._turns.get(response_id)

    def all(self) -> list[LiveTurn]:
        return list(self._turns.values())

    def interrupt(self) -> None:
        """Stop every turn as interrupted."""
        for turn in self.all():
            turn.stop(Interrupted("The server was stopped before the turn was over."))

    async def close(self) -> None:
        """Stop every turn as interrupted and wait until each is kept as that."""
        self.interrupt()
        tasks = [turn.task for turn in self._turns.values() if turn.task is not None]
        if tasks:
            await asyncio.wait(tasks)
