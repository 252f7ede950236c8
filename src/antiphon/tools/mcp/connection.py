"""One MCP server as turns use it: always there, by whatever session is up at the moment."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from antiphon.core.mcp_servers import McpServerConfig
from antiphon.tools.mcp.errors import Gone

if TYPE_CHECKING:
    from antiphon.tools.mcp.session import Link, Offer

T = TypeVar("T")


class Backoff(msgspec.Struct, frozen=True):
    """How long to wait before a server that failed is started again, in seconds.

    ``base`` the first time, twice as long each time it fails again, ``cap`` at most. A turn
    waits as long as its ``patience``; above that the server is gone for it. Whoever was up
    for ``steady`` did not fail.
    """

    base: float = 0.5
    cap: float = 60.0
    patience: float = 2.0
    steady: float = 10.0

    def wait(self, failures: int) -> float:
        """How long after the newest of so many failures in a row."""
        return min(self.cap, self.base * 2.0 ** min(failures - 1, 30)) if failures else 0.0


class Peer:
    """One server. Its session is opened on first use, shared by all, and replaced when lost.

    ``watch``: it outlives the turn that opens it, so it has to hear of changes.
    """

    def __init__(self, server: McpServerConfig, *, watch: bool, backoff: Backoff) -> None:
        self.server = server
        self._watch = watch
        self._backoff = backoff
        self._link: Link | None = None
        #: Links that are over, while they tidy up.
        self._old: set[Link] = set()
        self._failures = 0
        self._not_before = 0.0
        self._trouble: str | None = None
        self._opening = asyncio.Lock()
        self._listing = asyncio.Lock()
        self._closed = False

    async def offers(self) -> tuple[Offer, ...]:
        """What it offers; the server is asked only where that is not known.

        Raises ``Gone``, ``Refused``.
        """
        if (known := self._known()) is not None:
            return known
        async with self._listing:
            # Somebody else may have asked in the meantime.
            if (known := self._known()) is not None:
                return known
            # Asking has no effect, so it may be done twice.
            return await self._ask(lambda link: link.list(), harmless=True)

    async def call(self, tool: str, arguments: dict[str, Any]) -> str:
        """A call's output for the model. Raises ``Gone``, ``Refused``."""
        return await self._ask(lambda link: link.call(tool, arguments), harmless=False)

    async def close(self) -> None:
        """End its sessions, for good. Safe to call twice."""
        self._closed = True
        if self._link is not None:
            self._old.add(self._link)
        await asyncio.gather(*(link.closed() for link in self._old))

    def _known(self) -> tuple[Offer, ...] | None:
        return self._link.offers if self._link is not None else None

    async def _ask(self, ask: Callable[[Link], Awaitable[T]], *, harmless: bool) -> T:
        """Ask, and once more where the first time cannot have had an effect."""
        link = await self._up()
        try:
            return await ask(link)
        except Gone as gone:
            if not harmless and not (gone.unsent and link.over):
                raise
        return await ask(await self._up())

    async def _up(self) -> Link:
        """The session that is up, or a new one. Raises ``Gone``."""
        async with self._opening:
            if self._link is not None and self._link.over:
                self._bury(self._link)
            if self._link is None:
                await self._wait()
                kind = await asyncio.to_thread(_load)
                if self._closed:
                    raise Gone("it is being closed", unsent=True)
                self._link = kind(self.server, watch=self._watch)
            link = self._link
        return await link.opened()

    def _bury(self, link: Link) -> None:
        self._link = None
        self._old = {one for one in self._old if not one.done} | {link}
        self._trouble = link.trouble
        steady = link.was_open and link.ended_at - link.began_at >= self._backoff.steady
        self._failures = 0 if steady else self._failures + 1
        self._not_before = link.ended_at + self._backoff.wait(self._failures)

    async def _wait(self) -> None:
        seconds = self._not_before - asyncio.get_running_loop().time()
        if seconds > self._backoff.patience:
            why = self._trouble or "it failed a moment ago"
            raise Gone(f"{why}; it is tried again in {math.ceil(seconds)} s", unsent=True)
        if seconds > 0:
            await asyncio.sleep(seconds)


def _load() -> type[Link]:
    """In a thread: the SDK takes half a second to load."""
    from antiphon.tools.mcp.session import Link  # loaded on first use

    return Link
