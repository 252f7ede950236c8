"""``ToolContext``: what a tool is told besides the arguments that the model wrote."""

from __future__ import annotations

import re
from collections.abc import Callable
from inspect import Parameter, signature
from types import NoneType, UnionType
from typing import Annotated, Any, Generic, TypeVar, Union, get_args, get_origin

import msgspec

D = TypeVar("D")

#: The annotation as a text: of a module with ``from __future__ import annotations``.
_WRITTEN = re.compile(r"(?:\w+\.)*ToolContext(?:\[.*\])?(?:\s*\|\s*None)?", re.DOTALL)


class ToolContext(msgspec.Struct, Generic[D], frozen=True):
    """Filled in for a parameter annotated ``ToolContext`` or ``ToolContext[Deps]``.

    The model is not shown such a parameter. ``deps`` is what the conversation was given
    for its tools (a database, a user), ``call_id`` and ``name`` are those of the call.
    """

    deps: D
    call_id: str
    name: str


def is_context(annotation: object) -> bool:
    """Whether a parameter with this annotation, resolved or not, is to be filled in."""
    if isinstance(annotation, str):
        return _WRITTEN.fullmatch(annotation.strip()) is not None
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return is_context(inner[0])
    if origin in (Union, UnionType):
        # Optional, for people who call the function themselves.
        return all(is_context(one) or one is NoneType for one in inner)
    return annotation is ToolContext or origin is ToolContext


def context_parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a function's parameters that are to be filled in."""
    try:
        parameters = signature(function).parameters.values()
    except (TypeError, ValueError):
        # Some functions written in C tell nothing about themselves.
        return ()
    return tuple(
        one.name
        for one in parameters
        if one.kind is not Parameter.POSITIONAL_ONLY and is_context(one.annotation)
    )
