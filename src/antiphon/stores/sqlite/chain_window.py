"""A part of a chain, for whoever pages through it: read without the rest.

Functions of a connection, like those of ``stores.sqlite.reader``.
"""

from __future__ import annotations

import math
import sqlite3
from typing import Final, TypeAlias

from antiphon.core.ids import response_key
from antiphon.stores.sqlite.reader import has_expired, owners_of, parts_of, snapshot, turn_at
from antiphon.stores.sqlite.rows import first_of_thread, last_of_turn, row_id_of
from antiphon.stores.sqlite.sql_files import TURN_SQL
from antiphon.turn.protocols import Head, StoredTurn, Window

#: The first place and the last of a part of a chain that lies in one thread.
_Span: TypeAlias = tuple[int, int]

_LONG_AGO: Final = -math.inf


def read_window(
    connection: sqlite3.Connection, head: Head, window: Window, cutoff: float = _LONG_AGO
) -> tuple[list[StoredTurn], set[int]]:
    """The turns of a window in its order, and the stores that run those without an end.

    As much work as there are turns in it, and threads in the chain.
    """
    with snapshot(connection):
        end = row_id_of(head.thread, head.seq)
        if head.timestamp <= cutoff and has_expired(connection, end, cutoff):
            return [], set()
        spans = [
            (first_of_thread(part), last_of_turn(part))
            for part in parts_of(connection, end, head.tenant)
        ]
        if window.newest_first:
            spans.reverse()
        if window.at is not None:
            key = response_key(window.at)
            found = connection.execute(TURN_SQL["place"], (key, head.tenant)).fetchall()
            spans = _from(spans, found[0][0], window) if found else []
        turns = [turn_at(connection, place) for place in _places(connection, spans, window)]
        return turns, owners_of(connection, turns)


def _from(spans: list[_Span], place: int, window: Window) -> list[_Span]:
    """What of the spans, in the window's order, begins with the turn at ``place``."""
    for number, (first, last) in enumerate(spans):
        if first <= place <= last:
            rest = (first, last_of_turn(place)) if window.newest_first else (place, last)
            return [rest, *spans[number + 1 :]]
    return []


def _places(connection: sqlite3.Connection, spans: list[_Span], window: Window) -> list[int]:
    """Where turns begin that are not erased."""
    query = TURN_SQL["headers_backwards" if window.newest_first else "headers_forwards"]
    places: list[int] = []
    for first, last in spans:
        if len(places) >= window.limit:
            break
        rows = connection.execute(query, (first, last, window.limit - len(places)))
        places += [place for (place,) in rows.fetchall()]
    return places
