"""Tool type rules: a request without tools of a type that its upstream does not have. Pure.

For upstreams of the Responses API (``request_rules``): many know functions only. A custom tool
becomes a function of one text, and its calls become that function's. Tools that the upstream was to
run are left out; their items are shown as calls of functions where they hold what came of them.
"""

from __future__ import annotations

import re
from typing import Any, Final, TypeAlias

from antiphon.core.custom_tool_input import custom_arguments
from antiphon.core.foreign_items import result_view
from antiphon.core.items import ForeignItem
from antiphon.core.tool_definitions import as_function
from antiphon.core.turns import FunctionTool

Json: TypeAlias = dict[str, Any]

_CUSTOM: Final = "custom"
#: The items that every upstream has.
_COMMON_ITEMS: Final = frozenset(
    {"message", "reasoning", "function_call", "function_call_output", "item_reference"}
)
#: How an upstream says that it does not know a type, and what it says of those that it knows.
_REFUSED: Final = re.compile(
    r"unsupported|unknown|unrecogni[sz]ed|invalid|unexpected|expected|must be|should be|only|"
    r"not (\w+ )?(supported|valid|allowed|available|match|found|recogni[sz]ed)|"
    r"n't (support|match|exist|allow)|no such",
    re.IGNORECASE,
)
_KNOWN: Final = re.compile(
    r"expected|supported (values|types|tools)|one of|should be|must be|only|available",
    re.IGNORECASE,
)
_ABOUT_TYPES: Final = re.compile(r"\btools?\b|\btypes?\b|hosted|variant|\bitems?\b", re.IGNORECASE)
#: A setting of a tool: whoever wrote it has to see what is wrong with it.
_SETTING: Final = re.compile(r"tools(\[\d+\]|\.\d+)\.(?!type\b)\w")


def refused_tool_types(request: Json, message: str) -> list[str]:
    """The types that an upstream may have refused by this message, the most likely first."""
    types = _tool_types(request)
    if not types or _SETTING.search(message) or not _REFUSED.search(message):
        return []
    known = _KNOWN.search(message)
    refusal, rest = (message[: known.start()], message[known.start() :]) if known else (message, "")
    named = [one for one in types if _names(refusal, one)]
    if named or not _ABOUT_TYPES.search(message):
        return named
    return [one for one in types if not _names(rest, one)]


def without_tool_type(request: Json, kind: str) -> Json:
    """The request without tools and items of a type."""
    if "input" not in request:
        return request
    tools = request.get("tools") or []
    items = request["input"]
    choice = request.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == kind:
        choice = {"type": "function", "name": choice["name"]} if kind == _CUSTOM else None
    if kind == _CUSTOM:
        tools = [_as_function(one) for one in tools]
        items = [_as_function_item(one) for one in items]
    else:
        tools = [one for one in tools if one.get("type") != kind]
        items = [
            view for one in items for view in ([one] if _tool_type(one) != kind else _views(one))
        ]
    fitted = {**request, "tools": tools, "input": items, "tool_choice": choice}
    if not tools:
        for name in ("parallel_tool_calls", "max_tool_calls", "tool_choice"):
            fitted.pop(name, None)
    optional = ("tools", "tool_choice")
    return {name: value for name, value in fitted.items() if value or name not in optional}


def _tool_types(request: Json) -> list[str]:
    """The types of a request's tools and items that not every upstream has."""
    if "input" not in request:
        return []
    tools = [str(one.get("type")) for one in request.get("tools") or ()]
    items = [_tool_type(one) for one in request["input"]]
    return list(dict.fromkeys(one for one in (*tools, *items) if one and one != "function"))


def _views(item: Json) -> list[Json]:
    """An item of such a tool as a function's call and its output; none, if it tells nothing."""
    pair = result_view(ForeignItem(item))
    if pair is None:
        return []
    call, output = pair
    head = {"call_id": call.call_id}
    return [
        {"type": "function_call", **head, "name": call.name, "arguments": call.arguments},
        {"type": "function_call_output", **head, "output": output.output},
    ]


def _names(text: str, kind: str) -> bool:
    pattern = rf"(?<!\w){re.escape(kind)}(_tool)?(_call)?(_output)?(?!\w)"
    return re.search(pattern, text) is not None


def _tool_type(item: Json) -> str | None:
    """The type of the tool that an item is of; None: any upstream knows the item."""
    kind = str(item.get("type", "message"))
    if kind in _COMMON_ITEMS:
        return None
    if kind.startswith("custom_tool_call"):
        return _CUSTOM
    return kind.removesuffix("_output").removesuffix("_call")


def _as_function(tool: Json) -> Json:
    if tool.get("type") != _CUSTOM:
        return tool
    name, about = tool["name"], tool.get("description")
    custom = FunctionTool(name, about, is_custom=True, format=tool.get("format"))
    fields = {name: value for name, value in tool.items() if name in ("name", "description")}
    return {
        "type": "function",
        **fields,
        "parameters": as_function(custom).parameters,
        "strict": False,
    }


def _as_function_item(item: Json) -> Json:
    match item.get("type"):
        case "custom_tool_call":
            rest = {name: value for name, value in item.items() if name != "input"}
            arguments = custom_arguments(str(item.get("input", "")))
            return {**rest, "type": "function_call", "arguments": arguments}
        case "custom_tool_call_output":
            return {**item, "type": "function_call_output"}
    return item
