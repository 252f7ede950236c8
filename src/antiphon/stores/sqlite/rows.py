"""Turns as rows of a log, and back. No I/O.

A header's body is the response's id (16 bytes), its time (8 bytes) and the request's
JSON; a tombstone's is the id alone. Items are the bytes that came; an end is JSON. The
blobs that a turn uses lie between its header and its items, a row of 8 bytes for each.

A row's place in the SQLite log: thread, turn and position in one integer.

    bits 34-62  thread  counts from 1
    bits 15-33  seq     the turn's depth in its chain, from 0
    bits  0-14  pos     0 is the header, 32,767 the end; between lie the blobs used, then items

The integer is the table's rowid: rows of a chain are neighbours, and unlike rows of
a table keyed by three columns they leave their page only when larger than one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Final, TypeAlias

import msgspec

from antiphon.core.ids import response_id_of
from antiphon.core.images import Blob
from antiphon.core.turns import End, Header
from antiphon.turn.protocols import StoredTurn

#: The distance from one turn to the next, and from one thread to the next.
TURN: Final = 1 << 15
THREAD: Final = 1 << 34
#: The position of a turn's end.
LAST: Final = TURN - 1

MAX_ITEMS: Final = LAST - 1
MAX_SEQ: Final = THREAD // TURN - 1
MAX_THREAD: Final = (1 << 63) // THREAD - 1


def place_of(thread: int, seq: int) -> int:
    """Where a turn begins: the place of its header."""
    return thread * THREAD + seq * TURN


def thread_of(place: int) -> int:
    return place // THREAD


def seq_of(place: int) -> int:
    return place % THREAD // TURN


def first_of_thread(place: int) -> int:
    """The first place of the thread that ``place`` lies in."""
    return place - place % THREAD


def last_of_thread(place: int) -> int:
    return place | THREAD - 1


def last_of_turn(place: int) -> int:
    """Where the turn that ``place`` lies in has its end."""
    return place | LAST


HEADER: Final = 0
INPUT: Final = 1
OUTPUT: Final = 2
END: Final = 3
ERASED: Final = 4
USE: Final = 5

#: place, kind, body
Row: TypeAlias = tuple[int, int, bytes]

_PREFIX = struct.Struct(">16sd")
_USE = struct.Struct(">q")
_encoder = msgspec.json.Encoder()
_headers = msgspec.json.Decoder(Header)
_ends = msgspec.json.Decoder(End)


class HeaderRow(msgspec.Struct, frozen=True):
    """What a header row holds."""

    key: bytes
    created_at: float
    header: Header


def encode_header(key: bytes, created_at: float, header: Header) -> bytes:
    return _PREFIX.pack(key, created_at) + _encoder.encode(header)


def decode_header(body: bytes) -> HeaderRow:
    key, created_at = _PREFIX.unpack_from(body)
    return HeaderRow(key, created_at, _headers.decode(body[_PREFIX.size :]))


def encode_end(end: End) -> bytes:
    return _encoder.encode(end)


def decode_end(body: bytes) -> End:
    end: End = _ends.decode(body)
    return end


def encode_use(blob: int) -> bytes:
    """``blob`` is the number of the blob's row."""
    return _USE.pack(blob)


def decode_use(body: bytes) -> int:
    blob: int = _USE.unpack(body)[0]
    return blob


def id_in(body: bytes) -> str:
    """The response id in a header's or a tombstone's body."""
    return response_id_of(body[:16])


def turns_of(
    rows: Iterable[Row], previous: str | None, find: Callable[[int], Blob | None]
) -> list[StoredTurn]:
    """The turns that rows in order of place tell of, erased ones left out.

    ``previous`` is the id of the turn before the first one, if there is one. ``find`` gives
    the blob of a row's number, and is asked about those that the turns use.
    """
    turns = []
    for _, of_turn in groupby(rows, key=_turn_number):
        (_, kind, body), *rest = of_turn
        if kind == HEADER:
            turns.append(_turn(body, rest, previous, find))
        previous = id_in(body)
    return turns


def _turn_number(row: Row) -> int:
    return row[0] // TURN


def _turn(
    body: bytes, rest: list[Row], previous: str | None, find: Callable[[int], Blob | None]
) -> StoredTurn:
    top = decode_header(body)
    end = rest[-1][2] if rest and rest[-1][1] == END else None
    return StoredTurn(
        response_id=response_id_of(top.key),
        created_at=top.created_at,
        header=top.header,
        input=tuple([item for _, kind, item in rest if kind == INPUT]),
        output=tuple([item for _, kind, item in rest if kind == OUTPUT]),
        end=None if end is None else decode_end(end),
        previous_response_id=previous,
        blobs=_blobs(rest, find),
    )


def _blobs(rest: list[Row], find: Callable[[int], Blob | None]) -> dict[str, bytes]:
    blobs: dict[str, bytes] = {}
    for _, kind, body in rest:
        # Uses lie in front: a turn has none if its first row is none.
        if kind != USE:
            break
        blob = find(decode_use(body))
        if blob is not None:
            blobs[blob.hash] = blob.data
    return blobs
