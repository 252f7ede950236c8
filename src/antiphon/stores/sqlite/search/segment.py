"""Index segment: the inverted index of up to 256 turns of one tenant, as encrypted rows. No I/O.

    secret   16 random bytes, the key of the buckets
    entries  of each turn, in order: its time and how many words it has
    buckets  the terms' hashes with their postings, some hundred terms in each

A term's hash is its CRC-32: cheap, and right about always. Where it is not, a search reads one turn
in vain, as it looks for the words in the text of each hit. The lowest bits of a hash are
the number of its bucket. A bucket is the number of its terms (2 bytes), their hashes (4 bytes
each), the lengths of their postings (2 bytes each), and the postings: the number of each turn
that has the term, as often as it has it (a byte each).

A bucket is encrypted: combined with the output of SHAKE-128 for the segment's secret and the
bucket's number. Without the secret, which is stored apart and overwritten when the segment is
deleted, copies of a bucket say nothing. No secret is used for two contents.
"""

from __future__ import annotations

import os
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import shake_128
from itertools import accumulate, pairwise
from time import sleep
from typing import Final, TypeVar
from zlib import crc32

import msgspec

from antiphon.stores.search_tokenizer import MAX_TERM_COUNT, text_to_index, tokenize

#: The most turns of a segment: their numbers are one byte.
MAX_SEGMENT_TURNS: Final = 256
SECRET_BYTES: Final = 16
_TURN_ENTRY: Final = struct.Struct("<dI")
#: So many terms lie in a bucket, or up to twice as many; and so many buckets are the most.
_TERMS_PER_BUCKET: Final = 64
_MAX_BUCKETS: Final = 1 << 16
_MAX_LENGTH: Final = (1 << 16) - 1
#: After so many turns or buckets the thread sleeps for a moment, in seconds: the event loop's
#: thread gets the interpreter at once, not after its switch interval.
_STEPS_BETWEEN_PAUSES: Final = 8
_PAUSE: Final = 50e-6


class IndexedTurn(msgspec.Struct, frozen=True):
    """A turn to be indexed: its row id, time and items."""

    row_id: int
    created_at: float
    items: tuple[bytes, ...]


class IndexSegment(msgspec.Struct, frozen=True):
    """What is written of a segment. ``bucket_bodies`` are numbers and bodies of buckets."""

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
    postings: defaultdict[bytes, bytearray] = defaultdict(bytearray)
    postings_of = postings.__getitem__
    for turn in paced(turns):
        terms = tokenize(text_to_index(turn.items))
        if not terms:
            continue
        number = len(row_ids)
        row_ids.append(turn.row_id)
        words += len(terms)
        entries.append(_TURN_ENTRY.pack(turn.created_at, len(terms)))
        if len(terms) > MAX_TERM_COUNT:
            terms = _cap_counts(terms)
        # A turn is some hundred steps of this.
        for term_postings in map(postings_of, terms):
            term_postings.append(number)
    if not row_ids:
        return None
    secret = os.urandom(SECRET_BYTES)
    bucket_count, bodies = encode_buckets(_by_hash(postings), secret)
    return IndexSegment(
        row_ids=tuple(row_ids),
        words=words,
        secret=secret,
        bucket_count=bucket_count,
        turn_entries=b"".join(entries),
        bucket_bodies=bodies,
    )


T = TypeVar("T")


def paced(steps: Iterable[T]) -> Iterator[T]:
    """The steps, with pauses for other threads between them."""
    for number, step in enumerate(steps, 1):
        yield step
        if not number % _STEPS_BETWEEN_PAUSES:
            sleep(_PAUSE)


def hash_term(term: str) -> int:
    """The hash by which segments store a term."""
    return crc32(term.encode("utf-8", "surrogatepass"))


def encode_buckets(
    postings: Mapping[int, bytes | bytearray], secret: bytes
) -> tuple[int, tuple[tuple[int, bytes], ...]]:
    """How many buckets the postings of these hashes are divided into, and those not empty."""
    # A power of two, so that a part of the hash is a bucket's number.
    count = min(_MAX_BUCKETS, 1 << (len(postings) // _TERMS_PER_BUCKET).bit_length() >> 1 or 1)
    hashes: list[list[int]] = [[] for _ in range(count)]
    bodies: list[list[bytes | bytearray]] = [[] for _ in range(count)]
    mask = count - 1
    for name, body in postings.items():
        number = name & mask
        hashes[number].append(name)
        bodies[number].append(body)
    numbers = [number for number in range(count) if hashes[number]]
    return count, tuple(
        [
            (number, encode_bucket(BucketContent(hashes[number], bodies[number]), secret, number))
            for number in paced(numbers)
        ]
    )


def encrypt(content: bytes, secret: bytes, number: int) -> bytes:
    """Encrypt or decrypt what a bucket contains, or the beginning of it."""
    size = len(content)
    stream = shake_128(secret + number.to_bytes(2, "little")).digest(size)
    combined = int.from_bytes(content, "little") ^ int.from_bytes(stream, "little")
    return combined.to_bytes(size, "little")


class BucketContent(msgspec.Struct, frozen=True):
    """What a bucket contains: the hashes of its terms, and the postings of each."""

    hashes: Sequence[int]
    bodies: Sequence[bytes | bytearray]


def decode_bucket(body: bytes, secret: bytes, number: int) -> BucketContent:
    """What a bucket contains."""
    count = int.from_bytes(body[:2], "little")
    content = encrypt(body[2:], secret, number)
    lengths = struct.unpack_from(f"<{count}H", content, 4 * count)
    ends = list(accumulate(lengths, initial=6 * count))
    return BucketContent(
        struct.unpack_from(f"<{count}I", content),
        [content[begin:end] for begin, end in pairwise(ends)],
    )


def encode_bucket(content: BucketContent, secret: bytes, number: int) -> bytes:
    """A bucket as it is stored."""
    count = len(content.hashes)
    head = struct.pack(f"<{count}I{count}H", *content.hashes, *map(len, content.bodies))
    joined = b"".join((head, *content.bodies))
    return count.to_bytes(2, "little") + encrypt(joined, secret, number)


def find_postings(body: bytes, secret: bytes, number: int, name: int) -> bytes:
    """What a bucket has for a hash; may be empty."""
    count = int.from_bytes(body[:2], "little")
    hashes = encrypt(body[2 : 2 + 4 * count], secret, number)
    wanted = name.to_bytes(4, "little")
    at = hashes.find(wanted)
    if at < 0:
        # Most searches end here: a rare word is in few buckets.
        return b""
    while at >= 0 and at % 4:
        # The end of one hash and the beginning of the next look like it.
        at = hashes.find(wanted, at + 1)
    if at < 0:
        return b""
    content = encrypt(body[2:], secret, number)
    lengths = struct.unpack_from(f"<{at // 4 + 1}H", content, 4 * count)
    end = 6 * count + sum(lengths)
    return content[end - lengths[-1] : end]


def hashes_in(body: bytes, secret: bytes, number: int) -> tuple[int, ...]:
    """The hashes of the terms in a bucket."""
    count = int.from_bytes(body[:2], "little")
    return struct.unpack(f"<{count}I", encrypt(body[2 : 2 + 4 * count], secret, number))


def decode_postings(postings: bytes) -> Mapping[int, int]:
    """By the numbers of the turns that hold a word, how often."""
    return Counter(postings)


def decode_turn_entries(data: bytes) -> list[tuple[float, int]]:
    """The time and number of words of each turn of a segment."""
    return list(_TURN_ENTRY.iter_unpack(data))


def encode_turn_entries(entries: Iterable[tuple[float, int]]) -> bytes:
    """The times and numbers of words of turns, as a segment has them."""
    return b"".join([_TURN_ENTRY.pack(*entry) for entry in entries])


def _cap_counts(terms: list[bytes]) -> list[bytes]:
    """Without the repetitions that do not count."""
    counts = Counter(terms)
    if max(counts.values()) <= MAX_TERM_COUNT:
        return terms
    capped = {term: min(count, MAX_TERM_COUNT) for term, count in counts.items()}
    return list(Counter(capped).elements())


def _by_hash(postings: Mapping[bytes, bytearray]) -> dict[int, bytearray]:
    """The same by the hashes of the terms."""
    by_hash = dict(zip(map(crc32, postings), postings.values(), strict=True))
    if len(by_hash) < len(postings):
        # Two terms with the same hash count as one, up to what a bucket can hold of it.
        by_hash = {name: bytearray() for name in by_hash}
        for term, numbers in postings.items():
            of_hash = by_hash[crc32(term)]
            of_hash += numbers[: _MAX_LENGTH - len(of_hash)]
    return by_hash
