"""Function schemas: completed where strict upstreams want it, and arguments that are objects."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.core.function_schemas import (
    complete_parameters,
    complete_schema,
    map_schemas,
    to_json_object,
)
from support.example_counts import examples

EMPTY = {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    ("given_schema", "completed"),
    [
        (None, EMPTY),
        ({}, EMPTY),
        ({"type": "object"}, EMPTY),
        ({"type": "object", "properties": None}, EMPTY),
        ({"properties": {"a": {}}}, {"type": "object", "properties": {"a": {}}}),
        ({"description": "None."}, {"type": "object", "description": "None.", "properties": {}}),
        ({"type": ["object", "null"]}, {"type": ["object", "null"], "properties": {}}),
        ({"anyOf": [{"type": "object"}]}, {"anyOf": [EMPTY]}),
        (
            {"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}},
            {"$ref": "#/$defs/a", "$defs": {"a": EMPTY}},
        ),
        (
            {"type": "object", "properties": {"type": {"type": "array"}}},
            {"type": "object", "properties": {"type": {"type": "array", "items": {}}}},
        ),
        (
            {**EMPTY, "properties": {"a": {"type": "array", "items": {"type": "array"}}}},
            {
                **EMPTY,
                "properties": {"a": {"type": "array", "items": {"type": "array", "items": {}}}},
            },
        ),
        (
            {**EMPTY, "additionalProperties": {"type": "array"}},
            {**EMPTY, "additionalProperties": {"type": "array", "items": {}}},
        ),
        # Values are not schemas.
        (
            {**EMPTY, "default": {"type": "object"}, "examples": [{"type": "array"}]},
            {**EMPTY, "default": {"type": "object"}, "examples": [{"type": "array"}]},
        ),
        (
            {
                **EMPTY,
                "properties": {"a": {"enum": [{"type": "object"}], "const": {"type": "array"}}},
            },
            {
                **EMPTY,
                "properties": {"a": {"enum": [{"type": "object"}], "const": {"type": "array"}}},
            },
        ),
        (
            {**EMPTY, "properties": {"a": {"type": "array", "prefixItems": [{"type": "object"}]}}},
            {**EMPTY, "properties": {"a": {"type": "array", "prefixItems": [EMPTY]}}},
        ),
    ],
)
def test_schemas_are_completed(given_schema: Any, completed: Any) -> None:
    before = copy.deepcopy(given_schema)
    assert complete_schema(given_schema) == completed
    assert given_schema == before
    for _ in range(2):
        assert json.loads(bytes(complete_parameters(given_schema))) == completed
    assert complete_schema(completed) == completed


def test_large_and_deep_schemas_are_completed() -> None:
    large = {"type": "object", "description": "x" * 20_000}
    assert json.loads(bytes(complete_parameters(large))) == {**large, "properties": {}}
    deep: dict[str, Any] = {"type": "object"}
    for _ in range(400):
        deep = {"type": "array", "items": deep}
    assert json.loads(bytes(complete_parameters(deep)))["items"]


def test_every_schema_is_visited_once() -> None:
    schema = {"title": "1", "items": [{"title": "2"}], "not": {"title": "3"}, "if": True}
    titles: list[str] = []

    def visit(one: dict[str, Any]) -> dict[str, Any]:
        titles.append(one["title"])
        return one

    assert map_schemas(schema, visit) == schema
    assert sorted(titles) == ["1", "2", "3"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(max_examples=examples(8))
@given(st.dictionaries(st.text(), JSON).map(json.dumps))
def test_json_object_arguments_are_unchanged(arguments: str) -> None:
    assert to_json_object(arguments) == arguments


@given(st.text() | JSON.map(json.dumps))
def test_other_arguments_are_wrapped_in_an_object(arguments: str) -> None:
    decoded = json.loads(to_json_object(arguments))
    assert isinstance(decoded, dict)
    if to_json_object(arguments) != arguments:
        assert (
            arguments in decoded.values()
            or arguments.strip() in ("", "null", "[]")
            or json.loads(json.loads(arguments)) == decoded
        )
