"""Foreign tools: brings definitions of tools of other APIs into the Responses API's shape. Pure.

Gemini has several functions in one tool, Bedrock nests a function under ``toolSpec``, and the AI
SDK has an object of tools by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeAlias

from antiphon.core.function_schemas import map_schemas

Definition: TypeAlias = dict[str, Any]

_DECLARATIONS: Final = ("functionDeclarations", "function_declarations")
_SCHEMA_FIELDS: Final = ("parametersJsonSchema", "parameters_json_schema")
#: What tells a definition of a tool from an object of them.
_TOOL_FIELDS: Final = frozenset({"type", "name", "function"})
_PARAMETER_FIELDS: Final = ("parameters", "inputSchema", "input_schema")
#: The types of Gemini's schemas, which JSON schemas have in lower case.
_UPPER_TYPES: Final = frozenset(
    {"OBJECT", "ARRAY", "STRING", "NUMBER", "INTEGER", "BOOLEAN", "NULL"}
)


def tools_of_object(tools: dict[str, Any]) -> Any:
    """The tools of an object that has them by name; anything else is one tool by itself."""
    if not tools:
        return None
    if not _TOOL_FIELDS & tools.keys() and all(map(_is_unnamed_function, tools.values())):
        return [{"name": name, **one} for name, one in tools.items()]
    return [tools]


def _is_unnamed_function(value: Any) -> bool:
    return isinstance(value, dict) and any(
        isinstance(value.get(name), dict) for name in _PARAMETER_FIELDS
    )


def expand_definitions(given: Iterable[Definition]) -> Iterator[tuple[int, Definition]]:
    """Each tool with the index of the definition that it came in."""
    for index, one in enumerate(given):
        if one.get("type") is not None or not one or not _TOOL_FIELDS.isdisjoint(one):
            yield index, one
            continue
        for tool in _tools_of(one):
            yield index, tool


def _tools_of(definition: Definition) -> Iterator[Definition]:
    for name in _DECLARATIONS:
        if isinstance(declarations := definition.get(name), list):
            yield from (_declared_function(one) for one in declarations if isinstance(one, dict))
            return
    specification = definition.get("toolSpec")
    if isinstance(specification, dict):
        schema = specification.get("inputSchema")
        parameters = schema.get("json") if isinstance(schema, dict) else None
        yield {**specification, "type": "function", "parameters": parameters, "inputSchema": None}
        return
    match list(definition.items()):
        case [(str(name), dict())]:
            # A tool that its provider runs, such as ``googleSearch``.
            yield {"type": name, **definition}
        case _:
            yield definition


def _declared_function(declaration: Definition) -> Definition:
    schema = next((it for name in _SCHEMA_FIELDS if (it := declaration.get(name))), None)
    parameters = declaration.get("parameters") if schema is None else schema
    if isinstance(parameters, dict):
        parameters = map_schemas(parameters, _with_lower_type)
    return {**declaration, "type": "function", "parameters": parameters}


def _with_lower_type(schema: Definition) -> Definition:
    kind = schema.get("type")
    if isinstance(kind, str) and kind in _UPPER_TYPES:
        return {**schema, "type": kind.lower()}
    return schema
