"""Conversation options: sampling, limits, and context policies."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest

from antiphon import (
    AsyncConversation,
    ContextLengthExceededError,
    Conversation,
    InvalidRequestError,
    ModelError,
    Settings,
    Summarize,
    TokenBudget,
    Window,
    tool,
)
from antiphon.core.items import Compaction
from antiphon.errors import ConfigError
from support.chat_harness import (
    Call,
    ChatHarness,
    ModelAnswer,
    chat_harness,
    contents,
    roles,
)


def sent_user_texts(harness: ChatHarness) -> list[str]:
    """The user messages of the last upstream request."""
    return [one["content"] for one in harness.sent_messages() if one["role"] == "user"]


# Sampling.


def test_sampling_options_are_sent(harness: ChatHarness) -> None:
    chat = harness.new(temperature=0, top_p=1, max_output_tokens=9, reasoning_effort="low")
    chat.send("Hi.")
    body = harness.request_body()
    assert (body["temperature"], body["top_p"], body["reasoning_effort"]) == (0, 1, "low")
    assert 9 in (body.get("max_tokens"), body.get("max_completion_tokens"))
    later = harness.resume(chat.response_id, temperature=None, top_p=0.5)
    later.send("And?")
    body = harness.request_body()
    assert "temperature" not in body, "None removes it"
    assert (body["top_p"], body["reasoning_effort"]) == (0.5, "low")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", math.nan),
        ("instructions", 5),
        ("reasoning_effort", 3),
        ("tool_choice", 3),
        ("parallel_tool_calls", None),
        ("temperature", "hot"),
        ("temperature", True),
        ("top_p", 1.1),
        ("max_output_tokens", 0),
        ("max_output_tokens", 1.5),
        ("max_output_tokens", True),
        ("max_tool_rounds", -1),
        ("max_tool_rounds", None),
        ("timeout", 0),
        ("timeout", math.nan),
        ("timeout", "1"),
        ("context", "window"),
        ("context", Window),
        ("context", [Window(2), 3]),
        ("context", 3),
    ],
)
def test_invalid_option_is_named_in_the_error(tmp_path: Path, name: str, value: Any) -> None:
    with (
        chat_harness("blocking", tmp_path) as harness,
        pytest.raises(InvalidRequestError) as caught,
    ):
        harness.new(**{name: value})
    assert caught.value.param == name


def test_model_and_instructions_that_are_no_strings_are_refused(harness: ChatHarness) -> None:
    """Before they are stored: what is no string there could not be read again."""
    chat = harness.new()
    for name, value in (("model", len), ("model", 5), ("instructions", ["Be brief."])):
        with pytest.raises(InvalidRequestError, match=f"{name} is a string") as caught:
            setattr(chat, name, value)
        assert caught.value.param == name
    with pytest.raises(InvalidRequestError, match="model is a string"):
        harness.new(model=5)  # type: ignore[arg-type]
    assert (chat.send("Hi.").text, chat.model, chat.instructions) == ("Hello.", None, None)


class LazyText(str):
    """A string of a library's own kind, as NumPy's and translated ones are."""

    __slots__ = ()


def test_strings_of_other_libraries_are_strings(harness: ChatHarness) -> None:
    chat = harness.new(LazyText("m"), instructions=LazyText("Be brief."))
    assert chat.send(LazyText("Hi.")).text == "Hello."
    assert "".join(chat.stream(LazyText("And?"))) == "Hello."
    later = harness.resume(LazyText(chat.response_id))
    later.edit(later.response_id, LazyText("Or?"))
    assert contents(harness.sent_messages()) == ["Be brief.", "Hi.", "Hello.", "Or?"]


@pytest.mark.parametrize("kind", [Conversation, AsyncConversation])
def test_attribute_that_would_have_no_effect_cannot_be_set(kind: Any, tmp_path: Path) -> None:
    chat = kind(settings=Settings(store=f"sqlite:{tmp_path}/turns.db"))
    for name in ("temperature", "tools", "timeout"):
        with pytest.raises(AttributeError, match=name):
            setattr(chat, name, None)


def test_what_is_no_response_id_is_refused(harness: ChatHarness) -> None:
    chat = harness.new()
    reply = chat.send("Hi.")
    for use in (
        harness.resume,
        chat.branch,
        chat.delete_response,
        lambda one: chat.edit(one, "Or?"),
    ):
        with pytest.raises(
            InvalidRequestError, match=r"is a string \(resp_…\), not Reply"
        ) as caught:
            use(reply)
        assert caught.value.code == "invalid_type"
        with pytest.raises(InvalidRequestError, match="id of a chat"):
            use("chat_01a2282dd58546441248260734084479")
    assert contents(chat.messages()) == ["Hi.", "Hello."]


def test_invalid_tools_and_callbacks_are_refused(tmp_path: Path) -> None:
    wrong: list[dict[str, Any]] = [{"tools": "weather"}, {"tools": [42]}, {"approve": True}]
    with chat_harness("blocking", tmp_path) as harness:
        for options in wrong:
            with pytest.raises(ConfigError):
                harness.new(**options)


def test_settings_that_are_none_are_refused() -> None:
    given: Any = {"store": "memory:"}
    for make in (Conversation, Conversation.list_chats):
        with pytest.raises(ConfigError, match=r"load_settings\(\) returns, not a dict"):
            make(settings=given)


def test_invalid_context_policies_are_refused() -> None:
    wrong: list[tuple[Any, str]] = [
        (lambda: Window(0), "max_messages"),
        (lambda: Window(1.5), "max_messages"),  # type: ignore[arg-type]
        (lambda: Window(True), "max_messages"),
        (lambda: TokenBudget(0), "max_tokens"),
        (lambda: TokenBudget("9"), "max_tokens"),  # type: ignore[arg-type]
        (Summarize, "max_tokens"),
        (lambda: Summarize(max_tokens=-1), "max_tokens"),
        (lambda: Summarize(max_messages=0), "max_messages"),
        (lambda: Summarize(max_messages=1, keep_turns=-1), "keep_turns"),
        (lambda: msgspec.structs.replace(Window(2), max_messages=0), "max_messages"),
        (
            lambda: msgspec.structs.replace(Summarize(max_tokens=1), max_tokens=None),
            "max_tokens",
        ),
    ]
    for make, param in wrong:
        with pytest.raises(InvalidRequestError) as caught:
            make()
        assert caught.value.param == param


# Context.


def test_window_sends_the_newest_turns(harness: ChatHarness) -> None:
    chat = harness.new(instructions="Be brief.", context=Window(3))
    for number in range(4):
        chat.send(f"Number {number}.")
    assert roles(harness.sent_messages()) == "suau"
    assert sent_user_texts(harness) == ["Number 2.", "Number 3."]
    assert roles(chat.context()) == "sua"
    assert roles(chat.messages()) == "suauauaua"
    # A policy belongs to the conversation object, not to what is stored.
    assert roles(harness.resume(chat.response_id).context()) == "suauauaua"


def test_token_budget_sends_the_turns_that_fit(harness: ChatHarness) -> None:
    chat = harness.new(context=TokenBudget(60))
    harness.upstream.plan_answers(
        *(ModelAnswer("Yes.", tokens=(20 * n, 4, 0)) for n in (1, 2, 3, 4))
    )
    for number in range(4):
        chat.send(f"Number {number}.")
    assert sent_user_texts(harness)[-1] == "Number 3."
    assert len(sent_user_texts(harness)) < 4
    with pytest.raises(ContextLengthExceededError) as caught:
        chat.send("word " * 300)
    assert caught.value.limit == 60
    head = chat.response_id
    chat.send("Short.")
    assert chat.response_id != head
    assert sent_user_texts(harness)[-1] == "Short."


def test_summary_replaces_old_turns_in_requests(harness: ChatHarness) -> None:
    chat = harness.new(instructions="Be brief.", context=Summarize(max_messages=4, keep_turns=1))
    for number in range(2):
        chat.send(f"Number {number}.")
    requests_before = harness.request_count
    harness.upstream.plan_answers(ModelAnswer("They counted."), ModelAnswer("Two."))
    assert chat.send("Number 2.").text == "Two."
    assert harness.request_count == requests_before + 2
    assert "They counted." in harness.sent_messages()[1]["content"]
    assert sent_user_texts(harness) == ["Number 1.", "Number 2."]
    assert roles(chat.context()) == "ssuaua"
    assert user_texts(chat.messages()) == ["Number 0.", "Number 1.", "Number 2."]
    assert sum(isinstance(item, Compaction) for item in chat.items()) == 1
    # The usage of the summary is listed as a separate turn.
    assert len(chat.usage().turns) == 4
    later = harness.resume(chat.response_id)
    assert later.context() == chat.context()
    assert later.messages() == chat.messages()


def user_texts(messages: list[dict[str, Any]]) -> list[str]:
    return [one["content"] for one in messages if one["role"] == "user"]


def test_several_policies_apply_together(harness: ChatHarness) -> None:
    chat = harness.new(
        context=[Summarize(max_messages=8, keep_turns=2), Window(4), TokenBudget(10_000)]
    )
    for number in range(9):
        chat.send(f"Number {number}.")
        assert sent_user_texts(harness)[-1] in (
            f"Number {number}.",
            Summarize(max_messages=1).prompt,
        )
        assert len([one for one in harness.sent_messages() if one["role"] != "system"]) <= 9
    assert len(sent_user_texts(harness)) <= 3
    assert user_texts(chat.messages()) == [f"Number {number}." for number in range(9)]


def test_summarize_method(harness: ChatHarness) -> None:
    chat = harness.new(instructions="Be brief.")
    with pytest.raises(InvalidRequestError) as caught:
        chat.summarize()
    assert caught.value.code == "nothing_to_summarize"
    for number in range(3):
        chat.send(f"Number {number}.")
    with pytest.raises(InvalidRequestError) as caught:
        chat.summarize(keep_turns=-1)
    assert caught.value.param == "keep_turns"
    head = chat.response_id
    harness.upstream.plan_answers(ModelAnswer("They counted to one."))
    summary = chat.summarize(keep_turns=1)
    assert (summary.text, chat.response_id) == ("They counted to one.", summary.response_id)
    assert sent_user_texts(harness)[:2] == ["Number 0.", "Number 1."]
    assert "Number 2." not in sent_user_texts(harness)
    assert roles(chat.context()) == "ssua"
    with pytest.raises(InvalidRequestError) as caught:
        chat.regenerate()
    assert caught.value.code == "nothing_to_regenerate"
    with pytest.raises(InvalidRequestError) as caught:
        chat.summarize(keep_turns=1)
    assert caught.value.code == "nothing_to_summarize"
    assert roles(chat.branch(head).context()) == "suauaua"
    assert chat.send("And?").text == "Hello."
    assert sent_user_texts(harness) == ["Number 2.", "And?"]
    assert chat.regenerate().text == "Hello."
    assert sent_user_texts(harness) == ["Number 2.", "And?"]


def test_failed_summary_does_not_move_the_conversation(harness: ChatHarness) -> None:
    chat = harness.new()
    head = chat.send("Hi.").response_id
    harness.upstream.plan_answers(ModelAnswer(""))
    with pytest.raises(ModelError):
        chat.summarize()
    assert chat.response_id == head


def test_summarize_keeps_pending_calls(harness: ChatHarness) -> None:
    @tool(needs_approval=True)
    def refund(order: str) -> str:
        """Give the money back."""
        return f"refunded {order}"

    chat = harness.new(tools=[refund])
    chat.send("Hi.")
    harness.upstream.plan_answers(ModelAnswer(calls=(Call("refund", {"order": "1"}, "r"),)))
    chat.send("Refund 1.")
    harness.upstream.plan_answers(ModelAnswer("They said hi."))
    chat.summarize()
    assert [call.call_id for call in chat.pending()] == ["r"]
    with pytest.raises(InvalidRequestError):
        chat.send("So?")
    assert chat.send(decisions={"r": True}).text == "Hello."
    assert contents(harness.sent_messages())[-1] == "refunded 1"


def test_reset_starts_a_new_conversation(harness: ChatHarness) -> None:
    chat = harness.new(instructions="Be brief.")
    first = chat.send("Hi.").response_id
    chat.reset()
    assert (chat.response_id, chat.instructions) == (None, "Be brief.")
    assert roles(chat.context()) == roles(chat.messages()) == "s"
    assert (chat.items(), chat.pending(), chat.usage().turns) == ((), (), ())
    chat.send("Hi again.")
    assert contents(harness.sent_messages()) == ["Be brief.", "Hi again."]
    chat.reset(keep_system=False)
    assert (chat.instructions, chat.context()) == (None, [])
    chat.send("And again.")
    assert contents(harness.sent_messages()) == ["And again."]
    assert contents(harness.resume(first).context()) == ["Be brief.", "Hi.", "Hello."]
