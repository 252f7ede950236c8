"""Ctrl-C: it stops the answer that is coming, or else the program."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from antiphon.turn.running_turns import RunningTurn

T = TypeVar("T")


class Interrupt:
    """Directs Ctrl-C to the turn that is being read, else to the main task."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._main = asyncio.current_task()
        self._live: RunningTurn | None = None

    @contextmanager
    def stops(self, live: RunningTurn) -> Iterator[None]:
        """Within this, Ctrl-C stops ``live`` and nothing else."""
        self._live = live
        try:
            yield
        finally:
            self._live = None

    def arrived(self, _signal: int, _frame: FrameType | None) -> None:
        """The signal handler."""
        if self._live is not None:
            self._loop.call_soon_threadsafe(self._live.stop, None)
        elif self._main is not None:
            self._loop.call_soon_threadsafe(self._main.cancel)


def run(work: Callable[[Interrupt], Coroutine[Any, Any, T]]) -> T:
    """``asyncio.run``, with Ctrl-C in the program's own hands.

    Raises ``KeyboardInterrupt``, everything closed, when Ctrl-C ended ``work``.
    """

    async def main() -> T:
        interrupt = Interrupt()
        # Not the loop's own signal handlers: Windows has none.
        signal.signal(signal.SIGINT, interrupt.arrived)
        return await work(interrupt)

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
