"""Thread priority: Linux's batch policy for threads that must not preempt the event loop."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


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
