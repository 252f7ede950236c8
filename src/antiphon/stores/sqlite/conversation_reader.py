"""What a conversation's row means: it names turns, and how those fared is written with them."""

from __future__ import annotations

import math
import sqlite3
from typing import Any, Final, TypeAlias

import msgspec

from antiphon.core.ids import conversation_id_of, conversation_key, response_id_of
from antiphon.core.turns import ConversationRecord
from antiphon.stores.sqlite.reader import has_expired, snapshot
from antiphon.stores.sqlite.response_list import PageRequest
from antiphon.stores.sqlite.rows import HEADER
from antiphon.stores.sqlite.sql_files import TURN_SQL, parse_queries, read_sql
from antiphon.turn.store_protocols import unknown_cursor

CONVERSATION_SQL: Final = parse_queries(read_sql("conversations.sql"))

#: id, created_at, head, busy, metadata
_Row: TypeAlias = tuple[bytes, float, bytes | None, bytes | None, bytes]
_metadata_decoder = msgspec.json.Decoder(dict[str, str])
#: How a turn ends that its conversation goes on from.
_SUCCESS_STATUSES: Final = {"completed", "incomplete"}


class _Status(msgspec.Struct, frozen=True):
    """What of an end is needed here."""

    status: str


_end_decoder = msgspec.json.Decoder(_Status)


def resolve_conversation(
    connection: sqlite3.Connection, tenant: str, conversation_id: str, cutoff: float
) -> tuple[ConversationRecord | None, set[int]]:
    """The conversation as it stands, and the stores that run its busy turn.

    Within a transaction. None: there is none, or it has expired.
    """
    key = conversation_key(conversation_id)
    rows = connection.execute(CONVERSATION_SQL["one"], (key, tenant)).fetchall()
    return _resolve_row(connection, rows[0], cutoff) if rows else (None, set())


def read_conversation(
    connection: sqlite3.Connection, tenant: str, conversation_id: str, cutoff: float
) -> tuple[ConversationRecord | None, set[int]]:
    """The same, at one moment."""
    with snapshot(connection):
        return resolve_conversation(connection, tenant, conversation_id, cutoff)


def read_conversations(
    connection: sqlite3.Connection, tenant: str, page: PageRequest, cutoff: float
) -> tuple[list[ConversationRecord], set[int]]:
    """Conversations by when they were made.

    Raises ``InvalidRequestError`` where the page begins behind one that there is not.
    """
    with snapshot(connection):
        place: tuple[float, bytes] = (math.inf, b"") if page.newest_first else (-math.inf, b"")
        if page.after is not None:
            place = _creation_key(connection, tenant, page.after)
        query = CONVERSATION_SQL["backwards" if page.newest_first else "forwards"]
        cursor = connection.execute(query, (tenant, *place))
        found: list[ConversationRecord] = []
        owners: set[int] = set()
        while len(found) < page.limit and (row := cursor.fetchone()) is not None:
            conversation, running = _resolve_row(connection, row, cutoff)
            if conversation is not None:
                found.append(conversation)
                owners |= running
        cursor.close()
        return found, owners


def _creation_key(connection: sqlite3.Connection, tenant: str, after: str) -> tuple[float, bytes]:
    key = conversation_key(after)
    rows = connection.execute(CONVERSATION_SQL["made"], (key, tenant)).fetchall()
    if key is None or not rows:
        raise unknown_cursor(after)
    return rows[0][0], key


def _resolve_row(
    connection: sqlite3.Connection, row: _Row, cutoff: float
) -> tuple[ConversationRecord | None, set[int]]:
    key, created_at, head, busy, metadata = row
    owners: set[int] = set()
    #: Turns that keep the conversation alive.
    places = []
    if busy is not None:
        state = _turn_state(connection, busy)
        if state is None or state[1] is None or _is_expired(connection, state[0], state[2], cutoff):
            busy = None
        else:
            place, _, _, owner, end = state
            places.append(place)
            if owner is not None:
                owners.add(owner)
            elif end is not None and _end_decoder.decode(end).status in _SUCCESS_STATUSES:
                head, busy = busy, None
            else:
                busy = None
    head, place, stamp = _nearest_existing(connection, head)
    if place is not None and _is_expired(connection, place, stamp, cutoff):
        head = None
    elif place is not None:
        places.append(place)
    if created_at <= cutoff and not places:
        return None, set()
    conversation = ConversationRecord(
        conversation_id_of(key),
        created_at,
        _metadata_decoder.decode(metadata),
        response_id_of(head) if head else None,
        response_id_of(busy) if busy else None,
    )
    return conversation, owners


def _turn_state(connection: sqlite3.Connection, key: bytes) -> tuple[Any, ...] | None:
    """Place, tenant (None: erased), stamp, owner (None: none runs it), end; None: swept."""
    rows = connection.execute(CONVERSATION_SQL["state"], (key,)).fetchall()
    return rows[0] if rows else None


def _is_expired(
    connection: sqlite3.Connection, row_id: int, stamp: float | None, cutoff: float
) -> bool:
    """Whether a turn has expired; ``stamp`` None: look it up with its descendants'.

    Those are only looked at where the turn's own stamp does not keep it: a conversation in
    use costs the same however many branches it has.
    """
    if cutoff == -math.inf or (stamp is not None and stamp > cutoff):
        return False
    return has_expired(connection, row_id, cutoff)


def _nearest_existing(
    connection: sqlite3.Connection, key: bytes | None
) -> tuple[bytes | None, int | None, float | None]:
    """The response itself, or where it was erased the nearest ancestor that was not.

    With its place, and its stamp where that is known.
    """
    if key is None or (state := _turn_state(connection, key)) is None:
        return None, None, None
    place: int = state[0]
    if state[1] is not None:
        return key, place, state[2]
    while rows := connection.execute(TURN_SQL["above"], {"place": place}).fetchall():
        place, kind, body = rows[0]
        if kind == HEADER:
            return body[:16], place, None
    return None, None, None
