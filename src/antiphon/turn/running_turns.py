"""Running turns: the event log of each, its subscribers and observers, and its cancellation.

A turn is a task of its own and outlives whoever asked for it. Its events lie in one
log that every reader walks at its own pace, so a slow reader costs the turn nothing
and a late one misses nothing; the log is as long as the turn and goes with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Protocol, TypeAlias

from antiphon.core.events import Created, Event
from antiphon.core.replay_trace import RhythmRecorder
from antiphon.core.turns import Response, TurnRequest
from antiphon.errors import (
    AntiphonError,
    ServerBusyError,
    TurnInterruptedError,
    TurnTakenOverError,
)

#: Takes events at once, in the task of the turn; False: it cannot, and has taken nothing.
Relay: TypeAlias = Callable[[Sequence[Event]], bool]
#: Gets a turn as it begins.
OnStart: TypeAlias = Callable[["RunningTurn"], None]


class _RelayingReader:
    """A reader that waits for more: ``take`` gets it, and is no more asked once it has refused."""

    __slots__ = ("count", "take", "waiter")

    def __init__(self, take: Relay, waiter: asyncio.Future[None]) -> None:
        self.take = take
        self.waiter = waiter
        #: How many events were taken.
        self.count = 0

    def pass_on(self, events: Sequence[Event]) -> bool:
        """Whether the reader still waits."""
        if self.waiter.done():
            return False
        if self.take(events):
            self.count += len(events)
            return True
        self.waiter.set_result(None)
        return False


class RunningTurn:
    """One running turn: a log of events, and its end.

    Stored turns hold back their events until the request is on disk
    (``on_request_stored``), so that the first event is a promise. ``error`` is what made the
    turn fail, None for a turn that is running or ended otherwise. ``is_streamed``: the
    model was called with streaming.
    """

    error: AntiphonError | None = None
    #: Why the turn was told to stop, for the runner to read when it is cancelled.
    stop_error: AntiphonError | None = None
    #: On the loop's clock, when the first of its answer came in a stream.
    first_token_at: float | None = None
    #: What runs the turn.
    task: asyncio.Task[None] | None = None
    #: Whether the turn was told to stop.
    is_stopping = False
    #: Whether the turn's end could not be kept: the store takes it for running.
    end_not_persisted = False
    #: Whether the store did not take it: it is as if it had never begun.
    is_rejected = False
    _is_cancellable = False
    #: How many events there were while it waited for the turn before it: a replay has none.
    _waiting_count = 0

    def __init__(
        self,
        initial_response: Response,
        *,
        is_streamed: bool = False,
        request: TurnRequest | None = None,
        is_queued: bool = False,
    ) -> None:
        #: With the head of its conversation, so that a retry of it can be found.
        self.request = request
        self.initial_response = initial_response
        self.response_id = initial_response.id
        self.is_stored = initial_response.store
        self.is_streamed = is_streamed
        self._events: list[Event] = []
        self._is_published = not initial_response.store
        self._loop = asyncio.get_running_loop()
        #: Readers who wait for more, and those who wait for the end.
        self._event_waiters: list[asyncio.Future[None]] = []
        self._relaying_readers: list[_RelayingReader] = []
        self._end_waiters: list[asyncio.Future[None]] = []
        self._is_done = False
        self._response: Response | None = None
        #: On the loop's clock: when it began.
        self.started_at = self._loop.time()
        #: When events come, of a stream that can be replayed.
        self._rhythm = RhythmRecorder(self.started_at) if is_streamed and self.is_stored else None
        #: Whether it is stored and waits for the turn before it.
        self.is_queued = is_queued

    # What readers use.

    async def events(
        self, pause: Callable[[], float] | None = None, relay: Relay | None = None
    ) -> AsyncIterator[Sequence[Event]]:
        """The turn's events from its first, in batches of what came together.

        ``pause`` is for a reader to whom each batch is dear: before one, so many seconds are
        waited for more to come together, but never beyond the turn's end. ``relay`` is offered
        each batch first that comes while the reader waits: what it takes is not given here.

        Raises the turn's error only if nothing of the turn was kept; otherwise a
        failed turn ends in ``Ended`` like every other.
        """
        seen = 0
        while True:
            if self._is_published and seen < len(self._events):
                if pause is not None and (seconds := pause()) > 0:
                    await self.wait_for_end(time_limit=seconds)
                batch = self._events[seen:]
                seen += len(batch)
                yield batch
            elif self._is_done:
                self._result()
                return
            else:
                # A future of its own: a reader that is cancelled takes nothing else with it.
                waiter: asyncio.Future[None] = self._loop.create_future()
                if relay is None:
                    self._event_waiters.append(waiter)
                    await waiter
                    continue
                reader = _RelayingReader(relay, waiter)
                self._relaying_readers.append(reader)
                await waiter
                seen += reader.count

    async def result(self) -> Response:
        """The turn's end, failed or not (see ``error``). Raises only what kept nothing."""
        await self.wait_for_end()
        return self._result()

    def done(self) -> bool:
        return self._is_done

    async def wait_until_stored(self) -> None:
        """Wait until what was asked is on disk. Raises what kept it from getting there."""
        while not self._is_published:
            if self._is_done:
                self._result()
                return
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._event_waiters.append(waiter)
            await waiter

    async def cancel(self) -> Response:
        """Stop the turn and keep what arrived. A turn that is over stays as it is."""
        self.stop(None)
        return await self.result()

    async def detach(self) -> None:
        """The reader who asked for this turn is gone: an unstored turn has no other."""
        if not self.is_stored:
            await self.cancel()

    # What the runner uses.

    def emit(self, events: Sequence[Event]) -> None:
        if not events:
            return
        if self.is_streamed:
            self._note_time(events[0])
        self._events += events
        if not self._is_published:
            return
        if self._relaying_readers:
            readers = self._relaying_readers
            self._relaying_readers = [one for one in readers if one.pass_on(events)]
        if self._event_waiters:
            self._event_waiters = _wake(self._event_waiters)

    def _note_time(self, first: Event) -> None:
        """Events come now of which this is the first."""
        now = self._loop.time()
        if self.first_token_at is None and self._events and type(first) is not Created:
            self.first_token_at = now
        if self._rhythm is not None:
            self._rhythm.note(now, len(self._events) - self._waiting_count)

    def on_request_stored(self, write: asyncio.Future[None]) -> None:
        """The request is on disk, or could not be put there."""
        if write.cancelled():
            return
        error = write.exception()
        if error is None:
            self._is_published = True
            self._wake_readers()
        elif isinstance(error, AntiphonError):
            self.stop(error)

    def finish(self, response: Response, last: Event, error: AntiphonError | None) -> None:
        # Its end is on disk, and so is its beginning: that one's callback may be about to run.
        self._is_published = True
        self.error = error
        self._events.append(last)
        self._response = response
        self._close()

    def fail(self, error: AntiphonError) -> None:
        """End without a response: nothing of the turn could be kept."""
        self.error = error
        self._close()

    @property
    def is_published(self) -> bool:
        """Whether its readers get its events: of a stored turn once it is on disk."""
        return self._is_published

    @property
    def can_restart(self) -> bool:
        """Whether another process can go on with it."""
        return self.is_stored and self.initial_response.header.restart is not None

    @property
    def is_continuation(self) -> bool:
        return self.initial_response.previous_response_id is not None

    @property
    def response(self) -> Response | None:
        """The turn's end; None while it runs, and if nothing of it could be kept."""
        return self._response

    @property
    def events_so_far(self) -> Sequence[Event]:
        """All events so far."""
        return self._events

    def mark_begun(self) -> None:
        """It waits for no other turn any more: what comes now is timed, and counted, from here."""
        self.is_queued = False
        self.started_at = self._loop.time()
        if self._rhythm is not None:
            self._rhythm = RhythmRecorder(self.started_at)
        self._waiting_count = len(self._events)

    @property
    def rhythm(self) -> tuple[int, ...]:
        """When its events came, where it is streamed and stored."""
        return () if self._rhythm is None else self._rhythm.rhythm

    def mark_running(self) -> None:
        """The work has begun, and can be cancelled without being lost."""
        self._is_cancellable = True

    def mark_ending(self) -> None:
        """The work is over but for keeping its end: too late to cancel it."""
        self._is_cancellable = False

    def stop(self, error: AntiphonError | None) -> None:
        """Stop the work once; ``error`` says why, None: because someone asked.

        Work that has not begun sees ``stopping`` when it does: a task cancelled
        before its first step would never get to end the turn.
        """
        if not self.is_stopping and not self._is_done:
            self.is_stopping = True
            self.stop_error = error
            if self.task is not None and self._is_cancellable:
                self.task.cancel()

    async def wait_for_end(self, time_limit: float | None = None) -> None:
        """Wait for the end, but no longer than ``time_limit`` seconds."""
        if self._is_done:
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._end_waiters.append(waiter)
        if time_limit is None:
            await waiter
            return
        timer = self._loop.call_later(time_limit, _wake, [waiter])
        try:
            await waiter
        finally:
            timer.cancel()
            if waiter in self._end_waiters:
                self._end_waiters.remove(waiter)

    def _result(self) -> Response:
        if self._response is None:
            assert self.error is not None
            raise self.error
        return self._response

    def _wake_readers(self) -> None:
        self._event_waiters = _wake(self._event_waiters)
        _wake([one.waiter for one in self._relaying_readers])
        self._relaying_readers = []

    def _close(self) -> None:
        self._is_done = True
        self._wake_readers()
        self._end_waiters = _wake(self._end_waiters)


def _wake(waiters: list[asyncio.Future[None]]) -> list[asyncio.Future[None]]:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
    return []


class TurnObserver(Protocol):
    """Observer of turns: notified when each starts, in the task of its request, and when it
    ends. One that was queued starts in a task of its own, and one that never began goes unseen.
    """

    def turn_started(self, turn: RunningTurn) -> None: ...

    def turn_ended(self, turn: RunningTurn) -> None: ...


class TurnRegistry:
    """All turns that run in this process, by response id.

    ``ids_not_persisted`` are turns that are over, but whose end could not be stored.
    """

    def __init__(self) -> None:
        self.ids_not_persisted: set[str] = set()
        #: This process is about to end: what runs is finished, and what is queued does not begin.
        self.is_draining = False
        #: No turn begins any more: those that ran have been interrupted.
        self.is_closed = False
        self._observers: list[TurnObserver] = []
        self._turns: dict[str, RunningTurn] = {}

    def add_observer(self, observer: TurnObserver) -> None:
        """Notify an observer of every turn from now on."""
        self._observers.append(observer)

    def start(self, turn: RunningTurn, work: Coroutine[Any, Any, None]) -> None:
        """Run a turn in a task of its own."""
        self._add(turn)
        # A queued turn outlives its request by far: what holds for that does not hold for it.
        context = contextvars.Context() if turn.is_queued else None
        turn.task = asyncio.get_running_loop().create_task(
            self._run_until_end(turn, work), context=context
        )
        turn.task.add_done_callback(lambda _: self._fail_unfinished(turn, work))

    async def run(self, turn: RunningTurn, work: Coroutine[Any, Any, None]) -> None:
        """Run a turn in the task of the caller, to its end."""
        self._add(turn)
        turn.task = task = asyncio.current_task()
        assert task is not None
        cancellations = task.cancelling()
        await self._run_until_end(turn, work)
        # Whoever stopped the turn meant the turn, which is over.
        while task.cancelling() > cancellations:
            task.uncancel()

    def begin_queued(self, turn: RunningTurn) -> None:
        """Have a queued turn count as one that runs."""
        turn.mark_begun()
        for watch in self._observers:
            watch.turn_started(turn)

    def _add(self, turn: RunningTurn) -> None:
        self._turns[turn.response_id] = turn
        if not turn.is_queued:
            for watch in self._observers:
                watch.turn_started(turn)

    async def _run_until_end(self, turn: RunningTurn, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        finally:
            del self._turns[turn.response_id]
            if turn.end_not_persisted:
                self.ids_not_persisted.add(turn.response_id)
            if not turn.is_queued:
                for watch in self._observers:
                    watch.turn_ended(turn)

    def _fail_unfinished(self, turn: RunningTurn, work: Coroutine[Any, Any, None]) -> None:
        # A loop that ends cancels even what has not begun, which cannot end itself.
        work.close()
        if not turn.done():
            self._turns.pop(turn.response_id, None)
            turn.fail(TurnInterruptedError("The program ended before the turn did."))

    def get(self, response_id: str) -> RunningTurn | None:
        """A turn by its id, whatever its tenant: for callers that have checked that."""
        return self._turns.get(response_id)

    def all(self) -> list[RunningTurn]:
        return list(self._turns.values())

    def stop_lost(self) -> None:
        """Stop what is stored: other processes have ended it, or run it."""
        for turn in self.all():
            if turn.is_stored and turn.is_published:
                turn.stop(
                    TurnTakenOverError("Another server has taken over this turn, or ended it.")
                )

    def check_open(self) -> None:
        """Raise ``ServerBusyError`` where no turn may begin any more.

        What waited until then, such as for a conversation, was never begun, and can be sent again.
        """
        if self.is_closed:
            raise ServerBusyError(
                "This process is about to end, and did not begin the turn: send it again.",
                code="draining",
            )

    def interrupt(self, what_ends: str = "program", *, hands_over: bool = False) -> list[str]:
        """Stop every turn, so that its readers get its end before this process goes; begin no more.

        ``what_ends``: what a reader knows this process as, such as "server".
        ``hands_over``: those that can be run again get no end, as another process goes on with
        them once they have stopped here: their ids.
        """
        self.is_closed = True
        handed_over = []
        for turn in self.all():
            if hands_over and turn.can_restart:
                turn.stop(TurnTakenOverError("The server is stopping: another one runs this turn."))
                handed_over.append(turn.response_id)
            else:
                turn.stop(
                    TurnInterruptedError(f"The {what_ends} was stopped before the turn was over.")
                )
        return handed_over

    async def wait_all(self, *, begun_only: bool = False) -> None:
        """Wait until each turn that runs now has ended; ``begun_only``: but for queued ones."""
        tasks = [
            turn.task
            for turn in self._turns.values()
            if turn.task is not None and not (begun_only and turn.is_queued)
        ]
        if tasks:
            await asyncio.wait(tasks)


async def wait_uncancelled(write: asyncio.Future[Any]) -> None:
    """Wait for the disk to the end. Raises what the write raises.

    A loop that ends cancels all that runs in it, and then waits for it: whoever reads the turn
    would wait for its end for ever.
    """
    while not write.done():
        # It is cancelled in place of the write.
        waiter: asyncio.Future[None] = write.get_loop().create_future()
        write.add_done_callback(partial(_wake_one, waiter))
        with contextlib.suppress(asyncio.CancelledError):
            await waiter
    write.result()


def _wake_one(waiter: asyncio.Future[None], _: asyncio.Future[Any]) -> None:
    if not waiter.done():
        waiter.set_result(None)
