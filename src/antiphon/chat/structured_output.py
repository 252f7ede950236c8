"""Structured output: a Python type as a strict JSON schema, and the answer as its value."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_origin

from antiphon.errors import InvalidOutputError, InvalidRequestError

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
    from pydantic_core.core_schema import NamedTupleSchema
    from typing_extensions import TypeForm

T = TypeVar("T")

#: What an answer that is no object is wrapped in: strict models write objects only.
_WRAPPER_KEY = "value"

#: Keywords that strict models take as they are.
_SUPPORTED_KEYWORDS = frozenset(
    (
        *("type", "description", "minItems", "maxItems", "multipleOf"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    )
)
#: What they have to be told in words, but for these formats and patterns.
_DESCRIBED_KEYWORDS = ("minLength", "maxLength", "uniqueItems", "format", "pattern")
_FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid")
)
#: Patterns of the whole text, without lookaround: one model or another refuses the rest.
_PATTERN = re.compile(r"\^(?:[^(]|\((?!\?)|\(\?:)*\$")

_NULL = {"type": "null"}
_JSON_TYPES: dict[type, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
    dict: "object",
    list: "array",
}

_FENCE = re.compile(r"\A```[^\n`]*\n(.*?)\n?[ \t]*```\Z", re.DOTALL)
_FENCE_START = re.compile(r"\A`{1,3}\Z|\A```[^\n`]*(?:\n|\Z)")
_QUOTE = re.compile(r'\\.|"', re.DOTALL)

#: How many faults a sentence names, and how many characters it spends on one.
_MAX_ERRORS = 5
_MAX_ERROR_LENGTH = 200


class _FreeFormSchemaError(Exception):
    """The type allows what no strict schema can describe."""


class OutputSchema(Generic[T]):
    """What an answer has to look like: ``returns`` is any type that Pydantic knows.

    ``text_format`` is what ``Options.text_format`` holds. Its schema is in the subset
    that OpenAI and xAI demand of strict schemas: all properties are required (those
    with a default may be null, which stands for it), and the root is an object (other
    types are wrapped in one). A type that allows free-form parts has ``strict`` False
    and its plain schema. Pydantic checks each answer whole, either way.

    Raises ``InvalidRequestError`` (param ``returns``) for a type that has no schema.
    """

    def __init__(self, returns: TypeForm[T]) -> None:
        from pydantic import TypeAdapter  # loaded on first use

        try:
            self._adapter: TypeAdapter[T] = TypeAdapter(returns)
            schema = self._adapter.json_schema(schema_generator=_generator())
        except Exception as error:
            # Most are Pydantic's own; for what is no type at all it may stumble.
            # What follows the first sentence is advice on Pydantic's own settings.
            why = str(error).split("\n", 1)[0].split(". ", 1)[0].rstrip(".")
            hint = (
                ""
                if _is_type(returns)
                else " returns= takes a type, such as a model's class or list[int]."
            )
            raise InvalidRequestError(
                f"There is no schema for {_type_name(returns)}: {why}.{hint}", param="returns"
            ) from error
        self._type_name = _type_name(returns)
        self._definitions: dict[str, Any] = schema.pop("$defs", {})
        root = self._resolve(schema)
        self._is_wrapped = root.get("type") != "object"
        if self._is_wrapped:
            root = {
                "type": "object",
                "properties": {_WRAPPER_KEY: schema},
                "required": [_WRAPPER_KEY],
            }
        self._schema = schema
        plain = {**root, "$defs": self._definitions} if self._definitions else root
        try:
            found, strict = _strict_root(plain), True
        except _FreeFormSchemaError:
            found, strict = plain, False
        self.text_format: dict[str, Any] = {
            "type": "json_schema",
            "name": re.sub(r"[^a-zA-Z0-9_-]+", "_", self._type_name).strip("_")[:64] or "answer",
            "schema": found,
            "strict": strict,
        }
        if about := self._resolve(schema).get("description"):
            self.text_format["description"] = about

    def parse(self, text: str) -> T:
        """The answer as a value. Raises ``InvalidOutputError`` that says what is wrong with it."""
        from pydantic import ValidationError  # loaded on first use
        from pydantic_core import from_json, to_json  # loaded on first use

        bare = text.strip()
        if fenced := _FENCE.match(bare):
            bare = fenced[1]
        try:
            data = from_json(bare)
        except (ValueError, TypeError) as error:
            why = f"is not valid JSON: {error}" if bare else "is empty"
            raise InvalidOutputError(f"The answer {why}.", text=text) from error
        inner, at = data, ""
        if self._is_wrapped and isinstance(data, dict) and data.keys() == {_WRAPPER_KEY}:
            inner, at = data[_WRAPPER_KEY], _WRAPPER_KEY
        filled = self._restore_defaults(inner, self._schema)
        try:
            # JSON again, not Python: only then is "2026-01-01" a date for strict types too.
            return self._adapter.validate_json(to_json(filled, inf_nan_mode="constants"))
        except ValidationError as error:
            errors = _format_errors(error, filled, at)
            raise InvalidOutputError(
                f"The answer does not fit {self._type_name}: {errors}.", text=text
            ) from error
        except Exception as error:
            # A validator of the type's own gave up on this answer.
            why = _one_line(f"{type(error).__name__}: {error}")
            raise InvalidOutputError(
                f"The answer does not fit {self._type_name}: {why}.", text=text
            ) from error

    def parse_partial(self, text: str) -> Any | None:
        """The data so far of an answer that is still being written; None: nothing yet.

        Plain lists, dicts and so on, not checked. Texts grow; numbers are there when
        they are whole.
        """
        from pydantic_core import from_json  # loaded on first use

        text = _FENCE_START.sub("", text.lstrip())
        if text[-1:].isdigit() and not _inside_string(text):
            text = text.rstrip("0123456789+-.eE")
        try:
            data = from_json(text, allow_partial="trailing-strings")
        except (ValueError, TypeError):
            # Half a surrogate pair is a TypeError.
            return None
        if self._is_wrapped and isinstance(data, dict) and data.keys() <= {_WRAPPER_KEY}:
            return data.get(_WRAPPER_KEY)
        return data

    def repair_prompt(self, error: InvalidOutputError) -> str:
        """What to say to a model so that it answers again, and better."""
        return (
            f"{error.message} Answer again: the whole answer, corrected, "
            "as JSON that fits the schema, and nothing else."
        )

    def _resolve(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        while "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            schema = self._definitions[name.replace("~1", "/").replace("~0", "~")]
        return dict(schema)

    def _restore_defaults(
        self, data: Any, schema: Mapping[str, Any], *, is_branch: bool = False
    ) -> Any:
        """Data without the nulls that stand for defaults.

        ``is_branch``: the schema is one of several. Then the default itself is put there,
        since Pydantic tells the members of a union by the fields that are given.
        """
        schema = self._resolve(schema)
        if branches := schema.get("anyOf") or schema.get("oneOf"):
            fitting = [one for one in branches if self._matches(data, one)]
            best: Mapping[str, Any] = min(
                fitting, key=lambda one: self._distance(data, one), default={}
            )
            return self._restore_defaults(data, best, is_branch=True)
        if isinstance(data, list) and isinstance(schema.get("items"), dict):
            return [self._restore_defaults(one, schema["items"]) for one in data]
        if not isinstance(data, dict):
            return data
        properties = schema.get("properties", {})
        others = schema.get("additionalProperties")
        filled = {}
        for key, value in data.items():
            inner = properties.get(key, others if isinstance(others, dict) else {})
            optional = key in properties and key not in schema.get("required", ())
            if value is not None or not optional or self._matches(None, inner):
                filled[key] = self._restore_defaults(value, inner)
            elif is_branch and inner.get("default") is not None:
                filled[key] = inner["default"]
        return filled

    def _matches(self, data: Any, schema: Mapping[str, Any]) -> bool:
        """Whether data may be meant for a schema, as far as its outside tells."""
        schema = self._resolve(schema)
        if branches := schema.get("anyOf") or schema.get("oneOf"):
            return any(self._matches(data, one) for one in branches)
        if "const" in schema:
            return bool(data == schema["const"])
        if "enum" in schema:
            return data in schema["enum"]
        kinds = schema.get("type", ())
        kinds = {kinds} if isinstance(kinds, str) else set(kinds)
        kind = _JSON_TYPES[type(data)]
        if kinds and kind not in kinds and not (kind == "integer" and "number" in kinds):
            return False
        if not isinstance(data, dict):
            return True
        tags = {
            key: value
            for key, value in schema.get("properties", {}).items()
            if "const" in value or "enum" in value
        }
        return data.keys() >= set(schema.get("required", ())) and all(
            data[key] is None or self._matches(data[key], tag)
            for key, tag in tags.items()
            if key in data
        )

    def _distance(self, data: Any, schema: Mapping[str, Any]) -> int:
        """How many keys a dict has too many or too few for a schema."""
        if not isinstance(data, dict):
            return 0
        return len(data.keys() ^ self._resolve(schema).get("properties", {}).keys())


@cache
def _generator() -> type[GenerateJsonSchema]:
    """Pydantic's schema generator, for what a model should write."""
    from pydantic.json_schema import GenerateJsonSchema  # loaded on first use

    class Generator(GenerateJsonSchema):
        # A default that JSON cannot hold is no reason to warn: only Python needs it.
        ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012

        def named_tuple_schema(self, schema: NamedTupleSchema) -> JsonSchemaValue:
            """An object: Pydantic reads both, and a model does better with names."""
            array = super().named_tuple_schema(schema)
            names = [
                alias if isinstance(alias := field.get("validation_alias"), str) else field["name"]
                for field in schema["fields"]
            ]
            return {
                "type": "object",
                "properties": dict(zip(names, array.get("prefixItems", ()), strict=True)),
                "required": names[: array.get("minItems", 0)],
            }

    return Generator


def _strict_root(schema: Mapping[str, Any]) -> dict[str, Any]:
    strict = _strict(schema)
    if "$defs" in schema:
        strict["$defs"] = {name: _strict(one) for name, one in schema["$defs"].items()}
    return strict


def _strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema in the strict subset. Raises ``_FreeFormSchemaError`` where there is none.

    What the subset lacks is told in the description, or left to Pydantic to check.
    """
    strict = {key: schema[key] for key in schema if key in _SUPPORTED_KEYWORDS}
    if constraints := _describe_constraints(schema, strict):
        strict["description"] = f"{strict.get('description', '')} ({constraints})".lstrip()
    branches = schema.get("anyOf") or schema.get("oneOf")
    if "$ref" in schema:
        # Nothing may stand beside a reference, so a description goes around it.
        branch = {"$ref": schema["$ref"]}
        return {**strict, "anyOf": [branch]} if strict else branch
    if "const" in schema or "enum" in schema:
        strict["enum"] = values = schema.get("enum", [schema.get("const")])
        strict["type"] = _json_types(values)
    elif branches:
        strict["anyOf"] = [_strict(one) for one in branches]
    elif "type" not in schema:
        raise _FreeFormSchemaError
    if schema.get("type") == "object":
        _close_object(strict, schema)
    if schema.get("type") == "array":
        if not isinstance(schema.get("items"), dict) or "prefixItems" in schema:
            raise _FreeFormSchemaError
        strict["items"] = _strict(schema["items"])
    return strict


def _close_object(strict: dict[str, Any], schema: Mapping[str, Any]) -> None:
    """Make an object's schema name all that may be in it, and demand all of it."""
    free = schema.get("additionalProperties", False) is not False
    if free or "properties" not in schema or "patternProperties" in schema:
        raise _FreeFormSchemaError
    required = schema.get("required", ())
    strict["properties"] = {
        # A constant has one value: with null as well, it could not tell a union's members.
        name: _strict(one) if name in required or "const" in one else _nullable(_strict(one))
        for name, one in schema["properties"].items()
    }
    strict["required"] = list(strict["properties"])
    strict["additionalProperties"] = False


def _describe_constraints(schema: Mapping[str, Any], strict: dict[str, Any]) -> str:
    """What the model has to be told; formats and patterns that need no telling are kept."""
    constraints = []
    for key in _DESCRIBED_KEYWORDS:
        value = schema.get(key)
        if (key == "format" and value in _FORMATS) or (
            key == "pattern" and value is not None and _PATTERN.fullmatch(value)
        ):
            strict[key] = value
        elif value is not None:
            constraints.append(key if value is True else f"{key}: {value}")
    return ", ".join(constraints)


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    branches = schema.get("anyOf", [schema])
    if any(one.get("type") == "null" or None in one.get("enum", ()) for one in branches):
        return schema
    if "anyOf" in schema:
        return {**schema, "anyOf": [*branches, _NULL]}
    about = {key: schema[key] for key in schema if key == "description"}
    bare = {key: schema[key] for key in schema if key != "description"}
    return {"anyOf": [bare, _NULL], **about}


def _json_types(values: Sequence[Any]) -> str | list[str]:
    """The JSON type of an enum's values, or their types."""
    kinds = list(dict.fromkeys(_JSON_TYPES.get(type(value), "object") for value in values))
    if "object" in kinds or "array" in kinds:
        raise _FreeFormSchemaError
    return kinds[0] if len(kinds) == 1 else kinds


def _type_name(returns: Any) -> str:
    """A type's name as people say it: ``list[Item]``, without the modules."""
    name = returns.__name__ if isinstance(returns, type) else repr(returns)
    return re.sub(r"(?:[A-Za-z_<][\w<>]*\.)+", "", _one_line(name))


def _is_type(returns: Any) -> bool:
    """Whether it is a class or made of some, as ``list[int]`` and ``int | None`` are."""
    return isinstance(returns, type) or get_origin(returns) is not None


def _inside_string(text: str) -> bool:
    """Whether a growing JSON text ends between two quotation marks."""
    return _QUOTE.findall(text).count('"') % 2 == 1


def _format_errors(error: ValidationError, data: Any, path: str) -> str:
    """What is wrong and where, for the model to read: neither its input nor URLs."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    messages = list(
        dict.fromkeys(_format_error(one["msg"], one["loc"], data, path) for one in found)
    )
    more = f"; and {len(messages) - _MAX_ERRORS} more" if len(messages) > _MAX_ERRORS else ""
    return "; ".join(messages[:_MAX_ERRORS]) + more


def _format_error(message: str, location: Sequence[int | str], data: Any, path: str) -> str:
    missing = message in {"Field required", "Missing required argument"}
    for number, step in enumerate(location):
        # Pydantic's places also name a union's members and the like: what is no
        # key of the data is skipped.
        if isinstance(data, dict) and step in data:
            path, data = f"{path}.{step}", data[str(step)]
        elif isinstance(data, list) and isinstance(step, int) and step < len(data):
            path, data = f"{path}[{step}]", data[step]
        elif missing and number == len(location) - 1:
            path = f"{path}.{step}"
    path = path.lstrip(".")
    message = _one_line(re.sub(r"^(?:Value error|Assertion failed), ", "", message))
    if missing:
        return f"{path} is missing"
    if message.startswith("Input should "):
        return f"{path or 'it'} {message.removeprefix('Input ')}"
    return f"{path}: {message}" if path else message


def _one_line(text: str) -> str:
    """One line of bounded length, without the full stop of its own."""
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= _MAX_ERROR_LENGTH else line[: _MAX_ERROR_LENGTH - 1] + "…"
