"""Search query: from a parsed query to the turns that match all of it, the best first.

Groups say which of their segments hold the terms; those segments, and the ones without a group,
are read, a segment at a time, in small steps that let other threads run: a search among a
million turns must not delay running turns. Turns that wait to be indexed, as many as one segment
has, are searched as a segment that is made for it.

A search within a chat reads the segments that have turns of that chat, whatever else is stored. How
much a word counts there depends on the chat alone.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Final, TypeAlias

import msgspec

from antiphon.core.ids import response_id_of, response_key
from antiphon.core.retention import Expiry
from antiphon.stores.search_tokenizer import (
    Bm25Weights,
    SearchQuery,
    bm25_score,
    bm25_weights,
    build_excerpt,
    searchable_text,
)
from antiphon.stores.sqlite.chat_reader import find_chat
from antiphon.stores.sqlite.reader import PageRequest, has_expired, snapshot
from antiphon.stores.sqlite.rows import decode_header, thread_of
from antiphon.stores.sqlite.search.pending import SEARCH_SQL, read_pending_turns
from antiphon.stores.sqlite.search.segment import (
    IndexedTurn,
    IndexSegment,
    build_segment,
    decode_postings,
    decode_turn_entries,
    find_postings,
    hash_term,
)
from antiphon.stores.sqlite.sql_files import TURN_SQL
from antiphon.turn.search_protocols import SearchHit
from antiphon.turn.store_protocols import unknown_cursor

#: Minus the score, minus the time, and where it lies: the least is the best.
_Candidate: TypeAlias = tuple[float, float, int]
_ids_decoder: Final = msgspec.json.Decoder(list[int])


class _Segment(msgspec.Struct, frozen=True):
    """A segment in the file, or of pending turns (its id is None), and how to read its buckets."""

    segment_id: int | None
    bucket_count: int
    secret: bytes
    pending: IndexSegment | None = None


class _Matches(msgspec.Struct):
    """The segments that hold all terms of a query, each with what it has of every term.

    ``counts`` are the turns with each term in the segments read, ``unread`` the number of segments
    with it that were not, as they lack another term; ``read`` that of the segments read for it.
    """

    names: Sequence[int]
    counts: list[int]
    unread: list[int]
    read: list[int]
    found: list[tuple[_Segment, list[bytes]]]
    turns: int = 0
    words: int = 0


class SearchRequest(msgspec.Struct, frozen=True):
    """What to find, and which page of it; ``chat_id``: in one chat only, by any of its ids.

    ``each_chat_once``: of each chat only its best turn.
    """

    tenant: str
    query: SearchQuery
    page: PageRequest
    chat_id: str | None = None
    each_chat_once: bool = False


class _ListedChats:
    """The chats that a search has listed a turn of."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._trees: dict[int, int] = {}
        self._listed: set[int] = set()

    def has(self, row_id: int) -> bool:
        return self._tree_of(row_id) in self._listed

    def add(self, row_id: int) -> None:
        self._listed.add(self._tree_of(row_id))

    def _tree_of(self, row_id: int) -> int:
        thread = thread_of(row_id)
        if thread not in self._trees:
            ((tree,),) = self._connection.execute(TURN_SQL["tree_of"], (thread,)).fetchall()
            self._trees[thread] = tree
        return self._trees[thread]


def read_hits(
    connection: sqlite3.Connection, request: SearchRequest, expiry: Expiry
) -> list[SearchHit]:
    """A page of the turns that hold all of the query and have not expired.

    Raises ``InvalidRequestError`` where it begins behind one that is not among them.
    """
    tenant, query, page = request.tenant, request.query, request.page
    hits: list[SearchHit] = []
    cutoff = expiry.cutoff(tenant)
    with snapshot(connection):
        if request.chat_id is None:
            matches = _find_segments(connection, tenant, query)
        else:
            chat = find_chat(connection, tenant, request.chat_id, expiry)
            if chat is None:
                return []
            matches = _find_segments_of_chat(connection, tenant, chat[1], query)
        weights = _weights(matches)
        ranked = [
            _rank_segment(connection, segment, counts, weights) for segment, counts in matches.found
        ]
        best = heapq.merge(*ranked)
        chats = _ListedChats(connection) if request.each_chat_once else None
        if page.after is not None:
            _skip_through(connection, request, best, cutoff, chats)
        for _, _, row_id in best:
            if len(hits) == page.limit:
                break
            if chats is not None and chats.has(row_id):
                continue
            hit = _build_hit(connection, row_id, query)
            if hit is not None and not has_expired(connection, row_id, cutoff):
                hits.append(hit)
                if chats is not None:
                    chats.add(row_id)
    return hits


def text_at(connection: sqlite3.Connection, row_id: int) -> str:
    """The searchable text of the turn with this row id."""
    return searchable_text(
        body for (body,) in connection.execute(SEARCH_SQL["items"], {"row_id": row_id})
    )


def _new_matches(query: SearchQuery) -> _Matches:
    terms = len(query.terms)
    names = [hash_term(term) for term in query.terms]
    return _Matches(names, [0] * terms, [0] * terms, [0] * terms, [])


def _find_segments_of_chat(
    connection: sqlite3.Connection, tenant: str, tree: int, query: SearchQuery
) -> _Matches:
    """The segments that have turns of a chat, with what they have of it."""
    matches = _new_matches(query)
    turns_of: defaultdict[int, set[int]] = defaultdict(set)
    for row_id, segment_id in connection.execute(
        SEARCH_SQL["segments_of_chat"], {"tree": tree}
    ).fetchall():
        turns_of[segment_id].add(row_id)
    for segment_id, row_ids in turns_of.items():
        ((bucket_count, secret),) = connection.execute(
            SEARCH_SQL["segment"], (segment_id,)
        ).fetchall()
        segment = _Segment(segment_id, bucket_count, secret)
        ids, entries = _read_entries(connection, segment)
        numbers = {number for number, row_id in enumerate(ids) if row_id in row_ids}
        matches.turns += len(numbers)
        matches.words += sum(entries[number][1] for number in numbers)
        _read_segment(connection, matches, segment, numbers)
    turns = read_pending_turns(connection, tenant, tree).by_tenant
    _read_pending(connection, matches, turns.get(tenant, ()))
    return matches


def _find_segments(connection: sqlite3.Connection, tenant: str, query: SearchQuery) -> _Matches:
    matches = _new_matches(query)
    singles: dict[int, _Segment] = {}
    for segment_id, turns, words, bucket_count, secret in connection.execute(
        SEARCH_SQL["single_segments"], (tenant,)
    ).fetchall():
        matches.turns += turns
        matches.words += words
        singles[segment_id] = _Segment(segment_id, bucket_count, secret)
    found = _read_all_postings(connection, "single_buckets", tenant, matches.names, singles)
    for segment_id, postings in found.items():
        _add_segment(matches, singles[segment_id], postings)
    groups: dict[int, _Segment] = {}
    for group_id, turns, words, bucket_count, secret in connection.execute(
        SEARCH_SQL["groups"], (tenant,)
    ).fetchall():
        matches.turns += turns
        matches.words += words
        groups[group_id] = _Segment(group_id, bucket_count, secret)
    found = _read_all_postings(connection, "group_buckets", tenant, matches.names, groups)
    for group_id, holders in found.items():
        _read_group(connection, matches, group_id, holders)
    turns_of = read_pending_turns(connection, tenant).by_tenant
    _read_pending(connection, matches, turns_of.get(tenant, ()))
    return matches


def _read_all_postings(
    connection: sqlite3.Connection,
    query: str,
    tenant: str,
    names: Sequence[int],
    owners: Mapping[int, _Segment],
) -> dict[int, list[bytes]]:
    """What those of many segments or groups that have any of the terms have of each.

    A statement a term: one for each bucket takes longer than what is done with the bucket.
    """
    found: defaultdict[int, list[bytes]] = defaultdict(lambda: [b""] * len(names))
    for position, name in enumerate(names):
        values = {"tenant": tenant, "name": name}
        for owner_id, body in connection.execute(SEARCH_SQL[query], values):
            owner = owners[owner_id]
            postings = find_postings(body, owner.secret, name & owner.bucket_count - 1, name)
            if postings:
                found[owner_id][position] = postings
    return found


def _read_pending(
    connection: sqlite3.Connection, matches: _Matches, turns: Sequence[IndexedTurn]
) -> None:
    """Add a segment that is made of pending turns."""
    pending = build_segment(turns)
    if pending is not None:
        matches.turns += len(pending.row_ids)
        matches.words += pending.words
        _read_segment(
            connection, matches, _Segment(None, pending.bucket_count, pending.secret, pending)
        )


def _read_segment(
    connection: sqlite3.Connection,
    matches: _Matches,
    segment: _Segment,
    numbers: Set[int] | None = None,
) -> None:
    """Add a segment that may have the terms; ``numbers``: of its turns only these."""
    postings = [_read_postings(connection, segment, name) for name in matches.names]
    if numbers is not None:
        postings = [bytes(one for one in of_term if one in numbers) for of_term in postings]
    _add_segment(matches, segment, postings)


def _add_segment(matches: _Matches, segment: _Segment, postings: list[bytes]) -> None:
    """Add what a segment has of the terms."""
    for number, of_term in enumerate(postings):
        matches.counts[number] += len(set(of_term))
        matches.read[number] += bool(of_term)
    if all(postings):
        matches.found.append((segment, postings))


def _read_group(
    connection: sqlite3.Connection, matches: _Matches, group_id: int, holders: list[bytes]
) -> None:
    """Add the segments of a group that have all terms; ``holders`` are those that have each."""
    numbers = set(holders[0]).intersection(*holders[1:])
    for number, of_term in enumerate(holders):
        matches.unread[number] += len(of_term) - len(numbers)
    if not numbers:
        return
    ((members,),) = connection.execute(SEARCH_SQL["group_members"], (group_id,)).fetchall()
    segment_ids = _ids_decoder.decode(members)
    for segment_id in [segment_ids[number] for number in sorted(numbers)]:
        ((bucket_count, secret),) = connection.execute(
            SEARCH_SQL["segment"], (segment_id,)
        ).fetchall()
        _read_segment(connection, matches, _Segment(segment_id, bucket_count, secret))


def _read_postings(connection: sqlite3.Connection, segment: _Segment, name: int) -> bytes:
    number = name & segment.bucket_count - 1
    if segment.segment_id is None:
        bodies = segment.pending.bucket_bodies if segment.pending else ()
        rows = [(body,) for its_number, body in bodies if its_number == number]
    else:
        bucket_id = segment.segment_id << 16 | number
        rows = connection.execute(SEARCH_SQL["bucket"], (bucket_id,)).fetchall()
    return find_postings(rows[0][0], segment.secret, number, name) if rows else b""


def _weights(matches: _Matches) -> Bm25Weights:
    """A segment that was not read counts as one that was: where all were, this is exact."""
    counts = [
        count + round(unread * (count / read if read else 1))
        for count, unread, read in zip(matches.counts, matches.unread, matches.read, strict=True)
    ]
    return bm25_weights(matches.turns, matches.words, counts)


def _rank_segment(
    connection: sqlite3.Connection,
    segment: _Segment,
    postings: list[bytes],
    weights: Bm25Weights,
) -> list[_Candidate]:
    """The turns of a segment that hold all terms, the best first."""
    counts = [decode_postings(of_term) for of_term in postings]
    matching = set(counts[0]).intersection(*counts[1:])
    if not matching:
        return []
    row_ids, entries = _read_entries(connection, segment)
    ranked: list[_Candidate] = []
    for number in matching:
        created_at, words = entries[number]
        score = bm25_score(weights, [of_term[number] for of_term in counts], words)
        ranked.append((-score, -created_at, row_ids[number]))
    ranked.sort()
    return ranked


def _read_entries(
    connection: sqlite3.Connection, segment: _Segment
) -> tuple[Sequence[int], list[tuple[float, int]]]:
    """The row ids, times and numbers of words of a segment's turns."""
    if segment.pending is not None:
        return segment.pending.row_ids, decode_turn_entries(segment.pending.turn_entries)
    ((ids, data),) = connection.execute(
        SEARCH_SQL["turn_entries"], (segment.segment_id,)
    ).fetchall()
    return _ids_decoder.decode(ids), decode_turn_entries(data)


def _skip_through(
    connection: sqlite3.Connection,
    request: SearchRequest,
    best: Iterator[_Candidate],
    cutoff: float,
    chats: _ListedChats | None,
) -> None:
    """Leave out all up to the response that the page begins behind, whose chats are listed then.

    Raises ``InvalidRequestError`` where it is not there.
    """
    after = request.page.after or ""
    values = (response_key(after), request.tenant)
    for (last,) in connection.execute(TURN_SQL["row_id"], values).fetchall():
        if has_expired(connection, last, cutoff):
            break
        for _, _, row_id in best:
            if chats and not (chats.has(row_id) or has_expired(connection, row_id, cutoff)):
                chats.add(row_id)
            if row_id == last:
                return
    raise unknown_cursor(after)


def _build_hit(connection: sqlite3.Connection, row_id: int, query: SearchQuery) -> SearchHit | None:
    excerpt = build_excerpt(text_at(connection, row_id), query)
    if excerpt is None:
        return None
    (row,) = connection.execute(SEARCH_SQL["header"], (row_id,)).fetchall()
    top = decode_header(*row)
    return SearchHit(response_id_of(top.key), top.created_at, excerpt, top.header.conversation)
