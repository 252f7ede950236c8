"""Tool calls: runs those of one answer, in parallel or in sequence, and chooses the tools that a
model is offered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import msgspec

from antiphon.core.foreign_items import function_views
from antiphon.core.items import FunctionCall, FunctionCallOutput, Item, McpListTools
from antiphon.core.tool_definitions import as_function
from antiphon.core.tool_rules import is_tool_allowed
from antiphon.core.turns import FunctionTool, Header
from antiphon.errors import InvalidRequestError
from antiphon.turn.message_rendering import RenderedTurn
from antiphon.turn.protocols import McpToolset, ToolExecutor

#: Called with a call and its output the moment it is there: no stop can come in between.
OnOutput: TypeAlias = Callable[[FunctionCall, str], None]


#: What a model reads of a call whose process died before its output was stored.
_INTERRUPTED_OUTPUT: Final = (
    "Interrupted: the server ended while this tool may have been running. It was not run again, and"
    " whether it did anything is not known."
)


def interrupted_outputs(items: Sequence[Item]) -> list[FunctionCallOutput]:
    """Outputs for the calls that have none: they may have been run, and are not run again."""
    outputs = {item.call_id for item in items if isinstance(item, FunctionCallOutput)}
    calls = [item for item in function_views(items) if isinstance(item, FunctionCall)]
    return [
        FunctionCallOutput(call.call_id, _INTERRUPTED_OUTPUT, is_error=True)
        for call in calls
        if call.call_id not in outputs
    ]


async def run_tool_calls(
    tools: ToolExecutor,
    calls: Sequence[FunctionCall],
    on_output: OnOutput,
    *,
    parallel: bool,
    approved: bool = False,
) -> bool:
    """Run calls and hand on their outputs as they come. False: some are left open.

    Cancelling stops the calls that still run, and waits until they have. A tool source
    that raises, which it must not, stops the others too; an ``ExceptionGroup`` says so.
    """
    width = max(1, len(calls)) if parallel else 1
    whole = True

    async def run(call: FunctionCall) -> None:
        nonlocal whole
        output = await tools.call_tool(call, approved=approved)
        if output is None:
            whole = False
        else:
            on_output(call, output)

    for first in range(0, len(calls), width):
        async with asyncio.TaskGroup() as group:
            for call in calls[first : first + width]:
                group.create_task(run(call))
    return whole


def with_offered_tools(
    header: Header, toolset: McpToolset | None, added_tools: Sequence[FunctionTool]
) -> Header:
    """The header as the model gets it: with the tools that MCP servers and items add, without
    those it may not call, and all of them functions.
    """
    options = header.options
    if (
        toolset is None
        and not added_tools
        and options.allowed_tools is None
        and not (options.tools and any(tool.is_custom for tool in options.tools))
    ):
        return header
    added = {tool.name: tool for tool in added_tools}
    added |= {tool.name: tool for tool in options.tools}
    every = (*added.values(), *(toolset.functions if toolset else ()))
    tools = tuple(as_function(tool) for tool in every if is_tool_allowed(options, tool.name))
    choice = options.tool_choice if tools or options.hosted_tools else "auto"
    return msgspec.structs.replace(
        header, options=msgspec.structs.replace(options, tools=tools, tool_choice=choice)
    )


def with_effective_approvals(header: Header, toolset: McpToolset) -> Header:
    """The header with the approvals that hold, the configuration's included."""
    servers = tuple(
        msgspec.structs.replace(
            server, require_approval=toolset.approvals[server.server_label], exempt=()
        )
        for server in header.options.mcp_servers
    )
    return msgspec.structs.replace(
        header, options=msgspec.structs.replace(header.options, mcp_servers=servers)
    )


def new_tool_listings(toolset: McpToolset, history: Sequence[RenderedTurn]) -> list[McpListTools]:
    """What servers offer, where the conversation has not said so before."""
    known = {label for segment in history for label in segment.listed_servers}
    return [listing for listing in toolset.tool_listings if listing.server_label not in known]


def without_forced_tool(header: Header) -> Header:
    """A tool that had to be called has been: to demand it again would never end."""
    options = header.options
    if options.tool_choice in ("auto", "none"):
        return header
    options = msgspec.structs.replace(options, tool_choice="auto")
    return msgspec.structs.replace(header, options=options)


def tools_of_turn(own: ToolExecutor | None, toolset: McpToolset | None) -> ToolExecutor | None:
    """Who runs a turn's calls: the functions of whoever runs the turn, its MCP servers, or both."""
    if own is None or toolset is None:
        return own or toolset
    return _CombinedTools(own, toolset)


def require_tools(
    approved: Sequence[FunctionCall], own: ToolExecutor | None, toolset: McpToolset | None
) -> None:
    """Refuse the approval of a call that nobody is there to run."""
    for call in approved:
        if call.server is None and own is None:
            raise InvalidRequestError(
                f"There is nobody to run the approved call of '{call.name}'.",
                code="tool_not_found",
                param="tools",
            )
        if call.server is not None and (toolset is None or toolset.server_of(call.name) is None):
            raise InvalidRequestError(
                f"The approved call is of the MCP server '{call.server}', which is not among the"
                " tools of this request: name it there again.",
                code="mcp_server_missing",
                param="tools",
            )


class _CombinedTools:
    """Calls of a server's tools go to that server, all others to the functions."""

    def __init__(self, own: ToolExecutor, toolset: McpToolset) -> None:
        self._own = own
        self._toolset = toolset

    async def call_tool(self, call: FunctionCall, *, approved: bool = False) -> str | None:
        is_of_server = self._toolset.server_of(call.name) is not None
        tools = self._toolset if is_of_server else self._own
        return await tools.call_tool(call, approved=approved)
