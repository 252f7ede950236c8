"""Items: their encoding round-trips and is compact."""

from __future__ import annotations

import json
from typing import Any, Literal, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.core.items import (
    ApprovedCall,
    Compaction,
    ErasedItem,
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Item,
    McpApproval,
    McpListTools,
    Message,
    OutputText,
    Part,
    Reasoning,
    ReasoningText,
    Refusal,
    Role,
    SummaryText,
    decode_item,
    encode_item,
    has_image,
    item_kind,
    text_of,
)
from antiphon.errors import StoreError

TEXT = st.text()
LEAVES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)
)
DETAILS: list[Literal["auto", "low", "high"]] = ["auto", "low", "high"]
PARTS: st.SearchStrategy[Part] = st.one_of(
    st.builds(InputText, TEXT),
    st.builds(InputImage, TEXT, st.sampled_from(DETAILS)),
    st.builds(OutputText, TEXT, st.lists(ANYTHING, max_size=2).map(tuple)),
    st.builds(Refusal, TEXT),
)
CONTENT: st.SearchStrategy[Any] = TEXT | st.lists(PARTS, max_size=4).map(tuple)
STATUS: st.SearchStrategy[Any] = st.sampled_from(["completed", "incomplete"])
ROLES: st.SearchStrategy[Any] = st.sampled_from(get_args(Role))
CALLS = st.builds(FunctionCall, TEXT, TEXT, TEXT, STATUS, st.none() | TEXT)
ITEMS: st.SearchStrategy[Item] = st.one_of(
    st.builds(Message, ROLES, CONTENT, st.none() | TEXT, STATUS),
    CALLS,
    st.builds(
        FunctionCallOutput,
        TEXT,
        CONTENT,
        STATUS,
        st.booleans(),
        st.none() | st.builds(ApprovedCall, TEXT, CALLS),
    ),
    st.builds(
        Reasoning,
        st.lists(st.builds(SummaryText, TEXT), max_size=3).map(tuple),
        st.lists(st.builds(ReasoningText, TEXT), max_size=3).map(tuple),
        st.none() | TEXT,
        STATUS,
    ),
    st.builds(Compaction, TEXT, st.integers(0, 9), st.integers(0, 9)),
    st.builds(McpListTools, TEXT, st.just(({"name": "f"},)), st.none() | TEXT),
    st.builds(McpApproval, TEXT, st.booleans(), st.none() | TEXT),
    st.just(ErasedItem()),
)


@settings(deadline=None)
@given(ITEMS)
def test_item_round_trips(item: Item) -> None:
    assert decode_item(encode_item(item)) == item


@settings(deadline=None)
@given(ITEMS)
def test_encoded_item_has_its_type(item: Item) -> None:
    fields = json.loads(encode_item(item))
    assert fields["type"] == item_kind(item)


def test_plain_message_is_encoded_compactly() -> None:
    stored = encode_item(Message("user", "Hi."))
    assert json.loads(stored) == {"type": "message", "role": "user", "content": "Hi."}
    assert len(stored) == len(b'{"type":"message","role":"user","content":"Hi."}')


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"null",
        b"{}",
        b'{"type":"message"}',
        b'{"type":"message","role":"robot","content":""}',
        b'{"type":"message","role":"user","content":null}',
        b'{"type":"compaction"}',
        b'{"type":"function_call","call_id":"c","name":"f"}',
    ],
)
def test_invalid_stored_item_is_refused(stored: bytes) -> None:
    with pytest.raises(StoreError):
        decode_item(stored)


@settings(deadline=None)
@given(st.lists(PARTS, max_size=5))
def test_text_of_parts_joins_text_parts(parts: list[Part]) -> None:
    texts = [part.text for part in parts if isinstance(part, InputText | OutputText)]
    assert text_of(tuple(parts)) == "".join(texts)
    assert text_of("".join(texts)) == "".join(texts)


@settings(deadline=None)
@given(ITEMS)
def test_has_image_finds_images_in_any_item(item: Item) -> None:
    assert has_image(item) == (b'"type":"input_image"' in encode_item(item).replace(b'\\"', b"'"))


def test_has_image_counts_image_parts_and_not_text() -> None:
    image = InputImage("https://example.com/a.png")
    assert has_image(Message("user", (InputText("Look:"), image)))
    assert has_image(FunctionCallOutput("c", (image,)))
    assert not has_image(Message("user", "https://example.com/a.png"))
    assert not has_image(FunctionCallOutput("c", "input_image"))
    assert not has_image(FunctionCall("c", "input_image", "{}"))
