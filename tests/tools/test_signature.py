"""Signatures: which parameters a model fills in, and what is said of them."""

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


def test_contexts_are_kept_from_the_model() -> None:
    assert shape(looked_up) == {"order_id": str, "note": Any}
    assert set(read_signature(looked_up, "t", {}).context_parameters) == {"ctx", "alias"}


def test_a_method_has_no_self() -> None:
    class Bot:
        def method(self, x: int) -> None: ...

        def __call__(self, y: int) -> None: ...

    assert shape(Bot().method) == {"x": int}
    assert shape(Bot()) == {"y": int}


def test_what_a_partial_function_was_given_is_not_for_the_model() -> None:
    def send(to: str, sender: str, text: str) -> None: ...

    assert shape(functools.partial(send, "bob", sender="me")) == {"text": str}


def test_a_wrapped_function_is_looked_through() -> None:
    @functools.wraps(looked_up)
    def wrapper(*args: Any, **kwargs: Any) -> None: ...

    assert shape(wrapper) == {"order_id": str, "note": Any}
    # Has no globals of its own to find types in.
    assert shape(functools.cache(looked_up)) == {"order_id": str, "note": Any}


def test_types_may_be_known_to_the_surroundings_only() -> None:
    class Local: ...

    def local(x: Local) -> None: ...

    with pytest.raises(NameError):
        shape(local)
    assert shape(local, Local=Local) == {"x": Local}


def stars(*values: int) -> None: ...


def stars_by_name(**values: int) -> None: ...


def positional(value: int, /) -> None: ...


@pytest.mark.parametrize("function", [stars, stars_by_name, positional, dict.fromkeys, min])
def test_what_no_model_could_call_is_refused(function: Callable[..., Any]) -> None:
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
def test_a_docstring_describes_the_function_and_its_parameters(
    function: Callable[..., Any],
) -> None:
    said = parse_docstring(function)
    assert (said["a"], said["b"]) == ("The first, on two lines.", "The second.")
    assert said[""].startswith("Do a thing in two lines")
    assert "second paragraph" not in said[""]


def test_no_docstring_says_nothing() -> None:
    assert parse_docstring(lambda x: x) == {}
    assert parse_docstring(functools.partial(google, 1)) == parse_docstring(google)
