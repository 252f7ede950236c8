"""Signals while the event loop has nothing to do: each one is heard."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading

from antiphon.cli.interrupt import InterruptHandler, run_interruptible

_ROUNDS = 1_500
#: How many steps come before the signal, at most: as long as the loop takes to fall asleep.
_MOST_STEPS = 3_000


def test_a_signal_wakes_the_loop_whenever_it_comes() -> None:
    """Many times, as it may be about to fall asleep. One that is lost is waited for."""
    main, is_wanted = threading.main_thread().ident, threading.Semaphore(0)
    assert main is not None

    def press() -> None:
        for number in range(_ROUNDS):
            is_wanted.acquire()
            for _ in range(number * 7919 % _MOST_STEPS):
                pass
            signal.pthread_kill(main, signal.SIGINT)

    async def work(interrupt: InterruptHandler) -> int:
        for _ in range(_ROUNDS):
            stopped = asyncio.Event()
            with interrupt.stop_on_interrupt(stopped.set):
                is_wanted.release()
                await stopped.wait()
        return _ROUNDS

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    pressing, interval = threading.Thread(target=press), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        pressing.start()
        assert run_interruptible(work) == _ROUNDS
        pressing.join()
    finally:
        sys.setswitchinterval(interval)
        for number, handler in handlers.items():
            signal.signal(number, handler)
