"""Interrupt: Ctrl-C stops what runs: an answer or a command, or else the program."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")


class InterruptHandler:
    """SIGINT handler: Ctrl-C stops what was named last, else cancels the main task."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        main = asyncio.current_task()
        self._stop: Callable[[], object] | None = main.cancel if main is not None else None

    @contextmanager
    def stop_on_interrupt(self, stop: Callable[[], object]) -> Iterator[None]:
        """Within this, Ctrl-C calls ``stop`` on the event loop and does nothing else."""
        before, self._stop = self._stop, stop
        try:
            yield
        finally:
            self._stop = before

    def handle_signal(self, _signal: int, _frame: FrameType | None) -> None:
        """Handle SIGINT."""
        if self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop)


def run_interruptible(
    work: Callable[[InterruptHandler], Coroutine[Any, Any, T]],
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> T:
    """``asyncio.run`` with its own SIGINT handler.

    Raises ``KeyboardInterrupt``, everything closed, when Ctrl-C ended ``work``.
    """

    async def main() -> T:
        interrupt = InterruptHandler()
        # Not the loop's own signal handlers: Windows has none.
        signal.signal(signal.SIGINT, interrupt.handle_signal)
        return await work(interrupt)

    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(main())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
