"""The reads of the SQLite store: functions of a connection. Each sees one moment.

Where a turn has no end, they also name the stores that run it, so that the caller can
ask whether those are alive.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from functools import cache

from antiphon.core.ids import response_key
from antiphon.core.images import Blob
from antiphon.stores.batch import SQL
from antiphon.stores.place import (
    first_of_thread,
    last_of_thread,
    last_of_turn,
    place_of,
    seq_of,
    thread_of,
)
from antiphon.stores.rows import Row, decode_header, id_in, turns_of
from antiphon.turn.ports import Head, Recent, StoredTurn

_HEAD = SQL["head"]


def read_head(
    connection: sqlite3.Connection, tenant: str, response_id: str
) -> tuple[Head | None, set[int]]:
    """Where a response lies: a single statement, and done with when this returns."""
    rows = connection.execute(_HEAD, (response_key(response_id), tenant)).fetchall()
    if not rows:
        return None, set()
    place, tree, epoch, owner = rows[0]
    running = owner is not None
    head = Head(response_id, tenant, thread_of(place), seq_of(place), tree, epoch, running)
    return head, {owner} if running else set()


def read_turn(
    connection: sqlite3.Connection, tenant: str, response_id: str
) -> tuple[StoredTurn | None, set[int]]:
    """One turn, whole."""
    with _moment(connection):
        found = connection.execute(SQL["place"], (response_key(response_id), tenant)).fetchall()
        if not found:
            return None, set()
        place: int = found[0][0]
        before = connection.execute(SQL["before"], (place,)).fetchall()
        rows = _rows(connection, place, last_of_turn(place))
        previous = id_in(before[0][0]) if before else None
        (turn,) = turns_of(rows, previous, _blobs_of(connection))
        return turn, _runners(connection, [turn])


def read_chain(connection: sqlite3.Connection, head: Head) -> tuple[list[StoredTurn], set[int]]:
    """A response and its ancestors, oldest first: one range for each thread they lie in."""
    with _moment(connection):
        rows: list[Row] = []
        for place in _parts(connection, place_of(head.thread, head.seq), head.tenant):
            rows += _rows(connection, first_of_thread(place), last_of_turn(place))
        turns = turns_of(rows, None, _blobs_of(connection))
        return turns, _runners(connection, turns)


def read_recent(connection: sqlite3.Connection, tenant: str, limit: int) -> list[Recent]:
    """The newest turn of each of the latest threads, newest first."""
    with _moment(connection):
        threads = _latest_threads(connection, tenant, limit)
        return [_recent(connection, tenant, thread) for thread in threads]


def read_owners(connection: sqlite3.Connection) -> set[int]:
    """Every store that runs a turn, alive or not."""
    return {owner for (owner,) in connection.execute(SQL["owners"]).fetchall()}


@contextlib.contextmanager
def _moment(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN")
    try:
        yield
    finally:
        # A reader changes nothing, and must not keep its moment: checkpoints wait for it.
        connection.execute("ROLLBACK")


def _rows(connection: sqlite3.Connection, first: int, last: int) -> list[Row]:
    return connection.execute(SQL["rows"], (first, last)).fetchall()


def _blobs_of(connection: sqlite3.Connection) -> Callable[[int], Blob | None]:
    """Finds blobs by their rows' numbers, and reads each once."""

    @cache
    def find(number: int) -> Blob | None:
        rows = connection.execute(SQL["blob"], (number,)).fetchall()
        return Blob(rows[0][0].hex(), rows[0][1]) if rows else None

    return find


def _parts(connection: sqlite3.Connection, place: int, tenant: str) -> list[int]:
    found = connection.execute(SQL["parts"], (place, tenant)).fetchall()
    return [part for (part,) in found]


def _runners(connection: sqlite3.Connection, turns: list[StoredTurn]) -> set[int]:
    owners: set[int] = set()
    for turn in turns:
        if turn.end is None:
            key = response_key(turn.response_id)
            owners.update(owner for (owner,) in connection.execute(SQL["runner"], (key,)))
    return owners


def _latest_threads(connection: sqlite3.Connection, tenant: str, limit: int) -> list[int]:
    threads: dict[int, None] = {}
    cursor = connection.execute(SQL["latest"], (tenant,))
    while len(threads) < limit and (row := cursor.fetchone()) is not None:
        threads[row[0]] = None
    cursor.close()
    return list(threads)


def _recent(connection: sqlite3.Connection, tenant: str, thread: int) -> Recent:
    first = place_of(thread, 0)
    ((place, body),) = connection.execute(SQL["newest"], (first, last_of_thread(first))).fetchall()
    top = decode_header(body)
    return Recent(
        response_id=id_in(body),
        created_at=top.created_at,
        model=top.header.model,
        turns=seq_of(place) + 1,
        opening=_opening(connection, tenant, place),
    )


def _opening(connection: sqlite3.Connection, tenant: str, place: int) -> bytes | None:
    for part in _parts(connection, place, tenant):
        span = (first_of_thread(part), last_of_turn(part))
        found = connection.execute(SQL["opening"], span).fetchall()
        if found:
            item: bytes = found[0][0]
            return item
    return None
