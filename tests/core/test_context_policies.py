"""Context policies: invalid values are refused when a policy is created."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from antiphon.core.context_policies import ContextPolicy, Summarize, TokenBudget, Window
from antiphon.errors import InvalidRequestError

WRONG: list[Any] = [0, -1, 1.0, 1.5, "9", True, None, [1]]


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (Window, "max_messages"),
        (TokenBudget, "max_tokens"),
        (lambda value: msgspec.structs.replace(Window(2), max_messages=value), "max_messages"),
    ],
)
def test_limit_must_be_a_positive_integer(
    make: Callable[[Any], ContextPolicy], name: str, value: Any
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        make(value)
    assert caught.value.param == name
    assert caught.value.message == (f"{name} is a whole number of at least 1, not {value!r}.")


@pytest.mark.parametrize("name", ["max_tokens", "max_messages"])
@pytest.mark.parametrize("value", [value for value in WRONG if value is not None])
def test_summary_limit_may_be_missing_but_not_invalid(name: str, value: Any) -> None:
    both: dict[str, Any] = {"max_tokens": 9, "max_messages": 9, name: value}
    with pytest.raises(InvalidRequestError) as caught:
        Summarize(**both)
    assert caught.value.param == name
    assert Summarize(**{**both, name: None})


def test_summary_needs_a_limit() -> None:
    missing = ("missing_required_parameter", "max_tokens")
    with pytest.raises(InvalidRequestError) as caught:
        Summarize()
    assert (caught.value.code, caught.value.param) == missing
    with pytest.raises(InvalidRequestError) as caught:
        msgspec.structs.replace(Summarize(1), max_tokens=None)
    assert (caught.value.code, caught.value.param) == missing


@pytest.mark.parametrize("value", [-1, 1.0, "2", False, None])
def test_keep_turns_must_be_a_nonnegative_integer(value: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Summarize(max_tokens=1, keep_turns=value)
    assert caught.value.param == "keep_turns"
    assert Summarize(max_tokens=1, keep_turns=0).keep_turns == 0


@pytest.mark.parametrize("value", ["", " \n", None, 3, b"Sum up.", "\ud800"])
def test_summary_prompt_must_be_nonempty_text(value: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Summarize(max_tokens=1, prompt=value)
    assert caught.value.param == "prompt"


def test_policies_compare_by_value_and_are_immutable() -> None:
    assert Window() == Window(50)
    assert Summarize(9) == Summarize(max_tokens=9, max_messages=None, keep_turns=4)
    assert len({Window(1), Window(1), TokenBudget(1), Summarize(1), Summarize(1)}) == 3
    with pytest.raises(AttributeError):
        Window(1).max_messages = 0  # type: ignore[misc]
