"""Tool execution: runs user code in a thread or as a coroutine, and captures whatever it raises."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from functools import partial
from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")


class CapturedError(Exception):
    """The code raised ``error``, which may be any ``BaseException``."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


async def capture_exceptions(work: Awaitable[T]) -> T:
    """Await code that may raise anything: all of it becomes ``CapturedError``.

    ``CancelledError`` comes out if, and only if, this task is being cancelled: code that
    swallows a cancellation does not hide it, code that raises one of its own does not
    feign it. Ctrl-C goes through: it is not the code's. It comes to the main thread only.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0

    def cancelled() -> bool:
        return task is not None and task.cancelling() > before

    try:
        value = await work
    except (GeneratorExit, CapturedError):
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and _is_main_thread():
            raise
        if cancelled():
            raise asyncio.CancelledError from error
        raise CapturedError(error) from error
    if cancelled():
        raise asyncio.CancelledError
    return value


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


class _Outcome(msgspec.Struct, Generic[T], frozen=True):
    """What came of a thread. As data: a future takes no ``StopIteration``."""

    value: T | None = None
    error: BaseException | None = None


async def run_in_thread(work: Callable[[], T], name: str) -> T:
    """Do blocking work on a daemon thread of its own; it sees our context variables.

    The loop's executor would not do: its threads are few, and the interpreter waits for
    them when it ends. What hangs must cost neither the next call nor the program's end.
    Cancelled, this leaves the thread alone and drops what comes of it.

    Raises ``CapturedError``, and ``RuntimeError`` where the system gives no more threads.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_Outcome[T]] = loop.create_future()
    context = copy_context()

    def run() -> None:
        outcome: _Outcome[T]
        try:
            outcome = _Outcome(context.run(work))
        except BaseException as error:  # noqa: BLE001 - it is told to the one who waits
            outcome = _Outcome(error=error)
        try:
            loop.call_soon_threadsafe(_resolve_future, done, outcome)
        except RuntimeError:
            # The loop is closed: nobody waits any more.
            _discard(outcome.value)

    threading.Thread(target=run, name=name, daemon=True).start()
    try:
        outcome = await done
    except asyncio.CancelledError:
        if done.done() and not done.cancelled():
            _discard(done.result().value)
        raise
    if outcome.error is not None:
        raise CapturedError(outcome.error) from outcome.error
    return outcome.value  # type: ignore[return-value]  # None only where T has it


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it does no more than make a coroutine."""
    while isinstance(function, partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(type(function), "__call__", None)  # noqa: B004 - the method, not whether it is there
    )


def _resolve_future(done: asyncio.Future[_Outcome[T]], outcome: _Outcome[T]) -> None:
    if done.done():
        _discard(outcome.value)
    else:
        done.set_result(outcome)


def _discard(value: Any) -> None:
    if inspect.iscoroutine(value):
        # Not awaited on purpose; unclosed it would warn.
        value.close()
