"""Reads of the PostgreSQL store: turns, chains and windows of chains.

Functions of a connection. Where a turn has no end, they also return the nodes that run it and are
dead, so that the caller can end their turns and read again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from antiphon.core.ids import response_key
from antiphon.core.retention import NO_EXPIRY, Expiry
from antiphon.stores.postgres.rows import (
    Row,
    TurnKey,
    decode_history,
    decode_newest,
    decode_turns,
    hashes_in,
)
from antiphon.stores.postgres.sql_files import TURN_SQL
from antiphon.turn.store_protocols import (
    Head,
    HistoryTurn,
    StoredTurn,
    Window,
)

if TYPE_CHECKING:
    from antiphon.stores.postgres.connection import Connection

#: A cutoff by which nothing has expired.
NO_CUTOFF: Final = -math.inf
#: Where a row of ``heads`` has the number of the head, and how many columns are of the head itself.
_NUMBER: Final = 11
_HEAD_COLUMNS: Final = 7


class WantedHead(NamedTuple):
    """A response whose head is to be read, with so many of its thread's newest turns."""

    tenant: str
    key: bytes | None
    turns: int = 0


class PageRequest(msgspec.Struct, frozen=True):
    """A page of a list: at most ``limit``, after the one with the id ``after``."""

    limit: int
    after: str | None = None
    newest_first: bool = True


def key_of(head: Head) -> TurnKey:
    """Where a response lies."""
    return TurnKey(head.tree, head.thread, head.seq)


async def read_head(
    connection: Connection, tenant: str, response_id: str, cutoff: float = NO_CUTOFF
) -> tuple[Head | None, set[int]]:
    """The head of a chain: one statement. None: it is not there, or has expired."""
    (rows,) = await read_heads(connection, [WantedHead(tenant, response_key(response_id))])
    found = head_in(rows, tenant, response_id)
    if found is None or (
        found[0].timestamp <= cutoff and await has_expired(connection, key_of(found[0]), cutoff)
    ):
        return None, set()
    return found


async def read_heads(
    connection: Connection, wanted: Sequence[WantedHead]
) -> Sequence[Sequence[Row]]:
    """The rows of each, for ``head_in`` and ``newest_turns_in``: one statement for all of them."""
    if len(wanted) == 1 and not wanted[0].turns:
        return [await connection.fetch(TURN_SQL["head"], *wanted[0][:2])]
    found: list[list[Row]] = [[] for _ in wanted]
    for row in await connection.fetch(TURN_SQL["heads"], *zip(*wanted, strict=True)):
        found[row[_NUMBER] - 1].append(row)
    return found


def head_in(rows: Sequence[Row], tenant: str, response_id: str) -> tuple[Head, set[int]] | None:
    """The head in its rows, expired or not, and the dead node that runs it. None: it is erased."""
    if not rows:
        return None
    tree, thread, seq, timestamp, epoch, node, living = tuple(rows[0])[-_HEAD_COLUMNS:]
    running = node is not None
    head = Head(response_id, tenant, thread, seq, tree, epoch, running, timestamp)
    return head, {node} if running and living is None else set()


def newest_turns_in(rows: Sequence[Row]) -> Iterable[HistoryTurn]:
    """The newest turns in a head's rows, the newest first.

    None where they need images, which would have to be read one by one.
    """
    return () if hashes_in(rows) else decode_newest(rows)


async def has_expired(connection: Connection, key: TurnKey, cutoff: float) -> bool:
    """Whether neither a turn nor a descendant has a timestamp later than ``cutoff``.

    True for what was erased, too.
    """
    if cutoff == NO_CUTOFF:
        return False
    latest = await latest_timestamp(connection, key)
    return latest is None or latest <= cutoff


async def latest_timestamp(connection: Connection, key: TurnKey) -> float | None:
    """The latest timestamp among a turn and its descendants; None: all of them are erased."""
    timestamp: float | None = await connection.fetchval(TURN_SQL["latest_timestamp"], *key)
    return timestamp


async def read_turn(
    connection: Connection, tenant: str, response_id: str, expiry: Expiry = NO_EXPIRY
) -> tuple[StoredTurn | None, set[int]]:
    """One whole turn, with its expiry."""
    row = await connection.fetchrow(TURN_SQL["turn_key"], tenant, response_key(response_id))
    if row is None:
        return None, set()
    key = TurnKey(*row)
    expires_at = None
    if (cutoff := expiry.cutoff(tenant)) > NO_CUTOFF:
        latest = await latest_timestamp(connection, key)
        if latest is None or latest <= cutoff:
            return None, set()
        expires_at = expiry.expires_at(tenant, latest)
    turns, dead = await read_turns(connection, tenant, [key])
    if not turns:
        return None, set()
    return msgspec.structs.replace(turns[0], expires_at=expires_at), dead


async def read_turns(
    connection: Connection, tenant: str, keys: Sequence[TurnKey], *, with_images: bool = True
) -> tuple[list[StoredTurn], set[int]]:
    """The turns of these places that are not erased, in their order, expired or not."""
    if not keys:
        return [], set()
    rows = await connection.fetch(TURN_SQL["turns"], *zip(*keys, strict=True))
    blobs = await _blobs_of(connection, tenant, rows) if with_images else {}
    turns = decode_turns(rows, blobs)
    places = {row[3]: key for row, key in _first_rows(rows, keys)}
    return turns, await _dead_nodes(connection, turns, places)


async def read_chain(
    connection: Connection, head: Head, cutoff: float = NO_CUTOFF
) -> tuple[list[StoredTurn], set[int]]:
    """A response and its ancestors, oldest first."""
    rows = await _chain_rows(connection, TURN_SQL["chain"], (), head, cutoff)
    turns = decode_turns(rows, await _blobs_of(connection, head.tenant, rows))
    return turns, await _dead_nodes(connection, turns, _places(rows, head.tree))


async def read_history(
    connection: Connection, head: Head, cutoff: float = NO_CUTOFF
) -> tuple[list[HistoryTurn], set[int]]:
    """The same turns for a history; no turns where something was erased since ``head`` was read."""
    rows = await _chain_rows(connection, TURN_SQL["history"], (head.epoch,), head, cutoff)
    turns = decode_history(rows, await _blobs_of(connection, head.tenant, rows))
    return turns, await _dead_nodes(connection, turns, _places(rows, head.tree))


async def _chain_rows(
    connection: Connection, query: str, more: tuple[object, ...], head: Head, cutoff: float
) -> Sequence[Row]:
    key = key_of(head)
    if head.timestamp <= cutoff and await has_expired(connection, key, cutoff):
        return []
    return await connection.fetch(query, *key, head.tenant, *more)


async def chain_parts(
    connection: Connection, head: Head, cutoff: float = NO_CUTOFF
) -> list[tuple[int, int, int]]:
    """The thread, first and last depth of each part of a chain, oldest first.

    None where it has expired.
    """
    key = key_of(head)
    if head.timestamp <= cutoff and await has_expired(connection, key, cutoff):
        return []
    parts: list[tuple[int, int, int]] = []
    for thread, seq in await connection.fetch(TURN_SQL["chain_parts"], *key, head.tenant):
        parts.append((thread, parts[-1][2] + 1 if parts else 0, seq))
    return parts


async def read_window(
    connection: Connection, head: Head, window: Window, cutoff: float = NO_CUTOFF
) -> tuple[list[StoredTurn], set[int]]:
    """The turns of a window in its order.

    As much work as there are turns in it, and threads in the chain.
    """
    parts = await chain_parts(connection, head, cutoff)
    if window.newest_first:
        parts.reverse()
    if window.at is not None:
        at = response_key(window.at)
        row = await connection.fetchrow(TURN_SQL["turn_key"], head.tenant, at)
        parts = _parts_from(parts, TurnKey(*row), window) if row is not None else []
    query = TURN_SQL["living_backwards" if window.newest_first else "living_forwards"]
    keys: list[TurnKey] = []
    for thread, first, last in parts:
        if (left := window.limit - len(keys)) <= 0:
            break
        rows = await connection.fetch(query, head.tree, thread, first, last, left)
        keys += [TurnKey(head.tree, thread, seq) for (seq,) in rows]
    return await read_turns(connection, head.tenant, keys)


def _parts_from(
    parts: list[tuple[int, int, int]], at: TurnKey, window: Window
) -> list[tuple[int, int, int]]:
    """The rest of the parts, in the window's order, from a turn on."""
    for number, (thread, first, last) in enumerate(parts):
        if thread == at.thread and first <= at.seq <= last:
            rest = (thread, first, at.seq) if window.newest_first else (thread, at.seq, last)
            return [rest, *parts[number + 1 :]]
    return []


async def read_blobs(
    connection: Connection, tenant: str, hashes: Iterable[bytes]
) -> dict[bytes, bytes]:
    """The bytes of a tenant's images, by their hashes."""
    rows = await connection.fetch(TURN_SQL["blobs"], tenant, list(hashes))
    return {row[0]: row[1] for row in rows}


async def _blobs_of(connection: Connection, tenant: str, rows: Sequence[Row]) -> dict[bytes, bytes]:
    hashes = hashes_in(rows)
    return await read_blobs(connection, tenant, hashes) if hashes else {}


async def _dead_nodes(
    connection: Connection,
    turns: Sequence[StoredTurn | HistoryTurn],
    places: dict[bytes, TurnKey],
) -> set[int]:
    """The nodes of those turns that have no end, as far as they are dead."""
    running = [
        places[key]
        for turn in turns
        if turn.end is None and (key := response_key(turn.response_id)) in places
    ]
    if not running:
        return set()
    rows = await connection.fetch(TURN_SQL["owners"], *zip(*running, strict=True))
    return {node for node, living in rows if living is None}


def _places(rows: Iterable[Row], tree: int) -> dict[bytes, TurnKey]:
    return {row[3]: TurnKey(tree, row[0], row[1]) for row in rows if row[2] == 0}


def _first_rows(rows: Sequence[Row], keys: Sequence[TurnKey]) -> list[tuple[Row, TurnKey]]:
    by_turn = {(key.thread, key.seq): key for key in keys}
    return [(row, by_turn[row[0], row[1]]) for row in rows if row[2] == 0]
