"""The portal: async work for code that is not, from any thread, to its very end."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from antiphon.blocking_portal import BlockingPortal


async def nothing() -> None:
    """What a portal does at exit, if there is nothing to do."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C is a KeyboardInterrupt, whatever the tests were started by."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def press_ctrl_c() -> None:
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGINT)


def test_work_is_done_on_one_loop_of_its_own() -> None:
    async def where() -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
        return asyncio.get_running_loop(), threading.current_thread()

    portal = BlockingPortal(nothing)
    loop, thread = portal.run(where)
    assert thread is not threading.current_thread()
    assert thread.daemon, "a program ends when its own code does"
    assert portal.run(where) == (loop, thread)


def test_errors_come_back_as_they_were_raised() -> None:
    error = ValueError("No.")

    async def fails() -> None:
        raise error

    with pytest.raises(ValueError, match=r"No\.") as caught:
        BlockingPortal(nothing).run(fails)
    assert caught.value is error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_work_that_ends_the_program_leaves_the_loop_to_others(error: BaseException) -> None:
    portal = BlockingPortal(nothing)

    async def ends() -> None:
        raise error

    async def answer() -> int:
        return 42

    with pytest.raises(type(error)):
        portal.run(ends)
    assert portal.run(answer) == 42


def test_many_threads_share_a_portal() -> None:
    """All wait for each other in the one loop: nobody blocks it."""
    portal, met = BlockingPortal(nothing), threading.Barrier(8)

    async def meet(barrier: asyncio.Barrier) -> int:
        return await barrier.wait()

    async def barrier_of(parties: int) -> asyncio.Barrier:
        return asyncio.Barrier(parties)

    barrier = portal.run(lambda: barrier_of(8))

    def work(_: int) -> int:
        met.wait()
        return portal.run(lambda: meet(barrier))

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(work, range(8))) == list(range(8))


def test_a_running_loop_is_no_obstacle() -> None:
    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    async def main() -> int:
        return BlockingPortal(nothing).run(answer)

    assert asyncio.run(main()) == 42


def test_ctrl_c_cancels_the_work_and_waits_until_it_is_over() -> None:
    seen: list[str] = []

    async def work() -> None:
        press_ctrl_c()
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(50):
                await asyncio.sleep(0)
            seen.append("tidied up")

    with interruptible(), pytest.raises(KeyboardInterrupt):
        BlockingPortal(nothing).run(work)
    assert seen == ["tidied up"]


def test_ctrl_c_at_any_step_of_the_waiting_is_heard() -> None:
    """Many times, as it matters between which two steps it comes."""

    async def work() -> None:
        press_ctrl_c()
        await asyncio.Event().wait()

    portal, before = BlockingPortal(nothing), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with interruptible():
            for _ in range(2_000):
                with pytest.raises(KeyboardInterrupt):
                    portal.run(work)
    finally:
        sys.setswitchinterval(before)


def test_the_portal_is_good_for_more_after_ctrl_c() -> None:
    async def interrupted() -> None:
        press_ctrl_c()
        await asyncio.Event().wait()

    async def answer() -> int:
        return 42

    portal = BlockingPortal(nothing)
    with interruptible(), pytest.raises(KeyboardInterrupt):
        portal.run(interrupted)
    assert portal.run(answer) == 42


def test_what_cannot_begin_says_why() -> None:
    def work() -> Coroutine[Any, Any, None]:
        raise ValueError("No.")

    with pytest.raises(ValueError, match=r"No\."):
        BlockingPortal(nothing).run(work)


class Hasty:
    """A loop whose first work Ctrl-C precedes."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._pressed = False

    def call_soon_threadsafe(self, call: Callable[[], None]) -> None:
        if not self._pressed:
            self._pressed = True
            raise KeyboardInterrupt
        self._loop.call_soon_threadsafe(call)


def test_ctrl_c_before_the_work_begins_leaves_nothing_behind() -> None:
    begun: list[str] = []

    async def work() -> None:
        begun.append("work")

    portal = BlockingPortal(nothing)
    portal.run(nothing)
    assert portal._loop is not None
    loop, portal._loop = portal._loop, Hasty(portal._loop)  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        portal.run(work)
    portal._loop = loop
    portal.run(nothing)
    assert begun == []


def test_ctrl_c_before_the_loop_runs_leaves_none_that_nothing_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unused = asyncio.new_event_loop()

    def interrupted(_: threading.Thread) -> None:
        raise KeyboardInterrupt

    portal = BlockingPortal(nothing)
    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "new_event_loop", lambda: unused)
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            portal.run(nothing)
    unused.close()
    portal.run(nothing)


AT_EXIT = """
import asyncio, atexit
from antiphon.blocking_portal import BlockingPortal

async def bye():
    print("bye from", asyncio.get_running_loop() is loop)

async def get_loop():
    return asyncio.get_running_loop()

portal = BlockingPortal(bye)

def late():
    try:
        portal.run(get_loop)
    except RuntimeError as error:
        print("late:", error)

atexit.register(late)  # called last: after the portal's own
loop = portal.run(get_loop)
print("end")
"""


def test_at_the_interpreters_end_everything_is_closed_and_nothing_hangs() -> None:
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-c", AT_EXIT],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert ended.stdout.splitlines()[:2] == ["end", "bye from True"]
    assert ended.stdout.splitlines()[2].startswith("late: The interpreter is ending")
    assert "Error" not in ended.stderr


def test_a_portal_that_was_never_used_leaves_no_trace() -> None:
    before = threading.active_count()
    BlockingPortal(nothing)
    assert threading.active_count() == before


FORKED = """
import os
from antiphon.blocking_portal import BlockingPortal

async def answer():
    return 42

def in_child(work):
    child = os.fork()
    if child == 0:
        try:
            print(work(), flush=True)
        except RuntimeError as error:
            print(error, flush=True)
        os._exit(0)
    os.waitpid(child, 0)

portal = BlockingPortal(answer)
portal._lock.acquire()  # as by a thread that is just using it
in_child(lambda: portal.run(answer))
portal._lock.release()
print(portal.run(answer), flush=True)
in_child(lambda: portal.run(answer))
print(portal.run(answer))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no process is forked there")
def test_a_forked_process_does_not_wait_for_a_thread_that_it_has_not() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=30, check=True
    )
    fresh, parent, forked, still = ended.stdout.splitlines()
    assert (fresh, parent, still) == ("42", "42", "42")
    assert forked.startswith("This process was forked")
