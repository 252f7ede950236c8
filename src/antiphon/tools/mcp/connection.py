"""MCP connection: one server with its session, which is opened on use and reopened with backoff."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from antiphon.core.backoff import exponential_delay
from antiphon.core.mcp_servers import McpServerConfig
from antiphon.tools.mcp.errors import McpServerUnavailableError

if TYPE_CHECKING:
    from antiphon.tools.mcp.session import McpSession, ToolInfo

T = TypeVar("T")


class Backoff(msgspec.Struct, frozen=True):
    """Backoff: how long to wait before a failed server is started again, in seconds.

    ``base`` after the first failure, doubled after each further one, at most ``cap``. A turn
    waits at most ``max_wait``; beyond that the server is unavailable for it. A session that
    was open for ``stable_after`` resets the count of failures.
    """

    base: float = 0.5
    cap: float = 60.0
    max_wait: float = 2.0
    stable_after: float = 10.0

    def delay(self, failures: int) -> float:
        """How long after the newest of so many failures in a row."""
        return exponential_delay(failures, base=self.base, cap=self.cap)


class McpConnection:
    """One server. Its session is opened on first use, shared by all, and replaced when lost.

    ``watch_tools``: it outlives the turn that opens it, so it subscribes to changes of the tools.
    """

    def __init__(self, server: McpServerConfig, *, watch_tools: bool, backoff: Backoff) -> None:
        self.server = server
        self._watch_tools = watch_tools
        self._backoff = backoff
        self._session: McpSession | None = None
        #: Ended sessions whose tasks are still closing.
        self._closing_sessions: set[McpSession] = set()
        self._failures = 0
        self._retry_at = 0.0
        self._last_error: str | None = None
        self._open_lock = asyncio.Lock()
        self._list_lock = asyncio.Lock()
        self._closed = False

    async def list_tools(self) -> tuple[ToolInfo, ...]:
        """The server's tools, from the cache where it is valid.

        Raises ``McpServerUnavailableError``, ``McpServerError``.
        """
        if (known := self._cached_tools()) is not None:
            return known
        async with self._list_lock:
            # Another turn may have listed them in the meantime.
            if (known := self._cached_tools()) is not None:
                return known
            # Listing has no effect, so it may be repeated.
            return await self._with_session(lambda session: session.list_tools(), idempotent=True)

    async def call_tool(self, tool: str, arguments: dict[str, Any]) -> str:
        """A call's output for the model. Raises ``McpServerUnavailableError``,
        ``McpServerError``.
        """
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
        """Run a request, and once more where the first attempt cannot have had an effect."""
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
