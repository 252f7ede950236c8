"""Threads that work behind the event loop."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable

import pytest

from antiphon.threads import LastingThreadPool, background_priority

linux = pytest.mark.skipif(sys.platform != "linux", reason="policies of Linux's kernel")


def policy_of_a_new_thread() -> int:
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(os.sched_getscheduler(0)))
    thread.start()
    thread.join()
    return seen[0]


@linux
def test_only_threads_that_are_started_within_wait_for_their_turn() -> None:
    before = os.sched_getscheduler(0)
    with background_priority():
        assert policy_of_a_new_thread() == os.SCHED_BATCH
    assert os.sched_getscheduler(0) == before
    assert policy_of_a_new_thread() == before


@linux
def test_an_error_within_leaves_the_policy_as_it_was() -> None:
    before = os.sched_getscheduler(0)
    with pytest.raises(ValueError, match="no"), background_priority():
        raise ValueError("no")
    assert os.sched_getscheduler(0) == before


@linux
def test_where_the_kernel_refuses_nothing_is_different(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    before = os.sched_getscheduler(0)
    with background_priority():
        assert policy_of_a_new_thread() == before


def test_other_systems_have_no_such_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    ran: list[Callable[[], None] | str] = []
    with background_priority():
        ran.append("yes")
    assert ran == ["yes"]


def test_pool_runs_as_many_at_once_as_it_is_large() -> None:
    pool = LastingThreadPool(3, "test")
    together = threading.Barrier(3)
    meetings = [pool.submit(together.wait) for _ in range(3)]
    assert sorted(one.result() for one in meetings) == [0, 1, 2]
    names = {pool.submit(lambda: threading.current_thread().name).result() for _ in range(20)}
    assert names <= {"test_0", "test_1", "test_2"}
    pool.shutdown()


def test_pool_starts_no_thread_that_it_does_not_need() -> None:
    pool = LastingThreadPool(3, "test")
    threads = {pool.submit(threading.current_thread).result() for _ in range(5)}
    assert len(threads) <= 2, "one may be tidying up after its last job"
    assert all(one.daemon for one in threads), "what hangs does not keep the program alive"
    pool.shutdown()
    assert not any(one.is_alive() for one in threads)


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), StopIteration()], ids=repr)
def test_pool_goes_on_after_an_error(error: BaseException) -> None:
    def fail() -> None:
        raise error

    pool = LastingThreadPool(1, "test")
    failed = pool.submit(fail)
    assert failed.exception() is error
    assert pool.submit(max, 1, 2).result() == 2
    pool.shutdown()


def test_pool_does_what_was_asked_before_it_was_closed_and_nothing_later() -> None:
    pool = LastingThreadPool(1, "test")
    go_on = threading.Event()
    first = pool.submit(go_on.wait)
    second, third = pool.submit(max, 1, 2), pool.submit(max, 1, 3)
    assert third.cancel()
    pool.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(max, 1, 2)
    go_on.set()
    assert (first.result(), second.result()) == (True, 2)
    pool.shutdown()


def test_idle_pool_keeps_nothing_of_its_last_job() -> None:
    class Large:
        pass

    pool = LastingThreadPool(1, "test")
    large = Large()
    gone = weakref.ref(large)
    pool.submit(id, large).result()
    del large
    pool.submit(int).result()
    assert gone() is None
    pool.shutdown()
