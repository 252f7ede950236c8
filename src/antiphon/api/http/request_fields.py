"""Fields that several request bodies have: their types, ranges and lengths."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from antiphon.api.common.body import check_depth, present

Temperature = Annotated[float, msgspec.Meta(ge=0, le=2)]
Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
#: A short word that only the client knows the meaning of.
Token = Annotated[str, msgspec.Meta(max_length=64)]
Metadata = Annotated[
    dict[Annotated[str, msgspec.Meta(max_length=64)], Annotated[str, msgspec.Meta(max_length=512)]],
    msgspec.Meta(max_length=16),
]

Name = Annotated[str, msgspec.Meta(min_length=1)]


class PlainFormat(msgspec.Struct, frozen=True, tag="text", tag_field="type"):
    """Answers in prose."""


class JsonFormat(msgspec.Struct, frozen=True, tag="json_object", tag_field="type"):
    """Answers in some JSON."""


class Schema(msgspec.Struct, frozen=True):
    """The JSON that an answer shall be."""

    name: Name
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class SchemaFormat(Schema, frozen=True, tag="json_schema", tag_field="type"):
    """Answers in JSON of one shape."""


def format_fields(given: msgspec.Struct, at: str) -> dict[str, Any]:
    """A format as ``Options`` keeps it; ``at`` is its place in the body."""
    fields: dict[str, Any] = present(msgspec.to_builtins(given))
    check_depth(fields, at)
    return fields


def format_body(kept: dict[str, Any] | None) -> dict[str, Any]:
    """The reverse: a format as a response shows it."""
    if kept is None:
        return {"type": "text"}
    if kept["type"] == "json_schema":
        return {"description": None, "strict": False, **kept}
    return kept
