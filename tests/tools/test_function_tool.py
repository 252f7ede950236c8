"""``@tool``: functions that a model and other code can call."""

from __future__ import annotations

import asyncio
import functools
import inspect
import subprocess
import sys
from types import MethodType
from typing import Any

import pytest
from pydantic import BaseModel

from antiphon.errors import ConfigError
from antiphon.tools.function_tool import Tool, as_tool, tool
from antiphon.tools.tool_context import ToolContext


@tool
def lookup_order(order_id: str, ctx: ToolContext[Any] | None = None) -> str:
    """Look up an order."""
    return order_id.upper()


class Bot:
    def __init__(self, name: str) -> None:
        self.name = name

    @tool
    def greet(self, whom: str) -> str:
        """Greet someone."""
        return f"{self.name}: hello {whom}"

    @tool(name="later", description="Much later.", timeout=3, needs_approval=True)
    async def greet_later(self, whom: str) -> str:
        return self.greet(whom)

    @staticmethod
    @tool
    def add(a: int, b: int) -> int:
        return a + b

    @classmethod
    @tool
    def kind(cls, suffix: str) -> str:
        return cls.__name__ + suffix

    def plain(self, whom: str) -> str:
        """Not decorated."""
        return self.greet(whom)

    borrowed = lookup_order


def test_tool_behaves_like_its_function() -> None:
    assert lookup_order("ord-1") == "ORD-1"
    assert inspect.unwrap(lookup_order).__name__ == "lookup_order"
    assert lookup_order.__doc__ == "Look up an order."
    assert list(inspect.signature(lookup_order).parameters) == ["order_id", "ctx"]
    assert repr(lookup_order) == "<Tool lookup_order>"


def test_spec_has_name_description_and_schema() -> None:
    @tool
    def count(values: list[int]) -> int:
        """Count values.

        Not shown.

        Args:
            values: The values.
        """
        return len(values)

    spec = count.spec
    assert (spec.name, spec.description, spec.strict) == ("count", "Count values.", None)
    assert spec.parameters == {
        "type": "object",
        "properties": {
            "values": {"type": "array", "items": {"type": "integer"}, "description": "The values."}
        },
        "required": ["values"],
        "additionalProperties": False,
    }


def test_decorator_arguments_override_name_and_description() -> None:
    @tool(name="other", description="Given.", timeout=None, needs_approval=True)
    def function(x: int) -> int:
        """Its own."""
        return x + 1

    assert (function.spec.name, function.spec.description) == ("other", "Given.")
    assert (function.timeout, function.needs_approval) == (None, True)
    assert function(1) == 2
    assert lookup_order.timeout is ...


def test_async_function_stays_async() -> None:
    @tool
    async def work(x: int) -> int:
        return x + 1

    assert asyncio.run(work(1)) == 2


def test_method_tools_are_bound_to_their_object() -> None:
    bot = Bot("Ann")
    assert bot.greet("Bob") == "Ann: hello Bob"
    assert asyncio.run(bot.greet_later("Bob")) == "Ann: hello Bob"
    assert bot.greet.spec.parameters == bot.greet_later.spec.parameters
    assert list((bot.greet.spec.parameters or {})["properties"]) == ["whom"]
    later = bot.greet_later
    assert (later.name, later.spec.description) == ("later", "Much later.")
    assert (later.timeout, later.needs_approval) == (3, True)
    assert Bot.add(1, 2) == 3
    assert as_tool(Bot.add).name == "add"
    assert as_tool(bot.plain).spec.description == "Not decorated."


def test_class_method_tool_is_bound_to_its_class() -> None:
    class Special(Bot): ...

    kind: Any = Special.kind
    assert kind("!") == "Special!"
    tool_object = as_tool(kind)
    assert tool_object("?") == "Special?"
    assert list(tool_object.argument_spec.schema["properties"]) == ["suffix"]
    # The form that Python 3.13 creates.
    tool_object = as_tool(MethodType(inspect.getattr_static(Bot, "greet_later"), Special("Ann")))
    assert (tool_object.name, list(tool_object.argument_spec.schema["properties"])) == (
        "later",
        ["whom"],
    )


def test_unbound_method_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'greet' is a method.*of Bot, such as bot\.greet"):
        _ = Bot.greet.spec
    # A tool that is only assigned in a class is not a method.
    assert Bot.borrowed.spec == lookup_order.spec


def test_plain_method_without_its_object_is_refused() -> None:
    """Its ``self`` would be shown to the model as an argument."""
    with pytest.raises(ConfigError, match=r"'plain' is a method.*of Bot, such as bot\.plain"):
        _ = as_tool(Bot.plain).spec

    def outside(self: int) -> int:
        return self

    assert list(as_tool(outside).argument_spec.schema["properties"]) == ["self"]


def test_schema_without_a_function_says_what_is_missing() -> None:
    with pytest.raises(ConfigError, match=r"schema alone.*Tool\.from_schema"):
        as_tool({"type": "function", "function": {"name": "lookup", "parameters": {}}})


def test_raw_schema_is_unchanged() -> None:
    parameters = {"type": "object", "properties": {"location": {"type": "string"}}}
    tool_object = Tool.from_schema("get_weather", "Weather.", parameters, lambda location: location)
    assert tool_object.spec.name == "get_weather"
    assert tool_object.spec.description == "Weather."
    assert tool_object.spec.parameters == parameters
    assert tool_object(location="Tokyo") == "Tokyo"

    class Holder:
        weather: Any = tool_object

    assert Holder().weather("Tokyo") == "Tokyo"


def test_tool_can_be_renamed() -> None:
    other = tool(name="other")(lookup_order)
    assert other.spec.name == "other"
    assert other.spec.parameters == lookup_order.spec.parameters
    assert other("a") == "A"


def test_partial_functions_and_callable_objects_need_a_name() -> None:
    class Adder:
        def __call__(self, x: int) -> int:
            """Add one."""
            return x + 1

    partial = functools.partial(Bot("Ann").plain)
    assert tool(name="greet")(partial).spec.description == "Not decorated."
    assert Tool(Adder(), name="add").spec.description == "Add one."
    for nameless in (partial, Adder()):
        with pytest.raises(ConfigError, match="name="):
            as_tool(nameless)


@pytest.mark.parametrize("name", ["", "two words", "ü", "a" * 65, "a.b", "a\n", 3])
def test_invalid_tool_name_is_refused(name: Any) -> None:
    with pytest.raises(ConfigError, match="cannot be named"):
        Tool(len, name=name)


@pytest.mark.parametrize("given", [3, "text", None, int, BaseModel, {"type": "function"}])
def test_non_functions_are_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match="A tool is a function"):
        as_tool(given)


def test_invalid_functions_are_refused_at_decoration() -> None:
    with pytest.raises(ConfigError, match="'values' takes any number"):

        @tool
        def stars(*values: int) -> None: ...

    with pytest.raises(ConfigError, match="'bad'"):

        @tool(name="named")
        def opaque(bad: Bot) -> None: ...

    with pytest.raises(ConfigError, match="yields"):

        @tool
        async def many() -> Any:
            yield 1

    async def asks(**arguments: Any) -> bool:
        return True

    approval: Any = asks

    with pytest.raises(ConfigError, match="needs_approval is async"):
        Tool(lookup_order, needs_approval=approval)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "5"])
def test_invalid_timeout_is_refused(timeout: Any) -> None:
    with pytest.raises(ConfigError, match="timeout"):
        tool(timeout=timeout)(len)


def test_local_types_are_resolved_by_the_decorator() -> None:
    class Local(BaseModel):
        x: int

    @tool
    def bare(request: Local) -> int:
        return request.x

    @tool()
    def called(request: Local) -> int:
        return request.x

    assert bare.spec.parameters == called.spec.parameters
    assert (bare.spec.parameters or {})["required"] == ["x"]


@tool
def early(x: Later) -> None: ...


class Unready(BaseModel):
    x: Later


@tool
def inner(unready: Unready, y: int) -> None: ...


@tool
def never(x: Nowhere) -> None:  # type: ignore[name-defined]  # noqa: F821
    ...


class Later(BaseModel):
    y: int


def test_forward_references_are_resolved_on_first_use() -> None:
    assert (early.spec.parameters or {})["required"] == ["y"]
    assert inner.argument_spec.decode('{"unready": {"x": {"y": 1}}, "y": 2}') == {
        "unready": Unready(x=Later(y=1)),
        "y": 2,
    }
    with pytest.raises(ConfigError, match=r"'never': a type hint means nothing.*'Nowhere'"):
        _ = never.spec


def test_heavy_imports_are_deferred() -> None:
    code = """
import sys
import antiphon.tools.toolbox
heavy = {"pydantic", "pydantic_core", "jsonschema", "referencing", "docstring_parser"}
print(heavy & sys.modules.keys())
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "set()\n"
