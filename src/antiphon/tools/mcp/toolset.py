"""``McpServerToolset``: the tools of MCP servers in one turn, their qualified names and their
calls.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Awaitable, Callable, Container, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from antiphon.core.items import FunctionCall, McpListTools
from antiphon.core.mcp_servers import (
    NAME_SEPARATOR,
    ApprovalPolicy,
    McpServerRequest,
    tool_name_without_label,
)
from antiphon.core.turns import FunctionTool
from antiphon.tools.mcp.connection import McpConnection
from antiphon.tools.mcp.errors import McpServerError, McpServerUnavailableError
from antiphon.tools.tool_outputs import (
    InvalidArgumentsError,
    error_output,
    parse_arguments,
    shorten,
)
from antiphon.turn.protocols import ToolErrorOutput

_INVALID_CHARACTER = re.compile(r"[^a-zA-Z0-9_-]")
#: What models take.
_MAX_LENGTH = 64


def tool_name_prefix(label: str) -> str:
    """How all names of a server's tools begin: as long as the label and ``__``."""
    return _INVALID_CHARACTER.sub("_", label) + NAME_SEPARATOR


def qualified_tool_name(label: str, tool: str, reserved_names: Container[str] = ()) -> str:
    """``<label>__<tool>``, of at most 64 letters of a-z, A-Z, 0-9, _ and -.

    A tool whose own name had to be changed, or is ``taken``, is told apart by a hash of
    what it is called. So a name means the same tool tomorrow, whatever else the server
    lists then: a person may have agreed to a call by its name.
    """
    plain = tool_name_prefix(label) + _INVALID_CHARACTER.sub("_", tool)
    if (
        len(plain) <= _MAX_LENGTH
        and plain == f"{label}{NAME_SEPARATOR}{tool}"
        and plain not in reserved_names
    ):
        return plain
    mark = "_" + hashlib.sha256(f"{label}\0{tool}".encode("utf-8", "replace")).hexdigest()[:8]
    return plain[: _MAX_LENGTH - len(mark)] + mark


if TYPE_CHECKING:
    from antiphon.tools.mcp.session import ToolInfo

_log = logging.getLogger("antiphon.tools")


class ServerTools(msgspec.Struct, frozen=True):
    """A server in one turn: the request for it, and the tools that it lists."""

    request: McpServerRequest
    connection: McpConnection
    tools: tuple[ToolInfo, ...]
    #: Whether its session ends with the turn.
    is_temporary: bool

    def needs_approval(self, tool: str) -> bool:
        """The configuration's rule holds for everybody; a request may only add to it."""
        configured, requested = (
            self.connection.server.require_approval,
            self.request.require_approval,
        )
        if configured is not None and _requires_approval(configured, tool):
            return True
        if requested is None:
            return configured is None and tool not in self.request.exempt
        return _requires_approval(requested, tool) and tool not in self.request.exempt

    @property
    def needs_approval_always(self) -> bool:
        """Whether no tool could be without: one that is not there is none."""
        configured, requested = (
            self.connection.server.require_approval,
            self.request.require_approval,
        )
        if configured == "always":
            return True
        by_request = requested == "always" or (requested is None and configured is None)
        return by_request and not self.request.exempt


class _Tool(msgspec.Struct, frozen=True):
    server_tools: ServerTools
    name: str


class McpServerToolset:
    """The ``ToolExecutor`` of a turn's MCP servers; made by ``McpServerManager.source``.

    ``reserved_names`` are those of the turn's other functions, whose calls are not handled here.
    ``disconnect`` ends what was opened for this turn only.
    """

    def __init__(
        self,
        servers: Sequence[ServerTools],
        reserved_names: frozenset[str],
        disconnect: Callable[[McpConnection], Awaitable[None]],
    ) -> None:
        self._servers = servers
        self._reserved_names = reserved_names
        self._used_names = set(reserved_names)
        self._disconnect = disconnect
        self._tools: dict[str, _Tool] = {}
        functions: list[FunctionTool] = []
        for server_tools in servers:
            functions += self._add_tools(server_tools)
        self.functions = tuple(functions)
        #: By label; tools are called there as in the names that models see.
        self.approvals = {one.request.label: self._approval_rule(one) for one in servers}
        self.tool_listings = tuple(
            McpListTools(one.request.label, tuple(map(_listing_entry, one.tools)))
            for one in servers
        )

    def server_of(self, name: str) -> str | None:
        """The label of the server that a call by this name goes to; None: it is none of ours.

        A name that only looks like one of a server's tools is that server's, too: it has to
        be told that there is no such tool.
        """
        if name in self._reserved_names:
            return None
        if (tool := self._tools.get(name)) is not None:
            return tool.server_tools.request.label
        labels = (one.request.label for one in self._servers)
        return next((label for label in labels if name.startswith(tool_name_prefix(label))), None)

    async def call_tool(self, call: FunctionCall, *, approved: bool = False) -> str | None:
        """The call's output for the model, whatever happened; None: for somebody else to answer.

        What went wrong is a ``ToolErrorOutput``. Never raises. Cancelling it tells the server that
        nobody waits any more.
        """
        label = self.server_of(call.name)
        if label is None:
            return None
        tool = self._tools.get(call.name)
        rule = self.approvals[label]
        if not approved and _requires_approval(rule, tool_name_without_label(label, call.name)):
            return None
        # What a person has agreed to is a tool of that server, not another of the same name.
        if tool is None or call.server not in (None, label):
            there = ", ".join(list(self._tools)[:20]) or "none"
            return _error_output(
                f"There is no tool named '{shorten(call.name, 100)}'. The tools: {there}."
            )
        try:
            arguments = parse_arguments(call.arguments)
        except InvalidArgumentsError as error:
            return _error_output(str(error))
        return await _run_tool(call.name, tool, arguments)

    async def aclose(self) -> None:
        """End the sessions that were opened for this turn. Never raises; safe to call twice."""
        await asyncio.gather(
            *(self._disconnect(one.connection) for one in self._servers if one.is_temporary)
        )

    def _add_tools(self, server: ServerTools) -> Iterable[FunctionTool]:
        label = server.request.label
        for tool in server.tools:
            name = qualified_tool_name(label, tool.name, self._used_names)
            if name in self._used_names:
                # Somebody has chosen the very name that would have told it apart.
                continue
            self._used_names.add(name)
            self._tools[name] = _Tool(server, tool.name)
            yield FunctionTool(name, tool.description, tool.schema)

    def _approval_rule(self, server: ServerTools) -> ApprovalPolicy:
        if server.needs_approval_always:
            return "always"
        label = server.request.label
        return (
            tuple(
                tool_name_without_label(label, name)
                for name, tool in self._tools.items()
                if tool.server_tools is server and server.needs_approval(tool.name)
            )
            or "never"
        )


async def _run_tool(name: str, tool: _Tool, arguments: dict[str, Any]) -> str:
    server = tool.server_tools.connection.server
    label = tool.server_tools.request.label
    try:
        async with asyncio.timeout(server.timeout):
            return await tool.server_tools.connection.call_tool(tool.name, arguments)
    except TimeoutError:
        _log.warning("Tool %s did not finish within %g s.", name, server.timeout)
        return _error_output(f"{name} did not finish within {server.timeout:g} s.")
    except McpServerUnavailableError as gone:
        effect = "" if gone.retryable else " Whether the call had an effect is not known."
        return _error_output(f"The MCP server '{label}' is not available: {gone}.{effect}")
    except McpServerError as refused:
        return _error_output(f"{name} failed: {refused}")
    except Exception as error:  # noqa: BLE001 - its kind is told, its words may hold a key
        _log.error("Tool %s failed unexpectedly: %s.", name, type(error).__name__)
        return _error_output(f"{name} failed.")


def _error_output(message: str) -> ToolErrorOutput:
    return ToolErrorOutput(error_output(message))


def _requires_approval(rule: ApprovalPolicy, tool: str) -> bool:
    return rule == "always" or (rule != "never" and tool in rule)


def _listing_entry(tool: ToolInfo) -> dict[str, Any]:
    return {
        "name": tool.name,
        "description": tool.description,
        "input_schema": tool.schema,
        "annotations": tool.annotations,
    }
