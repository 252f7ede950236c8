"""Segment group: which of 32 segments have which terms, so that a search reads only those. No I/O.

A group is built of the hashes in its segments' buckets, no text is read for it. It has buckets as
a segment has, in which the postings of a term are the numbers of the segments that have
it, and a secret of its own. Where an erasure deletes a segment, its group goes, too, so that what
was in the erased turn cannot be told from the group and the other segments; these stay, and
are grouped again later.

Why small segments in groups and not large segments: a million turns are 3,906 segments, of
which a rare word is in one or few. With groups a search reads 122 groups and those few. An
erasure copies one segment and one group (removal.py). A segment of as many turns as a group would
be copied as a whole, or indexed again.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import msgspec

from antiphon.stores.sqlite.search.segment import (
    SECRET_BYTES,
    encode_buckets,
    hashes_in,
    paced,
)

#: How many segments a group has, and from how many without a group on one is made: the rest
#: leaves room for segments to come and go.
GROUP_SEGMENTS: Final = 32
MAX_SINGLE_SEGMENTS: Final = 2 * GROUP_SEGMENTS


class GroupMember(msgspec.Struct, frozen=True):
    """A segment that is to be grouped: its id and secret, and its encrypted buckets by number."""

    segment_id: int
    secret: bytes
    turns: int
    words: int
    buckets: Sequence[tuple[int, bytes]]


class SegmentGroup(msgspec.Struct, frozen=True):
    """What is written of a group. ``members`` are ids and secrets of its segments."""

    tenant: str
    members: tuple[tuple[int, bytes], ...]
    turns: int
    words: int
    secret: bytes
    bucket_count: int
    bucket_bodies: tuple[tuple[int, bytes], ...]


def build_group(tenant: str, members: Sequence[GroupMember]) -> SegmentGroup:
    """The group of at most 256 segments of a tenant."""
    postings: defaultdict[int, bytearray] = defaultdict(bytearray)
    postings_of = postings.__getitem__
    for number, member in enumerate(members):
        for bucket, body in paced(member.buckets):
            hashes = hashes_in(body, member.secret, bucket)
            for of_hash in map(postings_of, hashes):
                of_hash.append(number)
    secret = os.urandom(SECRET_BYTES)
    bucket_count, bodies = encode_buckets(postings, secret)
    return SegmentGroup(
        tenant=tenant,
        members=tuple([(member.segment_id, member.secret) for member in members]),
        turns=sum(member.turns for member in members),
        words=sum(member.words for member in members),
        secret=secret,
        bucket_count=bucket_count,
        bucket_bodies=bodies,
    )
