"""A way from blocking code into async code: one event loop on a thread of its own."""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

#: Seconds that what still runs gets to end when the interpreter does.
_PATIENCE = 5.0


class Portal:
    """Runs coroutines for threads that have no loop, or whose loop is not ours.

    Started on first use. ``on_exit`` runs in the loop when the interpreter ends.
    """

    def __init__(self, on_exit: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._on_exit = on_exit
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for ``work``; Ctrl-C while waiting cancels it."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._running())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                # A daemon, so that a program ends when its own code does.
                threading.Thread(
                    target=self._loop.run_forever, name="antiphon", daemon=True
                ).start()
                atexit.register(self._close, self._loop)
            return self._loop

    def _close(self, loop: asyncio.AbstractEventLoop) -> None:
        closing = asyncio.run_coroutine_threadsafe(self._on_exit(), loop)
        # What is not closed in time is safe all the same: it was written before it
        # was acknowledged.
        try:
            closing.result(_PATIENCE)
        except TimeoutError:
            closing.cancel()
