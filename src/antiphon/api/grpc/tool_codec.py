"""gRPC tool codec: tools and tool choice of a request, tool calls of a response. Pure.

A request's tools are checked by the rules of HTTP (``common.tool_requests``).

The store has a call of an MCP server's tool and its output as two items. As with xAI's API, the
call is in the assistant's output, and its output in a message of the role "tool", which repeats
the call.
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
    McpToolParam,
    ToolParam,
    decode_tools,
)
from antiphon.api.grpc.message_codec import OUTPUT_PREFIX
from antiphon.core.function_schemas import to_json_object
from antiphon.core.items import (
    FunctionCall,
    FunctionCallOutput,
    open_calls,
    text_and_refusals_of,
)
from antiphon.core.mcp_servers import MAX_LABEL_LENGTH
from antiphon.core.tool_definitions import FunctionToolParam
from antiphon.core.tool_rules import needs_approval, qualified_name
from antiphon.core.turns import INCLUDE_ENCRYPTED_REASONING, Response
from antiphon.errors import InvalidRequestError
from antiphon.protos.xai import TOOL_MODE_NAMES, Proto, chat_pb2

#: The value of ``Options.include`` that asks for the outputs of MCP servers' tools.
MCP_OUTPUTS = "mcp_call.output"
_NEEDS_APPROVAL = (
    "A person has to agree to this call first, by the settings of the server. That can be done"
    " over HTTP, where the response is stored."
)
_MAX_TOOLS = 128
_MODES = {chat_pb2.TOOL_MODE_INVALID: "auto", **TOOL_MODE_NAMES}
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
    for index, tool in enumerate(request.tools):
        used_labels = {one.server_label for one in given if isinstance(one, McpToolParam)}
        given.append(_decode_tool(tool, f"tools[{index}]", used_labels))
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


class McpCallEncoder:
    """The calls of MCP servers' tools in one turn, as its items go by.

    ``response`` is the turn, over, or as it stood when its items began to come.
    """

    def __init__(self, response: Response) -> None:
        options = response.header.options
        self._servers = options.mcp_servers
        self._include_outputs = MCP_OUTPUTS in options.include
        self._include_encrypted = INCLUDE_ENCRYPTED_REASONING in options.include
        self._running = response.end is None
        self._outputs = {
            item.call_id: item for item in response.output if isinstance(item, FunctionCallOutput)
        }
        self._calls: dict[str, FunctionCall] = {}

    def encode(self, call: FunctionCall) -> Proto:
        """The next call. Its status is what is known of it."""
        self._calls[call.call_id] = call
        output = self._outputs.get(call.call_id)
        if output is not None:
            return _encode_finished_call(call, output)
        if needs_approval(self._servers, call):
            return _encode_mcp_call(call, chat_pb2.TOOL_CALL_STATUS_INCOMPLETE, _NEEDS_APPROVAL)
        return _encode_mcp_call(
            call,
            chat_pb2.TOOL_CALL_STATUS_IN_PROGRESS
            if self._running
            else chat_pb2.TOOL_CALL_STATUS_INCOMPLETE,
        )

    def add_output(self, output: FunctionCallOutput, message: Proto) -> bool:
        """Put the next output into a message, or a delta. False: it is of no server's tool."""
        call = (
            output.approved_call.call if output.approved_call else self._calls.get(output.call_id)
        )
        if call is None:
            return False
        message.role = chat_pb2.ROLE_TOOL
        message.tool_calls.append(_encode_finished_call(call, output))
        text = text_and_refusals_of(output.output)
        if self._include_outputs:
            message.content = text
        elif self._include_encrypted:
            message.encrypted_content = OUTPUT_PREFIX + text
        return True


def encode_call(call: FunctionCall) -> Proto:
    """A call of a client's function; the official SDK fails where the arguments are no JSON."""
    return chat_pb2.ToolCall(
        id=call.call_id,
        type=chat_pb2.TOOL_CALL_TYPE_CLIENT_SIDE_TOOL,
        status=chat_pb2.TOOL_CALL_STATUS_COMPLETED,
        function=chat_pb2.FunctionCall(name=call.name, arguments=to_json_object(call.arguments)),
    )


def open_call_ids(response: Response) -> list[str]:
    """The calls that a turn leaves to its client, by their ids."""
    return [call.call_id for call in open_calls(response.output) if call.server is None]


def has_open_calls(response: Response) -> bool:
    """Whether a turn ended with calls that somebody has to see to."""
    return bool(open_calls(response.output))


def count_mcp_calls(response: Response) -> int:
    """How many calls MCP servers' tools have answered, and not by an error."""
    if not response.header.options.mcp_servers:
        return 0
    made = {
        item.call_id
        for item in response.output
        if isinstance(item, FunctionCall) and item.server is not None
    }
    return sum(
        isinstance(item, FunctionCallOutput)
        and not item.is_error
        and (item.call_id in made or item.approved_call is not None)
        for item in response.output
    )


def _encode_finished_call(call: FunctionCall, output: FunctionCallOutput) -> Proto:
    if output.is_error:
        return _encode_mcp_call(
            call, chat_pb2.TOOL_CALL_STATUS_FAILED, text_and_refusals_of(output.output)
        )
    return _encode_mcp_call(call, chat_pb2.TOOL_CALL_STATUS_COMPLETED)


def _encode_mcp_call(call: FunctionCall, status: int, error: str | None = None) -> Proto:
    return chat_pb2.ToolCall(
        id=call.call_id,
        type=chat_pb2.TOOL_CALL_TYPE_MCP_TOOL,
        status=status,
        error_message=error,
        function=chat_pb2.FunctionCall(name=call.name, arguments=to_json_object(call.arguments)),
    )
