"""Turns as rows of the PostgreSQL log, and back. No I/O.

A turn's rows are its parts: the first holds what it began with, each of the others the items of
one write. The items of a row are packed into one value, and so are the hashes of images.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from antiphon.core.ids import response_id_of
from antiphon.core.turns import End, Header
from antiphon.turn.store_protocols import HistoryEnd, HistoryTurn, StoredTurn

#: How many items one turn holds; more would make rows that no reader can hold either.
MAX_ITEMS: Final = 32_766
#: How long a chain gets.
MAX_SEQ: Final = (1 << 19) - 1
_RANDOM_BITS: Final = 22
_HASH_BYTES: Final = 32


class TurnKey(NamedTuple):
    """Where a turn lies."""

    tree: int
    thread: int
    seq: int


#: A row of the log as ``turns.sql`` gives it: thread, seq, part, key, previous, created_at, header,
#: images, input, output, ending.
Row: TypeAlias = Any

encode_items: Final = msgspec.msgpack.Encoder().encode
decode_items: Final = msgspec.msgpack.Decoder(tuple[bytes, ...]).decode
encode_json: Final = msgspec.json.Encoder().encode
decode_header: Final = msgspec.json.Decoder(Header).decode
decode_end: Final = msgspec.json.Decoder(End).decode
_decode_history_end: Final = msgspec.json.Decoder(HistoryEnd).decode


class ThreadIds:
    """Makes ids of threads: the time in milliseconds and random bits, each greater than the last.

    So that no two processes have to ask for one. Should two ever make the same one in a tree, the
    database refuses the second.
    """

    def __init__(self) -> None:
        self._last = 0

    def next(self) -> int:
        made = (time.time_ns() // 1_000_000 << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS)
        self._last = max(made, self._last + 1)
        return self._last


def time_of_thread(thread: int) -> float:
    """When the id of a thread, or of the tree that it begins, was made, in seconds since 1970."""
    return (thread >> _RANDOM_BITS) / 1000


def pack_hashes(hashes: Iterable[str]) -> bytes | None:
    """The hashes of a turn's images in one value; None: it has none."""
    return b"".join(map(bytes.fromhex, hashes)) or None


def unpack_hashes(images: bytes | None) -> list[bytes]:
    if images is None:
        return []
    return [images[at : at + _HASH_BYTES] for at in range(0, len(images), _HASH_BYTES)]


def hashes_in(rows: Iterable[Row]) -> set[bytes]:
    """The hashes of all images that the turns in rows use."""
    return {one for row in rows if row[7] is not None for one in unpack_hashes(row[7])}


def decode_turns(rows: Iterable[Row], blobs: Mapping[bytes, bytes]) -> list[StoredTurn]:
    """The turns in ordered rows, erased ones left out. ``blobs`` are those that they use."""
    return [_turn(first, rest, blobs) for first, rest in _living_turns(rows)]


def decode_history(rows: Iterable[Row], blobs: Mapping[bytes, bytes]) -> list[HistoryTurn]:
    """The same for a history; ``header`` may be anything but None."""
    return [_history_turn(first, rest, blobs) for first, rest in _living_turns(rows)]


def decode_newest(rows: Sequence[Row]) -> Iterator[HistoryTurn]:
    """The same without images, the newest first, each looked at when it is taken."""
    end = len(rows)
    while end:
        first = end - 1
        while rows[first][2] > 0:
            first -= 1
        if rows[first][6] is not None:
            yield _history_turn(rows[first], rows[first + 1 : end], {})
        end = first


def _history_turn(first: Row, rest: Sequence[Row], blobs: Mapping[bytes, bytes]) -> HistoryTurn:
    ending = _ending(first, rest)
    return HistoryTurn(
        response_id_of(first[3]),
        decode_items(first[8]),
        _output(first, rest),
        None if ending is None else _decode_history_end(ending),
        response_id_of(first[4]) if first[4] else None,
        _blobs(first[7], blobs),
    )


def _living_turns(rows: Iterable[Row]) -> Iterator[tuple[Row, list[Row]]]:
    for _, of_turn in groupby(rows, key=_turn_of):
        first, *rest = of_turn
        if first[6] is not None:
            yield first, rest


def _turn_of(row: Row) -> tuple[int, int]:
    return row[0], row[1]


def _turn(first: Row, rest: list[Row], blobs: Mapping[bytes, bytes]) -> StoredTurn:
    ending = _ending(first, rest)
    return StoredTurn(
        response_id=response_id_of(first[3]),
        created_at=first[5],
        header=decode_header(first[6]),
        input=decode_items(first[8]),
        output=_output(first, rest),
        end=None if ending is None else decode_end(ending),
        previous_response_id=response_id_of(first[4]) if first[4] else None,
        blobs=_blobs(first[7], blobs),
    )


def _ending(first: Row, rest: Sequence[Row]) -> bytes | None:
    ending: bytes | None = (rest[-1] if rest else first)[10]
    return ending


def _output(first: Row, rest: Sequence[Row]) -> tuple[bytes, ...]:
    packed = [row[9] for row in (first, *rest) if row[9] is not None]
    if len(packed) == 1:
        return decode_items(packed[0])
    return tuple(item for one in packed for item in decode_items(one))


def _blobs(images: bytes | None, blobs: Mapping[bytes, bytes]) -> dict[str, bytes]:
    return {one.hex(): blobs[one] for one in unpack_hashes(images) if one in blobs}
