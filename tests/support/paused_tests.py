"""Paused tests: runs pytest while its processes are paused in turn, as on a busy machine.

What was thought to come first then comes last: the page's, the server's and the browser's answers,
commits, signals. Linux only. Pauses are random; what fails does not fail in each run.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

#: Seconds of the longest pause, and of the longest time between two.
_LONGEST_PAUSE = 0.4
_LONGEST_BETWEEN = 0.15


def descendants(root: int) -> Iterator[int]:
    """The processes below one, but for those that are stopped already or over."""
    children: dict[int, list[tuple[int, str]]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # The name before it may hold anything, parentheses too.
            state, parent, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(parent), []).append((int(folder.name), state))
    waiting = [root]
    while waiting:
        for pid, state in children.get(waiting.pop(), []):
            waiting.append(pid)
            if state not in "TZ":
                yield pid


def pause_one(root: int) -> None:
    """Pause one of the processes below another for a moment."""
    if not (found := list(descendants(root))):
        return
    pid = random.choice(found)
    # It may end meanwhile.
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(random.random() * _LONGEST_PAUSE)
        finally:
            os.kill(pid, signal.SIGCONT)


def main() -> int:
    """Run pytest with the arguments of this program; its exit code."""
    with subprocess.Popen([sys.executable, "-m", "pytest", *sys.argv[1:]]) as tests:
        while tests.poll() is None:
            pause_one(tests.pid)
            time.sleep(random.random() * _LONGEST_BETWEEN)
    return tests.returncode


if __name__ == "__main__":
    sys.exit(main())
