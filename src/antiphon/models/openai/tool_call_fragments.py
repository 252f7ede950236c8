"""Tool call fragments: reads the entries of an answer's ``tool_calls``, in any shape. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from antiphon.core.custom_tool_input import escape_input
from antiphon.core.provider_fields import ProviderFields
from antiphon.models.openai.lenient_json import (
    count_of_value,
    name_of_value,
)
from antiphon.models.openai.sse import DECODE_ERRORS

#: Arguments that hold none, without white space.
NO_ARGUMENTS: Final = frozenset(("", "{}", "null", "[]", '""', "None", "undefined"))
LONGEST_BLANK: Final = 64
#: What servers call the arguments.
_ARGUMENT_FIELDS: Final = ("arguments", "parameters", "input", "args")
#: What they call the function of an entry.
_FUNCTION_FIELDS: Final = ("function", "function_call", "functionCall", "tool", "tool_call")
#: What they call the name, and the id.
_NAME_FIELDS: Final = ("name", "tool_name", "function_name", "toolName")
_ID_FIELDS: Final = ("id", "call_id", "tool_call_id", "toolCallId")
_NO_NAMES: Final = ("null", "None", "undefined")
#: Calls among the parts of a content: by their types, or within a field of this name.
_CALL_PARTS: Final = ("tool_use", "tool_call", "function_call", "tool-call", "toolCall")
_CALL_PART_FIELDS: Final = ("functionCall", "toolUse", "function_call", "tool_use", "tool_call")


class ToolCallFragment(msgspec.Struct, frozen=True, gc=False):
    """One entry of ``tool_calls``, with its marks where it has them.

    ``is_custom``: ``arguments`` are a piece of a custom tool's text, as it stands in JSON.
    """

    index: int | None
    id: str
    name: str
    arguments: str
    provider_fields: ProviderFields | None = None
    is_custom: bool = False

    @property
    def is_stub(self) -> bool:
        """Whether it adds nothing to a call."""
        return not self.name and is_blank(self.arguments)


def read_fragments(
    tool_calls: Any,
    fields_of: Callable[[Mapping[str, Any]], ProviderFields | None] = lambda entry: None,
) -> list[ToolCallFragment]:
    """The entries of ``tool_calls``: a list, one entry, or an object of entries.

    ``fields_of`` gives what stands beside the call in an entry.
    """
    if isinstance(tool_calls, dict):
        is_entry = any(name in tool_calls for name in ("function", "custom", "name", "arguments"))
        tool_calls = [tool_calls] if is_entry else list(tool_calls.values())
    tool_calls = decoded_text(tool_calls)
    if not isinstance(tool_calls, list):
        return []
    entries = [
        decoded_text(it) for one in tool_calls for it in (one if isinstance(one, list) else (one,))
    ]
    return [_read_fragment(one, fields_of(one)) for one in entries if isinstance(one, dict)]


def call_of_part(part: Any) -> dict[str, Any] | None:
    """The entry of ``tool_calls`` that a part of a content is; None: it is no call."""
    if not isinstance(part, dict):
        return None
    inner = next((part[one] for one in _CALL_PART_FIELDS if isinstance(part.get(one), dict)), None)
    if inner is None and part.get("type") not in _CALL_PARTS:
        return None
    fields = part if inner is None else inner
    names = (*_ID_FIELDS, "toolUseId")
    return {
        "id": next((fields[one] for one in names if fields.get(one) is not None), None),
        "function": {
            "name": next((fields[one] for one in _NAME_FIELDS if fields.get(one)), None),
            "arguments": next((fields[it] for it in _ARGUMENT_FIELDS if it in fields), None),
        },
    }


def decoded_text(value: Any) -> Any:
    """A value that may be JSON within a string."""
    if not isinstance(value, str) or not value.startswith(("[", "{")):
        return value
    try:
        return msgspec.json.decode(value)
    except DECODE_ERRORS:
        return value


def _read_fragment(
    entry: dict[str, Any], provider_fields: ProviderFields | None
) -> ToolCallFragment:
    given = next((entry[one] for one in _FUNCTION_FIELDS if entry.get(one)), None)
    function, custom = decoded_text(given), entry.get("custom")
    if isinstance(function, list) and function:
        function = function[0]
    fields = function if isinstance(function, dict) else entry
    is_custom = fields is entry and isinstance(custom, dict)
    if isinstance(custom, dict) and is_custom:
        fields = custom
    given = function if isinstance(function, str) else fields.get("name")
    if given is None:
        # Beside the function, or under another name.
        given = next((entry[one] for one in _NAME_FIELDS if entry.get(one)), None)
    if isinstance(given, list) and len(given) == 1:
        given = given[0]
    name = given.strip() if isinstance(given, str) else ""
    names = ("input",) if is_custom else _ARGUMENT_FIELDS
    objects = (fields,) if is_custom else (fields, entry)
    values = [it[one] for it in objects for one in names if one in it]
    found = iter([one for one in values if one not in (None, "")] or values)
    arguments = arguments_text(next(found, None))
    index = entry.get("index", fields.get("index"))
    call_id = next((entry[one] for one in _ID_FIELDS if entry.get(one) is not None), None)
    return ToolCallFragment(
        index if type(index) is int else count_of_value(index),
        name_of_value(call_id).strip() if call_id is not None else "",
        # No name has white space around it, or in it, or is markup.
        "" if name in _NO_NAMES or name.startswith("<|") else name,
        escape_input(arguments) if is_custom else arguments,
        provider_fields,
        is_custom,
    )


def arguments_text(arguments: Any) -> str:
    """A call's arguments: a string by the specification, but servers send objects and null too."""
    if isinstance(arguments, str):
        return arguments
    if isinstance(arguments, list) and arguments:
        # In pieces, or as the only one of a list.
        if all(isinstance(piece, str) for piece in arguments):
            return "".join(arguments)
        if len(arguments) == 1 and isinstance(arguments[0], dict):
            return arguments_text(arguments[0])
    if arguments is None or isinstance(arguments, bool):
        return ""
    return msgspec.json.encode(arguments).decode()


def is_blank(arguments: str) -> bool:
    """Whether arguments hold none: an empty object, or less."""
    return len(arguments) <= LONGEST_BLANK and "".join(arguments.split()) in NO_ARGUMENTS
