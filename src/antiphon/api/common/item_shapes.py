"""Item shapes: brings input items of other shapes into the Responses API's. Pure.

Clients send items as they received them, or as another API has them: with nulls, with messages
and parts of chat completions, with arguments and outputs that are not text. What has one meaning
is taken; anything else is left as it is, for the decoder to refuse by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, Final, TypeAlias

import msgspec

from antiphon.api.common.body import drop_nulls
from antiphon.api.common.foreign_messages import (
    ROLE_TYPES,
    arguments_of,
    has_foreign_shape,
    normalize_foreign_message,
    output_of,
    unwrap_message,
)

Fields: TypeAlias = dict[str, Any]

#: What other servers and libraries call the roles.
ROLE_NAMES = {
    **dict.fromkeys(("ai", "model", "bot", "chatbot"), "assistant"),
    "human": "user",
    "tool_result": "tool",
}
#: The roles of messages that come as pairs.
_PAIRED_ROLES: Final = frozenset(("system", "developer", "user", "assistant", *ROLE_NAMES))
_OUTPUT_ROLES = ("tool", "function")
_CALL_TYPES = {"function_call": "arguments", "custom_tool_call": "input"}
_OUTPUT_TYPES = ("function_call_output", "custom_tool_call_output")
#: The parts that an output may have. A list of anything else is a tool's value.
_OUTPUT_PARTS = (
    *("input_text", "output_text", "text", "refusal", "input_image", "image_url"),
    *("input_file", "file", "input_audio", "input_video", "video_url"),
)
#: Those of them that clients send as items.
_LONE_PARTS: Final = ("input_text", "text", "input_image", "image_url", "input_file", "file")
#: Parts of a message that are calls, outputs or thoughts, in other APIs.
FOREIGN_PARTS: Final = ("tool_use", "tool_result", "thinking", "redacted_thinking", "reasoning")
#: What clients call the types of items besides.
_TYPE_NAMES: Final = {"Message": "message", "compaction_summary": "compaction"}
#: Fields that say what a part without a type is.
_UNTYPED_PARTS: Final = ("text", "image_url", "file", "video_url")
_TEXT_FIELDS: Final = {"text", "content"}
#: Statuses by what they mean here; of any other an input says nothing.
_STATUSES = {"completed": "completed", "incomplete": "incomplete", "failed": "incomplete"}

_encode = msgspec.json.Encoder().encode


def join_lone_parts(given: Sequence[Fields | str]) -> Iterable[Fields | str]:
    """Items; parts of a message that came without it, one after another, are a user's message."""
    return _joined_parts(given) if any(map(_is_lone_part, given)) else given


def _joined_parts(given: Sequence[Fields | str]) -> Iterator[Fields | str]:
    for is_part, items in groupby(given, _is_lone_part):
        if is_part:
            yield {"type": "message", "role": "user", "content": list(items)}
        else:
            yield from items


def _is_lone_part(item: Fields | str) -> bool:
    return isinstance(item, dict) and item.get("type") in _LONE_PARTS and "role" not in item


def normalize_item(given: Fields | str) -> Iterator[Fields]:
    """An item in its shape: a message of chat completions that calls tools is several items."""
    if isinstance(given, str):
        yield {"type": "message", "role": "user", "content": given}
        return
    given = unwrap_message(given)
    clean = drop_nulls(given)
    if "type" not in clean:
        named = "id" in clean and "role" not in clean and "content" not in clean
        clean["type"] = "item_reference" if named else "message"
    kind = clean["type"]
    if isinstance(kind, str):
        if kind in ROLE_TYPES and "role" not in clean:
            clean["role"], kind = ROLE_TYPES[kind], "message"
        clean["type"] = kind = _TYPE_NAMES.get(kind, kind)
    if not isinstance(kind, str):
        pass
    elif kind == "message":
        _normalize_status(clean)
        yield from _normalize_message(clean, given)
        return
    elif kind in _CALL_TYPES:
        _normalize_status(clean)
        _normalize_call(clean, _CALL_TYPES[kind])
    elif kind in _OUTPUT_TYPES:
        _normalize_status(clean)
        clean["output"] = _normalize_output(output_of(clean))
        clean["call_id"] = _as_id(clean.get("call_id", output_call_id(clean)))
        clean = drop_nulls(clean)
    elif kind == "reasoning":
        _normalize_status(clean)
        _normalize_reasoning(clean)
    elif kind == "mcp_call":
        if isinstance(clean.get("arguments"), dict | list):
            clean["arguments"] = _encode(clean["arguments"]).decode()
    elif not kind.startswith("mcp_"):
        # Of what others made nobody here knows what a null means.
        clean = {**given, "type": kind}
    yield clean


def _normalize_status(clean: Fields) -> None:
    given = clean.pop("status", None)
    if isinstance(given, str) and given in _STATUSES:
        clean["status"] = _STATUSES[given]


def _normalize_message(clean: Fields, given: Fields) -> Iterator[Fields]:
    if has_foreign_shape(clean):
        clean = drop_nulls(normalize_foreign_message(clean))
        given = clean if "content" in clean else given
    role = clean.get("role")
    if isinstance(role, str):
        role = role.strip().lower()
        clean["role"] = role = ROLE_NAMES.get(role, role)
    if has_foreign_parts(clean.get("content")):
        yield from _split_message(clean)
        return
    if role in _OUTPUT_ROLES:
        yield _output_of(clean)
        return
    calls = list(_calls_of(clean)) if role == "assistant" else []
    if "content" in given or calls or role == "assistant":
        # An assistant that only calls tools says nothing, and null is nothing.
        clean["content"] = _normalize_content(clean.get("content", ""), role)
    refusal = clean.pop("refusal", None)
    if isinstance(refusal, str) and refusal and not clean.get("content"):
        clean["content"] = [{"type": "refusal", "refusal": refusal}]
    if clean.get("content") or not calls:
        yield clean
    yield from calls


def has_foreign_parts(content: Any) -> bool:
    """Whether calls, outputs or thoughts are parts of a content, as other APIs have them."""
    return isinstance(content, list) and any(
        isinstance(part, dict) and part.get("type") in FOREIGN_PARTS for part in content
    )


def thoughts_of(part: Fields) -> str:
    """The text of a part with thoughts."""
    given = part.get("thinking") or part.get("summary") or part.get("text") or ""
    texts = given if isinstance(given, list) else [given]
    return "".join(one.get("text") or "" if isinstance(one, dict) else str(one) for one in texts)


def _split_message(message: Fields) -> Iterator[Fields]:
    """A message with foreign parts as items, in their order."""
    parts: list[Any] = []
    for part in (*message["content"], None):
        kind = part.get("type") if isinstance(part, dict) else None
        if part is not None and kind not in FOREIGN_PARTS:
            parts.append(part)
            continue
        if parts:
            yield {**message, "content": _normalize_content(parts, message.get("role"))}
            parts = []
        if kind == "tool_use":
            yield from normalize_item(
                {**part, "type": "function_call", "arguments": part.get("input")}
            )
        elif kind == "tool_result":
            head = {"type": "function_call_output", "call_id": part.get("tool_use_id")}
            yield {**head, "output": _normalize_output(part.get("content"))}
        elif part is not None and (text := thoughts_of(part)):
            yield {"type": "reasoning", "summary": [{"type": "summary_text", "text": text}]}


def _output_of(message: Fields) -> Fields:
    """A tool's message. The legacy role ``function`` names its function instead of its call."""
    call_id = _as_id(output_call_id(message))
    if call_id is None and message["role"] == "function" and message.get("name"):
        call_id = _legacy_call_id(message["name"])
    given = message.get("content", output_of(message))
    output = {"type": "function_call_output", "output": _normalize_output(given)}
    if call_id is None:
        # It is found by its name.
        return drop_nulls({**output, "name": message.get("name")})
    return {**output, "call_id": call_id}


def _calls_of(message: Fields) -> Iterator[Fields]:
    calls = calls_of_message(message)
    message.pop("tool_calls", None)
    for call in calls if isinstance(calls, list) else ():
        if isinstance(call, dict):
            yield _call_of(call)
    legacy = message.pop("function_call", None)
    if isinstance(legacy, dict) and legacy.get("name"):
        yield _call_of({"id": _legacy_call_id(legacy["name"]), "function": legacy})


def _call_of(call: Fields) -> Fields:
    kind = "custom" if isinstance(call.get("custom"), dict) else "function"
    called = call.get(kind, call if "name" in call else None)
    if kind == "function" and isinstance(called, dict):
        called = {"name": called.get("name"), "arguments": arguments_of(called)}
    item = {
        "type": "custom_tool_call" if kind == "custom" else "function_call",
        "call_id": call.get("id"),
        **(drop_nulls(called) if isinstance(called, dict) else {}),
    }
    item = drop_nulls(item)
    _normalize_call(item, _CALL_TYPES[item["type"]])
    return item


def calls_of_message(message: Fields) -> Any:
    """A message's calls, by either spelling."""
    calls = message.get("tool_calls")
    return message.get("toolCalls") if calls is None else calls


def output_call_id(message: Fields) -> Any:
    """The id of the call that an output is for, by any spelling; None: it has none."""
    for name in ("tool_call_id", "toolCallId", "call_id"):
        if message.get(name):
            return message[name]
    return None


def _as_id(value: Any) -> Any:
    """An id; a number is one as a text."""
    return str(value) if type(value) is int else value


def _legacy_call_id(name: Any) -> str:
    return f"call_{name}"


def _normalize_call(clean: Fields, text_field: str) -> None:
    function = clean.pop("function", None)
    if isinstance(function, dict):
        clean |= {name: it for name, it in drop_nulls(function).items() if name not in clean}
    call_id = clean.get("call_id", clean.get("id"))
    if call_id is not None:
        clean["call_id"] = _as_id(call_id)
    text = clean.get(text_field)
    if text is None:
        clean[text_field] = "{}" if text_field == "arguments" else ""
    elif not isinstance(text, str):
        clean[text_field] = _encode(text).decode()


def _normalize_output(output: Any) -> Any:
    """A tool's output: text or parts. A value of any other kind is its JSON."""
    if output is None:
        return ""
    if isinstance(output, str):
        return output
    parts = [output] if isinstance(output, dict) else output
    if isinstance(parts, list) and all(map(_is_output_part, parts)):
        return _normalize_content(parts, "tool")
    return _encode(output).decode()


def _is_output_part(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in _OUTPUT_PARTS


def _normalize_content(content: Any, role: Any) -> Any:
    if content is None:
        return ""
    if isinstance(content, bool | int | float):
        return _encode(content).decode()
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        return content
    flat = [part for one in content for part in (one if isinstance(one, list) else [one])]
    return [_normalize_part(part, role) for part in flat if part is not None]


def _normalize_part(part: Any, role: Any) -> Any:
    text_type = "output_text" if role == "assistant" else "input_text"
    if isinstance(part, str):
        return {"type": text_type, "text": part}
    return _normalize_part_fields(drop_nulls(part), text_type) if isinstance(part, dict) else part


def _normalize_part_fields(clean: Fields, text_type: str) -> Fields:
    kind = clean.get("type") or untyped_part_kind(clean)
    if isinstance(kind, str):
        clean["type"] = kind = kind.strip().lower()
    if kind == "text" or (kind in ("input_text", "output_text") and clean.keys() & _TEXT_FIELDS):
        is_plain = kind == "text" or (kind == "input_text" and text_type != kind)
        return {**({"type": text_type} if is_plain else clean), "text": _text_of(clean)}
    if kind == "image":
        url = image_source_url(clean) or clean.get("image")
        clean = {} if url is None else {"image_url": url}
    if kind in ("image", "image_url", "input_image"):
        return _normalize_image(clean)
    if kind == "file" and isinstance(clean.get("file"), dict):
        return {"type": "input_file", **drop_nulls(clean["file"])}
    if kind == "video_url" and isinstance(clean.get("video_url"), dict):
        return {"type": "input_video", "video_url": clean["video_url"].get("url")}
    return clean


def untyped_part_kind(part: Fields) -> str | None:
    """What a part without a type is, by its field; None: it has none of those."""
    return next((name for name in _UNTYPED_PARTS if part.get(name) is not None), None)


def _text_of(part: Fields) -> Any:
    text = part.get("text", part.get("content", ""))
    if isinstance(text, dict) and isinstance(text.get("value"), str):
        # As OpenAI's Assistants have it.
        return text["value"]
    return _encode(text).decode() if isinstance(text, bool | int | float) else text


def image_source_url(part: Fields) -> str | None:
    """The URL of a picture that another API has as its ``source``; None: it has none."""
    source = part.get("source")
    if not isinstance(source, dict):
        return None
    if isinstance(source.get("data"), str):
        return f"data:{source.get('media_type') or 'image/png'};base64,{source['data']}"
    return source["url"] if isinstance(source.get("url"), str) else None


def _normalize_image(part: Fields) -> Fields:
    image = part.get("image_url")
    fields = drop_nulls(image) if isinstance(image, dict) else {}
    if isinstance(image, dict):
        part = {**part, "image_url": fields.get("url", ""), "detail": fields.get("detail", "")}
    if isinstance(part.get("detail"), str):
        part = {**part, "detail": part["detail"].strip().lower()}
    if not part.get("detail", ""):
        part = {name: value for name, value in part.items() if name != "detail"}
    return {**part, "type": "input_image"}


def _normalize_reasoning(clean: Fields) -> None:
    """Reasoning and its summary are lists of parts; raw reasoning has three names in the wild."""
    for field, kind in (("summary", "summary_text"), ("content", "reasoning_text")):
        parts = clean.get(field)
        if isinstance(parts, str | dict):
            parts = [parts] if parts else []
        if isinstance(parts, list):
            thoughts = [_normalize_thought(part, kind) for part in parts]
            # What is encrypted or left out says nothing.
            clean[field] = [one for one in thoughts if not isinstance(one, dict) or "text" in one]


def _normalize_thought(part: Any, kind: str) -> Any:
    if isinstance(part, str):
        return {"type": kind, "text": part}
    if isinstance(part, dict) and part.get("type", "text") in ("output_text", "text"):
        return {**part, "type": kind}
    return part


def is_list_of_messages(value: Any) -> bool:
    """Whether a value is a list of objects with roles, and not words that look like one."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(one, dict) and "role" in one for one in value)
    )


def flatten_messages(given: list[Any]) -> Iterator[Any]:
    """The messages of a list: pairs of a role and words, as LangChain has them, as messages, and
    those of lists within it, which are batches.
    """
    for one in given:
        match one:
            case [str(role), content] if role.strip().lower() in _PAIRED_ROLES:
                yield {"role": role, "content": content}
            case list():
                yield from flatten_messages(one)
            case _:
                yield one
