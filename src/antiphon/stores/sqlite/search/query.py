"""Finding: from a query to the turns that hold all of it, the best first.

Each chunk of the tenant is asked for each term. That is done a chunk at a time, in small
steps that let other threads run: a search among a million turns must not hold up those turns
that are being told.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterator
from typing import Final, TypeAlias

import msgspec

from antiphon.core.ids import response_id_of, response_key
from antiphon.stores.full_text import (
    Bm25Weights,
    SearchQuery,
    bm25_score,
    bm25_weights,
    build_excerpt,
    searchable_text,
)
from antiphon.stores.sqlite.reader import PageRequest, has_expired, snapshot
from antiphon.stores.sqlite.rows import decode_header
from antiphon.stores.sqlite.search.segment import (
    decode_postings,
    decode_turn_entries,
    find_postings,
    hash_term,
)
from antiphon.stores.sqlite.sql_files import TURN_SQL, parse_queries, read_sql
from antiphon.turn.store_protocols import SearchHit, unknown_cursor

SEARCH_SQL: Final = parse_queries(read_sql("search.sql"))

#: Minus the score, minus the time, and where it lies: the least is the best.
_Candidate: TypeAlias = tuple[float, float, int]


class _Matches(msgspec.Struct, frozen=True):
    """The chunks that hold all terms of a query, each with what it has of every term."""

    weights: Bm25Weights
    index_segments: list[tuple[int, list[bytes]]]


def read_hits(
    connection: sqlite3.Connection,
    tenant: str,
    query: SearchQuery,
    page: PageRequest,
    cutoff: float,
) -> list[SearchHit]:
    """A page of the turns that hold all of ``query`` and have not expired by ``cutoff``.

    Raises ``InvalidRequestError`` where it begins behind one that is not among them.
    """
    hits: list[SearchHit] = []
    with snapshot(connection):
        matches = _matches(connection, tenant, query)
        ranked = [
            _rank_segment(connection, *chunk, matches.weights) for chunk in matches.index_segments
        ]
        best = heapq.merge(*ranked)
        if page.after is not None:
            _skip_through(connection, tenant, best, page.after, cutoff)
        for _, _, place in best:
            if len(hits) == page.limit:
                break
            hit = _build_hit(connection, place, query)
            if hit is not None and not has_expired(connection, place, cutoff):
                hits.append(hit)
    return hits


def text_at(connection: sqlite3.Connection, row_id: int) -> str:
    """What was said in the turn that begins there."""
    return searchable_text(
        body for (body,) in connection.execute(SEARCH_SQL["items"], {"row_id": row_id})
    )


def _matches(connection: sqlite3.Connection, tenant: str, query: SearchQuery) -> _Matches:
    turns = words = 0
    holding = [0] * len(query.terms)
    chunks: list[tuple[int, list[bytes]]] = []
    for chunk, its_turns, its_words, secret, drawers in connection.execute(
        SEARCH_SQL["segments"], (tenant,)
    ).fetchall():
        turns += its_turns
        words += its_words
        found = [
            _read_postings(connection, chunk, *hash_term(term, secret, drawers))
            for term in query.terms
        ]
        for number, held in enumerate(found):
            holding[number] += len(held) // 2
        if all(found):
            chunks.append((chunk, found))
    return _Matches(bm25_weights(turns, words, holding), chunks)


def _read_postings(
    connection: sqlite3.Connection, segment_id: int, bucket: int, name: bytes
) -> bytes:
    rows = connection.execute(SEARCH_SQL["bucket"], (segment_id, bucket)).fetchall()
    return find_postings(rows[0][0], name) if rows else b""


def _rank_segment(
    connection: sqlite3.Connection, segment_id: int, postings: list[bytes], weights: Bm25Weights
) -> list[_Candidate]:
    """The turns of a chunk that hold all terms, the best first."""
    held = [decode_postings(one) for one in postings]
    both = set(held[0]).intersection(*held[1:])
    if not both:
        return []
    ((data,),) = connection.execute(SEARCH_SQL["turn_entries"], (segment_id,)).fetchall()
    spots = decode_turn_entries(data)
    ranked: list[_Candidate] = []
    for number in both:
        place, created_at, words = spots[number]
        good = bm25_score(weights, [counts[number] for counts in held], words)
        ranked.append((-good, -created_at, place))
    ranked.sort()
    return ranked


def _skip_through(
    connection: sqlite3.Connection,
    tenant: str,
    best: Iterator[_Candidate],
    after: str,
    cutoff: float,
) -> None:
    """Leave out all up to the response ``after``.

    Raises ``InvalidRequestError`` where it is not there.
    """
    for (last,) in connection.execute(TURN_SQL["row_id"], (response_key(after), tenant)).fetchall():
        if not has_expired(connection, last, cutoff) and any(place == last for _, _, place in best):
            return
    raise unknown_cursor(after)


def _build_hit(connection: sqlite3.Connection, row_id: int, query: SearchQuery) -> SearchHit | None:
    excerpt = build_excerpt(text_at(connection, row_id), query)
    if excerpt is None:
        return None
    ((body,),) = connection.execute(SEARCH_SQL["header"], (row_id,)).fetchall()
    top = decode_header(body)
    return SearchHit(response_id_of(top.key), top.created_at, excerpt, top.header.conversation)
