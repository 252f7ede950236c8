"""``McpServerManager``: MCP servers for turns, configured ones and those of requests."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Iterable, Sequence
from importlib.util import find_spec

from antiphon.core.mcp_servers import MAX_LABEL_LENGTH, McpServerConfig, McpServerRequest
from antiphon.errors import ConfigError, InvalidRequestError, ToolServerUnavailableError
from antiphon.tools.mcp.connection import Backoff, McpConnection
from antiphon.tools.mcp.errors import McpServerError, McpServerUnavailableError
from antiphon.tools.mcp.toolset import McpServerToolset, ServerTools
from antiphon.tools.mcp.url_allowlist import UrlAllowlist

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_HEADER_VALUE = re.compile(r"[\t -~\x80-\xff]*")
#: They belong to the connection, or would send the request to another host behind the same.
_RESERVED_HEADERS = {
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
}


class McpServerManager:
    """Sessions with MCP servers. Nothing is opened, and the SDK not loaded, before it is needed.

    ``servers`` are the configured ones, ``allowed_urls`` what requests may name (see
    ``UrlAllowlist``). Belongs to one event loop. Raises ``ConfigError``.
    """

    def __init__(
        self,
        servers: Iterable[McpServerConfig] = (),
        allowed_urls: Iterable[str] = (),
        *,
        backoff: Backoff | None = None,
    ) -> None:
        self._backoff = backoff or Backoff()
        self._url_allowlist = UrlAllowlist(allowed_urls)
        self._connections = {
            server.label: McpConnection(server, watch_tools=True, backoff=self._backoff)
            for server in servers
        }
        #: Of requests, while their turns last.
        self._request_connections: set[McpConnection] = set()
        if (self._connections or self._url_allowlist) and find_spec("mcp") is None:
            raise ConfigError(
                "The MCP servers of the settings need MCP: `pip install 'antiphon[mcp]'`"
            )

    def validate(self, requests: Sequence[McpServerRequest]) -> None:
        """Validate a request's MCP servers: labels, URL allowlist, headers. Raises
        ``InvalidRequestError``.
        """
        labels: set[str] = set()
        for request in requests:
            self._check_label(request, labels)
            labels.add(request.label)
            if request.url is None:
                if request.headers:
                    raise InvalidRequestError(
                        "Headers are for a server that is given by its server_url.",
                        param=f"{request.param}.headers",
                    )
            elif not self._url_allowlist.is_allowed(request.url.reveal()):
                raise InvalidRequestError(
                    f"This server does not call the server_url of '{request.label}': its host is"
                    " not one that its operator has allowed (mcp_allowed_urls).",
                    code="server_url_not_allowed",
                    param=f"{request.param}.server_url",
                )
            _check_headers(request)

    async def open_toolset(
        self, requests: Sequence[McpServerRequest], *, reserved_names: Collection[str] = ()
    ) -> McpServerToolset:
        """The tools that a turn asks for; to be closed with the turn.

        ``reserved_names`` are those of the request's own functions. Raises ``InvalidRequestError``,
        and ``ToolServerUnavailableError`` where a server does not say what tools it has.
        """
        self.validate(requests)
        server_tools: list[ServerTools] = []
        temporary = {
            request.label: self._connect(request) for request in requests if request.url is not None
        }
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(
                        _load_server_tools(request, temporary.get(request.label), self._connections)
                    )
                    for request in requests
                ]
            server_tools = [task.result() for task in tasks]
        except* ToolServerUnavailableError as failures:
            raise failures.exceptions[0] from None
        finally:
            if not server_tools:
                await asyncio.gather(*map(self._disconnect, temporary.values()))
        return McpServerToolset(server_tools, frozenset(reserved_names), self._disconnect)

    async def close(self) -> None:
        """End all sessions. Safe to call twice."""
        connections = (*self._connections.values(), *self._request_connections)
        await asyncio.gather(*(connection.close() for connection in connections))

    def _connect(self, request: McpServerRequest) -> McpConnection:
        server = McpServerConfig(label=request.label, url=request.url, headers=request.headers)
        connection = McpConnection(server, watch_tools=False, backoff=self._backoff)
        self._request_connections.add(connection)
        return connection

    async def _disconnect(self, connection: McpConnection) -> None:
        try:
            await connection.close()
        finally:
            self._request_connections.discard(connection)

    def _check_label(self, request: McpServerRequest, before: Collection[str]) -> None:
        param = f"{request.param}.server_label"
        if not 0 < len(request.label) <= MAX_LABEL_LENGTH or not request.label.isprintable():
            raise InvalidRequestError(
                f"A server_label has 1 to {MAX_LABEL_LENGTH} printable characters.", param=param
            )
        if request.label in before:
            raise InvalidRequestError(
                f"Two MCP servers are labelled '{request.label}'.",
                code="server_label_duplicate",
                param=param,
            )
        if request.url is None and request.label not in self._connections:
            raise InvalidRequestError(
                f"There is no MCP server '{request.label}' here, and no server_url says"
                " where it is.",
                code="mcp_server_not_found",
                param=param,
            )


async def _load_server_tools(
    request: McpServerRequest,
    temporary: McpConnection | None,
    connections: dict[str, McpConnection],
) -> ServerTools:
    connection = temporary or connections[request.label]
    try:
        tools = await connection.list_tools()
    except (McpServerUnavailableError, McpServerError) as error:
        raise ToolServerUnavailableError(
            f"The MCP server '{request.label}' did not say what tools it has: {error}."
        ) from None
    for allowed in (connection.server.allowed_tools, request.allowed_tools):
        if allowed is not None:
            tools = tuple(tool for tool in tools if tool.name in allowed)
    return ServerTools(request, connection, tools, is_temporary=temporary is not None)


def _check_headers(request: McpServerRequest) -> None:
    """Validate names and values; no error message contains a value."""
    for name, value in request.headers.items():
        if not _HEADER_NAME.fullmatch(name) or name.lower() in _RESERVED_HEADERS:
            raise InvalidRequestError(
                f"One of the headers for '{request.label}' has a name that cannot be sent.",
                param=f"{request.param}.headers",
            )
        if not _HEADER_VALUE.fullmatch(value.reveal()):
            raise InvalidRequestError(
                f"A header for '{request.label}' has a value that cannot be sent.",
                param=f"{request.param}.headers",
            )
