"""What a completion says of the settings that it was made with. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from antiphon.api.grpc.protos import Proto, chat_pb2
from antiphon.api.grpc.wire_request import SEALED
from antiphon.core.turns import Options, Response

_EFFORTS = {
    "none": chat_pb2.EFFORT_NONE,
    "low": chat_pb2.EFFORT_LOW,
    "medium": chat_pb2.EFFORT_MEDIUM,
    "high": chat_pb2.EFFORT_HIGH,
    "xhigh": chat_pb2.EFFORT_XHIGH,
}
_MODES = {
    "auto": chat_pb2.TOOL_MODE_AUTO,
    "none": chat_pb2.TOOL_MODE_NONE,
    "required": chat_pb2.TOOL_MODE_REQUIRED,
}


def settings_of(response: Response) -> Proto:
    """A ``RequestSettings``. What the model decided by itself is left out."""
    options = response.header.options
    return chat_pb2.RequestSettings(
        max_tokens=options.max_output_tokens,
        parallel_tool_calls=options.parallel_tool_calls,
        previous_response_id=response.previous_response_id,
        reasoning_effort=_EFFORTS.get(options.reasoning_effort or ""),
        temperature=options.temperature,
        response_format=_format(options.text_format),
        tool_choice=_choice(options),
        tools=[_tool(tool) for tool in options.tools],
        top_p=options.top_p,
        user=options.user,
        store_messages=response.store,
        use_encrypted_content=SEALED in options.include,
    )


def _tool(tool: Any) -> Proto:
    return chat_pb2.Tool(
        function=chat_pb2.Function(
            name=tool.name,
            description=tool.description,
            strict=bool(tool.strict),
            parameters=_json(tool.parameters) if tool.parameters is not None else None,
        )
    )


def _choice(options: Options) -> Proto | None:
    if not options.tools:
        return None
    kind, _, name = options.tool_choice.partition(":")
    if name:
        return chat_pb2.ToolChoice(function_name=name)
    return chat_pb2.ToolChoice(mode=_MODES[kind])


def _format(given: dict[str, Any] | None) -> Proto | None:
    match given:
        case {"type": "json_object"}:
            return chat_pb2.ResponseFormat(format_type=chat_pb2.FORMAT_TYPE_JSON_OBJECT)
        case {"type": "json_schema", "schema": schema}:
            return chat_pb2.ResponseFormat(
                format_type=chat_pb2.FORMAT_TYPE_JSON_SCHEMA, schema=_json(schema)
            )
    return None


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
