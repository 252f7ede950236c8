"""SQLite connections: opens the file, sets its pragmas, migrates it, and explains failures."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Final

import msgspec
from filelock import Timeout

from antiphon.errors import ConfigError
from antiphon.stores.sqlite.btree_pages import PageFile
from antiphon.stores.sqlite.errors import primary_code
from antiphon.stores.sqlite.page_scrubbing import PendingErasures
from antiphon.stores.sqlite.process_locks import ProcessLocks
from antiphon.stores.sqlite.sql_files import migrate

#: How long a commit waits for another process that writes.
BUSY_TIMEOUT_MS: Final = 10_000

#: 16 MB: a page that many turns write to is copied to the file once for all of them.
AUTOCHECKPOINT_PAGES: Final = 4000

_WRITER_PRAGMAS: Final = (
    "journal_mode = WAL",
    # Each commit reaches the disk before it is confirmed, also where fsync alone is not enough.
    "synchronous = FULL",
    "fullfsync = ON",
    "secure_delete = ON",
    "cache_size = -8192",
    "journal_size_limit = 33554432",
    f"wal_autocheckpoint = {AUTOCHECKPOINT_PAGES}",
)

_REASONS: Final = {
    sqlite3.SQLITE_NOTADB: "it is not a SQLite database: give another path.",
    sqlite3.SQLITE_CORRUPT: "it is damaged: restore it from a backup, or give another path.",
    sqlite3.SQLITE_BUSY: "another process has it locked: end that one, or try again.",
    sqlite3.SQLITE_CANTOPEN: "the file or its folder may not be written: check their permissions.",
    sqlite3.SQLITE_READONLY: "the file or its folder may not be written: check their permissions.",
    sqlite3.SQLITE_PERM: "the file or its folder may not be written: check their permissions.",
    sqlite3.SQLITE_FULL: "the disk is full: make room.",
}


# Bytes and None stay what they are. Where no adapter is registered for a type, the module sqlite3
# looks for two methods of each value instead, which takes it as long as to bind four.
sqlite3.register_adapter(bytes, bytes)
sqlite3.register_adapter(type(None), {None: None}.__getitem__)


class DatabaseConnections(msgspec.Struct, frozen=True):
    """An opened file: a connection for writes, and one for reads that never waits for a lock."""

    path: Path
    process_locks: ProcessLocks
    write_connection: sqlite3.Connection
    read_connection: sqlite3.Connection
    page_file: PageFile
    erasures: PendingErasures

    @property
    def wal_path(self) -> Path:
        """The write-ahead log's file."""
        return Path(f"{self.path}-wal")

    def connect_reader(self) -> sqlite3.Connection:
        """Another connection for reads, one that waits for locks."""
        return _connect_reader(self.path, BUSY_TIMEOUT_MS / 1000)


def open_database(path: str | os.PathLike[str]) -> DatabaseConnections:
    """Open or create the file, its folder too, readable by this user only.

    Blocks. Raises ConfigError, which says what to do.
    """
    # One lock folder per file, whatever path or link names it.
    file = Path(os.path.realpath(os.path.expanduser(path)))
    try:
        if file.is_dir():
            raise ConfigError("it is a folder: give the path of a file.")
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _open(file)
    except (ConfigError, OSError, sqlite3.Error) as error:
        raise ConfigError(f"Cannot open the database {file}: {_reason(error)}") from error


def _open(file: Path) -> DatabaseConnections:
    folder = Path(f"{file}-owners")
    owners = ProcessLocks(folder)
    if owners.was_forked():
        raise ConfigError(
            "this process was forked from one that has it open: start processes by"
            ' "spawn" or "forkserver", or fork before the first turn.'
        )
    new_folder = not folder.exists()
    folder.mkdir(mode=0o700, exist_ok=True)
    with contextlib.ExitStack() as undo:
        if new_folder:
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
        undo.callback(owners.release)
        with owners.open_lock():
            _create_file(file)
            pages = PageFile(file)
            undo.callback(pages.close)
            writing = _connect(file, BUSY_TIMEOUT_MS / 1000)
            undo.callback(writing.close)
            # First of all, as it rejects another program's database without changing it.
            migrate(writing)
            for pragma in _WRITER_PRAGMAS:
                writing.execute(f"PRAGMA {pragma}")
            # The last process may have died with erased words in the write-ahead log.
            writing.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            reading = _connect_reader(file, 0)
            undo.callback(reading.close)
            owners.register()
            owners.remove_stale()
            owners.take_over()
        undo.pop_all()
    return DatabaseConnections(
        file, owners, writing, reading, pages, PendingErasures(owners.erasure_mark)
    )


def _create_file(file: Path) -> None:
    # SQLite gives its other files the mode of this one. An existing file is left alone:
    # closing it here would drop the locks that this process may hold on it by SQLite.
    try:
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        return


def _connect(file: Path, timeout: float) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{file.as_uri()}?mode=rw",
        uri=True,
        timeout=timeout,
        isolation_level=None,
        check_same_thread=False,
    )


def _connect_reader(file: Path, timeout: float) -> sqlite3.Connection:
    connection = _connect(file, timeout)
    connection.execute("PRAGMA query_only = ON")
    return connection


def _reason(error: Exception) -> str:
    if isinstance(error, ConfigError):
        return error.message
    if isinstance(error, Timeout):
        return "another process has been opening it for too long: end that one, or try again."
    if isinstance(error, OSError):
        return f"{(error.strerror or str(error)).lower()}: give another path."
    return _REASONS.get(primary_code(error) or 0, f"{error}.")
