"""Raw JSON schemas: what is wrong with one, and with arguments that do not fit."""

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


def test_a_schema_is_shown_as_it_was_given() -> None:
    given = json.loads(json.dumps(WEATHER))
    made = schema_argument_spec(anything, "t", given)
    given["properties"].clear()
    assert made.schema == WEATHER
    assert made.decode('{"location": "Tokyo", "where": {"x": 1, "y": 2}}') == {
        "location": "Tokyo",
        "where": {"x": 1, "y": 2},
    }


@pytest.mark.parametrize("parameters", [None, {}])
def test_no_schema_is_no_parameters(parameters: dict[str, Any] | None) -> None:
    made = schema_argument_spec(anything, "t", parameters)
    assert made.schema == {"type": "object", "properties": {}}
    assert made.decode("") == {}


@pytest.mark.parametrize(
    ("written", "said"),
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
def test_each_fault_says_which_argument_and_how(written: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidArgumentsError) as raised:
        schema_argument_spec(anything, "t", WEATHER).decode(json.dumps({"location": "x"} | written))
    assert said in str(raised.value)
    assert "secret" not in str(raised.value)


def test_what_is_missing_is_said_once() -> None:
    schema = {"properties": {"at": WEATHER["$defs"]["point"]}, "required": ["at"]}
    made = schema_argument_spec(anything, "t", schema)
    with pytest.raises(InvalidArgumentsError) as raised:
        made.decode('{"at": {}}')
    told = "argument 'at.x' is missing; argument 'at.y' is missing"
    assert str(raised.value) == f"Invalid arguments: {told}."


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"type": "objekt"}, '"type": "object"'),
        ({"type": "string"}, '"type": "object"'),
        ([1], "not a JSON object"),
        ({"properties": {"a": object()}}, "not a JSON object"),
        ({"properties": {"a": {"type": "strng"}}}, r"no JSON schema: properties\.a\.type"),
        ({"properties": {"a": {"$ref": "#/$defs/nowhere"}}}, "nowhere.*not there"),
        ({"properties": {"a": {"$ref": "https://example.com/a"}}}, "example.*not there"),
    ],
)
def test_a_bad_schema_is_refused_at_once(parameters: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        schema_argument_spec(anything, "t", parameters)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_reference_is_never_fetched(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text('{"type": "string"}')
    # Where no keyword of JSON Schema is, references are only met when they are followed.
    schema = {
        "properties": {"a": {"$ref": "#/hidden/b"}},
        "hidden": {"b": {"$ref": elsewhere.as_uri()}},
    }
    with pytest.raises(Unresolvable):
        schema_argument_spec(anything, "t", schema).decode('{"a": "text"}')


def test_a_schema_may_name_an_older_draft() -> None:
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "properties": {"pair": {"items": [{"type": "string"}, {"type": "integer"}]}},
    }
    made = schema_argument_spec(anything, "t", schema)
    assert made.decode('{"pair": ["a", 1]}') == {"pair": ["a", 1]}
    with pytest.raises(InvalidArgumentsError, match=r"pair\[1\]"):
        made.decode('{"pair": ["a", "b"]}')
    with pytest.raises(ConfigError):
        schema_argument_spec(anything, "t", {"properties": schema["properties"]})


def test_a_context_may_be_asked_for_here_too() -> None:
    def take(location: str, ctx: ToolContext[int]) -> None: ...

    assert schema_argument_spec(take, "t", WEATHER).context_parameters == ("ctx",)
