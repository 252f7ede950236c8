"""Turns as rows of a log, and back. No I/O.

A row has a key, a text or both. A header's key is the response's id (16 bytes) and its time
(8 bytes), its text the request's JSON; a tombstone has the id alone. An item's text is the bytes
that came, an end's is JSON. The blobs that a turn uses lie between its header and its items, a
row with a key of 8 bytes for each.

A row's id in the SQLite log: thread, turn and position in one integer.

    bits 34-62  thread  counts from 1
    bits 15-33  seq     the turn's depth in its chain, from 0
    bits  0-14  pos     0 is the header, 32,767 the end; between lie the blobs used, then items

The integer is the table's rowid: rows of a chain are neighbours. Their texts lie in a table of
their own, in the order in which they were written.
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
from antiphon.errors import StoreError
from antiphon.turn.store_protocols import HistoryEnd, HistoryTurn, StoredTurn

#: The distance from one turn to the next, and from one thread to the next.
TURN_STRIDE: Final = 1 << 15
THREAD_STRIDE: Final = 1 << 34
#: The position of a turn's end.
END_POSITION: Final = TURN_STRIDE - 1

MAX_ITEMS: Final = END_POSITION - 1
MAX_SEQ: Final = THREAD_STRIDE // TURN_STRIDE - 1
MAX_THREAD: Final = (1 << 63) // THREAD_STRIDE - 1


def row_id_of(thread: int, seq: int) -> int:
    """Where a turn begins: the row id of its header."""
    return thread * THREAD_STRIDE + seq * TURN_STRIDE


def thread_of(row_id: int) -> int:
    return row_id // THREAD_STRIDE


def seq_of(row_id: int) -> int:
    return row_id % THREAD_STRIDE // TURN_STRIDE


def first_of_thread(row_id: int) -> int:
    """The first row id of the thread of ``row_id``."""
    return row_id - row_id % THREAD_STRIDE


def last_of_thread(row_id: int) -> int:
    return row_id | THREAD_STRIDE - 1


def last_of_turn(row_id: int) -> int:
    """The row id of the end of the turn of ``row_id``."""
    return row_id | END_POSITION


HEADER: Final = 0
INPUT: Final = 1
OUTPUT: Final = 2
END: Final = 3
TOMBSTONE: Final = 4
BLOB_USE: Final = 5

#: row_id, kind, key, text
#: The first and last row id of a part of one thread.
RowRange: TypeAlias = tuple[int, int]
Row: TypeAlias = tuple[int, int, bytes | None, bytes | None]

_HEADER_STRUCT = struct.Struct(">16sd")
_BLOB_USE_STRUCT = struct.Struct(">q")
_encoder = msgspec.json.Encoder()
_header_decoder = msgspec.json.Decoder(Header)
_end_decoder = msgspec.json.Decoder(End)
_history_end_decoder = msgspec.json.Decoder(HistoryEnd)


class HeaderRow(msgspec.Struct, frozen=True):
    """What a header row holds."""

    key: bytes
    created_at: float
    header: Header


def header_row(row_id: int, response_key: bytes, created_at: float, header: Header) -> Row:
    key = _HEADER_STRUCT.pack(response_key, created_at)
    return row_id, HEADER, key, _encoder.encode(header)


def decode_header(key: bytes, text: bytes) -> HeaderRow:
    response_key, created_at = _HEADER_STRUCT.unpack(key)
    return HeaderRow(response_key, created_at, _header_decoder.decode(text))


def decode_header_time(key: bytes) -> float:
    """The time in a header's key."""
    created_at: float = _HEADER_STRUCT.unpack(key)[1]
    return created_at


def encode_end(end: End) -> bytes:
    return _encoder.encode(end)


def decode_end(text: bytes) -> End:
    end: End = _end_decoder.decode(text)
    return end


def encode_blob_use(blob: int) -> bytes:
    """``blob`` is the number of the blob's row."""
    return _BLOB_USE_STRUCT.pack(blob)


def decode_blob_use(key: bytes) -> int:
    blob: int = _BLOB_USE_STRUCT.unpack(key)[0]
    return blob


def response_id_in(key: bytes) -> str:
    """The response id in a header's or a tombstone's key."""
    return response_id_of(key[:16])


def decode_turns(
    rows: Iterable[Row], previous: str | None, find: Callable[[int], Blob | None]
) -> list[StoredTurn]:
    """The turns in rows ordered by row id, erased ones left out.

    ``previous`` is the id of the turn before the first one, if there is one. ``find`` gives
    the blob of a row's number, and is asked about those that the turns use.
    """
    turns = []
    for _, of_turn in groupby(rows, key=_turn_number):
        (_, kind, key, text), *rest = of_turn
        if key is None:
            raise StoreError("A stored turn is damaged: restore the database from a backup.")
        if kind == HEADER:
            turns.append(_turn(decode_header(key, text or b""), rest, previous, find))
        previous = response_id_in(key)
    return turns


def decode_history(rows: Iterable[Row], find: Callable[[int], Blob | None]) -> list[HistoryTurn]:
    """The same for a history; the rows are a whole chain's, their headers without texts."""
    turns = []
    previous: str | None = None
    for _, of_turn in groupby(rows, key=_turn_number):
        (_, kind, key, _), *rest = of_turn
        if key is None:
            raise StoreError("A stored turn is damaged: restore the database from a backup.")
        response_id = response_id_in(key)
        if kind == HEADER:
            end = rest[-1][3] if rest and rest[-1][1] == END else None
            turns.append(
                HistoryTurn(
                    response_id,
                    _items(rest, INPUT),
                    _items(rest, OUTPUT),
                    None if end is None else _history_end_decoder.decode(end),
                    previous,
                    _blobs(rest, find),
                )
            )
        previous = response_id
    return turns


def _turn_number(row: Row) -> int:
    return row[0] // TURN_STRIDE


def _turn(
    row: HeaderRow, rest: list[Row], previous: str | None, find: Callable[[int], Blob | None]
) -> StoredTurn:
    end = rest[-1][3] if rest and rest[-1][1] == END else None
    return StoredTurn(
        response_id=response_id_of(row.key),
        created_at=row.created_at,
        header=row.header,
        input=_items(rest, INPUT),
        output=_items(rest, OUTPUT),
        end=None if end is None else decode_end(end),
        previous_response_id=previous,
        blobs=_blobs(rest, find),
    )


def _items(rest: list[Row], kind: int) -> tuple[bytes, ...]:
    return tuple([text or b"" for _, its_kind, _, text in rest if its_kind == kind])


def _blobs(rest: list[Row], find: Callable[[int], Blob | None]) -> dict[str, bytes]:
    blobs: dict[str, bytes] = {}
    for _, kind, key, _ in rest:
        # Uses lie in front: a turn has none if its first row is none.
        if kind != BLOB_USE:
            break
        blob = find(decode_blob_use(key or b""))
        if blob is not None:
            blobs[blob.hash] = blob.data
    return blobs
