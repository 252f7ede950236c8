"""JSON schemas as models like them: without noise, and the same in every process."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema


class _Generator(GenerateJsonSchema):
    #: A default that is no JSON is left out of the schema: the function has it all the same.
    ignored_warning_kinds = GenerateJsonSchema.ignored_warning_kinds | {"non-serializable-default"}


def generate_schema(adapter: TypeAdapter[Any]) -> dict[str, Any]:
    """The schema of what the adapter validates, its root in place."""
    schema = adapter.json_schema(schema_generator=_Generator)
    root = schema.pop("$ref", None)
    if root is not None:
        # A type that refers to itself; many APIs want to see an object at the top.
        schema = {**schema["$defs"][root.removeprefix("#/$defs/")], **schema}
    clean: dict[str, Any] = _remove_titles(schema)
    return clean


def _remove_titles(schema: Any) -> Any:
    """The schema without titles: Pydantic makes them of names, and they say nothing more."""
    if not isinstance(schema, dict):
        return schema
    clean: dict[str, Any] = {}
    for key, value in schema.items():
        match key, value:
            case "title", str():
                continue
            # Here the keys are names, one of which may be "title".
            case (("properties" | "$defs" | "patternProperties" | "dependentSchemas"), dict()):
                clean[key] = {name: _remove_titles(one) for name, one in value.items()}
            case (("anyOf" | "oneOf" | "allOf" | "prefixItems"), list()):
                clean[key] = [_remove_titles(one) for one in value]
            case (
                ("items" | "additionalProperties" | "propertyNames" | "contains" | "not"),
                dict(),
            ):
                clean[key] = _remove_titles(value)
            case _:
                clean[key] = value
    return clean
