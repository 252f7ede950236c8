"""Pending turns: those that have ended and are in no segment yet, read with their items.

One statement reads the items of all, and no more than some megabytes of them at once: a segment
of long turns holds fewer.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from antiphon.stores.sqlite.search.segment import MAX_SEGMENT_TURNS, IndexedTurn
from antiphon.stores.sqlite.sql_files import read_queries

SEARCH_SQL: Final = read_queries("search.sql")

#: How many bytes of items are read at once; a turn is read whole.
_MAX_ITEM_BYTES: Final = 4 << 20
_TIME: Final = struct.Struct(">d")


class PendingTurns(msgspec.Struct, frozen=True):
    """Pending turns: all that were looked at, by row id with their revisions, and what they hold.

    ``by_tenant`` leaves out those that were erased. ``is_last``: no others are pending.
    """

    revisions: dict[int, int]
    by_tenant: dict[str, list[IndexedTurn]]
    is_last: bool


def read_pending_turns(
    connection: sqlite3.Connection, tenant: str | None, tree: int | None = None
) -> PendingTurns:
    """Up to a segment's worth of pending turns; of one tenant or chat, the newest first."""
    name = "pending_turns" if tenant is None else "pending_turns_of"
    if tree is not None:
        name = "pending_turns_in"
    values = {"tenant": tenant, "tree": tree, "limit": MAX_SEGMENT_TURNS}
    rows = connection.execute(SEARCH_SQL[name], values).fetchall()
    living = [(row_id, time) for row_id, _, _, time in rows if time is not None]
    turns = read_indexed_turns(
        connection, [(row_id, _TIME.unpack(time)[0]) for row_id, time in living]
    )
    unread = {row_id for row_id, _ in living[len(turns) :]}
    by_tenant: dict[str, list[IndexedTurn]] = {}
    tenants = {row_id: owner for row_id, _, owner, _ in rows}
    for turn in turns:
        by_tenant.setdefault(tenants[turn.row_id], []).append(turn)
    return PendingTurns(
        revisions={row_id: revision for row_id, revision, _, _ in rows if row_id not in unread},
        by_tenant=by_tenant,
        is_last=len(rows) < MAX_SEGMENT_TURNS and not unread,
    )


def read_indexed_turns(
    connection: sqlite3.Connection, turns: Sequence[tuple[int, float]]
) -> list[IndexedTurn]:
    """The turns of these row ids and times with their items: the first of them, at least one."""
    found: list[IndexedTurn] = []
    size = 0
    cursor = connection.execute(SEARCH_SQL["items_of"], (as_json(row_id for row_id, _ in turns),))
    for (row_id, created_at), (items,) in zip(turns, cursor, strict=False):
        found.append(IndexedTurn(row_id, created_at, tuple(items.split(b"\x1e")) if items else ()))
        size += len(items or b"")
        if size > _MAX_ITEM_BYTES:
            break
    cursor.close()
    return found


def as_json(numbers: Iterable[int]) -> str:
    """Numbers as SQLite's ``json_each`` reads them."""
    return msgspec.json.encode(list(numbers)).decode()
