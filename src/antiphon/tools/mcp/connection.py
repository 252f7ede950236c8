"""One MCP server as turns use it: always there, by whatever session is up at the moment."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from antiphon.core.mcp_servers import McpServerConfig
from antiphon.tools.mcp.errors import McpServerUnavailableError

if TYPE_CHECKING:
    from antiphon.tools.mcp.session import McpSession, ToolInfo

T = TypeVar("T")


class Backoff(msgspec.Struct, frozen=True):
    """How long to wait before a server that failed is started again, in seconds.

    ``base`` the first time, twice as long each time it fails again, ``cap`` at most. A turn
    waits as long as its ``timeout``; above that the server is gone for it. Whoever was up
    for ``steady`` did not fail.
    """

    base: float = 0.5
    cap: float = 60.0
    max_wait: float = 2.0
    stable_after: float = 10.0

    def delay(self, failures: int) -> float:
        """How long after the newest of so many failures in a row."""
        return min(self.cap, self.base * 2.0 ** min(failures - 1, 30)) if failures else 0.0


class McpConnection:
    """One server. Its session is opened on first use, shared by all, and replaced when lost.

    ``watch_tools``: it outlives the turn that opens it, so it has to hear of changes.
    """

    def __init__(self, server: McpServerConfig, *, watch_tools: bool, backoff: Backoff) -> None:
        self.server = server
        self._watch_tools = watch_tools
        self._backoff = backoff
        self._session: McpSession | None = None
        #: Links that are over, while they tidy up.
        self._closing_sessions: set[McpSession] = set()
        self._failures = 0
        self._retry_at = 0.0
        self._last_error: str | None = None
        self._open_lock = asyncio.Lock()
        self._list_lock = asyncio.Lock()
        self._closed = False

    async def list_tools(self) -> tuple[ToolInfo, ...]:
        """What it offers; the server is asked only where that is not known.

        Raises ``McpServerUnavailableError``, ``McpServerError``.
        """
        if (known := self._cached_tools()) is not None:
            return known
        async with self._list_lock:
            # Somebody else may have asked in the meantime.
            if (known := self._cached_tools()) is not None:
                return known
            # Asking has no effect, so it may be done twice.
            return await self._with_session(lambda session: session.list_tools(), idempotent=True)

    async def call_tool(self, tool: str, arguments: dict[str, Any]) -> str:
        """A call's output for the model. Raises ``McpServerUnavailableError``, ``McpServerError``."""
        return await self._with_session(
            lambda session: session.call_tool(tool, arguments), idempotent=False
        )

    async def close(self) -> None:
        """End its sessions, for good. Safe to call twice."""
        self._closed = True
        if self._session is not None:
            self._closing_sessions.add(self._session)
        await asyncio.gather(*(session.wait_closed() for session in self._closing_sessions))

    def _cached_tools(self) -> tuple[ToolInfo, ...] | None:
        return self._session.tools if self._session is not None else None

    async def _with_session(
        self, ask: Callable[[McpSession], Awaitable[T]], *, idempotent: bool
    ) -> T:
        """Ask, and once more where the first time cannot have had an effect."""
        session = await self._get_session()
        try:
            return await ask(session)
        except McpServerUnavailableError as gone:
            if not idempotent and not (gone.retryable and session.is_closing):
                raise
        return await ask(await self._get_session())

    async def _get_session(self) -> McpSession:
        """The session that is up, or a new one. Raises ``McpServerUnavailableError``."""
        async with self._open_lock:
            if self._session is not None and self._session.is_closing:
                self._retire(self._session)
            if self._session is None:
                await self._wait_backoff()
                kind = await asyncio.to_thread(_load_session_class)
                if self._closed:
                    raise McpServerUnavailableError("it is being closed", retryable=True)
                self._session = kind(self.server, watch_tools=self._watch_tools)
            session = self._session
        return await session.wait_open()

    def _retire(self, session: McpSession) -> None:
        self._session = None
        self._closing_sessions = {one for one in self._closing_sessions if not one.is_closed} | {
            session
        }
        self._last_error = session.error
        steady = (
            session.has_opened
            and session.ended_at - session.started_at >= self._backoff.stable_after
        )
        self._failures = 0 if steady else self._failures + 1
        self._retry_at = session.ended_at + self._backoff.delay(self._failures)

    async def _wait_backoff(self) -> None:
        seconds = self._retry_at - asyncio.get_running_loop().time()
        if seconds > self._backoff.max_wait:
            why = self._last_error or "it failed a moment ago"
            raise McpServerUnavailableError(
                f"{why}; it is tried again in {math.ceil(seconds)} s", retryable=True
            )
        if seconds > 0:
            await asyncio.sleep(seconds)


def _load_session_class() -> type[McpSession]:
    """In a thread: the SDK takes half a second to load."""
    from antiphon.tools.mcp.session import McpSession  # loaded on first use

    return McpSession
