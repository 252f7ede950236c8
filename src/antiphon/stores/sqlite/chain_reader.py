"""Reads of chains as a tree: windows, a turn's siblings and children, and what it continues."""

from __future__ import annotations

import math
import sqlite3
import struct
from collections.abc import Sequence
from itertools import groupby
from typing import Final

import msgspec

from antiphon.core.chat_titles import TITLE_ITEMS, opening_of
from antiphon.core.ids import response_id_of, response_key
from antiphon.core.images import Blob
from antiphon.core.retention import Expiry
from antiphon.core.turns import TurnStatus
from antiphon.stores.conflict_errors import refuse_unseen
from antiphon.stores.sqlite.reader import (
    blob_finder,
    chain_row_ranges,
    has_expired,
    latest_timestamp,
    owners_of,
    read_head,
    read_rows,
    snapshot,
    thread_ends,
)
from antiphon.stores.sqlite.rows import (
    RowRange,
    decode_end,
    decode_header,
    decode_turns,
    first_of_thread,
    last_of_turn,
    response_id_in,
    row_id_of,
    seq_of,
    thread_of,
)
from antiphon.stores.sqlite.sql_files import CHAT_SQL, TURN_SQL
from antiphon.turn.chat_protocols import (
    ChainPart,
    ChainTurn,
    ChainWindow,
    TurnBranch,
    TurnOrigin,
)
from antiphon.turn.store_protocols import Continuations, Head, StoredTurn, unknown_cursor

_TIME: Final = struct.Struct(">d")


def read_chain_part(
    connection: sqlite3.Connection,
    head: Head,
    window: ChainWindow,
    expiry: Expiry,
    *,
    with_images: bool,
) -> tuple[ChainPart, set[int]]:
    """The turns of a window, and the owners of those that run.

    Raises ``InvalidRequestError`` where what it is relative to is not in the chain.
    """
    with snapshot(connection):
        cutoff = expiry.cutoff(head.tenant)
        row_ranges = chain_row_ranges(connection, head, cutoff)
        if not row_ranges:
            return ChainPart([], False, False, 0), set()
        before, after = _window_rows(connection, head, window, row_ranges)
        limits = _limits(window, len(before), len(after))
        row_ids = [*before[: limits[0]][::-1], *after[: limits[1]]]
        turns = turns_at(connection, row_ids, with_images=with_images)
        if cutoff > -math.inf:
            turns = _with_expiry(connection, row_ids, turns, head.tenant, expiry)
        neighbours = _Neighbours(connection, head.tree, cutoff)
        part = ChainPart(
            [
                neighbours.chain_turn(row_id, turn)
                for row_id, turn in zip(row_ids, turns, strict=True)
            ],
            has_more_before=len(before) > limits[0] or window.after is not None,
            has_more_after=len(after) > limits[1] or window.before is not None,
            total=head.seq + 1,
        )
        return part, owners_of(connection, turns)


def _window_rows(
    connection: sqlite3.Connection, head: Head, window: ChainWindow, row_ranges: list[RowRange]
) -> tuple[list[int], list[int]]:
    """The row ids of turns before the window's anchor, the nearest first, and from it on."""
    at = row_ranges[-1][1] + 1
    if window.anchor is not None:
        key = response_key(window.anchor)
        found = connection.execute(TURN_SQL["row_id"], (key, head.tenant)).fetchall()
        if not found or not any(first <= found[0][0] <= last for first, last in row_ranges):
            raise unknown_cursor(window.anchor, window.anchor_name)
        at = found[0][0]
        if window.after is not None:
            at = last_of_turn(at) + 1
    elif window.position is not None:
        seq = min(window.position, head.seq)
        # The last thread that begins there or before it.
        ends = [last for _, last in row_ranges if seq_of(last) >= seq]
        at = row_id_of(thread_of(ends[0]), seq)
    number = next((n for n, (first, last) in enumerate(row_ranges) if first <= at <= last + 1), 0)
    first, last = row_ranges[number]
    limit = window.limit + 1
    before = [] if window.after is not None else [*row_ranges[:number], (first, at - 1)][::-1]
    after = [] if window.before is not None else [(at, last), *row_ranges[number + 1 :]]
    return (
        _headers(connection, "headers_backwards", before, limit),
        _headers(connection, "headers_forwards", after, limit),
    )


def _limits(window: ChainWindow, before: int, after: int) -> tuple[int, int]:
    """How many turns of those before and after the anchor are in the window."""
    limit = window.limit
    if window.around is None and window.position is None:
        return limit, limit
    # The one in the middle is the first of those after. What one side lacks the other has.
    right = min(after, limit - limit // 2)
    left = min(before, limit - right)
    return left, min(after, limit - left)


def _headers(
    connection: sqlite3.Connection, query: str, row_ranges: list[RowRange], limit: int
) -> list[int]:
    row_ids: list[int] = []
    for first, last in row_ranges:
        if len(row_ids) < limit:
            values = (first, last, limit - len(row_ids))
            row_ids += [row_id for (row_id,) in connection.execute(TURN_SQL[query], values)]
    return row_ids


def turns_at(
    connection: sqlite3.Connection, row_ids: list[int], *, with_images: bool
) -> list[StoredTurn]:
    """The turns of a chain with these row ids: one range for each thread."""

    def no_blob(number: int) -> Blob | None:
        return None

    find = blob_finder(connection) if with_images else no_blob
    turns: list[StoredTurn] = []
    for _, of_thread in groupby(row_ids, thread_of):
        first, *rest = of_thread
        rows = read_rows(connection, first, last_of_turn(rest[-1] if rest else first))
        before = connection.execute(TURN_SQL["previous_turn"], {"row_id": first}).fetchall()
        turns += decode_turns(rows, response_id_in(before[0][2]) if before else None, find)
    return turns


def _with_expiry(
    connection: sqlite3.Connection,
    row_ids: list[int],
    turns: list[StoredTurn],
    tenant: str,
    expiry: Expiry,
) -> list[StoredTurn]:
    """The turns with the times when they expire: each descendant is looked at once."""
    latest, later = -math.inf, None
    dated: list[StoredTurn] = []
    for row_id, turn in zip(reversed(row_ids), reversed(turns), strict=True):
        if later is None or thread_of(later) != thread_of(row_id):
            starts = [row_id]
        else:
            found = connection.execute(TURN_SQL["branches"], (row_id, later - 1)).fetchall()
            starts = [row_id_of(thread, 0) for (thread,) in found]
        times = [latest_timestamp(connection, start) for start in starts]
        latest = max([latest, *(time for time in times if time is not None)])
        at = expiry.expires_at(tenant, latest)
        dated.append(msgspec.structs.replace(turn, expires_at=at))
        later = row_id
    return dated[::-1]


class _Neighbours:
    """The turns beside and behind turns of one tree; each list is read once."""

    def __init__(self, connection: sqlite3.Connection, tree: int, cutoff: float) -> None:
        self._connection = connection
        self._tree = tree
        self._cutoff = cutoff
        self._children: dict[int | None, list[int]] = {}

    def chain_turn(self, row_id: int, turn: StoredTurn) -> ChainTurn:
        siblings = self.siblings(row_id)
        return ChainTurn(
            turn,
            position=seq_of(row_id),
            sibling_index=siblings.index(row_id),
            siblings=len(siblings),
            children=len(self.children(row_id)),
        )

    def siblings(self, row_id: int) -> list[int]:
        """The turns that continue the same as one, itself among them."""
        before = self._connection.execute(TURN_SQL["previous_turn"], {"row_id": row_id})
        rows = before.fetchall()
        return self.children(rows[0][0] if rows else None)

    def children(self, row_id: int | None) -> list[int]:
        """The turns that continue one, oldest first. None: those that the tree began with."""
        known = self._children.get(row_id)
        if known is None:
            known = self._children[row_id] = self._read_children(row_id)
        return known

    def _read_children(self, row_id: int | None) -> list[int]:
        if row_id is None:
            rows = self._connection.execute(CHAT_SQL["first_turns"], {"tree": self._tree})
        else:
            rows = self._connection.execute(CHAT_SQL["children"], {"row_id": row_id})
        found = [(_TIME.unpack(key[16:])[0], child) for child, key in rows.fetchall()]
        return [
            child
            for _, child in sorted(found)
            if self._cutoff == -math.inf or not has_expired(self._connection, child, self._cutoff)
        ]


def read_branches(
    connection: sqlite3.Connection,
    tenant: str,
    response_id: str,
    expiry: Expiry,
    *,
    of_children: bool,
) -> tuple[list[TurnBranch] | None, set[int]]:
    """The turns beside a response, or those that continue it."""
    cutoff = expiry.cutoff(tenant)
    with snapshot(connection):
        head, owners = read_head(connection, tenant, response_id, cutoff)
        if head is None:
            return None, set()
        neighbours = _Neighbours(connection, head.tree, cutoff)
        row_id = row_id_of(head.thread, head.seq)
        row_ids = neighbours.children(row_id) if of_children else neighbours.siblings(row_id)
        branches = []
        for one in row_ids:
            branch = turn_branch(connection, one)
            branches.append(branch)
            if branch.status == "in_progress":
                key = response_key(branch.response_id)
                rows = connection.execute(TURN_SQL["runner"], (key,)).fetchall()
                owners |= {owner for (owner,) in rows}
        return branches, owners


def check_continuations(connection: sqlite3.Connection, seen: Sequence[Continuations]) -> None:
    """Raise ``HistoryBranchedError`` where a response is continued by one that was not seen."""
    row_ids = [row_id_of(one.head.thread, one.head.seq) for one in seen]
    query = CHAT_SQL["children"]
    rows = [row for one in row_ids for row in connection.execute(query, {"row_id": one})]
    refuse_unseen(seen, (response_id_of(key[:16]) for _, key in rows))


def turn_branch(connection: sqlite3.Connection, row_id: int) -> TurnBranch:
    """A turn as one of several, with the newest turn that descends from it."""
    leaf = connection.execute(CHAT_SQL["newest_descendant"], {"row_id": row_id}).fetchall()
    leaf_row_id = leaf[0][0] if leaf else row_id
    ((key, text),) = connection.execute(TURN_SQL["row"], (row_id,)).fetchall()
    top = decode_header(key, text)
    ending = connection.execute(TURN_SQL["row"], (last_of_turn(row_id),)).fetchall()
    end = decode_end(ending[0][1]) if ending else None
    status: TurnStatus = end.status if end else "in_progress"
    return TurnBranch(
        response_id=response_id_of(top.key),
        created_at=top.created_at,
        model=(end.model if end else None) or top.header.model,
        status=status,
        opening=opening_at(connection, row_id),
        leaf=response_at(connection, leaf_row_id),
        turns=seq_of(leaf_row_id) + 1,
    )


def opening_at(connection: sqlite3.Connection, row_id: int) -> str | None:
    """The first words of a turn."""
    items = connection.execute(
        CHAT_SQL["first_items"], (row_id, last_of_turn(row_id), TITLE_ITEMS)
    ).fetchall()
    return opening_of(body for (body,) in items)


def response_at(connection: sqlite3.Connection, row_id: int) -> str:
    """The response id of the turn at a row id, erased or not."""
    ((key, _),) = connection.execute(TURN_SQL["row"], (row_id,)).fetchall()
    return response_id_of(key[:16])


def read_origin(
    connection: sqlite3.Connection, tenant: str, response_id: str, expiry: Expiry
) -> tuple[TurnOrigin | None, set[int]]:
    """What a response continues: the nearest turn before it that is not erased."""
    with snapshot(connection):
        head, owners = read_head(connection, tenant, response_id, expiry.cutoff(tenant))
        if head is None:
            return None, owners
        end = row_id_of(head.thread, head.seq)
        for last in reversed(thread_ends(connection, end, tenant)):
            row_range = (first_of_thread(last), last - 1 if last == end else last)
            found = connection.execute(CHAT_SQL["previous_living"], row_range).fetchall()
            if found:
                return TurnOrigin(head, response_id_in(found[0][1])), owners
        return TurnOrigin(head, None), owners
