"""The node of a store in memory: the one process that has it."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Sequence

import msgspec

from antiphon.core.retention import Clock
from antiphon.core.turns import End
from antiphon.stores.memory.turns import MemoryTurns
from antiphon.turn.node_protocols import Node, OrphanedTurn


class MemoryNodeRegistry:
    """A ``NodeRegistry`` of one process: no other can continue its turns."""

    is_shared = False
    #: Never called: nobody else can take it for dead.
    on_lost: Callable[[], None] | None = None

    def __init__(self, turns: MemoryTurns, clock: Clock) -> None:
        self._turns = turns
        self._clock = clock
        self.node_id = secrets.token_hex(8)
        self._secret = secrets.token_hex(32)
        self._node: Node | None = None

    async def join(self, url: str | None, version: str = "") -> None:
        self._node = Node(
            id=self.node_id,
            url=url,
            started_at=self._clock(),
            host=socket.gethostname(),
            pid=os.getpid(),
            version=version,
        )

    async def set_draining(self) -> None:
        if self._node is not None:
            self._node = msgspec.structs.replace(self._node, is_draining=True)

    async def leave(self) -> None:
        self._node = None

    async def secret(self) -> str:
        return self._secret

    async def list_nodes(self) -> list[Node]:
        if self._node is None:
            return []
        running = [one for one in self._turns.records.values() if one.turn and not one.turn.end]
        return [msgspec.structs.replace(self._node, turns=len(running))]

    async def node_of(self, tenant: str, response_id: str) -> Node | None:
        found = self._turns.find(tenant, response_id)
        return self._node if found is not None and found[1].end is None else None

    async def recover(self) -> Sequence[OrphanedTurn]:
        return ()

    async def release(self, response_ids: Sequence[str]) -> None:
        """No other node would claim them: they stay this process's."""

    async def uncount(self, response_id: str) -> None:
        """No process has died with it."""

    async def end_given_up(self, tenant: str, response_id: str, end: End) -> bool:
        return False
