"""Turn recovery: what becomes of the turns of a process that died. Jobs of a ``WriteTransaction``.

One that can be run again is claimed by a node, in the transaction that finds the dead one's name on
it: so exactly one node does, and whatever the dead one would still write fails. All others end.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from antiphon.core.ids import response_id_of
from antiphon.core.turns import End, Header
from antiphon.stores.interrupted_turns import MAX_CLAIMS, NO_NODE
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


def end_orphans(
    transaction: WriteTransaction, owner: int, end: End, *, keeps_restartable: bool = False
) -> bool:
    """End the turns of a dead owner, but for those that can be run again (``keeps_restartable``).

    Whether there were any.
    """
    has_ended = False
    for orphan in _orphans(transaction, owner):
        if not keeps_restartable or orphan.header is None:
            transaction.end_orphan(owner, orphan.row_id, end)
            has_ended = True
    return has_ended


def end_own_turns(transaction: WriteTransaction, end: End) -> None:
    """End what still runs as this store is closed; give up what can be run again."""
    owner = transaction.owner
    for orphan in _orphans(transaction, owner):
        if orphan.header is None:
            transaction.end_orphan(owner, orphan.row_id, end)
        else:
            transaction.connection.execute(NODE_SQL["release"], (orphan.row_id, owner))


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


def release_turns(transaction: WriteTransaction, response_ids: Sequence[str]) -> None:
    """Give up turns of this store, for any node to claim."""
    transaction.flush()
    for response_id in response_ids:
        turn = transaction.find_open_turn(response_id)
        if turn is not None:
            transaction.connection.execute(NODE_SQL["release"], (turn.row_id, transaction.owner))


def _orphans(transaction: WriteTransaction, owner: int) -> Iterator[_Orphan]:
    transaction.flush()
    for row_id, claims, key, text in transaction.connection.execute(
        NODE_SQL["orphans"], (owner,)
    ).fetchall():
        header = _restartable_header(key, text) if claims < MAX_CLAIMS else None
        yield _Orphan(row_id, response_id_of(key[:16]), header)


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
