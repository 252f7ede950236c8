"""Threads that work behind the event loop."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

import pytest

from antiphon.thread_priority import background_priority

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
