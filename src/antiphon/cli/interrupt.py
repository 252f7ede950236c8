"""Interrupt: Ctrl-C stops what runs: an answer or a command, or else the program.

SIGTERM, and SIGHUP, which a terminal sends that is closed, end the program once all is closed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")
#: A shell has this and a signal's number for a program that the signal has ended.
_SIGNAL_EXIT_CODE = 128


class InterruptHandler:
    """SIGINT handler: Ctrl-C stops what was named last, else cancels the main task."""

    def __init__(self, ended_by: list[int]) -> None:
        #: Gets the signal that ends the program.
        self._ended_by = ended_by
        self._loop = asyncio.get_running_loop()
        main = asyncio.current_task()
        self._stop: Callable[[], object] | None = main.cancel if main is not None else None
        self._end = self._stop

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

    def handle_end_signal(self, number: int, _frame: FrameType | None) -> None:
        """Handle SIGTERM or SIGHUP. A second one ends the process at once."""
        self._ended_by.append(number)
        signal.signal(number, signal.SIG_DFL)
        if self._end is not None:
            self._loop.call_soon_threadsafe(self._end)


def run_interruptible(
    work: Callable[[InterruptHandler], Coroutine[Any, Any, T]],
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> T:
    """``asyncio.run`` with its own signal handlers.

    Raises, everything closed, ``KeyboardInterrupt`` when Ctrl-C ended ``work``, and ``SystemExit``
    with the code that a shell has for it when SIGTERM or SIGHUP did.
    """
    ended_by: list[int] = []

    async def main() -> T:
        interrupt = InterruptHandler(ended_by)
        # Not the loop's own signal handlers: Windows has none.
        signal.signal(signal.SIGINT, interrupt.handle_signal)
        for number in before:
            signal.signal(number, interrupt.handle_end_signal)
        with _woken_by_signals(asyncio.get_running_loop()):
            return await work(interrupt)

    before = _end_signals()
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(main())
    except BaseException as error:
        if ended_by:
            # Whatever else went wrong, as writing to a terminal that is gone.
            drop_unwritten_output()
            raise SystemExit(_SIGNAL_EXIT_CODE + ended_by[0]) from None
        if isinstance(error, asyncio.CancelledError):
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _woken_by_signals(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Within this a signal wakes the loop, also one that comes just before it falls asleep.

    Its handler runs only once Python code does, which else could be seconds later.
    """
    if sys.platform == "win32":  # its loop does so itself
        yield
        return
    reading, writing = socket.socketpair()
    with reading, writing:
        reading.setblocking(False)
        writing.setblocking(False)
        loop.add_reader(reading, reading.recv, 4096)
        before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            loop.remove_reader(reading)


def drop_unwritten_output() -> None:
    """Have what a terminal that is gone, or a full disk, did not take not be written again."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end_signals() -> dict[int, Any]:
    """The signals that end the program, with what handles them now; none that is ignored."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    handlers = {number: signal.getsignal(number) for number in numbers}
    return {number: one for number, one in handlers.items() if one != signal.SIG_IGN}
