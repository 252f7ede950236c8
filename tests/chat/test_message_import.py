"""Plain messages arrays as turns: dialects, and the way there and back."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionMessage

from antiphon.chat.message_import import ImportedConversation, ImportedTurn, import_messages
from antiphon.core.items import (
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Item,
    Message,
    OutputText,
    Part,
    Refusal,
)
from antiphon.core.tool_rules import INTERRUPTED_OUTPUT
from antiphon.errors import InvalidRequestError
from antiphon.turn.message_rendering import build_messages, render_turn

Messages = list[dict[str, Any]]


def call(call_id: Any, name: str = "look", arguments: Any = "{}", **more: Any) -> Any:
    return {"id": call_id, "function": {"name": name, "arguments": arguments}, **more}


def asked(*calls: Any, content: Any = None, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls), **more}


def user(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


def answer(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def result(content: Any, call_id: str | None = None) -> dict[str, Any]:
    return {"role": "tool", "content": content, "tool_call_id": call_id}


def only(messages: Messages) -> ImportedTurn:
    (turn,) = import_messages(messages).turns
    return turn


def test_a_conversation_becomes_turns() -> None:
    loaded = import_messages(
        [
            {"role": "system", "content": "Be brief."},
            user("Hi"),
            answer("Hello!"),
            user("Weather?", name="ann"),
            asked(call("a"), call("b"), content="Let me see."),
            result("sun", "b"),
            result("rain", "a"),
            answer("Both."),
            {"role": "system", "content": "Be long."},
            user("More"),
        ]
    )
    assert loaded == ImportedConversation(
        "Be brief.",
        (
            ImportedTurn((Message("user", "Hi"),), (Message("assistant", "Hello!"),)),
            ImportedTurn(
                (Message("user", "Weather?", "ann"),),
                (
                    Message("assistant", "Let me see."),
                    FunctionCall("a", "look", "{}"),
                    FunctionCall("b", "look", "{}"),
                    FunctionCallOutput("b", "sun"),
                    FunctionCallOutput("a", "rain"),
                    Message("assistant", "Both."),
                ),
            ),
            ImportedTurn((Message("system", "Be long."), Message("user", "More")), ()),
        ),
    )


def test_nothing_and_next_to_nothing() -> None:
    assert import_messages([]) == ImportedConversation(None, ())
    assert import_messages([{"role": "developer", "content": "x"}]) == ImportedConversation("x", ())
    assert import_messages([answer("Welcome.")]) == ImportedConversation(
        None, (ImportedTurn((), (Message("assistant", "Welcome."),)),)
    )


@pytest.mark.parametrize(
    "first",
    [
        {"role": "system", "content": "x", "name": "ann"},
        {"role": "system", "content": ""},
        {"role": "system", "content": [{"type": "image_url", "image_url": "https://x.org/a"}]},
    ],
)
def test_what_instructions_cannot_hold_stays_a_message(first: dict[str, Any]) -> None:
    loaded = import_messages([first, user("Hi")])
    assert loaded.instructions is None
    assert [item.role for item in loaded.turns[0].input if isinstance(item, Message)] == [
        "system",
        "user",
    ]


def test_only_the_first_message_becomes_instructions() -> None:
    parts = [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]
    loaded = import_messages(
        [{"role": "developer", "content": parts}, {"role": "system", "content": "x"}]
    )
    assert loaded == ImportedConversation(
        "Be brief.", (ImportedTurn((Message("system", "x"),), ()),)
    )


@pytest.mark.parametrize(
    ("part", "item"),
    [
        ({"type": "image_url", "image_url": "https://x.org/a"}, InputImage("https://x.org/a")),
        ({"type": "image_url", "image_url": {"url": "data:,"}}, InputImage("data:,")),
        (
            {"type": "image_url", "image_url": {"url": "data:,", "detail": "low"}},
            InputImage("data:,", "low"),
        ),
        (
            {"type": "input_image", "image_url": "data:,", "detail": "high"},
            InputImage("data:,", "high"),
        ),
        ({"type": "refusal", "refusal": "no"}, Refusal("no")),
    ],
)
def test_parts_of_either_dialect(part: dict[str, Any], item: Part) -> None:
    text = {"type": "input_text", "text": "Look: "}
    assert only([user([text, part])]).input == (Message("user", (InputText("Look: "), item)),)
    text["type"] = "output_text"
    assert only([answer([text, part])]).output == (
        Message("assistant", (OutputText("Look: "), item)),
    )


def test_text_in_parts_is_a_text() -> None:
    parts = [{"type": kind, "text": kind[0]} for kind in ("text", "input_text", "output_text")]
    assert only([user(parts)]).input == (Message("user", "tio"),)
    assert only([asked(call("a")), result(parts, "a")]).output[-1] == FunctionCallOutput("a", "tio")


def test_refusals() -> None:
    said, refused = OutputText("Well."), Refusal("No.")
    assert only([answer(None, refusal="No.")]).output == (Message("assistant", (refused,)),)
    assert only([answer("Well.", refusal="No.")]).output == (Message("assistant", (said, refused)),)
    assert only([answer([{"type": "refusal", "refusal": "No."}])]).output == (
        Message("assistant", (refused,)),
    )


def test_what_clients_send_back() -> None:
    kept: dict[str, Any] = {
        "audio": None,
        "annotations": [],
        "function_call": None,
        "reasoning_content": "hm",
    }
    assert only([answer("Hi", tool_calls=None, refusal=None, **kept)]).output == (
        Message("assistant", "Hi"),
    )
    assert only([answer(None)]).output == (Message("assistant", ""),)
    assert only([asked(call("a", index=0, type="function"))]).output == (
        FunctionCall("a", "look", "{}"),
    )


def test_objects_of_the_openai_package() -> None:
    message = ChatCompletionMessage.model_validate(asked(call("a", type="function")))
    mapping = MappingProxyType(result("1", "a"))
    assert import_messages([message, mapping]).turns[0].output == (  # type: ignore[list-item]
        FunctionCall("a", "look", "{}"),
        FunctionCallOutput("a", "1"),
    )


def test_outputs_without_ids_go_by_their_place() -> None:
    output = only([asked(call("a"), call("b")), result("1"), result("2")]).output
    assert output[2:] == (FunctionCallOutput("a", "1"), FunctionCallOutput("b", "2"))
    calls = asked(call(None, arguments={"x": 1}), call(""))
    first, second, one, two = only([calls, result("1"), result("2")]).output
    assert isinstance(first, FunctionCall)
    assert isinstance(second, FunctionCall)
    assert first.arguments == '{"x":1}'
    assert first.call_id != second.call_id
    assert (one, two) == (
        FunctionCallOutput(first.call_id, "1"),
        FunctionCallOutput(second.call_id, "2"),
    )


def test_the_older_function_call() -> None:
    messages: Messages = [
        answer(None, function_call={"name": "look", "arguments": "{}"}),
        {"role": "function", "name": "look", "content": "sun"},
        answer("Sunny."),
    ]
    made, output, said = only(messages).output
    assert isinstance(made, FunctionCall)
    assert output == FunctionCallOutput(made.call_id, "sun")
    assert said == Message("assistant", "Sunny.")
    assert at_fault([messages[0], {**messages[1], "name": "other"}])[:2] == (
        "tool_call_not_found",
        "messages[1]",
    )


def test_a_call_without_an_output_is_kept() -> None:
    loaded = import_messages([user("1"), asked(call("a"), call("b")), result("r", "a"), user("2")])
    assert loaded.turns[0].output == (
        FunctionCall("a", "look", "{}"),
        FunctionCall("b", "look", "{}"),
        FunctionCallOutput("a", "r"),
    )


def test_a_late_output_goes_where_its_call_is() -> None:
    loaded = import_messages(
        [user("1"), asked(call("a")), user("2"), result("r", "a"), answer("ok")]
    )
    assert loaded.turns == (
        ImportedTurn(
            (Message("user", "1"),),
            (FunctionCall("a", "look", "{}"), FunctionCallOutput("a", "r")),
        ),
        ImportedTurn((Message("user", "2"),), (Message("assistant", "ok"),)),
    )


def test_an_id_may_be_used_again() -> None:
    twice: Messages = [asked(call("a")), result("1", "a"), asked(call("a")), result("2", "a")]
    made = FunctionCall("a", "look", "{}")
    assert only(twice).output == (
        made,
        FunctionCallOutput("a", "1"),
        made,
        FunctionCallOutput("a", "2"),
    )


def at_fault(messages: Any) -> tuple[str, str | None, str]:
    with pytest.raises(InvalidRequestError) as caught:
        import_messages(messages)
    return caught.value.code, caught.value.param, caught.value.message


@pytest.mark.parametrize(
    ("messages", "code", "param"),
    [
        ("Hi", "invalid_type", "messages"),
        ({"role": "user"}, "invalid_type", "messages"),
        (None, "invalid_type", "messages"),
        (["Hi"], "invalid_type", "messages[0]"),
        ([{}], "invalid_value", "messages[0].role"),
        ([{"role": "bot", "content": "x"}], "invalid_value", "messages[0].role"),
        ([user("x"), user(None)], "invalid_value", "messages[1].content"),
        ([user(5)], "invalid_type", "messages[0].content"),
        ([user("x", name=5)], "invalid_type", "messages[0].name"),
        ([user([{"text": "x"}])], "invalid_value", "messages[0].content[0].type"),
        ([user([{"type": "text"}])], "invalid_value", "messages[0].content[0].text"),
        ([user([{"type": "input_audio"}])], "invalid_value", "messages[0].content[0].type"),
        ([user([{"type": "image_url"}])], "invalid_value", "messages[0].content[0].image_url"),
        (
            [user([{"type": "image_url", "image_url": {"url": "x", "detail": "huge"}}])],
            "invalid_value",
            "messages[0].content[0].image_url.detail",
        ),
        ([asked({"id": "a"})], "invalid_value", "messages[0].tool_calls[0].function"),
        ([asked(call(5))], "invalid_type", "messages[0].tool_calls[0].id"),
        (
            [asked(call("a", arguments=5))],
            "invalid_type",
            "messages[0].tool_calls[0].function.arguments",
        ),
        ([asked(call("a"), call("a"))], "tool_call_duplicate", "messages[0].tool_calls[1].id"),
        ([result("x", "a")], "tool_call_not_found", "messages[0].tool_call_id"),
        ([result("x")], "tool_call_not_found", "messages[0].tool_call_id"),
        ([asked(call("a")), result("x", "b")], "tool_call_not_found", "messages[1].tool_call_id"),
        (
            [asked(call("a")), result("x", "a"), result("x", "a")],
            "tool_call_not_found",
            "messages[2].tool_call_id",
        ),
    ],
)  # fmt: skip
def test_faults_name_their_place(messages: Any, code: str, param: str) -> None:
    found_code, found_param, message = at_fault(messages)
    assert (found_code, found_param) == (code, param)
    assert message.endswith(".")
    assert message.count(". ") == 0


def shown(instructions: str | None, turns: list[list[Item]]) -> Messages:
    messages: Messages = json.loads(
        build_messages([render_turn(items) for items in turns], instructions=instructions)
    )
    return messages


def again(messages: Messages) -> Messages:
    loaded = import_messages(messages)
    return shown(loaded.instructions, [[*turn.input, *turn.output] for turn in loaded.turns])


words = st.text(max_size=5)
names = st.none() | st.sampled_from(["ann", "bob"])
speakers: st.SearchStrategy[Any] = st.sampled_from(["user", "system", "developer"])
images = st.builds(InputImage, st.just("https://x.org/a"), st.sampled_from(["auto", "low", "high"]))


def contents(text: type[InputText] | type[OutputText]) -> st.SearchStrategy[Any]:
    parts = st.builds(text, words) | images | st.builds(Refusal, words)
    return words | st.lists(parts, max_size=3).map(tuple)


@st.composite
def conversations(draw: st.DrawFn) -> list[list[Item]]:
    """Turns such as the store holds, with calls answered at once, later, or never."""
    turns: list[list[Item]] = []
    waiting: list[str] = []
    for turn in range(draw(st.integers(0, 4))):
        items: list[Item] = []
        for call_id in draw(st.permutations(waiting)) if waiting else ():
            if draw(st.booleans()):
                items.append(FunctionCallOutput(call_id, draw(contents(InputText))))
        for _ in range(draw(st.integers(0, 2))):
            role = draw(speakers)
            items.append(Message(role, draw(contents(InputText)), draw(names)))
        waiting = []
        for step in range(draw(st.integers(0, 3))):
            for _ in range(draw(st.integers(0, 2))):
                items.append(Message("assistant", draw(contents(OutputText)), draw(names)))
            made = [f"call_{turn}{step}{n}" for n in range(draw(st.integers(0, 2)))]
            items += [FunctionCall(one, "look", draw(words)) for one in made]
            for call_id in made:
                if draw(st.booleans()):
                    items.append(FunctionCallOutput(call_id, draw(contents(InputText))))
                else:
                    waiting.append(call_id)
        turns.append(items)
    return turns


@settings(deadline=None)
@given(st.none() | words, conversations())
def test_what_antiphon_shows_can_be_loaded_and_is_shown_again(
    instructions: str | None, turns: list[list[Item]]
) -> None:
    messages = shown(instructions, turns)
    assert again(messages) == messages


def test_an_interrupted_call_is_shown_as_one() -> None:
    messages = again([user("1"), asked(call("a")), user("2")])
    assert messages[2] == {"role": "tool", "content": INTERRUPTED_OUTPUT, "tool_call_id": "a"}
    assert again(messages) == messages
