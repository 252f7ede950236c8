"""An event loop whose clock a test moves: what waits for a time runs when the test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class ManualTimeLoop(asyncio.SelectorEventLoop):
    """``time`` moves only by ``advance``. Not for sockets or threads, which nobody waits for."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__()

    def time(self) -> float:
        return self.now

    async def advance(self, seconds: float) -> None:
        """Run what is ready, move the clock, and run what is ready then."""
        for wait in (0.0, seconds):
            self.now += wait
            for _ in range(50):
                await asyncio.sleep(0)


def run_with_manual_time(work: Callable[[ManualTimeLoop], Coroutine[Any, Any, T]]) -> T:
    with asyncio.Runner(loop_factory=ManualTimeLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, ManualTimeLoop)
        return runner.run(work(loop))
