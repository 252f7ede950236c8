"""One write transaction, on an in-memory database: row ids, limits, and rollback."""

from __future__ import annotations

import sqlite3

import msgspec
import pytest

from antiphon.errors import StoreError
from antiphon.stores.interrupted_turns import interrupted_end
from antiphon.stores.sqlite.rows import MAX_ITEMS, MAX_SEQ, MAX_THREAD, row_id_of
from antiphon.stores.sqlite.sql_files import TURN_SQL
from antiphon.stores.sqlite.turn_recovery import end_orphans
from antiphon.stores.sqlite.write_transaction import OpenTurn, WriteTransaction
from antiphon.turn.store_protocols import Head, NewTurn
from support.store_turns import DONE, assistant, blob_of, new_turn

ME = 7


def head(thread: int, seq: int, response_id: str = "resp_" + "0" * 32) -> Head:
    return Head(response_id, "", thread, seq, 1, 0, False)


def count(connection: sqlite3.Connection, table: str) -> int:
    number: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    return number


def test_nothing_is_written_before_flush(connection: sqlite3.Connection) -> None:
    batch = WriteTransaction(connection, ME, {})
    new = new_turn("Hi.")
    batch.begin(new)
    assert count(connection, "log") == 0
    batch.flush()
    batch.flush()
    assert count(connection, "log") == 2
    assert batch.changed_turns == {
        new.response_id: OpenTurn(row_id_of(1, 0), row_id_of(1, 0) + 2, 1, model="a-model")
    }


def test_turn_that_begins_and_ends_in_one_transaction_is_never_running(
    connection: sqlite3.Connection,
) -> None:
    batch = WriteTransaction(connection, ME, {})
    new = new_turn("Hi.")
    batch.begin(new)
    batch.write(new.response_id, [assistant("a")], DONE)
    batch.write(new.response_id, [assistant("too late")], None)
    batch.flush()
    assert batch.changed_turns == {new.response_id: None}
    assert (count(connection, "running"), count(connection, "log")) == (0, 4)


def test_children_begun_in_one_transaction_become_branches(connection: sqlite3.Connection) -> None:
    batch = WriteTransaction(connection, ME, {})
    root = new_turn("root")
    batch.begin(root)
    batch.flush()
    children = [new_turn("child", parent=head(1, 0, root.response_id)) for _ in range(3)]
    for child in children:
        batch.begin(child)
    open_turns = [batch.changed_turns[child.response_id] for child in children]
    assert [open_turn.row_id for open_turn in open_turns if open_turn] == [
        row_id_of(1, 1),
        row_id_of(2, 1),
        row_id_of(3, 1),
    ]


def test_transaction_does_not_change_the_given_running_turns(
    connection: sqlite3.Connection,
) -> None:
    first = WriteTransaction(connection, ME, {})
    new = new_turn("Hi.")
    first.begin(new)
    first.flush()
    turns = {new.response_id: OpenTurn(row_id_of(1, 0), row_id_of(1, 0) + 2, 1, model="a-model")}
    second = WriteTransaction(connection, ME, turns)
    second.write(new.response_id, [assistant("a")], None)
    second.write(new.response_id, [assistant("b")], DONE)
    assert turns == {
        new.response_id: OpenTurn(row_id_of(1, 0), row_id_of(1, 0) + 2, 1, model="a-model")
    }
    assert second.changed_turns == {new.response_id: None}


def test_end_orphans_ends_only_the_owners_turns(connection: sqlite3.Connection) -> None:
    dead, living = WriteTransaction(connection, ME, {}), WriteTransaction(connection, ME + 1, {})
    dead.begin(new_turn("Hi."))
    dead.begin(new_turn("Hi."))
    dead.flush()
    living.begin(new_turn("Hi."))
    end_orphans(living, ME, interrupted_end(), 0.0)
    end_orphans(living, ME, interrupted_end(), 0.0)
    living.flush()
    assert connection.execute("SELECT owner FROM running").fetchall() == [(ME + 1,)]
    assert len(connection.execute("SELECT 1 FROM log WHERE kind = 3").fetchall()) == 2


def test_images_are_written_and_erased_atomically_with_their_turn(
    connection: sqlite3.Connection,
) -> None:
    tables = ("blobs", "log", "responses")
    connection.execute("BEGIN")
    batch = WriteTransaction(connection, ME, {})
    new = new_turn(images=[b"cat"])
    batch.begin(new)
    batch.flush()
    # As after a crash.
    connection.execute("ROLLBACK")
    assert [count(connection, table) for table in tables] == [0, 0, 0]
    batch = WriteTransaction(connection, ME, {})
    batch.begin(new)
    batch.flush()
    before = [count(connection, table) for table in tables]
    connection.execute("BEGIN")
    assert WriteTransaction(connection, ME, {}).delete("", new.response_id, cascade=False)
    assert count(connection, "blobs") == 0
    connection.execute("ROLLBACK")
    assert [count(connection, table) for table in tables] == before == [1, 3, 1]


def too_many_items() -> NewTurn:
    return msgspec.structs.replace(new_turn(), input=[b"{}"] * (MAX_ITEMS + 1))


def too_many_items_and_images() -> NewTurn:
    images = [blob_of(bytes([number])) for number in range(2)]
    return msgspec.structs.replace(new_turn(), input=[b"{}"] * (MAX_ITEMS - 1), blobs=images)


@pytest.mark.parametrize(
    "new",
    [
        too_many_items(),
        too_many_items_and_images(),
        new_turn(parent=head(1, MAX_SEQ)),
        new_turn(parent=head(1, 0), tenant="other", images=[b"cat"]),
        new_turn(response_id="resp_1", images=[b"cat"]),
    ],
    ids=["items", "images", "turns", "tenant", "id"],
)
def test_invalid_turn_is_refused_before_anything_is_written(
    connection: sqlite3.Connection, new: NewTurn
) -> None:
    batch = WriteTransaction(connection, ME, {})
    with pytest.raises(StoreError):
        batch.begin(new)
    batch.flush()
    assert batch.changed_turns == {}
    assert count(connection, "threads") + count(connection, "log") == 0
    assert count(connection, "blobs") == 0


def test_turn_over_max_items_is_refused(connection: sqlite3.Connection) -> None:
    batch = WriteTransaction(connection, ME, {})
    new = new_turn("Hi.")
    batch.begin(new)
    batch.write(new.response_id, [b"{}"] * (MAX_ITEMS - 1), None)
    with pytest.raises(StoreError, match=f"{MAX_ITEMS}"):
        batch.write(new.response_id, [b"{}"], None)
    batch.write(new.response_id, [], DONE)
    batch.flush()
    assert count(connection, "log") == MAX_ITEMS + 2


def test_thread_over_max_thread_is_refused(connection: sqlite3.Connection) -> None:
    connection.execute(TURN_SQL["add_thread"], (MAX_THREAD - 1, "", 1, None))
    batch = WriteTransaction(connection, ME, {})
    batch.begin(new_turn("the last"))
    with pytest.raises(StoreError, match="no room"):
        batch.begin(new_turn("one too many"))
    batch.flush()
    assert count(connection, "log") == 2
