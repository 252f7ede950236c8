"""A tenant's turns by time, a page of them at once."""

from __future__ import annotations

import math
import sqlite3
from typing import Final

import msgspec

from antiphon.core.ids import response_key
from antiphon.core.retention import Expiry
from antiphon.stores.sqlite.reader import moment, runners, turn_at, youngest_of
from antiphon.stores.sqlite.rows import MAX_THREAD, THREAD, decode_end, decode_header, last_of_turn
from antiphon.stores.sqlite.sql_files import SQL
from antiphon.turn.protocols import StoredTurn
from antiphon.turn.store_protocols import ANYTHING, Wanted, unknown_cursor

_FIRST: Final = (-math.inf, -1)
_LAST: Final = (math.inf, MAX_THREAD * THREAD)


class Page(msgspec.Struct, frozen=True):
    """A part of a list: at most ``limit``, from the one behind the id ``after`` on."""

    limit: int
    after: str | None = None
    newest_first: bool = True


def read_listing(
    connection: sqlite3.Connection, tenant: str, page: Page, wanted: Wanted, expiry: Expiry
) -> tuple[list[StoredTurn], set[int]]:
    """Turns by their stamps. Raises ``InvalidRequest`` for an ``after`` that is none."""
    with moment(connection):
        start = _LAST if page.newest_first else _FIRST
        if page.after is not None:
            start = _stamped(connection, tenant, page.after)
        cursor = connection.execute(
            SQL["backwards" if page.newest_first else "forwards"], (tenant, *start)
        )
        cutoff = expiry.cutoff(tenant)
        turns: list[StoredTurn] = []
        while len(turns) < page.limit and (row := cursor.fetchone()) is not None:
            stamp, place = row
            if not _fits(connection, place, wanted):
                continue
            if cutoff > -math.inf:
                stamp = youngest_of(connection, place) or -math.inf
                if stamp <= cutoff:
                    continue
            turn = turn_at(connection, place)
            turns.append(msgspec.structs.replace(turn, expires_at=expiry.at(tenant, stamp)))
        cursor.close()
        return turns, runners(connection, turns)


def _stamped(connection: sqlite3.Connection, tenant: str, after: str) -> tuple[float, int]:
    rows = connection.execute(SQL["stamped"], (response_key(after), tenant)).fetchall()
    if not rows:
        raise unknown_cursor(after)
    stamp, place = rows[0]
    return stamp, place


def _fits(connection: sqlite3.Connection, place: int, wanted: Wanted) -> bool:
    """Without reading a whole turn: its header and its end tell."""
    if wanted is ANYTHING:
        return True
    ((top,),) = connection.execute(SQL["body"], (place,)).fetchall()
    end = connection.execute(SQL["body"], (last_of_turn(place),)).fetchall()
    return wanted.fits(decode_header(top).header, decode_end(end[0][0]) if end else None)
