"""Reads of long chains, deep branches, and clocks that jump."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from antiphon.stores.sqlite.reader import (
    read_chain,
    read_head,
    read_owners,
    read_recent_threads,
    read_turn,
)
from antiphon.stores.sqlite.sql_files import migrate
from antiphon.stores.sqlite.write_transaction import WriteTransaction
from antiphon.turn.store_protocols import Head, NewTurn
from support.store_turns import DONE, assistant, new_turn, user

ME = 7


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection)
    yield connection
    connection.close()


def keep(connection: sqlite3.Connection, *turns: NewTurn, end: bool = True) -> Head:
    """Keep the turns; the last one's head."""
    batch = WriteTransaction(connection, ME, {})
    for new in turns:
        batch.begin(new)
        if end:
            batch.write(new.response_id, [assistant("Hello.")], DONE)
    batch.flush()
    head, _ = read_head(connection, turns[-1].tenant, turns[-1].response_id)
    assert head is not None
    return head


def grow(connection: sqlite3.Connection, length: int) -> list[Head]:
    heads = [keep(connection, new_turn("0"))]
    for number in range(1, length):
        heads.append(keep(connection, new_turn(str(number), parent=heads[-1])))
    return heads


def test_a_deep_nest_of_branches_is_one_chain(connection: sqlite3.Connection) -> None:
    heads = [keep(connection, new_turn("0"))]
    for number in range(1, 300):
        # The first child takes the thread, so the second begins one of its own.
        first = new_turn("aside", parent=heads[-1])
        heads.append(keep(connection, first, new_turn(str(number), parent=heads[-1])))
    assert len({head.thread for head in heads}) == 300
    turns, owners = read_chain(connection, heads[-1])
    assert [turn.input[0] for turn in turns] == [user(str(number)) for number in range(300)]
    assert [turn.previous_response_id for turn in turns[1:]] == [
        turn.response_id for turn in turns[:-1]
    ]
    assert owners == set()


def test_reads_leave_no_moment_open(connection: sqlite3.Connection) -> None:
    (head,) = grow(connection, 1)
    assert read_turn(connection, "", "resp_" + "0" * 32) == (None, set())
    read_turn(connection, "", head.response_id)
    read_chain(connection, head)
    read_recent_threads(connection, "", 1)
    assert not connection.in_transaction
    connection.execute("DROP TABLE log")
    for read in (
        lambda: read_turn(connection, "", head.response_id),
        lambda: read_chain(connection, head),
        lambda: read_recent_threads(connection, "", 1),
    ):
        with pytest.raises(sqlite3.OperationalError):
            read()
        assert not connection.in_transaction


def test_who_runs_a_turn_is_told_with_it(connection: sqlite3.Connection) -> None:
    (parent,) = grow(connection, 1)
    running = keep(connection, new_turn("And?", parent=parent), end=False)
    assert running.is_running
    assert read_head(connection, "", running.response_id)[1] == {ME}
    assert read_turn(connection, "", running.response_id)[1] == {ME}
    assert read_chain(connection, running)[1] == {ME}
    assert read_chain(connection, parent)[1] == set()
    assert read_owners(connection) == {ME}


def test_a_clock_that_jumps_back_hides_no_turn(connection: sqlite3.Connection) -> None:
    first = keep(connection, new_turn("noon", created_at=1200.0))
    second = keep(connection, new_turn("morning", parent=first, created_at=800.0))
    other = keep(connection, new_turn("eleven", created_at=1100.0))
    lines = read_recent_threads(connection, "", 2)
    assert [line.response_id for line in lines] == [second.response_id, other.response_id]
    assert lines[0].turns == 2


def test_two_turns_of_one_moment_are_both_shown(connection: sqlite3.Connection) -> None:
    keep(connection, new_turn("a", created_at=1.0))
    keep(connection, new_turn("b", created_at=1.0))
    assert len(read_recent_threads(connection, "", 9)) == 2


def test_blobs_are_asked_for_only_where_turns_use_them_and_once(
    connection: sqlite3.Connection,
) -> None:
    plain = grow(connection, 3)[-1]
    first = keep(connection, new_turn("look", parent=plain, images=[b"cat", b"dog"]))
    second = keep(connection, new_turn("again", parent=first, images=[b"cat"]))
    asked: list[str] = []
    connection.set_trace_callback(asked.append)
    read_chain(connection, plain)
    read_turn(connection, "", plain.response_id)
    assert asked
    assert not [sql for sql in asked if "blobs" in sql]
    turns, _ = read_chain(connection, second)
    assert len([sql for sql in asked if "blobs" in sql]) == 2
    assert [len(turn.blobs) for turn in turns] == [0, 0, 0, 2, 1]


def test_a_blob_that_is_missing_is_left_out(connection: sqlite3.Connection) -> None:
    head = keep(connection, new_turn("look", images=[b"cat"]))
    connection.execute("DELETE FROM blobs")
    turn, _ = read_turn(connection, "", head.response_id)
    assert turn is not None
    assert turn.blobs == {}
