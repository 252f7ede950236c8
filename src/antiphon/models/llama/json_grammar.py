"""A JSON schema with an end, for a grammar to be made of.

A small model that may write a string or a list of any length often never stops, and what
is cut is no JSON. So what a schema leaves open is bounded here: in the grammar only, the
caller's schema stays as it is.
"""

from __future__ import annotations

from typing import Any

#: Of a string whose schema names no longest, in characters, and of a list, in items.
LONGEST_STRING = 200
LONGEST_LIST = 8

#: Those that the grammar writes out, digit by digit. Other formats mean any string.
_FORMATS = {"date", "time", "date-time", "uuid"}
_SCHEMAS = ("items", "additionalProperties", "not", "if", "then", "else", "contains")
_LISTS_OF_SCHEMAS = ("anyOf", "oneOf", "allOf", "prefixItems")
_NAMED_SCHEMAS = ("properties", "$defs", "definitions", "patternProperties")


def bounded(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with a longest length for every string and list that has none.

    Lists of a reference to themselves, and objects with free keys, still have no end.
    """
    made = {key: _inside(key, value) for key, value in schema.items()}
    kinds = schema.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if "string" in kinds and not _is_bounded_string(schema):
        made.pop("format", None)
        made["maxLength"] = max(LONGEST_STRING, _number(schema.get("minLength")))
    if "array" in kinds and "maxItems" not in schema and "prefixItems" not in schema:
        made["maxItems"] = max(LONGEST_LIST, _number(schema.get("minItems")))
    if "object" in kinds and not schema.keys() & {"properties", *_OBJECT_WORDS}:
        # "Any object" would be one without an end.
        made["properties"] = {}
        made["additionalProperties"] = False
    return made


_OBJECT_WORDS = ("additionalProperties", "patternProperties", "anyOf", "oneOf", "allOf", "$ref")


def _is_bounded_string(schema: dict[str, Any]) -> bool:
    named = schema.keys() & {"maxLength", "enum", "const", "pattern"}
    return bool(named) or schema.get("format") in _FORMATS


def _inside(key: str, value: Any) -> Any:
    if key in _SCHEMAS and isinstance(value, dict):
        return bounded(value)
    if key in _LISTS_OF_SCHEMAS and isinstance(value, list):
        return [bounded(one) if isinstance(one, dict) else one for one in value]
    if key in _NAMED_SCHEMAS and isinstance(value, dict):
        return {name: bounded(one) if isinstance(one, dict) else one for name, one in value.items()}
    return value


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
