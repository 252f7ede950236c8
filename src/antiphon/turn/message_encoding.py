"""Message encoding: one item, or an answer with its calls, as a chat message. Pure.

The messages dialect of chat completions is the common form of what models are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, Final

import msgspec

from antiphon.core.custom_tool_input import custom_arguments
from antiphon.core.function_schemas import to_json_object
from antiphon.core.items import (
    ForeignItem,
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    InputFile,
    InputImage,
    InputVideo,
    Message,
    Part,
    Refusal,
    text_and_refusals_of,
)
from antiphon.core.provider_fields import ProviderFields
from antiphon.core.reasoning_sidecar import UNCOMMON_MARK, attach_fields, attach_native_item
from antiphon.core.tool_definitions import offered_name
from antiphon.core.tool_rules import INTERRUPTED_OUTPUT

SYSTEM_ROLES: Final = ("system", "developer")

#: Parts that are more than text.
_NON_TEXT_PARTS: Final = (InputImage, InputFile, InputVideo, InputAudio)

_ORIGINAL_DETAIL: Final = b'"detail":"original"'
#: Some upstreams refuse empty text.
_EMPTY_TEXT: Final = {"type": "text", "text": ""}


#: How messages of one text are stored. Behind the text would be another field: what separates it is
#: also within a text, but only behind a quotation mark.
_STORED_TYPE: Final = b'{"type":"message",'
_STORED_TEXTS: Final = (
    _STORED_TYPE + b'"role":"user","content":"',
    _STORED_TYPE + b'"role":"assistant","content":"',
)
_SEPARATOR: Final = b'","'
_SEPARATORS_BEFORE_TEXT: Final = 2
_NO_TEXT: Final = b'"content":""}'


class _Function(msgspec.Struct, frozen=True):
    name: str
    arguments: str


class _Call(msgspec.Struct, frozen=True):
    id: str
    type: str
    function: _Function | msgspec.Raw


class _ChatMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    role: str
    #: Never null: some upstreams refuse a message without content.
    content: str | list[dict[str, Any]]
    name: str | None = None
    tool_calls: list[_Call | msgspec.Raw] | None = None
    tool_call_id: str | None = None


_encode = msgspec.json.Encoder().encode
_check_json = msgspec.json.Decoder(msgspec.Raw).decode


def encode_answer(
    message: Message | None,
    calls: Sequence[FunctionCall],
    native_items: Sequence[ForeignItem | None] = (),
    *,
    bare: bool = False,
) -> bytes:
    """A model's message with its calls; ``bare``: without the fields beside the calls.

    ``native_items`` are the items that the calls are views of.
    """
    return _encode(
        _ChatMessage(
            "assistant",
            content_value(message.content) if message else "",
            message.name if message else None,
            [
                _chat_call(call, None if bare else call.provider_fields, None if bare else native)
                for call, native in zip_longest(calls, native_items)
            ]
            or None,
        )
    )


def _called_function(call: FunctionCall) -> _Function:
    """A call as models make it: of a function, by the name that they are offered."""
    as_json = custom_arguments if call.is_custom else to_json_object
    return _Function(offered_name(call.namespace, call.name), as_json(call.arguments))


def _chat_call(
    call: FunctionCall, provider_fields: ProviderFields | None, native: ForeignItem | None
) -> _Call | msgspec.Raw:
    function = _called_function(call)
    if native is not None:
        encoded = _encode(_Call(call.call_id, "function", function))
        return msgspec.Raw(attach_native_item(encoded, native.body))
    if provider_fields is None:
        return _Call(call.call_id, "function", function)
    origin, fields = provider_fields.origin, dict(provider_fields.fields)
    inner = fields.pop("function", None)
    with_inner = attach_fields(_encode(function), {origin: inner} if inner else {})
    encoded = _encode(_Call(call.call_id, "function", msgspec.Raw(with_inner)))
    return msgspec.Raw(attach_fields(encoded, {origin: fields} if fields else {}))


def encode_message(item: Message) -> bytes:
    """A message without calls."""
    role = "system" if item.role in SYSTEM_ROLES else item.role
    if isinstance(item.content, str):
        return _encode(_ChatMessage(role, item.content, item.name))
    return _encode_marked(_ChatMessage(role, content_value(item.content), item.name))


def message_in_stored(data: bytes) -> bytes | None:
    """A stored message of one text as a chat message, the same bytes without the item's type.

    None: it is something else, has more to it, or is damaged.
    """
    if not data.startswith(_STORED_TEXTS) or data.count(_SEPARATOR) != _SEPARATORS_BEFORE_TEXT:
        return None
    if data.endswith(_NO_TEXT):
        return None
    try:
        _check_json(data)
        data.decode()
    except (msgspec.MsgspecError, UnicodeError):
        return None
    return b"{" + data[len(_STORED_TYPE) :]


def encode_output(item: FunctionCallOutput) -> bytes:
    """The output of a call."""
    return _encode_marked(
        _ChatMessage("tool", content_value(item.output), tool_call_id=item.call_id)
    )


def encode_instructions(text: str) -> bytes:
    """A system message of text."""
    return _encode(_ChatMessage("system", text))


def encode_interrupted_output(call_id: str) -> bytes:
    """The output of a call that has none and will get none."""
    return _encode(_ChatMessage("tool", INTERRUPTED_OUTPUT, tool_call_id=call_id))


def _encode_marked(message: _ChatMessage) -> bytes:
    """A message, marked where not every upstream takes its parts."""
    encoded = _encode(message)
    if type(message.content) is list and (message.role == "tool" or _ORIGINAL_DETAIL in encoded):
        return encoded[:-1] + UNCOMMON_MARK + b"}"
    return encoded


def content_value(content: str | tuple[Part, ...]) -> str | list[dict[str, Any]]:
    """Text alone becomes a string, which every upstream takes; pictures need parts."""
    if isinstance(content, str):
        return content
    if any(isinstance(part, _NON_TEXT_PARTS) for part in content):
        return [chat_part for part in content if (chat_part := _part(part)) != _EMPTY_TEXT]
    return text_and_refusals_of(content)


def _part(part: Part) -> dict[str, Any]:
    match part:
        case InputImage(image_url=url, detail=detail):
            image = {"url": url} if detail == "auto" else {"url": url, "detail": detail}
            return {"type": "image_url", "image_url": image}
        case InputFile():
            fields = msgspec.structs.asdict(part)
            return {"type": "file", "file": {name: it for name, it in fields.items() if it}}
        case InputVideo(video_url=url):
            return {"type": "video_url", "video_url": {"url": url}}
        case InputAudio(input_audio=audio):
            return {"type": "input_audio", "input_audio": audio}
    return {"type": "text", "text": part.refusal if isinstance(part, Refusal) else part.text}
