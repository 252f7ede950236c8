"""A tenant's turns by time, a page of them at once."""

from __future__ import annotations

import math
import sqlite3
from typing import Final

import msgspec

from antiphon.core.ids import response_key
from antiphon.core.retention import Expiry
from antiphon.stores.sqlite.reader import latest_timestamp, owners_of, snapshot, turn_at
from antiphon.stores.sqlite.rows import (
    MAX_THREAD,
    THREAD_STRIDE,
    decode_end,
    decode_header,
    last_of_turn,
)
from antiphon.stores.sqlite.sql_files import TURN_SQL
from antiphon.turn.protocols import StoredTurn
from antiphon.turn.store_protocols import NO_FILTER, ResponseFilter, unknown_cursor

_BEFORE_FIRST: Final = (-math.inf, -1)
_AFTER_LAST: Final = (math.inf, MAX_THREAD * THREAD_STRIDE)


class PageRequest(msgspec.Struct, frozen=True):
    """A part of a list: at most ``limit``, from the one behind the id ``after`` on."""

    limit: int
    after: str | None = None
    newest_first: bool = True


def read_responses(
    connection: sqlite3.Connection,
    tenant: str,
    page: PageRequest,
    response_filter: ResponseFilter,
    expiry: Expiry,
) -> tuple[list[StoredTurn], set[int]]:
    """Turns by their stamps. Raises ``InvalidRequestError`` for an ``after`` that is none."""
    with snapshot(connection):
        start = _AFTER_LAST if page.newest_first else _BEFORE_FIRST
        if page.after is not None:
            start = _sort_key_of(connection, tenant, page.after)
        cursor = connection.execute(
            TURN_SQL["backwards" if page.newest_first else "forwards"], (tenant, *start)
        )
        cutoff = expiry.cutoff(tenant)
        turns: list[StoredTurn] = []
        while len(turns) < page.limit and (row := cursor.fetchone()) is not None:
            stamp, place = row
            if not _matches_filter(connection, place, response_filter):
                continue
            if cutoff > -math.inf:
                stamp = latest_timestamp(connection, place) or -math.inf
                if stamp <= cutoff:
                    continue
            turn = turn_at(connection, place)
            turns.append(msgspec.structs.replace(turn, expires_at=expiry.expires_at(tenant, stamp)))
        cursor.close()
        return turns, owners_of(connection, turns)


def _sort_key_of(connection: sqlite3.Connection, tenant: str, after: str) -> tuple[float, int]:
    rows = connection.execute(TURN_SQL["stamped"], (response_key(after), tenant)).fetchall()
    if not rows:
        raise unknown_cursor(after)
    stamp, place = rows[0]
    return stamp, place


def _matches_filter(
    connection: sqlite3.Connection, row_id: int, response_filter: ResponseFilter
) -> bool:
    """Without reading a whole turn: its header and its end tell."""
    if response_filter is NO_FILTER:
        return True
    ((top,),) = connection.execute(TURN_SQL["body"], (row_id,)).fetchall()
    end = connection.execute(TURN_SQL["body"], (last_of_turn(row_id),)).fetchall()
    return response_filter.matches(
        decode_header(top).header, decode_end(end[0][0]) if end else None
    )
