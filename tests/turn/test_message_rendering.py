"""Message rendering: every history becomes a well-formed list of messages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
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
    Role,
    SummaryText,
    encode_item,
)
from antiphon.core.provider_fields import ProviderFields
from antiphon.core.tool_rules import INTERRUPTED_OUTPUT
from antiphon.core.turns import End, Header, Response
from antiphon.turn.history_cache import render_stored_turn
from antiphon.turn.message_encoding import message_in_stored
from antiphon.turn.message_rendering import (
    RenderedTurn,
    build_messages,
    render_response,
    render_turn,
)
from antiphon.turn.open_calls import pair_tool_outputs
from antiphon.turn.store_protocols import HistoryEnd, HistoryTurn
from antiphon.turn.trimming import trim_by_ratio
from support.chain_strategies import (
    ASSISTANT_ITEMS,
    MESSAGE_ITEMS,
    Chain,
    chains,
    check_well_formed,
    count_messages,
    results,
    with_role,
)

no_deadline = settings(deadline=None)


@no_deadline
@given(chains())
def test_every_valid_conversation_renders_well_formed_messages(chain: Chain) -> None:
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


@no_deadline
@given(
    st.lists(MESSAGE_ITEMS, max_size=3),
    st.lists(ASSISTANT_ITEMS, max_size=2),
    st.sampled_from([End("completed", 1.0, tokens=7), End("failed", 1.0), None]),
)
def test_a_turn_whose_input_is_rendered_already_is_rendered_the_same(
    given_items: list[Item], output: list[Item], end: End | None
) -> None:
    response = Response("resp_1", 0.0, Header("m"), tuple(given_items), tuple(output), end=end)
    assert render_response(response, render_turn(given_items)) == render_response(response)


@no_deadline
@given(chains(), st.data())
def test_conversation_with_deleted_turns_renders_well_formed_messages(
    chain: Chain, data: st.DataObject
) -> None:
    """Any turns except the newest may have been deleted."""
    deleted = data.draw(st.sets(st.integers(0, max(0, len(chain.turns) - 2))))
    remaining_turns = [
        turn for at, turn in enumerate(chain.turns) if at not in deleted or turn is chain.turns[-1]
    ]
    messages = check_well_formed(build_messages([turn.segment() for turn in remaining_turns]))
    assert len(with_role(messages, "user")) == sum(
        count_messages(turn.input, "user") for turn in remaining_turns
    )


@no_deadline
@given(
    chains(),
    st.none() | st.integers(0, 10_000),
    st.none() | st.integers(0, 10_000),
    st.text(max_size=3),
    st.booleans(),
)
def test_trimmed_conversation_keeps_whole_turns_and_system_messages(
    chain: Chain, used: int | None, limit: int | None, instructions: str, primed: bool
) -> None:
    primer = b'{"role":"user","content":"Hi."},{"role":"assistant","content":"Hello."}'
    segments = [turn.segment() for turn in chain.turns]
    remaining = trim_by_ratio(segments, used, limit)
    raw = build_messages(remaining, instructions=instructions, few_shot=primer if primed else b"")
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
    all_results = results(before)
    assert all(all_results[one] == shown for one, shown in results(messages).items())


@no_deadline
@given(chains(), st.none() | st.integers(1, 10_000), st.none() | st.integers(1, 10_000))
def test_repeated_trimming_terminates(chain: Chain, used: int | None, limit: int | None) -> None:
    segments: Sequence[RenderedTurn] = [turn.segment() for turn in chain.turns]
    for _ in range(len(segments) + 1):
        shorter = trim_by_ratio(segments, used, limit)
        if sum(map(size_of, shorter)) == sum(map(size_of, segments)):
            break
        segments = shorter
    else:
        pytest.fail("each round has to drop a turn, or be the last")
    # Nothing that remains can be dropped: only system messages precede the last group.
    first = next((at for at, one in enumerate(segments) if one.messages != one.system), None)
    assert first is None or all(one.outputs for one in segments[first + 1 :])


def size_of(segment: RenderedTurn) -> int:
    return segment.size


def rendered_turn(text: str, answer: str = "Yes.", system: str | None = None) -> RenderedTurn:
    before = [Message("system", system)] if system else []
    return render_turn([*before, Message("user", text), Message("assistant", answer)])


def test_trimming_drops_the_fewest_oldest_turns() -> None:
    segments = [rendered_turn(f"{number} {'x' * 100}") for number in range(10)]
    remaining = trim_by_ratio(segments, 1000, 800)
    texts = with_role(check_well_formed(build_messages(remaining)), "user")
    assert [text[0] for text in texts] == ["3", "4", "5", "6", "7", "8", "9"]


def test_trimming_without_token_counts_drops_half() -> None:
    segments = [rendered_turn(f"{number} {'x' * 100}") for number in range(10)]
    for numbers in ((None, None), (1000, None), (None, 1000)):
        assert (
            len(
                with_role(
                    check_well_formed(build_messages(trim_by_ratio(segments, *numbers))), "user"
                )
            )
            == 5
        )


def test_count_below_the_limit_still_drops_a_turn() -> None:
    """The answer needs room too: a count below the limit can be too high."""
    segments = [rendered_turn(f"{number} {'x' * 100}") for number in range(10)]
    remaining = trim_by_ratio(segments, 800, 1000)
    assert len(with_role(check_well_formed(build_messages(remaining)), "user")) == 9


def test_turns_linked_by_a_call_are_dropped_together() -> None:
    asked = render_turn([Message("user", "Weather?"), FunctionCall("c", "f", "{}")])
    answered = render_turn([FunctionCallOutput("c", "sunny"), Message("assistant", "Sunny.")])
    after = rendered_turn("Thanks.")
    remaining = trim_by_ratio([asked, answered, after], None, None)
    assert with_role(check_well_formed(build_messages(remaining)), "user") == ["Thanks."]
    # Linked to the newest turn, they stay: nothing can be dropped.
    assert trim_by_ratio([asked, answered], 1000, 10) == [asked, answered]


@pytest.mark.parametrize("role", ["system", "developer"])
def test_system_messages_stay_when_their_turn_is_dropped(role: Any) -> None:
    old = render_turn(
        [Message(role, "Be kind."), Message("user", "Hi."), Message("assistant", "Yo.")]
    )
    remaining = trim_by_ratio([old, rendered_turn("Well?", system="Be brief.")], 1000, 10)
    messages = check_well_formed(build_messages(remaining))
    assert with_role(messages, "system") == ["Be kind.", "Be brief."]
    assert with_role(messages, "user") == ["Well?"]


def test_sequential_calls_stay_in_separate_messages() -> None:
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


def test_text_between_calls_keeps_outputs_directly_after_the_calls() -> None:
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


def test_reused_call_id_is_paired_with_its_own_output() -> None:
    first = render_turn([Message("user", "One?"), FunctionCall("c", "f", '{"n":1}')])
    second = render_turn([FunctionCallOutput("c", "one"), FunctionCall("c", "f", '{"n":2}')])
    third = render_turn([FunctionCallOutput("c", "two"), Message("assistant", "Both.")])
    pair_tool_outputs([first], [FunctionCallOutput("c", "one")])
    pair_tool_outputs([second], [FunctionCallOutput("c", "two")])
    messages = check_well_formed(build_messages([first, second, third]))
    assert results(messages) == {'{"n":1}': "one", '{"n":2}': "two"}


def test_text_renders_as_a_string_and_images_as_parts() -> None:
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


#: Texts with what is between a message's fields, and what looks like it.
TRICKY = st.lists(
    st.sampled_from(['"', '",', '","', "\\", "{", '"}', "é", "\u2028", "\n", "", "name", " "])
).map("".join)
MESSAGES = st.builds(
    Message,
    st.sampled_from(["user", "assistant", "system", "developer"]),
    st.one_of(TRICKY, st.builds(lambda text: (InputText(text),), TRICKY)),
    name=st.one_of(st.none(), TRICKY),
    status=st.sampled_from(["completed", "incomplete"]),
    phase=st.one_of(st.none(), st.just("commentary")),
    provider_fields=st.one_of(st.none(), st.just(ProviderFields("there", {"a": '","'}))),
)


@no_deadline
@given(st.lists(st.one_of(MESSAGES, MESSAGE_ITEMS)))
def test_stored_turn_is_rendered_as_what_its_items_say_is(items: list[Item]) -> None:
    stored = HistoryTurn("resp_", tuple(map(encode_item, items)), (), HistoryEnd("completed", 7))
    rendered = msgspec.structs.replace(render_turn(items), tokens=7)
    assert render_stored_turn(stored) == rendered


@pytest.mark.parametrize("role", ["user", "assistant"])
@pytest.mark.parametrize("text", ["Hi.", "a\tb", '"Hi", she said.', "\\", "naïve ☃ 😀"])
def test_stored_text_needs_not_be_decoded_unless_it_is_damaged(role: Role, text: str) -> None:
    item = Message(role, text)
    stored = encode_item(item)
    assert message_in_stored(stored) == render_turn([item]).messages
    for damaged in (stored[:-1], stored + b"}", stored[:-2] + b'\xff"}', stored[:-2] + b'\n"}'):
        assert message_in_stored(damaged) is None


def test_empty_history_renders_an_empty_array() -> None:
    assert build_messages([]) == b"[]"
    assert build_messages([render_turn([])], instructions="") == b"[]"
    assert build_messages([render_turn([Reasoning()]), render_turn([Message("user", "Hi.")])]) == (
        b'[{"role":"user","content":"Hi."}]'
    )
