"""Tools with raw JSON schemas: invalid schemas, and invalid arguments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from referencing.exceptions import Unresolvable

from antiphon.errors import ConfigError
from antiphon.tools.json_schema_tool import schema_argument_spec
from antiphon.tools.tool_context import ToolContext
from antiphon.tools.tool_outputs import InvalidArgumentsError

WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "location": {"type": "string", "description": "City name, e.g. San Francisco"},
        "days": {"type": "integer", "minimum": 1},
        "unit": {"enum": ["C", "F"]},
        "exact": {"const": True},
        "where": {"anyOf": [{"type": "number"}, {"$ref": "#/$defs/point"}]},
        "many": {"type": ["array", "null"], "items": {"oneOf": [{}, {"type": "string"}]}},
    },
    "required": ["location"],
    "additionalProperties": False,
    "$defs": {"point": {"type": "object", "required": ["x", "y"]}},
}


def anything(**arguments: Any) -> None: ...


def test_schema_is_unchanged() -> None:
    given = json.loads(json.dumps(WEATHER))
    spec = schema_argument_spec(anything, "t", given)
    given["properties"].clear()
    assert spec.schema == WEATHER
    assert spec.decode('{"location": "Tokyo", "where": {"x": 1, "y": 2}}') == {
        "location": "Tokyo",
        "where": {"x": 1, "y": 2},
    }


@pytest.mark.parametrize("parameters", [None, {}])
def test_missing_schema_means_no_parameters(parameters: dict[str, Any] | None) -> None:
    spec = schema_argument_spec(anything, "t", parameters)
    assert spec.schema == {"type": "object", "properties": {}}
    assert spec.decode("") == {}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"location": None}, "argument 'location' should be of type string"),
        ({"many": 1}, "argument 'many' should be of type array or null"),
        ({"days": 0}, "argument 'days' should keep to minimum: 1"),
        ({"unit": "secret"}, """argument 'unit' should be one of ["C","F"]"""),
        ({"exact": False}, "argument 'exact' should be true"),
        ({"where": "secret"}, "argument 'where' has none of the allowed shapes"),
        ({"many": ["secret"]}, "argument 'many[0]' does not have exactly one of the allowed"),
        ({"wrong": "secret", "more": 1}, "no argument 'wrong' and no argument 'more'"),
    ],
)
def test_each_error_names_its_argument_and_reason(arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(InvalidArgumentsError) as raised:
        schema_argument_spec(anything, "t", WEATHER).decode(
            json.dumps({"location": "x"} | arguments)
        )
    assert expected in str(raised.value)
    assert "secret" not in str(raised.value)


def test_missing_arguments_are_named_once() -> None:
    schema = {"properties": {"at": WEATHER["$defs"]["point"]}, "required": ["at"]}
    spec = schema_argument_spec(anything, "t", schema)
    with pytest.raises(InvalidArgumentsError) as raised:
        spec.decode('{"at": {}}')
    expected = "argument 'at.x' is missing; argument 'at.y' is missing"
    assert str(raised.value) == f"Invalid arguments: {expected}."


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"type": "objekt"}, '"type": "object"'),
        ({"type": "string"}, '"type": "object"'),
        ([1], "not a JSON object"),
        ("object", "not a JSON object"),
        ({"properties": {"a": object()}}, "not a JSON object"),
        ({"properties": {"a": {"type": "strng"}}}, r"no JSON schema: properties\.a\.type"),
        ({"properties": {"a": {"$ref": "#/$defs/nowhere"}}}, "nowhere.*not there"),
        ({"properties": {"a": {"$ref": "https://example.com/a"}}}, "example.*not there"),
    ],
)
def test_invalid_schema_is_refused(parameters: Any, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        schema_argument_spec(anything, "t", parameters)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_external_reference_is_never_fetched(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text('{"type": "string"}')
    # References under unknown keywords are only resolved when they are followed.
    schema = {
        "properties": {"a": {"$ref": "#/hidden/b"}},
        "hidden": {"b": {"$ref": elsewhere.as_uri()}},
    }
    with pytest.raises(Unresolvable):
        schema_argument_spec(anything, "t", schema).decode('{"a": "text"}')


def test_older_schema_draft_is_supported() -> None:
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "properties": {"pair": {"items": [{"type": "string"}, {"type": "integer"}]}},
    }
    spec = schema_argument_spec(anything, "t", schema)
    assert spec.decode('{"pair": ["a", 1]}') == {"pair": ["a", 1]}
    with pytest.raises(InvalidArgumentsError, match=r"pair\[1\]"):
        spec.decode('{"pair": ["a", "b"]}')
    with pytest.raises(ConfigError):
        schema_argument_spec(anything, "t", {"properties": schema["properties"]})


def test_context_parameter_is_recognized() -> None:
    def take(location: str, ctx: ToolContext[int]) -> None: ...

    assert schema_argument_spec(take, "t", WEATHER).context_parameters == ("ctx",)
