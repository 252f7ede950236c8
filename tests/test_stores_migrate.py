import sqlite3
from collections.abc import Iterator

import pytest

from antiphon.errors import ConfigError
from antiphon.stores.migrate import APPLICATION_ID, migrate, migrations


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    yield connection
    connection.close()


def value(connection: sqlite3.Connection, sql: str) -> object:
    return connection.execute(sql).fetchone()[0]


def test_the_files_are_numbered_from_one_without_a_gap() -> None:
    numbers = [int(name.split("_")[0]) for name in migrations()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_an_empty_database_gets_everything_and_a_mark(connection: sqlite3.Connection) -> None:
    migrate(connection)
    assert value(connection, "PRAGMA user_version") == len(migrations())
    assert value(connection, "PRAGMA application_id") == APPLICATION_ID
    connection.execute("INSERT INTO threads VALUES (1, '', 1, NULL)")
    migrate(connection)
    assert value(connection, "SELECT count(*) FROM threads") == 1


def test_a_newer_schema_is_left_alone(connection: sqlite3.Connection) -> None:
    migrate(connection)
    connection.execute(f"PRAGMA user_version = {len(migrations()) + 1}")
    with pytest.raises(ConfigError, match="upgrade"):
        migrate(connection)


def test_another_programs_database_is_left_alone(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE shopping (item)")
    with pytest.raises(ConfigError, match="another program"):
        migrate(connection)
    assert value(connection, "SELECT count(*) FROM sqlite_schema") == 1


def test_a_migration_that_fails_leaves_nothing(connection: sqlite3.Connection) -> None:
    # As if a table of ours were there already, in a database that says it is ours.
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("CREATE TABLE log (line)")
    with pytest.raises(sqlite3.Error):
        migrate(connection)
    assert not connection.in_transaction
    assert value(connection, "PRAGMA user_version") == 0
    assert value(connection, "SELECT count(*) FROM sqlite_schema") == 1
