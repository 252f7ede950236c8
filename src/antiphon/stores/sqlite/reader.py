"""The reads of the SQLite store: functions of a connection. Each sees one moment.

Where a turn has no end, they also name the stores that run it, so that the caller can
ask whether those are alive.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections.abc import Callable, Iterator
from functools import cache

import msgspec

from antiphon.core.ids import response_key
from antiphon.core.images import Blob
from antiphon.core.retention import NO_EXPIRY, Expiry
from antiphon.stores.sqlite.rows import (
    Row,
    decode_header,
    decode_turns,
    first_of_thread,
    last_of_turn,
    response_id_in,
    row_id_of,
    seq_of,
    thread_of,
)
from antiphon.stores.sqlite.sql_files import TURN_SQL
from antiphon.turn.protocols import Head, RecentThread, StoredTurn

_HEAD = TURN_SQL["head"]
#: Nothing has expired by it.
_NO_CUTOFF = -math.inf


def read_head(
    connection: sqlite3.Connection, tenant: str, response_id: str, cutoff: float = _NO_CUTOFF
) -> tuple[Head | None, set[int]]:
    """Where a response lies: a single statement, and done with when this returns."""
    rows = connection.execute(_HEAD, (response_key(response_id), tenant)).fetchall()
    if not rows:
        return None, set()
    place, tree, epoch, owner, stamp = rows[0]
    if stamp <= cutoff and has_expired(connection, place, cutoff):
        return None, set()
    running = owner is not None
    head = Head(response_id, tenant, thread_of(place), seq_of(place), tree, epoch, running, stamp)
    return head, {owner} if running else set()


def has_expired(connection: sqlite3.Connection, row_id: int, cutoff: float) -> bool:
    """Whether no descendant keeps a turn alive whose own stamp is no later than ``cutoff``.

    True for what was erased, too.
    """
    return not connection.execute(TURN_SQL["lives"], {"place": row_id, "cutoff": cutoff}).fetchall()


def latest_timestamp(connection: sqlite3.Connection, row_id: int) -> float | None:
    """The latest stamp among a turn and its descendants; None: all of them are erased."""
    stamp: float | None = connection.execute(TURN_SQL["youngest"], {"place": row_id}).fetchall()[0][
        0
    ]
    return stamp


def read_turn(
    connection: sqlite3.Connection, tenant: str, response_id: str, expiry: Expiry = NO_EXPIRY
) -> tuple[StoredTurn | None, set[int]]:
    """One turn, whole, and when it expires."""
    with snapshot(connection):
        found = connection.execute(
            TURN_SQL["place"], (response_key(response_id), tenant)
        ).fetchall()
        if not found:
            return None, set()
        place: int = found[0][0]
        expires_at = None
        if (cutoff := expiry.cutoff(tenant)) > _NO_CUTOFF:
            youngest = latest_timestamp(connection, place)
            if youngest is None or youngest <= cutoff:
                return None, set()
            expires_at = expiry.expires_at(tenant, youngest)
        turn = msgspec.structs.replace(turn_at(connection, place), expires_at=expires_at)
        return turn, owners_of(connection, [turn])


def turn_at(connection: sqlite3.Connection, row_id: int) -> StoredTurn:
    """The turn that begins there, whenever it expires."""
    before = connection.execute(TURN_SQL["above"], {"place": row_id}).fetchall()
    rows = _read_rows(connection, row_id, last_of_turn(row_id))
    (turn,) = decode_turns(
        rows, response_id_in(before[0][2]) if before else None, _blob_finder(connection)
    )
    return turn


def read_chain(
    connection: sqlite3.Connection, head: Head, cutoff: float = _NO_CUTOFF
) -> tuple[list[StoredTurn], set[int]]:
    """A response and its ancestors, oldest first: one range for each thread they lie in."""
    with snapshot(connection):
        end = row_id_of(head.thread, head.seq)
        if head.timestamp <= cutoff and has_expired(connection, end, cutoff):
            return [], set()
        rows: list[Row] = []
        for place in parts_of(connection, end, head.tenant):
            rows += _read_rows(connection, first_of_thread(place), last_of_turn(place))
        turns = decode_turns(rows, None, _blob_finder(connection))
        return turns, owners_of(connection, turns)


def read_recent_threads(
    connection: sqlite3.Connection, tenant: str, limit: int, cutoff: float = _NO_CUTOFF
) -> list[RecentThread]:
    """The newest turn of each of the latest threads, newest first."""
    with snapshot(connection):
        latest = _latest_of_threads(connection, tenant, limit, cutoff)
        return [_read_recent_thread(connection, tenant, place) for place in latest]


def read_owners(connection: sqlite3.Connection) -> set[int]:
    """Every store that runs a turn, alive or not."""
    return {owner for (owner,) in connection.execute(TURN_SQL["owners"]).fetchall()}


@contextlib.contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """What is read within sees the database as it is at the first of it."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        # A reader changes nothing, and must not keep its moment: checkpoints wait for it.
        connection.execute("ROLLBACK")


def _read_rows(connection: sqlite3.Connection, first: int, last: int) -> list[Row]:
    return connection.execute(TURN_SQL["rows"], (first, last)).fetchall()


def _blob_finder(connection: sqlite3.Connection) -> Callable[[int], Blob | None]:
    """Finds blobs by their rows' numbers, and reads each once."""

    @cache
    def find(number: int) -> Blob | None:
        rows = connection.execute(TURN_SQL["blob"], (number,)).fetchall()
        return Blob(rows[0][0].hex(), rows[0][1]) if rows else None

    return find


def parts_of(connection: sqlite3.Connection, place: int, tenant: str) -> list[int]:
    """The last place of each part of the chain that ends at ``place``, oldest first."""
    found = connection.execute(TURN_SQL["parts"], {"place": place, "tenant": tenant}).fetchall()
    return [part for (part,) in found]


def owners_of(connection: sqlite3.Connection, turns: list[StoredTurn]) -> set[int]:
    """The stores that run those of the turns that have no end."""
    owners: set[int] = set()
    for turn in turns:
        if turn.end is None:
            key = response_key(turn.response_id)
            owners.update(owner for (owner,) in connection.execute(TURN_SQL["runner"], (key,)))
    return owners


def _latest_of_threads(
    connection: sqlite3.Connection, tenant: str, limit: int, cutoff: float
) -> list[int]:
    #: The first of a thread's turns to come is its last.
    latest: dict[int, int] = {}
    cursor = connection.execute(TURN_SQL["latest"], (tenant,))
    while len(latest) < limit and (row := cursor.fetchone()) is not None:
        place, stamp = row
        if thread_of(place) in latest:
            continue
        if stamp > cutoff or not has_expired(connection, place, cutoff):
            latest[thread_of(place)] = place
    cursor.close()
    return list(latest.values())


def _read_recent_thread(connection: sqlite3.Connection, tenant: str, row_id: int) -> RecentThread:
    ((body,),) = connection.execute(TURN_SQL["body"], (row_id,)).fetchall()
    top = decode_header(body)
    return RecentThread(
        response_id=response_id_in(body),
        created_at=top.created_at,
        model=top.header.model,
        turns=seq_of(row_id) + 1,
        first_item=_first_item(connection, tenant, row_id),
    )


def _first_item(connection: sqlite3.Connection, tenant: str, row_id: int) -> bytes | None:
    for part in parts_of(connection, row_id, tenant):
        span = (first_of_thread(part), last_of_turn(part))
        found = connection.execute(TURN_SQL["opening"], span).fetchall()
        if found:
            item: bytes = found[0][0]
            return item
    return None
