"""Function schemas: completes the JSON schemas of functions, and the arguments of calls. Pure."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, TypeAlias

import msgspec

Schema: TypeAlias = dict[str, Any]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode
#: The size of the largest schema that is remembered, in bytes.
_LONGEST_REMEMBERED: Final = 16 * 1024

#: The keywords whose value is a schema, a list of schemas, or an object of schemas.
_ONE: Final = frozenset(
    {
        *("items", "contains", "additionalItems", "unevaluatedItems", "additionalProperties"),
        *("unevaluatedProperties", "propertyNames", "not", "if", "then", "else"),
    }
)
_LIST: Final = frozenset({"anyOf", "oneOf", "allOf", "prefixItems", "items"})
_OBJECT: Final = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}
)


def map_schemas(schema: Schema, change: Callable[[Schema], Schema]) -> Schema:
    """A schema with itself and every schema in it changed; the argument stays as it is."""
    return change({key: _map_keyword(key, value, change) for key, value in schema.items()})


def _map_keyword(key: str, value: Any, change: Callable[[Schema], Schema]) -> Any:
    if isinstance(value, dict):
        if key in _OBJECT:
            return {name: _map_value(one, change) for name, one in value.items()}
        if key in _ONE:
            return map_schemas(value, change)
    elif value == [] and (key in _OBJECT or key in _ONE):
        # The empty object of languages that have one type for both.
        return {}
    elif isinstance(value, list) and key in _LIST:
        return [_map_value(one, change) for one in value]
    return value


def _map_value(value: Any, change: Callable[[Schema], Schema]) -> Any:
    if value == []:
        return {}
    return map_schemas(value, change) if isinstance(value, dict) else value


def complete_parameters(parameters: Schema | None) -> msgspec.Raw:
    """``complete_schema`` as JSON. Tools are the same turn after turn: it is remembered."""
    given = _encode(parameters or {})
    completed = _complete_json if len(given) <= _LONGEST_REMEMBERED else _complete_json.__wrapped__
    return completed(given)


@lru_cache(maxsize=512)
def _complete_json(parameters: bytes) -> msgspec.Raw:
    try:
        return msgspec.Raw(_encode(complete_schema(_decode(parameters))))
    except RecursionError:
        return msgspec.Raw(parameters)


def complete_schema(schema: Schema | None) -> Schema:
    """A function's parameters as strict upstreams want them.

    They are an object; every object names its ``properties``, every array its ``items``.
    """
    if not schema:
        return {"type": "object", "properties": {}}
    if "type" not in schema and not _COMBINATIONS & schema.keys():
        schema = {"type": "object", **schema}
    return map_schemas(schema, _completed)


#: What may stand in place of a type.
_COMBINATIONS: Final = frozenset({"anyOf", "oneOf", "allOf", "$ref", "enum", "const"})


def _completed(schema: Schema) -> Schema:
    kind = schema.get("type")
    if _is_of(kind, "object") and not isinstance(schema.get("properties"), dict):
        schema = {**schema, "properties": {}}
    if _is_of(kind, "array") and "items" not in schema and "prefixItems" not in schema:
        schema = {**schema, "items": {}}
    return schema


def _is_of(kind: Any, name: str) -> bool:
    return bool(kind == name or (isinstance(kind, list) and name in kind))


_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode


def to_json_object(arguments: str) -> str:
    """A call's arguments as upstreams want to parse them: unchanged if they are a JSON object.

    None at all are an empty object, which some languages write as an empty list; some clients
    encode the text of an object once more. What is no object, since a limit cut it off or the
    model wrote it so, is the text within one: the model sees what it wrote.
    """
    try:
        _decode_object(arguments)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = arguments.strip()
        if text in ("", "null", "[]"):
            return "{}"
        if (inner := _encoded_object(text)) is not None:
            return inner
        return _encode({"invalid_json": arguments}).decode()
    return arguments


def _encoded_object(text: str) -> str | None:
    """The JSON of an object that was encoded as a text; None: it is something else."""
    try:
        inner = _decode_text(text)
        _decode_object(inner)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return inner
