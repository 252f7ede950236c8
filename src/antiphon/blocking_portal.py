"""Blocking portal: runs coroutines for blocking code, on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from functools import partial
from typing import Any, Generic, TypeVar, cast

from antiphon.threads import LastingThreadPool

T = TypeVar("T")

#: Seconds that what still runs gets to end when the interpreter does.
_CLOSE_TIMEOUT = 5.0
#: Seconds between two looks for a Ctrl-C while the main thread waits: one that comes just before
#: the thread falls asleep does not wake it.
_SIGNAL_SECONDS = 0.25

#: Threads for what the loop must not wait for: files, host names.
_HELPER_COUNT = 8

_EXITING_MESSAGE = "The interpreter is ending: no turn can begin any more."
_FORKED_MESSAGE = (
    "This process was forked from one in which conversations had begun, and cannot go on with"
    ' them: start processes by "spawn" or "forkserver", or fork before the first turn.'
)


class BlockingPortal:
    """Runs coroutines for threads that have no loop, or whose loop is not ours.

    Started on first use. ``on_exit`` runs in the loop when the interpreter ends.
    """

    def __init__(self, on_exit: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._on_exit = on_exit
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        #: Why nothing runs here any more, as a sentence; empty while all is well.
        self.closed_reason = ""
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._close_after_fork)

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Wait for what ``work`` does; Ctrl-C while waiting cancels it, and waits until it is over.

        ``work`` is called in the loop: Ctrl-C may come between any two steps here, and a
        coroutine that was made but not handed over would complain that it was never awaited.
        Raises ``RuntimeError`` when the interpreter is ending, and in a process that was
        forked after the first work (``closed_reason``).
        """
        if self.closed_reason:
            raise RuntimeError(self.closed_reason)
        loop = self._ensure_loop()
        outcome = _Outcome[T]()
        tasks: list[asyncio.Task[T]] = []

        def start() -> None:
            try:
                tasks.append(loop.create_task(work()))
            except Exception as error:  # noqa: BLE001  it belongs to who waits
                outcome.set(None, error)
                return
            tasks[0].add_done_callback(partial(_copy_outcome, outcome))

        def cancel() -> None:
            if tasks:
                tasks[0].cancel()
            else:
                # Ctrl-C came before the work was handed over.
                outcome.set(None, CancelledError())

        try:
            loop.call_soon_threadsafe(start)
            outcome.wait()
        except BaseException:
            if not outcome.is_set:
                loop.call_soon_threadsafe(cancel)
                outcome.wait()
            raise
        return outcome.get()

    def _ensure_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                loop.set_default_executor(LastingThreadPool(_HELPER_COUNT, "antiphon-helper"))
                # A daemon, so that a program ends when its own code does.
                threading.Thread(
                    target=_run_loop, args=(loop,), name="antiphon", daemon=True
                ).start()
                # Only now: Ctrl-C may come before any of these steps, and a loop that nothing runs
                # would be waited for without end.
                self._loop = loop
                atexit.register(self._close, loop)
            return self._loop

    def _close_after_fork(self) -> None:
        """Only the thread that forks goes on in the child: the loop stands still there."""
        self._lock = threading.Lock()
        if self._loop is not None:
            self.closed_reason = _FORKED_MESSAGE

    def _close(self, loop: asyncio.AbstractEventLoop) -> None:
        if self.closed_reason:
            return
        self.closed_reason = _EXITING_MESSAGE
        closing = asyncio.run_coroutine_threadsafe(self._on_exit(), loop)
        # What is not closed in time is safe all the same: it was written before it
        # was acknowledged.
        try:
            closing.result(_CLOSE_TIMEOUT)
        except TimeoutError:
            closing.cancel()


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop until it is stopped.

    What a callback raises to end a program comes out of the loop, which would then stand still
    with all others' work. Whoever waits for the task that raised it gets it as its outcome.
    """
    while True:
        try:
            loop.run_forever()
        except (KeyboardInterrupt, SystemExit):
            continue
        return


class _Outcome(Generic[T]):
    """What came of some work, set in the loop's thread for the thread that waits for it.

    Not a ``Future``, whose lock is taken by Python code: Ctrl-C between two steps of that would
    leave it taken, and the loop's thread waiting for it for ever.
    """

    def __init__(self) -> None:
        self._value: T | None = None
        self._error: BaseException | None = None
        self._is_over = threading.Lock()
        self._is_over.acquire()
        self.is_set = False

    def set(self, value: T | None, error: BaseException | None = None) -> None:
        """Once: the value, or the error instead of it."""
        self._value, self._error, self.is_set = value, error, True
        self._is_over.release()

    def wait(self) -> None:
        """Until it is set. Raises ``KeyboardInterrupt`` on Ctrl-C."""
        is_main = threading.current_thread() is threading.main_thread()
        while not self.is_set:
            self._is_over.acquire(timeout=_SIGNAL_SECONDS if is_main else -1)

    def get(self) -> T:
        """What was set. Raises the error that was."""
        if self._error is not None:
            raise self._error
        return cast("T", self._value)


def _copy_outcome(outcome: _Outcome[T], task: asyncio.Task[T]) -> None:
    """Give a task's outcome to the thread that waits for it."""
    if task.cancelled():
        outcome.set(None, CancelledError())
    elif (error := task.exception()) is not None:
        outcome.set(None, error)
    else:
        outcome.set(task.result())
