"""Grammar-constrained output: bounds a JSON schema, so that its grammar always ends.

A small model that may write a string or a list of any length often never stops, and truncated
output is no JSON. So open lengths of a schema are bounded here: in the grammar only, the
caller's schema stays as it is.
"""

from __future__ import annotations

from typing import Any

#: The limit of a string without ``maxLength``, in characters, and of a list, in items.
MAX_STRING_LENGTH = 200
MAX_LIST_LENGTH = 8

#: Formats that the grammar supports. Other formats mean any string.
_FORMATS = {"date", "time", "date-time", "uuid"}
_SCHEMA_KEYWORDS = ("items", "additionalProperties", "not", "if", "then", "else", "contains")
_SCHEMA_LIST_KEYWORDS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SCHEMA_MAP_KEYWORDS = ("properties", "$defs", "definitions", "patternProperties")


def bound_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with a longest length for every string and list that has none.

    Lists of a reference to themselves, and objects with free keys, still have no end.
    """
    bounded = {key: _bound_value(key, value) for key, value in schema.items()}
    kinds = schema.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if "string" in kinds and not _is_bounded_string(schema):
        bounded.pop("format", None)
        bounded["maxLength"] = max(MAX_STRING_LENGTH, _int_or_zero(schema.get("minLength")))
    if "array" in kinds and "maxItems" not in schema and "prefixItems" not in schema:
        bounded["maxItems"] = max(MAX_LIST_LENGTH, _int_or_zero(schema.get("minItems")))
    if "object" in kinds and not schema.keys() & {"properties", *_OBJECT_KEYWORDS}:
        # A grammar for "any object" would be unbounded.
        bounded["properties"] = {}
        bounded["additionalProperties"] = False
    return bounded


_OBJECT_KEYWORDS = ("additionalProperties", "patternProperties", "anyOf", "oneOf", "allOf", "$ref")


def _is_bounded_string(schema: dict[str, Any]) -> bool:
    limits = schema.keys() & {"maxLength", "enum", "const", "pattern"}
    return bool(limits) or schema.get("format") in _FORMATS


def _bound_value(key: str, value: Any) -> Any:
    if key in _SCHEMA_KEYWORDS and isinstance(value, dict):
        return bound_schema(value)
    if key in _SCHEMA_LIST_KEYWORDS and isinstance(value, list):
        return [bound_schema(one) if isinstance(one, dict) else one for one in value]
    if key in _SCHEMA_MAP_KEYWORDS and isinstance(value, dict):
        return {
            name: bound_schema(one) if isinstance(one, dict) else one for name, one in value.items()
        }
    return value


def _int_or_zero(value: object) -> int:
    return value if isinstance(value, int) else 0
