"""Search query: from a parsed query to the turns that match all of it, the best first.

Each segment of the tenant is searched for each term, a segment at a time, in small steps that
let other threads run: a search among a million turns must not delay running turns. Turns that
wait to be indexed, as many as one segment has, are searched as a segment that is made for it.
"""

from __future__ import annotations

import heapq
import sqlite3
import struct
from collections.abc import Iterator
from typing import Final, TypeAlias

import msgspec

from antiphon.core.ids import response_id_of, response_key
from antiphon.stores.search_tokenizer import (
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
    MAX_SEGMENT_TURNS,
    IndexedTurn,
    build_segment,
    decode_postings,
    decode_turn_entries,
    find_postings,
    hash_term,
)
from antiphon.stores.sqlite.sql_files import TURN_SQL, parse_queries, read_sql
from antiphon.turn.store_protocols import SearchHit, unknown_cursor

SEARCH_SQL: Final = parse_queries(read_sql("search.sql"))

_TIME = struct.Struct(">d")

#: Minus the score, minus the time, and where it lies: the least is the best.
_Candidate: TypeAlias = tuple[float, float, int]


class _Matches(msgspec.Struct, frozen=True):
    """The segments that hold all terms of a query, each with what it has of every term.

    A segment is its id, or the turn entries of the one that is made of pending turns.
    """

    weights: Bm25Weights
    index_segments: list[tuple[int | bytes, list[bytes]]]


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
            _rank_segment(connection, *segment, matches.weights)
            for segment in matches.index_segments
        ]
        best = heapq.merge(*ranked)
        if page.after is not None:
            _skip_through(connection, tenant, best, page.after, cutoff)
        for _, _, row_id in best:
            if len(hits) == page.limit:
                break
            hit = _build_hit(connection, row_id, query)
            if hit is not None and not has_expired(connection, row_id, cutoff):
                hits.append(hit)
    return hits


def read_pending_turns(connection: sqlite3.Connection, tenant: str) -> list[IndexedTurn]:
    """Turns of a tenant that wait to be indexed, as many as a segment has at most."""
    rows = connection.execute(
        SEARCH_SQL["pending_turns"], {"tenant": tenant, "limit": MAX_SEGMENT_TURNS}
    ).fetchall()
    return [
        read_indexed_turn(connection, row_id, time)
        for row_id, _, _, time in rows
        if time is not None
    ]


def read_indexed_turn(connection: sqlite3.Connection, row_id: int, time: bytes) -> IndexedTurn:
    """A turn with its text. ``time`` is as its header has it."""
    return IndexedTurn(row_id, _TIME.unpack(time)[0], text_at(connection, row_id))


def text_at(connection: sqlite3.Connection, row_id: int) -> str:
    """The searchable text of the turn with this row id."""
    return searchable_text(
        body for (body,) in connection.execute(SEARCH_SQL["items"], {"row_id": row_id})
    )


def _matches(connection: sqlite3.Connection, tenant: str, query: SearchQuery) -> _Matches:
    turns = words = 0
    document_counts = [0] * len(query.terms)
    segments: list[tuple[int | bytes, list[bytes]]] = []

    def add(segment: int | bytes, postings: list[bytes]) -> None:
        for number, entries in enumerate(postings):
            document_counts[number] += len(entries) // 2
        if all(postings):
            segments.append((segment, postings))

    for segment_id, its_turns, its_words, secret, bucket_count in connection.execute(
        SEARCH_SQL["segments"], (tenant,)
    ).fetchall():
        turns += its_turns
        words += its_words
        postings = [
            _read_postings(connection, segment_id, *hash_term(term, secret, bucket_count))
            for term in query.terms
        ]
        add(segment_id, postings)
    pending = build_segment(read_pending_turns(connection, tenant))
    if pending is not None:
        turns += len(pending.row_ids)
        words += pending.words
        buckets = dict(pending.bucket_bodies)
        hashes = [hash_term(term, pending.secret, pending.bucket_count) for term in query.terms]
        found = [
            find_postings(buckets[one], name) if one in buckets else b"" for one, name in hashes
        ]
        add(pending.turn_entries, found)
    return _Matches(bm25_weights(turns, words, document_counts), segments)


def _read_postings(
    connection: sqlite3.Connection, segment_id: int, bucket: int, name: bytes
) -> bytes:
    rows = connection.execute(SEARCH_SQL["bucket"], (segment_id, bucket)).fetchall()
    return find_postings(rows[0][0], name) if rows else b""


def _rank_segment(
    connection: sqlite3.Connection,
    segment: int | bytes,
    postings: list[bytes],
    weights: Bm25Weights,
) -> list[_Candidate]:
    """The turns of a segment that hold all terms, the best first."""
    counts = [decode_postings(one) for one in postings]
    matching = set(counts[0]).intersection(*counts[1:])
    if not matching:
        return []
    data = segment
    if isinstance(data, int):
        ((data,),) = connection.execute(SEARCH_SQL["turn_entries"], (data,)).fetchall()
    entries = decode_turn_entries(data)
    ranked: list[_Candidate] = []
    for number in matching:
        row_id, created_at, words = entries[number]
        score = bm25_score(weights, [of_term[number] for of_term in counts], words)
        ranked.append((-score, -created_at, row_id))
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
        if not has_expired(connection, last, cutoff) and any(
            row_id == last for _, _, row_id in best
        ):
            return
    raise unknown_cursor(after)


def _build_hit(connection: sqlite3.Connection, row_id: int, query: SearchQuery) -> SearchHit | None:
    excerpt = build_excerpt(text_at(connection, row_id), query)
    if excerpt is None:
        return None
    (row,) = connection.execute(SEARCH_SQL["header"], (row_id,)).fetchall()
    top = decode_header(*row)
    return SearchHit(response_id_of(top.key), top.created_at, excerpt, top.header.conversation)
