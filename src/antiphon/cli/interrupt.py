"""Interrupt: Ctrl-C stops the answer that is being read, or else the program."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from antiphon.turn.running_turns import RunningTurn

T = TypeVar("T")


class InterruptHandler:
    """SIGINT handler: Ctrl-C cancels the turn whose answer is being read, else the main task."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._main = asyncio.current_task()
        self._turn: RunningTurn | None = None

    @contextmanager
    def stop_on_interrupt(self, turn: RunningTurn) -> Iterator[None]:
        """Within this, Ctrl-C stops ``turn`` and nothing else."""
        self._turn = turn
        try:
            yield
        finally:
            self._turn = None

    def handle_signal(self, _signal: int, _frame: FrameType | None) -> None:
        """Handle SIGINT."""
        if self._turn is not None:
            self._loop.call_soon_threadsafe(self._turn.stop, None)
        elif self._main is not None:
            self._loop.call_soon_threadsafe(self._main.cancel)


def run_interruptible(work: Callable[[InterruptHandler], Coroutine[Any, Any, T]]) -> T:
    """``asyncio.run`` with its own SIGINT handler.

    Raises ``KeyboardInterrupt``, everything closed, when Ctrl-C ended ``work``.
    """

    async def main() -> T:
        interrupt = InterruptHandler()
        # Not the loop's own signal handlers: Windows has none.
        signal.signal(signal.SIGINT, interrupt.handle_signal)
        return await work(interrupt)

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
