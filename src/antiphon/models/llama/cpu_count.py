"""CPU count: how many processors this process may use at once, by its affinity and its container.

Python's own count (``os.process_cpu_count``, 3.13) knows no quota. In a container that has
two of 64 processors, 63 threads would wait for each other at every layer of the model.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

_SYSTEM: Final = Path("/")


def count_cpus(system: Path = _SYSTEM) -> int:
    """The processors of this process, at least 1; ``system`` holds ``proc`` and ``sys``."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    count = len(os.sched_getaffinity(0))
    return max(1, min([count, *(math.ceil(quota) for quota in _quotas(system))]))


def _quotas(system: Path) -> Iterator[float]:
    """The processors that each control group of this process may use; there may be none."""
    groups = system / "sys/fs/cgroup"
    for line in _read(system / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if controllers == "":
            for folder in _folders(groups, name):
                quota, _, period = _read(folder / "cpu.max").partition(" ")
                yield from _quota(quota, period)
        elif "cpu" in controllers.split(","):
            for folder in _folders(groups / "cpu", name):
                quota, period = (
                    _read(folder / f"cpu.cfs_{what}_us") for what in ("quota", "period")
                )
                yield from _quota(quota, period)


def _folders(mount: Path, name: str) -> Iterator[Path]:
    """A group's folder and those of the groups around it. In a container the mount is its own."""
    path = PurePosixPath(name.lstrip("/"))
    for part in (path, *path.parents):
        if ".." not in part.parts:
            yield mount / part


def _quota(quota: str, period: str) -> Iterator[float]:
    # "max" and -1 say that there is no limit.
    if quota.strip().isdigit() and period.strip().isdigit() and int(period) > 0:
        yield int(quota) / int(period)


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
