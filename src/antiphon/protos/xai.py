"""Protobuf messages of xAI's API: its SDK's generated classes, and enum tables both ways.

Needs the extra ``grpc``; loaded only by code that speaks that API. The generated package has no
types for its messages, so here they are ``Any``.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from antiphon.core.items import Role
from antiphon.core.turns import FunctionTool
from antiphon.protos.sdk_package import add_sdk_package

add_sdk_package()

from xai_sdk.proto import (  # type: ignore[import-untyped]  # noqa: E402 - the line before it
    auth_pb2,
    chat_pb2,
    deferred_pb2,
    image_pb2,
    models_pb2,
    sample_pb2,
    tokenize_pb2,
    tokenize_pb2_grpc,
    usage_pb2,
)

#: A protobuf message of any type.
Proto: TypeAlias = Any

__all__ = [
    "Proto",
    "auth_pb2",
    "chat_pb2",
    "deferred_pb2",
    "image_pb2",
    "models_pb2",
    "sample_pb2",
    "tokenize_pb2",
    "tokenize_pb2_grpc",
    "usage_pb2",
]


#: Roles that both directions share; a tool's messages are read in another way.
ROLES: dict[Role, int] = {
    "user": chat_pb2.ROLE_USER,
    "assistant": chat_pb2.ROLE_ASSISTANT,
    "system": chat_pb2.ROLE_SYSTEM,
    "developer": chat_pb2.ROLE_DEVELOPER,
}
ROLE_NAMES = {number: name for name, number in ROLES.items()}
SERVICE_TIERS = {
    "default": usage_pb2.SERVICE_TIER_DEFAULT,
    "priority": usage_pb2.SERVICE_TIER_PRIORITY,
}
SERVICE_TIER_NAMES = {number: name for name, number in SERVICE_TIERS.items()}
REASONING_EFFORTS = {
    "none": chat_pb2.EFFORT_NONE,
    "low": chat_pb2.EFFORT_LOW,
    "medium": chat_pb2.EFFORT_MEDIUM,
    "high": chat_pb2.EFFORT_HIGH,
    "xhigh": chat_pb2.EFFORT_XHIGH,
}
REASONING_EFFORT_NAMES = {number: name for name, number in REASONING_EFFORTS.items()}
TOOL_MODES = {
    "auto": chat_pb2.TOOL_MODE_AUTO,
    "none": chat_pb2.TOOL_MODE_NONE,
    "required": chat_pb2.TOOL_MODE_REQUIRED,
}
TOOL_MODE_NAMES = {number: name for name, number in TOOL_MODES.items()}


def tool_proto(tool: FunctionTool) -> Proto:
    """A ``Tool``."""
    return chat_pb2.Tool(
        function=chat_pb2.Function(
            name=tool.name,
            description=tool.description,
            strict=bool(tool.strict),
            parameters=_json(tool.parameters) if tool.parameters is not None else None,
        )
    )


def choice_proto(choice: str) -> Proto:
    """``Options.tool_choice`` as a ``ToolChoice``."""
    kind, _, name = choice.partition(":")
    if name:
        return chat_pb2.ToolChoice(function_name=name)
    return chat_pb2.ToolChoice(mode=TOOL_MODES[kind])


def format_proto(text_format: dict[str, Any] | None) -> Proto | None:
    """``Options.text_format`` as a ``ResponseFormat``; None: plain text."""
    match text_format:
        case {"type": "json_object"}:
            return chat_pb2.ResponseFormat(format_type=chat_pb2.FORMAT_TYPE_JSON_OBJECT)
        case {"type": "json_schema", "schema": schema}:
            return chat_pb2.ResponseFormat(
                format_type=chat_pb2.FORMAT_TYPE_JSON_SCHEMA, schema=_json(schema)
            )
    return None


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
