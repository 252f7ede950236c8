"""Nodes of a PostgreSQL database: the rows of serving processes, whose leases show which live."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from antiphon.core.ids import response_key
from antiphon.core.turns import End
from antiphon.errors import StoreError
from antiphon.stores.postgres.database import PostgresDatabase
from antiphon.stores.postgres.leases import NODE_SQL
from antiphon.stores.postgres.turn_recovery import (
    claim_orphans,
    end_given_up,
    release_turns,
    uncount_claim,
)
from antiphon.turn.node_protocols import Node, OrphanedTurn

if TYPE_CHECKING:
    from antiphon.stores.postgres.connection import Connection

_SECRET_BYTES: Final = 32


class PostgresNodeRegistry:
    """A ``NodeRegistry`` in the database of a PostgreSQL store."""

    is_shared = True

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        self._lease = database.lease
        self.on_lost: Callable[[], None] | None = None
        self._lease.on_lost = self._note_lost
        self._secret: str | None = None

    @property
    def node_id(self) -> str:
        return _id_of(self._lease.node)

    def _note_lost(self) -> None:
        if self.on_lost is not None:
            self.on_lost()

    async def join(self, url: str | None, version: str = "") -> None:
        await self._lease.describe(is_node=True, url=url, version=version)

    async def set_draining(self) -> None:
        await self._lease.describe(is_draining=True)

    async def leave(self) -> None:
        await self._lease.describe(is_node=False)

    async def secret(self) -> str:
        if self._secret is None:
            made = secrets.token_hex(_SECRET_BYTES)

            async def read(connection: Connection) -> str:
                await connection.execute(NODE_SQL["add_secret"], made)
                stored: str = await connection.fetchval(NODE_SQL["secret"])
                return stored

            self._secret = await self._database.read(read)
        return self._secret

    async def list_nodes(self) -> list[Node]:
        async def read(connection: Connection) -> list[Any]:
            return await connection.fetch(NODE_SQL["list"])

        return [_node_of(row) for row in await self._database.read(read)]

    async def node_of(self, tenant: str, response_id: str) -> Node | None:
        key = response_key(response_id)

        async def read(connection: Connection) -> Any:
            return await connection.fetchrow(NODE_SQL["node_of"], tenant, key)

        row = await self._database.read(read)
        return None if row is None else _node_of(row)

    async def recover(self) -> Sequence[OrphanedTurn]:
        if self._lease.is_draining or not self._lease.is_node:
            return ()

        async def read(connection: Connection) -> list[Any]:
            return await connection.fetch(NODE_SQL["dead"], self._lease.node)

        claimed: list[OrphanedTurn] = []
        dead = await self._database.read(read)
        try:
            for (node,) in dead:
                claimed += await self._database.submit(claim_orphans, node)
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


def _id_of(node: int) -> str:
    return f"{node:016x}"


def _node_of(row: Any) -> Node:
    return Node(
        id=_id_of(row["id"]),
        url=row["url"],
        started_at=row["started_at"],
        is_draining=row["is_draining"],
        is_alive=row["is_alive"],
        host=row["host"],
        pid=row["pid"],
        version=row["version"],
        turns=row["turns"],
    )
