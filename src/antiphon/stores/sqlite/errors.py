"""SQLite errors: mapped to antiphon's, with what went wrong and what to do."""

from __future__ import annotations

import sqlite3
import struct

import msgspec

from antiphon.errors import StoreError

_MESSAGES = {
    sqlite3.SQLITE_BUSY: "Another process kept the database locked for too long.",
    sqlite3.SQLITE_LOCKED: "Another process kept the database locked for too long.",
    sqlite3.SQLITE_PROTOCOL: "Another process kept the database locked for too long.",
    sqlite3.SQLITE_FULL: "The disk, or the space allowed to the database, is full: make room.",
    sqlite3.SQLITE_IOERR: "The disk could not be read or written; it may be full or failing.",
    sqlite3.SQLITE_READONLY: "The database may not be written: check the file's permissions.",
    sqlite3.SQLITE_CANTOPEN: "The database file cannot be opened any more.",
    sqlite3.SQLITE_CORRUPT: "The database file is damaged: restore it from a backup.",
    sqlite3.SQLITE_NOTADB: "The database file is damaged: restore it from a backup.",
    sqlite3.SQLITE_TOOBIG: "An item is larger than SQLite can keep (1 GB).",
}

_BUSY_CODES = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}


#: What a read may raise; all but the first mean damaged rows.
DAMAGE = (
    sqlite3.Error,
    msgspec.MsgspecError,
    struct.error,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
)


def primary_code(error: BaseException) -> int | None:
    """SQLite's primary result code; None where the error has none."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def is_busy(error: BaseException) -> bool:
    """Whether another process has the lock; the same work may succeed later."""
    return primary_code(error) in _BUSY_CODES


def store_error(error: BaseException) -> StoreError:
    """The ``StoreError`` for ``error``, which becomes its cause."""
    if isinstance(error, StoreError):
        return error
    message = _MESSAGES.get(primary_code(error) or -1)
    mapped = StoreError(message or f"The store failed: {error}.")
    mapped.__cause__ = error
    return mapped


def read_error(error: BaseException) -> StoreError:
    """The same for a read: an error that is not SQLite's means a damaged file."""
    if isinstance(error, sqlite3.Error | StoreError):
        return store_error(error)
    mapped = StoreError(_MESSAGES[sqlite3.SQLITE_CORRUPT])
    mapped.__cause__ = error
    return mapped
