"""Tool calls as the SDK's messages: a client's own, and those of MCP servers. Pure.

What an MCP server's tool was asked and answered are two items in the store. With xAI, and
here, the call is in the assistant's output and what came of it in one of the role "tool",
which names the call again.
"""

from __future__ import annotations

from collections.abc import Iterable

from antiphon.api.grpc.message_codec import OUTPUT_PREFIX
from antiphon.api.grpc.request_codec import MCP_OUTPUTS
from antiphon.core.items import FunctionCall, FunctionCallOutput, Item, text_and_refusals_of
from antiphon.core.tool_rules import needs_approval
from antiphon.core.turns import INCLUDE_ENCRYPTED_REASONING, Response
from antiphon.protos.xai import Proto, chat_pb2

_NEEDS_APPROVAL = (
    "A person has to agree to this call first, by the settings of the server. That can be done"
    " over HTTP, where the response is stored."
)


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
    """A call of a client's function."""
    return chat_pb2.ToolCall(
        id=call.call_id,
        type=chat_pb2.TOOL_CALL_TYPE_CLIENT_SIDE_TOOL,
        status=chat_pb2.TOOL_CALL_STATUS_COMPLETED,
        function=chat_pb2.FunctionCall(name=call.name, arguments=call.arguments),
    )


def open_call_ids(response: Response) -> list[str]:
    """The calls that a turn leaves to its client, by their ids."""
    return [call.call_id for call in _calls_without_output(response) if call.server is None]


def has_open_calls(response: Response) -> bool:
    """Whether a turn ended with calls that somebody has to see to."""
    return bool(_calls_without_output(response))


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


def _calls_without_output(response: Response) -> list[FunctionCall]:
    answered = _output_call_ids(response.output)
    return [
        item
        for item in response.output
        if isinstance(item, FunctionCall) and item.call_id not in answered
    ]


def _output_call_ids(items: Iterable[Item]) -> set[str]:
    return {item.call_id for item in items if isinstance(item, FunctionCallOutput)}


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
        function=chat_pb2.FunctionCall(name=call.name, arguments=call.arguments),
    )
