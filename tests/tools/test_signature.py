"""Function signatures: the parameters for the model, and their descriptions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from antiphon.errors import ConfigError
from antiphon.tools.signature import parse_docstring, read_signature
from antiphon.tools.tool_context import ToolContext

if TYPE_CHECKING:
    from somewhere import Shop  # type: ignore[import-not-found]

Context = ToolContext[int]


def looked_up(order_id: str, ctx: ToolContext[Shop], note="", *, alias: Context) -> None:  # type: ignore[no-untyped-def]
    ...


def shape(function: Callable[..., Any], **names: Any) -> dict[str, Any]:
    found = read_signature(function, "t", names)
    return {one.name: one.annotation for one in found.parameters}


def test_context_parameters_are_hidden_from_the_model() -> None:
    assert shape(looked_up) == {"order_id": str, "note": Any}
    assert set(read_signature(looked_up, "t", {}).context_parameters) == {"ctx", "alias"}


def test_self_is_not_a_parameter() -> None:
    class Bot:
        def method(self, x: int) -> None: ...

        def __call__(self, y: int) -> None: ...

    assert shape(Bot().method) == {"x": int}
    assert shape(Bot()) == {"y": int}


def test_bound_arguments_of_a_partial_are_hidden() -> None:
    def send(to: str, sender: str, text: str) -> None: ...

    assert shape(functools.partial(send, "bob", sender="me")) == {"text": str}


def test_wrapped_function_is_unwrapped() -> None:
    @functools.wraps(looked_up)
    def wrapper(*args: Any, **kwargs: Any) -> None: ...

    assert shape(wrapper) == {"order_id": str, "note": Any}
    # The cached wrapper has no globals in which to resolve types.
    assert shape(functools.cache(looked_up)) == {"order_id": str, "note": Any}


def test_local_types_need_a_namespace() -> None:
    class Local: ...

    def local(x: Local) -> None: ...

    with pytest.raises(NameError):
        shape(local)
    assert shape(local, Local=Local) == {"x": Local}


def stars(*values: int) -> None: ...


def stars_by_name(**values: int) -> None: ...


def positional(value: int, /) -> None: ...


@pytest.mark.parametrize("function", [stars, stars_by_name, positional, dict.fromkeys, min])
def test_unsupported_parameters_are_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=r"Tool 't'.*Tool\.from_schema"):
        read_signature(function, "t", {})


def google(a: int, b: int) -> None:
    """Do a thing
    in two lines.

    A second paragraph.

    Args:
        a: The first,
            on two lines.
        b (int): The second.

    Returns:
        Nothing.
    """


def sphinx(a: int, b: int) -> None:
    """Do a thing in two lines.

    :param a: The first, on two lines.
    :param b: The second.
    :type b: int
    """


@pytest.mark.parametrize("function", [google, sphinx])
def test_docstring_is_parsed_to_descriptions(
    function: Callable[..., Any],
) -> None:
    descriptions = parse_docstring(function)
    assert (descriptions["a"], descriptions["b"]) == ("The first, on two lines.", "The second.")
    assert descriptions[""].startswith("Do a thing in two lines")
    assert "second paragraph" not in descriptions[""]


def test_missing_docstring_has_no_descriptions() -> None:
    assert parse_docstring(lambda x: x) == {}
    assert parse_docstring(functools.partial(google, 1)) == parse_docstring(google)
