"""The context: whatever became of a conversation, the model is shown a well-formed one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.core.items import (
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Item,
    Message,
    OutputText,
    Reasoning,
    Refusal,
    SummaryText,
)
from antiphon.core.tool_rules import INTERRUPTED_OUTPUT
from antiphon.turn.message_rendering import (
    RenderedTurn,
    build_messages,
    render_turn,
)
from antiphon.turn.open_calls import pair_tool_outputs
from antiphon.turn.trimming import trim_by_ratio
from support.chain_strategies import (
    Chain,
    chains,
    check_well_formed,
    count_messages,
    results,
    with_role,
)

unhurried = settings(deadline=None)


@unhurried
@given(chains())
def test_every_conversation_that_the_rules_allow_is_well_formed(chain: Chain) -> None:
    past: RenderedTurn | None = None
    for turn in chain.turns:
        pair_tool_outputs([past] if past else [], turn.input)
        past = turn.segment()
    messages = check_well_formed(build_messages([turn.segment() for turn in chain.turns]))
    every = [item for turn in chain.turns for item in (*turn.input, *turn.output)]
    assert len(with_role(messages, "user")) == count_messages(tuple(every), "user")
    assert len(with_role(messages, "system")) == count_messages(tuple(every), "system", "developer")
    made = [item.arguments for item in every if isinstance(item, FunctionCall)]
    expected = {one: chain.outputs.get(one, INTERRUPTED_OUTPUT) for one in made}
    assert results(messages) == expected, "each call has its own output"


@unhurried
@given(chains(), st.data())
def test_a_conversation_with_holes_is_well_formed(chain: Chain, data: st.DataObject) -> None:
    """Any turns but the newest may have been deleted."""
    gone = data.draw(st.sets(st.integers(0, max(0, len(chain.turns) - 2))))
    left = [
        turn for at, turn in enumerate(chain.turns) if at not in gone or turn is chain.turns[-1]
    ]
    messages = check_well_formed(build_messages([turn.segment() for turn in left]))
    assert len(with_role(messages, "user")) == sum(
        count_messages(turn.input, "user") for turn in left
    )


@unhurried
@given(
    chains(),
    st.none() | st.integers(0, 10_000),
    st.none() | st.integers(0, 10_000),
    st.text(max_size=3),
    st.booleans(),
)
def test_a_shortened_conversation_is_whole_in_what_it_keeps(
    chain: Chain, used: int | None, limit: int | None, instructions: str, primed: bool
) -> None:
    primer = b'{"role":"user","content":"Hi."},{"role":"assistant","content":"Hello."}'
    segments = [turn.segment() for turn in chain.turns]
    kept = trim_by_ratio(segments, used, limit)
    raw = build_messages(kept, instructions=instructions, few_shot=primer if primed else b"")
    messages = check_well_formed(raw)
    before = check_well_formed(build_messages(segments))
    if instructions:
        assert messages.pop(0) == {"role": "system", "content": instructions}
    if primed:
        assert [one["content"] for one in messages[:2]] == ["Hi.", "Hello."]
        del messages[:2]
    assert with_role(messages, "system") == with_role(before, "system")
    newest = json.loads(b"[" + segments[-1].messages + b"]")
    assert messages[len(messages) - len(newest) :] == newest
    truth = results(before)
    assert all(truth[one] == shown for one, shown in results(messages).items())


@unhurried
@given(chains(), st.none() | st.integers(1, 10_000), st.none() | st.integers(1, 10_000))
def test_shortening_again_and_again_comes_to_an_end(
    chain: Chain, used: int | None, limit: int | None
) -> None:
    segments: Sequence[RenderedTurn] = [turn.segment() for turn in chain.turns]
    for _ in range(len(segments) + 1):
        shorter = trim_by_ratio(segments, used, limit)
        if sum(map(len_of, shorter)) == sum(map(len_of, segments)):
            break
        segments = shorter
    else:
        pytest.fail("each round has to let a turn go, or be the last")
    # What is left has nothing that could go: only system messages before the last group.
    first = next((at for at, one in enumerate(segments) if one.messages != one.system), None)
    assert first is None or all(one.outputs for one in segments[first + 1 :])


def len_of(segment: RenderedTurn) -> int:
    return segment.size


def turn_of(text: str, answer: str = "Yes.", system: str | None = None) -> RenderedTurn:
    before = [Message("system", system)] if system else []
    return render_turn([*before, Message("user", text), Message("assistant", answer)])


def test_the_oldest_go_first_and_no_more_than_must() -> None:
    segments = [turn_of(f"{number} {'x' * 100}") for number in range(10)]
    kept = trim_by_ratio(segments, 1000, 800)
    texts = with_role(check_well_formed(build_messages(kept)), "user")
    assert [text[0] for text in texts] == ["3", "4", "5", "6", "7", "8", "9"]


def test_without_numbers_about_half_goes() -> None:
    segments = [turn_of(f"{number} {'x' * 100}") for number in range(10)]
    for numbers in ((None, None), (1000, None), (None, 1000)):
        assert (
            len(
                with_role(
                    check_well_formed(build_messages(trim_by_ratio(segments, *numbers))), "user"
                )
            )
            == 5
        )


def test_a_model_that_refuses_less_than_its_limit_is_shown_less_still() -> None:
    """The answer needs room too: a count below the limit can be too much."""
    segments = [turn_of(f"{number} {'x' * 100}") for number in range(10)]
    kept = trim_by_ratio(segments, 800, 1000)
    assert len(with_role(check_well_formed(build_messages(kept)), "user")) == 9


def test_linked_turns_go_together() -> None:
    asked = render_turn([Message("user", "Weather?"), FunctionCall("c", "f", "{}")])
    answered = render_turn([FunctionCallOutput("c", "sunny"), Message("assistant", "Sunny.")])
    after = turn_of("Thanks.")
    kept = trim_by_ratio([asked, answered, after], None, None)
    assert with_role(check_well_formed(build_messages(kept)), "user") == ["Thanks."]
    # Linked to the newest, they stay, and there is nothing to let go.
    assert trim_by_ratio([asked, answered], 1000, 10) == [asked, answered]


@pytest.mark.parametrize("role", ["system", "developer"])
def test_system_messages_outlive_their_turns(role: Any) -> None:
    old = render_turn(
        [Message(role, "Be kind."), Message("user", "Hi."), Message("assistant", "Yo.")]
    )
    kept = trim_by_ratio([old, turn_of("Well?", system="Be brief.")], 1000, 10)
    messages = check_well_formed(build_messages(kept))
    assert with_role(messages, "system") == ["Be kind.", "Be brief."]
    assert with_role(messages, "user") == ["Well?"]


def test_calls_made_one_after_another_stay_so() -> None:
    items: list[Item] = [
        FunctionCall("a", "f", "1"),
        FunctionCallOutput("a", "one"),
        FunctionCall("b", "f", "2"),
        FunctionCall("c", "f", "3"),
        FunctionCallOutput("c", "three"),
        FunctionCallOutput("b", "two"),
    ]
    messages = check_well_formed(build_messages([render_turn(items)]))
    assert [message["role"] for message in messages] == [
        *("assistant", "tool"),
        *("assistant", "tool", "tool"),
    ]
    assert [len(message.get("tool_calls", ())) for message in messages] == [1, 0, 2, 0, 0]


def test_a_model_that_talks_after_its_calls_still_gets_its_outputs() -> None:
    asked = render_turn(
        [
            Message("user", "Weather?"),
            FunctionCall("a", "f", "1"),
            Message("assistant", "I am looking."),
            FunctionCall("b", "f", "2"),
            Reasoning((SummaryText("Hm."),)),
        ]
    )
    answered = render_turn([FunctionCallOutput("b", "two"), FunctionCallOutput("a", "one")])
    messages = check_well_formed(build_messages([asked, answered]))
    assert [message["content"] for message in messages] == [
        *("Weather?", "I am looking.", "one", "two")
    ]
    assert [call["id"] for call in messages[1]["tool_calls"]] == ["a", "b"]


def test_an_id_used_again_finds_the_right_output() -> None:
    first = render_turn([Message("user", "One?"), FunctionCall("c", "f", '{"n":1}')])
    second = render_turn([FunctionCallOutput("c", "one"), FunctionCall("c", "f", '{"n":2}')])
    third = render_turn([FunctionCallOutput("c", "two"), Message("assistant", "Both.")])
    pair_tool_outputs([first], [FunctionCallOutput("c", "one")])
    pair_tool_outputs([second], [FunctionCallOutput("c", "two")])
    messages = check_well_formed(build_messages([first, second, third]))
    assert results(messages) == {'{"n":1}': "one", '{"n":2}': "two"}


def test_prose_is_shown_as_text_and_pictures_as_parts() -> None:
    items: list[Item] = [
        Message("developer", "Be brief."),
        Message("user", (InputText("a"), InputText("b"))),
        Message("user", (InputText("Look:"), InputImage("data:image/png;base64,", "high"))),
        Message("user", "", name="bob"),
        Message("assistant", (OutputText("I"), Refusal(" will not."))),
        Message("assistant", ()),
    ]
    assert check_well_formed(build_messages([render_turn(items)])) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "ab"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look:"},
                {
                    "type": "image_url",
                    "image_url": {"url": "data:image/png;base64,", "detail": "high"},
                },
            ],
        },
        {"role": "user", "content": "", "name": "bob"},
        {"role": "assistant", "content": "I will not."},
    ]


def test_nothing_at_all_is_an_empty_array() -> None:
    assert build_messages([]) == b"[]"
    assert build_messages([render_turn([])], instructions="") == b"[]"
    assert build_messages([render_turn([Reasoning()]), render_turn([Message("user", "Hi.")])]) == (
        b'[{"role":"user","content":"Hi."}]'
    )
