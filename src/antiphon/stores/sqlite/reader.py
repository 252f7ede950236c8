"""Reads of the SQLite store: turns, chains, windows of chains and conversations, each a snapshot.

Functions of a connection. Where a turn has no end, they also return the owners that run it, so
that the caller can check whether those are alive.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, Final, TypeAlias

import msgspec

from antiphon.core.ids import (
    conversation_id_of,
    conversation_key,
    response_id_of,
    response_key,
    time_of_key,
)
from antiphon.core.images import Blob
from antiphon.core.retention import NO_EXPIRY, Expiry
from antiphon.core.turns import ConversationRecord
from antiphon.stores.sqlite.rows import (
    HEADER,
    TOMBSTONE,
    Row,
    RowRange,
    decode_history,
    decode_turns,
    first_of_thread,
    last_of_turn,
    response_id_in,
    row_id_of,
    seq_of,
    thread_of,
)
from antiphon.stores.sqlite.sql_files import TURN_SQL, read_queries
from antiphon.turn.store_protocols import (
    Head,
    HistoryTurn,
    StoredTurn,
    Window,
    unknown_cursor,
)

_HEAD = TURN_SQL["head"]
#: A cutoff by which nothing has expired.
_NO_CUTOFF = -math.inf
#: Longer than any text.
_MAX_TEXT = 1 << 62


def read_head(
    connection: sqlite3.Connection, tenant: str, response_id: str, cutoff: float = _NO_CUTOFF
) -> tuple[Head | None, set[int]]:
    """The head of a chain: one statement, finished when this returns."""
    rows = connection.execute(_HEAD, (response_key(response_id), tenant)).fetchall()
    if not rows:
        return None, set()
    row_id, tree, epoch, owner, timestamp = rows[0]
    if timestamp <= cutoff and has_expired(connection, row_id, cutoff):
        return None, set()
    running = owner is not None
    head = Head(
        response_id, tenant, thread_of(row_id), seq_of(row_id), tree, epoch, running, timestamp
    )
    return head, {owner} if running else set()


def has_expired(connection: sqlite3.Connection, row_id: int, cutoff: float) -> bool:
    """Whether neither a turn nor a descendant has a timestamp later than ``cutoff``.

    True for what was erased, too; False in a permanent chat.
    """
    return not connection.execute(
        TURN_SQL["has_unexpired"], {"row_id": row_id, "cutoff": cutoff}
    ).fetchall()


def latest_timestamp(connection: sqlite3.Connection, row_id: int) -> float | None:
    """The latest timestamp among a turn and its descendants; None: all of them are erased.

    Infinity: their chat is permanent.
    """
    timestamp: float | None = connection.execute(
        TURN_SQL["latest_timestamp"], {"row_id": row_id}
    ).fetchall()[0][0]
    return timestamp


def read_turn(
    connection: sqlite3.Connection, tenant: str, response_id: str, expiry: Expiry = NO_EXPIRY
) -> tuple[StoredTurn | None, set[int]]:
    """One whole turn, with its expiry."""
    with snapshot(connection):
        found = connection.execute(
            TURN_SQL["row_id"], (response_key(response_id), tenant)
        ).fetchall()
        if not found:
            return None, set()
        row_id: int = found[0][0]
        expires_at = None
        if (cutoff := expiry.cutoff(tenant)) > _NO_CUTOFF:
            latest = latest_timestamp(connection, row_id)
            if latest is None or latest <= cutoff:
                return None, set()
            expires_at = expiry.expires_at(tenant, latest)
        turn = msgspec.structs.replace(turn_at(connection, row_id), expires_at=expires_at)
        return turn, owners_of(connection, [turn])


def turn_at(connection: sqlite3.Connection, row_id: int) -> StoredTurn:
    """The turn whose header has this row id, expired or not."""
    before = connection.execute(TURN_SQL["previous_turn"], {"row_id": row_id}).fetchall()
    rows = read_rows(connection, row_id, last_of_turn(row_id))
    (turn,) = decode_turns(
        rows, response_id_in(before[0][2]) if before else None, blob_finder(connection)
    )
    return turn


def read_chain(
    connection: sqlite3.Connection, head: Head, cutoff: float = _NO_CUTOFF
) -> tuple[list[StoredTurn], set[int]]:
    """A response and its ancestors, oldest first: one range for each thread they lie in."""
    with snapshot(connection):
        rows: list[Row] = []
        for first, last in chain_row_ranges(connection, head, cutoff):
            rows += read_rows(connection, first, last)
        turns = decode_turns(rows, None, blob_finder(connection))
        return turns, owners_of(connection, turns)


def chain_row_ranges(connection: sqlite3.Connection, head: Head, cutoff: float) -> list[RowRange]:
    """The rows of a response's chain, oldest first, a range a thread; none where it has expired."""
    end = row_id_of(head.thread, head.seq)
    if head.timestamp <= cutoff and has_expired(connection, end, cutoff):
        return []
    ends = thread_ends(connection, end, head.tenant)
    return [(first_of_thread(row_id), last_of_turn(row_id)) for row_id in ends]


class ReadLimits(msgspec.Struct, frozen=True):
    """What a read may take on the event loop's thread: rows of each thread, bytes of each text."""

    rows: int
    text_bytes: int


def read_history(
    connection: sqlite3.Connection,
    head: Head,
    cutoff: float = _NO_CUTOFF,
    limits: ReadLimits | None = None,
) -> tuple[list[HistoryTurn] | None, set[int]]:
    """The same turns for a history; no turns where something was erased since ``head`` was read.

    None: that takes more than the limits.
    """
    values = {
        "limit": limits.rows if limits else -1,
        "longest": limits.text_bytes if limits else _MAX_TEXT,
    }
    with snapshot(connection):
        if not connection.execute(TURN_SQL["has_epoch"], (head.tree, head.epoch)).fetchone()[0]:
            return [], set()
        rows: list[Row] = []
        for first, last in chain_row_ranges(connection, head, cutoff):
            values |= {"first": first, "last": last}
            more = connection.execute(TURN_SQL["history_rows"], values).fetchall()
            if limits is not None and (len(more) == limits.rows or any(map(_is_too_long, more))):
                return None, set()
            rows += more
        turns = decode_history(rows, blob_finder(connection))
        return turns, owners_of(connection, turns)


def _is_too_long(row: Row) -> bool:
    """Whether a row's text was too long to be read, or it is the use of an image."""
    return row[3] is None and row[1] not in {HEADER, TOMBSTONE}


def read_owners(connection: sqlite3.Connection) -> set[int]:
    """The owners of all running turns, alive or dead."""
    return {owner for (owner,) in connection.execute(TURN_SQL["owners"]).fetchall()}


def read_newest_time(connection: sqlite3.Connection) -> float | None:
    """When the newest turn was stored, by the clock of then; None: there is none."""
    ((key,),) = connection.execute(TURN_SQL["newest_id"]).fetchall()
    return None if key is None else time_of_key(key)


@contextlib.contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """Snapshot: all reads within see the database as it was at the first of them."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        # A reader must not hold its snapshot: checkpoints wait for it.
        connection.execute("ROLLBACK")


def read_rows(connection: sqlite3.Connection, first: int, last: int) -> list[Row]:
    """The rows of the log between two row ids."""
    return connection.execute(TURN_SQL["rows"], (first, last)).fetchall()


def blob_finder(connection: sqlite3.Connection) -> Callable[[int], Blob | None]:
    """Finds blobs by their rows' numbers, and reads each once."""

    @cache
    def find(number: int) -> Blob | None:
        rows = connection.execute(TURN_SQL["blob"], (number,)).fetchall()
        return Blob(rows[0][0].hex(), rows[0][1]) if rows else None

    return find


def thread_ends(connection: sqlite3.Connection, row_id: int, tenant: str) -> list[int]:
    """The last row id in each thread of the chain that ends at ``row_id``, oldest first."""
    found = connection.execute(
        TURN_SQL["thread_ends"], {"row_id": row_id, "tenant": tenant}
    ).fetchall()
    return [end_row_id for (end_row_id,) in found]


def owners_of(
    connection: sqlite3.Connection, turns: Sequence[StoredTurn | HistoryTurn]
) -> set[int]:
    """The owners of those turns that have no end."""
    owners: set[int] = set()
    for turn in turns:
        if turn.end is None:
            key = response_key(turn.response_id)
            owners.update(owner for (owner,) in connection.execute(TURN_SQL["runner"], (key,)))
    return owners


class PageRequest(msgspec.Struct, frozen=True):
    """A page of a list: at most ``limit``, after the one with the id ``after``."""

    limit: int
    after: str | None = None
    newest_first: bool = True


def read_window(
    connection: sqlite3.Connection, head: Head, window: Window, cutoff: float = _NO_CUTOFF
) -> tuple[list[StoredTurn], set[int]]:
    """The turns of a window in its order, and the stores that run those without an end.

    As much work as there are turns in it, and threads in the chain.
    """
    with snapshot(connection):
        row_ranges = chain_row_ranges(connection, head, cutoff)
        if not row_ranges:
            return [], set()
        if window.newest_first:
            row_ranges.reverse()
        if window.at is not None:
            key = response_key(window.at)
            found = connection.execute(TURN_SQL["row_id"], (key, head.tenant)).fetchall()
            row_ranges = _ranges_from(row_ranges, found[0][0], window) if found else []
        turns = [
            turn_at(connection, row_id) for row_id in _first_row_ids(connection, row_ranges, window)
        ]
        return turns, owners_of(connection, turns)


def _ranges_from(row_ranges: list[RowRange], row_id: int, window: Window) -> list[RowRange]:
    """The rest of the ranges, in the window's order, from the turn at ``row_id`` on."""
    for number, (first, last) in enumerate(row_ranges):
        if first <= row_id <= last:
            rest = (first, last_of_turn(row_id)) if window.newest_first else (row_id, last)
            return [rest, *row_ranges[number + 1 :]]
    return []


def _first_row_ids(
    connection: sqlite3.Connection, row_ranges: list[RowRange], window: Window
) -> list[int]:
    """The row ids of turns that are not erased."""
    query = TURN_SQL["headers_backwards" if window.newest_first else "headers_forwards"]
    row_ids: list[int] = []
    for first, last in row_ranges:
        if len(row_ids) >= window.limit:
            break
        rows = connection.execute(query, (first, last, window.limit - len(row_ids)))
        row_ids += [row_id for (row_id,) in rows.fetchall()]
    return row_ids


CONVERSATION_SQL: Final = read_queries("conversations.sql")

#: id, created_at, head, active, metadata
_Row: TypeAlias = tuple[bytes, float, bytes | None, bytes | None, bytes]
_metadata_decoder = msgspec.json.Decoder(dict[str, str])
#: Statuses of a turn that becomes its conversation's head.
_SUCCESS_STATUSES: Final = {"completed", "incomplete"}


class _Status(msgspec.Struct, frozen=True):
    """The one field of an end that is needed here."""

    status: str


_end_decoder = msgspec.json.Decoder(_Status)


def resolve_conversation(
    connection: sqlite3.Connection, tenant: str, conversation_id: str, cutoff: float
) -> tuple[ConversationRecord | None, set[int]]:
    """The conversation as it stands, and the stores that run its active turn.

    Within a transaction. None: there is none, or it has expired.
    """
    key = conversation_key(conversation_id)
    rows = connection.execute(CONVERSATION_SQL["get"], (key, tenant)).fetchall()
    return _resolve_row(connection, rows[0], cutoff) if rows else (None, set())


def read_conversation(
    connection: sqlite3.Connection, tenant: str, conversation_id: str, cutoff: float
) -> tuple[ConversationRecord | None, set[int]]:
    """The same, in a snapshot."""
    with snapshot(connection):
        return resolve_conversation(connection, tenant, conversation_id, cutoff)


def read_conversations(
    connection: sqlite3.Connection, tenant: str, page: PageRequest, cutoff: float
) -> tuple[list[ConversationRecord], set[int]]:
    """Conversations by creation time.

    Raises ``InvalidRequestError`` where ``page.after`` is not one of them.
    """
    with snapshot(connection):
        start: tuple[float, bytes] = (math.inf, b"") if page.newest_first else (-math.inf, b"")
        if page.after is not None:
            start = _creation_key(connection, tenant, page.after)
        query = CONVERSATION_SQL["backwards" if page.newest_first else "forwards"]
        cursor = connection.execute(query, (tenant, *start))
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
    rows = connection.execute(CONVERSATION_SQL["created_at"], (key, tenant)).fetchall()
    if key is None or not rows:
        raise unknown_cursor(after)
    return rows[0][0], key


def _resolve_row(
    connection: sqlite3.Connection, row: _Row, cutoff: float
) -> tuple[ConversationRecord | None, set[int]]:
    key, created_at, head, active, metadata = row
    owners: set[int] = set()
    #: Turns that keep the conversation alive.
    row_ids = []
    if active is not None:
        state = _turn_state(connection, active)
        if state is None or state[1] is None or _is_expired(connection, state[0], state[2], cutoff):
            active = None
        else:
            row_id, _, _, owner, end = state
            row_ids.append(row_id)
            if owner is not None:
                owners.add(owner)
            elif end is not None and _end_decoder.decode(end).status in _SUCCESS_STATUSES:
                head, active = active, None
            else:
                active = None
    head, row_id, timestamp = _nearest_existing(connection, head)
    if row_id is not None and _is_expired(connection, row_id, timestamp, cutoff):
        head = None
    elif row_id is not None:
        row_ids.append(row_id)
    if created_at <= cutoff and not row_ids:
        return None, set()
    conversation = ConversationRecord(
        conversation_id_of(key),
        created_at,
        _metadata_decoder.decode(metadata),
        response_id_of(head) if head else None,
        response_id_of(active) if active else None,
    )
    return conversation, owners


def _turn_state(connection: sqlite3.Connection, key: bytes) -> tuple[Any, ...] | None:
    """Row id, tenant (None: erased), timestamp, owner (None: none runs it), end; None: swept."""
    rows = connection.execute(CONVERSATION_SQL["turn_state"], (key,)).fetchall()
    return rows[0] if rows else None


def _is_expired(
    connection: sqlite3.Connection, row_id: int, timestamp: float | None, cutoff: float
) -> bool:
    """Whether a turn has expired; ``timestamp`` None: look it up with its descendants'.

    Those are only looked at where the turn's own timestamp does not keep it: a conversation in
    use costs the same however many branches it has.
    """
    if cutoff == -math.inf or (timestamp is not None and timestamp > cutoff):
        return False
    return has_expired(connection, row_id, cutoff)


def _nearest_existing(
    connection: sqlite3.Connection, key: bytes | None
) -> tuple[bytes | None, int | None, float | None]:
    """The response itself, or where it was erased the nearest ancestor that was not.

    With its row_id, and its timestamp where that is known.
    """
    if key is None or (state := _turn_state(connection, key)) is None:
        return None, None, None
    row_id: int = state[0]
    if state[1] is not None:
        return key, row_id, state[2]
    while rows := connection.execute(TURN_SQL["previous_turn"], {"row_id": row_id}).fetchall():
        row_id, kind, its_key = rows[0]
        if kind == HEADER:
            return its_key[:16], row_id, None
    return None, None, None
