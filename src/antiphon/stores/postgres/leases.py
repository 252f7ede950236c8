"""Leases of processes: which of those that have the store open are alive.

Each has a row that it renews; one whose lease is over is dead, by the clock of the database. A
process that was taken for dead finds its row gone, and goes on under a new id.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable
from typing import Final

from antiphon.errors import StoreError
from antiphon.stores.postgres.connection import RunRead
from antiphon.stores.postgres.database_clock import DatabaseClock
from antiphon.stores.postgres.sql_files import read_queries

log = logging.getLogger("antiphon.store")

NODE_SQL: Final = read_queries("nodes.sql")
#: Seconds that a process counts as alive without a sign of life, and between two of them.
LEASE_SECONDS: Final = 6.0
RENEWAL_SECONDS: Final = 2.0


class NodeLease:
    """The row of this process, renewed until ``stop``."""

    def __init__(self, read: RunRead, clock: DatabaseClock) -> None:
        self._read = read
        self._clock = clock
        self.node = new_node_id()
        self._started_at = time.time()
        #: Whether it serves and where, its version, and whether it is about to end.
        self.is_node = False
        self.is_draining = False
        #: Whether somebody follows the feed here, and whether in another process, when it was last
        #: renewed.
        self.is_following = False
        self.is_followed = True
        self._url: str | None = None
        self._version = ""
        self._renewed_at = time.monotonic()
        self._task: asyncio.Task[None] | None = None
        #: Called when the row was gone: others have ended the turns of this process, or have them.
        self.on_lost: Callable[[], None] | None = None

    @property
    def is_valid(self) -> bool:
        """Whether others take this process for alive, as far as it knows."""
        return time.monotonic() - self._renewed_at < LEASE_SECONDS

    async def start(self) -> None:
        """Add the row, and renew it from now on."""
        await self._add()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Renew it no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def describe(
        self,
        *,
        is_node: bool | None = None,
        url: str | None = None,
        version: str | None = None,
        is_draining: bool | None = None,
    ) -> None:
        """Set what others see of this process; what is None stays."""
        self.is_node = self.is_node if is_node is None else is_node
        self.is_draining = self.is_draining if is_draining is None else is_draining
        self._url = url or self._url
        self._version = version or self._version
        values = (self.node, self.is_node, self._url, self._version, self.is_draining)
        await self._read(lambda connection: connection.execute(NODE_SQL["describe"], *values))

    async def _add(self) -> None:
        who = (self._started_at, socket.gethostname(), os.getpid())
        what = (self.is_node, self._url, self._version, self.is_draining)
        values = (self.node, LEASE_SECONDS, *who, *what)
        now = await self._read(lambda connection: connection.fetchval(NODE_SQL["add"], *values))
        self._clock.set(now)
        self._renewed_at = time.monotonic()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(RENEWAL_SECONDS)
            try:
                await self.renew()
            except StoreError:
                # It is counted and logged where it happened; the next attempt is soon.
                continue

    async def renew(self) -> None:
        """Be alive for some seconds more."""
        began = time.monotonic()
        values = (self.node, LEASE_SECONDS, self.is_following)
        row = await self._read(lambda connection: connection.fetchrow(NODE_SQL["renew"], *values))
        if row is None:
            log.warning("this process was taken for dead by another; it goes on as a new one")
            self.node = new_node_id()
            if self.on_lost is not None:
                self.on_lost()
            await self._add()
        else:
            now, self.is_followed = row
            self._clock.set(now)
        self._renewed_at = began


def new_node_id() -> int:
    """A random one, never 0, which means no node."""
    return secrets.randbits(62) + 1
