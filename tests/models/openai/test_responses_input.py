"""From messages to input items: whoever spoke before, what is sent is well-formed."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import openresponses_types as spec
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from antiphon.core.items import (
    FunctionCall,
    FunctionCallOutput,
    InputFile,
    InputImage,
    InputText,
    InputVideo,
    Item,
    Message,
    OutputText,
    Reasoning,
    Refusal,
    SummaryText,
)
from antiphon.core.reasoning_sidecar import REASONING_KEY
from antiphon.core.turns import Options
from antiphon.models.openai.chat_completions import ChatCompletionsEncoder as ChatWriter
from antiphon.models.openai.request_rules import fit_request
from antiphon.models.openai.responses import ResponsesEncoder
from antiphon.models.openai.responses_input import InputEncoder, to_input_items
from antiphon.turn.message_rendering import (
    build_messages,
    join_pieces,
    message_pieces,
    render_turn,
)
from antiphon.turn.protocols import ModelCall
from support.chain_strategies import Chain, Turn, chains, check_well_formed
from support.model_calls import call_with_messages

ORIGIN = "api.example/m"


def items_of(*items: Item, origin: str = ORIGIN) -> list[dict[str, Any]]:
    decoded: list[dict[str, Any]] = json.loads(
        to_input_items(build_messages([render_turn(items)]), origin)
    )
    return decoded


def test_roles_and_contents() -> None:
    image = InputImage("https://example.com/a.png", "high")
    document = InputFile("a.pdf", "data:application/pdf;base64,AA")
    elsewhere = InputFile(file_url="https://example.com/b.pdf")
    assert items_of(
        Message("developer", "Be brief."),
        Message("user", "Look:", name="bob"),
        Message("user", (InputText("a"), image, document, elsewhere, InputVideo("https://v"))),
        Message("assistant", (OutputText("I"), Refusal(" will not."))),
        Message("assistant", ""),
    ) == [
        {"type": "message", "role": "system", "content": "Be brief."},
        {"type": "message", "role": "user", "content": "Look:"},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "a"},
                {
                    "type": "input_image",
                    "image_url": "https://example.com/a.png",
                    "detail": "high",
                },
                {
                    "type": "input_file",
                    "filename": "a.pdf",
                    "file_data": "data:application/pdf;base64,AA",
                },
                {"type": "input_file", "file_url": "https://example.com/b.pdf"},
                {"type": "input_video", "video_url": "https://v"},
            ],
        },
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "I will not."}],
        },
    ]


def test_calls_and_their_outputs() -> None:
    image = InputImage("data:image/png;base64,AA")
    assert items_of(
        Message("assistant", "I look."),
        FunctionCall("a", "f", '{"x":1}'),
        FunctionCall("b", "g", "oops"),
        FunctionCallOutput("b", (InputText("two"), image)),
        FunctionCallOutput("a", "one"),
    )[1:] == [
        {"type": "function_call", "call_id": "a", "name": "f", "arguments": '{"x":1}'},
        {
            "type": "function_call",
            "call_id": "b",
            "name": "g",
            "arguments": '{"invalid_json":"oops"}',
        },
        {"type": "function_call_output", "call_id": "a", "output": "one"},
        {
            "type": "function_call_output",
            "call_id": "b",
            "output": [
                {"type": "input_text", "text": "two"},
                {
                    "type": "input_image",
                    "image_url": "data:image/png;base64,AA",
                    "detail": "auto",
                },
            ],
        },
    ]


def sealed(content: str, origin: str | None = ORIGIN) -> Reasoning:
    return Reasoning((SummaryText("Hm."),), encrypted_content=content, origin=origin)


def test_reasoning_is_sent_back_to_the_model_that_made_it() -> None:
    call, output = FunctionCall("c", "f", "{}"), FunctionCallOutput("c", "1")
    said = Message("assistant", "One.")
    items: list[Item] = [sealed("a"), call, output, sealed("b"), said]
    reasoning = {
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "Hm."}],
        "encrypted_content": "a",
    }
    sent = items_of(*items)
    assert [item["type"] for item in sent] == [
        "reasoning",
        "function_call",
        "function_call_output",
        "reasoning",
        "message",
    ]
    assert sent[0] == reasoning
    assert items_of(*items, origin="api.example/other") == [
        item for item in sent if item["type"] != "reasoning"
    ]
    # Each piece of it stands right before what it led to.
    more, output_of_more = FunctionCall("d", "f", "{}"), FunctionCallOutput("d", "2")
    sent = items_of(sealed("a"), said, call, sealed("b"), more, output, output_of_more)
    assert [item.get("encrypted_content", item["type"]) for item in sent][:5] == [
        *("a", "message", "function_call", "b", "function_call")
    ]


def test_reasoning_without_an_origin_is_sent_to_any_model() -> None:
    said = Message("assistant", "One.")
    # A client that keeps its history itself knows whom it asks.
    assert items_of(sealed("a", None), said)[0]["encrypted_content"] == "a"
    assert items_of(sealed("a"), Message("assistant", "")) == []


def test_ids_that_the_api_would_not_take_are_changed() -> None:
    long = "call_" + "x" * 100
    turns = [render_turn([FunctionCall(one, "f", "{}")]) for one in ("a", "a", long)]
    turns.insert(1, render_turn([FunctionCallOutput("a", "1")]))
    turns.insert(3, render_turn([FunctionCallOutput("a", "2")]))
    turns.append(render_turn([FunctionCallOutput(long, "3")]))
    sent = json.loads(to_input_items(build_messages(turns), ORIGIN))
    made = [item["call_id"] for item in sent if item["type"] == "function_call"]
    answered = [item["call_id"] for item in sent if item["type"] == "function_call_output"]
    assert made == answered
    assert made[0] == "a"
    assert len(set(made)) == 3
    assert all(len(one) <= 64 for one in made)


@st.composite
def switched(draw: st.DrawFn) -> Chain:
    """A chain whose answers came from models of either dialect, now one, now the other."""
    chain = draw(chains())
    names = st.sampled_from([None, ORIGIN, "api.example/other"])

    def of_some_model(item: Item) -> Item:
        if not isinstance(item, Reasoning) or draw(st.booleans()):
            return item
        return msgspec.structs.replace(item, encrypted_content="gAAA", origin=draw(names))

    turns = [
        Turn(
            tuple(map(of_some_model, turn.input)),
            tuple(map(of_some_model, turn.output)),
            turn.completed,
        )
        for turn in chain.turns
    ]
    return msgspec.structs.replace(chain, turns=turns)


def without_reasoning(turn: Turn) -> Turn:
    def plain(items: tuple[Item, ...]) -> tuple[Item, ...]:
        return tuple(item for item in items if not isinstance(item, Reasoning))

    return Turn(plain(turn.input), plain(turn.output), turn.completed)


@settings(deadline=None)
@given(switched())
def test_chat_completions_get_what_they_always_got(chain: Chain) -> None:
    messages = build_messages([turn.segment() for turn in chain.turns])
    plain = build_messages([without_reasoning(turn).segment() for turn in chain.turns])
    writer = ChatWriter(upstream_name=None, openai=False)
    sent = writer.encode(call_with_messages("m", messages, Options(), True))
    assert sent == writer.encode(call_with_messages("m", plain, Options(), True))
    check_well_formed(msgspec.json.encode(json.loads(sent)["messages"]))
    assert REASONING_KEY.encode() not in sent


@settings(deadline=None)
@given(switched())
def test_responses_get_a_well_formed_input(chain: Chain) -> None:
    messages = build_messages([turn.segment() for turn in chain.turns])
    writer = ResponsesEncoder(upstream_name=None, host="api.example")
    sent = json.loads(writer.encode(call_with_messages("m", messages, Options(), True)))
    valid(sent)
    items = sent["input"]
    made = [item["call_id"] for item in items if item["type"] == "function_call"]
    answered = [item["call_id"] for item in items if item["type"] == "function_call_output"]
    assert sorted(made) == sorted(answered)
    assert len(set(made)) == len(made), "no two calls share an id"
    for position, item in enumerate(items):
        if item["type"] == "function_call_output":
            call = next(one for one in items[:position] if one.get("call_id") == item["call_id"])
            assert call["type"] == "function_call"
        if item["type"] == "reasoning":
            following = next(one for one in items[position:] if one["type"] != "reasoning")
            assert following.get("role") == "assistant" or following["type"] == "function_call"
    # Nothing else depends on the reasoning.
    plain = build_messages([without_reasoning(turn).segment() for turn in chain.turns])
    assert [item for item in items if item["type"] != "reasoning"] == json.loads(
        to_input_items(plain, ORIGIN)
    )


def with_own_ids(chain: Chain) -> Chain:
    """The same with an id for each call, and calls of two functions."""
    ids: dict[str, str] = {}

    def renamed(item: Item) -> Item:
        if isinstance(item, FunctionCall):
            number = len(ids)
            ids[item.call_id] = f"{item.call_id}-{item.arguments}"
            ids[f"{number} calls"] = ""
            return msgspec.structs.replace(
                item, call_id=ids[item.call_id], name="fg"[number % 2], is_custom=number % 2 > 0
            )
        if isinstance(item, FunctionCallOutput):
            return msgspec.structs.replace(item, call_id=ids.get(item.call_id, item.call_id))
        return item

    turns = [
        Turn(tuple(map(renamed, turn.input)), tuple(map(renamed, turn.output)), turn.completed)
        for turn in chain.turns
    ]
    return msgspec.structs.replace(chain, turns=turns)


@settings(deadline=None)
@given(
    st.one_of(switched(), switched().map(with_own_ids)),
    st.sampled_from([frozenset(), frozenset({"g"}), frozenset({"f", "g"})]),
    st.sampled_from([0, 3000, 10**6]),
)
def test_pieces_that_were_encoded_before_give_the_same_items(
    chain: Chain, custom_names: frozenset[str], capacity: int
) -> None:
    encoder = InputEncoder(capacity)
    segments = [turn.segment() for turn in chain.turns]
    for end in [*range(1, len(segments) + 1), 1, len(segments)]:
        pieces = message_pieces(segments[:end], instructions="Be brief.")
        call = ModelCall("m", tuple(pieces), Options(), True)
        for origin in (ORIGIN, "api.example/other"):
            expected = to_input_items(call.messages, origin, custom_names)
            assert join_pieces(encoder.encode(call, origin, custom_names)) == expected


def valid(body: dict[str, Any]) -> None:
    """Whether the specification's own types take a request."""
    try:
        spec.CreateResponseBody.model_validate(body)
    except ValidationError as error:
        raise AssertionError(f"{error}\n{json.dumps(body)}") from error


def test_phases_are_sent_back() -> None:
    shown = items_of(
        Message("user", "Weather?", phase="commentary"),
        Reasoning(encrypted_content="g", origin=ORIGIN),
        Message("assistant", "I look.", phase="commentary"),
        FunctionCall("c", "f", "{}"),
        FunctionCallOutput("c", "sunny"),
        Message("assistant", "Sunny.", phase="final_answer"),
    )
    assert [(one.get("role") or one["type"], one.get("phase")) for one in shown] == [
        ("user", None),
        ("reasoning", None),
        ("assistant", "commentary"),
        ("function_call", None),
        ("function_call_output", None),
        ("assistant", "final_answer"),
    ]
    prose = items_of(Message("user", "Hi."), Message("assistant", "Hi.", phase="final_answer"))
    assert [one.get("phase") for one in prose] == [None, "final_answer"]


def test_a_phase_is_sent_where_reasoning_is_left_out() -> None:
    message = Message("assistant", "Hi.", phase="final_answer")
    said: list[Item] = [Reasoning(encrypted_content="g"), message]
    call = call_with_messages("m", build_messages([render_turn(said)]), Options(), stream=False)
    writer = ResponsesEncoder(upstream_name=None, host="api.example")
    for rules in ([], ["no-old-reasoning"]):
        shown = json.loads(fit_request(writer.encode(call), rules))["input"]
        assert [one["type"] for one in shown] == [*["reasoning"][len(rules) :], "message"]
        assert shown[-1]["phase"] == "final_answer"


def test_chat_completions_have_no_phase() -> None:
    said = [Message("user", "Hi."), Message("assistant", "Hi.", phase="final_answer")]
    segment, plain = render_turn(said), render_turn([said[0], Message("assistant", "Hi.")])
    call = call_with_messages("m", build_messages([segment]), Options(), stream=False)
    sent = json.loads(ChatWriter(upstream_name=None, openai=True).encode(call))["messages"]
    assert sent == json.loads(build_messages([plain]))
    assert segment.weight == plain.weight
