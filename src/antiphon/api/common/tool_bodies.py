"""Tool bodies: encodes the tools and the tool choice of a turn as a response shows them. Pure."""

from __future__ import annotations

from typing import Any

from antiphon.api.common.tool_requests import Definition
from antiphon.core.mcp_servers import NAME_SEPARATOR
from antiphon.core.tool_definitions import TOOL_SEARCH
from antiphon.core.tool_rules import ALL_TOOLS, HOSTED_PREFIX
from antiphon.core.turns import FunctionTool, McpTool, Options

#: A choice of one server without naming a tool of it.
_SERVER_CHOICE_FIELDS = {"type", "server_label"}


def tool_bodies(options: Options) -> list[Definition]:
    """The tools as a response shows them: nothing that an MCP server is reached with."""
    bodies: list[Definition] = []
    namespaces: dict[str, Definition] = {}
    for tool in options.tools:
        if tool.namespace is None:
            bodies.append(_function_body(tool))
            continue
        if tool.namespace not in namespaces:
            namespaces[tool.namespace] = {
                "type": "namespace",
                "name": tool.namespace,
                "description": options.namespaces.get(tool.namespace, ""),
                "tools": [],
            }
            bodies.append(namespaces[tool.namespace])
        namespaces[tool.namespace]["tools"].append(_function_body(tool))
    bodies += [
        {
            "type": "mcp",
            "server_label": server.server_label,
            "server_url": server.server_url,
            "server_description": server.server_description,
            "allowed_tools": None if server.allowed_tools is None else list(server.allowed_tools),
            "require_approval": _approval_body(server),
        }
        for server in options.mcp_servers
    ]
    return [*bodies, *options.hosted_tools]


def _function_body(tool: FunctionTool) -> Definition:
    name = tool.local_name or tool.name
    if tool.is_search:
        return {
            "type": TOOL_SEARCH,
            "execution": "client",
            "description": tool.description,
            "parameters": tool.parameters,
        }
    if tool.is_custom:
        return {
            "type": "custom",
            "name": name,
            "description": tool.description,
            "format": tool.format or {"type": "text"},
        }
    return {
        "type": "function",
        "name": name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }


def _approval_body(server: McpTool) -> str | dict[str, Any]:
    body: dict[str, Any] = {}
    if isinstance(server.require_approval, tuple):
        body["always"] = {"tool_names": list(server.require_approval)}
    if server.exempt:
        body["never"] = {"tool_names": list(server.exempt)}
    return body or str(server.require_approval)


def choice_body(options: Options) -> str | Definition:
    """The tool choice as a response shows it."""
    if options.allowed_tools is not None:
        tools = [_named_choice_body(name, options) for name in options.allowed_tools]
        if options.tool_choice == "required" and [set(one) for one in tools] == [
            _SERVER_CHOICE_FIELDS
        ]:
            return tools[0]
        return {"type": "allowed_tools", "mode": options.tool_choice, "tools": tools}
    choice = options.tool_choice
    if ":" not in choice:
        return choice
    return _named_choice_body(choice.removeprefix("function:"), options)


def _named_choice_body(name: str, options: Options) -> Definition:
    """A tool that is chosen; ``name`` as in ``Options.allowed_tools``."""
    if name.startswith(HOSTED_PREFIX):
        return {"type": name.removeprefix(HOSTED_PREFIX)}
    tool = next((tool for tool in options.tools if tool.name == name), None)
    if tool is not None and tool.is_search:
        return {"type": TOOL_SEARCH}
    if tool is not None:
        kind = "custom" if tool.is_custom else "function"
        return {"type": kind, "name": tool.local_name or tool.name}
    for server in options.mcp_servers:
        label = server.server_label
        if name.startswith(label + NAME_SEPARATOR):
            local_name = name.removeprefix(label + NAME_SEPARATOR)
            body = {"type": "mcp", "server_label": label}
            return body if local_name == ALL_TOOLS else {**body, "name": local_name}
    return {"type": "function", "name": name}
