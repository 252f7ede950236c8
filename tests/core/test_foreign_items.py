"""Foreign items: rendered as function calls and outputs for models that know functions only."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.foreign_items import function_views, is_foreign_type
from antiphon.core.items import (
    ForeignItem,
    FunctionCall,
    FunctionCallOutput,
    InputText,
    Message,
    encode_item,
)
from antiphon.core.reasoning_sidecar import strip_sidecars
from antiphon.turn.message_rendering import build_messages, render_turn

HI = Message("user", "Hi")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
TYPES = st.sampled_from(
    [
        *("local_shell_call", "local_shell_call_output", "shell_call", "x_call"),
        *("x_call_output", "web_search_call", "additional_tools", "tool_search_output"),
        *("program", "computer_call"),
    ]
)


def item(kind: str, **fields: Any) -> ForeignItem:
    return ForeignItem({"type": kind, **fields})


@pytest.mark.parametrize(
    "kind", ["web_search_call", "x_call_output", "tool_search_output", "additional_tools"]
)
def test_foreign_types_are_recognized(kind: str) -> None:
    assert is_foreign_type(kind)
    assert not is_foreign_type(kind.rpartition("_")[0].removesuffix("_call"))


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        ("text", "text"),
        (None, ""),
        ([{"type": "input_text", "text": "a"}], (InputText("a"),)),
        ([{"stdout": "a"}], '[{"stdout":"a"}]'),
        ({"exit": 0}, '{"exit":0}'),
        ([], ()),
    ],
)
def test_foreign_outputs_are_converted(output: Any, shown: Any) -> None:
    call = item("x_call", call_id="c", arguments='{"a":1}')
    views = function_views([call, item("x_call_output", call_id="c", output=output)])
    assert views == [FunctionCall("c", "x", '{"a":1}'), FunctionCallOutput("c", shown)]


def test_unanswered_foreign_call_is_rendered_only_if_the_client_runs_it() -> None:
    open_call = item("x_call", call_id="c")
    views = function_views([HI, open_call, item("shell_call", call_id="d", a=1)])
    assert views == [HI, open_call, FunctionCall("d", "shell", "1")]


@given(
    st.lists(
        st.tuples(TYPES, st.dictionaries(st.sampled_from(["id", "call_id", "output", "a"]), JSON))
    )
)
def test_any_foreign_items_can_be_rendered_and_stored(
    given: list[tuple[str, dict[str, Any]]],
) -> None:
    items = [item(kind, **fields) for kind, fields in given]
    messages = json.loads(strip_sidecars(build_messages([render_turn([HI, *items])])))
    assert messages[0] == {"role": "user", "content": "Hi"}
    assert all(map(encode_item, items))
