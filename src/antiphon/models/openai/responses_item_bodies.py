"""Responses item bodies: finds the items in an answer, and brings them into one shape. Pure.

Servers put an item in a list's place, a text in an item's, and calls as chat completions have them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from antiphon.core.custom_tool_input import custom_arguments
from antiphon.models.openai.argument_mending import normalize_arguments
from antiphon.models.openai.lenient_json import decode_lenient, text_of_value
from antiphon.models.openai.responses_item_matching import FUNCTION_CALL, MESSAGE, Json
from antiphon.models.openai.sse import DECODE_ERRORS

_CUSTOM_CALL: Final = "custom_tool_call"
#: What servers call the item of a function's call, besides its name.
_CALL_TYPES: Final = (FUNCTION_CALL, "tool_call", "tool_use")
#: Fields of a message in which it says nothing.
_EMPTY_FIELDS: Final = ("type", "id", "role", "status", "object", "phase", "end_turn")
#: Fields in which it may say something.
_PLACES: Final = ("content", "text", "refusal", "tool_calls", "output_text")


def output_of(response: Json) -> list[Json] | None:
    """A response's items; None: it has none and no place for them."""
    bodies = item_bodies(response.get("output"))
    text = response.get("output_text")
    if not bodies and isinstance(text, str) and text:
        return item_bodies(text)
    return bodies if bodies or isinstance(response.get("output"), list) else None


def item_bodies(given: Any) -> list[Json]:
    """The items in a list, or of one item in its place; a text alone is a message's."""
    bodies: list[Json] = []
    for one in _flattened(given):
        if isinstance(one, str) and one:
            bodies.append({"type": MESSAGE, "content": one})
        elif isinstance(one, dict) and one.get("type") == _CUSTOM_CALL:
            bodies.append(_custom_call(one))
        elif isinstance(one, dict) and one.get("type") in _CALL_TYPES:
            bodies.append(_function_call(one))
        elif isinstance(one, dict) and one.get("type", MESSAGE) == MESSAGE and one:
            bodies += _message_and_calls(one)
        elif isinstance(one, dict) and one:
            bodies.append(one)
    return bodies


def _flattened(given: Any) -> Iterator[Any]:
    """The values in lists within lists, and in JSON within a string."""
    if isinstance(given, str) and given.startswith("[{"):
        given = _items_in_text(given) or given
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


def _function_call(item: Json) -> Json:
    function = item.get("function")
    if isinstance(function, dict) and not item.get("name"):
        item = {**{key: it for key, it in item.items() if key != "function"}, **function}
    fields: Json = {"type": FUNCTION_CALL}
    if "input" in item and "arguments" not in item:
        # As Anthropic's API has it.
        item = {**item, "arguments": item["input"]}
    if isinstance(name := item.get("name"), str):
        fields["name"] = name.strip()
    arguments = item.get("arguments")
    if isinstance(arguments, str) and arguments.startswith('"'):
        fields["arguments"] = normalize_arguments(arguments)
    return {**item, **fields}


def _message_and_calls(item: Json) -> Iterator[Json]:
    """A message; calls in it are items."""
    calls = item.get("tool_calls")
    if not isinstance(calls, list) or not calls:
        yield item
        return
    rest = {name: value for name, value in item.items() if name != "tool_calls"}
    if rest.get("content"):
        yield rest
    for call in calls:
        if isinstance(call, dict):
            head = {"call_id": call.get("call_id", call.get("id"))}
            yield _function_call({**call, **head, "id": None, "type": FUNCTION_CALL})
