"""Threads: a pool that works as long as anything does, and Linux's batch policy for threads that
must not preempt the event loop.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import ParamSpec, TypeAlias, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_Job: TypeAlias = tuple[Future[T], Callable[[], T]]


class LastingThreadPool(ThreadPoolExecutor):
    """A thread pool for programs whose main thread ends before others do.

    Python's own takes no more work from then on, although threads of the program go on; and the
    interpreter waits for its threads at its end, however long they hang. It is the base class
    because loops accept nothing else as their default; none of its threads is ever started.
    """

    def __init__(self, size: int, name: str) -> None:
        super().__init__(size, name)
        self._size = size
        self._name = name
        self._jobs: SimpleQueue[_Job[object] | None] = SimpleQueue()
        self._members: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._job_count = 0
        self._is_closed = False

    def submit(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have a thread do it. Raises ``RuntimeError`` after ``shutdown``, or without a thread."""
        future: Future[T] = Future()
        with self._lock:
            if self._is_closed:
                raise RuntimeError("The pool is closed.")
            if self._job_count >= len(self._members) < self._size:
                self._add_member()
            self._job_count += 1
            self._jobs.put((future, partial(work, *args, **kwargs)))  # type: ignore[arg-type]
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work, and end once what was taken is done."""
        with self._lock:
            was_closed, self._is_closed = self._is_closed, True
        if not was_closed:
            for _ in self._members:
                self._jobs.put(None)
        if wait:
            for one in self._members:
                one.join()

    def _add_member(self) -> None:
        thread = threading.Thread(
            target=self._work, name=f"{self._name}_{len(self._members)}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            # The system gives no more, or the interpreter at its end: the others do it.
            if not self._members:
                raise
            return
        self._members.append(thread)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            _do(*job)
            # What it refers to is not kept until the next one.
            del job
            with self._lock:
                self._job_count -= 1


def _do(future: Future[T], work: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 - it belongs to who waits
        future.set_exception(error)
        # The error knows this frame, and so would keep itself.
        del future
    else:
        future.set_result(result)


@contextmanager
def background_priority() -> Iterator[None]:
    """Threads that are started within this one do not interrupt the others of the process.

    A thread that wakes takes the processor from the one that runs. Where all cores are busy,
    that is the event loop, up to twenty times a stream, and each time its caches are cold
    afterwards. These threads take a core that is free, or wait for their turn.

    Linux only; elsewhere, and where it is not allowed, nothing is different.
    """
    if sys.platform != "linux":
        yield
        return
    before = os.sched_getscheduler(0)
    changed = before == os.SCHED_OTHER and _set_scheduler(os.SCHED_BATCH)
    try:
        # New threads inherit it.
        yield
    finally:
        if changed:
            _set_scheduler(before)


def _set_scheduler(policy: int) -> bool:
    """Put this thread under a policy of the kernel's; False: that is not allowed."""
    if sys.platform == "linux":
        try:
            os.sched_setscheduler(0, policy, os.sched_param(0))
        except OSError:
            return False
    return True
