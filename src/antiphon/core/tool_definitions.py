"""Tool definitions: decodes the Responses API's client tools into what a model is offered. Pure.

A client may run functions, custom tools (their input is one text, not JSON), namespaces of
both, and a search that finds more of them. A model is offered functions only: a tool of a
namespace has a name that is made of both.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

from antiphon.core.custom_tool_input import CUSTOM_INPUT
from antiphon.core.items import ForeignItem, Item
from antiphon.core.mcp_servers import NAME_SEPARATOR
from antiphon.core.turns import FunctionTool

#: The longest name that every upstream takes.
MAX_OFFERED_NAME_LENGTH: Final = 64
_DIGEST_LENGTH: Final = 8
_INVALID_CHARACTER: Final = re.compile(r"[^a-zA-Z0-9_-]")
#: The name of the function as which a search for tools is offered.
TOOL_SEARCH: Final = "tool_search"
#: The items that bring tools with them.
_TOOL_ITEMS: Final = frozenset({"additional_tools", "tool_search_output"})

ToolName = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern="^[a-zA-Z0-9_-]+$")]
NamespaceName = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


class FunctionToolParam(msgspec.Struct, frozen=True, tag="function", tag_field="type"):
    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class CustomToolParam(msgspec.Struct, frozen=True, tag="custom", tag_field="type"):
    """``format``: ``{"type":"text"}``, or a grammar that the input has to follow."""

    name: ToolName
    description: str | None = None
    format: dict[str, Any] | None = None


class ToolSearchParam(msgspec.Struct, frozen=True, tag="tool_search", tag_field="type"):
    """A search for more tools. The client runs it: others are hosted tools."""

    execution: Literal["client"]
    description: str | None = None
    parameters: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """What a model calls it."""
        return TOOL_SEARCH


class NamespaceToolParam(msgspec.Struct, frozen=True, tag="namespace", tag_field="type"):
    name: NamespaceName
    description: str | None = None
    tools: list[FunctionToolParam | CustomToolParam] = []


ClientTool: TypeAlias = FunctionToolParam | CustomToolParam | NamespaceToolParam | ToolSearchParam


def normalize_tool(definition: dict[str, Any]) -> dict[str, Any]:
    """A definition in the Responses API's shape.

    Chat completions nest a tool under its type; other APIs leave out the type of a function, or
    call its parameters ``input_schema`` or ``inputSchema``.
    """
    clean = {name: value for name, value in definition.items() if value is not None}
    kind = clean.get("type", "function")
    if isinstance(kind, str) and kind.lower() in ("function", "custom"):
        clean["type"] = kind = kind.lower()
    if kind == "custom" and isinstance(clean.get("input_schema"), dict):
        # Anthropic calls the functions of a client so.
        clean["type"] = kind = "function"
    nested = clean.pop(kind, None) if kind in ("function", "custom") else None
    if isinstance(nested, dict):
        clean |= {name: value for name, value in nested.items() if value is not None}
    for name in ("input_schema", "inputSchema"):
        if kind == "function" and name in clean:
            clean.setdefault("parameters", clean[name])
    if isinstance(clean.get("strict"), str):
        clean["strict"] = clean["strict"].strip().lower() == "true"
    if isinstance(clean.get("parameters"), str):
        clean["parameters"] = _object_of(clean["parameters"])
    if clean.get("parameters") == []:
        # PHP's empty object.
        clean["parameters"] = {}
    tools = clean.get("tools")
    if kind == "namespace" and isinstance(tools, list):
        clean["tools"] = [normalize_tool(one) if isinstance(one, dict) else one for one in tools]
    form = clean.get("format")
    if kind == "custom" and isinstance(form, dict) and isinstance(form.get("grammar"), dict):
        clean["format"] = {"type": "grammar", **form["grammar"]}
    return {**clean, "type": kind}


def _object_of(text: str) -> Any:
    """The object in a text; the text itself, where there is none."""
    try:
        return msgspec.json.decode(text or "{}")
    except (msgspec.DecodeError, RecursionError):
        return text


def offered_tools(given: Iterable[ClientTool]) -> list[FunctionTool]:
    """The tools as a model is offered them, in their order, each with a name of its own."""
    tools = [tool for one in given for tool in _function_tools(one)]
    taken = {tool.name for tool in tools if tool.namespace is None}
    offered: list[FunctionTool] = []
    for tool in tools:
        if tool.namespace is not None:
            if tool.name in taken:
                name = _digest_name(tool.name, tool.namespace, tool.local_name or "")
                tool = msgspec.structs.replace(tool, name=name)  # noqa: PLW2901
            taken.add(tool.name)
        offered.append(tool)
    return offered


def added_tools(items: Iterable[Item]) -> tuple[FunctionTool, ...]:
    """The tools that items bring with them, from there on."""
    definitions = [
        definition
        for item in items
        if isinstance(item, ForeignItem) and item.type in _TOOL_ITEMS
        for definition in _dicts(item.body.get("tools"))
    ]
    return tuple(offered_tools(_readable_tools(definitions))) if definitions else ()


def offered_name(namespace: str | None, name: str) -> str:
    """What a model calls a tool; of a namespace, at most 64 characters that all upstreams take."""
    if namespace is None:
        return name
    separator = "" if namespace.endswith(NAME_SEPARATOR) else NAME_SEPARATOR
    joined = f"{namespace}{separator}{name}"
    plain = _INVALID_CHARACTER.sub("_", joined)
    if plain == joined and len(joined) <= MAX_OFFERED_NAME_LENGTH:
        return joined
    return _digest_name(plain, namespace, name)


def _find_no_tool(name: str) -> FunctionTool | None:
    return None


def tool_finder(tools: Iterable[FunctionTool]) -> Callable[[str], FunctionTool | None]:
    """How the tool is found that a model calls by a name; None: a plain function, or no tool.

    Some models leave out the namespace, or join it with a dot: that is understood where only one
    tool can be meant.
    """
    named = {tool.name: tool for tool in tools}
    if not named:
        return _find_no_tool
    if all(is_plain_function(tool) for tool in named.values()):
        return lambda name: None
    others: dict[str, FunctionTool | None] = {}
    for tool in named.values():
        if tool.namespace is not None:
            for name in (tool.local_name or "", f"{tool.namespace}.{tool.local_name}"):
                others[name] = None if name in others else tool
    return lambda name: named.get(name) or others.get(name)


def is_plain_function(tool: FunctionTool) -> bool:
    """Whether a tool's calls are shown as models make them."""
    return tool.namespace is None and not tool.is_custom and not tool.is_search


def _digest_name(name: str, namespace: str, local_name: str) -> str:
    """A name that nothing else has, made of one that something else may have."""
    digest = hashlib.sha256(f"{namespace}\0{local_name}".encode()).hexdigest()[:_DIGEST_LENGTH]
    return f"{name[: MAX_OFFERED_NAME_LENGTH - _DIGEST_LENGTH - 1]}_{digest}"


def _function_tools(tool: ClientTool, namespace: str | None = None) -> Iterator[FunctionTool]:
    if isinstance(tool, NamespaceToolParam):
        for one in tool.tools:
            yield from _function_tools(one, tool.name)
        return
    local = None if namespace is None else tool.name
    name = offered_name(namespace, tool.name)
    if isinstance(tool, ToolSearchParam):
        yield FunctionTool(name, tool.description, tool.parameters, is_search=True)
    elif isinstance(tool, CustomToolParam):
        yield FunctionTool(
            name,
            tool.description,
            namespace=namespace,
            local_name=local,
            is_custom=True,
            format=tool.format,
        )
    else:
        yield FunctionTool(name, tool.description, tool.parameters, tool.strict, namespace, local)


def _readable_tools(definitions: Iterable[dict[str, Any]]) -> Iterator[ClientTool]:
    for definition in definitions:
        try:
            yield msgspec.convert(normalize_tool(definition), ClientTool)
        except msgspec.ValidationError:
            # A tool that only its server can run, or of a kind that nobody here knows.
            continue


def _dicts(value: object) -> Sequence[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else ()


def as_function(tool: FunctionTool) -> FunctionTool:
    """A custom tool as a function of one text, for models that know functions only."""
    if not tool.is_custom:
        return tool
    about = "The whole input of the tool, as it is."
    definition = (tool.format or {}).get("definition")
    if definition:
        syntax = (tool.format or {}).get("syntax") or "regex"
        about = f"{about} It has to follow this {syntax} grammar:\n{definition}"
    schema = {
        "type": "object",
        "properties": {CUSTOM_INPUT: {"type": "string", "description": about}},
        "required": [CUSTOM_INPUT],
        "additionalProperties": False,
    }
    return msgspec.structs.replace(tool, parameters=schema)
