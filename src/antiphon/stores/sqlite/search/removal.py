"""Index removal: takes erased turns out of their segments, so that those beside them stay there.

Without this the triggers of the schema delete the segment of an erased turn and that one's group:
255 turns are indexed and 32 segments grouped again, for a tenth of a second of CPU or more.
Here the segment's postings are copied without the turn's, the group's without the terms that
nothing else in the segment has, and both are encrypted under new secrets, which take the place of
the old ones in the same transaction. So nothing says afterwards which words the turn had.

Where the turns of one erasure lie in many segments it is left to the triggers: most of what
is in these segments goes soon, and a transaction must be short.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

import msgspec

from antiphon.stores.sqlite.rows import TURN_STRIDE, RowRange
from antiphon.stores.sqlite.search.pending import SEARCH_SQL, as_json
from antiphon.stores.sqlite.search.segment import (
    SECRET_BYTES,
    BucketContent,
    decode_bucket,
    decode_turn_entries,
    encode_bucket,
    encode_turn_entries,
)

#: Turns in more segments than these are left to the triggers.
_MAX_SEGMENTS: Final = 2

_decode_numbers = msgspec.json.Decoder(list[int]).decode


def take_out_ranges(connection: sqlite3.Connection, row_ranges: Iterable[RowRange]) -> None:
    """Take the turns of these ranges out of the index, where they lie in few segments."""
    _take_out(connection, row_ranges)


def index_again(connection: sqlite3.Connection, row_ids: Iterable[int]) -> None:
    """Have turns of which these rows change in this transaction indexed again, and few others."""
    # A turn may have several of the rows.
    turns = sorted({row_id // TURN_STRIDE * TURN_STRIDE for row_id in row_ids})
    taken = _take_out(connection, [(row_id, row_id) for row_id in turns])
    connection.executemany(SEARCH_SQL["add_pending"], [(row_id,) for row_id in taken])


def _take_out(connection: sqlite3.Connection, row_ranges: Iterable[RowRange]) -> list[int]:
    """The same for ranges that do not overlap; returns the turns that were taken out."""
    found: dict[int, list[int]] = {}
    for row_range in row_ranges:
        for row_id, segment_id in connection.execute(SEARCH_SQL["segments_in"], row_range):
            found.setdefault(segment_id, []).append(row_id)
            if len(found) > _MAX_SEGMENTS:
                return []
    for segment_id, row_ids in found.items():
        _take_out_of_segment(connection, segment_id, row_ids)
    return [row_id for row_ids in found.values() for row_id in row_ids]


def _take_out_of_segment(
    connection: sqlite3.Connection, segment_id: int, row_ids: Sequence[int]
) -> None:
    (segment,) = connection.execute(SEARCH_SQL["whole_segment"], (segment_id,)).fetchall()
    group_id, words, secret, members, entries = segment
    all_row_ids = _decode_numbers(members)
    numbers = [all_row_ids.index(row_id) for row_id in row_ids]
    left = _without(all_row_ids, numbers)
    if not left:
        return
    turns = decode_turn_entries(entries)
    words -= sum(turns[number][1] for number in numbers)
    dropped: set[int] = set()
    _rewrite(connection, segment_id, secret, _turns_remover(numbers, dropped))
    entries = encode_turn_entries(_without(turns, numbers))
    connection.execute(
        SEARCH_SQL["shrink_segment"], (len(left), words, as_json(left), entries, segment_id)
    )
    connection.execute(SEARCH_SQL["delete_segment_turns"], (as_json(row_ids),))
    if group_id is not None:
        _take_out_of_group(connection, group_id, segment_id, dropped)


def _take_out_of_group(
    connection: sqlite3.Connection, group_id: int, segment_id: int, dropped: set[int]
) -> None:
    """Take terms of one segment out of its group, and count its turns and words anew."""
    ((secret, members),) = connection.execute(SEARCH_SQL["whole_group"], (group_id,)).fetchall()
    if dropped:
        number = _decode_numbers(members).index(segment_id)
        _rewrite(connection, group_id, secret, _terms_remover(number, dropped))
    connection.execute(SEARCH_SQL["shrink_group"], {"id": group_id})


def _rewrite(
    connection: sqlite3.Connection,
    owner: int,
    secret: bytes,
    change: Callable[[BucketContent], BucketContent],
) -> None:
    """Change what the buckets of a segment or group contain, and encrypt all under a new secret."""
    new_secret = os.urandom(SECRET_BYTES)
    rewritten, emptied = [], []
    for bucket_id, body in connection.execute(SEARCH_SQL["buckets"], (owner, owner)).fetchall():
        number = bucket_id & 0xFFFF
        content = change(decode_bucket(body, secret, number))
        if content.hashes:
            rewritten.append((encode_bucket(content, new_secret, number), bucket_id))
        else:
            emptied.append((bucket_id,))
    connection.execute(SEARCH_SQL["reuse_secret"], (new_secret, owner))
    connection.executemany(SEARCH_SQL["update_bucket"], rewritten)
    connection.executemany(SEARCH_SQL["delete_bucket"], emptied)


def _turns_remover(
    numbers: Sequence[int], dropped: set[int]
) -> Callable[[BucketContent], BucketContent]:
    """Removes turns and renumbers those behind them; ``dropped`` gets terms that no other has."""
    gone = bytes(numbers)
    renumbered = bytes([number - sum(one < number for one in numbers) for number in range(1 << 8)])

    def remove(content: BucketContent) -> BucketContent:
        hashes, bodies = [], []
        for name, body in zip(content.hashes, content.bodies, strict=True):
            rest = body.translate(renumbered, gone)
            if rest:
                hashes.append(name)
                bodies.append(rest)
            else:
                dropped.add(name)
        return BucketContent(hashes, bodies)

    return remove


def _terms_remover(number: int, names: set[int]) -> Callable[[BucketContent], BucketContent]:
    """Removes a segment from what a group says of these terms."""
    gone = bytes([number])

    def remove(content: BucketContent) -> BucketContent:
        if names.isdisjoint(content.hashes):
            return content
        hashes, bodies = [], []
        for name, body in zip(content.hashes, content.bodies, strict=True):
            rest = body.translate(None, gone) if name in names else body
            if rest:
                hashes.append(name)
                bodies.append(rest)
        return BucketContent(hashes, bodies)

    return remove


T = TypeVar("T")


def _without(values: Sequence[T], numbers: Sequence[int]) -> list[T]:
    return [value for number, value in enumerate(values) if number not in numbers]
