"""Rules for calls: what they add or move, and that they leave the rest."""

from __future__ import annotations

from typing import Any

from antiphon.models.openai.call_rules import (
    calls_without_content,
    named_tool_outputs,
    signed_calls,
)

Json = dict[str, Any]


def call(call_id: str, **fields: Any) -> Json:
    function = {"name": f"f{call_id}", "arguments": "{}"}
    return {"id": call_id, "type": "function", "function": function, **fields}


def made(*calls: Json, **fields: Any) -> Json:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **fields}


def output(call_id: str, **fields: Any) -> Json:
    return {"role": "tool", "tool_call_id": call_id, "content": "Found.", **fields}


USER: Json = {"role": "user", "content": "Look.", "name": "Bo"}


def test_outputs_have_the_names_of_their_functions() -> None:
    messages = [USER, made(call("1"), call("2")), output("2"), output("1", name="g"), output("3")]
    named = named_tool_outputs(messages)
    assert named[:2] == messages[:2]
    assert [one.get("name") for one in named[2:]] == ["f2", "g", None]


def test_a_signature_is_added_to_the_first_call_of_a_message_without_any() -> None:
    signature = {"extra_content": {"google": {"thought_signature": "QUJD"}}}
    messages = [USER, made(call("1"), call("2")), made(call("3", **signature)), output("3")]
    signed = signed_calls(messages)
    first, second = signed[1]["tool_calls"]
    assert first["extra_content"]["google"]["thought_signature"]
    assert (second, signed[0], signed[2:]) == (call("2"), USER, messages[2:])
    assert "extra_content" not in messages[1]["tool_calls"][0]


def test_calls_go_behind_the_text_of_their_message() -> None:
    both = made(call("1"), content="I look.", reasoning_content="Hm.")
    messages = [USER, both, output("1"), made(call("2")), output("2")]
    split = calls_without_content(messages)
    assert split[1] == {"role": "assistant", "content": "I look."}
    assert split[2] == {**both, "content": None}
    assert (split[0], split[3:]) == (USER, messages[2:])
