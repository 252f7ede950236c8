"""Function signatures: a tool's parameters with their types and descriptions, and
``ArgumentSpec``.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from inspect import Parameter
from typing import Any, TypeAlias, get_type_hints

import msgspec

from antiphon.errors import ConfigError
from antiphon.tools.tool_context import is_tool_context, parameters_of

_UNSUPPORTED_KINDS = {
    Parameter.VAR_POSITIONAL: "takes any number of arguments",
    Parameter.VAR_KEYWORD: "takes arguments of any name",
    Parameter.POSITIONAL_ONLY: "cannot be given by name",
}


#: The arguments' text to the function's keyword arguments. Raises ``InvalidArgumentsError``.
ArgumentDecoder: TypeAlias = Callable[[str], dict[str, Any]]


class ArgumentSpec(msgspec.Struct, frozen=True):
    """A tool's arguments: ``schema`` is the JSON schema that the model gets.

    ``decode`` reads a call's arguments. ``defaults`` are those of the function's parameters,
    ``context_parameters`` the names of the parameters that take a ``ToolContext``.
    """

    schema: dict[str, Any]
    decode: ArgumentDecoder
    description: str | None = None
    defaults: Mapping[str, Any] = {}
    context_parameters: tuple[str, ...] = ()


class Signature(msgspec.Struct, frozen=True):
    """``parameters`` are those for the model, their annotations resolved.

    A parameter without an annotation takes anything. ``context_parameters`` are the names of
    those that take a ``ToolContext``.
    """

    parameters: tuple[Parameter, ...]
    context_parameters: tuple[str, ...]


def read_signature(function: Callable[..., Any], name: str, names: Mapping[str, Any]) -> Signature:
    """The signature of the function of tool ``name``.

    ``names`` are those that its annotations may use besides its module's. Raises
    ``ConfigError`` for parameters that no model could fill in, and ``NameError`` for an
    annotation that means nothing yet.
    """
    try:
        found = parameters_of(function)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"Tool '{name}': Python does not know its parameters; use Tool.from_schema."
        ) from error
    for one in found.values():
        if one.kind in _UNSUPPORTED_KINDS:
            raise ConfigError(
                f"Tool '{name}': parameter '{one.name}' {_UNSUPPORTED_KINDS[one.kind]}, which a"
                " model cannot do; name each parameter, or use Tool.from_schema."
            )
    if _is_unbound_method(function, found):
        owner = function.__qualname__.split(".")[-2]
        raise ConfigError(
            f"Tool '{name}' is a method: give that of an object of {owner}, such as bot.{name}."
        )
    # What a partial function has been given already is not for the model to change.
    bound = function.keywords if isinstance(function, functools.partial) else {}
    contexts = [one.name for one in found.values() if is_tool_context(one.annotation)]
    shown = [one for key, one in found.items() if key not in bound and key not in contexts]
    hints = _resolve_annotations(function, shown, names)
    typed = [one.replace(annotation=hints.get(one.name, Any)) for one in shown]
    # An alias of ToolContext is known as one only now.
    contexts += [one.name for one in typed if is_tool_context(one.annotation)]
    return Signature(
        tuple(one for one in typed if one.name not in contexts),
        tuple(contexts),
    )


def _is_unbound_method(function: Callable[..., Any], parameters: Mapping[str, Parameter]) -> bool:
    """Whether it is a method that was taken from its class: a model cannot give its ``self``."""
    owner = getattr(function, "__qualname__", "").rpartition(".")[0]
    first = next(iter(parameters.values()), None)
    return (
        inspect.isfunction(function)
        and bool(owner)
        and not owner.endswith("<locals>")
        and first is not None
        and first.name == "self"
        and first.annotation is first.default is Parameter.empty
    )


def _resolve_annotations(
    function: Callable[..., Any], parameters: Iterable[Parameter], names: Mapping[str, Any]
) -> dict[str, Any]:
    """The annotations resolved, of parameters that have one. Raises ``NameError``."""
    written = {
        one.name: one.annotation for one in parameters if one.annotation is not Parameter.empty
    }
    inner = inspect.unwrap(unwrap_callable(function))
    # A stand-in, because what is not shown to the model need not mean anything here.
    return get_type_hints(
        types.SimpleNamespace(__annotations__=written),
        globalns=getattr(getattr(inner, "__func__", inner), "__globals__", {}),
        localns=dict(names),
        include_extras=True,
    )


def unwrap_callable(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function behind a partial one, or behind an object that can be called."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function) or hasattr(function, "__wrapped__"):
        return function
    return type(function).__call__


def parse_docstring(function: Callable[..., Any]) -> dict[str, str]:
    """The docstring's first paragraph under "", and what it says of each parameter."""
    from docstring_parser import ParseError, parse  # loaded on first use

    try:
        doc = parse(inspect.getdoc(unwrap_callable(function)) or "")
    except ParseError:
        return {}
    found = {one.arg_name: one.description or "" for one in doc.params}
    found[""] = (doc.description or "").split("\n\n")[0]
    return {key: " ".join(text.split()) for key, text in found.items() if text.strip()}
