"""Small disk: a file system of a few megabytes that a test can fill, and make room on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

#: What is left free of a full one, in bytes: less than a commit takes.
_LEFT = 4096


class SmallDisk:
    """A file system of its own in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Leave no room."""
        with self._filler.open("wb", buffering=0) as file:
            while (free := self._free_bytes()) > _LEFT:
                file.write(bytes(min(free - _LEFT, 1 << 20)))

    def make_room(self) -> None:
        self._filler.unlink()

    def protect(self) -> None:
        """Allow only reading from now on."""
        subprocess.run(["mount", "-o", "remount,ro", str(self.folder)], check=True)

    def _free_bytes(self) -> int:
        state = os.statvfs(self.folder)
        return state.f_bavail * state.f_frsize


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    """A new file system in a new folder. Skips the test where nobody may mount one."""
    folder.mkdir()
    if sys.platform != "linux":
        pytest.skip("a file system of its own is mounted on Linux only")
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0777", "small", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield SmallDisk(folder)
    finally:
        # What is still open there goes when it is closed.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
