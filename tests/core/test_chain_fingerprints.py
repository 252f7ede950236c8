"""Fingerprints of histories: equal for equal content, and different otherwise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.chain_fingerprints import (
    extend_fingerprint,
    fingerprint_history,
    group_messages,
)
from antiphon.core.items import (
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    OutputText,
    Reasoning,
    Refusal,
    SummaryText,
)

texts = st.text(max_size=3)
calls = st.builds(FunctionCall, texts, texts, texts)
answers = st.builds(Message, st.just("assistant"), texts)
items = st.lists(
    st.one_of(
        st.builds(Message, st.sampled_from(("user", "system")), texts),
        answers,
        calls,
        st.builds(FunctionCallOutput, texts, texts),
    ),
    max_size=6,
)
HI, BYE = Message("user", "Hi"), Message("user", "Bye")
CALL = FunctionCall("c1", "f", '{"a": 1}')


@given(items, items)
def test_every_prefix_that_ends_with_an_answer_has_its_own_fingerprint(
    before: list[Item], after: list[Item]
) -> None:
    history = [*before, HI, Message("assistant", "Hello"), BYE, *after]
    count = len(before) + 2
    answers = dict(fingerprint_history("", history).answers)
    assert answers[count] == fingerprint_history("", history[:count]).digest
    assert list(answers) == sorted(answers, reverse=True)
    assert len(set(answers.values())) == len(answers)


@given(items)
def test_extended_fingerprint_equals_that_of_the_whole_history(history: list[Item]) -> None:
    history = [*history, HI]
    answer: list[Item] = [Reasoning((SummaryText("Hm."),)), Message("assistant", "Hello"), CALL]
    extended = extend_fingerprint(fingerprint_history("", history).digest, answer)
    assert extended == fingerprint_history("", [*history, *answer[1:]]).digest


@given(items)
def test_message_groups_keep_the_item_order(history: list[Item]) -> None:
    assert [item for group in group_messages(history) for item in group] == history


@pytest.mark.parametrize(
    "echo",
    [
        [Message("assistant", "Hello"), CALL],
        [Message("assistant", " Hello\n"), CALL],
        [Message("assistant", (OutputText("Hello"),)), CALL],
        [Message("assistant", "Hello"), FunctionCall("c1", "f", '{"a":1}')],
        [Reasoning(), Message("assistant", "Hello"), CALL],
    ],
)
def test_fingerprint_ignores_client_changes_to_an_answer(echo: list[Item]) -> None:
    expected = fingerprint_history("", [HI, Message("assistant", "Hello"), CALL]).digest
    assert fingerprint_history("", [HI, *echo]).digest == expected


@pytest.mark.parametrize(
    ("tenant", "history"),
    [
        ("acme", [HI, Message("assistant", "Hello")]),
        ("", [BYE, Message("assistant", "Hello")]),
        ("", [HI, Message("assistant", "Hello!")]),
        ("", [HI, Message("assistant", "Hello", "Ann")]),
        ("", [HI, Message("assistant", (Refusal("Hello"),))]),
        ("", [HI, HI, Message("assistant", "Hello")]),
        ("", [Message("user", "Hi", "Ann"), Message("assistant", "Hello")]),
        ("", [Message("system", "Hi"), Message("assistant", "Hello")]),
        ("", [HI, Message("assistant", "Hel"), Message("assistant", "lo")]),
        ("", [HI, Message("assistant", "Hello"), CALL]),
        ("", [Message("user", "Hi "), Message("assistant", "Hello")]),
    ],
)
def test_fingerprint_depends_on_tenant_and_content(tenant: str, history: list[Item]) -> None:
    expected = fingerprint_history("", [HI, Message("assistant", "Hello")]).digest
    assert fingerprint_history(tenant, history).digest != expected
