"""A chunk: the index of up to 256 turns of one tenant, as rows. No I/O.

    secret   16 random bytes, the key of the hashes that its words are known by
    spots    of each turn, in order: its place, its time and how many words it holds
    drawers  the words, some sixteen in each, by their hashes

A word's hash has 8 bytes: two tell its drawer, six are its name there. A drawer is the number
of its words (2 bytes), their names (6 bytes each), how many turns hold each (a byte, less
one), and for each of those the turn's number in the chunk and how often it has the word (a
byte each).
"""

from __future__ import annotations

import os
import struct
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Final

import msgspec

from antiphon.stores.full_text import MAX_COUNT, terms_of

#: The most turns of a chunk: their numbers are one byte.
FULL: Final = 256
_SPOT: Final = struct.Struct("<qdI")
_NAME: Final = 6
#: So many words lie in a drawer, or up to twice as many; and so many drawers are the most.
_IN_DRAWER: Final = 12
_DRAWERS: Final = 1 << 16


class Spoken(msgspec.Struct, frozen=True):
    """A turn that has ended: where it lies, when it was, and what was said in it."""

    place: int
    created_at: float
    text: str


class Chunk(msgspec.Struct, frozen=True):
    """What is written of a chunk. ``bodies`` are numbers and bodies of drawers, in order."""

    places: tuple[int, ...]
    words: int
    secret: bytes
    drawers: int
    spots: bytes
    bodies: tuple[tuple[int, bytes], ...]


def chunk_of(turns: Sequence[Spoken]) -> Chunk | None:
    """The chunk of at most ``FULL`` turns, those without words left out; None: no words."""
    places: list[int] = []
    words = 0
    spots: list[bytes] = []
    found: defaultdict[str, bytes] = defaultdict(bytes)
    for turn in turns:
        terms = terms_of(turn.text)
        if not terms:
            continue
        number = len(places)
        places.append(turn.place)
        words += len(terms)
        spots.append(_SPOT.pack(turn.place, turn.created_at, len(terms)))
        once = bytes((number, 1))
        for term, count in Counter(terms).items():
            found[term] += once if count == 1 else bytes((number, min(count, MAX_COUNT)))
    if not places:
        return None
    secret = os.urandom(16)
    # A power of two, so that a part of the hash is a drawer's number.
    drawers = min(_DRAWERS, 1 << (len(found) // _IN_DRAWER).bit_length() >> 1 or 1)
    return Chunk(
        places=tuple(places),
        words=words,
        secret=secret,
        drawers=drawers,
        spots=b"".join(spots),
        bodies=tuple(_bodies(found, secret, drawers)),
    )


def hash_of(term: str, secret: bytes, drawers: int) -> tuple[int, bytes]:
    """The drawer that a chunk keeps a term in, and its name there.

    They say nothing without the secret.
    """
    data = term.encode("utf-8", "surrogatepass")
    digest = blake2b(data, digest_size=2 + _NAME, key=secret).digest()
    return int.from_bytes(digest[:2], "big") & drawers - 1, digest[2:]


def spots_in(data: bytes) -> list[tuple[int, float, int]]:
    """The place, time and number of words of each turn of a chunk."""
    return list(_SPOT.iter_unpack(data))


def found_in(body: bytes, name: bytes) -> bytes:
    """What a drawer has under a name: numbers of turns, each with how often; may be empty."""
    words = int.from_bytes(body[:2], "big")
    names = body[2 : 2 + words * _NAME]
    at = names.find(name)
    while at % _NAME and at >= 0:
        # The end of one name and the beginning of the next look like it.
        at = names.find(name, at + 1)
    if at < 0:
        return b""
    before = at // _NAME
    sizes = body[2 + words * _NAME : 2 + words * (_NAME + 1)]
    start = 2 + words * (_NAME + 1) + 2 * (sum(sizes[:before]) + before)
    return body[start : start + 2 * (sizes[before] + 1)]


def counts_in(found: bytes) -> dict[int, int]:
    """By the numbers of the turns that hold a word, how often."""
    return dict(zip(found[::2], found[1::2], strict=True))


def _bodies(found: Mapping[str, bytes], secret: bytes, drawers: int) -> Iterator[tuple[int, bytes]]:
    """The drawers that are not empty, as they lie in the table: so its pages fill in order."""
    sorted_in: defaultdict[int, dict[bytes, bytes]] = defaultdict(dict)
    for term, held in found.items():
        drawer, name = hash_of(term, secret, drawers)
        sorted_in[drawer][name] = held
    for drawer, words in sorted(sorted_in.items()):
        sizes = bytes([len(held) // 2 - 1 for held in words.values()])
        yield drawer, b"".join((len(words).to_bytes(2, "big"), *words, sizes, *words.values()))
