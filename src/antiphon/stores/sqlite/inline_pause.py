"""Inline pause: how long no commit is made on the event loop after one that was slow. Pure.

One slow commit among many fast ones is a hiccup, and costs a short pause; a disk that is slow
each time is left to the writer's thread. Commits that are too slow take a twentieth of the loop's
time at most.
"""

from __future__ import annotations

from typing import Final

#: In times of the slow commit, and in seconds.
_PAUSE_FACTOR: Final = 20.0
_MIN_PAUSE: Final = 0.1
MAX_PAUSE: Final = 10.0


class InlinePause:
    """The pause after the last commit; times are in seconds, on one clock."""

    def __init__(self) -> None:
        #: When the next commit may begin.
        self.ends_at = 0.0
        self._slow_commits = 0

    def note(self, now: float, seconds: float, *, limit: float) -> None:
        """A commit took so many seconds, and ended now; beyond ``limit`` it was slow."""
        if seconds <= limit:
            self._slow_commits = 0
            return
        pause = max(_MIN_PAUSE, _PAUSE_FACTOR * seconds) * 2.0 ** min(self._slow_commits, 10)
        self._slow_commits += 1
        self.ends_at = now + max(min(pause, MAX_PAUSE), _PAUSE_FACTOR * seconds)
