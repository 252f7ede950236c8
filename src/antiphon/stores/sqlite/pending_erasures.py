"""Erasures whose words may still lie in the file: counts them, and marks that there are some.

The mark is a file beside the database, one for each opened store. It outlives the process:
whoever finds that of a dead one cleans in its place, so nobody has to look at all pages of
a file just to be sure.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path


class Erasures:
    """Those of one opened store. Used by the writing thread and by the event loop.

    ``mark`` is the file's path; where it is there already, something is to be cleaned.
    """

    def __init__(self, mark: Path) -> None:
        self._mark = mark
        self._lock = threading.Lock()
        self._marked = self.left_by_dead = mark.exists()
        self._committing = False
        #: How often something was erased, up to which of these times it is gone from the pages.
        self.count = 1 if self._marked else 0
        self.cleaned = 0

    #: ``left_by_dead``: nothing has been erased here since a dead process's mark was found.

    @property
    def due(self) -> bool:
        """Whether there is something to clean."""
        return self.count > self.cleaned

    @contextlib.contextmanager
    def committing(self) -> Iterator[None]:
        """Around the commit of an erasure: it is marked before and counted after."""
        with self._lock:
            self._committing = True
            self._set_mark()
        try:
            yield
        finally:
            with self._lock:
                self._committing = False
                self.count += 1
                # Whoever commits after that empties the write-ahead log, too.
                self.left_by_dead = False

    def take_over(self) -> None:
        """What a dead process erased is to be cleaned here: its mark was made this store's."""
        with self._lock:
            self._marked = self.left_by_dead = True
            self.count += 1

    def set_cleaned(self, count: int) -> None:
        """All that had been erased when ``self.count`` was ``count`` is gone."""
        with self._lock:
            self.cleaned = max(self.cleaned, count)
            if self._marked and not self._committing and not self.due:
                # One that stays costs whoever finds it a look at the pages.
                with contextlib.suppress(OSError):
                    self._mark.unlink(missing_ok=True)
                self._marked = False

    def _set_mark(self) -> None:
        if self._marked:
            return
        # A disk that is full must not keep anyone from erasing: that makes room.
        with contextlib.suppress(OSError):
            os.close(os.open(self._mark, os.O_CREAT | os.O_WRONLY, 0o600))
            self._marked = True
            _sync(self._mark.parent)


def _sync(folder: Path) -> None:
    """Have a folder's entries reach the disk, where the system can do that."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
