"""Typed tools: a function's type hints as a JSON schema and a validator, by Pydantic.

Schemas are the same in every process, and without titles. Loaded on first use, as Pydantic
is slow to import.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from typing import Annotated, Any, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PydanticUndefinedAnnotation,
    PydanticUserError,
    RootModel,
    TypeAdapter,
    ValidationError,
    create_model,
)
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import SchemaError

from antiphon.errors import ConfigError
from antiphon.tools.signature import ArgumentDecoder, ArgumentSpec, parse_docstring, read_signature
from antiphon.tools.tool_outputs import format_path, invalid_arguments, parse_arguments, shorten

#: What Pydantic raises for a type that it can make no schema of.
_SCHEMA_ERRORS = (
    PydanticUserError,
    PydanticUndefinedAnnotation,
    SchemaError,
    TypeError,
    ValueError,
    AttributeError,
)
#: Of these, what may yet become one: a type that is defined further down.
_UNDEFINED_TYPE_CODES = ("class-not-fully-defined", "undefined-annotation")


def typed_argument_spec(
    function: Callable[..., Any], name: str, names: Mapping[str, Any]
) -> ArgumentSpec:
    """The ``ArgumentSpec`` of a function's parameters. Arguments and errors: ``read_signature``."""
    signature = read_signature(function, name, names)
    doc = parse_docstring(function)
    description = doc.get("")
    try:
        if (request := _model_parameter(signature.parameters)) is not None:
            schema, reader = _decode_model(request)
            description = description or schema.get("description")
        else:
            schema, reader = _decode_parameters(signature.parameters, doc)
    except _SCHEMA_ERRORS as error:
        if getattr(error, "code", None) in _UNDEFINED_TYPE_CODES:
            raise NameError("a type within its parameters' types is not defined") from error
        raise ConfigError(
            _describe_unsupported_parameter(name, signature.parameters, error)
        ) from error
    defaults = {
        one.name: one.default
        for one in signature.parameters
        if one.default is not Parameter.empty and not isinstance(one.default, FieldInfo)
    }
    return ArgumentSpec(schema, reader, description, defaults, signature.context_parameters)


def _model_parameter(parameters: Sequence[Parameter]) -> Parameter | None:
    """The one parameter there is, if it is a model: its fields are the tool's arguments."""
    if len(parameters) != 1:
        return None
    kind, *_ = _annotation_metadata(parameters[0].annotation)
    model = isinstance(kind, type) and issubclass(kind, BaseModel)
    return parameters[0] if model and not issubclass(kind, RootModel) else None


def _decode_model(parameter: Parameter) -> tuple[dict[str, Any], ArgumentDecoder]:
    adapter = TypeAdapter(parameter.annotation)

    def reader(text: str) -> dict[str, Any]:
        return {parameter.name: _validate(adapter, text)}

    return generate_schema(adapter), reader


def _decode_parameters(
    parameters: Sequence[Parameter], doc: Mapping[str, str]
) -> tuple[dict[str, Any], ArgumentDecoder]:
    # Fields have numbers for names: a parameter may be called ``json`` or ``_x``, a field
    # may not.
    numbered = {f"p{number}": one for number, one in enumerate(parameters)}
    fields: dict[str, Any] = {key: _field(one, doc) for key, one in numbered.items()}
    adapter: TypeAdapter[BaseModel] = TypeAdapter(
        create_model("Arguments", __config__=ConfigDict(extra="forbid"), **fields)
    )

    def reader(text: str) -> dict[str, Any]:
        given = _validate(adapter, text)
        return {
            one.name: getattr(given, key)
            for key, one in numbered.items()
            # Other defaults are the function's own to fill in.
            if key in given.model_fields_set or isinstance(one.default, FieldInfo)
        }

    return generate_schema(adapter), reader


def _field(parameter: Parameter, doc: Mapping[str, str]) -> tuple[Any, Any]:
    kind, *notes = _annotation_metadata(parameter.annotation)
    description = next((note for note in notes if isinstance(note, str)), doc.get(parameter.name))
    # The function's own notes come later, so they prevail.
    own = Field(alias=parameter.name, description=description)
    if parameter.default is Parameter.empty:
        return Annotated[(kind, own, *notes)], ...
    if parameter.default is None:
        # ``unit: str = None`` is wrong and common; a model that sees the default repeats it.
        kind = kind | None if kind is not Any else kind
    return Annotated[(kind, own, *notes)], parameter.default


def _annotation_metadata(annotation: Any) -> tuple[Any, ...]:
    """A type, and what ``Annotated`` says of it."""
    return get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)


def _validate(adapter: TypeAdapter[Any], text: str) -> Any:
    """What the arguments' text stands for. Raises ``InvalidArgumentsError``."""
    written = parse_arguments(text)
    try:
        # From the text again: what is lax or strict differs between JSON and Python.
        return adapter.validate_json(text if written else "{}")
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
    raise invalid_arguments(
        _describe_error(one["type"], one["loc"], one["msg"], written) for one in found
    )


def _describe_error(kind: str, path: Sequence[str | int], message: str, written: Any) -> str:
    """One validation error in words that a model can act on, without repeating its input."""
    if kind == "missing":
        return f"{format_path([*_existing_path(path[:-1], written), path[-1]])} is missing"
    where = format_path(_existing_path(path, written))
    if kind == "extra_forbidden":
        return f"there is no {where}"
    message = message.removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
    return f"{where} {message}" if message.startswith("should ") else f"{where}: {message}"


def _existing_path(path: Sequence[str | int], written: Any) -> list[str | int]:
    """The steps that the arguments really have: Pydantic names branches of unions too."""
    steps: list[str | int] = []
    for step in path:
        try:
            written = written[step]
        except (TypeError, KeyError, IndexError):
            continue
        steps.append(step)
    return steps


def _describe_unsupported_parameter(
    name: str, parameters: Sequence[Parameter], error: BaseException
) -> str:
    """Which parameter's type is at fault, found by trying each alone."""
    for one in parameters:
        try:
            _decode_parameters([one], {})
        except _SCHEMA_ERRORS as type_error:
            kind = getattr(one.annotation, "__name__", None) or str(one.annotation)
            return (
                f"Tool '{name}': parameter '{one.name}' ({kind}) cannot be read from JSON: "
                f"{_first_sentence(type_error)}"
            )
    return f"Tool '{name}': its parameters cannot be read from JSON: {_first_sentence(error)}"


def _first_sentence(error: BaseException) -> str:
    """The first sentence: what follows is advice on Pydantic's own settings."""
    return shorten(error).split("\n", maxsplit=1)[0].split(". ", maxsplit=1)[0].rstrip(".") + "."


class _Generator(GenerateJsonSchema):
    #: A default that is no JSON is left out of the schema: the function has it all the same.
    ignored_warning_kinds = GenerateJsonSchema.ignored_warning_kinds | {"non-serializable-default"}


def generate_schema(adapter: TypeAdapter[Any]) -> dict[str, Any]:
    """The schema of what the adapter validates, its root in place."""
    schema = adapter.json_schema(schema_generator=_Generator)
    root = schema.pop("$ref", None)
    if root is not None:
        # A type that refers to itself; many APIs want to see an object at the top.
        schema = {**schema["$defs"][root.removeprefix("#/$defs/")], **schema}
    clean: dict[str, Any] = _remove_titles(schema)
    return clean


def _remove_titles(schema: Any) -> Any:
    """The schema without titles: Pydantic makes them of names, and they say nothing more."""
    if not isinstance(schema, dict):
        return schema
    clean: dict[str, Any] = {}
    for key, value in schema.items():
        match key, value:
            case "title", str():
                continue
            # Here the keys are names, one of which may be "title".
            case (("properties" | "$defs" | "patternProperties" | "dependentSchemas"), dict()):
                clean[key] = {name: _remove_titles(one) for name, one in value.items()}
            case (("anyOf" | "oneOf" | "allOf" | "prefixItems"), list()):
                clean[key] = [_remove_titles(one) for one in value]
            case (
                ("items" | "additionalProperties" | "propertyNames" | "contains" | "not"),
                dict(),
            ):
                clean[key] = _remove_titles(value)
            case _:
                clean[key] = value
    return clean
