"""Loose chat requests: rewrites shapes with one meaning into those of the API. Pure.

For bodies that are not in the API's own shape, so nothing here is on the path of the others.
What has no one meaning is left as it is, for the decoder to name it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from antiphon.api.common.body import DECODE_ERRORS
from antiphon.api.common.foreign_messages import (
    CONTENT_FIELDS,
    arguments_of,
    has_foreign_shape,
    normalize_foreign_message,
    output_of,
)
from antiphon.api.common.foreign_tools import tools_of_object
from antiphon.api.common.item_shapes import (
    FOREIGN_PARTS,
    ROLE_NAMES,
    calls_of_message,
    flatten_messages,
    has_foreign_parts,
    image_source_url,
    is_list_of_messages,
    output_call_id,
    thoughts_of,
    untyped_part_kind,
)
from antiphon.api.common.loose_values import decode_json_text

_FORMATS: Final = frozenset({"text", "json_object"})
_FORMAT_NAMES: Final = {"json": "json_object"}


def normalize_chat_request(body: dict[str, Any]) -> dict[str, Any]:
    """A body of ``POST /v1/chat/completions`` in the API's own shape, as far as it has one."""
    body = dict(body)
    if body.get("messages") is None and body.get("prompt") and body.get("input") is None:
        # What completions called them.
        body["messages"] = body["prompt"]
    for name, normalize in _FIELDS.items():
        if body.get(name) is not None:
            body[name] = normalize(body[name])
    return body


def _normalize_messages(messages: Any) -> Any:
    if isinstance(messages, str):
        decoded = decode_json_text(messages.strip())
        if not is_list_of_messages(decoded):
            return [{"role": "user", "content": messages}]
        messages = decoded
    if isinstance(messages, dict):
        messages = [messages]
    if not isinstance(messages, list):
        return messages
    normalized: list[Any] = []
    for index, one in enumerate(flatten_messages(messages)):
        if isinstance(one, dict):
            message = normalize_foreign_message(one) if has_foreign_shape(one) else one
            normalized += [_normalize_message(it, index) for it in _split_parts(message)]
        elif one is not None:
            normalized.append({"role": "user", "content": one} if isinstance(one, str) else one)
    return normalized


def _split_parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    """A message; calls, outputs and thoughts that are parts of it stand where this API has them."""
    content = message.get("content")
    if not has_foreign_parts(content):
        return [message]
    parts, calls, outputs, thoughts = [], [], [], ""
    for part in content or ():
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "tool_use":
            calls.append(
                {"id": part.get("id"), "function": {**part, "arguments": part.get("input")}}
            )
        elif kind == "tool_result":
            output = {"role": "tool", "tool_call_id": part.get("tool_use_id")}
            outputs.append({**output, "content": part.get("content")})
        elif kind in FOREIGN_PARTS:
            thoughts += thoughts_of(part)
        else:
            parts.append(part)
    rest = {**message, "content": parts or None}
    if calls:
        rest["tool_calls"] = [*(message.get("tool_calls") or ()), *calls]
    if thoughts:
        rest.setdefault("reasoning_content", thoughts)
    return [*outputs, rest] if parts or calls or not outputs else outputs


def _normalize_message(message: dict[str, Any], index: int) -> dict[str, Any]:
    message = _item_as_message(message)
    role = message.get("role")
    if isinstance(role, str):
        role = role.strip().lower()
        message["role"] = role = ROLE_NAMES.get(role, role)
    if role in ("tool", "function") and message.get("content") is None:
        message["content"] = output_of(message)
    message |= {"output": None, "result": None, **_repeated_words(message)}
    if "content" in message:
        message["content"] = _normalize_content(message["content"], role)
    calls, call_id = calls_of_message(message), output_call_id(message)
    message["name"] = as_text(message.get("name"))
    message |= {"tool_call_id": as_text(call_id), "toolCalls": None, "toolCallId": None}
    if not isinstance(message.get("refusal"), str):
        message["refusal"] = None
    message["tool_calls"] = _normalize_calls(calls, index)
    message["function_call"] = _normalize_legacy_call(message.get("function_call"))
    return message


def _repeated_words(message: dict[str, Any]) -> dict[str, None]:
    """What says the content once more, as the AI SDK has it in ``parts``, without its words."""
    words = words_of(message.get("content"))
    names = [name for name in CONTENT_FIELDS if message.get(name) is not None]
    return {name: None for name in names if words_of(message[name]) in ("", words)}


def words_of(value: Any) -> str:
    """The text of a text, a part, a list of them, or a message with one of these."""
    match value:
        case str():
            return value
        case list() as parts:
            return "".join(map(words_of, parts))
        case {"text": str(text)}:
            return text
        case {"content": content}:
            return words_of(content)
    return ""


def _item_as_message(message: dict[str, Any]) -> dict[str, Any]:
    """A call or an output of the Responses API among the messages, as a message."""
    if message.get("role") is None and message.get("type") == "function_call":
        return {"role": "assistant", "content": None, "tool_calls": [message]}
    if message.get("role") is None and message.get("type") == "function_call_output":
        call_id, output = message.get("call_id"), message.get("output")
        return {"role": "tool", "tool_call_id": call_id, "content": output}
    return dict(message)


def _normalize_content(content: Any, role: Any) -> Any:
    if content is None or isinstance(content, str):
        return content
    if role in ("tool", "function") and not _has_parts(content):
        # An output that is not a text is its JSON.
        return _encode(content)
    if isinstance(content, bool | int | float):
        return _encode(content)
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        return content
    flat = [part for one in content for part in (one if isinstance(one, list) else [one])]
    return [_normalize_part(part) for part in flat if part is not None]


def _has_parts(content: Any) -> bool:
    parts = content if isinstance(content, list) else [content]
    return all(isinstance(part, dict) and _part_kind(part) in _PART_TYPES for part in parts)


def _normalize_part(part: Any) -> Any:
    if isinstance(part, str):
        part = {"type": "text", "text": part}
    kind = _part_kind(part) if isinstance(part, dict) else None
    if kind not in _PART_TYPES:
        return part
    name, normalize = _PART_TYPES[kind]
    return {"type": name, name: normalize(part)}


def _part_kind(part: dict[str, Any]) -> str | None:
    kind = part.get("type")
    if kind is None:
        kind = untyped_part_kind(part)
    return kind.strip().lower() if isinstance(kind, str) else None


def _normalize_text(part: dict[str, Any]) -> Any:
    text = part.get("text", part.get("content"))
    if isinstance(text, dict) and isinstance(text.get("value"), str):
        return text["value"]
    return "" if text is None and "text" in part else as_text(text)


def _url_fields(part: dict[str, Any], name: str) -> Any:
    inner = part.get(name)
    return {"url": inner} if isinstance(inner, str) else inner


def _normalize_image(part: dict[str, Any]) -> Any:
    image = _url_fields(part, "image_url") or _url_fields(part, "image")
    if image is None and (url := image_source_url(part)) is not None:
        image = {"url": url}
    if not isinstance(image, dict):
        return image
    detail = image.get("detail", part.get("detail"))
    if isinstance(detail, str):
        detail = detail.strip().lower() or None
    return {**image, "detail": detail}


def _normalize_file(part: dict[str, Any]) -> Any:
    return part.get("file", part)


def _normalize_video(part: dict[str, Any]) -> Any:
    return _url_fields(part, "video_url")


def _normalize_audio(part: dict[str, Any]) -> Any:
    """A recording; its ``data:`` URL says the format where nothing else does."""
    audio = part.get("input_audio", _url_fields(part, "audio_url") or part)
    if not isinstance(audio, dict):
        return audio
    url = audio.get("data", audio.get("url"))
    if not isinstance(url, str) or not url.startswith("data:"):
        return audio
    head, _, data = url.partition(",")
    kind = head.removeprefix("data:").partition(";")[0].partition("/")[2].removeprefix("x-")
    return {"data": data, "format": audio.get("format") or kind}


#: By the type of a part: its type and field in this API, and what makes the field.
_PART_TYPES: Final[dict[str | None, tuple[str, Callable[[dict[str, Any]], Any]]]] = {
    **dict.fromkeys(("text", "input_text", "output_text"), ("text", _normalize_text)),
    **dict.fromkeys(("image_url", "input_image", "image"), ("image_url", _normalize_image)),
    **dict.fromkeys(("file", "input_file"), ("file", _normalize_file)),
    **dict.fromkeys(("input_audio", "audio_url"), ("input_audio", _normalize_audio)),
    **dict.fromkeys(("video_url", "input_video"), ("video_url", _normalize_video)),
    "refusal": ("refusal", lambda part: part.get("refusal")),
}


def _normalize_calls(calls: Any, index: int) -> Any:
    if isinstance(calls, dict):
        calls = [calls] if calls else None
    if not isinstance(calls, list):
        return calls or None
    return [
        _normalize_call(one, f"call_{index}_{number}") if isinstance(one, dict) else one
        for number, one in enumerate(one for one in calls if one is not None)
    ]


def _normalize_call(call: dict[str, Any], default_id: str) -> dict[str, Any]:
    call_id = as_text(call.get("id") or call.get("call_id")) or default_id
    function = call.get("function", call if "name" in call else None)
    if isinstance(function, dict):
        function = {**function, "arguments": _as_arguments(arguments_of(function))}
    if isinstance(call.get("custom"), dict):
        return {**call, "id": call_id, "type": "custom", "function": None}
    kind = "function" if function is not None else call.get("type") or "function"
    return {**call, "id": call_id, "type": kind, "function": function}


def _normalize_legacy_call(call: Any) -> Any:
    if not isinstance(call, dict) or not call.get("name"):
        return None
    return {**call, "arguments": _as_arguments(call.get("arguments"))}


def _as_arguments(arguments: Any) -> Any:
    """A call's arguments as the text of their JSON."""
    if isinstance(arguments, str):
        return arguments
    return "{}" if arguments is None else _encode(arguments)


def _normalize_tools(tools: Any) -> Any:
    if isinstance(tools, dict):
        tools = tools_of_object(tools)
    if not isinstance(tools, list):
        return tools
    return [one for one in tools if one is not None]


def normalize_format(given: Any) -> Any:
    """The format of an answer, as chat completions have it."""
    if isinstance(given, dict) and isinstance(given.get("type"), str):
        kind = given["type"].strip().lower()
        given = {**given, "type": _FORMAT_NAMES.get(kind, kind)}
    if isinstance(given, str) and (kind := _FORMAT_NAMES.get(given, given)) in _FORMATS:
        return {"type": kind}
    if not isinstance(given, dict):
        return given
    if not given:
        return None
    if isinstance(given.get("properties"), dict) and given.get("type") in (None, "object"):
        # The schema by itself.
        return {"type": "json_schema", "json_schema": {"name": "response", "schema": given}}
    if given.get("type") != "json_schema":
        return given
    inner = given.get("json_schema")
    if inner is None and isinstance(given.get("schema"), dict):
        inner = {name: value for name, value in given.items() if name != "type"}
    if isinstance(inner, dict):
        inner = {**inner, "name": inner.get("name") or "response"}
        inner["schema"] = decoded_object(inner.get("schema"))
    return {"type": "json_schema", "json_schema": inner}


def decoded_object(value: Any) -> Any:
    """An object that came as the text of its JSON; anything else as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith("{"):
        return value
    try:
        return msgspec.json.decode(value)
    except DECODE_ERRORS:
        return value


def _normalize_stop(stop: Any) -> Any:
    if isinstance(stop, list):
        return [one for one in stop if one is not None and one != ""]
    return stop


def _normalize_limit(limit: Any) -> Any:
    """-1 is no limit, to servers whose own default that is."""
    return None if limit in (-1, "-1", "") else limit


def normalize_metadata(metadata: Any) -> Any:
    """Metadata whose values are texts."""
    if not isinstance(metadata, dict):
        return metadata
    return {
        name: value if isinstance(value, str) else _encode(value)
        for name, value in metadata.items()
        if value is not None
    }


def with_normal_metadata(fields: dict[str, Any]) -> dict[str, Any]:
    """A body whose metadata, if it has any, are texts."""
    if "metadata" not in fields:
        return fields
    return {**fields, "metadata": normalize_metadata(fields["metadata"])}


def _normalize_logprobs(logprobs: Any) -> Any:
    """A number, as completions had it, is how many tokens to show."""
    return bool(logprobs) if isinstance(logprobs, int) else logprobs


def as_text(value: Any) -> Any:
    """A number as a text; anything else as it is."""
    return str(value) if isinstance(value, int | float) and type(value) is not bool else value


def identifier_of(value: Any) -> Any:
    """What names somebody: a number as a text, of an object its id, or all of it."""
    if not isinstance(value, dict):
        return as_text(value)
    return as_text(value.get("id")) or (_encode(value) if value else value)


def _encode(value: Any) -> str:
    return msgspec.json.encode(value).decode()


_FIELDS: Final[dict[str, Callable[[Any], Any]]] = {
    "messages": _normalize_messages,
    "tools": _normalize_tools,
    "functions": _normalize_tools,
    "response_format": normalize_format,
    "stop": _normalize_stop,
    "max_tokens": _normalize_limit,
    "max_completion_tokens": _normalize_limit,
    "metadata": normalize_metadata,
    "logprobs": _normalize_logprobs,
    "user": identifier_of,
}
