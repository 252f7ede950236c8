"""Importing messages arrays as turns: dialects, errors, and round trips."""

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


def with_calls(*calls: Any, content: Any = None, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls), **more}


def user(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


def assistant(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def tool_result(content: Any, call_id: str | None = None) -> dict[str, Any]:
    return {"role": "tool", "content": content, "tool_call_id": call_id}


def single_turn(messages: Messages) -> ImportedTurn:
    (turn,) = import_messages(messages).turns
    return turn


def test_messages_become_turns() -> None:
    loaded = import_messages(
        [
            {"role": "system", "content": "Be brief."},
            user("Hi"),
            assistant("Hello!"),
            user("Weather?", name="ann"),
            with_calls(call("a"), call("b"), content="Let me see."),
            tool_result("sun", "b"),
            tool_result("rain", "a"),
            assistant("Both."),
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


def test_empty_and_single_message_arrays() -> None:
    assert import_messages([]) == ImportedConversation(None, ())
    assert import_messages([{"role": "developer", "content": "x"}]) == ImportedConversation("x", ())
    assert import_messages([assistant("Welcome.")]) == ImportedConversation(
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
def test_system_message_that_cannot_be_instructions_stays_a_message(first: dict[str, Any]) -> None:
    loaded = import_messages([first, user("Hi")])
    assert loaded.instructions is None
    assert [item.role for item in loaded.turns[0].input if isinstance(item, Message)] == [
        "system",
        "user",
    ]


def test_only_the_first_system_message_becomes_instructions() -> None:
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
def test_content_parts_of_both_apis(part: dict[str, Any], item: Part) -> None:
    text = {"type": "input_text", "text": "Look: "}
    assert single_turn([user([text, part])]).input == (
        Message("user", (InputText("Look: "), item)),
    )
    text["type"] = "output_text"
    assert single_turn([assistant([text, part])]).output == (
        Message("assistant", (OutputText("Look: "), item)),
    )


def test_text_parts_are_joined() -> None:
    parts = [{"type": kind, "text": kind[0]} for kind in ("text", "input_text", "output_text")]
    assert single_turn([user(parts)]).input == (Message("user", "tio"),)
    assert single_turn([with_calls(call("a")), tool_result(parts, "a")]).output[
        -1
    ] == FunctionCallOutput("a", "tio")


def test_refusals_become_refusal_parts() -> None:
    text, refused = OutputText("Well."), Refusal("No.")
    assert single_turn([assistant(None, refusal="No.")]).output == (
        Message("assistant", (refused,)),
    )
    assert single_turn([assistant("Well.", refusal="No.")]).output == (
        Message("assistant", (text, refused)),
    )
    assert single_turn([assistant([{"type": "refusal", "refusal": "No."}])]).output == (
        Message("assistant", (refused,)),
    )


def test_unused_fields_of_sent_back_messages_are_ignored() -> None:
    ignored_fields: dict[str, Any] = {
        "audio": None,
        "annotations": [],
        "function_call": None,
        "reasoning_content": "hm",
    }
    assert single_turn(
        [assistant("Hi", tool_calls=None, refusal=None, **ignored_fields)]
    ).output == (Message("assistant", "Hi"),)
    assert single_turn([assistant(None)]).output == (Message("assistant", ""),)
    assert single_turn([with_calls(call("a", index=0, type="function"))]).output == (
        FunctionCall("a", "look", "{}"),
    )


def test_openai_message_objects_are_accepted() -> None:
    message = ChatCompletionMessage.model_validate(with_calls(call("a", type="function")))
    mapping = MappingProxyType(tool_result("1", "a"))
    assert import_messages([message, mapping]).turns[0].output == (  # type: ignore[list-item]
        FunctionCall("a", "look", "{}"),
        FunctionCallOutput("a", "1"),
    )


def test_outputs_without_ids_are_paired_by_order() -> None:
    output = single_turn(
        [with_calls(call("a"), call("b")), tool_result("1"), tool_result("2")]
    ).output
    assert output[2:] == (FunctionCallOutput("a", "1"), FunctionCallOutput("b", "2"))
    calls = with_calls(call(None, arguments={"x": 1}), call(""))
    first, second, one, two = single_turn([calls, tool_result("1"), tool_result("2")]).output
    assert isinstance(first, FunctionCall)
    assert isinstance(second, FunctionCall)
    assert first.arguments == '{"x":1}'
    assert first.call_id != second.call_id
    assert (one, two) == (
        FunctionCallOutput(first.call_id, "1"),
        FunctionCallOutput(second.call_id, "2"),
    )


def test_legacy_function_call_is_imported() -> None:
    messages: Messages = [
        assistant(None, function_call={"name": "look", "arguments": "{}"}),
        {"role": "function", "name": "look", "content": "sun"},
        assistant("Sunny."),
    ]
    call_ids, output, text = single_turn(messages).output
    assert isinstance(call_ids, FunctionCall)
    assert output == FunctionCallOutput(call_ids.call_id, "sun")
    assert text == Message("assistant", "Sunny.")
    assert import_error([messages[0], {**messages[1], "name": "other"}])[:2] == (
        "tool_call_not_found",
        "messages[1]",
    )


def test_call_without_an_output_is_imported() -> None:
    loaded = import_messages(
        [user("1"), with_calls(call("a"), call("b")), tool_result("r", "a"), user("2")]
    )
    assert loaded.turns[0].output == (
        FunctionCall("a", "look", "{}"),
        FunctionCall("b", "look", "{}"),
        FunctionCallOutput("a", "r"),
    )


def test_late_output_is_moved_to_its_call() -> None:
    loaded = import_messages(
        [user("1"), with_calls(call("a")), user("2"), tool_result("r", "a"), assistant("ok")]
    )
    assert loaded.turns == (
        ImportedTurn(
            (Message("user", "1"),),
            (FunctionCall("a", "look", "{}"), FunctionCallOutput("a", "r")),
        ),
        ImportedTurn((Message("user", "2"),), (Message("assistant", "ok"),)),
    )


def test_reused_call_id_is_accepted() -> None:
    twice: Messages = [
        with_calls(call("a")),
        tool_result("1", "a"),
        with_calls(call("a")),
        tool_result("2", "a"),
    ]
    call_ids = FunctionCall("a", "look", "{}")
    assert single_turn(twice).output == (
        call_ids,
        FunctionCallOutput("a", "1"),
        call_ids,
        FunctionCallOutput("a", "2"),
    )


def import_error(messages: Any) -> tuple[str, str | None, str]:
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
        ([with_calls({"id": "a"})], "invalid_value", "messages[0].tool_calls[0].function"),
        ([with_calls(call(5))], "invalid_type", "messages[0].tool_calls[0].id"),
        (
            [with_calls(call("a", arguments=5))],
            "invalid_type",
            "messages[0].tool_calls[0].function.arguments",
        ),
        ([with_calls(call("a"), call("a"))], "tool_call_duplicate", "messages[0].tool_calls[1].id"),
        ([tool_result("x", "a")], "tool_call_not_found", "messages[0].tool_call_id"),
        ([tool_result("x")], "tool_call_not_found", "messages[0].tool_call_id"),
        (
            [with_calls(call("a")), tool_result("x", "b")],
            "tool_call_not_found",
            "messages[1].tool_call_id",
        ),
        (
            [with_calls(call("a")), tool_result("x", "a"), tool_result("x", "a")],
            "tool_call_not_found",
            "messages[2].tool_call_id",
        ),
    ],
)  # fmt: skip
def test_errors_name_the_parameter(messages: Any, code: str, param: str) -> None:
    found_code, found_param, message = import_error(messages)
    assert (found_code, found_param) == (code, param)
    assert message.endswith(".")
    assert message.count(". ") == 0


def rendered(instructions: str | None, turns: list[list[Item]]) -> Messages:
    messages: Messages = json.loads(
        build_messages([render_turn(items) for items in turns], instructions=instructions)
    )
    return messages


def round_trip(messages: Messages) -> Messages:
    loaded = import_messages(messages)
    return rendered(loaded.instructions, [[*turn.input, *turn.output] for turn in loaded.turns])


words = st.text(max_size=5)
names = st.none() | st.sampled_from(["ann", "bob"])
roles: st.SearchStrategy[Any] = st.sampled_from(["user", "system", "developer"])
images = st.builds(InputImage, st.just("https://x.org/a"), st.sampled_from(["auto", "low", "high"]))


def contents(text: type[InputText] | type[OutputText]) -> st.SearchStrategy[Any]:
    parts = st.builds(text, words) | images | st.builds(Refusal, words)
    return words | st.lists(parts, max_size=3).map(tuple)


@st.composite
def conversations(draw: st.DrawFn) -> list[list[Item]]:
    """Turns as in a store, with calls answered at once, later, or never."""
    turns: list[list[Item]] = []
    open_ids: list[str] = []
    for turn in range(draw(st.integers(0, 4))):
        items: list[Item] = []
        for call_id in draw(st.permutations(open_ids)) if open_ids else ():
            if draw(st.booleans()):
                items.append(FunctionCallOutput(call_id, draw(contents(InputText))))
        for _ in range(draw(st.integers(0, 2))):
            role = draw(roles)
            items.append(Message(role, draw(contents(InputText)), draw(names)))
        open_ids = []
        for step in range(draw(st.integers(0, 3))):
            for _ in range(draw(st.integers(0, 2))):
                items.append(Message("assistant", draw(contents(OutputText)), draw(names)))
            call_ids = [f"call_{turn}{step}{n}" for n in range(draw(st.integers(0, 2)))]
            items += [FunctionCall(one, "look", draw(words)) for one in call_ids]
            for call_id in call_ids:
                if draw(st.booleans()):
                    items.append(FunctionCallOutput(call_id, draw(contents(InputText))))
                else:
                    open_ids.append(call_id)
        turns.append(items)
    return turns


@settings(deadline=None)
@given(st.none() | words, conversations())
def test_rendered_messages_round_trip(instructions: str | None, turns: list[list[Item]]) -> None:
    messages = rendered(instructions, turns)
    assert round_trip(messages) == messages


def test_interrupted_call_round_trips() -> None:
    messages = round_trip([user("1"), with_calls(call("a")), user("2")])
    assert messages[2] == {"role": "tool", "content": INTERRUPTED_OUTPUT, "tool_call_id": "a"}
    assert round_trip(messages) == messages
