"""Tool outputs in an input, paired with the open calls of the history."""

from __future__ import annotations

import pytest

from antiphon.core.items import (
    ForeignItem,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
)
from antiphon.errors import InvalidRequestError
from antiphon.turn.message_rendering import RenderedTurn, build_messages, render_turn
from antiphon.turn.open_calls import pair_tool_outputs
from support.chain_strategies import check_well_formed

A, B = FunctionCall("a", "f", "{}"), FunctionCall("b", "f", "{}")
OUT_A, OUT_B = FunctionCallOutput("a", "1"), FunctionCallOutput("b", "2")
HELLO = Message("user", "Hello?")
OPEN_CALLS = render_turn([HELLO, A, B])
FAILED = render_turn([HELLO, A, B], completed=False)


@pytest.mark.parametrize(
    ("parent", "items", "code", "names"),
    [
        (None, [OUT_A], "tool_call_not_found", ["a"]),
        (None, [HELLO, A], "tool_output_missing", ["a"]),
        (None, [OUT_A, A], "tool_call_not_found", ["a"]),
        (None, [A, A, OUT_A], "tool_call_duplicate", ["a"]),
        (OPEN_CALLS, [HELLO], "tool_output_missing", ["a", "b"]),
        (OPEN_CALLS, [OUT_A], "tool_output_missing", ["b"]),
        (OPEN_CALLS, [OUT_A, HELLO], "tool_output_missing", ["b"]),
        (OPEN_CALLS, [OUT_A, OUT_B, FunctionCallOutput("zz", "")], "tool_call_not_found", ["zz"]),
        (FAILED, [FunctionCallOutput("zz", "")], "tool_call_not_found", ["zz"]),
    ],
)
def test_unpaired_tool_outputs_are_refused_with_their_call_ids(
    parent: RenderedTurn | None, items: list[Item], code: str, names: list[str]
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        pair_tool_outputs([parent] if parent else [], items)
    assert (caught.value.code, caught.value.param) == (code, "input")
    for name in ("a", "b", "zz"):
        assert (f"'{name}'" in caught.value.message) == (name in names)


@pytest.mark.parametrize(
    ("parent", "items"),
    [
        (None, []),
        (None, [A, B, OUT_B, OUT_A]),
        (None, [A, OUT_A, A, OUT_A]),
        (OPEN_CALLS, [OUT_B, HELLO, OUT_A]),
        (FAILED, [HELLO]),
        (FAILED, [OUT_B, HELLO]),
        (render_turn([HELLO, A, OUT_A]), [HELLO]),
    ],
)
def test_paired_tool_outputs_are_accepted(parent: RenderedTurn | None, items: list[Item]) -> None:
    past = [parent] if parent else []
    assert pair_tool_outputs(past, items) == items
    check_well_formed(build_messages([*past, render_turn(items)]))


ANSWERED = [OPEN_CALLS, render_turn([OUT_A, OUT_B]), render_turn([HELLO, A, OUT_A])]
OTHER_OUTPUT = FunctionCallOutput("a", "other words")
SHELL_CALL = ForeignItem({"type": "local_shell_call", "id": "x", "call_id": "s", "action": {}})
SHELL_OUTPUT = ForeignItem({"type": "local_shell_call_output", "id": "s", "output": "ok"})


@pytest.mark.parametrize(
    ("history", "items", "expected"),
    [
        ([], [A, OUT_A, OUT_A], [A, OUT_A]),
        ([OPEN_CALLS], [OUT_A, OUT_B, OUT_A], [OUT_A, OUT_B]),
        ([FAILED], [OUT_A, OUT_A], [OUT_A]),
        (ANSWERED, [HELLO, OUT_A, OUT_B], [HELLO]),
        (ANSWERED, [OUT_A], []),
        (ANSWERED, [OTHER_OUTPUT, HELLO], [HELLO]),
        (ANSWERED[:2], [A, OUT_B, OUT_A], [A, OUT_A]),
        ([render_turn([SHELL_CALL])], [SHELL_OUTPUT, SHELL_OUTPUT], [SHELL_OUTPUT]),
        ([render_turn([SHELL_CALL])], [FunctionCallOutput("s", "ok")], None),
        ([], [SHELL_OUTPUT, HELLO], None),
        ([], [SHELL_CALL, SHELL_OUTPUT], None),
    ],
)
def test_outputs_of_answered_calls_are_dropped(
    history: list[RenderedTurn], items: list[Item], expected: list[Item] | None
) -> None:
    assert list(pair_tool_outputs(history, items)) == (items if expected is None else expected)
