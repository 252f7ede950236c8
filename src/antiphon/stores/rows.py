"""Turns as rows of a log, and back. No I/O.

A header's body is the response's id (16 bytes), its time (8 bytes) and the request's
JSON; a tombstone's is the id alone. Items are the bytes that came; an end is JSON.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import groupby
from typing import Final, TypeAlias

import msgspec

from antiphon.core.ids import response_id_of
from antiphon.core.turns import End, Header
from antiphon.stores.place import TURN
from antiphon.turn.ports import StoredTurn

HEADER: Final = 0
INPUT: Final = 1
OUTPUT: Final = 2
END: Final = 3
ERASED: Final = 4

#: place, kind, body
Row: TypeAlias = tuple[int, int, bytes]

_PREFIX = struct.Struct(">16sd")
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


def id_in(body: bytes) -> str:
    """The response id in a header's or a tombstone's body."""
    return response_id_of(body[:16])


def turns_of(rows: Iterable[Row], previous: str | None) -> list[StoredTurn]:
    """The turns that rows in order of place tell of, erased ones left out.

    ``previous`` is the id of the turn before the first one, if there is one.
    """
    turns = []
    for _, of_turn in groupby(rows, key=_turn_number):
        (_, kind, body), *rest = of_turn
        if kind == HEADER:
            turns.append(_turn(body, rest, previous))
        previous = id_in(body)
    return turns


def _turn_number(row: Row) -> int:
    return row[0] // TURN


def _turn(body: bytes, rest: list[Row], previous: str | None) -> StoredTurn:
    top = decode_header(body)
    end = rest[-1][2] if rest and rest[-1][1] == END else None
    return StoredTurn(
        response_id=response_id_of(top.key),
        created_at=top.created_at,
        header=top.header,
        input=tuple([item for _, kind, item in rest if kind == INPUT]),
        output=tuple([item for _, kind, item in rest if kind == OUTPUT]),
        end=None if end is None else _ends.decode(end),
        previous_response_id=previous,
    )
