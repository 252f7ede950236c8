"""Foreign items: which types they have, and how a model that knows functions only sees them. Pure.

Of what other servers made, calls that a client answered can be shown to any model, as calls of
functions. The rest (searches, what brings tools) says nothing without its own server.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from antiphon.core.items import (
    ForeignItem,
    FunctionCall,
    FunctionCallOutput,
    InputText,
    Item,
    Part,
)

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
#: Calls whose outputs are no text.
_SILENT_CALLS: Final = frozenset({"tool_search_call", "computer_call"})
#: What of a call's JSON is not its arguments.
_ENVELOPE: Final = frozenset({"id", "type", "status", "call_id", "created_by", "caller"})

#: Items that are no history: they set up a turn, or bring tools that are offered by other means.
_SETUP_TYPES: Final = frozenset(
    {
        *("additional_tools", "tool_search_call", "tool_search_output", "program"),
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


def _function_view(item: ForeignItem, answered: set[str | None]) -> Item | None:
    kind = item.type
    if kind in _SILENT_CALLS or kind.removesuffix(_OUTPUT) in _SILENT_CALLS:
        return None
    if kind.endswith(_CALL + _OUTPUT):
        call_id = _output_id(item)
        return None if call_id is None else FunctionCallOutput(call_id, _output_of(item.body))
    ids = [one for one in map(item.body.get, ("call_id", "id")) if isinstance(one, str)]
    named = next((one for one in ids if one in answered), None)
    if named is None and kind in _CLIENT_CALLS and ids:
        named = ids[0]
    if named is None or not kind.endswith(_CALL):
        return None
    return FunctionCall(named, kind.removesuffix(_CALL), _arguments_of(item.body))


def _output_id(item: ForeignItem | FunctionCallOutput) -> str | None:
    if isinstance(item, FunctionCallOutput):
        return item.call_id
    if not item.type.endswith(_CALL + _OUTPUT):
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
