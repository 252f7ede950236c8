"""Engine runner: opens the engine for one command, handles Ctrl-C, warms the default model."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from antiphon.cli import terminal_output
from antiphon.errors import AntiphonError
from antiphon.settings import Settings, load_settings
from antiphon.turn.running_turns import RunningTurn

if TYPE_CHECKING:
    from antiphon.bootstrap import Engine

T = TypeVar("T")
#: Options of a command line that are settings, by the setting's name; None: not given.
Flags: TypeAlias = Mapping[str, str | None]


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


def run_with_engine(flags: Flags, work: Callable[[Engine], Awaitable[T]]) -> T:
    """Open the engine on the store that ``flags`` name, await ``work``, close it.

    No provider's key is needed: no model is called.
    """
    return run_with_settings(load_settings(flags, resolve_keys=False), work)


def run_with_settings(settings: Settings, work: Callable[[Engine], Awaitable[T]]) -> T:
    """Open the engine with ``settings``, await ``work``, close it."""
    from antiphon.bootstrap import open_engine  # loaded on first use

    async def run(_: InterruptHandler) -> T:
        async with open_engine(settings) as engine:
            return await work(engine)

    return run_interruptible(run)


async def warm_default_model(engine: Engine) -> None:
    """Load the default model ahead of the first turn; a failure is printed, not raised."""
    if engine.settings.model is None:
        return
    try:
        await engine.warm()
    except AntiphonError as error:
        # Each turn that needs the model reports it too.
        terminal_output.print_error(error.message)
