"""``ToolContext``: which parameters take one."""

from __future__ import annotations

from typing import Annotated, Any, ForwardRef, Optional

import pytest

from antiphon.tools import tool_context
from antiphon.tools.tool_context import ToolContext, context_parameters, is_tool_context


@pytest.mark.parametrize(
    "annotation",
    [
        ToolContext,
        ToolContext[int],
        Annotated[ToolContext[int], "the shop"],
        "ToolContext",
        "ToolContext[Shop]",
        "context.ToolContext[dict[str, Shop]]",
        "antiphon.tools.tool_context.ToolContext",
        ToolContext[int] | None,
        Annotated[ToolContext | None, "the shop"],
        "ToolContext[Shop] | None",
        ForwardRef("ToolContext[Shop]"),
        Optional["ToolContext"],
    ],
)
def test_context_annotations_are_recognized(annotation: object) -> None:
    assert is_tool_context(annotation)


@pytest.mark.parametrize(
    "annotation",
    [
        str,
        Any,
        None,
        "str",
        "MyToolContext",
        "list[ToolContext]",
        list[ToolContext[int]],
        int | None,
        ForwardRef("Shop"),
    ],
)
def test_other_annotations_are_not_context(annotation: object) -> None:
    assert not is_tool_context(annotation)


def test_context_parameters_are_found() -> None:
    def refund(
        amount: float, ctx: ToolContext[int], *, more: tool_context.ToolContext[str]
    ) -> None: ...

    assert context_parameters(refund) == ("ctx", "more")
    assert context_parameters(dict.fromkeys) == ()


def test_context_is_immutable() -> None:
    context = ToolContext(deps=[1], call_id="call_1", name="refund")
    with pytest.raises(AttributeError):
        context.deps = [2]  # type: ignore[misc]
    assert (context.deps, context.call_id, context.name) == ([1], "call_1", "refund")
