"""The context: whatever became of a conversation, the model is shown a well-formed one."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any, TypeAlias

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
    SummaryText,
)
from antiphon.errors import InvalidRequest
from antiphon.turn.context import INTERRUPTED, Segment, assemble, check_calls, render
from antiphon.turn.fitting import shorten

unhurried = settings(deadline=None)
Messages: TypeAlias = list[dict[str, Any]]


class Turn(msgspec.Struct, frozen=True):
    input: tuple[Item, ...]
    output: tuple[Item, ...]
    completed: bool

    def segment(self) -> Segment:
        return render((*self.input, *self.output), completed=self.completed)


class Chain(msgspec.Struct, frozen=True):
    """Turns that the rules allow. ``outputs``: what each call's arguments were answered with."""

    turns: list[Turn]
    outputs: dict[str, str]


#: Few, so that models use them again and again.
CALL_IDS = ["call_0", "call_1", "call_2"]
WORDS = st.sampled_from(["", "a", 'quo"te', "née", "\N{PILE OF POO}", "line\nbreak", "\x00"])
PROSE: st.SearchStrategy[Item] = st.one_of(
    st.builds(lambda text: Message("assistant", text), WORDS),
    st.builds(lambda text: Message("assistant", (Refusal(text),)), WORDS),
    st.builds(lambda text: Message("assistant", (OutputText(text), OutputText(text))), WORDS),
    st.builds(lambda text: Reasoning((SummaryText(text),)), WORDS),
)
IMAGE = InputImage("https://example.com/a.png")
SPOKEN: st.SearchStrategy[Item] = st.one_of(
    st.builds(Message, st.sampled_from(["user", "system", "developer"]), WORDS),
    st.builds(lambda text: Message("user", (InputText(text), IMAGE)), WORDS),
    PROSE,
)


def mixed(draw: st.DrawFn, first: list[Item], second: list[Item]) -> list[Item]:
    """Both lists in one, each in its own order."""
    places = sorted(draw(st.integers(0, len(first))) for _ in second)
    out = list(first)
    for offset, (place, item) in enumerate(zip(places, second, strict=True)):
        out.insert(place + offset, item)
    return out


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    serial = itertools.count()
    truth: dict[str, str] = {}
    turns: list[Turn] = []
    #: The last turn's open calls: their ids and arguments, which are all different.
    waiting: dict[str, str] = {}
    owed = False

    def call(call_id: str) -> FunctionCall:
        return FunctionCall(call_id, "f", f"args{next(serial)}")

    def answer(call_id: str, arguments: str) -> FunctionCallOutput:
        truth[arguments] = f"result{next(serial)}"
        return FunctionCallOutput(call_id, truth[arguments])

    for _ in range(draw(st.integers(1, 6))):
        answered = draw(st.permutations(list(waiting)))
        if not owed:
            answered = answered[: draw(st.integers(0, len(answered)))]
        said: list[Item] = [answer(one, waiting[one]) for one in answered]
        # A client that keeps its own history sends old calls and their outputs along.
        for _ in range(draw(st.integers(0, 2))):
            pasted = [call(one) for one in draw(st.lists(st.sampled_from(CALL_IDS), unique=True))]
            results = [answer(one.call_id, one.arguments) for one in draw(st.permutations(pasted))]
            said += mixed(draw, [*pasted, *results], draw(st.lists(PROSE, max_size=1)))
        spoken = draw(st.lists(SPOKEN, min_size=0 if said else 1, max_size=3))
        new = [call(one) for one in draw(st.lists(st.sampled_from(CALL_IDS), unique=True))]
        output = mixed(draw, list(new), draw(st.lists(PROSE, max_size=3)))
        owed = draw(st.booleans())
        waiting = {one.call_id: one.arguments for one in new}
        turns.append(Turn(tuple(mixed(draw, said, spoken)), tuple(output), owed))
    # The last one is about to run: it has an input and no output yet.
    turns[-1] = msgspec.structs.replace(turns[-1], output=())
    return Chain(turns, truth)


def well_formed(raw: bytes) -> Messages:
    """The messages, if an upstream could find no fault with them."""
    messages: Messages = json.loads(raw)
    assert isinstance(messages, list)
    owed: list[str] = []
    for message in messages:
        role = message["role"]
        assert role in {"system", "user", "assistant", "tool"}
        assert isinstance(message["content"], str | list)
        if isinstance(message["content"], list):
            assert all(part["type"] in {"text", "image_url"} for part in message["content"])
        if role == "tool":
            assert message["tool_call_id"] in owed, "an output without its call"
            owed.remove(message["tool_call_id"])
        else:
            assert not owed, f"calls without outputs before {message}"
            assert "tool_call_id" not in message
        if "tool_calls" in message:
            assert role == "assistant"
            assert message["tool_calls"]
            owed = [call["id"] for call in message["tool_calls"]]
            assert len(set(owed)) == len(owed)
    assert not owed, "calls without outputs at the end"
    return messages


def results(messages: Messages) -> dict[str, str]:
    """What each call's arguments were answered with."""
    shown: dict[str, str] = {}
    calls: dict[str, str] = {}
    for message in messages:
        for call in message.get("tool_calls", ()):
            calls[call["id"]] = call["function"]["arguments"]
        if message["role"] == "tool":
            shown[calls.pop(message["tool_call_id"])] = message["content"]
    return shown


def with_role(messages: Messages, role: str) -> list[Any]:
    return [message["content"] for message in messages if message["role"] == role]


def said_by(items: tuple[Item, ...], *roles: str) -> int:
    return sum(isinstance(item, Message) and item.role in roles for item in items)


@unhurried
@given(chains())
def test_every_conversation_that_the_rules_allow_is_well_formed(chain: Chain) -> None:
    past: Segment | None = None
    for turn in chain.turns:
        check_calls(past, turn.input)
        past = turn.segment()
    messages = well_formed(assemble([turn.segment() for turn in chain.turns]))
    every = [item for turn in chain.turns for item in (*turn.input, *turn.output)]
    assert len(with_role(messages, "user")) == said_by(tuple(every), "user")
    assert len(with_role(messages, "system")) == said_by(tuple(every), "system", "developer")
    made = [item.arguments for item in every if isinstance(item, FunctionCall)]
    expected = {one: chain.outputs.get(one, INTERRUPTED) for one in made}
    assert results(messages) == expected, "each call has its own output"


@unhurried
@given(chains(), st.data())
def test_a_conversation_with_holes_is_well_formed(chain: Chain, data: st.DataObject) -> None:
    """Any turns but the newest may have been deleted."""
    gone = data.draw(st.sets(st.integers(0, max(0, len(chain.turns) - 2))))
    left = [
        turn for at, turn in enumerate(chain.turns) if at not in gone or turn is chain.turns[-1]
    ]
    messages = well_formed(assemble([turn.segment() for turn in left]))
    assert len(with_role(messages, "user")) == sum(said_by(turn.input, "user") for turn in left)


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
    kept = shorten(segments, used, limit)
    raw = assemble(kept, instructions=instructions, primer=primer if primed else b"")
    messages = well_formed(raw)
    before = well_formed(assemble(segments))
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
    segments: Sequence[Segment] = [turn.segment() for turn in chain.turns]
    for _ in range(len(segments) + 1):
        shorter = shorten(segments, used, limit)
        if sum(map(len_of, shorter)) == sum(map(len_of, segments)):
            break
        segments = shorter
    else:
        pytest.fail("each round has to let a turn go, or be the last")
    # What is left has nothing that could go: only system messages before the last group.
    first = next((at for at, one in enumerate(segments) if one.messages != one.system), None)
    assert first is None or all(one.answers for one in segments[first + 1 :])


def len_of(segment: Segment) -> int:
    return segment.size


def turn_of(text: str, answer: str = "Yes.", system: str | None = None) -> Segment:
    before = [Message("system", system)] if system else []
    return render([*before, Message("user", text), Message("assistant", answer)])


def test_the_oldest_go_first_and_no_more_than_must() -> None:
    segments = [turn_of(f"{number} {'x' * 100}") for number in range(10)]
    kept = shorten(segments, 1000, 800)
    texts = with_role(well_formed(assemble(kept)), "user")
    assert [text[0] for text in texts] == ["3", "4", "5", "6", "7", "8", "9"]


def test_without_numbers_about_half_goes() -> None:
    segments = [turn_of(f"{number} {'x' * 100}") for number in range(10)]
    for numbers in ((None, None), (1000, None), (None, 1000)):
        assert len(with_role(well_formed(assemble(shorten(segments, *numbers))), "user")) == 5


def test_a_model_that_refuses_less_than_its_limit_is_shown_less_still() -> None:
    """The answer needs room too: a count below the limit can be too much."""
    segments = [turn_of(f"{number} {'x' * 100}") for number in range(10)]
    kept = shorten(segments, 800, 1000)
    assert len(with_role(well_formed(assemble(kept)), "user")) == 9


def test_linked_turns_go_together() -> None:
    asked = render([Message("user", "Weather?"), FunctionCall("c", "f", "{}")])
    answered = render([FunctionCallOutput("c", "sunny"), Message("assistant", "Sunny.")])
    after = turn_of("Thanks.")
    kept = shorten([asked, answered, after], None, None)
    assert with_role(well_formed(assemble(kept)), "user") == ["Thanks."]
    # Linked to the newest, they stay, and there is nothing to let go.
    assert shorten([asked, answered], 1000, 10) == [asked, answered]


@pytest.mark.parametrize("role", ["system", "developer"])
def test_system_messages_outlive_their_turns(role: Any) -> None:
    old = render([Message(role, "Be kind."), Message("user", "Hi."), Message("assistant", "Yo.")])
    kept = shorten([old, turn_of("Well?", system="Be brief.")], 1000, 10)
    messages = well_formed(assemble(kept))
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
    messages = well_formed(assemble([render(items)]))
    assert [message["role"] for message in messages] == [
        *("assistant", "tool"),
        *("assistant", "tool", "tool"),
    ]
    assert [len(message.get("tool_calls", ())) for message in messages] == [1, 0, 2, 0, 0]


def test_a_model_that_talks_after_its_calls_still_gets_its_outputs() -> None:
    asked = render(
        [
            Message("user", "Weather?"),
            FunctionCall("a", "f", "1"),
            Message("assistant", "I am looking."),
            FunctionCall("b", "f", "2"),
            Reasoning((SummaryText("Hm."),)),
        ]
    )
    answered = render([FunctionCallOutput("b", "two"), FunctionCallOutput("a", "one")])
    messages = well_formed(assemble([asked, answered]))
    assert [message["content"] for message in messages] == [
        *("Weather?", "I am looking.", "one", "two")
    ]
    assert [call["id"] for call in messages[1]["tool_calls"]] == ["a", "b"]


def test_an_id_used_again_finds_the_right_output() -> None:
    first = render([Message("user", "One?"), FunctionCall("c", "f", "1")])
    second = render([FunctionCallOutput("c", "one"), FunctionCall("c", "f", "2")])
    third = render([FunctionCallOutput("c", "two"), Message("assistant", "Both.")])
    check_calls(first, [FunctionCallOutput("c", "one")])
    check_calls(second, [FunctionCallOutput("c", "two")])
    messages = well_formed(assemble([first, second, third]))
    assert results(messages) == {"1": "one", "2": "two"}


def test_prose_is_shown_as_text_and_pictures_as_parts() -> None:
    items: list[Item] = [
        Message("developer", "Be brief."),
        Message("user", (InputText("a"), InputText("b"))),
        Message("user", (InputText("Look:"), InputImage("data:image/png;base64,", "high"))),
        Message("user", "", name="bob"),
        Message("assistant", (OutputText("I"), Refusal(" will not."))),
        Message("assistant", ()),
    ]
    assert well_formed(assemble([render(items)])) == [
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
        {"role": "assistant", "content": ""},
    ]


def test_nothing_at_all_is_an_empty_array() -> None:
    assert assemble([]) == b"[]"
    assert assemble([render([])], instructions="") == b"[]"
    assert assemble([render([Reasoning()]), render([Message("user", "Hi.")])]) == (
        b'[{"role":"user","content":"Hi."}]'
    )


A, B = FunctionCall("a", "f", "{}"), FunctionCall("b", "f", "{}")
OUT_A, OUT_B = FunctionCallOutput("a", "1"), FunctionCallOutput("b", "2")
HELLO = Message("user", "Hello?")
WAITING = render([HELLO, A, B])
FAILED = render([HELLO, A, B], completed=False)


@pytest.mark.parametrize(
    ("parent", "items", "code", "names"),
    [
        (None, [OUT_A], "tool_call_not_found", ["a"]),
        (None, [HELLO, A], "tool_output_missing", ["a"]),
        (None, [OUT_A, A], "tool_call_not_found", ["a"]),
        (None, [A, OUT_A, OUT_A], "tool_call_not_found", ["a"]),
        (None, [A, A, OUT_A], "tool_call_duplicate", ["a"]),
        (WAITING, [HELLO], "tool_output_missing", ["a", "b"]),
        (WAITING, [OUT_A], "tool_output_missing", ["b"]),
        (WAITING, [OUT_A, HELLO], "tool_output_missing", ["b"]),
        (WAITING, [OUT_A, OUT_B, FunctionCallOutput("zz", "")], "tool_call_not_found", ["zz"]),
        (WAITING, [OUT_A, OUT_B, OUT_A], "tool_call_not_found", ["a"]),
        (FAILED, [FunctionCallOutput("zz", "")], "tool_call_not_found", ["zz"]),
        (FAILED, [OUT_A, OUT_A], "tool_call_not_found", ["a"]),
    ],
)
def test_outputs_that_do_not_fit_their_calls_are_refused_by_name(
    parent: Segment | None, items: list[Item], code: str, names: list[str]
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_calls(parent, items)
    assert (caught.value.code, caught.value.param) == (code, "input")
    for name in ("a", "b", "zz"):
        assert (f"'{name}'" in caught.value.message) == (name in names)


@pytest.mark.parametrize(
    ("parent", "items"),
    [
        (None, []),
        (None, [A, B, OUT_B, OUT_A]),
        (None, [A, OUT_A, A, OUT_A]),
        (WAITING, [OUT_B, HELLO, OUT_A]),
        (FAILED, [HELLO]),
        (FAILED, [OUT_B, HELLO]),
        (render([HELLO, A, OUT_A]), [HELLO]),
    ],
)
def test_outputs_that_fit_are_taken(parent: Segment | None, items: list[Item]) -> None:
    check_calls(parent, items)
    past = [parent] if parent else []
    well_formed(assemble([*past, render(items)]))
