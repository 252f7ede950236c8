"""``@tool``: a Python function that a model may call.

    @tool
    def lookup_order(order_id: Annotated[str, "such as ORD-123"]) -> dict[str, str]:
        '''Look up where an order is.'''
        return orders[order_id]

    @tool(timeout=5, needs_approval=lambda amount, **_: amount > 100)
    async def refund(order_id: str, amount: float, ctx: ToolContext[Shop]) -> str: ...

The model is shown the function's name, its docstring's first paragraph, and a JSON schema
of its type hints. Parameters are described by ``Annotated[..., "text"]``, by Pydantic's
``Field(description=...)``, or in the docstring, in Google's, Sphinx's or NumPy's style.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import update_wrapper
from inspect import isasyncgenfunction
from types import EllipsisType, MethodType
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeAlias, TypeVar, overload

from antiphon.core.turns import FunctionTool
from antiphon.errors import ConfigError
from antiphon.tools.execution import is_async
from antiphon.tools.signature import ArgumentSpec

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")

#: Seconds, or None for no limit; ``...`` is the default of the ``Toolbox``.
Timeout: TypeAlias = float | EllipsisType | None
#: Whether a person has to agree: always, never, or depending on the arguments.
ApprovalRule: TypeAlias = bool | Callable[..., bool]

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class Tool(Generic[P, R]):
    """A function that a model may call; people may call it as they did before.

    ``name`` and ``description`` None are the function's own. ``timeout`` is in seconds.
    ``needs_approval`` may be a function of the same arguments. Raises ``ConfigError`` for
    what no model could call.
    """

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: Timeout = ...,
        needs_approval: ApprovalRule = False,
    ) -> None:
        self.name = _check_name(function, name)
        self.function = function
        self.timeout = check_timeout(self.name, timeout)
        self.needs_approval = needs_approval
        self._description = description
        self._argument_spec: ArgumentSpec | None = None
        self._has_raw_schema = False
        self._owner_class: str | None = None
        if callable(needs_approval) and is_async(needs_approval):
            raise ConfigError(
                f"Tool '{self.name}': needs_approval is async; it must answer at once."
            )
        update_wrapper(self, function, updated=())

    @classmethod
    def from_schema(  # noqa: PLR0913 - what people set by hand, by name
        cls,
        name: str,
        description: str | None,
        parameters: Mapping[str, Any] | None,
        func: Callable[..., S],
        *,
        timeout: Timeout = ...,
        needs_approval: ApprovalRule = False,
    ) -> Tool[..., S]:
        """A tool of a raw JSON schema: ``func`` gets the arguments by name, as they came.

        ``parameters`` None: it takes none. Raises ``ConfigError`` for a bad schema.
        """
        from antiphon.tools.json_schema_tool import schema_argument_spec  # loaded on first use

        made: Tool[..., S] = Tool(
            func,
            name=name,
            description=description,
            timeout=timeout,
            needs_approval=needs_approval,
        )
        made._argument_spec = schema_argument_spec(func, made.name, parameters)
        made._has_raw_schema = True
        return made

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __set_name__(self, owner: type, name: str) -> None:
        # A tool that is merely kept in a class was not defined in it.
        if not self._has_raw_schema and self._qualname.rpartition(".")[0] == owner.__qualname__:
            self._owner_class = owner.__name__

    @overload
    def __get__(self, instance: None, owner: type, /) -> Tool[P, R]: ...

    @overload
    def __get__(
        self: Tool[Concatenate[S, Q], R], instance: S, owner: type | None = None, /
    ) -> Tool[Q, R]: ...

    def __get__(self, instance: Any, owner: type | None = None, /) -> Any:
        """The tool of one object, as a function becomes a method."""
        if instance is None or self._has_raw_schema:
            return self
        return Tool(
            MethodType(self.function, instance),
            name=self.name,
            description=self._description,
            timeout=self.timeout,
            needs_approval=self.needs_approval,
        )

    def __repr__(self) -> str:
        return f"<Tool {self.name}>"

    @property
    def argument_spec(self) -> ArgumentSpec:
        """What its arguments look like. Raises ``ConfigError``."""
        if self._owner_class is not None:
            raise ConfigError(
                f"Tool '{self.name}' is a method: give that of an object of {self._owner_class}, "
                f"such as bot.{self.name}."
            )
        if self._argument_spec is None:
            try:
                self._argument_spec = self._build_argument_spec({})
            except NameError as error:
                raise ConfigError(
                    f"Tool '{self.name}': a type hint means nothing where the function was "
                    f"defined: {error}. Define the type at the top level of its module."
                ) from error
        return self._argument_spec

    @property
    def spec(self) -> FunctionTool:
        """What the model is shown. Raises ``ConfigError``."""
        form = self.argument_spec
        described = form.description if self._description is None else self._description
        return FunctionTool(self.name, described, form.schema)

    @property
    def _qualname(self) -> str:
        return getattr(self.function, "__qualname__", "")

    def _build_argument_spec(self, names: Mapping[str, Any]) -> ArgumentSpec:
        from antiphon.tools.typed_tool import typed_argument_spec  # loaded on first use

        return typed_argument_spec(self.function, self.name, names)

    def _build_argument_spec_early(self, names: Mapping[str, Any]) -> None:
        """Find mistakes where the function is, and types that only its surroundings know."""
        if {"__module__", "__qualname__"} <= names.keys():
            # The body of a class: a method has a parameter that is filled in by binding.
            return
        # A type may be defined further down: ``argument_spec`` looks again.
        with suppress(NameError):
            self._argument_spec = self._build_argument_spec(names)


class _Decorator(Protocol):
    def __call__(self, function: Callable[P, R], /) -> Tool[P, R]: ...


@overload
def tool(function: Callable[P, R], /) -> Tool[P, R]: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: Timeout = ...,
    needs_approval: ApprovalRule = False,
) -> _Decorator: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: Timeout = ...,
    needs_approval: ApprovalRule = False,
) -> Any:
    """Make a function a tool: as ``@tool``, or as ``@tool(name=..., timeout=...)``.

    ``name`` and ``description`` None are the function's own. ``timeout`` is in seconds,
    None for no limit; left out, it is the conversation's. ``needs_approval``: a person has
    to agree to a call first; a function of the same arguments says to which.

    Raises ``ConfigError`` for what no model could call.
    """

    def decorate(function: Callable[..., Any], /) -> Tool[..., Any]:
        made = Tool(
            function,
            name=name,
            description=description,
            timeout=timeout,
            needs_approval=needs_approval,
        )
        # A copy: from Python 3.13 on, those of a function go on changing with it.
        made._build_argument_spec_early(dict(sys._getframe(depth).f_locals))
        return made

    # How far up the decorated function's surroundings are.
    depth = 1 if function is None else 2
    return decorate if function is None else decorate(function)


def as_tool(given: Any) -> Tool[..., Any]:
    """A tool of whatever was given as one. Raises ``ConfigError``."""
    if isinstance(given, Tool):
        return given
    if isinstance(given, MethodType) and isinstance(given.__func__, Tool):
        # A decorated class method, in Python 3.13 and newer.
        return Tool.__get__(given.__func__, given.__self__)
    return Tool(given)


def _check_name(function: Any, name: str | None) -> str:
    if isinstance(function, Mapping):
        raise ConfigError(
            f"A tool is a function; this is a schema alone: {function!r:.100}. Give its function"
            " too: Tool.from_schema(name, description, parameters, func)."
        )
    if isinstance(function, type) or not callable(function):
        raise ConfigError(f"A tool is a function; this is none: {function!r:.100}")
    if isasyncgenfunction(function):
        raise ConfigError(f"Tool '{function.__name__}' yields; a tool returns one result.")
    found = name if name is not None else getattr(function, "__name__", "")
    if not isinstance(found, str) or not _NAME.fullmatch(found):
        raise ConfigError(
            f"A tool cannot be named {found!r:.100}: take 1 to 64 letters of a-z, A-Z, 0-9, _ "
            "and -; give it one by @tool(name=...), Tool(function, name=...) or Tool.from_schema."
        )
    return found


def check_timeout(name: str, timeout: Timeout) -> Timeout:
    """The timeout, if it is one. Raises ``ConfigError``."""
    if timeout is None or isinstance(timeout, EllipsisType):
        return timeout
    if not isinstance(timeout, int | float) or math.isnan(timeout) or timeout <= 0:
        raise ConfigError(f"{name}: a timeout is a number of seconds above 0, or None.")
    return timeout
