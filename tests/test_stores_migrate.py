"""Schemas: made whole or not at all, and what was written before lives on."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from antiphon.errors import ConfigError
from antiphon.stores.batch import Batch
from antiphon.stores.migrate import APPLICATION_ID, migrate, migrations
from antiphon.stores.queries import read_sql
from antiphon.stores.reader import read_head
from antiphon.turn.ports import Head
from stores_kit import (
    DONE,
    assistant,
    blobs_of,
    held_in_file,
    new_turn,
    run,
    sqlite,
    turned,
    user,
)


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


def old_file(path: Path) -> Head:
    """A file of the first schema: a complete turn, and one that a dead process left."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(read_sql(f"migrations/{migrations()[0]}"))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 1")
    batch = Batch(connection, 7, {})
    new = new_turn("from before")
    batch.begin(new)
    batch.write(new.response_id, [assistant("indeed")], DONE)
    batch.begin(new_turn("left"))
    batch.flush()
    head, _ = read_head(connection, "", new.response_id)
    connection.close()
    assert head is not None
    return head


def test_a_file_from_before_images_opens_and_takes_them(tmp_path: Path) -> None:
    path = tmp_path / "turns.db"
    old = old_file(path)

    async def main() -> None:
        async with sqlite(path) as store:
            assert await store.head("", old.response_id) == old
            new = await turned(store, "look", parent=old, images=[b"cat"])
            first, second = await store.chain(new)
            assert (first.input, first.blobs) == ((user("from before"),), {})
            assert second.blobs == blobs_of(b"cat")
            assert len(await store.recent("", 9)) == 2
            await store.delete("", old.response_id, cascade=True)
            assert held_in_file(path) == []
            assert await store.chain(new) == []

    run(main())
    connection = sqlite3.connect(path, isolation_level=None)
    assert value(connection, "PRAGMA user_version") == len(migrations())
    assert value(connection, "PRAGMA integrity_check") == "ok"
    connection.close()
