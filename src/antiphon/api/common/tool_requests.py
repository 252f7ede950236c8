"""Tools of a request: decodes ``tools`` and ``tool_choice``, and encodes them for responses.
Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec

from antiphon.api.common.body import check_depth
from antiphon.core.mcp_servers import (
    MAX_LABEL_LENGTH,
    NAME_SEPARATOR,
    ApprovalPolicy,
    McpServerRequest,
)
from antiphon.core.secrets import Secret
from antiphon.core.tool_rules import ALL_TOOLS, qualified_name
from antiphon.core.turns import FunctionTool, McpTool, Options
from antiphon.errors import InvalidRequestError

ToolName = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern="^[a-zA-Z0-9_-]+$")]
ServerLabel = Annotated[
    str, msgspec.Meta(min_length=1, max_length=MAX_LABEL_LENGTH, pattern="^[a-zA-Z0-9_-]+$")
]
_ToolNames = list[Annotated[str, msgspec.Meta(min_length=1, max_length=128)]]

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class FunctionToolParam(msgspec.Struct, frozen=True, tag="function", tag_field="type"):
    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _ToolFilter(msgspec.Struct, frozen=True):
    """Some of a server's tools."""

    tool_names: _ToolNames | None = None
    read_only: bool | None = None


class _ApprovalFilter(msgspec.Struct, frozen=True):
    always: _ToolFilter | None = None
    never: _ToolFilter | None = None


class McpToolParam(msgspec.Struct, frozen=True, tag="mcp", tag_field="type"):
    server_label: ServerLabel
    server_url: str | None = None
    server_description: str | None = None
    allowed_tools: _ToolNames | _ToolFilter | None = None
    require_approval: Literal["always", "never"] | _ApprovalFilter | None = None
    headers: dict[str, str] | None = None
    authorization: str | None = None
    connector_id: str | None = None
    tunnel_id: str | None = None


ToolParam = FunctionToolParam | McpToolParam


class _FunctionChoice(msgspec.Struct, frozen=True, tag="function", tag_field="type"):
    name: ToolName


class _McpChoice(msgspec.Struct, frozen=True, tag="mcp", tag_field="type"):
    server_label: ServerLabel
    name: str | None = None


_NamedToolChoice = _FunctionChoice | _McpChoice


class _AllowedTools(msgspec.Struct, frozen=True, tag="allowed_tools", tag_field="type"):
    tools: Annotated[list[_NamedToolChoice], msgspec.Meta(min_length=1, max_length=128)]
    mode: Literal["auto", "none", "required"] | None = None


_SERVER_CHOICE_FIELDS = {"type", "server_label"}

ToolChoice = Literal["auto", "none", "required"] | _FunctionChoice | _McpChoice | _AllowedTools


class DecodedTools(msgspec.Struct, frozen=True):
    """What a model may call, in the words of ``core.turns.Options``."""

    functions: tuple[FunctionTool, ...] = ()
    servers: tuple[McpTool, ...] = ()
    server_requests: tuple[McpServerRequest, ...] = ()
    choice: str = "auto"
    allowed_tools: tuple[str, ...] | None = None


def decode_tools(given: Sequence[ToolParam], choice: ToolChoice | None) -> DecodedTools:
    """Raises ``InvalidRequestError`` for names that come twice, or are chosen but not there."""
    named = [
        tool.name if isinstance(tool, FunctionToolParam) else tool.server_label for tool in given
    ]
    for index, name in enumerate(named):
        if name in named[:index]:
            raise InvalidRequestError(
                f"There are two tools named '{name}'.", param=f"tools[{index}]"
            )
    prefixes = [
        qualified_name(tool.server_label, "") for tool in given if isinstance(tool, McpToolParam)
    ]
    functions: list[FunctionTool] = []
    servers: list[McpTool] = []
    server_requests: list[McpServerRequest] = []
    for index, tool in enumerate(given):
        tool_path = f"tools[{index}]"
        if isinstance(tool, FunctionToolParam):
            check_depth(tool.parameters, f"{tool_path}.parameters")
            if tool.name.startswith(tuple(prefixes)):
                raise InvalidRequestError(
                    f"The name '{tool.name}' is one that an MCP server's tool may have.",
                    param=f"{tool_path}.name",
                )
            functions.append(
                FunctionTool(tool.name, tool.description, tool.parameters, tool.strict)
            )
        else:
            server_requests.append(_server_request(tool, tool_path))
            servers.append(_server_tool(tool, server_requests[-1]))
    chosen, allowed = _decode_choice(choice, {tool.name for tool in functions}, servers)
    return DecodedTools(tuple(functions), tuple(servers), tuple(server_requests), chosen, allowed)


def _server_request(tool: McpToolParam, path: str) -> McpServerRequest:
    """A server as it is reached in this turn."""
    for field in ("connector_id", "tunnel_id"):
        if getattr(tool, field) is not None:
            raise _unsupported_error(f"{path}.{field}")
    require: ApprovalPolicy | None = None
    exempt: tuple[str, ...] = ()
    match tool.require_approval:
        case _ApprovalFilter(always=always, never=never):
            require = _tool_names(always, f"{path}.require_approval.always")
            exempt = _tool_names(never, f"{path}.require_approval.never") or ()
        case other:
            require = other
    allowed = tool.allowed_tools
    return McpServerRequest(
        label=tool.server_label,
        param=path,
        url=None if tool.server_url is None else Secret(tool.server_url),
        headers=_headers(tool, path),
        allowed_tools=(
            tuple(allowed)
            if isinstance(allowed, list)
            else _tool_names(allowed, f"{path}.allowed_tools")
        ),
        require_approval=require,
        exempt=exempt,
    )


def _server_tool(tool: McpToolParam, request: McpServerRequest) -> McpTool:
    """A server as it is kept and shown."""
    return McpTool(
        tool.server_label,
        None
        if tool.server_url is None
        else _redact_url(tool.server_url, f"{request.param}.server_url"),
        tool.server_description,
        request.allowed_tools,
        "always" if request.require_approval is None else request.require_approval,
        request.exempt,
    )


def _redact_url(url: str, path: str) -> str:
    """A URL that may be shown: its path and query may hold keys."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or parts.scheme not in ("http", "https"):
        raise InvalidRequestError("That is not the URL of an MCP server.", param=path)
    host = f"[{host}]" if ":" in host else host
    rest = "/<redacted>" if parts.path.strip("/") or parts.query else ""
    return f"{parts.scheme}://{host}" + (f":{port}" if port else "") + rest


def _tool_names(some: _ToolFilter | None, path: str) -> tuple[str, ...] | None:
    if some is None:
        return None
    if some.read_only is not None:
        # What a server says of its own tools is no ground to trust them.
        raise _unsupported_error(f"{path}.read_only")
    return None if some.tool_names is None else tuple(some.tool_names)


def _unsupported_error(param: str) -> InvalidRequestError:
    field = param.rpartition(".")[2]
    return InvalidRequestError(
        f"This server does not know '{field}'.", code="unsupported_parameter", param=param
    )


def _headers(tool: McpToolParam, path: str) -> dict[str, Secret]:
    headers = dict(tool.headers or {})
    if tool.authorization is not None:
        if any(name.lower() == "authorization" for name in headers):
            raise InvalidRequestError(
                "The authorization comes twice: it is among the headers too.",
                param=f"{path}.authorization",
            )
        headers["Authorization"] = f"Bearer {tool.authorization}"
    for name, value in headers.items():
        if not _HEADER.fullmatch(name) or {"\r", "\n", "\0"} & set(value):
            # It may be a key: it is not for the message.
            raise InvalidRequestError("That is not an HTTP header.", param=f"{path}.headers")
    return {name: Secret(value) for name, value in headers.items()}


def _decode_choice(
    given: ToolChoice | None, functions: set[str], servers: Sequence[McpTool]
) -> tuple[str, tuple[str, ...] | None]:
    labels = {server.server_label for server in servers}
    match given:
        case None:
            return "auto", None
        case _FunctionChoice(name=name):
            _check_known(given, functions, labels, "tool_choice")
            return f"function:{name}", None
        case _McpChoice(server_label=label, name=tool):
            _check_known(given, functions, labels, "tool_choice")
            if tool is None:
                return "required", (qualified_name(label, ALL_TOOLS),)
            return f"function:{qualified_name(label, tool)}", None
        case _AllowedTools(tools=tools, mode=mode):
            for index, one in enumerate(tools):
                _check_known(one, functions, labels, f"tool_choice.tools[{index}]")
            return mode or "auto", tuple(dict.fromkeys(map(_allowed_name, tools)))
    return given, None


def _check_known(one: _NamedToolChoice, functions: set[str], labels: set[str], path: str) -> None:
    if isinstance(one, _FunctionChoice):
        there, name, field = one.name in functions, one.name, "name"
    else:
        there, name, field = one.server_label in labels, one.server_label, "server_label"
    if not there:
        raise InvalidRequestError(
            f"There is no tool '{name}' among the tools.",
            code="unknown_tool",
            param=f"{path}.{field}",
        )


def _allowed_name(one: _NamedToolChoice) -> str:
    if isinstance(one, _FunctionChoice):
        return one.name
    return qualified_name(one.server_label, one.name or ALL_TOOLS)


def tool_bodies(options: Options) -> list[dict[str, Any]]:
    """The tools as a response shows them: nothing that an MCP server is reached with."""
    return [
        {
            "type": "function",
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters,
            "strict": tool.strict,
        }
        for tool in options.tools
    ] + [
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


def _approval_body(server: McpTool) -> str | dict[str, Any]:
    body: dict[str, Any] = {}
    if isinstance(server.require_approval, tuple):
        body["always"] = {"tool_names": list(server.require_approval)}
    if server.exempt:
        body["never"] = {"tool_names": list(server.exempt)}
    return body or str(server.require_approval)


def choice_body(options: Options) -> str | dict[str, Any]:
    """The tool choice as a response shows it."""
    if options.allowed_tools is not None:
        tools = [_named_choice_body(name, options) for name in options.allowed_tools]
        if options.tool_choice == "required" and [set(one) for one in tools] == [
            _SERVER_CHOICE_FIELDS
        ]:
            # That is how one server is chosen without naming a tool of it.
            return tools[0]
        return {"type": "allowed_tools", "mode": options.tool_choice, "tools": tools}
    kind, _, name = options.tool_choice.partition(":")
    return _named_choice_body(name, options) if name else kind


def _named_choice_body(name: str, options: Options) -> dict[str, Any]:
    if not any(tool.name == name for tool in options.tools):
        for server in options.mcp_servers:
            label = server.server_label
            if name.startswith(label + NAME_SEPARATOR):
                tool = name.removeprefix(label + NAME_SEPARATOR)
                body = {"type": "mcp", "server_label": label}
                return body if tool == ALL_TOOLS else {**body, "name": tool}
    return {"type": "function", "name": name}
