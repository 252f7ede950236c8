"""JSON schema tools: validates arguments against a raw JSON schema, by jsonschema.

Loaded on first use, as jsonschema is slow to import.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from jsonschema import Draft202012Validator, SchemaError, ValidationError
from jsonschema.validators import validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012, specification_with

from antiphon.errors import ConfigError
from antiphon.tools.signature import ArgumentSpec
from antiphon.tools.tool_context import context_parameters
from antiphon.tools.tool_outputs import format_path, invalid_arguments, parse_arguments, shorten


def schema_argument_spec(
    function: Callable[..., Any], name: str, parameters: Mapping[str, Any] | None
) -> ArgumentSpec:
    """The ``ArgumentSpec`` of a schema; without ``$schema`` it is Draft 2020-12.

    Raises ``ConfigError`` for a bad schema.
    """
    schema = _check_schema(name, parameters or {"type": "object", "properties": {}})
    # A registry of its own: without one, jsonschema fetches what ``$ref`` names.
    validator = validator_for(schema, default=Draft202012Validator)(schema, registry=Registry())

    def reader(text: str) -> dict[str, Any]:
        written = parse_arguments(text)
        found = sorted(validator.iter_errors(written), key=lambda one: list(map(str, one.path)))
        if found:
            raise invalid_arguments(map(_describe_error, found))
        return written

    return ArgumentSpec(
        schema=schema, decode=reader, context_parameters=context_parameters(function)
    )


def _check_schema(name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A copy, so that what its owner does to the dict later changes nothing here."""
    try:
        schema: dict[str, Any] = msgspec.json.decode(
            msgspec.json.encode(dict(parameters)), type=dict
        )
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"Tool '{name}': its parameters are not a JSON object: {error}"
        ) from error
    if schema.get("type", "object") != "object":
        raise ConfigError(f'Tool \'{name}\': its parameters must be of "type": "object".')
    try:
        validator_for(schema, default=Draft202012Validator).check_schema(schema)
        _check_references(schema)
    except SchemaError as error:
        where = ".".join(map(str, error.path)) or "at its top"
        raise ConfigError(
            f"Tool '{name}': its parameters are no JSON schema: {where}: {shorten(error.message)}"
        ) from error
    except Unresolvable as error:
        raise ConfigError(
            f"Tool '{name}': its parameters refer to '{error.ref}', which is not there."
        ) from error
    return schema


def _check_references(schema: dict[str, Any]) -> None:
    """Raises ``Unresolvable`` for a ``$ref`` to nowhere, before a model meets it."""
    dialect = specification_with(str(schema.get("$schema", "")), default=DRAFT202012)
    whole = dialect.create_resource(schema)
    waiting = [(whole, Registry().with_resource("", whole).resolver())]
    while waiting:
        resource, resolver = waiting.pop()
        resolver = resolver.in_subresource(resource)
        if isinstance(resource.contents, dict) and isinstance(
            reference := resource.contents.get("$ref"), str
        ):
            resolver.lookup(reference)
        waiting.extend((one, resolver) for one in resource.subresources())


def _describe_error(error: ValidationError) -> str:
    """One validation error in words that a model can act on, without repeating its input."""
    path, keyword = list(error.path), str(error.validator)
    expected: Any = error.validator_value
    there: Any = error.instance
    if keyword == "required":
        missing = [name for name in expected if name not in there]
        return "; ".join(f"{format_path([*path, name])} is missing" for name in missing)
    if keyword == "additionalProperties" and isinstance(error.schema, dict) and not expected:
        known = error.schema.get("properties", {})
        surplus = [format_path([*path, name]) for name in there if name not in known]
        return f"there is no {' and no '.join(surplus[:3])}"
    return f"{format_path(path)} {_describe_keyword(keyword, expected)}"


def _describe_keyword(keyword: str, value: Any) -> str:
    match keyword:
        case "type":
            return f"should be of type {' or '.join([value] if isinstance(value, str) else value)}"
        case "enum":
            return f"should be one of {_json(value)}"
        case "const":
            return f"should be {_json(value)}"
        case "anyOf":
            return "has none of the allowed shapes"
        case "oneOf":
            return "does not have exactly one of the allowed shapes"
    return f"should keep to {keyword}: {_json(value)}"


def _json(value: Any) -> str:
    return shorten(msgspec.json.encode(value).decode(), 200)
