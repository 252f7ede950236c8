import sqlite3

import pytest

from antiphon.errors import StoreError
from antiphon.stores.sqlite.errors import is_busy, primary_code, store_error


def failure(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("as SQLite says it")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (sqlite3.SQLITE_FULL, "make room"),
        (sqlite3.SQLITE_IOERR_WRITE, "full or failing"),
        (sqlite3.SQLITE_CORRUPT_INDEX, "restore it from a backup"),
        (sqlite3.SQLITE_NOTADB, "restore it from a backup"),
        (sqlite3.SQLITE_READONLY_DBMOVED, "permissions"),
        (sqlite3.SQLITE_BUSY_RECOVERY, "Another process"),
        (sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, "as SQLite says it"),
    ],
)
def test_sqlite_errors_become_store_errors_with_advice_and_cause(code: int, advice: str) -> None:
    cause = failure(code)
    error = store_error(cause)
    assert type(error) is StoreError
    assert advice in error.message
    assert error.message.endswith(".") or ":" in error.message
    assert error.__cause__ is cause


def test_store_errors_are_passed_through() -> None:
    error = StoreError("No.")
    assert store_error(error) is error


def test_other_exceptions_become_store_errors() -> None:
    assert "too big" in store_error(OverflowError("too big")).message
    assert primary_code(OverflowError()) is None


def test_only_lock_errors_are_busy() -> None:
    assert is_busy(failure(sqlite3.SQLITE_BUSY_SNAPSHOT))
    assert is_busy(failure(sqlite3.SQLITE_PROTOCOL))
    assert not is_busy(failure(sqlite3.SQLITE_FULL))
    assert not is_busy(ValueError())
