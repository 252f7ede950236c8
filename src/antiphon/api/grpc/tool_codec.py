"""The SDK's tools as ours: functions of the client's own, and MCP servers. Pure.

What a request may ask for is the same as over HTTP, so the rules are those of HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Any
from urllib.parse import urlsplit

import msgspec

from antiphon.api.common.body import DECODE_ERRORS, check_depth
from antiphon.api.common.tool_requests import (
    DecodedTools,
    FunctionToolParam,
    McpToolParam,
    ToolParam,
    decode_tools,
)
from antiphon.core.mcp_servers import MAX_LABEL_LENGTH
from antiphon.core.tool_rules import qualified_name
from antiphon.errors import InvalidRequestError
from antiphon.protos.xai import Proto, chat_pb2

_MAX_TOOLS = 128
_MODES = {
    chat_pb2.TOOL_MODE_INVALID: "auto",
    chat_pb2.TOOL_MODE_AUTO: "auto",
    chat_pb2.TOOL_MODE_NONE: "none",
    chat_pb2.TOOL_MODE_REQUIRED: "required",
}
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}\Z")
_LABEL = re.compile(rf"[a-zA-Z0-9_-]{{1,{MAX_LABEL_LENGTH}}}\Z")
_INVALID_NAME_CHARS = re.compile(r"[^a-zA-Z0-9_-]+")


def decode_toolset(request: Proto) -> DecodedTools:
    """What a completion request's model may call. Raises ``InvalidRequestError``."""
    if not request.tools and not request.HasField("tool_choice"):
        return DecodedTools()
    if len(request.tools) > _MAX_TOOLS:
        raise InvalidRequestError(f"Send at most {_MAX_TOOLS} tools.", param="tools")
    given: list[ToolParam] = []
    for place, tool in enumerate(request.tools):
        taken = {one.server_label for one in given if isinstance(one, McpToolParam)}
        given.append(_decode_tool(tool, f"tools[{place}]", taken))
    tools = decode_tools(given, None)
    return msgspec.structs.replace(tools, choice=_decode_choice(request.tool_choice, tools))


def json_object(text: str, path: str) -> dict[str, Any]:
    """A JSON object that came as text. Raises ``InvalidRequestError``."""
    try:
        value: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
    except DECODE_ERRORS as error:
        raise InvalidRequestError("That is not a JSON object.", param=path) from error
    check_depth(value, path)
    return value


def to_valid_name(text: str) -> str:
    """A text as a name: of letters, digits, ``_`` and ``-``."""
    return _INVALID_NAME_CHARS.sub("_", text)


def _decode_tool(tool: Proto, path: str, used_labels: Container[str]) -> ToolParam:
    match tool.WhichOneof("tool"):
        case "function":
            return _decode_function(tool.function, f"{path}.function")
        case "mcp":
            return _decode_server(tool.mcp, path, used_labels)
        case kind:
            what = f"the tool '{kind}'" if kind else "such a tool"
            raise InvalidRequestError(
                f"This server does not run {what}: give the model functions of your own, or an"
                " MCP server.",
                code="unsupported_parameter",
                param=path,
            )


def _decode_function(function: Proto, path: str) -> FunctionToolParam:
    if not _NAME.match(function.name):
        raise InvalidRequestError(
            "A function's name is 1 to 64 letters, digits, '_' and '-'.", param=f"{path}.name"
        )
    schema = None
    if function.parameters:
        schema = json_object(function.parameters, f"{path}.parameters")
    return FunctionToolParam(
        function.name, function.description or None, schema, True if function.strict else None
    )


def _decode_server(server: Proto, path: str, used_labels: Container[str]) -> McpToolParam:
    """xAI asks nobody before it calls a tool, so nor does a request of its SDK.

    The configuration's own rule holds nevertheless.
    """
    label = server.server_label or _default_label(server.server_url, used_labels)
    if not _LABEL.match(label):
        raise InvalidRequestError(
            f"A server's label is 1 to {MAX_LABEL_LENGTH} letters, digits, '_' and '-'.",
            param=f"{path}.server_label",
        )
    headers = dict(server.extra_headers)
    authorization: str | None = server.authorization.strip() or None
    if authorization is not None:
        scheme, space, token = authorization.partition(" ")
        if space and scheme.lower() == "bearer":
            authorization = token
        elif space and not any(name.lower() == "authorization" for name in headers):
            headers["Authorization"], authorization = authorization, None
    return McpToolParam(
        server_label=label,
        server_url=server.server_url or None,
        server_description=server.server_description or None,
        allowed_tools=list(server.allowed_tool_names) or None,
        require_approval="never",
        headers=headers,
        authorization=authorization,
    )


def _default_label(url: str, used_labels: Container[str]) -> str:
    """A label for a server that was given none: its host, the same in each turn.

    "" where there is no host: a label has to say which server is meant.
    """
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        host = ""
    plain = label = to_valid_name(host)[: MAX_LABEL_LENGTH - 4]
    number = 1
    while label and label in used_labels:
        number += 1
        label = f"{plain}_{number}"
    return label


def _decode_choice(choice: Proto, tools: DecodedTools) -> str:
    if choice.WhichOneof("tool_choice") != "function_name":
        if choice.mode not in _MODES:
            raise InvalidRequestError("There is no such tool mode.", param="tool_choice.mode")
        return _MODES[choice.mode]
    name: str = choice.function_name
    prefixes = tuple(qualified_name(server.server_label, "") for server in tools.servers)
    if not name.startswith(prefixes) and name not in {one.name for one in tools.functions}:
        raise InvalidRequestError(
            f"There is no tool '{name}' among the tools.",
            code="unknown_tool",
            param="tool_choice.function_name",
        )
    return f"function:{name}"
