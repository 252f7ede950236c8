"""Turn recovery in PostgreSQL: what becomes of the turns of a process that died.

Jobs of a ``WriteTransaction``. One that can be run again is claimed by a node, in the transaction
that locks its row: so exactly one node does, and whatever the dead one would still write fails. All
others end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from antiphon.core.ids import response_id_of, response_key
from antiphon.core.turns import End
from antiphon.stores.interrupted_turns import MAX_DEATHS, NO_NODE, interrupted_end
from antiphon.stores.postgres.leases import NODE_SQL
from antiphon.stores.postgres.rows import TurnKey, decode_header, decode_items, unpack_hashes
from antiphon.stores.postgres.write_transaction import OpenTurn, WriteTransaction
from antiphon.turn.node_protocols import OrphanedTurn

if TYPE_CHECKING:
    import asyncpg

#: Columns of a row of ``orphans`` that end a turn: tree, thread, seq, tenant and key.
_ENDING: Final = slice(0, 5)


async def end_orphans(
    transaction: WriteTransaction, node: int, now: float, cutoff: float = -math.inf
) -> bool:
    """End the turns of a dead node; whether there were any.

    Those that can be run again are left for any node to claim, unless they were given up before
    ``cutoff``.
    """
    orphans = await _find_orphans(transaction, node)
    deaths = int(node != NO_NODE)
    restartable = [
        one
        for one in orphans
        if _can_restart(one, deaths)
        and (now if one["given_up_at"] is None else one["given_up_at"]) > cutoff
    ]
    if restartable and node != NO_NODE:
        await transaction.execute(NODE_SQL["release"], *_columns(restartable), node, deaths, now)
    ended = [one for one in orphans if one not in restartable]
    await transaction.end_unfinished([row[_ENDING] for row in ended], interrupted_end())
    return bool(ended)


async def claim_orphans(transaction: WriteTransaction, node: int) -> list[OrphanedTurn]:
    """Take the turns of a dead node that can be run again, and end the others."""
    orphans = await _find_orphans(transaction, node)
    deaths = int(node != NO_NODE)
    turns = [
        (one, await _open_turn(transaction, one)) for one in orphans if _can_restart(one, deaths)
    ]
    claimed = [row for row, turn in turns if turn is not None]
    if claimed:
        await transaction.execute(NODE_SQL["claim"], *_columns(claimed), transaction.node, deaths)
    for _, turn in turns:
        if turn is not None:
            transaction.changed_turns[response_id_of(turn.response_key)] = turn
    ended = [row[_ENDING] for row in orphans if row not in claimed]
    await transaction.end_unfinished(ended, interrupted_end())
    return [OrphanedTurn(row["tenant"], response_id_of(row["key"])) for row in claimed]


async def release_turns(
    transaction: WriteTransaction, response_ids: Sequence[str], now: float
) -> None:
    """Give up turns of this store, for any node to claim."""
    await transaction.flush()
    turns = [transaction.find_turn(name) for name in response_ids]
    keys = [turn.key for turn in turns if turn is not None and not turn.is_ended]
    if keys:
        columns = zip(*sorted(keys), strict=True)
        await transaction.execute(NODE_SQL["release"], *columns, transaction.node, 0, now)
        transaction.forget_looks()


async def uncount_claim(transaction: WriteTransaction, response_id: str) -> None:
    """See ``NodeRegistry.uncount``."""
    turn = transaction.find_turn(response_id)
    if turn is not None and not turn.is_ended:
        await transaction.execute(NODE_SQL["uncount"], *turn.key, transaction.node)


async def end_given_up(
    transaction: WriteTransaction, tenant: str, response_id: str, end: End
) -> bool:
    """End a turn that was given up and that no node has claimed; whether it was one."""
    await transaction.flush()
    key = response_key(response_id)
    rows = await transaction.connection.fetch(NODE_SQL["given_up"], tenant, key)
    await transaction.end_unfinished([tuple(row) for row in rows], end)
    return bool(rows)


async def leave(transaction: WriteTransaction, now: float) -> None:
    """End what still runs here, and be a process that has the store open no more.

    What can be run again is given up, for any node to claim.
    """
    rows = await _orphans_of(transaction, transaction.node)
    restartable = [one for one in rows if _can_restart(one)]
    if restartable:
        columns = _columns(restartable)
        await transaction.execute(NODE_SQL["release"], *columns, transaction.node, 0, now)
    ended = [row[_ENDING] for row in rows if row not in restartable]
    await transaction.end_unfinished(ended, interrupted_end())
    await transaction.execute(NODE_SQL["delete"], transaction.node)


async def _find_orphans(transaction: WriteTransaction, node: int) -> list[asyncpg.Record]:
    """The turns of a node, which is forgotten; none where it is alive after all."""
    await transaction.flush()
    if node != NO_NODE:
        is_dead = await transaction.fetch(NODE_SQL["delete_dead"], node)
        if not is_dead and await transaction.connection.fetch(NODE_SQL["exists"], node):
            return []
    return await _orphans_of(transaction, node)


async def _orphans_of(transaction: WriteTransaction, node: int) -> list[asyncpg.Record]:
    return await transaction.connection.fetch(NODE_SQL["orphans"], node)


def _can_restart(row: asyncpg.Record, deaths: int = 0) -> bool:
    """``deaths``: whether its node has died, which is not counted yet."""
    if row["claims"] + deaths >= MAX_DEATHS:
        return False
    try:
        return decode_header(row["header"]).restart is not None
    except msgspec.MsgspecError:
        # A damaged turn must not keep the others of its node waiting.
        return False


async def _open_turn(transaction: WriteTransaction, row: asyncpg.Record) -> OpenTurn | None:
    """An orphan as a turn that goes on behind its last stored part; None: that is damaged."""
    key = TurnKey(row["tree"], row["thread"], row["seq"])
    header = decode_header(row["header"])
    parts = await transaction.connection.fetch(NODE_SQL["parts"], *key)
    packed = [one[column] for one in parts for column in ("input", "output")]
    try:
        items = sum(len(decode_items(one)) for one in packed if one is not None)
    except msgspec.MsgspecError:
        return None
    return OpenTurn(
        key,
        row["key"],
        row["tenant"],
        header.model,
        header.key_id,
        header.conversation,
        next_part=parts[-1]["part"] + 1,
        items=items + len(unpack_hashes(parts[0]["images"])),
        is_claimed=True,
    )


def _columns(rows: Sequence[Any]) -> list[tuple[Any, ...]]:
    return list(zip(*[row[:3] for row in rows], strict=True))
