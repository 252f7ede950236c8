"""Erasing what has expired: rows, images and conversations, a little at a time.

What has expired, all that hangs on it has too, so nothing need be left in its place. Turns go
from the end of a chain to its beginning: what lies there in between is a chain still.
"""

from __future__ import annotations

import math
import sqlite3
import time
from typing import Final, TypeAlias

from antiphon.core.ids import conversation_id_of, conversation_key
from antiphon.stores.sqlite.conversation_reader import CONVERSATIONS, resolved
from antiphon.stores.sqlite.deletion import Span, family, let_go, remove
from antiphon.stores.sqlite.reader import has_expired, moment
from antiphon.stores.sqlite.rows import TURN, thread_of
from antiphon.stores.sqlite.sql_files import SQL
from antiphon.stores.sqlite.write_transaction import Batch

#: A turn's stamp and place, or where a look at turns begins.
Spot: TypeAlias = tuple[float, int]
START: Final = (-math.inf, -1)

#: How long one transaction goes on erasing; others wait that long to be written.
_SECONDS: Final = 0.02
#: Turns erased between two looks at the clock, and turns looked at in one go.
_TURNS: Final = 16
_LOOK: Final = 500


def read_tenants(connection: sqlite3.Connection) -> list[str]:
    """Everyone who has a turn or a conversation."""
    tenants: set[str] = set()
    for query in (SQL["next_tenant"], CONVERSATIONS["next_tenant"]):
        least = ""
        while rows := connection.execute(query, (least,)).fetchall():
            tenants.add(rows[0][0])
            # The least text that is greater.
            least = rows[0][0] + "\0"
    return sorted(tenants)


def read_expired(
    connection: sqlite3.Connection, tenant: str, cutoff: float, after: Spot
) -> tuple[list[int], Spot | None]:
    """Turns that have expired, and where to look on; None: that was all."""
    with moment(connection):
        rows = connection.execute(SQL["older"], (tenant, cutoff, *after, _LOOK)).fetchall()
        expired = []
        alive: dict[int, bool] = {}
        for _, place in rows:
            thread = thread_of(place)
            if thread not in alive:
                alive[thread] = _lives(connection, thread, cutoff)
            if not alive[thread] and has_expired(connection, place, cutoff):
                expired.append(place)
        return expired, rows[-1] if len(rows) == _LOOK else None


def _lives(connection: sqlite3.Connection, thread: int, cutoff: float) -> bool:
    """Whether a thread's last turn is young: then all of the thread is alive."""
    rows = connection.execute(SQL["last_stamp"], {"thread": thread}).fetchall()
    return bool(rows) and rows[0][0] > cutoff


def sweep_turns(batch: Batch, places: list[int], cutoff: float) -> tuple[int, list[int]]:
    """Erase expired turns for a moment: how many went, and which places are left to do."""
    batch.flush()
    deadline = time.monotonic() + _SECONDS
    left = places[::-1]
    swept = 0
    while left:
        more, done = _sweep_family(batch.connection, left[-1], cutoff, deadline)
        swept += more
        if done:
            left.pop()
        if time.monotonic() > deadline:
            break
    batch.erased = batch.erased or swept > 0
    return swept, left[::-1]


def _sweep_family(
    connection: sqlite3.Connection, place: int, cutoff: float, deadline: float
) -> tuple[int, bool]:
    """Erase a turn and its descendants, these first: how many, and whether that is done."""
    if not has_expired(connection, place, cutoff):
        # Someone went on from it since.
        return 0, True
    spans = family(connection, place)
    if any(connection.execute(SQL["running_in"], span).fetchall() for span in spans):
        return 0, True
    swept = 0
    for span in reversed(spans):
        while (last := _last_turn(connection, span)) is not None:
            swept += _remove(connection, (max(span[0], last - (_TURNS - 1) * TURN), span[1]))
            if time.monotonic() > deadline:
                return swept, False
        connection.execute(SQL["drop_thread"], {"thread": thread_of(span[0])})
        connection.execute(SQL["drop_epoch"], {"tree": thread_of(span[0])})
    return swept, True


def _last_turn(connection: sqlite3.Connection, span: Span) -> int | None:
    rows = connection.execute(SQL["last_turn"], span).fetchall()
    return rows[0][0] if rows else None


def _remove(connection: sqlite3.Connection, span: Span) -> int:
    """How many turns that were not erased before."""
    ((turns,),) = connection.execute(SQL["turns_in"], span).fetchall()
    let_go(connection, remove(connection, span))
    number: int = turns
    return number


def read_expired_conversations(
    connection: sqlite3.Connection, tenant: str, cutoff: float
) -> list[str]:
    """The ids of conversations that have expired."""
    with moment(connection):
        rows = connection.execute(CONVERSATIONS["made_before"], (tenant, cutoff)).fetchall()
        ids = [conversation_id_of(key) for (key,) in rows]
        return [one for one in ids if resolved(connection, tenant, one, cutoff)[0] is None]


def sweep_conversations(batch: Batch, tenant: str, ids: list[str], cutoff: float) -> None:
    """Erase those of the conversations that have expired still."""
    batch.flush()
    for one in ids:
        if resolved(batch.connection, tenant, one, cutoff)[0] is None:
            drop = batch.connection.execute(CONVERSATIONS["drop"], (conversation_key(one),))
            batch.erased = batch.erased or drop.rowcount > 0


def read_next_expiry(connection: sqlite3.Connection, tenant: str, cutoff: float) -> float:
    """The stamp of what expires next, of all that has not; inf: there is nothing.

    What is older than ``cutoff`` and lives does so by a descendant, which is younger.
    """
    with moment(connection):
        stamps = [
            connection.execute(query, (tenant, cutoff)).fetchall()[0][0]
            for query in (SQL["next_stamp"], CONVERSATIONS["next_made"])
        ]
    return min([stamp for stamp in stamps if stamp is not None], default=math.inf)
