"""Which opened stores are alive, told by file locks.

Every opened store holds a lock on a file of its own, in a folder next to the
database. The system lets go of it when the process ends, however it ends, so neither
a kill nor a jump of the clock can make a dead store look alive or a live one dead.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final

from filelock import BaseFileLock, FileLock, Timeout

_GATE = "gate.lock"
_SWEEPER = "sweeper.lock"
#: Beside the lock of a store that has erased something: it is to be cleaned (``Erasures``).
_UNCLEAN = ".unclean"
_GATE_SECONDS: Final = 30.0

#: The lock folders of what is open here, each with the process that opened it.
_open: set[tuple[Path, int, int]] = set()


def _lock(file: Path, seconds: float = 0.0) -> BaseFileLock:
    # Taken and let go of in different threads, hence not local to one.
    return FileLock(file, timeout=seconds, mode=0o600, thread_local=False)


class Owners:
    """The lock folder of one database. ``me`` is this store's number in it, random."""

    def __init__(self, folder: Path) -> None:
        self.me = secrets.randbits(63)
        self._folder = folder
        self._mine = _lock(self._file(self.me))
        self._sweeper = _lock(folder / _SWEEPER)

    def gate(self) -> BaseFileLock:
        """Held by whoever opens the database, so that one does it at a time.

        A context manager; raises ``filelock.Timeout`` after 30 seconds.
        """
        return _lock(self._folder / _GATE, _GATE_SECONDS)

    def register(self) -> None:
        """Be alive. Only within the gate: a file not locked yet looks dead to ``sweep``."""
        self._mine.acquire()
        _open.add((self._folder, self.me, os.getpid()))

    def inherited(self) -> bool:
        """Whether this process was forked from one that had the database open.

        SQLite would believe the parent's locks to be its own, and lose what is written here.
        """
        return any(one[0] == self._folder and one[2] != os.getpid() for one in tuple(_open))

    def alive(self, owner: int) -> bool:
        """Whether the process of the store with this number still runs."""
        return owner == self.me or _held(self._file(owner))

    @property
    def unclean_mark(self) -> Path:
        """The file that says that something this store has erased is to be cleaned."""
        return self._file(self.me).with_suffix(_UNCLEAN)

    def take_over(self) -> bool:
        """Make the marks of the dead this store's own; whether there were any."""
        found = False
        for mark in self._folder.glob(f"*{_UNCLEAN}"):
            if mark != self.unclean_mark and not _held(mark.with_suffix(".lock")):
                # Another may do the same at this moment: one of the two finds it.
                with contextlib.suppress(FileNotFoundError):
                    mark.replace(self.unclean_mark)
                    found = True
        return found

    def is_sweeper(self) -> bool:
        """Whether this store is to erase what expires: one does, of all that are open."""
        if not self._sweeper.is_locked:
            with contextlib.suppress(Timeout, PermissionError):
                self._sweeper.acquire()
        return self._sweeper.is_locked

    def sweep(self) -> None:
        """Remove the files of the dead. Only within the gate."""
        for file in self._folder.glob("*.lock"):
            if file.name not in (_GATE, _SWEEPER) and not _held(file):
                file.unlink(missing_ok=True)

    def leave(self) -> None:
        """Be dead. Safe to call twice, and without ``register``."""
        _open.discard((self._folder, self.me, os.getpid()))
        self._sweeper.release()
        if self._mine.is_locked:
            # The number is never used again, so nobody can be waiting for this file.
            self._file(self.me).unlink(missing_ok=True)
            self._mine.release()

    def _file(self, owner: int) -> Path:
        return self._folder / f"{owner:016x}.lock"


def _held(file: Path) -> bool:
    if not file.exists():
        return False
    probe = _lock(file)
    try:
        probe.acquire()
    except (Timeout, PermissionError):
        # A file that another user's process made says nothing: better to believe it alive.
        return True
    probe.release()
    return False
