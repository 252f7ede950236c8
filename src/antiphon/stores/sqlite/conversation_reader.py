"""What a conversation's row means: it names turns, and how those fared is written with them."""

from __future__ import annotations

import math
import sqlite3
from typing import Any, Final, TypeAlias

import msgspec

from antiphon.core.ids import conversation_id_of, conversation_key, response_id_of
from antiphon.core.turns import Conversation
from antiphon.stores.sqlite.reader import has_expired, moment
from antiphon.stores.sqlite.response_list import Page
from antiphon.stores.sqlite.rows import HEADER
from antiphon.stores.sqlite.sql_files import SQL, named, read_sql
from antiphon.turn.store_protocols import unknown_cursor

CONVERSATIONS: Final = named(read_sql("conversations.sql"))

#: id, created_at, head, busy, metadata
_Row: TypeAlias = tuple[bytes, float, bytes | None, bytes | None, bytes]
_metadata = msgspec.json.Decoder(dict[str, str])
#: How a turn ends that its conversation goes on from.
_GOOD: Final = {"completed", "incomplete"}


class _Status(msgspec.Struct, frozen=True):
    """What of an end is needed here."""

    status: str


_ends = msgspec.json.Decoder(_Status)


def resolved(
    connection: sqlite3.Connection, tenant: str, conversation_id: str, cutoff: float
) -> tuple[Conversation | None, set[int]]:
    """The conversation as it stands, and the stores that run its busy turn.

    Within a transaction. None: there is none, or it has expired.
    """
    key = conversation_key(conversation_id)
    rows = connection.execute(CONVERSATIONS["one"], (key, tenant)).fetchall()
    return _resolved(connection, rows[0], cutoff) if rows else (None, set())


def read_conversation(
    connection: sqlite3.Connection, tenant: str, conversation_id: str, cutoff: float
) -> tuple[Conversation | None, set[int]]:
    """The same, at one moment."""
    with moment(connection):
        return resolved(connection, tenant, conversation_id, cutoff)


def read_latest(
    connection: sqlite3.Connection, tenant: str, page: Page, cutoff: float
) -> tuple[list[Conversation], set[int]]:
    """Conversations by when they were made.

    Raises ``InvalidRequest`` where the page begins behind one that there is not.
    """
    with moment(connection):
        place: tuple[float, bytes] = (math.inf, b"") if page.newest_first else (-math.inf, b"")
        if page.after is not None:
            place = _made(connection, tenant, page.after)
        query = CONVERSATIONS["backwards" if page.newest_first else "forwards"]
        cursor = connection.execute(query, (tenant, *place))
        found: list[Conversation] = []
        owners: set[int] = set()
        while len(found) < page.limit and (row := cursor.fetchone()) is not None:
            conversation, running = _resolved(connection, row, cutoff)
            if conversation is not None:
                found.append(conversation)
                owners |= running
        cursor.close()
        return found, owners


def _made(connection: sqlite3.Connection, tenant: str, after: str) -> tuple[float, bytes]:
    key = conversation_key(after)
    rows = connection.execute(CONVERSATIONS["made"], (key, tenant)).fetchall()
    if key is None or not rows:
        raise unknown_cursor(after)
    return rows[0][0], key


def _resolved(
    connection: sqlite3.Connection, row: _Row, cutoff: float
) -> tuple[Conversation | None, set[int]]:
    key, created_at, head, busy, metadata = row
    owners: set[int] = set()
    #: Turns that keep the conversation alive.
    places = []
    if busy is not None:
        state = _state(connection, busy)
        if state is None or state[1] is None or _too_old(connection, state[0], state[2], cutoff):
            busy = None
        else:
            place, _, _, owner, end = state
            places.append(place)
            if owner is not None:
                owners.add(owner)
            elif end is not None and _ends.decode(end).status in _GOOD:
                head, busy = busy, None
            else:
                busy = None
    head, place, stamp = _living(connection, head)
    if place is not None and _too_old(connection, place, stamp, cutoff):
        head = None
    elif place is not None:
        places.append(place)
    if created_at <= cutoff and not places:
        return None, set()
    conversation = Conversation(
        conversation_id_of(key),
        created_at,
        _metadata.decode(metadata),
        response_id_of(head) if head else None,
        response_id_of(busy) if busy else None,
    )
    return conversation, owners


def _state(connection: sqlite3.Connection, key: bytes) -> tuple[Any, ...] | None:
    """Place, tenant (None: erased), stamp, owner (None: none runs it), end; None: swept."""
    rows = connection.execute(CONVERSATIONS["state"], (key,)).fetchall()
    return rows[0] if rows else None


def _too_old(
    connection: sqlite3.Connection, place: int, stamp: float | None, cutoff: float
) -> bool:
    """Whether a turn has expired; ``stamp`` None: look it up with its descendants'.

    Those are only looked at where the turn's own stamp does not keep it: a conversation in
    use costs the same however many branches it has.
    """
    if cutoff == -math.inf or (stamp is not None and stamp > cutoff):
        return False
    return has_expired(connection, place, cutoff)


def _living(
    connection: sqlite3.Connection, key: bytes | None
) -> tuple[bytes | None, int | None, float | None]:
    """The response itself, or where it was erased the nearest ancestor that was not.

    With its place, and its stamp where that is known.
    """
    if key is None or (state := _state(connection, key)) is None:
        return None, None, None
    place: int = state[0]
    if state[1] is not None:
        return key, place, state[2]
    while rows := connection.execute(SQL["above"], {"place": place}).fetchall():
        place, kind, body = rows[0]
        if kind == HEADER:
            return body[:16], place, None
    return None, None, None
