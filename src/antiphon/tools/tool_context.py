"""``ToolContext``: dependencies and call data, injected into a tool beside the model's
arguments.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from types import NoneType, UnionType
from typing import Annotated, Any, ForwardRef, Generic, TypeVar, Union, get_args, get_origin

import msgspec

D = TypeVar("D")

#: The annotation as a text: of a module with ``from __future__ import annotations``.
_ANNOTATION = re.compile(r"(?:\w+\.)*ToolContext(?:\[.*\])?(?:\s*\|\s*None)?", re.DOTALL)


class ToolContext(msgspec.Struct, Generic[D], frozen=True):
    """Filled in for a parameter annotated ``ToolContext`` or ``ToolContext[Deps]``.

    The model does not see such a parameter. ``deps`` is what the conversation was given
    for its tools (a database, a user), ``call_id`` and ``name`` are those of the call.
    """

    deps: D
    call_id: str
    name: str


def is_tool_context(annotation: object) -> bool:
    """Whether a parameter with this annotation, resolved or not, is to be filled in."""
    if isinstance(annotation, ForwardRef):
        annotation = annotation.__forward_arg__
    if isinstance(annotation, str):
        return _ANNOTATION.fullmatch(annotation.strip()) is not None
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return is_tool_context(inner[0])
    if origin in (Union, UnionType):
        # Optional, for people who call the function themselves.
        return all(is_tool_context(one) or one is NoneType for one in inner)
    return annotation is ToolContext or origin is ToolContext


def parameters_of(function: Callable[..., Any]) -> Mapping[str, Parameter]:
    """A function's parameters by name; an annotation that means nothing yet is a reference.

    Raises ``TypeError`` and ``ValueError`` for what does not say which it takes.
    """
    if sys.version_info >= (3, 14):
        # Annotations are evaluated only here, and all must mean something unless asked otherwise.
        from annotationlib import Format  # loaded on first use

        return signature(function, annotation_format=Format.FORWARDREF).parameters
    return signature(function).parameters


def context_parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a function's parameters that are to be filled in."""
    try:
        parameters = parameters_of(function).values()
    except (TypeError, ValueError):
        # Some functions written in C tell nothing about themselves.
        return ()
    return tuple(
        one.name
        for one in parameters
        if one.kind is not Parameter.POSITIONAL_ONLY and is_tool_context(one.annotation)
    )
