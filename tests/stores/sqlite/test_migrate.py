"""Schema migrations: applied whole or not at all, and what was written before stays."""

import sqlite3
from collections.abc import Iterator

import pytest

from antiphon.errors import ConfigError
from antiphon.stores.sqlite.sql_files import APPLICATION_ID, migrate, migration_names


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    yield connection
    connection.close()


def value(connection: sqlite3.Connection, sql: str) -> object:
    return connection.execute(sql).fetchone()[0]


def test_the_files_are_numbered_from_one_without_a_gap() -> None:
    numbers = [int(name.split("_")[0]) for name in migration_names()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_an_empty_database_gets_the_schema_and_an_application_id(
    connection: sqlite3.Connection,
) -> None:
    migrate(connection)
    assert value(connection, "PRAGMA user_version") == len(migration_names())
    assert value(connection, "PRAGMA application_id") == APPLICATION_ID
    connection.execute("INSERT INTO threads VALUES (1, '', 1, NULL)")
    migrate(connection)
    assert value(connection, "SELECT count(*) FROM threads") == 1


def test_a_newer_schema_is_rejected_unchanged(connection: sqlite3.Connection) -> None:
    migrate(connection)
    connection.execute(f"PRAGMA user_version = {len(migration_names()) + 1}")
    with pytest.raises(ConfigError, match="upgrade"):
        migrate(connection)


def test_another_programs_database_is_rejected_unchanged(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE shopping (item)")
    with pytest.raises(ConfigError, match="another program"):
        migrate(connection)
    assert value(connection, "SELECT count(*) FROM sqlite_schema") == 1


def test_a_failed_migration_is_rolled_back(connection: sqlite3.Connection) -> None:
    # A database with our application id already has one of our tables.
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("CREATE TABLE log (line)")
    with pytest.raises(sqlite3.Error):
        migrate(connection)
    assert not connection.in_transaction
    assert value(connection, "PRAGMA user_version") == 0
    assert value(connection, "SELECT count(*) FROM sqlite_schema") == 1


def table_names(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_schema").fetchall()}


FIRST = "CREATE TABLE first (id INTEGER);"
SECOND = "ALTER TABLE first ADD COLUMN name TEXT;\nCREATE TABLE second (id INTEGER);"


def test_an_older_schema_gets_only_the_migrations_that_are_missing(
    connection: sqlite3.Connection,
) -> None:
    migrate(connection, [FIRST])
    connection.execute("INSERT INTO first VALUES (1)")
    # The first would fail if it were applied again.
    migrate(connection, [FIRST, SECOND])
    assert value(connection, "PRAGMA user_version") == 2
    assert connection.execute("SELECT * FROM first").fetchall() == [(1, None)]
    assert table_names(connection) == {"first", "second"}


def test_a_later_migration_that_fails_leaves_the_older_schema_and_its_rows(
    connection: sqlite3.Connection,
) -> None:
    migrate(connection, [FIRST])
    connection.execute("INSERT INTO first VALUES (1)")
    with pytest.raises(sqlite3.Error):
        migrate(connection, [FIRST, SECOND + "\nCREATE TABLE first (again);"])
    assert not connection.in_transaction
    assert value(connection, "PRAGMA user_version") == 1
    assert connection.execute("SELECT * FROM first").fetchall() == [(1,)]
    assert table_names(connection) == {"first"}
    migrate(connection, [FIRST, SECOND])
    assert value(connection, "PRAGMA user_version") == 2
