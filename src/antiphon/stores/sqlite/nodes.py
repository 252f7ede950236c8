"""Nodes of a SQLite file: a row for each serving process, and the file locks that show which live.

A lock goes with its process, and with nothing else: one that is stopped, or busy for long, counts
as alive, and nobody goes on with its turns before it ends.
"""

from __future__ import annotations

import os
import secrets
import socket
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from antiphon.core.ids import response_key
from antiphon.core.turns import End
from antiphon.errors import StoreError
from antiphon.stores.interrupted_turns import interrupted_end
from antiphon.stores.sqlite.database import SqliteDatabase
from antiphon.stores.sqlite.turn_recovery import (
    NODE_SQL,
    claim_orphans,
    end_given_up,
    release_turns,
    uncount_claim,
)
from antiphon.stores.sqlite.write_transaction import WriteTransaction
from antiphon.turn.node_protocols import Node, OrphanedTurn

_SECRET_BYTES: Final = 32


class SqliteNodeRegistry:
    """A ``NodeRegistry`` in the file of a SQLite store."""

    is_shared = True
    #: Never called: a process that lives has its lock.
    on_lost: Callable[[], None] | None = None

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database
        self._is_draining = False
        #: The file as ``recover`` saw it last, and who ran turns or was a node then.
        self._version = -1
        self._owners: frozenset[int] = frozenset()
        self._secret: str | None = None

    @property
    def node_id(self) -> str:
        return f"{self._database.owner:016x}"

    async def join(self, url: str | None, version: str = "") -> None:
        values = (
            self._database.owner,
            url,
            self._database.expiry.clock(),
            socket.gethostname(),
            os.getpid(),
            version,
        )
        await self._database.submit(_execute, NODE_SQL["join"], values)
        self._database.is_node = True

    async def set_draining(self) -> None:
        self._is_draining = True
        await self._database.submit(_execute, NODE_SQL["set_draining"], (self._database.owner,))

    async def leave(self) -> None:
        if self._database.is_node:
            await self._database.submit(_execute, NODE_SQL["leave"], (self._database.owner,))
            self._database.is_node = False

    async def secret(self) -> str:
        if self._secret is None:
            await self._database.submit(
                _execute, NODE_SQL["add_secret"], (secrets.token_bytes(_SECRET_BYTES),)
            )
            ((stored,),) = await self._database.read_pooled(
                lambda connection: connection.execute(NODE_SQL["secret"]).fetchall()
            )
            self._secret = bytes(stored).hex()
        return self._secret

    async def list_nodes(self) -> list[Node]:
        rows = await self._database.read_pooled(
            lambda connection: connection.execute(NODE_SQL["list"]).fetchall()
        )
        return [self._node(row) for row in rows]

    async def node_of(self, tenant: str, response_id: str) -> Node | None:
        row = await self._database.read_inline(
            partial(_read_node_of, tenant=tenant, response_id=response_id)
        )
        node = None if row is None else self._node(row)
        return node if node is not None and node.is_alive else None

    async def recover(self) -> Sequence[OrphanedTurn]:
        if self._is_draining or not self._database.is_node:
            return ()
        version = self._database.data_version()
        if version != self._version:
            self._owners = await self._database.read_pooled(_read_owners)
            self._version = version
        claimed: list[OrphanedTurn] = []
        dead = await self._database.find_dead(self._owners)
        try:
            for owner in dead:
                claimed += await self._database.submit(claim_orphans, owner, interrupted_end())
            if dead:
                await self._database.take_over_erasures()
        except StoreError:
            # What was claimed by then is this node's; the rest is found again.
            if not claimed:
                raise
        return claimed

    async def release(self, response_ids: Sequence[str]) -> None:
        now = self._database.expiry.clock()
        await self._database.submit(release_turns, tuple(response_ids), now)

    async def uncount(self, response_id: str) -> None:
        await self._database.submit(uncount_claim, response_id)

    async def end_given_up(self, tenant: str, response_id: str, end: End) -> bool:
        ended: bool = await self._database.submit(end_given_up, tenant, response_id, end)
        return ended

    def _node(self, row: tuple[Any, ...]) -> Node:
        number, url, started_at, is_draining, host, pid, version, turns = row
        return Node(
            id=f"{number:016x}",
            url=url,
            started_at=started_at,
            is_draining=bool(is_draining),
            is_alive=self._database.is_alive(number),
            host=host,
            pid=pid,
            version=version,
            turns=turns,
        )


def _execute(transaction: WriteTransaction, query: str, values: tuple[object, ...]) -> None:
    transaction.connection.execute(query, values)


def _read_node_of(
    connection: sqlite3.Connection, tenant: str, response_id: str
) -> tuple[tuple[Any, ...] | None, set[int]]:
    values = (response_key(response_id), tenant)
    rows = connection.execute(NODE_SQL["node_of"], values).fetchall()
    return (rows[0] if rows else None), set()


def _read_owners(connection: sqlite3.Connection) -> frozenset[int]:
    return frozenset(owner for (owner,) in connection.execute(NODE_SQL["owners"]).fetchall())
