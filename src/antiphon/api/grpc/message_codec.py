"""The SDK's messages as items. Pure.

The SDK sends back what it was given: an answer's reasoning, text and calls are one message
there and several items here. A tool's result need not name its call; it is then the next
one that has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Literal

import msgspec

from antiphon.api.common.input_items import MAX_ITEMS
from antiphon.core.items import (
    Compaction,
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Item,
    Message,
    OutputText,
    Part,
    Reasoning,
    Role,
    SummaryText,
)
from antiphon.core.mcp_servers import NAME_SEPARATOR
from antiphon.errors import InvalidRequestError
from antiphon.protos.xai import ROLE_NAMES, Proto, chat_pb2, image_pb2

#: What a summary's ``encrypted_content`` begins with: a model's own is told from it by that.
SUMMARY_PREFIX = "antiphon:summary:1:"
#: What a tool's sealed output begins with: for who sends back what it was given, but did not
#: ask to read it.
OUTPUT_PREFIX = "antiphon:output:1:"

_DETAILS: dict[int, Literal["low", "high"]] = {
    image_pb2.DETAIL_LOW: "low",
    image_pb2.DETAIL_HIGH: "high",
}
_MCP = chat_pb2.TOOL_CALL_TYPE_MCP_TOOL
#: What the model reads of a server's tool whose output was not sent along.
_MISSING_OUTPUT = "What this call gave is not part of the conversation any more."
_CLIENT_SIDE = {chat_pb2.TOOL_CALL_TYPE_INVALID, chat_pb2.TOOL_CALL_TYPE_CLIENT_SIDE_TOOL}


def decode_messages(messages: Sequence[Proto], path: str = "messages") -> tuple[Item, ...]:
    """Messages as items, from the last summary on: it stands for all before it.

    A tool's result whose call cannot be told from them has the call id "" (``answering``).
    Raises ``InvalidRequestError`` naming the field at fault.
    """
    if len(messages) > MAX_ITEMS:
        raise InvalidRequestError(
            f"Send at most {MAX_ITEMS} messages at once.", code="too_many_items", param=path
        )
    items: list[Item] = []
    run = _AnsweredCalls(messages)
    for index, message in enumerate(messages):
        if (summary := _summary(message)) is not None:
            items = [Compaction(summary)]
        else:
            items += _items(message, f"{path}[{index}]", run)
    return pair_outputs(items, ())


def has_unnamed_outputs(items: Iterable[Item]) -> bool:
    """Whether there are results of tools whose calls are not known."""
    return any(isinstance(item, FunctionCallOutput) and not item.call_id for item in items)


def pair_outputs(items: Iterable[Item], open_call_ids: Sequence[str]) -> tuple[Item, ...]:
    """Items with each nameless result given to the first call that has none.

    ``open_calls`` are those of turns before.
    """
    waiting = list(open_call_ids)
    paired: list[Item] = []
    for item in items:
        paired.append(item)
        if isinstance(item, FunctionCall):
            waiting.append(item.call_id)
        elif isinstance(item, FunctionCallOutput):
            if not item.call_id and waiting:
                paired[-1] = msgspec.structs.replace(item, call_id=waiting.pop(0))
            elif item.call_id in waiting:
                waiting.remove(item.call_id)
    return tuple(paired)


def _summary(message: Proto) -> str | None:
    """What a message holds of older ones; None: it is none of those.

    Only a summary is encrypted among a user's words.
    """
    text: str = message.encrypted_content
    if text.startswith(SUMMARY_PREFIX):
        return text.removeprefix(SUMMARY_PREFIX)
    return text if text and message.role == chat_pb2.ROLE_USER else None


class _AnsweredCalls:
    """Which calls the tools of MCP servers have answered, looked up when it is asked."""

    def __init__(self, messages: Sequence[Proto]) -> None:
        self._messages = messages

    @cached_property
    def call_ids(self) -> set[str]:
        """Their ids."""
        return {one.tool_call_id for one in self._messages if one.role == chat_pb2.ROLE_TOOL}


def _items(message: Proto, path: str, answered: _AnsweredCalls) -> list[Item]:
    if message.role == chat_pb2.ROLE_TOOL:
        if message.tool_calls and message.tool_calls[0].type == _MCP:
            return [_server_output(message, path)]
        return [FunctionCallOutput(message.tool_call_id, _content(message, "user", path))]
    role = ROLE_NAMES.get(message.role)
    if role is None:
        raise InvalidRequestError(
            "The message has no role that is known here.", param=f"{path}.role"
        )
    content = _content(message, role, path)
    if role != "assistant":
        return [Message(role, content, message.name or None)]
    items: list[Item] = []
    if message.reasoning_content or message.encrypted_content:
        thought = message.reasoning_content
        reasoning = Reasoning(
            summary=(SummaryText(thought),) if thought else (),
            encrypted_content=message.encrypted_content or None,
        )
        items.append(reasoning.unsealed())
    if content or not message.tool_calls:
        items.append(Message(role, content, message.name or None))
    items += [
        _call(call, f"{path}.tool_calls[{index}]")
        for index, call in enumerate(message.tool_calls)
        # One that was never run waits for nothing: the server would have run it.
        if call.type != _MCP or call.id in answered.call_ids
    ]
    return items


def _call(call: Proto, path: str) -> FunctionCall:
    if call.type not in (*_CLIENT_SIDE, _MCP) or not call.HasField("function"):
        raise InvalidRequestError(
            "Only calls of functions and of MCP servers' tools are known here.",
            param=f"{path}.type",
        )
    name = call.function.name
    if not call.id or not name:
        raise InvalidRequestError("A call needs an id and a function's name.", param=path)
    label, joint, _ = name.partition(NAME_SEPARATOR)
    server = label if call.type == _MCP and joint else None
    return FunctionCall(call.id, name, call.function.arguments, server=server)


def _server_output(message: Proto, path: str) -> FunctionCallOutput:
    """What a server's tool answered, from whichever field has it."""
    output = _content(message, "user", path)
    if not output and message.encrypted_content.startswith(OUTPUT_PREFIX):
        output = message.encrypted_content.removeprefix(OUTPUT_PREFIX)
    failed = message.tool_calls[0].status == chat_pb2.TOOL_CALL_STATUS_FAILED
    if not output:
        output = message.tool_calls[0].error_message or _MISSING_OUTPUT
    return FunctionCallOutput(message.tool_call_id, output, is_error=failed)


def _content(message: Proto, role: Role, path: str) -> str | tuple[Part, ...]:
    parts = tuple(
        _part(part, role, f"{path}.content[{index}]") for index, part in enumerate(message.content)
    )
    match parts:
        case ():
            return ""
        case (InputText(text=text),) | (OutputText(text=text),):
            return text
    return parts if any(part not in (InputText(""), OutputText("")) for part in parts) else ""


def _part(part: Proto, role: Role, path: str) -> Part:
    match part.WhichOneof("content"):
        case "text":
            return OutputText(part.text) if role == "assistant" else InputText(part.text)
        case "image_url":
            if role == "assistant":
                raise InvalidRequestError("An assistant's message holds text only.", param=path)
            if part.image_url.file_id or not part.image_url.image_url:
                raise InvalidRequestError(
                    "An image has to come with its URL, which may be a data: URL: this server"
                    " keeps no files.",
                    param=f"{path}.image_url",
                )
            return InputImage(part.image_url.image_url, _DETAILS.get(part.image_url.detail, "auto"))
        case "file":
            raise InvalidRequestError(
                "Files are not taken over gRPC: send what is in them as text.",
                code="unsupported_parameter",
                param=f"{path}.file",
            )
    raise InvalidRequestError(
        "This part of the content holds nothing that is known here.", param=path
    )
