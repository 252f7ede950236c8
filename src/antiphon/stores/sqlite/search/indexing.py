"""Indexing plan: the next segments or group, read and built by a reader, inserted by the writer.

Whatever a plan was made from may change before it is inserted: pending turns have revisions and
segments have secrets, which are compared then. Small segments are merged into larger ones as in
binary counting: a turn is indexed again at most eight times, and a tenant has at most eight
segments that are not half full, however few turns come at a time.
"""

from __future__ import annotations

import sqlite3

import msgspec

from antiphon.stores.sqlite.reader import snapshot
from antiphon.stores.sqlite.search.group import (
    GROUP_SEGMENTS,
    MAX_SINGLE_SEGMENTS,
    GroupMember,
    SegmentGroup,
    build_group,
)
from antiphon.stores.sqlite.search.pending import (
    SEARCH_SQL,
    as_json,
    read_indexed_turns,
    read_pending_turns,
)
from antiphon.stores.sqlite.search.segment import (
    MAX_SEGMENT_TURNS,
    IndexedTurn,
    IndexSegment,
    build_segment,
    decode_turn_entries,
)
from antiphon.stores.sqlite.write_transaction import WriteTransaction

_row_ids_decoder = msgspec.json.Decoder(list[int])


class IndexingPlan(msgspec.Struct, frozen=True):
    """The next segments, each with its tenant, and what they were made from.

    ``pending`` are row ids and revisions, ``merged_segments`` the ids and secrets of segments
    that the new ones replace. ``is_last``: no other turns are pending. ``crowded`` are tenants
    with enough segments for a group.
    """

    index_segments: tuple[tuple[str, IndexSegment], ...]
    pending: dict[int, int]
    merged_segments: tuple[tuple[int, bytes], ...]
    is_last: bool
    crowded: tuple[str, ...]


def read_plan(
    connection: sqlite3.Connection, tenant: str | None, minimum: int
) -> IndexingPlan | None:
    """What to do for a tenant, or (None) for all; None: fewer than ``minimum`` turns are
    pending.
    """
    merged: list[tuple[int, bytes]] = []
    with snapshot(connection):
        # Asked most often, and mostly in vain.
        if not connection.execute(SEARCH_SQL["has_pending"], (minimum - 1,)).fetchall():
            return None
        pending = read_pending_turns(connection, tenant)
        for owner, turns in pending.by_tenant.items():
            merged += _merge_smaller_segments(connection, owner, turns)
        crowded = tuple(
            [owner for owner in pending.by_tenant if _is_crowded(connection, owner, more=1)]
        )
    if not pending.revisions:
        return None
    segments = [(owner, build_segment(turns)) for owner, turns in pending.by_tenant.items()]
    return IndexingPlan(
        index_segments=tuple(
            [(owner, segment) for owner, segment in segments if segment is not None]
        ),
        pending=pending.revisions,
        merged_segments=tuple(merged),
        is_last=pending.is_last,
        crowded=crowded,
    )


def apply_plan(transaction: WriteTransaction, plan: IndexingPlan) -> bool:
    """Put the plan's segments in the index. False: what it was made from has changed."""
    connection = transaction.connection
    rows = connection.execute(SEARCH_SQL["pending_revisions"], (as_json(plan.pending),))
    if dict(rows.fetchall()) != plan.pending:
        return False
    if not _has_secrets(connection, plan.merged_segments):
        return False
    for segment_id, _ in plan.merged_segments:
        # Its turns wait again, until the end of this.
        connection.execute(SEARCH_SQL["delete_segment"], (segment_id,))
    indexed = set(plan.pending)
    for tenant, segment in plan.index_segments:
        segment_id = _add_secret(connection, segment.secret)
        row_ids = as_json(segment.row_ids)
        size = (len(segment.row_ids), segment.words, segment.bucket_count)
        row = (segment_id, tenant, *size, row_ids, segment.turn_entries)
        connection.execute(SEARCH_SQL["add_segment"], row)
        _add_buckets(connection, segment_id, segment.bucket_bodies)
        connection.execute(SEARCH_SQL["add_segment_turns"], (segment_id, row_ids))
        indexed.update(segment.row_ids)
    connection.execute(SEARCH_SQL["delete_pending"], (as_json(indexed),))
    return True


def read_group(connection: sqlite3.Connection, tenant: str) -> SegmentGroup | None:
    """The tenant's next group; None: it has too few segments for one."""
    with snapshot(connection):
        if not _is_crowded(connection, tenant):
            return None
        rows = connection.execute(
            SEARCH_SQL["largest_segments"], (tenant, GROUP_SEGMENTS)
        ).fetchall()
        members = [
            GroupMember(segment_id, secret, turns, words, read_buckets(connection, segment_id))
            for segment_id, turns, words, secret in rows
        ]
    return build_group(tenant, members)


def apply_group(transaction: WriteTransaction, group: SegmentGroup) -> bool:
    """Put a group in the index. False: its segments have changed."""
    connection = transaction.connection
    members = as_json(segment_id for segment_id, _ in group.members)
    ((ungrouped,),) = connection.execute(SEARCH_SQL["count_ungrouped"], (members,)).fetchall()
    if ungrouped != len(group.members) or not _has_secrets(connection, group.members):
        return False
    group_id = _add_secret(connection, group.secret)
    row = (group_id, group.tenant, group.turns, group.words, group.bucket_count, members)
    connection.execute(SEARCH_SQL["add_group"], row)
    _add_buckets(connection, group_id, group.bucket_bodies)
    connection.execute(SEARCH_SQL["set_group"], (group_id, members))
    return True


def read_buckets(connection: sqlite3.Connection, owner: int) -> list[tuple[int, bytes]]:
    """The buckets of a segment or group, encrypted, by their numbers."""
    rows = connection.execute(SEARCH_SQL["buckets"], (owner, owner)).fetchall()
    return [(bucket_id & 0xFFFF, body) for bucket_id, body in rows]


def _is_crowded(connection: sqlite3.Connection, tenant: str, more: int = 0) -> bool:
    """Whether a tenant has enough segments without a group to make one, with so many more."""
    ((count,),) = connection.execute(SEARCH_SQL["count_single"], (tenant,)).fetchall()
    return bool(count + more >= MAX_SINGLE_SEGMENTS)


def _merge_smaller_segments(
    connection: sqlite3.Connection, tenant: str, turns: list[IndexedTurn]
) -> list[tuple[int, bytes]]:
    """Add the turns of a tenant's small segments while they are no larger than the new one."""
    merged: list[tuple[int, bytes]] = []
    smallest = connection.execute(
        SEARCH_SQL["smallest_segments"], (tenant, MAX_SEGMENT_TURNS)
    ).fetchall()
    for segment_id, size, secret in smallest:
        if size > len(turns) or size + len(turns) > MAX_SEGMENT_TURNS:
            break
        ((row_ids, entries),) = connection.execute(
            SEARCH_SQL["turn_entries"], (segment_id,)
        ).fetchall()
        times = [time for time, _ in decode_turn_entries(entries)]
        more = read_indexed_turns(
            connection, list(zip(_row_ids_decoder.decode(row_ids), times, strict=True))
        )
        if len(more) < size:
            # Long turns: together they would be too much for one step.
            break
        turns += more
        merged.append((segment_id, secret))
    return merged


def _add_secret(connection: sqlite3.Connection, secret: bytes) -> int:
    """Store the secret of a new segment or group; its id."""
    free = connection.execute(SEARCH_SQL["free_secret"]).fetchall()
    if free:
        number: int = free[0][0]
        connection.execute(SEARCH_SQL["reuse_secret"], (secret, number))
        return number
    added = connection.execute(SEARCH_SQL["add_secret"], (secret,)).lastrowid
    assert added is not None
    return added


def _add_buckets(
    connection: sqlite3.Connection, owner: int, bodies: tuple[tuple[int, bytes], ...]
) -> None:
    rows = [(owner << 16 | number, body) for number, body in bodies]
    connection.executemany(SEARCH_SQL["add_bucket"], rows)


def _has_secrets(connection: sqlite3.Connection, secrets: tuple[tuple[int, bytes], ...]) -> bool:
    return all(connection.execute(SEARCH_SQL["has_secret"], one).fetchall() for one in secrets)
