"""MCP session: one session of the official SDK with one server, in a task of its own.

A session of the SDK has to be opened and closed by one task; who uses it are many turns,
each of which may be cancelled at any moment. Importing this module loads the SDK.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Self, TypeVar

import msgspec
from mcp import Client, MCPError, types
from mcp.client.subscriptions import SubscriptionLost
from mcp.types.version import MODERN_PROTOCOL_VERSIONS

from antiphon.core.mcp_servers import McpServerConfig
from antiphon.tools.execution import CapturedError, capture_exceptions
from antiphon.tools.mcp.client import OPEN_TIMEOUT, open_client
from antiphon.tools.mcp.errors import McpServerError, McpServerUnavailableError, SecretRedactor
from antiphon.tools.mcp.http_transport import CONNECTION_LOST, NOT_SENT, SESSION_EXPIRED
from antiphon.tools.mcp.results import result_text
from antiphon.tools.tool_outputs import shorten

#: Seconds for a session to end in good order.
CLOSE_TIMEOUT = 10.0
#: Seconds for which a list of tools is believed: the news of a change may get lost.
TOOL_LIST_TTL = 300.0
#: What is read of a list of tools: one without an end must not hang a turn.
_MAX_PAGES = 50
_MAX_TOOLS = 1000
_MAX_DESCRIPTION_LENGTH = 8000

_log = logging.getLogger("antiphon.tools")
T = TypeVar("T")


class ToolInfo(msgspec.Struct, frozen=True):
    """A tool as its server lists it, cleaned."""

    name: str
    description: str | None
    schema: dict[str, Any]
    annotations: dict[str, Any] | None


class McpSession:
    """A session, which opens as soon as it is created. ``watch_tools``: subscribe to tool changes.

    ``is_closing``: it has ended, or is about to; a session is never reopened. ``error`` is why
    it failed, if it did. Times are the loop's.
    """

    def __init__(self, server: McpServerConfig, *, watch_tools: bool = False) -> None:
        loop = asyncio.get_running_loop()
        self.server = server
        self.is_closing = False
        self.error: str | None = None
        #: The program's mistake that ended the session, if one did.
        self._program_error: str | None = None
        self.started_at = self.ended_at = loop.time()
        self._redactor = SecretRedactor(server)
        self._watch_tools = watch_tools
        self._watch_task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._client: asyncio.Future[Client] = loop.create_future()
        # The turn that opened it may have ended by the time it fails.
        self._client.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._tools: tuple[ToolInfo, ...] | None = None
        self._listed_at = 0.0
        #: How many changes of its tools the server has reported.
        self._change_count = 0
        self._task = loop.create_task(self._run(), name=f"antiphon-mcp-{server.label}")

    async def wait_open(self) -> Self:
        """Wait until it is open. Raises ``McpServerUnavailableError``."""
        await asyncio.shield(self._client)
        return self

    @property
    def has_opened(self) -> bool:
        """Whether the server has ever answered."""
        return self._client.done() and self._client.exception() is None

    @property
    def is_closed(self) -> bool:
        """Whether nothing of it is left."""
        return self._task.done()

    @property
    def tools(self) -> tuple[ToolInfo, ...] | None:
        """The tools, if they were listed lately and have not changed since."""
        if self.is_closing or asyncio.get_running_loop().time() - self._listed_at > TOOL_LIST_TTL:
            return None
        return self._tools

    async def list_tools(self) -> tuple[ToolInfo, ...]:
        """Ask for the tools. Raises ``McpServerUnavailableError``, ``McpServerError``."""
        client = await asyncio.shield(self._client)
        try:
            async with asyncio.timeout(OPEN_TIMEOUT):
                if self._watch_tools:
                    await self._start_watching(client)
                changes = self._change_count
                listed = await self._request(_list_all_tools(client))
        except TimeoutError as late:
            raise McpServerUnavailableError(self._error_reason(late)) from None
        offers = tuple(map(self._tool_info, listed))
        if changes == self._change_count:
            self._listed_at = asyncio.get_running_loop().time()
            self._tools = offers
        return offers

    async def call_tool(self, tool: str, arguments: dict[str, Any]) -> str:
        """A call's output for the model. Cancelling it tells the server so.

        Raises ``McpServerUnavailableError``, ``McpServerError``.
        """
        client = await asyncio.shield(self._client)
        return result_text(
            tool, await self._request(client.call_tool(tool, arguments)), self._redactor
        )

    def close(self) -> None:
        """Begin to close; ``wait_closed`` waits for the end."""
        if not self.is_closing:
            self.is_closing = True
            self.ended_at = asyncio.get_running_loop().time()
        self._closing.set()

    async def wait_closed(self) -> None:
        """End it, in good order if the server lets us."""
        self.close()
        await asyncio.wait({self._task}, timeout=CLOSE_TIMEOUT)
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        try:
            async with open_client(self.server, self._on_message, self._on_end) as client:
                self._client.set_result(client)
                await self._closing.wait()
                await self._stop_watching()
        except Exception as error:  # noqa: BLE001 - the SDK's tasks raise groups of anything
            self.error = self._program_error or self._error_reason(error)
            _log.warning("The MCP server '%s' was lost: %s.", self.server.label, self.error)
            if not self._client.done():
                self._client.set_exception(McpServerUnavailableError(self.error, retryable=True))
        finally:
            self.close()
            if not self._client.done():
                self._client.set_exception(
                    McpServerUnavailableError("it was being closed", retryable=True)
                )
            await self._stop_watching()

    def _on_end(self, wrong: str | None) -> None:
        """Its process has closed its side, or what it writes is not to be read."""
        if not self.is_closing:
            self._program_error = wrong
            self.error = wrong or "it has ended"
            _log.warning("The MCP server '%s' is lost: %s.", self.server.label, self.error)
            self.close()

    async def _on_message(self, message: object) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self._on_tools_changed()

    def _on_tools_changed(self) -> None:
        self._change_count += 1
        self._tools = None

    async def _start_watching(self, client: Client) -> None:
        """Newer servers tell of changes only whom has asked, for as long as that one listens."""
        if client.protocol_version not in MODERN_PROTOCOL_VERSIONS or self.is_closing:
            return
        if self._watch_task is None or self._watch_task.done():
            begun = asyncio.Event()
            self._watch_task = asyncio.create_task(self._listen(client, begun))
            self._watch_task.add_done_callback(lambda _: begun.set())
            await begun.wait()

    async def _listen(self, client: Client, begun: asyncio.Event) -> None:
        with suppress(MCPError, SubscriptionLost):
            async with client.listen(tools_list_changed=True) as changes:
                begun.set()
                try:
                    async for _ in changes:
                        self._on_tools_changed()
                finally:
                    # Nobody would tell of the next one.
                    self._on_tools_changed()

    async def _stop_watching(self) -> None:
        if self._watch_task is not None:
            self._watch_task.cancel()
            await asyncio.wait({self._watch_task})

    async def _request(self, work: Coroutine[Any, Any, T]) -> T:
        if self.is_closing:
            work.close()
            raise McpServerUnavailableError("it has gone away", retryable=True)
        try:
            return await capture_exceptions(work)
        except CapturedError as raised:
            raise self._to_error(raised.error) from None

    def _to_error(self, error: BaseException) -> McpServerUnavailableError | McpServerError:
        if not isinstance(error, MCPError):
            return McpServerError(self._error_reason(error))
        if error.data == SESSION_EXPIRED:
            self.close()
        if error.data in (NOT_SENT, CONNECTION_LOST, SESSION_EXPIRED):
            return McpServerUnavailableError(error.message, retryable=error.data != CONNECTION_LOST)
        if self.is_closing or _is_connection_error(error):
            return McpServerUnavailableError(self._program_error or "the connection was lost")
        return McpServerError(self._error_reason(error))

    def _error_reason(self, error: BaseException) -> str:
        """What went wrong, for others to read: nothing of it may show how it is reached."""
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        match error:
            case TimeoutError():
                return f"it did not answer within {OPEN_TIMEOUT:g} s"
            case OSError() if self.server.command:
                return f"its program could not be run: {error.strerror or type(error).__name__}"
            case MCPError() if _is_connection_error(error):
                return "it ended before it answered"
        message = shorten(self._redactor.redact(shorten(error, 2000))).rstrip(".")
        return message or type(error).__name__

    def _tool_info(self, tool: types.Tool) -> ToolInfo:
        hints = tool.annotations
        return ToolInfo(
            tool.name,
            shorten(self._redactor.redact(tool.description), _MAX_DESCRIPTION_LENGTH)
            if tool.description
            else None,
            tool.input_schema,
            hints.model_dump(by_alias=True, exclude_none=True) if hints else None,
        )


async def _list_all_tools(client: Client) -> list[types.Tool]:
    """Each tool once: a name that comes again is not another tool."""
    tools: dict[str, types.Tool] = {}
    cursor: str | None = None
    for _ in range(_MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        for tool in page.tools:
            tools.setdefault(tool.name, tool)
        cursor = page.next_cursor
        if cursor is None or len(tools) >= _MAX_TOOLS:
            break
    return list(tools.values())[:_MAX_TOOLS]


def _is_connection_error(error: MCPError) -> bool:
    """Whether the SDK made this error of a lost connection: servers use its code for anything."""
    return error.code == types.CONNECTION_CLOSED and error.message.startswith(
        ("Connection closed", "SSE stream")
    )
