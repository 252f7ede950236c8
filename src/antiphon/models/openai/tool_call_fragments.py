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
NO_ARGUMENTS: Final = frozenset(("", "{}", "null", "[]", '""'))
LONGEST_BLANK: Final = 64
#: What servers call the arguments.
_ARGUMENT_FIELDS: Final = ("arguments", "parameters", "input", "args")


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
    tool_calls = _decoded(tool_calls)
    if not isinstance(tool_calls, list):
        return []
    entries = [it for one in tool_calls for it in (one if isinstance(one, list) else (one,))]
    return [_read_fragment(one, fields_of(one)) for one in entries if isinstance(one, dict)]


def _decoded(value: Any) -> Any:
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
    function, custom = _decoded(entry.get("function")), entry.get("custom")
    if isinstance(function, list) and function:
        function = function[0]
    fields = function if isinstance(function, dict) else entry
    is_custom = fields is entry and isinstance(custom, dict)
    if isinstance(custom, dict) and is_custom:
        fields = custom
    name = function if isinstance(function, str) else fields.get("name")
    names = ("input",) if is_custom else _ARGUMENT_FIELDS
    arguments = arguments_text(next((fields[one] for one in names if one in fields), None))
    return ToolCallFragment(
        index if type(index := entry.get("index")) is int else count_of_value(index),
        name_of_value(call_id).strip() if (call_id := entry.get("id")) is not None else "",
        # No name has white space around it, or in it.
        name.strip() if isinstance(name, str) else "",
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
