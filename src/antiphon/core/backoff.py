"""Exponential backoff: how long to wait after so many failures in a row. Pure.

Upstream models and MCP servers are tried again by it, each with limits of its own.
"""

from __future__ import annotations

#: Doublings that are computed: more would be beyond any limit, and then beyond a float.
_MAX_DOUBLINGS = 30


def exponential_delay(failures: int, *, base: float, cap: float, jitter: float = 1.0) -> float:
    """The delay after the newest of ``failures`` failures, in the unit of ``base`` and ``cap``.

    ``base`` after the first, doubled after each further one, at most ``cap``; 0 without a
    failure. ``jitter`` in [0, 1] says how much of the upper half is waited: ``random.random()``,
    or 1 for all of it.

    A random jitter keeps many clients that failed together from coming back together. Where one
    client restarts a server of its own there is nobody to avoid: it waits the whole delay, which
    is the default.
    """
    if failures < 1:
        return 0.0
    doublings = min(failures - 1, _MAX_DOUBLINGS)
    return min(cap, base * 2.0**doublings) * (0.5 + jitter / 2)
