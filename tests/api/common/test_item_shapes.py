"""Items of other shapes, brought into the Responses API's."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from antiphon.api.common.input_items import decode_items
from antiphon.api.common.item_shapes import normalize_item
from antiphon.errors import InvalidRequestError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
WORDS = st.sampled_from(
    [
        *("message", "function_call", "function_call_output", "custom_tool_call"),
        *("reasoning", "custom_tool_call_output", "item_reference", "local_shell_call"),
        *("x", "mcp_call"),
    ]
)
FIELDS = st.sampled_from(
    [
        *("role", "content", "id", "call_id"),
        *("name", "arguments", "input", "output"),
        *("status", "summary", "tool_calls", "function_call"),
        *("refusal", "tool_call_id", "encrypted_content"),
    ]
)
PARTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "input_text", "output_text", "image_url", "input_image"])},
    optional={"text": JSON, "image_url": JSON, "detail": JSON},
)
ITEMS = st.fixed_dictionaries(
    {},
    optional={"type": WORDS | JSON, "role": st.sampled_from(["user", "assistant", "tool", "ai"])},
).flatmap(
    lambda start: st.dictionaries(FIELDS, JSON | PARTS | st.lists(PARTS, max_size=2)).map(
        lambda fields: {**fields, **start}
    )
)


@given(ITEMS)
def test_what_has_its_shape_stays_as_it_is(fields: dict[str, Any]) -> None:
    for once in normalize_item(fields):
        assert list(normalize_item(once)) == [once]


@given(st.lists(ITEMS | st.text(max_size=3), max_size=3))
def test_any_items_are_taken_or_refused_by_name(items: list[Any]) -> None:
    refusal: InvalidRequestError | None = None
    try:
        decode_items(items, "input")
    except InvalidRequestError as error:
        refusal = error
    assert refusal is None or (refusal.param or "").startswith("input[")
