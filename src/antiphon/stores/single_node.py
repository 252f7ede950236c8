"""The node of a store whose processes do not know of each other: none asks another one."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Sequence

import msgspec

from antiphon.turn.node_protocols import Node, OrphanedTurn


class SingleNodeRegistry:
    """A ``NodeRegistry`` of one process, which is never another one's node."""

    is_shared = False

    def __init__(self) -> None:
        self.node_id = secrets.token_hex(8)
        self._secret = secrets.token_hex(32)
        self._node: Node | None = None

    async def join(self, url: str | None, version: str = "") -> None:
        self._node = Node(
            id=self.node_id,
            url=url,
            started_at=time.time(),
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
        return [] if self._node is None else [self._node]

    async def node_of(self, tenant: str, response_id: str) -> Node | None:
        return None

    async def recover(self) -> Sequence[OrphanedTurn]:
        return ()

    async def release(self, response_ids: Sequence[str]) -> None:
        """Nobody would claim them: they stay this process's."""
