"""PostgreSQL errors: mapped to antiphon's, with what went wrong and what to do."""

from __future__ import annotations

import asyncio
from typing import Final

import asyncpg
import msgspec

from antiphon.errors import StoreError

#: The connection is gone, or the server is: another one may do.
CONNECTION_LOST: Final = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.InterfaceError,
    # Of a connection that broke at this moment.
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ConnectionDoesNotExistError,
)
#: Another transaction was in the way: the same one may succeed now.
RETRYABLE: Final = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
#: What the server, or the connection to it, says.
DATABASE_ERRORS: Final = (asyncpg.PostgresError, *CONNECTION_LOST)
#: What a read may raise; all others mean damaged rows.
READ_ERRORS: Final = (
    *DATABASE_ERRORS,
    msgspec.MsgspecError,
    ValueError,
    TypeError,
    LookupError,
)

_MESSAGES: Final[dict[type[Exception], str]] = {
    asyncpg.DiskFullError: "The disk of the database server is full: make room.",
    asyncpg.TooManyConnectionsError: "The database server has no connection left.",
    asyncpg.InsufficientPrivilegeError: "The database user may not do that: check its rights.",
    asyncpg.ReadOnlySQLTransactionError: "The database may not be written: it is a replica.",
    asyncpg.LockNotAvailableError: "Another process kept rows of the database locked too long.",
    asyncpg.ProgramLimitExceededError: "An item is larger than PostgreSQL can keep (1 GB).",
}


def store_error(error: BaseException) -> StoreError:
    """The ``StoreError`` for ``error``, which becomes its cause."""
    if isinstance(error, StoreError):
        return error
    mapped = StoreError(_message(error))
    mapped.__cause__ = error
    return mapped


def _message(error: BaseException) -> str:
    for kind, message in _MESSAGES.items():
        if isinstance(error, kind):
            return message
    if isinstance(error, CONNECTION_LOST):
        return "The database server cannot be reached now."
    if isinstance(error, asyncpg.PostgresError):
        # Not its details, which name values.
        return f"The database refused it: {error.args[0] if error.args else error.sqlstate}."
    if isinstance(error, READ_ERRORS):
        return "A stored turn is damaged: restore the database from a backup."
    return f"The store failed: {error}."
