"""Process locks: file locks that show which open stores are alive.

Every open store holds a lock on a file of its own, in a folder next to the database. The system
releases it when the process ends, however it ends, so neither a kill nor a jump of the clock
can make a dead store look alive or a live one dead.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final

from filelock import BaseFileLock, FileLock, Timeout

_OPEN_LOCK = "gate.lock"
_SWEEPER = "sweeper.lock"
_INDEXER = "indexer.lock"
#: Beside the lock of a store that has erased something: pages are to be scrubbed
#: (``PendingErasures``).
_ERASURE_MARK_SUFFIX = ".unclean"
_OPEN_LOCK_TIMEOUT: Final = 30.0

#: The lock folders of what is open here, each with the process that opened it.
_held_locks: set[tuple[Path, int, int]] = set()


def _file_lock(file: Path, timeout: float = 0.0) -> BaseFileLock:
    # Acquired and released in different threads, hence not local to one.
    return FileLock(file, timeout=timeout, mode=0o600, thread_local=False)


class ProcessLocks:
    """The lock folder of one database. ``owner_id`` is this store's number in it, random."""

    def __init__(self, folder: Path) -> None:
        self.owner_id = secrets.randbits(63)
        self._folder = folder
        self._own_lock = _file_lock(self._file(self.owner_id))
        self._sweeper = _file_lock(folder / _SWEEPER)
        self._indexer = _file_lock(folder / _INDEXER)

    def open_lock(self) -> BaseFileLock:
        """The lock for opening the database: one process at a time.

        A context manager; raises ``filelock.Timeout`` after 30 seconds.
        """
        return _file_lock(self._folder / _OPEN_LOCK, _OPEN_LOCK_TIMEOUT)

    def register(self) -> None:
        """Lock this store's file. Within ``open_lock``: an unlocked file looks dead to others."""
        self._own_lock.acquire()
        _held_locks.add((self._folder, self.owner_id, os.getpid()))

    def was_forked(self) -> bool:
        """Whether this process was forked from one that had the database open.

        SQLite would believe the parent's locks to be its own, and lose what is written here.
        """
        return any(one[0] == self._folder and one[2] != os.getpid() for one in tuple(_held_locks))

    def is_alive(self, owner: int) -> bool:
        """Whether the process of the store with this number still runs."""
        return owner == self.owner_id or _is_locked(self._file(owner))

    @property
    def erasure_mark(self) -> Path:
        """The file that marks this store's pending erasures (``PendingErasures``)."""
        return self._file(self.owner_id).with_suffix(_ERASURE_MARK_SUFFIX)

    def take_over(self) -> bool:
        """Take over the marks of dead stores; whether there were any."""
        found = False
        for mark in self._folder.glob(f"*{_ERASURE_MARK_SUFFIX}"):
            if mark != self.erasure_mark and not _is_locked(mark.with_suffix(".lock")):
                # Another process may do the same now: one of the two finds the file.
                with contextlib.suppress(FileNotFoundError):
                    mark.replace(self.erasure_mark)
                    found = True
        return found

    def is_sweeper(self) -> bool:
        """Whether this store runs the retention sweep: one of all open stores does."""
        return _is_acquired(self._sweeper)

    def begin_indexing(self) -> bool:
        """Whether this store may index what waits: one of all open stores, until it has ended."""
        return _is_acquired(self._indexer)

    def end_indexing(self) -> None:
        """Let the next one."""
        self._indexer.release()

    def remove_stale(self) -> None:
        """Remove the files of dead stores. Within ``open_lock`` only."""
        for file in self._folder.glob("*.lock"):
            if file.name not in (_OPEN_LOCK, _SWEEPER, _INDEXER) and not _is_locked(file):
                file.unlink(missing_ok=True)

    def release(self) -> None:
        """Release the locks. Safe to call twice, and without ``register``."""
        _held_locks.discard((self._folder, self.owner_id, os.getpid()))
        self._sweeper.release()
        self._indexer.release()
        if self._own_lock.is_locked:
            # The number is never used again, so nothing can be waiting for this file.
            self._file(self.owner_id).unlink(missing_ok=True)
            self._own_lock.release()

    def _file(self, owner: int) -> Path:
        return self._folder / f"{owner:016x}.lock"


def _is_acquired(lock: BaseFileLock) -> bool:
    """Whether this store has a lock, or gets it now."""
    if not lock.is_locked:
        with contextlib.suppress(Timeout, PermissionError):
            lock.acquire()
    return lock.is_locked


def _is_locked(file: Path) -> bool:
    if not file.exists():
        return False
    probe = _file_lock(file)
    try:
        probe.acquire()
    except (Timeout, PermissionError):
        # A file that another user's process made says nothing: better to believe it alive.
        return True
    probe.release()
    return False
