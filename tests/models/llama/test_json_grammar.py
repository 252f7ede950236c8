from typing import Any

import pytest

from antiphon.models.llama.json_grammar import MAX_LIST_LENGTH, MAX_STRING_LENGTH, bound_schema

OPEN = {"type": "string"}
CLOSED = {"type": "string", "maxLength": MAX_STRING_LENGTH}


@pytest.mark.parametrize(
    ("schema", "made"),
    [
        (OPEN, CLOSED),
        (
            {"type": ["string", "null"]},
            {"type": ["string", "null"], "maxLength": MAX_STRING_LENGTH},
        ),
        ({"type": "string", "format": "email"}, CLOSED),
        (
            {"type": "string", "minLength": 900},
            {"type": "string", "minLength": 900, "maxLength": 900},
        ),
        (
            {"type": "array", "items": OPEN},
            {"type": "array", "items": CLOSED, "maxItems": MAX_LIST_LENGTH},
        ),
        ({"properties": {"type": OPEN}}, {"properties": {"type": CLOSED}}),
        (
            {"$defs": {"A": OPEN}, "$ref": "#/$defs/A"},
            {"$defs": {"A": CLOSED}, "$ref": "#/$defs/A"},
        ),
        ({"anyOf": [OPEN, {"type": "null"}]}, {"anyOf": [CLOSED, {"type": "null"}]}),
        ({"type": "object"}, {"type": "object", "properties": {}, "additionalProperties": False}),
        (
            {"type": "object", "additionalProperties": OPEN},
            {"type": "object", "additionalProperties": CLOSED},
        ),
    ],
)
def test_what_is_open_gets_an_end(schema: dict[str, Any], made: dict[str, Any]) -> None:
    before = repr(schema)
    assert bound_schema(schema) == made
    assert repr(schema) == before


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "maxLength": 5000},
        {"type": "string", "enum": ["a"]},
        {"type": "string", "pattern": "^a*$"},
        {"type": "string", "format": "date"},
        {"type": "array", "items": {"type": "integer"}, "maxItems": 99},
        {"type": "integer"},
        {"enum": [{"type": "string"}]},
        {"default": {"type": "string"}},
    ],
)
def test_what_has_an_end_or_is_no_schema_stays(schema: dict[str, Any]) -> None:
    assert bound_schema(schema) == schema
