"""Running tool code: on the event loop, and in threads."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from antiphon.tools.execution import CapturedError, capture_exceptions, is_async, run_in_thread

FAILURES = [
    ValueError("no"),
    SystemExit(3),
    StopIteration(1),
    asyncio.CancelledError(),
    TimeoutError(),
]


@pytest.mark.parametrize("error", [*FAILURES, KeyboardInterrupt()], ids=repr)
def test_exception_in_a_thread_is_captured(error: BaseException) -> None:
    def work() -> None:
        raise error

    with pytest.raises(CapturedError) as raised:
        asyncio.run(run_in_thread(work, "test"))
    assert raised.value.error is error


@pytest.mark.parametrize(
    "error", [one for one in FAILURES if not isinstance(one, StopIteration)], ids=repr
)
def test_exception_in_a_coroutine_is_captured(error: BaseException) -> None:
    async def work() -> None:
        raise error

    with pytest.raises(CapturedError) as raised:
        asyncio.run(capture_exceptions(work()))
    assert raised.value.error is error


def test_keyboard_interrupt_of_a_loop_in_a_thread_is_captured() -> None:
    """Ctrl-C comes to the main thread only, so this is the code's own: no reason to end a loop."""

    async def work() -> None:
        raise KeyboardInterrupt

    with ThreadPoolExecutor(1) as thread, pytest.raises(CapturedError) as raised:
        thread.submit(asyncio.run, capture_exceptions(work())).result()
    assert isinstance(raised.value.error, KeyboardInterrupt)


def test_keyboard_interrupt_is_not_captured() -> None:
    async def work() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(capture_exceptions(work()))


@pytest.mark.parametrize("raised", [None, ValueError("late")], ids=repr)
async def test_swallowed_cancellation_is_raised(raised: Exception | None) -> None:
    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if raised is not None:
                raise raised from None
        return "late"

    task = asyncio.create_task(capture_exceptions(stubborn()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_thread_is_a_daemon_with_the_callers_context() -> None:
    who = contextvars.ContextVar("who", default="nobody")

    def work() -> tuple[str, str, bool]:
        seen = who.get()
        who.set("thread")
        return seen, threading.current_thread().name, threading.current_thread().daemon

    who.set("alice")
    assert await run_in_thread(work, "a-name") == ("alice", "a-name", True)
    assert who.get() == "alice"


def join(name: str) -> None:
    for thread in threading.enumerate():
        if thread.name == name:
            thread.join()


@pytest.mark.parametrize("when", ["before", "after"])
def test_coroutine_returned_by_a_cancelled_thread_is_closed(when: str) -> None:
    async def never_awaited() -> None: ...

    started, release = threading.Event(), threading.Event()
    coroutine = never_awaited()

    def work() -> Any:
        started.set()
        release.wait()
        return coroutine

    async def main() -> None:
        task = asyncio.create_task(run_in_thread(work, "left-alone"))
        await asyncio.to_thread(started.wait)
        if when == "before":
            task.cancel()
            await asyncio.wait([task])
        assert not release.is_set()
        release.set()
        # Blocks the loop, so that the thread ends before the task is resumed.
        join("left-alone")
        asyncio.get_running_loop().call_soon(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)

    asyncio.run(main())
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


def test_thread_result_after_the_loop_is_closed_is_dropped() -> None:
    async def never_awaited() -> None: ...

    started, release = threading.Event(), threading.Event()
    coroutine = never_awaited()

    def work() -> Any:
        started.set()
        release.wait()
        return coroutine

    async def main() -> None:
        task = asyncio.create_task(run_in_thread(work, "too-late"))
        await asyncio.to_thread(started.wait)
        task.cancel()

    asyncio.run(main())
    release.set()
    join("too-late")
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


def test_hanging_thread_does_not_keep_the_program_alive() -> None:
    code = """
import asyncio, threading
from antiphon.tools.execution import run_in_thread
async def main():
    started = threading.Event()
    work = lambda: (started.set(), threading.Event().wait())
    task = asyncio.create_task(run_in_thread(work, "x"))
    await asyncio.to_thread(started.wait)
    task.cancel()
asyncio.run(main())
print("over")
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("over\n", "", 0)


def test_is_async() -> None:
    async def work(x: int = 0) -> None: ...

    class Callable:
        async def __call__(self) -> None: ...

    class Owner:
        async def method(self) -> None: ...

    assert is_async(work)
    assert is_async(partial(work, 1))
    assert is_async(Callable())
    assert is_async(Owner().method)
    assert not is_async(lambda: work(1))
    assert not is_async(print)
