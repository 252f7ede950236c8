"""Typed functions: the generated schema, and decoding of arguments."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
from collections.abc import Callable
from typing import Annotated, Any, Literal, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ConfigDict, Field, RootModel
from typing_extensions import TypedDict

from antiphon.errors import ConfigError
from antiphon.tools.tool_outputs import InvalidArgumentsError
from antiphon.tools.typed_tool import typed_argument_spec


class Priority(enum.Enum):
    low = "low"
    high = "high"


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Size(TypedDict):
    width: int


class CreateCustomerTicketRequest(BaseModel):
    name: str
    issue: str


class Strict(BaseModel):
    """Said of the model."""

    model_config = ConfigDict(strict=True)

    day: datetime.date
    level: Literal[1, 2] = 1


class Words(RootModel[list[str]]): ...


class Unready(BaseModel):
    later: Later  # type: ignore[name-defined]  # noqa: F821


def everything(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    text: str,
    number: Annotated[int, "A count."],
    ratio: Annotated[float, Field(ge=0, le=1, description="A share.")],
    maybe: Optional[str],  # noqa: UP045 - as many still write it
    kind: Literal["a", "b"],
    priority: Priority,
    point: Point,
    size: Size,
    ticket: CreateCustomerTicketRequest,
    words: list[str],
    table: dict[str, int],
    when: datetime.datetime,
    either: int | list[int],
    anything,
    on: bool = True,
) -> None:
    """Take everything."""


def request(request: CreateCustomerTicketRequest):  # type: ignore[no-untyped-def]
    return request


VALUES: dict[str, Any] = {
    "text": "t",
    "number": 1,
    "ratio": 0.5,
    "maybe": None,
    "kind": "a",
    "priority": "high",
    "point": {"x": 1},
    "size": {"width": 2},
    "ticket": {"name": "n", "issue": "i"},
    "words": ["w"],
    "table": {"k": 1},
    "when": "2026-01-02T03:04:05Z",
    "either": [1],
    "anything": {"x": [None]},
}


def decode(function: Callable[..., Any], **arguments: Any) -> dict[str, Any]:
    return typed_argument_spec(function, "t", {}).decode(json.dumps(arguments))


def decode_error(function: Callable[..., Any], **arguments: Any) -> str:
    with pytest.raises(InvalidArgumentsError) as raised:
        decode(function, **arguments)
    return str(raised.value)


def test_arguments_are_converted_to_the_annotated_types() -> None:
    assert decode(everything, **VALUES) == VALUES | {
        "priority": Priority.high,
        "point": Point(1),
        "ticket": CreateCustomerTicketRequest(name="n", issue="i"),
        "when": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
    }


def test_schema_has_no_titles_and_no_additional_properties() -> None:
    schema = typed_argument_spec(everything, "t", {}).schema
    Draft202012Validator.check_schema(schema)
    assert list(schema["properties"]) == [*VALUES, "on"]
    assert schema["required"] == list(VALUES)
    assert schema["additionalProperties"] is False
    assert set(schema["$defs"]) == {"Priority", "Point", "Size", "CreateCustomerTicketRequest"}
    assert '"title"' not in json.dumps(schema)
    assert schema["properties"]["number"] == {"type": "integer", "description": "A count."}
    assert schema["properties"]["ratio"]["description"] == "A share."
    assert schema["properties"]["anything"] == {}
    assert schema["properties"]["on"] == {"type": "boolean", "default": True}
    assert schema == typed_argument_spec(everything, "t", {}).schema


WRONG = [[], {}, 3.5, "z", None, {"x": "y"}]


@given(st.sampled_from([*VALUES, "on", "other"]), st.sampled_from([*VALUES.values(), *WRONG]))
def test_arguments_valid_by_the_schema_are_decoded(name: str, value: Any) -> None:
    spec = typed_argument_spec(everything, "t", {})
    arguments = VALUES | {name: value}
    # The reverse does not hold: "3" is accepted for 3.
    if Draft202012Validator(spec.schema).is_valid(arguments) and name != "when":
        spec.decode(json.dumps(arguments))
    else:
        assert name not in ("maybe", "anything") or value not in ("z", None)


@pytest.mark.parametrize("name", VALUES)
def test_missing_arguments_are_invalid_by_the_schema(name: str) -> None:
    spec = typed_argument_spec(everything, "t", {})
    validator = Draft202012Validator(spec.schema)
    assert validator.is_valid(VALUES)
    without = {key: value for key, value in VALUES.items() if key != name}
    assert not validator.is_valid(without)
    assert (
        decode_error(everything, **without) == f"Invalid arguments: argument '{name}' is missing."
    )


def test_single_model_parameter_is_the_request() -> None:
    spec = typed_argument_spec(request, "t", {})
    schema = CreateCustomerTicketRequest.model_json_schema()
    assert spec.schema == {
        "type": "object",
        "properties": {"name": {"type": "string"}, "issue": {"type": "string"}},
        "required": schema["required"],
    }
    given = CreateCustomerTicketRequest(name="Omar", issue="no login")
    assert spec.decode('{"name": "Omar", "issue": "no login"}') == {"request": given}
    assert decode_error(request, name="Omar") == "Invalid arguments: argument 'issue' is missing."


def test_single_model_keeps_its_config() -> None:
    def book(request: Annotated[Strict, "note"]) -> None: ...

    spec = typed_argument_spec(book, "t", {"Strict": Strict})
    # A strict model accepts a date only as text in JSON.
    assert spec.decode('{"day": "2026-01-02"}') == {
        "request": Strict(day=datetime.date(2026, 1, 2))
    }
    assert spec.description == "Said of the model."
    with pytest.raises(InvalidArgumentsError, match="argument 'level' should be 1 or 2"):
        spec.decode('{"day": "2026-01-02", "level": 3}')


def test_model_among_several_parameters_is_an_argument() -> None:
    def both(ticket: CreateCustomerTicketRequest, note: str = "") -> None: ...

    def words(words: Words) -> None: ...

    assert list(typed_argument_spec(both, "t", {}).schema["properties"]) == ["ticket", "note"]
    # Arguments are an object, so a list is wrapped in one.
    assert decode(words, words=["a"]) == {"words": Words(["a"])}


def test_defaults_come_from_the_function() -> None:
    nothing = object()

    def search(
        text: str = None,  # type: ignore[assignment]  # noqa: RUF013 - as many write it
        most: int = Field(10, description="How many."),
        other: Any = nothing,
        *,
        tags: list[str] = [],  # noqa: B006
    ) -> None: ...

    spec = typed_argument_spec(search, "t", {})
    assert "required" not in spec.schema
    assert spec.decode("") == {"most": 10}
    assert spec.decode('{"text": null, "tags": ["a"]}') == {"text": None, "most": 10, "tags": ["a"]}
    assert spec.defaults == {"text": None, "other": nothing, "tags": []}
    assert spec.schema["properties"]["most"] == {
        "type": "integer",
        "default": 10,
        "description": "How many.",
    }


def test_any_parameter_name_is_supported() -> None:
    def odd(json: int, _x: int, model_config: int, copy: int, p0: int, self: int) -> None: ...

    names = {"json": 1, "_x": 2, "model_config": 3, "copy": 4, "p0": 5, "self": 6}
    assert decode(odd, **names) == names
    assert list(typed_argument_spec(odd, "t", {}).schema["properties"]) == list(names)


def test_field_alias_is_the_argument_name() -> None:
    def send(from_: Annotated[str, Field(alias="from")]) -> None: ...

    assert typed_argument_spec(send, "t", {}).schema["required"] == ["from"]
    assert decode(send, **{"from": "bob"}) == {"from_": "bob"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"number": "x"}, "argument 'number' should be a valid integer"),
        ({"ratio": 7}, "argument 'ratio' should be less than or equal to 1"),
        ({"priority": "urgent"}, "argument 'priority' should be 'low' or 'high'"),
        ({"point": {"x": []}}, "argument 'point.x' should be a valid integer"),
        ({"size": {}}, "argument 'size.width' is missing"),
        ({"words": ["a", 2]}, "argument 'words[1]' should be a valid string"),
        ({"either": ["a"]}, "argument 'either[0]' should be a valid integer"),
        ({"either": "secret"}, "argument 'either' should be a valid array"),
        ({"surplus": 1}, "there is no argument 'surplus'"),
        ({"when": "secret"}, "argument 'when' should be a valid datetime"),
    ],
)
def test_each_error_names_its_argument_and_reason(arguments: dict[str, Any], expected: str) -> None:
    error = decode_error(everything, **(VALUES | arguments))
    assert expected in error
    assert "secret" not in error
    assert "http" not in error


def test_validator_message_is_passed_on() -> None:
    def even(value: int) -> int:
        if value % 2:
            raise ValueError("must be even.")
        return value

    from pydantic import AfterValidator  # loaded on first use

    def take(n: Annotated[int, AfterValidator(even)]) -> None: ...

    spec = typed_argument_spec(take, "t", {"AfterValidator": AfterValidator, "even": even})
    with pytest.raises(InvalidArgumentsError, match=r"arguments: argument 'n': must be even\.$"):
        spec.decode('{"n": 3}')


def test_too_deeply_nested_arguments_are_refused() -> None:
    def take(x: Any) -> None: ...

    with pytest.raises(InvalidArgumentsError):
        typed_argument_spec(take, "t", {}).decode('{"x": ' + "[" * 500 + "]" * 500 + "}")


class Opaque: ...


def opaque(fine: int, bad: Opaque) -> None: ...


def function_argument(bad: Callable[[int], int]) -> None: ...


def no_type(bad: 3) -> None:  # type: ignore[valid-type]
    ...


@pytest.mark.parametrize("function", [opaque, function_argument, no_type])
def test_type_without_a_schema_is_refused_by_name(function: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=r"^Tool 't': parameter 'bad' \(\w+\)"):
        typed_argument_spec(function, "t", {})


def test_undefined_type_raises_name_error() -> None:
    def early(x: Unready, y: int) -> None: ...

    with pytest.raises(NameError, match="within its parameters"):
        typed_argument_spec(early, "t", {})
