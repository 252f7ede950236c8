"""Foreign items: which types they have, and how a model that knows functions only sees them. Pure.

Of what other servers made, calls that a client answered can be shown to any model, as calls of
functions, and so can calls that hold their results. The rest (searches of which only the query is
known, what brings tools) says nothing without its own server.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from antiphon.core.function_schemas import to_json_object
from antiphon.core.items import (
    ForeignItem,
    FunctionCall,
    FunctionCallOutput,
    InputText,
    Item,
    ItemStatus,
    Part,
)
from antiphon.core.tool_definitions import TOOL_SEARCH, added_tools

_CALL: Final = "_call"
_OUTPUT: Final = "_output"
_OTHER_TYPES: Final = frozenset(
    {
        *("additional_tools", "compaction_trigger", "configuration_update", "program"),
        *("agent_message", "context_compaction"),
    }
)
#: Calls that a client answers. Until it has, they are open.
_CLIENT_CALLS: Final = frozenset({"local_shell_call", "shell_call", "apply_patch_call"})
#: A search for tools is a client's where it has an id: the upstream's own has none.
_SEARCH_CALL: Final = TOOL_SEARCH + _CALL
_SEARCH_OUTPUT: Final = TOOL_SEARCH + _OUTPUT
_OPEN_CALLS: Final = frozenset({*_CLIENT_CALLS, _SEARCH_CALL})
#: Calls whose outputs are no text.
_SILENT_CALLS: Final = frozenset({"computer_call"})
#: Where a call that its own server ran holds what came of it.
_RESULT_FIELDS: Final = ("outputs", "output", "results", "result")
#: What a model is told of pictures: they are their own server's.
_IMAGE_MADE: Final = "(An image was made.)"
_SCREENSHOT: Final = "(A screenshot was taken.)"
#: What of a call's JSON is not its arguments.
_ENVELOPE: Final = frozenset(
    {"id", "type", "status", "call_id", "created_by", "caller", "execution"}
)

#: Items that are no history: they set up a turn, or bring tools that are offered by other means.
_SETUP_TYPES: Final = frozenset(
    {
        *("additional_tools", _SEARCH_CALL, _SEARCH_OUTPUT, "program"),
        *("compaction_trigger", "configuration_update", "agent_message"),
    }
)

_encode = msgspec.json.Encoder().encode


def is_foreign_type(kind: str) -> bool:
    """Whether an item's type is one that some server makes: a call or output, or a known one."""
    return kind.endswith((_CALL, _OUTPUT)) or kind in _OTHER_TYPES


def is_history(item: ForeignItem) -> bool:
    """Whether an upstream of the Responses API is sent an item again as it is."""
    return item.type not in _SETUP_TYPES


def function_views(items: Sequence[Item]) -> Sequence[Item]:
    """Each item, foreign calls and their outputs as those of functions. A model that knows
    functions only is not shown those that stay foreign.

    Outputs whose calls are not among the items are taken for those of an earlier turn's calls.
    """
    if not any(isinstance(item, ForeignItem) for item in items):
        return items
    answered = {
        call_id
        for item in items
        if isinstance(item, ForeignItem | FunctionCallOutput)
        for call_id in [_output_id(item)]
    }
    return [
        (_function_view(item, answered) or item) if isinstance(item, ForeignItem) else item
        for item in items
    ]


def result_view(item: ForeignItem) -> tuple[FunctionCall, FunctionCallOutput] | None:
    """A call that its own server ran, with what came of it, as a function's; None: it tells
    nothing.
    """
    kind, body = item.type, item.body
    if kind == "computer_call_output":
        kind, result = "computer_call", _SCREENSHOT
    elif kind == "image_generation_call":
        result = _IMAGE_MADE if body.get("result") else ""
    else:
        result = _result_text(body)
    if not kind.endswith(_CALL) or kind in _OPEN_CALLS:
        return None
    arguments = {
        name: value
        for name, value in body.items()
        if name not in {*_ENVELOPE, *_RESULT_FIELDS, "container_id"} and value is not None
    }
    if not result and not isinstance(arguments.get("code"), str):
        return None
    ids = [one for one in map(body.get, ("call_id", "id")) if one and isinstance(one, str)]
    call_id = ids[0] if ids else "call_" + hashlib.sha256(_encode(body)).hexdigest()[:32]
    call = FunctionCall(call_id, kind.removesuffix(_CALL), _encode(arguments).decode())
    return call, FunctionCallOutput(call_id, result)


def _result_text(body: dict[str, Any]) -> str:
    result = next(filter(None, map(body.get, _RESULT_FIELDS)), None)
    if isinstance(result, list):
        logs = [one.get("logs") for one in result if isinstance(one, dict)]
        if len(logs) == len(result) and all(isinstance(one, str) for one in logs):
            return "\n".join(map(str, logs))
    if result is None or isinstance(result, str):
        return result or ""
    return _encode(result).decode()


def _function_view(item: ForeignItem, answered: set[str | None]) -> Item | None:
    kind = item.type
    if kind in _SILENT_CALLS or kind.removesuffix(_OUTPUT) in _SILENT_CALLS:
        return None
    if kind == _SEARCH_OUTPUT:
        call_id = _output_id(item)
        return None if call_id is None else FunctionCallOutput(call_id, _found_tools(item))
    if kind.endswith(_CALL + _OUTPUT):
        call_id = _output_id(item)
        return None if call_id is None else FunctionCallOutput(call_id, _output_of(item.body))
    ids = [one for one in map(item.body.get, ("call_id", "id")) if isinstance(one, str)]
    named = next((one for one in ids if one in answered), None)
    if kind == _SEARCH_CALL and item.body.get("execution") == "server":
        return None
    if named is None and kind in _OPEN_CALLS and ids:
        named = ids[0]
    if named is None or not kind.endswith(_CALL):
        return None
    return FunctionCall(named, kind.removesuffix(_CALL), _arguments_of(item.body))


def _output_id(item: ForeignItem | FunctionCallOutput) -> str | None:
    if isinstance(item, FunctionCallOutput):
        return item.call_id
    if not item.type.endswith((_CALL + _OUTPUT, _SEARCH_OUTPUT)):
        return None
    given = item.body.get("call_id") or item.body.get("id")
    return given if isinstance(given, str) else None


def _arguments_of(body: dict[str, Any]) -> str:
    """What a call asks for: its one field, or all of them."""
    fields = {name: value for name, value in body.items() if name not in _ENVELOPE}
    value = next(iter(fields.values())) if len(fields) == 1 else fields
    return value if isinstance(value, str) else _encode(value).decode()


def _output_of(body: dict[str, Any]) -> str | tuple[Part, ...]:
    output = body.get("output")
    if output is None:
        return ""
    if isinstance(output, list):
        texts = [one.get("text") for one in output if isinstance(one, dict)]
        if len(texts) == len(output) and all(isinstance(text, str) for text in texts):
            return tuple(InputText(str(text)) for text in texts)
    return output if isinstance(output, str) else _encode(output).decode()


def search_call(call_id: str, arguments: str, status: ItemStatus) -> ForeignItem:
    """A model's call of the client's search for tools."""
    return ForeignItem(
        {
            "type": _SEARCH_CALL,
            "status": status,
            "call_id": call_id,
            "execution": "client",
            "arguments": msgspec.json.decode(to_json_object(arguments)),
        }
    )


def _found_tools(item: ForeignItem) -> str:
    """What a search found, by the names that the model is offered."""
    tools = [
        {"name": tool.name, "description": tool.description or ""} for tool in added_tools([item])
    ]
    return _encode({"tools": tools}).decode()
