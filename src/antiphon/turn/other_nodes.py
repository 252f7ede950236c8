"""Other nodes: what a node asks of the one that runs a turn. No word of a turn passes here."""

from __future__ import annotations

from typing import Final, Protocol

from antiphon.core.turns import End
from antiphon.turn.node_protocols import Node

#: Seconds for which a node is asked again that cannot be reached. By then it counts as dead.
TIME_LIMIT: Final = 12.0
#: Seconds between two looks at a turn that another process runs.
POLL_INTERVAL: Final = 0.25


class OtherNodes(Protocol):
    """The other nodes of a store, each asked at its own address.

    What is asked of a node is answered by that node alone, which passes nothing on. Every method
    with a ``node`` raises ``NodeUnreachableError``.
    """

    async def node_of(self, tenant: str, response_id: str) -> Node | None:
        """The node that runs a tenant's turn. None: no other one does that can be reached."""
        ...

    async def cancel(self, node: Node, tenant: str, response_id: str) -> bool:
        """Stop a turn, and wait until its end is stored. False: it does not run there."""
        ...

    async def wait(self, node: Node, tenant: str, response_id: str) -> bool:
        """Wait for the end of a turn, for a while. False: it does not run there."""
        ...

    async def end_given_up(self, tenant: str, response_id: str, end: End) -> bool:
        """End a turn that none of them runs, and one is to go on with; whether it was one."""
        ...

    async def stop_erased(self, tenant: str) -> None:
        """Have every other node stop those turns of a tenant that are erased."""
        ...

    async def tell_erased(self) -> None:
        """Tell every other node that something was erased, for which turns may wait there."""
        ...

    async def close(self) -> None: ...
