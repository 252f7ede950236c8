"""Structs as the JSON schemas of tools, and arguments as structs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from antiphon.api.common.body import UNDECODABLE, invalid
from antiphon.errors import InvalidRequest

T = TypeVar("T", bound=msgspec.Struct)

_REFERENCE = "#/$defs/{name}"


def input_schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """What a tool takes. Every property has a title, as the field's tools have them."""
    schema = _schema(kind)
    for name, one in schema["properties"].items():
        one["title"] = name.replace("_", " ").title()
    return schema


def output_schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """What a tool's structured result is."""
    return _schema(kind)


def decode(kind: type[T], arguments: Mapping[str, Any]) -> tuple[T, tuple[str, ...]]:
    """Arguments as a struct, and the names that it has no field for.

    Raises ``InvalidRequest`` naming the argument at fault.
    """
    known = kind.__struct_fields__
    given = {name: arguments[name] for name in known if name in arguments}
    for name, value in given.items():
        _check_text(name, value)
    try:
        decoded = msgspec.convert(given, kind)
    except UNDECODABLE as error:
        raise invalid(error) from error
    return decoded, tuple(name for name in arguments if name not in given)


def readable(text: str) -> str:
    """The text with a question mark for what is no Unicode: it could not be sent on."""
    return text.encode(errors="replace").decode()


def _check_text(name: str, value: object) -> None:
    """Refuse text that is none: nothing could be done with it, not even decoding."""
    texts = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    try:
        for text in texts:
            if isinstance(text, str):
                text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"Invalid value for '{name}': it holds characters that are not Unicode text.",
            code="invalid_unicode",
            param=name,
        ) from error


def _schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    _, parts = msgspec.json.schema_components([kind], ref_template=_REFERENCE)
    schema = parts.pop(kind.__name__)
    # Clients want the object itself at the top, not a reference to it.
    schema.pop("title", None)
    schema.pop("description", None)
    return {**schema, "$defs": parts} if parts else schema
