"""Tools of a request: decodes ``tools`` and ``tool_choice``, and encodes them for responses.
Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from antiphon.api.common.body import check_depth, convert_value
from antiphon.api.common.foreign_tools import expand_definitions
from antiphon.api.common.loose_values import decode_json_text
from antiphon.core.mcp_servers import (
    MAX_LABEL_LENGTH,
    NAME_SEPARATOR,
    ApprovalPolicy,
    McpServerRequest,
)
from antiphon.core.secrets import Secret
from antiphon.core.tool_definitions import (
    TOOL_SEARCH,
    ClientTool,
    CustomToolParam,
    FunctionToolParam,
    NamespaceToolParam,
    ToolName,
    ToolSearchParam,
    normalize_tool,
    offered_name,
    offered_tools,
)
from antiphon.core.tool_rules import ALL_TOOLS, HOSTED_PREFIX, qualified_name
from antiphon.core.turns import FunctionTool, McpTool
from antiphon.core.urls import split_web_url
from antiphon.errors import InvalidRequestError

ServerLabel = Annotated[
    str, msgspec.Meta(min_length=1, max_length=MAX_LABEL_LENGTH, pattern="^[a-zA-Z0-9_-]+$")
]
_ToolNames = list[Annotated[str, msgspec.Meta(min_length=1, max_length=128)]]

Definition: TypeAlias = dict[str, Any]

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


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


class HostedToolParam(msgspec.Struct, frozen=True):
    """A tool that only an upstream could run, as it came."""

    definition: Definition


ToolParam: TypeAlias = ClientTool | McpToolParam | HostedToolParam
_TOOL_TYPES: dict[str, type[ClientTool | McpToolParam]] = {
    "function": FunctionToolParam,
    "custom": CustomToolParam,
    "namespace": NamespaceToolParam,
    "mcp": McpToolParam,
}


class _NameChoice(msgspec.Struct, frozen=True):
    name: ToolName


class _McpChoice(msgspec.Struct, frozen=True):
    server_label: ServerLabel
    name: str | None = None


class _AllowedTools(msgspec.Struct, frozen=True):
    tools: Annotated[list[Definition], msgspec.Meta(min_length=1, max_length=128)]
    mode: Literal["auto", "none", "required"] | None = None


ToolChoice: TypeAlias = str | Definition
#: The modes of a choice; some APIs call "required" another name.
_MODES = {"": "auto", "auto": "auto", "none": "none", "required": "required", "any": "required"}


class DecodedTools(msgspec.Struct, frozen=True):
    """What a model may call, in the words of ``core.turns.Options``."""

    functions: tuple[FunctionTool, ...] = ()
    namespaces: dict[str, str] = {}
    servers: tuple[McpTool, ...] = ()
    server_requests: tuple[McpServerRequest, ...] = ()
    hosted: tuple[Definition, ...] = ()
    choice: str = "auto"
    allowed_tools: tuple[str, ...] | None = None


def parse_tools(given: Sequence[Definition], path: str = "tools") -> list[ToolParam]:
    """Tools in their types, each once. Raises ``InvalidRequestError`` naming the invalid field."""
    tools: list[ToolParam] = []
    for index, one in expand_definitions(given):
        tool = _parse_tool(one, f"{path}[{index}]")
        # Some clients collect tools from several places, and name one twice.
        if isinstance(tool, HostedToolParam) or tool not in tools:
            tools.append(tool)
    return tools


def _parse_tool(definition: Definition, path: str) -> ToolParam:
    clean = normalize_tool(definition)
    kind = clean["type"]
    if not isinstance(kind, str) or not kind:
        raise InvalidRequestError("A tool's type is a string.", param=f"{path}.type")
    if kind == TOOL_SEARCH and clean.get("execution") == "client":
        return convert_value(clean, ToolSearchParam, path)
    if kind in _TOOL_TYPES:
        return convert_value(clean, _TOOL_TYPES[kind], path)
    if {"name", "parameters"} <= clean.keys():
        # It is a function by its shape: to leave it out would not be what is meant.
        raise InvalidRequestError(
            f"There are no tools of the type '{kind[:64]}': it is one of"
            f" {', '.join(_TOOL_TYPES)}, or of one that the upstream runs.",
            param=f"{path}.type",
        )
    check_depth(definition, path)
    return HostedToolParam(definition)


def decode_tools(
    given: Sequence[ToolParam], choice: ToolChoice | None, added: Sequence[FunctionTool] = ()
) -> DecodedTools:
    """Raises ``InvalidRequestError`` for names that come twice, or are chosen but not there.

    ``added`` are tools that the input brings with it.
    """
    _check_names(given)
    servers: list[McpTool] = []
    server_requests: list[McpServerRequest] = []
    own: list[ClientTool] = []
    hosted: list[Definition] = []
    for index, tool in enumerate(given):
        if isinstance(tool, McpToolParam):
            server_requests.append(_server_request(tool, f"tools[{index}]"))
            servers.append(_server_tool(tool, server_requests[-1]))
        elif isinstance(tool, HostedToolParam):
            hosted.append(tool.definition)
        else:
            own.append(tool)
    functions = offered_tools(own)
    choosable = _Choosable((*functions, *added), servers, hosted)
    chosen, allowed = _decode_choice(choice, choosable)
    if chosen == "required" and not (given or added):
        raise InvalidRequestError(
            "A call of a tool is required, and there are no tools.", param="tool_choice"
        )
    return DecodedTools(
        tuple(functions),
        {one.name: one.description or "" for one in own if isinstance(one, NamespaceToolParam)},
        tuple(servers),
        tuple(server_requests),
        tuple(hosted),
        chosen,
        allowed,
    )


def _check_names(given: Sequence[ToolParam]) -> None:
    """Refuse names that two tools have, or that an MCP server's tool may have."""
    prefixes = tuple(
        qualified_name(tool.server_label, "") for tool in given if isinstance(tool, McpToolParam)
    )
    names: set[str] = set()
    for index, tool in enumerate(given):
        path = f"tools[{index}]"
        if isinstance(tool, HostedToolParam):
            continue
        name = tool.server_label if isinstance(tool, McpToolParam) else tool.name
        if name in names:
            raise InvalidRequestError(f"There are two tools named '{name}'.", param=path)
        names.add(name)
        if isinstance(tool, NamespaceToolParam):
            _check_namespace(tool, path, prefixes)
        elif not isinstance(tool, McpToolParam):
            _check_function(tool, path, name, prefixes)


def _check_namespace(tool: NamespaceToolParam, path: str, prefixes: tuple[str, ...]) -> None:
    names: set[str] = set()
    for index, one in enumerate(tool.tools):
        if one.name in names:
            raise InvalidRequestError(
                f"There are two tools named '{one.name}'.", param=f"{path}.tools[{index}]"
            )
        names.add(one.name)
        name = offered_name(tool.name, one.name)
        _check_function(one, f"{path}.tools[{index}]", name, prefixes)


def _check_function(
    tool: FunctionToolParam | CustomToolParam | ToolSearchParam,
    path: str,
    name: str,
    prefixes: tuple[str, ...],
) -> None:
    if isinstance(tool, CustomToolParam):
        check_depth(tool.format, f"{path}.format")
    else:
        check_depth(tool.parameters, f"{path}.parameters")
    if name.startswith(prefixes):
        raise InvalidRequestError(
            f"The name '{name}' is one that an MCP server's tool may have.", param=f"{path}.name"
        )


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
    parts = split_web_url(url)
    if parts is None:
        raise InvalidRequestError("That is not the URL of an MCP server.", param=path)
    # Without user and password.
    netloc = parts.netloc.rpartition("@")[2].lower()
    rest = "/<redacted>" if parts.path.strip("/") or parts.query else ""
    return f"{parts.scheme}://{netloc}{rest}"


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


class _Choosable(msgspec.Struct, frozen=True):
    """The tools among which one may be chosen."""

    functions: Sequence[FunctionTool]
    servers: Sequence[McpTool]
    hosted: Sequence[Definition]

    def allowed_name(self, choice: Definition, path: str) -> str:
        """A tool that is chosen, in the words of ``Options.allowed_tools``."""
        match choice["type"]:
            case "function" | "custom":
                return self._function(convert_value(choice, _NameChoice, path).name, path)
            case "mcp":
                server = convert_value(choice, _McpChoice, path)
                if not any(one.server_label == server.server_label for one in self.servers):
                    raise _unknown_tool(server.server_label, f"{path}.server_label")
                return qualified_name(server.server_label, server.name or ALL_TOOLS)
            case str() as kind:
                search = next((one.name for one in self.functions if one.is_search), None)
                if kind == TOOL_SEARCH and search is not None:
                    return search
                if not any(one.get("type") == kind for one in self.hosted):
                    raise _unknown_tool(kind, f"{path}.type")
                return HOSTED_PREFIX + kind
        raise InvalidRequestError("A tool's type is a string.", param=f"{path}.type")

    def _function(self, name: str, path: str) -> str:
        """What the model calls a function. In a namespace its own name will do."""
        if any(tool.name == name for tool in self.functions):
            return name
        found = [tool.name for tool in self.functions if tool.local_name == name]
        if len(found) != 1:
            raise _unknown_tool(name, f"{path}.name")
        return found[0]


def _unknown_tool(name: str, param: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"There is no tool '{name[:128]}' among the tools.", code="unknown_tool", param=param
    )


def _decode_choice(
    given: ToolChoice | None, tools: _Choosable
) -> tuple[str, tuple[str, ...] | None]:
    """The choice, and the names of the tools that it allows. None: all of them."""
    decoded = decode_json_text(given.strip()) if isinstance(given, str) else given
    choice = _normalize_choice(decoded) if isinstance(decoded, dict) else given
    if not choice:
        return "auto", None
    if isinstance(choice, str):
        mode = _MODES.get(choice.strip().lower())
        if mode is not None:
            return mode, None
        if not any(choice in (tool.name, tool.local_name) for tool in tools.functions):
            raise InvalidRequestError(
                f"There is no tool choice '{choice[:64]}': it is auto, none, required or a tool.",
                param="tool_choice",
            )
        choice = {"type": "function", "name": choice}
    if choice["type"] == "allowed_tools":
        return _decode_allowed(convert_value(choice, _AllowedTools, "tool_choice"), tools)
    name = tools.allowed_name(choice, "tool_choice")
    if name.endswith(NAME_SEPARATOR + ALL_TOOLS):
        return "required", (name,)
    return (name if name.startswith(HOSTED_PREFIX) else f"function:{name}"), None


def _decode_allowed(given: _AllowedTools, tools: _Choosable) -> tuple[str, tuple[str, ...]]:
    names: dict[str, None] = {}
    for index, one in enumerate(given.tools):
        choice, path = normalize_tool(one), f"tool_choice.tools[{index}]"
        if choice["type"] != "namespace":
            names[tools.allowed_name(choice, path)] = None
            continue
        members = [
            tool.name
            for tool in tools.functions
            if tool.namespace is not None and tool.namespace == choice.get("name")
        ]
        if not members:
            raise _unknown_tool(str(choice.get("name")), f"{path}.name")
        names |= dict.fromkeys(members)
    return given.mode or "auto", tuple(names)


def _normalize_choice(given: Definition) -> Definition | str:
    """A choice in the Responses API's shape; other APIs nest it, or write modes as objects."""
    if not given:
        return ""
    if given.keys() == {"mode"}:
        return str(given["mode"])
    choice = normalize_tool(given)
    kind, nested = choice["type"], choice.get("allowed_tools")
    if kind == "tool":
        return {**choice, "type": "function"}
    if kind == "allowed_tools" and isinstance(nested, dict):
        return {**nested, "type": kind}
    return kind if isinstance(kind, str) and kind in _MODES else choice
