"""Reading chains, turns and recent threads: deep branches, owners, and clock changes."""

from __future__ import annotations

import sqlite3
from collections import Counter

import pytest

from antiphon.stores.sqlite.reader import (
    read_chain,
    read_head,
    read_owners,
    read_turn,
)
from antiphon.stores.sqlite.write_transaction import WriteTransaction
from antiphon.turn.store_protocols import Head, NewTurn
from support.store_turns import DONE, assistant, new_turn, user

ME = 7


def store_turns(connection: sqlite3.Connection, *turns: NewTurn, end: bool = True) -> Head:
    """Stores the turns; returns the head of the last one."""
    batch = WriteTransaction(connection, ME, {})
    for new in turns:
        batch.begin(new)
        if end:
            batch.write(new.response_id, [assistant("Hello.")], DONE)
    batch.flush()
    head, _ = read_head(connection, turns[-1].tenant, turns[-1].response_id)
    assert head is not None
    return head


def store_chain(connection: sqlite3.Connection, length: int) -> list[Head]:
    heads = [store_turns(connection, new_turn("0"))]
    for number in range(1, length):
        heads.append(store_turns(connection, new_turn(str(number), parent=heads[-1])))
    return heads


def test_deeply_nested_branches_are_read_as_one_chain(connection: sqlite3.Connection) -> None:
    heads = [store_turns(connection, new_turn("0"))]
    for number in range(1, 300):
        # The first child takes the thread, so the second begins one of its own.
        first = new_turn("aside", parent=heads[-1])
        heads.append(store_turns(connection, first, new_turn(str(number), parent=heads[-1])))
    assert len({head.thread for head in heads}) == 300
    turns, owners = read_chain(connection, heads[-1])
    assert [turn.input[0] for turn in turns] == [user(str(number)) for number in range(300)]
    assert [turn.previous_response_id for turn in turns[1:]] == [
        turn.response_id for turn in turns[:-1]
    ]
    assert owners == set()


def _count_rows(connection: sqlite3.Connection) -> Counter[str]:
    tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    return Counter(
        {
            name: connection.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0]
            for (name,) in tables
        }
    )


def test_branch_is_one_row_more_than_a_turn_at_any_depth(connection: sqlite3.Connection) -> None:
    heads = store_chain(connection, 200)
    added = []
    for parent in (heads[-1], heads[-2], heads[0]):
        before = _count_rows(connection)
        store_turns(connection, new_turn("On.", parent=parent))
        added.append(_count_rows(connection) - before)
    turn, deep, shallow = added
    assert deep == shallow == turn + Counter({"threads": 1})


def test_reads_leave_no_transaction_open(connection: sqlite3.Connection) -> None:
    (head,) = store_chain(connection, 1)
    assert read_turn(connection, "", "resp_" + "0" * 32) == (None, set())
    read_turn(connection, "", head.response_id)
    read_chain(connection, head)
    assert not connection.in_transaction
    connection.execute("DROP TABLE log")
    for read in (
        lambda: read_turn(connection, "", head.response_id),
        lambda: read_chain(connection, head),
    ):
        with pytest.raises(sqlite3.OperationalError):
            read()
        assert not connection.in_transaction


def test_reads_return_the_owners_of_running_turns(connection: sqlite3.Connection) -> None:
    (parent,) = store_chain(connection, 1)
    running = store_turns(connection, new_turn("And?", parent=parent), end=False)
    assert running.is_running
    assert read_head(connection, "", running.response_id)[1] == {ME}
    assert read_turn(connection, "", running.response_id)[1] == {ME}
    assert read_chain(connection, running)[1] == {ME}
    assert read_chain(connection, parent)[1] == set()
    assert read_owners(connection) == {ME}


def test_blobs_are_queried_once_and_only_if_used(
    connection: sqlite3.Connection,
) -> None:
    plain = store_chain(connection, 3)[-1]
    first = store_turns(connection, new_turn("look", parent=plain, images=[b"cat", b"dog"]))
    second = store_turns(connection, new_turn("again", parent=first, images=[b"cat"]))
    queries: list[str] = []
    connection.set_trace_callback(queries.append)
    read_chain(connection, plain)
    read_turn(connection, "", plain.response_id)
    assert queries
    assert not [sql for sql in queries if "blobs" in sql]
    turns, _ = read_chain(connection, second)
    assert len([sql for sql in queries if "blobs" in sql]) == 2
    assert [len(turn.blobs) for turn in turns] == [0, 0, 0, 2, 1]


def test_missing_blob_is_omitted(connection: sqlite3.Connection) -> None:
    head = store_turns(connection, new_turn("look", images=[b"cat"]))
    connection.execute("DELETE FROM blobs")
    turn, _ = read_turn(connection, "", head.response_id)
    assert turn is not None
    assert turn.blobs == {}
