"""Chat messages: decodes the messages of ``/v1/chat/completions`` into items. Pure.

Shapes that other servers take besides are rewritten before (``loose_chat_requests``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from antiphon.api.common.body import DECODE_ERRORS
from antiphon.api.common.call_ids import distinguish_calls
from antiphon.core.items import (
    AudioData,
    FunctionCall,
    FunctionCallOutput,
    ImageDetail,
    InputAudio,
    InputFile,
    InputImage,
    InputText,
    InputVideo,
    Item,
    Message,
    OutputText,
    Part,
    Reasoning,
    Refusal,
    SummaryText,
    text_of,
)
from antiphon.core.provider_fields import (
    MESSAGE_FIELDS,
    REASONING_TEXT_FIELDS,
    ProviderFields,
    ProviderMessageFields,
    select_call_fields,
    select_message_fields,
)
from antiphon.core.urls import is_web_url
from antiphon.errors import InvalidRequestError


class _ImageUrl(msgspec.Struct, frozen=True):
    url: str
    detail: ImageDetail | None = None


class _File(msgspec.Struct, frozen=True):
    filename: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    file_id: str | None = None


class _VideoUrl(msgspec.Struct, frozen=True):
    url: str


class _TextPart(msgspec.Struct, frozen=True, tag="text", tag_field="type"):
    text: str


class _RefusalPart(msgspec.Struct, frozen=True, tag="refusal", tag_field="type"):
    refusal: str


class _ImagePart(msgspec.Struct, frozen=True, tag="image_url", tag_field="type"):
    image_url: _ImageUrl


class _FilePart(msgspec.Struct, frozen=True, tag="file", tag_field="type"):
    file: _File


class _AudioPart(msgspec.Struct, frozen=True, tag="input_audio", tag_field="type"):
    input_audio: AudioData


class _VideoPart(msgspec.Struct, frozen=True, tag="video_url", tag_field="type"):
    video_url: _VideoUrl


_Part = _TextPart | _ImagePart | _RefusalPart | _FilePart | _AudioPart | _VideoPart
_Content = str | list[_Part]
#: What stands beside calls, by the numbers of their message and of them in it.
_CallFields: TypeAlias = dict[tuple[int, int], ProviderFields]


class _CalledFunction(msgspec.Struct, frozen=True):
    name: str
    arguments: str


class _CustomInput(msgspec.Struct, frozen=True):
    name: str
    input: str


class _FunctionCall(msgspec.Struct, frozen=True, tag="function", tag_field="type"):
    id: str
    function: _CalledFunction


class _CustomCall(msgspec.Struct, frozen=True, tag="custom", tag_field="type"):
    id: str
    custom: _CustomInput


class MessageParam(ProviderMessageFields, kw_only=True):
    """``function_call`` and the role ``function`` are what calls and outputs were before tools."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: _Content | msgspec.UnsetType | None = msgspec.UNSET
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[_FunctionCall | _CustomCall] | None = None
    tool_call_id: str | None = None
    function_call: _CalledFunction | None = None
    #: What other libraries' messages have: one with any of them is rewritten.
    images: None = None
    parts: None = None
    blocks: None = None
    text: None = None
    output: None = None
    result: None = None
    camel_calls: None = msgspec.field(default=None, name="toolCalls")
    camel_call_id: None = msgspec.field(default=None, name="toolCallId")


class _CallsMessage(msgspec.Struct, frozen=True):
    tool_calls: Any = None


class _CallsBody(msgspec.Struct, frozen=True):
    messages: list[_CallsMessage]


_calls_body = msgspec.json.Decoder(_CallsBody)


def decode_call_fields(body: bytes, messages: Sequence[MessageParam]) -> _CallFields:
    """What stands beside the calls of a body, which are those of ``messages``."""
    if not any(message.tool_calls for message in messages):
        return {}
    try:
        given = _calls_body.decode(body).messages
    except DECODE_ERRORS:
        return {}
    if len(given) != len(messages):
        return {}
    return {
        (index, number): ProviderFields(fields=fields)
        for index, message in enumerate(given)
        for number, call in enumerate(_list_of(message.tool_calls))
        if isinstance(call, dict) and (fields := select_call_fields(call))
    }


def _list_of(calls: Any) -> list[Any]:
    """Calls as clients send them: a list, with nulls in it perhaps, or one call by itself."""
    return [one for one in calls if one is not None] if isinstance(calls, list) else [calls]


def decode_messages(
    messages: Sequence[MessageParam], call_fields: _CallFields | None = None
) -> tuple[Item, ...]:
    """The items of messages. Raises ``InvalidRequestError`` naming the invalid field."""
    decoder = _MessagesDecoder(call_fields or {})
    items = [
        item for index, message in enumerate(messages) for item in decoder.decode(message, index)
    ]
    return tuple(distinguish_calls(items) if decoder.has_calls else items)


class _MessagesDecoder:
    """Decodes messages one after another: an output without an id is the next open call's."""

    def __init__(self, call_fields: _CallFields) -> None:
        self.has_calls = False
        self._call_fields = call_fields
        #: The calls without an output, by id, and those of custom tools.
        self._open_calls: dict[str, FunctionCall] = {}
        self._custom_call_ids: set[str] = set()

    def decode(self, message: MessageParam, index: int) -> Iterator[Item]:
        path = f"messages[{index}]"
        content = message.content or ""
        match message.role:
            case "tool" | "function":
                call_id = message.tool_call_id or self._find_open_call(message, path)
                self._open_calls.pop(call_id, None)
                is_custom = call_id in self._custom_call_ids
                output = _decode_content("tool", content, path)
                yield FunctionCallOutput(call_id, output, is_custom=is_custom)
            case "assistant":
                yield from self._decode_assistant_message(message, index)
            case role:
                if message.content is msgspec.UNSET:
                    raise InvalidRequestError(
                        "The message has no content.", param=f"{path}.content"
                    )
                yield Message(role, _decode_content(role, content, path), message.name)

    def _decode_assistant_message(self, message: MessageParam, index: int) -> Iterator[Item]:
        calls = list(message.tool_calls or ())
        # Libraries leave nameless stubs behind: no call was made.
        if message.function_call is not None and message.function_call.name and not calls:
            calls.append(_FunctionCall(legacy_call_id(index), message.function_call))
        content = _decode_content("assistant", message.content or "", f"messages[{index}]")
        if message.refusal:
            words = (OutputText(content),) if isinstance(content, str) and content else content
            content = (*(words or ()), Refusal(message.refusal))
        yield from _decode_reasoning(message)
        if content or not calls:
            yield Message("assistant", content, message.name)
        for number, call in enumerate(calls):
            self.has_calls = True
            decoded = _decode_call(call)
            self._open_calls[call.id] = decoded
            if decoded.is_custom:
                self._custom_call_ids.add(call.id)
            fields = self._call_fields.get((index, number))
            yield msgspec.structs.replace(decoded, provider_fields=fields)

    def _find_open_call(self, message: MessageParam, path: str) -> str:
        """The call that an output without an id is for: the first that waits, or that name's."""
        for call_id, call in self._open_calls.items():
            if message.role == "tool" or message.name in (None, call.name):
                return call_id
        field = "tool_call_id" if message.role == "tool" else "name"
        raise InvalidRequestError(
            "The message has to name the call that it is the output of.", param=f"{path}.{field}"
        )


def legacy_call_id(index: int) -> str:
    """The id of the call in a message of this index, of the time when calls had none."""
    return f"call_{index}"


def _decode_call(call: _FunctionCall | _CustomCall) -> FunctionCall:
    if isinstance(call, _CustomCall):
        return FunctionCall(call.id, call.custom.name, call.custom.input, is_custom=True)
    return FunctionCall(call.id, call.function.name, call.function.arguments)


def _decode_reasoning(message: MessageParam) -> Iterator[Reasoning]:
    """What a model thought, and what it wants back: nobody knows which model it was."""
    fields = select_message_fields({name: getattr(message, name) for name in MESSAGE_FIELDS})
    for name in REASONING_TEXT_FIELDS:
        text = getattr(message, name)
        if text and isinstance(text, str):
            yield Reasoning(
                (SummaryText(text),), provider_fields=ProviderFields(None, fields, name)
            )
            return
    if fields:
        yield Reasoning(provider_fields=ProviderFields(None, fields))


def _decode_content(role: str, content: str | list[_Part], path: str) -> str | tuple[Part, ...]:
    if isinstance(content, str):
        return content
    parts = tuple(
        _decode_part(role, part, f"{path}.content[{index}]") for index, part in enumerate(content)
    )
    if all(isinstance(part, InputText | OutputText) for part in parts):
        return text_of(parts)
    return parts


def _decode_part(role: str, part: _Part, path: str) -> Part:
    match part:
        case _TextPart(text=text):
            return OutputText(text) if role == "assistant" else InputText(text)
        case _RefusalPart(refusal=refusal):
            return Refusal(refusal)
        case _ImagePart(image_url=image):
            return InputImage(image.url, image.detail or "auto")
        case _AudioPart(input_audio=audio):
            return InputAudio(audio)
        case _VideoPart(video_url=video):
            return InputVideo(video.url)
        case _FilePart(file=file):
            url = file.file_url
            if url is None and is_web_url(file.file_id or ""):
                url = file.file_id
            if file.file_data is None and url is None:
                raise InvalidRequestError(
                    "A file has to come with its data or a URL: this server keeps no files.",
                    param=f"{path}.file.file_data",
                )
            return InputFile(file.filename, file.file_data, url)
