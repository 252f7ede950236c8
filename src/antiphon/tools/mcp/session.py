"""One session with one MCP server, by the official SDK, in a task of its own.

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
from antiphon.tools.execution import Raised, guarded
from antiphon.tools.mcp.client import OPENING, open_client
from antiphon.tools.mcp.errors import Gone, Refused, Veil
from antiphon.tools.mcp.http_transport import FORGOTTEN, LOST, UNSENT
from antiphon.tools.mcp.results import spoken
from antiphon.tools.tool_outputs import short

#: Seconds for a session to end in good order.
CLOSING = 10.0
#: Seconds for which a list of tools is believed: the news of a change may get lost.
FRESH = 300.0
#: What is read of a list of tools: one without an end must not hang a turn.
_MOST_PAGES = 50
_MOST_TOOLS = 1000
_MOST_DESCRIPTION = 8000

_log = logging.getLogger("antiphon.tools")
T = TypeVar("T")


class Offer(msgspec.Struct, frozen=True):
    """A tool as its server lists it, cleaned."""

    name: str
    description: str | None
    schema: dict[str, Any]
    annotations: dict[str, Any] | None


class Link:
    """A session, opened from the moment it is made. ``watch``: hear of changed lists of tools.

    ``over``: it has ended, or is about to; a link is never opened again. ``trouble`` is why
    it failed, where it did. Times are the loop's.
    """

    def __init__(self, server: McpServerConfig, *, watch: bool = False) -> None:
        loop = asyncio.get_running_loop()
        self.server = server
        self.over = False
        self.trouble: str | None = None
        #: What its program did wrong, where that ended it.
        self._wrong: str | None = None
        self.began_at = self.ended_at = loop.time()
        self._veil = Veil(server)
        self._watch = watch
        self._watching: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._client: asyncio.Future[Client] = loop.create_future()
        # Whoever opened it may be gone by the time it fails.
        self._client.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._offers: tuple[Offer, ...] | None = None
        self._listed_at = 0.0
        #: How often the server has told of a change.
        self._changes = 0
        self._task = loop.create_task(self._live(), name=f"antiphon-mcp-{server.label}")

    async def opened(self) -> Self:
        """Wait until it is open. Raises ``Gone``."""
        await asyncio.shield(self._client)
        return self

    @property
    def was_open(self) -> bool:
        """Whether the server has ever answered."""
        return self._client.done() and self._client.exception() is None

    @property
    def done(self) -> bool:
        """Whether nothing of it is left."""
        return self._task.done()

    @property
    def offers(self) -> tuple[Offer, ...] | None:
        """The tools, if they were listed lately and have not changed since."""
        if self.over or asyncio.get_running_loop().time() - self._listed_at > FRESH:
            return None
        return self._offers

    async def list(self) -> tuple[Offer, ...]:
        """Ask for the tools. Raises ``Gone``, ``Refused``."""
        client = await asyncio.shield(self._client)
        try:
            async with asyncio.timeout(OPENING):
                if self._watch:
                    await self._begin_watching(client)
                changes = self._changes
                listed = await self._ask(_all_tools(client))
        except TimeoutError as late:
            raise Gone(self._reason(late)) from None
        offers = tuple(map(self._offer, listed))
        if changes == self._changes:
            self._listed_at = asyncio.get_running_loop().time()
            self._offers = offers
        return offers

    async def call(self, tool: str, arguments: dict[str, Any]) -> str:
        """A call's output for the model. Cancelling it tells the server so.

        Raises ``Gone``, ``Refused``.
        """
        client = await asyncio.shield(self._client)
        return spoken(tool, await self._ask(client.call_tool(tool, arguments)), self._veil)

    def close(self) -> None:
        """Begin to end it; ``closed`` waits until it has ended."""
        if not self.over:
            self.over = True
            self.ended_at = asyncio.get_running_loop().time()
        self._closing.set()

    async def closed(self) -> None:
        """End it, in good order if the server lets us."""
        self.close()
        await asyncio.wait({self._task}, timeout=CLOSING)
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _live(self) -> None:
        try:
            async with open_client(self.server, self._hear, self._ended) as client:
                self._client.set_result(client)
                await self._closing.wait()
                await self._end_watching()
        except Exception as error:  # noqa: BLE001 - the SDK's tasks raise groups of anything
            self.trouble = self._wrong or self._reason(error)
            _log.warning("The MCP server '%s' was lost: %s.", self.server.label, self.trouble)
            if not self._client.done():
                self._client.set_exception(Gone(self.trouble, unsent=True))
        finally:
            self.close()
            if not self._client.done():
                self._client.set_exception(Gone("it was being closed", unsent=True))
            await self._end_watching()

    def _ended(self, wrong: str | None) -> None:
        """Its process has closed its side, or what it writes is not to be read."""
        if not self.over:
            self._wrong = wrong
            self.trouble = wrong or "it has ended"
            _log.warning("The MCP server '%s' is lost: %s.", self.server.label, self.trouble)
            self.close()

    async def _hear(self, message: object) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self._changed()

    def _changed(self) -> None:
        self._changes += 1
        self._offers = None

    async def _begin_watching(self, client: Client) -> None:
        """Newer servers tell of changes only whom has asked, for as long as that one listens."""
        if client.protocol_version not in MODERN_PROTOCOL_VERSIONS or self.over:
            return
        if self._watching is None or self._watching.done():
            begun = asyncio.Event()
            self._watching = asyncio.create_task(self._listen(client, begun))
            self._watching.add_done_callback(lambda _: begun.set())
            await begun.wait()

    async def _listen(self, client: Client, begun: asyncio.Event) -> None:
        with suppress(MCPError, SubscriptionLost):
            async with client.listen(tools_list_changed=True) as changes:
                begun.set()
                try:
                    async for _ in changes:
                        self._changed()
                finally:
                    # Nobody would tell of the next one.
                    self._changed()

    async def _end_watching(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})

    async def _ask(self, work: Coroutine[Any, Any, T]) -> T:
        if self.over:
            work.close()
            raise Gone("it has gone away", unsent=True)
        try:
            return await guarded(work)
        except Raised as raised:
            raise self._fault(raised.error) from None

    def _fault(self, error: BaseException) -> Gone | Refused:
        if not isinstance(error, MCPError):
            return Refused(self._reason(error))
        if error.data == FORGOTTEN:
            self.close()
        if error.data in (UNSENT, LOST, FORGOTTEN):
            return Gone(error.message, unsent=error.data != LOST)
        if self.over or _by_sdk(error):
            return Gone(self._wrong or "the connection was lost")
        return Refused(self._reason(error))

    def _reason(self, error: BaseException) -> str:
        """What went wrong, for others to read: nothing of it may show how it is reached."""
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        match error:
            case TimeoutError():
                return f"it did not answer within {OPENING:g} s"
            case OSError() if self.server.command:
                return f"its program could not be run: {error.strerror or type(error).__name__}"
            case MCPError() if _by_sdk(error):
                return "it ended before it answered"
        said = short(self._veil.clean(short(error, 2000))).rstrip(".")
        return said or type(error).__name__

    def _offer(self, tool: types.Tool) -> Offer:
        hints = tool.annotations
        return Offer(
            tool.name,
            short(self._veil.clean(tool.description), _MOST_DESCRIPTION)
            if tool.description
            else None,
            tool.input_schema,
            hints.model_dump(by_alias=True, exclude_none=True) if hints else None,
        )


async def _all_tools(client: Client) -> list[types.Tool]:
    """Each tool once: a name that comes again is not another tool."""
    tools: dict[str, types.Tool] = {}
    cursor: str | None = None
    for _ in range(_MOST_PAGES):
        page = await client.list_tools(cursor=cursor)
        for tool in page.tools:
            tools.setdefault(tool.name, tool)
        cursor = page.next_cursor
        if cursor is None or len(tools) >= _MOST_TOOLS:
            break
    return list(tools.values())[:_MOST_TOOLS]


def _by_sdk(error: MCPError) -> bool:
    """Whether the SDK made this error of a lost connection: servers use its code for anything."""
    return error.code == types.CONNECTION_CLOSED and error.message.startswith(
        ("Connection closed", "SSE stream")
    )
