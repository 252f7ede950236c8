"""Chat messages: decodes the messages of ``/v1/chat/completions`` into items. Pure."""

from __future__ import annotations

from typing import Literal

import msgspec

from antiphon.core.items import (
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Item,
    Message,
    OutputText,
    Part,
    Refusal,
    text_of,
)
from antiphon.errors import InvalidRequestError


class _ImageUrl(msgspec.Struct, frozen=True):
    url: str
    detail: Literal["auto", "low", "high"] | None = None


class _TextPart(msgspec.Struct, frozen=True, tag="text", tag_field="type"):
    text: str


class _RefusalPart(msgspec.Struct, frozen=True, tag="refusal", tag_field="type"):
    refusal: str


class _ImagePart(msgspec.Struct, frozen=True, tag="image_url", tag_field="type"):
    image_url: _ImageUrl


_Content = str | list[_TextPart | _ImagePart | _RefusalPart]


class _CalledFunction(msgspec.Struct, frozen=True):
    name: str
    arguments: str


class _Call(msgspec.Struct, frozen=True):
    id: str
    function: _CalledFunction
    type: Literal["function"] = "function"


class MessageParam(msgspec.Struct, frozen=True):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: _Content | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None


def message_items(message: MessageParam, path: str) -> list[Item]:
    """The items of a message; ``path`` is its field in the body."""
    if message.role == "tool":
        if not message.tool_call_id:
            raise InvalidRequestError(
                "A tool's message has to name its call.", param=f"{path}.tool_call_id"
            )
        return [FunctionCallOutput(message.tool_call_id, _content("tool", message.content))]
    if message.role != "assistant":
        if message.content is None:
            raise InvalidRequestError("The message has no content.", param=f"{path}.content")
        return [Message(message.role, _content(message.role, message.content), message.name)]
    items: list[Item] = []
    content = _content("assistant", message.content)
    if message.refusal:
        content = (Refusal(message.refusal),)
    if content or not message.tool_calls:
        items.append(Message("assistant", content, message.name))
    items += [
        FunctionCall(call.id, call.function.name, call.function.arguments)
        for call in message.tool_calls or ()
    ]
    return items


def _content(role: str, content: _Content | None) -> str | tuple[Part, ...]:
    if content is None or isinstance(content, str):
        return content or ""
    parts: list[Part] = []
    for part in content:
        match part:
            case _TextPart(text=text):
                parts.append(OutputText(text) if role == "assistant" else InputText(text))
            case _RefusalPart(refusal=refusal):
                parts.append(Refusal(refusal))
            case _ImagePart(image_url=image):
                parts.append(InputImage(image.url, image.detail or "auto"))
    if all(isinstance(part, InputText | OutputText) for part in parts):
        return text_of(tuple(parts))
    return tuple(parts)
