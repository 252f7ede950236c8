"""Index segment: the inverted index of up to 256 turns of one tenant, as rows. No I/O.

    secret   16 random bytes, the key of the term hashes
    entries  of each turn, in order: its row id, its time and how many words it has
    buckets  the terms' hashes with their postings, some sixteen terms in each

A term's hash has 8 bytes: two select its bucket, six are its name there. A bucket is the number
of its terms (2 bytes), their names (6 bytes each), how many turns hold each (a byte, less
one), and the postings: for each of those the turn's number in the segment and how often it has
the term (a byte each).
"""

from __future__ import annotations

import os
import struct
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Final

import msgspec

from antiphon.stores.search_tokenizer import MAX_TERM_COUNT, tokenize

#: The most turns of a segment: their numbers are one byte.
MAX_SEGMENT_TURNS: Final = 256
_TURN_ENTRY: Final = struct.Struct("<qdI")
_NAME_BYTES: Final = 6
#: So many words lie in a bucket, or up to twice as many; and so many buckets are the most.
_TERMS_PER_BUCKET: Final = 12
_MAX_BUCKETS: Final = 1 << 16


class IndexedTurn(msgspec.Struct, frozen=True):
    """A turn to be indexed: its row id, time and text."""

    row_id: int
    created_at: float
    text: str


class IndexSegment(msgspec.Struct, frozen=True):
    """What is written of a segment. ``bodies`` are numbers and bodies of buckets, in order."""

    row_ids: tuple[int, ...]
    words: int
    secret: bytes
    bucket_count: int
    turn_entries: bytes
    bucket_bodies: tuple[tuple[int, bytes], ...]


def build_segment(turns: Sequence[IndexedTurn]) -> IndexSegment | None:
    """The segment of at most 256 turns, those without words left out; None: no words."""
    row_ids: list[int] = []
    words = 0
    entries: list[bytes] = []
    postings: defaultdict[str, bytes] = defaultdict(bytes)
    for turn in turns:
        terms = tokenize(turn.text)
        if not terms:
            continue
        number = len(row_ids)
        row_ids.append(turn.row_id)
        words += len(terms)
        entries.append(_TURN_ENTRY.pack(turn.row_id, turn.created_at, len(terms)))
        once = bytes((number, 1))
        for term, count in Counter(terms).items():
            postings[term] += once if count == 1 else bytes((number, min(count, MAX_TERM_COUNT)))
    if not row_ids:
        return None
    secret = os.urandom(16)
    # A power of two, so that a part of the hash is a bucket's number.
    buckets = min(_MAX_BUCKETS, 1 << (len(postings) // _TERMS_PER_BUCKET).bit_length() >> 1 or 1)
    return IndexSegment(
        row_ids=tuple(row_ids),
        words=words,
        secret=secret,
        bucket_count=buckets,
        turn_entries=b"".join(entries),
        bucket_bodies=tuple(_bucket_bodies(postings, secret, buckets)),
    )


def hash_term(term: str, secret: bytes, bucket_count: int) -> tuple[int, bytes]:
    """The bucket that a segment stores a term in, and its name there.

    They say nothing without the secret.
    """
    data = term.encode("utf-8", "surrogatepass")
    digest = blake2b(data, digest_size=2 + _NAME_BYTES, key=secret).digest()
    return int.from_bytes(digest[:2], "big") & bucket_count - 1, digest[2:]


def decode_turn_entries(data: bytes) -> list[tuple[int, float, int]]:
    """The row id, time and number of words of each turn of a segment."""
    return list(_TURN_ENTRY.iter_unpack(data))


def find_postings(body: bytes, name: bytes) -> bytes:
    """What a bucket has under a name: numbers of turns, each with how often; may be empty."""
    words = int.from_bytes(body[:2], "big")
    names = body[2 : 2 + words * _NAME_BYTES]
    at = names.find(name)
    while at % _NAME_BYTES and at >= 0:
        # The end of one name and the beginning of the next look like it.
        at = names.find(name, at + 1)
    if at < 0:
        return b""
    before = at // _NAME_BYTES
    sizes = body[2 + words * _NAME_BYTES : 2 + words * (_NAME_BYTES + 1)]
    start = 2 + words * (_NAME_BYTES + 1) + 2 * (sum(sizes[:before]) + before)
    return body[start : start + 2 * (sizes[before] + 1)]


def decode_postings(postings: bytes) -> dict[int, int]:
    """By the numbers of the turns that hold a word, how often."""
    return dict(zip(postings[::2], postings[1::2], strict=True))


def _bucket_bodies(
    postings: Mapping[str, bytes], secret: bytes, bucket_count: int
) -> Iterator[tuple[int, bytes]]:
    """The buckets that are not empty, as they lie in the table: so its pages fill in order."""
    sorted_in: defaultdict[int, dict[bytes, bytes]] = defaultdict(dict)
    for term, entries in postings.items():
        bucket, name = hash_term(term, secret, bucket_count)
        sorted_in[bucket][name] = entries
    for bucket, words in sorted(sorted_in.items()):
        sizes = bytes([len(entries) // 2 - 1 for entries in words.values()])
        yield bucket, b"".join((len(words).to_bytes(2, "big"), *words, sizes, *words.values()))
