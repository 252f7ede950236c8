"""Structured output: Python types as JSON schemas, and answers parsed to values."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, NamedTuple, NotRequired

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter, field_validator
from typing_extensions import TypedDict

from antiphon.chat.structured_output import OutputSchema
from antiphon.errors import InvalidOutputError, InvalidRequestError
from support.example_counts import examples


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Dish(BaseModel):
    """Something to eat."""

    name: str
    price: float = Field(ge=0, description="in dollars")
    color: Color = Field(Color.RED, description="of the plate")
    since: date | None = None
    kind: Literal["dish"] = "dish"
    tags: list[str] = []


class Menu(BaseModel):
    dishes: list[Dish]
    title: str


class Node(BaseModel):
    value: int
    children: list[Node] = Field([], description="below it")


class Cat(BaseModel):
    name: str
    lives: int = 9


class Dog(BaseModel):
    name: str


class Circle(BaseModel):
    kind: Literal["circle"] = "circle"
    radius: int


class Square(BaseModel):
    kind: Literal["square"] = "square"
    side: int


class Drawing(BaseModel):
    shape: Circle | Square = Field(discriminator="kind")


class Booking(TypedDict):
    guest: str
    nights: NotRequired[int]


@dataclass
class Point:
    x: int
    y: int = 7
    labels: list[str] = field(default_factory=list)


class Range(NamedTuple):
    low: int
    high: int = 10


class Aliased(BaseModel):
    where: str = Field("here", alias="from")


class Even(BaseModel):
    number: int

    @field_validator("number")
    @classmethod
    def even(cls, value: int) -> int:
        if value == 13:
            raise RuntimeError("the validator itself is broken")
        if value % 2:
            raise ValueError("an even number is needed")
        return value


class Free(BaseModel):
    anything: dict[str, int]


STRICT: list[Any] = [
    *(Menu, Node, Drawing, Booking, Point, Range, Aliased, Even),
    *(int, bool, str, Color, list[Dish], Cat | Dog, int | None, set[int], Decimal),
    *(Literal["a", 1, None], tuple[int, ...]),
]
FREE: list[Any] = [Free, dict[str, int], list[dict[str, Any]], tuple[int, str], Any, list]

#: Keywords that strict mode does not allow anywhere in a schema.
REFUSED = {
    *("oneOf", "allOf", "default", "title", "const", "discriminator", "prefixItems"),
    *("minLength", "maxLength", "uniqueItems", "patternProperties"),
}


def schemas(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A schema and all its subschemas."""
    yield schema
    inside = [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values()]
    inside += schema.get("anyOf", [])
    inside += [schema["items"]] if "items" in schema else []
    for one in inside:
        yield from schemas(one)


def object_of(returns: Any) -> dict[str, Any]:
    schema: dict[str, Any] = OutputSchema(returns).text_format["schema"]
    return schema


@pytest.mark.parametrize("returns", STRICT, ids=str)
def test_schemas_are_in_the_strict_subset(returns: Any) -> None:
    form = OutputSchema(returns).text_format
    assert form["type"] == "json_schema"
    assert form["strict"] is True
    assert form["schema"]["type"] == "object"
    jsonschema.Draft202012Validator.check_schema(form["schema"])
    for schema in schemas(form["schema"]):
        assert not REFUSED & schema.keys()
        assert {"$ref", "anyOf", "type"} & schema.keys()
        if "$ref" in schema:
            assert schema.keys() == {"$ref"}
        if schema.get("type") == "object":
            assert schema["additionalProperties"] is False
            assert schema["required"] == list(schema["properties"])


@pytest.mark.parametrize("returns", FREE, ids=str)
def test_types_without_a_strict_schema_are_not_strict(returns: Any) -> None:
    form = OutputSchema(returns).text_format
    assert form["strict"] is False
    assert form["schema"]["type"] == "object"
    jsonschema.Draft202012Validator.check_schema(form["schema"])


def test_text_format_of_a_model() -> None:
    assert OutputSchema(Cat).text_format == {
        "type": "json_schema",
        "name": "Cat",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "lives": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            },
            "required": ["name", "lives"],
            "additionalProperties": False,
        },
    }


def test_descriptions_are_not_next_to_a_reference() -> None:
    schema = object_of(Menu)["$defs"]["Dish"]
    assert schema["description"] == "Something to eat."
    assert schema["properties"]["price"]["description"] == "in dollars"
    assert schema["properties"]["color"] == {
        "description": "of the plate",
        "anyOf": [{"$ref": "#/$defs/Color"}, {"type": "null"}],
    }
    assert OutputSchema(Dish).text_format["description"] == "Something to eat."


def test_constant_is_not_nullable() -> None:
    assert object_of(Circle)["properties"]["kind"] == {"type": "string", "enum": ["circle"]}


def test_unsupported_constraints_move_to_the_description() -> None:
    class Limits(BaseModel):
        code: str = Field(pattern=r"^[A-Z]{3}$", min_length=2)
        loose: str = Field(pattern=r"[a-z]", description="a word")
        day: date
        home: Annotated[str, Field(json_schema_extra={"format": "uri"})]
        some: set[int] = Field(min_length=1)

    properties = object_of(Limits)["properties"]
    assert properties["code"] == {
        "type": "string",
        "pattern": "^[A-Z]{3}$",
        "description": "(minLength: 2)",
    }
    assert properties["loose"] == {"type": "string", "description": "a word (pattern: [a-z])"}
    assert properties["day"] == {"type": "string", "format": "date"}
    assert properties["home"] == {"type": "string", "description": "(format: uri)"}
    assert properties["some"]["minItems"] == 1
    assert properties["some"]["description"] == "(uniqueItems)"


@pytest.mark.parametrize(
    ("returns", "name"),
    [
        (Menu, "Menu"),
        (list[Dish], "list_Dish"),
        (Cat | None, "Cat_None"),
        (type("Größe", (BaseModel,), {}), "Gr_e"),
        (type("Lang" * 30, (BaseModel,), {}), ("Lang" * 30)[:64]),
        (type("ß", (BaseModel,), {}), "answer"),
    ],
)
def test_schema_names_come_from_type_names(returns: Any, name: str) -> None:
    assert OutputSchema(returns).text_format["name"] == name


@pytest.mark.parametrize("returns", [5, "Nowhere", object(), type, Callable[[int], int], {}, None])
def test_type_without_a_schema_is_refused(returns: Any) -> None:
    if returns is None:

        @dataclass
        class Unfinished:
            other: Nowhere  # type: ignore[name-defined]  # noqa: F821

        returns = Unfinished
    with pytest.raises(InvalidRequestError) as caught:
        OutputSchema(returns)
    assert caught.value.param == "returns"
    assert caught.value.message.startswith("There is no schema for ")
    assert "http" not in caught.value.message


VALUES: list[tuple[str, Any, st.SearchStrategy[Any] | None]] = [
    ("model", Menu, st.builds(Menu, dishes=st.lists(st.builds(
        Dish, price=st.floats(0, 1e9), tags=st.lists(st.text(), max_size=2)
    ), max_size=3))),
    ("tree", Node, st.recursive(
        st.builds(Node, value=st.integers()),
        lambda inner: st.builds(
            Node, value=st.integers(), children=st.lists(inner, max_size=3)
        ),
        max_leaves=6,
    )),
    ("typed dict", Booking, st.fixed_dictionaries(
        {"guest": st.text()}, optional={"nights": st.integers()}
    )),
    ("dataclass", Point, st.builds(Point, labels=st.lists(st.text()))),
    ("named tuple", Range, None),
    ("alias", Aliased, st.builds(Aliased, **{"from": st.text()})),
    ("tagged union", Drawing, None),
    # Without "lives" Pydantic reads a dog as a cat here, whoever wrote it.
    ("union", Cat | Dog, st.builds(Cat)),
    ("union, the other way", Dog | Cat, st.builds(Cat) | st.builds(Dog)),
    ("list", list[int], None),
    ("dict", dict[str, list[Color]], None),
    ("optional", int | None, None),
    ("enum", Color, None),
    ("literal", Literal["a", 1, None], st.sampled_from(["a", 1, None])),
    ("text", str, None),
    ("set", set[int], None),
    ("tuple", tuple[int, str], None),
    ("free", Free, None),
]  # fmt: skip
TYPES = {
    name: (returns, st.from_type(returns) if strategy is None else strategy)
    for name, returns, strategy in VALUES
}


def wire(returns: Any, value: Any, draw_null: Callable[[], bool]) -> str:
    """A value as a model writes it: wrapped where asked for, null for some defaults."""
    data = TypeAdapter(returns).dump_python(value, mode="json", by_alias=True)
    if isinstance(value, Range):
        data = value._asdict()
    form = OutputSchema(returns).text_format
    properties = form["schema"].get("properties", {})
    if list(properties) == ["value"] and returns is not Node:
        data = {"value": data}
    if form["strict"]:
        data = complete(data, form["schema"], form["schema"], draw_null)
        jsonschema.validate(data, form["schema"])
    return json.dumps(data)


def complete(data: Any, schema: Any, root: Any, draw_null: Callable[[], bool]) -> Any:
    """Null where a key is missing, as strict models have to write it, and for some defaults."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    for one in schema.get("anyOf", ()):
        try:
            jsonschema.validate(data, {**one, "$defs": root.get("$defs", {})})
        except jsonschema.ValidationError:
            continue
        return complete(data, one, root, draw_null)
    if isinstance(data, list):
        return [complete(one, schema["items"], root, draw_null) for one in data]
    if not isinstance(data, dict):
        return data
    defaults = {"lives": 9, "y": 7, "high": 10, "color": "red", "from": "here"}
    return {
        key: None
        if key not in data or (data[key] == defaults.get(key, ...) and draw_null())
        else complete(data[key], inner, root, draw_null)
        for key, inner in schema["properties"].items()
    }


@settings(max_examples=examples(8), deadline=None)
@given(st.data())
@pytest.mark.parametrize("name", TYPES)
def test_values_round_trip(name: str, data: st.DataObject) -> None:
    returns, strategy = TYPES[name]
    value = data.draw(strategy)
    text = wire(returns, value, lambda: data.draw(st.booleans()))
    assert OutputSchema(returns).parse(text) == value
    assert OutputSchema(returns).parse(f"\n```json\n{text}\n```\n") == value


def is_extension(before: Any, after: Any) -> bool:
    if isinstance(before, dict):
        return before.keys() <= after.keys() and all(
            is_extension(before[k], after[k]) for k in before
        )
    if isinstance(before, list):
        return len(before) <= len(after) and all(map(is_extension, before, after))
    if isinstance(before, str):
        return bool(after.startswith(before))
    return bool(before == after)


@settings(max_examples=examples(8), deadline=None)
@given(st.data())
@pytest.mark.parametrize("name", TYPES)
def test_partial_values_only_grow(name: str, data: st.DataObject) -> None:
    returns, strategy = TYPES[name]
    shape = OutputSchema(returns)
    text = wire(returns, data.draw(strategy), lambda: False)
    whole = json.loads(text)
    if data.draw(st.booleans()):
        text = f"```json\n{text}\n```"
    before = None
    for end in range(len(text) + 1):
        now = shape.parse_partial(text[:end])
        assert before is None or is_extension(before, now), (before, now)
        before = now
    assert before in (whole, whole.get("value"))


@given(st.text(alphabet='{}[]"\\:,0123456789.eE-+ntrufals`\n\ud800x', max_size=30))
def test_any_text_parses_or_raises_invalid_output(text: str) -> None:
    OutputSchema(Menu).parse_partial(text)
    with pytest.raises(InvalidOutputError):
        OutputSchema(Menu).parse(text)


def test_partial_numbers_are_omitted() -> None:
    shape = OutputSchema(list[float])
    assert shape.parse_partial('{"value": [1.5, 12') == [1.5]
    assert shape.parse_partial('{"value": [1.5, 12.25e1, ') == [1.5, 122.5]
    assert OutputSchema(list[str]).parse_partial('{"value": ["a 12') == ["a 12"]
    assert OutputSchema(list[str]).parse_partial(r'{"value": ["\"12') == ['"12']


def test_partial_value_is_none_before_any_data() -> None:
    shape = OutputSchema(list[int])
    for text in ["", " ", "`", "```js", "```json\n", "{", '{"val', '{"value": ', "Sure! ["]:
        assert shape.parse_partial(text) is None


def parse_error(returns: Any, text: str) -> str:
    with pytest.raises(InvalidOutputError) as caught:
        OutputSchema(returns).parse(text)
    assert caught.value.text == text
    return caught.value.message


@pytest.mark.parametrize(
    ("returns", "text", "message"),
    [
        (Menu, "", "The answer is empty."),
        (
            Menu,
            "{",
            "The answer is not valid JSON: EOF while parsing an object at line 1 column 1.",
        ),
        (Menu, "[]", "The answer does not fit Menu: it should be an object."),
        (
            Menu,
            '{"dishes": [{"name": "Soup", "price": "cheap"}]}',
            "The answer does not fit Menu: dishes[0].price should be a valid number, unable to "
            "parse string as a number; title is missing.",
        ),
        (
            list[Dish],
            '{"value": [{"name": null, "price": 1}]}',
            "The answer does not fit list[Dish]: value[0].name should be a valid string.",
        ),
        (
            Even,
            '{"number": 3}',
            "The answer does not fit Even: number: an even number is needed.",
        ),
        (
            Even,
            '{"number": 13}',
            "The answer does not fit Even: RuntimeError: the validator itself is broken.",
        ),
        (
            Cat | Dog,
            '{"value": {"title": "x"}}',
            "The answer does not fit Cat | Dog: value.name is missing.",
        ),
        (
            list[int],
            '{"value": ["a","b","c","d","e","f","g"]}',
            "The answer does not fit list[int]: "
            + "".join(
                f"value[{n}] should be a valid integer, unable to parse string as an integer; "
                for n in range(5)
            )
            + "and 2 more.",
        ),
    ],
)  # fmt: skip
def test_parse_errors_name_the_location(returns: Any, text: str, message: str) -> None:
    assert parse_error(returns, text) == message


def test_parse_errors_do_not_repeat_the_answer() -> None:
    secret = "x" * 500
    message = parse_error(Menu, json.dumps({"dishes": secret, "title": [secret]}))
    assert secret not in message
    assert "http" not in message
    assert len(message) < 300


def test_null_becomes_the_default_only_if_null_is_not_valid() -> None:
    class Maybe(BaseModel):
        count: int = 3
        note: str | None = "none given"

    assert OutputSchema(Maybe).parse('{"count": null, "note": null}') == Maybe(count=3, note=None)
    assert parse_error(Menu, '{"dishes": [], "title": null}').endswith(
        "title should be a valid string."
    )
    assert OutputSchema(Booking).parse('{"guest": "Ann", "nights": null}') == {"guest": "Ann"}


def test_null_for_a_default_keeps_the_union_member() -> None:
    shape = OutputSchema[Any](Dog | Cat)
    assert shape.parse('{"value": {"name": "Tom", "lives": null}}') == Cat(name="Tom")
    assert shape.parse('{"value": {"name": "Rex"}}') == Dog(name="Rex")


def test_answer_without_the_wrapper_is_accepted() -> None:
    assert OutputSchema(list[int]).parse("[1, 2]") == [1, 2]


def test_strict_pydantic_types_parse_json_values() -> None:
    class Visit(BaseModel, strict=True):
        day: date

    day = OutputSchema(Visit).parse('{"day": "2026-02-03"}').day
    assert day == date(2026, 2, 3)


def test_repair_prompt_names_the_error() -> None:
    with pytest.raises(InvalidOutputError) as caught:
        OutputSchema(Menu).parse("{}")
    note = OutputSchema(Menu).repair_prompt(caught.value)
    assert note.startswith(caught.value.message)
    assert "Answer again" in note


def test_pydantic_is_imported_on_first_use() -> None:
    code = (
        "import sys\nfrom antiphon.chat.structured_output import OutputSchema\n"
        "assert 'pydantic' not in sys.modules\nOutputSchema(int)\nassert 'pydantic' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
