"""Turn recovery: what becomes of the turns of a process that died. Jobs of a ``WriteTransaction``.

One that can be run again is claimed by a node, in the transaction that finds the dead one's name on
it: so exactly one node does, and whatever the dead one would still write fails. All others end.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from antiphon.core.ids import response_id_of, response_key
from antiphon.core.turns import End, Header
from antiphon.stores.interrupted_turns import MAX_DEATHS, NO_NODE
from antiphon.stores.sqlite.rows import decode_header, last_of_turn
from antiphon.stores.sqlite.sql_files import TURN_SQL, read_queries
from antiphon.stores.sqlite.write_transaction import OpenTurn, WriteTransaction
from antiphon.turn.node_protocols import OrphanedTurn

NODE_SQL: Final = read_queries("nodes.sql")


class _Orphan(msgspec.Struct, frozen=True):
    """A turn of a dead owner; ``header`` is None where it cannot be run again."""

    row_id: int
    response_id: str
    header: Header | None
    given_up_at: float | None


def end_orphans(
    transaction: WriteTransaction, owner: int, end: End, now: float, cutoff: float = -math.inf
) -> bool:
    """End the turns of a dead owner; whether there were any.

    Those that can be run again are left for a node to claim, unless they were given up before
    ``cutoff``.
    """
    has_ended = False
    for orphan in _orphans(transaction, owner):
        given_up_at = now if orphan.given_up_at is None else orphan.given_up_at
        if orphan.header is None or given_up_at <= cutoff:
            transaction.end_orphan(owner, orphan.row_id, end)
            has_ended = True
        elif owner != NO_NODE:
            _release(transaction, orphan.row_id, owner, now, has_died=True)
    return has_ended


def end_own_turns(transaction: WriteTransaction, end: End, now: float) -> None:
    """End what still runs as this store is closed; give up what can be run again."""
    owner = transaction.owner
    for orphan in _orphans(transaction, owner):
        if orphan.header is None:
            transaction.end_orphan(owner, orphan.row_id, end)
        else:
            _release(transaction, orphan.row_id, owner, now)


def claim_orphans(transaction: WriteTransaction, owner: int, end: End) -> list[OrphanedTurn]:
    """Take the turns of a dead owner that can be run again; end the others, forget the owner."""
    execute = transaction.connection.execute
    claimed = []
    for orphan in _orphans(transaction, owner):
        turn = _open_turn(transaction.connection, orphan)
        if turn is None:
            transaction.end_orphan(owner, orphan.row_id, end)
            continue
        execute(NODE_SQL["claim"], (transaction.owner, owner != NO_NODE, orphan.row_id))
        transaction.changed_turns[orphan.response_id] = turn
        claimed.append(OrphanedTurn(turn.tenant, orphan.response_id))
    execute(NODE_SQL["leave"], (owner,))
    return claimed


def release_turns(transaction: WriteTransaction, response_ids: Sequence[str], now: float) -> None:
    """Give up turns of this store, for any node to claim."""
    transaction.flush()
    for response_id in response_ids:
        turn = transaction.find_open_turn(response_id)
        if turn is not None:
            _release(transaction, turn.row_id, transaction.owner, now)


def uncount_claim(transaction: WriteTransaction, response_id: str) -> None:
    """See ``NodeRegistry.uncount``."""
    turn = transaction.find_open_turn(response_id)
    if turn is not None:
        values = (turn.row_id, transaction.owner)
        transaction.connection.execute(NODE_SQL["uncount"], values)


def end_given_up(transaction: WriteTransaction, tenant: str, response_id: str, end: End) -> bool:
    """End a turn that was given up and that no node has claimed; whether it was one."""
    transaction.flush()
    values = (response_key(response_id), tenant)
    rows = transaction.connection.execute(NODE_SQL["given_up"], values).fetchall()
    for (row_id,) in rows:
        transaction.end_orphan(NO_NODE, row_id, end)
    return bool(rows)


def _release(
    transaction: WriteTransaction, row_id: int, owner: int, now: float, *, has_died: bool = False
) -> None:
    transaction.connection.execute(NODE_SQL["release"], (has_died, now, row_id, owner))


def _orphans(transaction: WriteTransaction, owner: int) -> Iterator[_Orphan]:
    transaction.flush()
    for row_id, claims, given_up_at, key, text in transaction.connection.execute(
        NODE_SQL["orphans"], (owner,)
    ).fetchall():
        deaths = claims + (owner not in {NO_NODE, transaction.owner})
        header = _restartable_header(key, text) if deaths < MAX_DEATHS else None
        yield _Orphan(row_id, response_id_of(key[:16]), header, given_up_at)


def _restartable_header(key: bytes, text: bytes) -> Header | None:
    try:
        header = decode_header(key, text).header
    except msgspec.MsgspecError:
        # A damaged turn must not keep the others of its owner waiting.
        return None
    return None if header.restart is None else header


def _open_turn(connection: sqlite3.Connection, orphan: _Orphan) -> OpenTurn | None:
    """An orphan as a turn that goes on behind its last stored row; None: it cannot."""
    row_id, header = orphan.row_id, orphan.header
    if header is None:
        return None
    places = connection.execute(TURN_SQL["place"], (row_id,)).fetchall()
    if not places:
        return None
    _, tenant, tree = places[0]
    ((last,),) = connection.execute(NODE_SQL["last_row"], (row_id, last_of_turn(row_id))).fetchall()
    return OpenTurn(
        row_id, last + 1, tree, tenant, header.conversation, header.model, header.key_id
    )
