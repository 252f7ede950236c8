"""Schemas: made whole or not at all, and what was written before lives on."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from antiphon.core.ids import response_key
from antiphon.core.retention import RetentionPolicy
from antiphon.errors import ConfigError
from antiphon.stores.sqlite.rows import encode_end, encode_header, last_of_turn, row_id_of
from antiphon.stores.sqlite.sql_files import APPLICATION_ID, migrate, migrations, read_sql
from antiphon.stores.sqlite.store import open_sqlite
from support.store_turns import (
    DONE,
    assistant,
    blobs_of,
    complete_turn,
    head_of,
    ids_of,
    images_in_file,
    new_turn,
    sqlite,
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


def old_file(path: Path, version: int) -> list[str]:
    """A file as an older version left it: a complete turn, a branch off it, one that ran.

    Written by hand, as whatever writes files now writes them for the newest schema.
    """
    connection = sqlite3.connect(path, isolation_level=None)
    for name in migrations()[:version]:
        connection.executescript(read_sql(f"migrations/{name}"))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {version}")
    turns = [new_turn("from before"), new_turn("aside"), new_turn("left")]
    # The second branches off, so it has a thread of its own and lies deeper.
    places = [row_id_of(1, 0), row_id_of(2, 1), row_id_of(3, 0)]
    threads = [(1, "", 1, None), (2, "", 1, places[0]), (3, "", 3, None)]
    connection.executemany("INSERT INTO threads VALUES (?, ?, ?, ?)", threads)
    for turn, place in zip(turns, places, strict=True):
        key = response_key(turn.response_id)
        assert key is not None
        header = encode_header(key, turn.created_at, turn.header)
        connection.execute(
            "INSERT INTO responses VALUES (?, ?, ?, ?)", (key, "", place, turn.created_at)
        )
        rows = [(place, 0, header), (place + 1, 1, turn.input[0])]
        if turn is not turns[2]:
            rows.append((place + 2, 2, assistant("indeed")))
            rows.append((last_of_turn(place), 3, encode_end(DONE)))
        connection.executemany("INSERT INTO log VALUES (?, ?, ?)", rows)
    connection.execute("INSERT INTO running VALUES (?, 7)", (places[2],))
    connection.close()
    return [turn.response_id for turn in turns]


@pytest.mark.parametrize("version", [1, 2])
async def test_an_old_file_opens_and_works(tmp_path: Path, version: int) -> None:
    path = tmp_path / "turns.db"
    first, aside, left = old_file(path, version)
    async with sqlite(path) as store:
        assert await ids_of(store, await head_of(store, aside)) == [first, aside]
        turn = await store.turn("", left)
        assert turn is not None
        assert turn.end is not None
        assert turn.end.status == "failed"
        old = await head_of(store, first)
        new = await complete_turn(store, "look", parent=old, images=[b"cat"])
        before, after = await store.chain(new)
        assert (before.input, before.blobs) == ((user("from before"),), {})
        assert after.blobs == blobs_of(b"cat")
        assert len(await store.recent_threads("", 9)) == 3
        listed = await store.stores.response_index.list_responses("", 9, newest_first=False)
        assert [turn.response_id for turn in listed] == [first, aside, left, new.response_id]
        talk = await store.stores.conversations.create("", {})
        assert await store.stores.conversations.delete("", talk.id)
        assert await store.stores.conversations.erase_item("", aside, 0)
        await store.delete("", first, cascade=True)
        assert images_in_file(path) == []
        assert await store.chain(new) == []
    lifetimes = RetentionPolicy(1.0)
    store = await open_sqlite(path, lifetimes)
    # What is that old has expired now.
    assert await store.turn("", left) is None
    assert await store.stores.response_index.delete_expired() == 1
    await store.close()
    connection = sqlite3.connect(path, isolation_level=None)
    assert value(connection, "PRAGMA user_version") == len(migrations())
    assert value(connection, "PRAGMA integrity_check") == "ok"
    connection.close()
