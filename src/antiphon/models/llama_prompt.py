"""From a call's messages and options to what llama.cpp's chat handler is asked.

Templates of small models know three roles and plain text. Everything else that a
history can hold is put in these words, and two messages in a row by one speaker become
one, because many templates insist that speakers take turns.
"""

from __future__ import annotations

from typing import Any

import msgspec

from antiphon.core.turns import Options
from antiphon.errors import ContextLengthExceeded, ImageInputUnsupported, InvalidRequest
from antiphon.models.markup import Markup

#: No text has so many characters per token; what is longer is refused without counting.
_CHARACTERS_PER_TOKEN = 16
_MOST_TOKENS = 2**31 - 1
#: This one means "random" to llama.cpp.
_RANDOM_SEED = 2**32 - 1

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "user",
    "function": "user",
}


class _Part(msgspec.Struct):
    type: str
    text: str = ""
    refusal: str = ""


class _Function(msgspec.Struct):
    name: str
    arguments: str = ""


class _ToolCall(msgspec.Struct):
    function: _Function | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None
    tool_calls: list[_ToolCall] | None = None


class _Line(msgspec.Struct):
    role: str
    content: str


class _StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool = True


class _Body(msgspec.Struct):
    messages: list[_Line]
    stream: bool = True
    stream_options: _StreamOptions = _StreamOptions()
    # Without progress there is no callback during prefill, and so no way to stop it.
    return_progress: bool = True
    temperature: float | msgspec.UnsetType = msgspec.UNSET
    top_p: float | msgspec.UnsetType = msgspec.UNSET
    max_tokens: int | msgspec.UnsetType = msgspec.UNSET
    frequency_penalty: float | msgspec.UnsetType = msgspec.UNSET
    presence_penalty: float | msgspec.UnsetType = msgspec.UNSET
    seed: int | msgspec.UnsetType = msgspec.UNSET
    stop: list[str] | msgspec.UnsetType = msgspec.UNSET
    response_format: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


_messages = msgspec.json.Decoder(list[_Message])
_encoder = msgspec.json.Encoder()


def chat_body(messages: bytes, options: Options, *, markup: Markup, window: int) -> bytes:
    """The JSON body for ``handle_chat_completions``; ``window`` is in tokens.

    Raises ``InvalidRequest`` and its children: unreadable messages, images, and texts that
    can never fit the window.
    """
    lines = _lines(messages)
    if sum(len(line.content) for line in lines) > window * _CHARACTERS_PER_TOKEN:
        raise ContextLengthExceeded(
            f"The conversation is far longer than the {window} tokens that this model can see.",
            limit=window,
        )
    for line in lines:
        line.content = markup.defuse(line.content)
    return _encoder.encode(_with_options(_Body(lines), options))


def _lines(messages: bytes) -> list[_Line]:
    try:
        decoded = _messages.decode(messages)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"The messages cannot be read: {error}.", param="input") from error
    lines: list[_Line] = []
    for message in decoded:
        role = _ROLES.get(message.role)
        if role is None:
            raise InvalidRequest(f"There is no role '{message.role}'.", param="input")
        text = _text(message)
        if not text and role == "assistant":
            continue
        if lines and lines[-1].role == role and role != "system":
            lines[-1].content += "\n\n" + text
        else:
            lines.append(_Line(role, text))
    return lines


def _text(message: _Message) -> str:
    content = message.content or ""
    if not isinstance(content, str):
        content = "".join(_part_text(part) for part in content)
    if message.role in ("tool", "function"):
        return f"[Result of the tool: {content}]"
    calls = [
        f"[Called the tool {call.function.name} with {call.function.arguments}]"
        for call in message.tool_calls or ()
        if call.function
    ]
    return "\n".join([content, *calls] if content else calls)


def _part_text(part: _Part) -> str:
    if part.type in ("image_url", "input_image", "image"):
        raise ImageInputUnsupported("This model reads text only, no images.", param="input")
    return part.text or part.refusal


def _with_options(body: _Body, options: Options) -> _Body:
    if options.temperature is not None:
        body.temperature = max(options.temperature, 0.0)
    if options.top_p is not None:
        body.top_p = min(max(options.top_p, 0.0), 1.0)
    if options.max_output_tokens is not None:
        body.max_tokens = min(max(options.max_output_tokens, 1), _MOST_TOKENS)
    if options.frequency_penalty is not None:
        body.frequency_penalty = options.frequency_penalty
    if options.presence_penalty is not None:
        body.presence_penalty = options.presence_penalty
    if options.seed is not None:
        body.seed = options.seed % _RANDOM_SEED
    if stop := [text for text in options.stop if text]:
        body.stop = stop
    if options.text_format is not None:
        body.response_format = _response_format(options.text_format)
    return body


def _response_format(text_format: dict[str, Any]) -> dict[str, Any]:
    match text_format:
        case {"type": "text" | "json_object" as kind}:
            return {"type": kind}
        case {"type": "json_schema", "schema": dict(schema)}:
            return {"type": "json_schema", "json_schema": {"schema": schema}}
    raise InvalidRequest(
        "The text format must be text, json_object, or json_schema with a schema.",
        param="text.format",
    )
