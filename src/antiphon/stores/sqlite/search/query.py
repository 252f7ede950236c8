"""Finding: from a query to the turns that hold all of it, the best first.

Each chunk of the tenant is asked for each term. That is done a chunk at a time, in small
steps that let other threads run: a search among a million turns must not hold up those turns
that are being told.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterator
from typing import TypeAlias

import msgspec

from antiphon.core.ids import response_id_of, response_key
from antiphon.stores.full_text import Query, Scale, excerpt_of, scale_of, score
from antiphon.stores.sqlite.reader import has_expired, moment
from antiphon.stores.sqlite.response_list import Page
from antiphon.stores.sqlite.rows import decode_header
from antiphon.stores.sqlite.search.indexing import SQL, text_at
from antiphon.stores.sqlite.search.segment import counts_in, found_in, hash_of, spots_in
from antiphon.stores.sqlite.sql_files import SQL as TURNS
from antiphon.turn.store_protocols import Hit, unknown_cursor

#: Minus the score, minus the time, and where it lies: the least is the best.
_Candidate: TypeAlias = tuple[float, float, int]


class _Matches(msgspec.Struct, frozen=True):
    """The chunks that hold all terms of a query, each with what it has of every term."""

    scale: Scale
    chunks: list[tuple[int, list[bytes]]]


def read_hits(
    connection: sqlite3.Connection, tenant: str, query: Query, page: Page, cutoff: float
) -> list[Hit]:
    """A page of the turns that hold all of ``query`` and have not expired by ``cutoff``.

    Raises ``InvalidRequest`` where it begins behind one that is not among them.
    """
    hits: list[Hit] = []
    with moment(connection):
        matches = _matches(connection, tenant, query)
        ranked = [_ranked(connection, *chunk, matches.scale) for chunk in matches.chunks]
        best = heapq.merge(*ranked)
        if page.after is not None:
            _skip(connection, tenant, best, page.after, cutoff)
        for _, _, place in best:
            if len(hits) == page.limit:
                break
            hit = _hit(connection, place, query)
            if hit is not None and not has_expired(connection, place, cutoff):
                hits.append(hit)
    return hits


def _matches(connection: sqlite3.Connection, tenant: str, query: Query) -> _Matches:
    turns = words = 0
    holding = [0] * len(query.terms)
    chunks: list[tuple[int, list[bytes]]] = []
    for chunk, its_turns, its_words, secret, drawers in connection.execute(
        SQL["chunks"], (tenant,)
    ).fetchall():
        turns += its_turns
        words += its_words
        found = [_found(connection, chunk, *hash_of(term, secret, drawers)) for term in query.terms]
        for number, held in enumerate(found):
            holding[number] += len(held) // 2
        if all(found):
            chunks.append((chunk, found))
    return _Matches(scale_of(turns, words, holding), chunks)


def _found(connection: sqlite3.Connection, chunk: int, drawer: int, name: bytes) -> bytes:
    rows = connection.execute(SQL["drawer"], (chunk, drawer)).fetchall()
    return found_in(rows[0][0], name) if rows else b""


def _ranked(
    connection: sqlite3.Connection, chunk: int, found: list[bytes], scale: Scale
) -> list[_Candidate]:
    """The turns of a chunk that hold all terms, the best first."""
    held = [counts_in(one) for one in found]
    both = set(held[0]).intersection(*held[1:])
    if not both:
        return []
    ((data,),) = connection.execute(SQL["spots"], (chunk,)).fetchall()
    spots = spots_in(data)
    ranked: list[_Candidate] = []
    for number in both:
        place, created_at, words = spots[number]
        good = score(scale, [counts[number] for counts in held], words)
        ranked.append((-good, -created_at, place))
    ranked.sort()
    return ranked


def _skip(
    connection: sqlite3.Connection,
    tenant: str,
    best: Iterator[_Candidate],
    after: str,
    cutoff: float,
) -> None:
    """Leave out all up to the response ``after``.

    Raises ``InvalidRequest`` where it is not there.
    """
    for (last,) in connection.execute(TURNS["place"], (response_key(after), tenant)).fetchall():
        if not has_expired(connection, last, cutoff) and any(place == last for _, _, place in best):
            return
    raise unknown_cursor(after)


def _hit(connection: sqlite3.Connection, place: int, query: Query) -> Hit | None:
    excerpt = excerpt_of(text_at(connection, place), query)
    if excerpt is None:
        return None
    ((body,),) = connection.execute(SQL["header"], (place,)).fetchall()
    top = decode_header(body)
    return Hit(response_id_of(top.key), top.created_at, excerpt, top.header.conversation)
