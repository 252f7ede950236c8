"""Retention sweep: erases expired turns, images and conversations, a little at a time.

All descendants of an expired turn have expired, too, so no tombstones are needed. Turns are
erased from the end of a chain to its beginning: what is left in between is still a chain.
"""

from __future__ import annotations

import math
import sqlite3
import time
from typing import Final, TypeAlias

from antiphon.core.ids import conversation_id_of, conversation_key
from antiphon.stores.sqlite.deletion import (
    delete_conversation,
    delete_rows,
    delete_unused_blobs,
    descendant_ranges,
)
from antiphon.stores.sqlite.reader import (
    CONVERSATION_SQL,
    has_expired,
    resolve_conversation,
    snapshot,
)
from antiphon.stores.sqlite.rows import TURN_STRIDE, RowRange, thread_of
from antiphon.stores.sqlite.sql_files import TURN_SQL
from antiphon.stores.sqlite.write_transaction import WriteTransaction

#: A turn's timestamp and row id: where a scan of turns continues.
ScanPosition: TypeAlias = tuple[float, int]
SCAN_START: Final = (-math.inf, -1)

#: How many seconds one transaction erases; other writes wait that long.
MAX_SWEEP_SECONDS: Final = 0.01
#: Turns erased between two checks of the clock, and turns scanned by one read.
_TURNS_PER_STEP: Final = 16
_SCAN_LIMIT: Final = 500


def read_tenants(connection: sqlite3.Connection) -> list[str]:
    """All tenants with a turn or a conversation."""
    tenants: set[str] = set()
    for query in (TURN_SQL["next_tenant"], CONVERSATION_SQL["next_tenant"]):
        least = ""
        while rows := connection.execute(query, (least,)).fetchall():
            tenants.add(rows[0][0])
            # The smallest text that is greater.
            least = rows[0][0] + "\0"
    return sorted(tenants)


def read_expired_turns(
    connection: sqlite3.Connection, tenant: str, cutoff: float, after: ScanPosition
) -> tuple[list[int], ScanPosition | None]:
    """Turns that have expired, and where to continue the scan; None: it is complete."""
    with snapshot(connection):
        rows = connection.execute(
            TURN_SQL["older_turns"], (tenant, cutoff, *after, _SCAN_LIMIT)
        ).fetchall()
        expired = []
        alive: dict[int, bool] = {}
        for _, row_id in rows:
            thread = thread_of(row_id)
            if thread not in alive:
                alive[thread] = _is_thread_alive(connection, thread, cutoff)
            if not alive[thread] and has_expired(connection, row_id, cutoff):
                expired.append(row_id)
        return expired, rows[-1] if len(rows) == _SCAN_LIMIT else None


def _is_thread_alive(connection: sqlite3.Connection, thread: int, cutoff: float) -> bool:
    """Whether a thread's last turn has not expired: then none of the thread has."""
    rows = connection.execute(TURN_SQL["last_timestamp"], {"thread": thread}).fetchall()
    return bool(rows) and rows[0][0] > cutoff


def sweep_turns(
    transaction: WriteTransaction, row_ids: list[int], cutoff: float
) -> tuple[int, list[int]]:
    """Erase expired turns for at most 10 ms: how many, and the row ids that are left."""
    transaction.flush()
    deadline = time.monotonic() + MAX_SWEEP_SECONDS
    left = row_ids[::-1]
    swept = 0
    while left:
        more, done = _sweep_descendants(transaction, left[-1], cutoff, deadline)
        swept += more
        if done:
            left.pop()
        if time.monotonic() > deadline:
            break
    if left:
        transaction.erases_more = True
    elif swept:
        transaction.has_erased = True
    return swept, left[::-1]


def _sweep_descendants(
    transaction: WriteTransaction, row_id: int, cutoff: float, deadline: float
) -> tuple[int, bool]:
    """Erase a turn and its descendants, these first: how many, and whether all."""
    connection = transaction.connection
    if not has_expired(connection, row_id, cutoff):
        # It has been continued since.
        return 0, True
    row_ranges = descendant_ranges(connection, row_id)
    places = connection.execute(TURN_SQL["place"], (row_id,)).fetchall()
    trees = connection.execute(TURN_SQL["tree_of"], (thread_of(row_id),)).fetchall()
    if any(
        connection.execute(TURN_SQL["running_in"], row_range).fetchall() for row_range in row_ranges
    ):
        return 0, True
    swept = 0
    for row_range in reversed(row_ranges):
        while (last := _last_turn(connection, row_range)) is not None:
            swept += _delete_range(
                transaction,
                (max(row_range[0], last - (_TURNS_PER_STEP - 1) * TURN_STRIDE), row_range[1]),
            )
            if time.monotonic() > deadline:
                return swept, False
        connection.execute(TURN_SQL["delete_thread"], {"thread": thread_of(row_range[0])})
    for key, tenant, tree in places:
        transaction.changes.add_erasure(tenant, tree, key, cascade=True)
    transaction.settle_chats()
    for (tree,) in trees:
        connection.execute(TURN_SQL["delete_epoch"], {"tree": tree})
    return swept, True


def _last_turn(connection: sqlite3.Connection, row_range: RowRange) -> int | None:
    rows = connection.execute(TURN_SQL["last_turn"], row_range).fetchall()
    return rows[0][0] if rows else None


def _delete_range(transaction: WriteTransaction, row_range: RowRange) -> int:
    """Delete the rows; how many turns that were not erased before."""
    connection, erased = transaction.connection, transaction.erased
    ((turns,),) = connection.execute(TURN_SQL["turns_in"], row_range).fetchall()
    delete_unused_blobs(connection, delete_rows(connection, row_range, erased), erased)
    number: int = turns
    return number


def read_expired_conversations(
    connection: sqlite3.Connection, tenant: str, cutoff: float
) -> list[str]:
    """The ids of conversations that have expired."""
    with snapshot(connection):
        rows = connection.execute(CONVERSATION_SQL["created_before"], (tenant, cutoff)).fetchall()
        ids = [conversation_id_of(key) for (key,) in rows]
        return [
            conversation_id
            for conversation_id in ids
            if resolve_conversation(connection, tenant, conversation_id, cutoff)[0] is None
        ]


def sweep_conversations(
    transaction: WriteTransaction, tenant: str, ids: list[str], cutoff: float
) -> None:
    """Erase those of the conversations that are still expired."""
    transaction.flush()
    for conversation_id in ids:
        if resolve_conversation(transaction.connection, tenant, conversation_id, cutoff)[0] is None:
            key = conversation_key(conversation_id) or b""
            deleted = delete_conversation(transaction.connection, key, transaction.erased)
            if deleted:
                transaction.changes.add_conversation("conversation.erased", tenant, conversation_id)
            transaction.has_erased = transaction.has_erased or deleted > 0


def read_next_expiry(connection: sqlite3.Connection, tenant: str, cutoff: float) -> float:
    """The timestamp of what expires next, of all that has not; inf: there is nothing.

    What is older than ``cutoff`` and lives does so by a descendant, which is younger.
    """
    with snapshot(connection):
        timestamps = [
            connection.execute(query, (tenant, cutoff)).fetchall()[0][0]
            for query in (TURN_SQL["next_timestamp"], CONVERSATION_SQL["next_created"])
        ]
    return min([timestamp for timestamp in timestamps if timestamp is not None], default=math.inf)
