"""Node protocols: which processes serve a store, which of them runs a turn, and who goes on with
the turns of one that died.

A node is a serving process. A terminal or a program with the library opens the store too, but is no
node: nobody can reach it, and it goes on with nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from antiphon.core.turns import End


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A serving process: its id, new at every start, and where the others reach it.

    ``url`` is ``unix:`` and the path of a socket, or an HTTP URL; None: it cannot be reached.
    ``is_draining``: it takes no new turns and is about to end. ``turns`` is how many it runs.
    """

    id: str
    url: str | None = None
    started_at: float = 0.0
    is_draining: bool = False
    is_alive: bool = True
    host: str = ""
    pid: int = 0
    version: str = ""
    turns: int = 0


class OrphanedTurn(msgspec.Struct, frozen=True):
    """A turn whose process died or gave it up, and that this one goes on with."""

    tenant: str
    response_id: str


class NodeRegistry(Protocol):
    """The nodes of a store. Every failure is a ``StoreError``.

    ``on_lost`` is called when this process was taken for dead, and goes on under a new id: what it
    ran until then has been ended by others, or taken over.
    """

    on_lost: Callable[[], None] | None

    @property
    def node_id(self) -> str:
        """This open store's id, node or not: 16 hex digits."""
        ...

    @property
    def is_shared(self) -> bool:
        """Whether other processes can open the store; False: its turns end with this one."""
        ...

    async def join(self, url: str | None, version: str = "") -> None:
        """Make this process a node; ``version`` is antiphon's.

        ``url`` is where others reach it; None: nowhere, until this is called again with one.
        """
        ...

    async def set_draining(self) -> None:
        """This node claims no other's turns any more."""
        ...

    async def leave(self) -> None:
        """This process is no node any more; closing the store does it too."""
        ...

    async def secret(self) -> str:
        """What nodes of this store know each other by: 64 hex digits, made on first use."""
        ...

    async def list_nodes(self) -> list[Node]:
        """The nodes, oldest first; dead ones too that no other has noticed yet."""
        ...

    async def node_of(self, tenant: str, response_id: str) -> Node | None:
        """The live node that runs a stored turn.

        None: it has ended, is another tenant's or not there, or its process is dead or no node.
        """
        ...

    async def recover(self) -> Sequence[OrphanedTurn]:
        """End the turns of dead processes, or take them: the turns that this node is to go on with.

        A turn that can be run again (``Header.restart``) and whose process is dead, or has released
        it, is claimed by one node, and ``Store.write`` appends to it there from then on. All others
        of dead processes end as interrupted, and so does one with which several processes died
        (``uncount``). To be called about once a second; costs next to nothing where nobody died. A
        process that is no node, or draining, claims nothing.

        Where there is no node, such a turn waits for one to start. Who reads it some minutes later
        ends it.
        """
        ...

    async def release(self, response_ids: Sequence[str]) -> None:
        """Give up turns that can be run again: the next ``recover`` of any node claims them.

        This store's writes of them fail from now on, with ``TurnTakenOverError``.
        """
        ...

    async def uncount(self, response_id: str) -> None:
        """A claimed turn had not begun: that its process died does not count against it."""
        ...

    async def end_given_up(self, tenant: str, response_id: str, end: End) -> bool:
        """End a turn that was given up and that no node has claimed; whether it was one."""
        ...
