"""Shared limits: one node counts for each key, and the others ask it.

Every node chooses the same owner of a key among the live nodes (rendezvous hashing), so nothing is
written, and a limit is exact wherever requests arrive: a share of it for each node would refuse a
client whose connections all end at one of them. Where the owner cannot be reached, a node counts
for itself; a new owner begins with a full bucket, and learns of running turns by the next request.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from antiphon.errors import AntiphonError, NodeUnreachableError, RateLimitError
from antiphon.turn.node_protocols import Node

Headers: TypeAlias = list[tuple[bytes, bytes]]

#: Seconds for which the list of nodes is taken for true.
_LIST_LIFETIME: Final = 1.0


class NodeCaller(Protocol):
    """What is used of the client of the other nodes."""

    @property
    def node_id(self) -> str: ...

    async def others(self) -> list[Node]: ...

    async def call(self, node: Node, operation: str, **fields: Any) -> dict[str, Any]: ...


class NodeTurns(msgspec.Struct):
    """How many turns of a key one node runs, by its own account; ``number`` orders these."""

    count: int = 0
    number: int = 0


class RemoteTurns:
    """The running turns of one key on the other nodes, at its owner."""

    __slots__ = ("_by_node",)

    def __init__(self) -> None:
        self._by_node: dict[str, NodeTurns] = {}

    def total(self, live: Sequence[str], but: str = "") -> int:
        """How many there are on live nodes, without those of one node."""
        return sum(
            turns.count for node, turns in self._by_node.items() if node in live and node != but
        )

    def report(self, node: str, count: int, number: int) -> None:
        """A node says how many it runs; what it said before that may arrive later."""
        known = self._by_node.setdefault(node, NodeTurns())
        if number > known.number:
            known.count, known.number = count, number


class SharedLimits:
    """The owners of keys, and what is asked of them."""

    def __init__(self, nodes: NodeCaller) -> None:
        self._nodes = nodes
        self._others: list[Node] = []
        self._listed_at = -_LIST_LIFETIME
        self._number = 0
        self._reports: set[asyncio.Task[None]] = set()

    async def owner_of(self, key: str) -> Node | None:
        """The node that counts for a key. None: this one."""
        now = time.monotonic()
        if now - self._listed_at >= _LIST_LIFETIME:
            self._listed_at = now
            self._others = await self._nodes.others()
        if not self._others:
            return None
        return choose_owner(key, self._nodes.node_id, self._others)

    @property
    def live_ids(self) -> list[str]:
        """The other nodes, as they were listed last."""
        return [one.id for one in self._others]

    async def consume(
        self, owner: Node, key: str, tenant: str
    ) -> tuple[Headers, RateLimitError | None] | None:
        """Count a request at the owner: the headers of its limit, and its refusal.

        None: the owner cannot be reached.
        """
        try:
            answer = await self._nodes.call(owner, "consume", key=key, tenant=tenant)
        except NodeUnreachableError:
            return None
        headers = [(name.encode(), value.encode()) for name, value in answer["headers"]]
        if answer["message"] is None:
            return headers, None
        return headers, RateLimitError(answer["message"], retry_after=answer["retry_after"])

    async def acquire(self, owner: Node, key: str, tenant: str, count: int) -> bool:
        """Whether this node may run one more turn of a key, which makes them ``count``."""
        self._number += 1
        try:
            answer = await self._nodes.call(
                owner,
                "acquire",
                key=key,
                tenant=tenant,
                sender=self._nodes.node_id,
                count=count,
                number=self._number,
            )
        except NodeUnreachableError:
            return True
        return bool(answer["is_granted"])

    def report(self, key: str, tenant: str, count: int) -> None:
        """Tell the owner that a turn of a key has ended; nobody waits for that."""
        self._number += 1
        task = asyncio.get_running_loop().create_task(
            self._report(key, tenant, count, self._number)
        )
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)

    async def _report(self, key: str, tenant: str, count: int, number: int) -> None:
        try:
            if (owner := await self.owner_of(key)) is not None:
                me = self._nodes.node_id
                await self._nodes.call(
                    owner, "release", key=key, tenant=tenant, sender=me, count=count, number=number
                )
        except AntiphonError:
            # The next report has the count again.
            pass


def choose_owner(key: str, own_id: str, others: Sequence[Node]) -> Node | None:
    """The owner of a key, the same at every node that lists the same nodes. None: itself. Pure."""

    def weight(node_id: str) -> bytes:
        return hashlib.blake2b(f"{key} {node_id}".encode(), digest_size=8).digest()

    best = max(others, key=lambda one: weight(one.id))
    return best if weight(best.id) > weight(own_id) else None
