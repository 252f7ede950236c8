"""Provider fields: what a model's answer holds besides words and calls, and wants back. Pure.

Reasoning models in a tool loop want the thoughts that led to a call back, under the name by which
they came. Others attach opaque objects, such as signatures, to a message or to a call. Each item
has its part of them, with the model they came from: they are of no use to any other, and many
upstreams refuse fields that they do not know.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec


class ProviderMessageFields(msgspec.Struct):
    """The fields of a message of chat completions that are its provider's own."""

    reasoning_content: Any = None
    reasoning: Any = None
    reasoning_text: Any = None
    thinking: Any = None
    reasoning_details: Any = None
    thinking_blocks: Any = None
    reasoning_opaque: Any = None
    extra_content: Any = None
    thought_signature: Any = None
    provider_specific_fields: Any = None


#: The names under which upstreams send reasoning as text, in the order of preference.
REASONING_TEXT_FIELDS: Final = ("reasoning_content", "reasoning", "reasoning_text", "thinking")
#: The name here of reasoning that came as a part of the content, and goes back as one.
THINKING_PARTS: Final = "thinking_parts"
#: Lists that a stream sends in pieces, and those fields of their entries that are text.
REASONING_LIST_FIELDS: Final = ("reasoning_details", "thinking_blocks")
_ENTRY_TEXT_FIELDS: Final = ("text", "summary", "thinking")
#: Fields of a message, or of a call, that are no reasoning.
EXTRA_FIELDS: Final = ("extra_content", "thought_signature", "provider_specific_fields")
#: All fields of a message, but for text, that its model may want back.
MESSAGE_FIELDS: Final = (*REASONING_LIST_FIELDS, "reasoning_opaque", *EXTRA_FIELDS)
#: Those fields of a message that are reasoning.
REASONING_FIELDS: Final = frozenset({*REASONING_TEXT_FIELDS, *MESSAGE_FIELDS} - {*EXTRA_FIELDS})
#: How deep a field may be nested: deeper ones could not be read back from the store.
_MAX_DEPTH: Final = 400
#: The fields of a call, or of its function, that have a meaning of their own, here or in the
#: Responses API, whose calls some clients send as they are.
_CALL_FIELDS: Final = (
    *("id", "type", "index", "function", "custom"),
    *("call_id", "name", "arguments", "parameters", "args", "input", "status", "namespace"),
)
_FUNCTION_FIELDS: Final = ("index", "name", "arguments", "parameters", "args", "input")


#: How fields begin that a client was given in place of encrypted reasoning.
_SEAL_PREFIX: Final = "antiphon.fields.1:"


class ProviderFields(msgspec.Struct, frozen=True, omit_defaults=True):
    """Fields of an item that only its model understands.

    ``origin`` is that model: its upstream's host and its name there. None: nobody knows, they came
    from a client. ``fields`` of a call are those beside its function; under "function" are those
    within. ``text_field`` is the name under which the text of a reasoning item came.
    """

    origin: str | None = None
    fields: dict[str, Any] = {}
    text_field: str | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(ProviderFields).decode


def join_provider_fields(
    first: ProviderFields | None, second: ProviderFields | None
) -> ProviderFields | None:
    """Those of one item, from two pieces of it in their order."""
    if first is None or second is None or first is second:
        return first or second
    return msgspec.structs.replace(
        first, fields=_join_objects(first.fields, second.fields) if second.fields else first.fields
    )


def select_message_fields(message: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a message that its model may want back, but for text."""
    return _select({name: message.get(name) for name in MESSAGE_FIELDS}, ())


def select_call_fields(call: Mapping[str, Any]) -> dict[str, Any]:
    """The fields beside a call, and within its function, that have no meaning of their own."""
    fields = _select(call, _CALL_FIELDS)
    function = call.get("function")
    inner = _select(function, _FUNCTION_FIELDS) if isinstance(function, Mapping) else {}
    return {**fields, "function": inner} if inner else fields


def add_call_fields(call: dict[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """A call with its fields, as ``select_call_fields`` found them."""
    outer = {name: value for name, value in fields.items() if name != "function"}
    function = {**fields.get("function", {}), **call["function"]}
    return {**outer, **call, "function": function}


def seal_fields(given: ProviderFields) -> str:
    """Fields as one opaque text, for clients that keep a reasoning item and send it back."""
    return _SEAL_PREFIX + base64.b64encode(_encode(given)).decode()


def unseal_fields(text: str) -> ProviderFields | None:
    """The reverse of ``seal_fields``; None: the text is something else."""
    if not text.startswith(_SEAL_PREFIX):
        return None
    try:
        given = _decode(base64.b64decode(text[len(_SEAL_PREFIX) :], validate=True))
    except (binascii.Error, msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    # It was with a client: what it holds now is what a client may send.
    known = (*REASONING_TEXT_FIELDS, THINKING_PARTS)
    field = given.text_field if given.text_field in known else None
    return ProviderFields(given.origin, select_message_fields(given.fields), field)


def text_only(given: ProviderFields | None) -> ProviderFields | None:
    """Those of a text that is told again, without what may be told once."""
    return msgspec.structs.replace(given, fields={}) if given else None


def group_by_origin(
    parts: Iterable[tuple[ProviderFields | None, str]], *, with_text: bool
) -> dict[str | None, dict[str, Any]]:
    """The fields of a message, by origin, from those of its items and their texts.

    ``with_text``: with reasoning that came as text, under its name.
    """
    groups: dict[str | None, dict[str, Any]] = {}
    for given, text in parts:
        if given is None:
            continue
        fields = _join_objects(groups.get(given.origin, {}), given.fields)
        if with_text and text and given.text_field is not None:
            fields[given.text_field] = fields.get(given.text_field, "") + text
        if fields:
            groups[given.origin] = fields
    return groups


def entry_text(entry: Any) -> str:
    """The text in an entry of a list of reasoning, none where it is encrypted."""
    if not isinstance(entry, Mapping):
        return entry if isinstance(entry, str) else ""
    texts = (entry.get(name) for name in _ENTRY_TEXT_FIELDS)
    return next((text for text in texts if text and isinstance(text, str)), "")


def is_nested_deeper(value: object, levels: int) -> bool:
    """Whether JSON has more levels of objects and lists."""
    level = [value]
    for _ in range(levels):
        level = [child for one in level for child in _children(one)]
        if not level:
            return False
    return True


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def _select(fields: Mapping[str, Any], reserved: Sequence[str]) -> dict[str, Any]:
    """Fields with a value, and a name that is not reserved."""
    return {
        name: value
        for name, value in fields.items()
        if name not in reserved
        and value is not None
        and value not in ("", {}, [])
        and not is_nested_deeper(value, _MAX_DEPTH)
    }


def _join_objects(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Two pieces of an object: what comes later counts, but null."""
    joined = dict(first)
    for name, value in second.items():
        old = joined.get(name)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            joined[name] = _join_objects(old, value)
        elif name in REASONING_LIST_FIELDS and isinstance(old, list) and isinstance(value, list):
            joined[name] = _join_lists(old, value)
        elif value is not None or name not in joined:
            joined[name] = value
    return joined


def _join_lists(first: Sequence[Any], second: Iterable[Any]) -> list[Any]:
    """Two pieces of a list: entries of one type and index are pieces of one entry.

    Without an index an entry continues the last one, unless that one is signed, which ends it.
    Entries within ``second`` that have no index are not pieces of each other.
    """
    joined = list(first)
    size = len(joined)
    for entry in second:
        position = _position_of(entry, joined, size)
        if position is None:
            # Some servers repeat an encrypted entry, and refuse to be sent it twice.
            if entry not in joined:
                joined.append(entry)
        else:
            joined[position] = _join_entries(joined[position], entry)
    return joined


def _position_of(entry: Any, joined: Sequence[Any], size: int) -> int | None:
    """The entry that another one continues; ``size``: how many were there before its list."""
    if not isinstance(entry, Mapping) or not _is_text(entry):
        return None
    index = entry.get("index")
    candidates = range(len(joined)) if index is not None else range(max(0, size - 1), size)
    for position in reversed(candidates):
        one = joined[position]
        if (
            isinstance(one, Mapping)
            and _is_text(one)
            and all(one.get(name) == entry.get(name) for name in ("type", "index"))
            and (not one.get("id") or not entry.get("id") or one["id"] == entry["id"])
        ):
            return position if index is not None or not one.get("signature") else None
    return None


def _is_text(entry: Mapping[str, Any]) -> bool:
    return any(name in entry for name in (*_ENTRY_TEXT_FIELDS, "signature")) and "data" not in entry


#: The least length of a text that a longer one repeats on purpose.
_MIN_REPETITION: Final = 4


def joined_text(first: str, second: str) -> str:
    """A text and its next piece; some servers repeat all of the text in each piece."""
    repeats = len(first) >= _MIN_REPETITION and second.startswith(first)
    return second if repeats else first + second


def _join_entries(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    texts = {
        name: joined_text(first[name], second[name])
        for name in _ENTRY_TEXT_FIELDS
        if isinstance(first.get(name), str) and isinstance(second.get(name), str)
    }
    return {**_join_objects(first, second), **texts}
