"""Indexing: turns that wait become chunks.

A plan is read and its words are split in a reader's thread; the writer only puts it in place,
if nothing that it was made from has changed since. Small chunks are taken into larger ones as
numbers are in binary counting: a turn is indexed again at most eight times, and a tenant has
at most eight chunks that are not half full, however few turns come at a time.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterable
from typing import Final

import msgspec

from antiphon.stores.full_text import text_of_items
from antiphon.stores.sqlite.reader import moment
from antiphon.stores.sqlite.search.segment import FULL, Chunk, Spoken, chunk_of, spots_in
from antiphon.stores.sqlite.sql_files import named, read_sql
from antiphon.stores.sqlite.write_transaction import Batch

SQL: Final = named(read_sql("search.sql"))
_TIME = struct.Struct(">d")


class Plan(msgspec.Struct, frozen=True):
    """The next chunks, each with its tenant, and what they were made from.

    ``waiting`` are places and marks, ``merged`` the ids and secrets of chunks that go up in
    the new ones. ``last``: no other turns waited.
    """

    chunks: tuple[tuple[str, Chunk], ...]
    waiting: tuple[tuple[int, int], ...]
    merged: tuple[tuple[int, bytes], ...]
    last: bool


class _Found(msgspec.Struct):
    """A tenant's turns that are to be indexed, before their words are split."""

    turns: list[Spoken]
    merged: list[tuple[int, bytes]]


def read_plan(connection: sqlite3.Connection, tenant: str | None, least: int) -> Plan | None:
    """What to do for a tenant, or (None) for all; None: fewer than ``least`` turns wait."""
    with moment(connection):
        # Asked most often, and mostly in vain.
        if connection.execute(SQL["some_wait"], (least,)).fetchall()[0][0] < least:
            return None
        rows = connection.execute(SQL["waiting"], {"tenant": tenant, "limit": FULL}).fetchall()
        founds: dict[str, _Found] = {}
        for place, _, owner, time in rows:
            if time is not None:
                found = founds.setdefault(owner, _Found([], []))
                found.turns.append(_spoken(connection, place, _TIME.unpack(time)[0]))
        for owner, found in founds.items():
            _add_smaller(connection, owner, found)
    if not rows:
        return None
    chunks = [(owner, chunk_of(found.turns)) for owner, found in founds.items()]
    return Plan(
        chunks=tuple([(owner, chunk) for owner, chunk in chunks if chunk is not None]),
        waiting=tuple([row[:2] for row in rows]),
        merged=tuple([one for found in founds.values() for one in found.merged]),
        last=len(rows) < FULL,
    )


def carry_out(batch: Batch, plan: Plan) -> bool:
    """Put the plan's chunks in place. False: what it was made from is not so any more."""
    connection = batch.connection
    if not _holds(connection, "still_waits", plan.waiting):
        return False
    if not _holds(connection, "still_there", plan.merged):
        return False
    for chunk_id, _ in plan.merged:
        # Its turns wait again, until the end of this.
        connection.execute(SQL["dissolve"], (chunk_id,))
    for tenant, chunk in plan.chunks:
        size = (len(chunk.places), chunk.words)
        row = (tenant, *size, chunk.secret, chunk.drawers, chunk.spots)
        number = connection.execute(SQL["add_chunk"], row).lastrowid
        drawers = [(number, drawer, body) for drawer, body in chunk.bodies]
        connection.executemany(SQL["add_drawer"], drawers)
        places = [(number, place) for place in chunk.places]
        connection.executemany(SQL["add_place"], places)
        connection.executemany(SQL["served"], [(place,) for place in chunk.places])
    connection.executemany(SQL["served"], [(place,) for place, _ in plan.waiting])
    return True


def text_at(connection: sqlite3.Connection, place: int) -> str:
    """What was said in the turn that begins there."""
    return text_of_items(body for (body,) in connection.execute(SQL["items"], {"place": place}))


def _spoken(connection: sqlite3.Connection, place: int, created_at: float) -> Spoken:
    return Spoken(place, created_at, text_at(connection, place))


def _add_smaller(connection: sqlite3.Connection, tenant: str, found: _Found) -> None:
    """Take a tenant's newest chunks along, while they are no larger than what there is."""
    newest = connection.execute(SQL["newest_chunks"], (tenant, FULL)).fetchall()
    for chunk_id, turns, secret in newest:
        if turns > len(found.turns) or turns + len(found.turns) > FULL:
            break
        found.merged.append((chunk_id, secret))
        ((spots,),) = connection.execute(SQL["spots"], (chunk_id,)).fetchall()
        found.turns += [_spoken(connection, place, time) for place, time, _ in spots_in(spots)]


def _holds(
    connection: sqlite3.Connection, query: str, values: Iterable[tuple[object, ...]]
) -> bool:
    return all(connection.execute(SQL[query], row).fetchall() for row in values)
