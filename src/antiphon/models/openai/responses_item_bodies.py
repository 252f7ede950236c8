"""Responses item bodies: finds the items in an answer, and brings them into one shape. Pure.

Servers put an item in a list's place, a text in an item's, and calls as chat completions have them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from antiphon.core.custom_tool_input import custom_arguments
from antiphon.models.openai.argument_mending import is_object, normalize_arguments
from antiphon.models.openai.lenient_json import (
    decode_lenient,
    is_plain_data,
    split_objects,
    text_of_value,
    thoughts_of_value,
)
from antiphon.models.openai.responses_item_matching import FUNCTION_CALL, MESSAGE, REASONING, Json
from antiphon.models.openai.sse import DECODE_ERRORS
from antiphon.models.openai.tool_call_fragments import arguments_text, call_of_part

_encode = msgspec.json.Encoder().encode

_CUSTOM_CALL: Final = "custom_tool_call"
#: What servers call items, in lower case.
_TYPES: Final = {
    **dict.fromkeys(("message", "output_message"), MESSAGE),
    **dict.fromkeys((FUNCTION_CALL, "function", "functioncall"), FUNCTION_CALL),
    **dict.fromkeys(("tool_call", "toolcall", "tool-call", "tool_use"), FUNCTION_CALL),
    **dict.fromkeys(("reasoning", "thinking", "reasoning_content"), REASONING),
    _CUSTOM_CALL: _CUSTOM_CALL,
}
#: Parts of a message that are thoughts, and fields beside its content that hold them.
_THOUGHT_PARTS: Final = ("thinking", "reasoning", "reasoning_text", "reasoning_content")
_THOUGHT_FIELDS: Final = ("reasoning_content", "reasoning", "thinking")
_TEXT_FIELDS: Final = ("text", "thinking", "reasoning", "reasoning_content")
_ARGUMENT_FIELDS: Final = ("arguments", "parameters", "input", "args")
_NAME_FIELDS: Final = ("name", "tool_name", "function_name", "toolName")
#: Where another object may begin behind the first one of a call's arguments.
_BETWEEN_OBJECTS: Final = re.compile(r"}[\s,;]*{")
#: Fields of a message in which it says nothing.
_EMPTY_FIELDS: Final = ("type", "id", "role", "status", "object", "phase", "end_turn")
#: Fields in which it may say something.
_PLACES: Final = ("content", "text", "refusal", "tool_calls", "output_text")


def output_of(response: Json) -> list[Json] | None:
    """A response's items; None: it has none and no place for them."""
    bodies = item_bodies(response.get("output"))
    text, calls = response.get("output_text"), response.get("tool_calls")
    if isinstance(calls, list) and not any(it.get("type") == FUNCTION_CALL for it in bodies):
        bodies += _message_items({"type": MESSAGE, "tool_calls": calls}) if calls else []
    if not bodies and isinstance(text, str) and text:
        return item_bodies(text)
    return bodies if bodies or isinstance(response.get("output"), list) else None


def item_bodies(given: Any) -> list[Json]:
    """The items in a list, or of one item in its place; a text alone is a message's."""
    bodies: list[Json] = []
    for one in _flattened(given):
        if isinstance(one, str) and one:
            bodies.append({"type": MESSAGE, "content": one})
        elif isinstance(one, dict) and one:
            bodies += _bodies_of(one)
    return bodies


def _bodies_of(item: Json) -> Iterable[Json]:
    given = item.get("type", MESSAGE)
    match _TYPES.get(given.lower()) if isinstance(given, str) else None:
        case "message":
            return _message_items(item if given == MESSAGE else {**item, "type": MESSAGE})
        case "function_call":
            return _function_calls(item)
        case "custom_tool_call":
            return [_custom_call(item)]
        case "reasoning":
            return [_reasoning(item)]
    return [item]


def _flattened(given: Any) -> Iterator[Any]:
    """The values in lists within lists, and in JSON within a string."""
    if isinstance(given, str) and given.startswith("[{"):
        given = _items_in_text(given) or given
    if isinstance(given, dict) and given and all(name.isdigit() for name in given):
        given = list(given.values())
    if isinstance(given, list):
        for one in given:
            yield from _flattened(one) if isinstance(one, list) else (one,)
    else:
        yield given


def _items_in_text(text: str) -> list[Json]:
    """The items in a text of JSON; none, if it is words."""
    try:
        value = decode_lenient(text.encode(errors="replace"))
    except DECODE_ERRORS:
        return []
    is_items = isinstance(value, list) and all(
        isinstance(it, dict) and "type" in it for it in value
    )
    return value if is_items else []


def hides_words(output: list[Json]) -> bool:
    """Whether all items are messages with nothing in the known places, and something elsewhere."""
    return bool(output) and all(
        one.get("type", MESSAGE) == MESSAGE
        and not any(name in one for name in _PLACES)
        and any(value for name, value in one.items() if name not in _EMPTY_FIELDS)
        for one in output
    )


def _custom_call(item: Json) -> Json:
    text = text_of_value(item.get("input"))
    # At its beginning a call has no input yet.
    arguments = custom_arguments(text) if text or item.get("status") == "completed" else ""
    return {**item, "type": FUNCTION_CALL, "arguments": arguments}


def _reasoning(item: Json) -> Json:
    """Reasoning whose text has another name than it should have."""
    if not item.get("content") and not item.get("summary"):
        text = next(filter(None, (thoughts_of_value(item.get(it)) for it in _TEXT_FIELDS)), "")
        if text:
            item = {**item, "content": [{"type": "reasoning_text", "text": text}]}
    return item if item["type"] == REASONING else {**item, "type": REASONING}


def _function_calls(item: Json) -> list[Json]:
    """A call; another object of arguments is another call of the same function."""
    function = item.get("function")
    if isinstance(function, dict) and not item.get("name"):
        item = {**{key: it for key, it in item.items() if key != "function"}, **function}
    fields: Json = {"type": FUNCTION_CALL}
    name = next((item[one] for one in _NAME_FIELDS if item.get(one)), None)
    if isinstance(name, list) and len(name) == 1:
        name = name[0]
    if isinstance(name, str):
        fields["name"] = name.strip()
    given = [one for one in _ARGUMENT_FIELDS if item.get(one) is not None]
    arguments = item[given[0]] if given else item.get("arguments")
    if isinstance(arguments, list):
        arguments = arguments_text(arguments)
    if isinstance(arguments, str) and arguments.startswith(('"', "[")):
        arguments = normalize_arguments(arguments)
    if given:
        fields["arguments"] = arguments
    first = {**item, **fields}
    if not (isinstance(arguments, str) and _BETWEEN_OBJECTS.search(arguments)):
        return [first]
    objects = [] if is_object(arguments) else split_objects(arguments.encode(errors="replace"))
    if not objects or not all(is_object(one.decode()) for one in objects):
        return [first]
    others = [{**fields, "arguments": one.decode()} for one in objects[1:]]
    return [{**first, "arguments": objects[0].decode()}, *others]


def _message_items(item: Json) -> Iterator[Json]:
    """A message; thoughts and calls in it are items of their own."""
    inner = item.get("message")
    if isinstance(inner, dict) and "content" not in item:
        item = {**item, **inner, "type": MESSAGE}
    content = item.get("content")
    parts = content if isinstance(content, list) else []
    calls = [call for part in parts if (call := call_of_part(part)) is not None]
    beside = item.get("tool_calls")
    calls += [one for one in beside if isinstance(one, dict)] if isinstance(beside, list) else []
    thoughts = [thoughts_of_value(part) for part in parts if _is_thought(part)]
    thoughts += [thoughts_of_value(item.get(name)) for name in _THOUGHT_FIELDS]
    if text := next(filter(None, thoughts), ""):
        yield {"type": REASONING, "content": [{"type": "reasoning_text", "text": text}]}
    if is_plain_data(content):
        item = {**item, "content": _encode(content).decode()}
    elif calls or text:
        left_out = ("tool_calls", *_THOUGHT_FIELDS)
        item = {name: value for name, value in item.items() if name not in left_out}
        if parts:
            rest = [it for it in parts if call_of_part(it) is None and not _is_thought(it)]
            item["content"] = rest
    if not calls or item.get("content"):
        yield item
    for call in calls:
        head = {"call_id": call.get("call_id", call.get("id"))}
        yield from _function_calls({**call, **head, "id": None, "type": FUNCTION_CALL})


def _is_thought(part: Any) -> bool:
    return isinstance(part, dict) and (
        part.get("type") in _THOUGHT_PARTS or part.get("thought") is True
    )
