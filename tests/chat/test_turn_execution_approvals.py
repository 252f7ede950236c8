"""Calls that need a person's agreement, asked at once or decided later."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from antiphon import (
    InvalidRequestError,
    Tool,
    tool,
)
from antiphon.core.items import FunctionCall
from support.chat_harness import (
    VARIANTS,
    Call,
    ChatHarness,
    ModelAnswer,
    chat_harness,
    contents,
    outputs,
    roles,
)


@pytest.fixture(params=VARIANTS)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ChatHarness]:
    with chat_harness(request.param, tmp_path) as stage:
        yield stage


@tool
def weather(city: str) -> dict[str, Any]:
    """Tell the weather."""
    return {"city": city, "temp": 20}


def refunds(**options: Any) -> tuple[Tool[..., Any], list[str]]:
    """A tool that needs approval, and the orders it was run for."""
    done: list[str] = []

    @tool(needs_approval=True, **options)
    def refund(order: str) -> str:
        """Give the money back."""
        done.append(order)
        return f"refunded {order}"

    return refund, done


def refund_call(order: str, call_id: str) -> Call:
    return Call("refund", {"order": order}, call_id)


def test_without_anyone_to_ask_the_turn_ends_and_waits(stage: ChatHarness) -> None:
    refund, done = refunds()
    chat = stage.new(tools=[refund, weather])
    both = (refund_call("7", "r"), Call("weather", {"city": "Rome"}, "w"))
    stage.upstream.plan_answers(ModelAnswer("One moment.", both))
    reply = chat.send("Refund 7.")
    assert reply.status == "completed"
    assert [call.call_id for call in reply.pending] == ["r"]
    assert chat.pending() == reply.pending
    assert done == []
    # Nothing is sent before the decision, and a wrong one changes nothing.
    wrong: list[tuple[Any, str]] = [
        ({}, "decision_needed"),
        (None, "decision_needed"),
        ({"w": True}, "tool_call_not_found"),
        ({"r": True, "x": False}, "tool_call_not_found"),
        ({"r": 1}, "invalid_type"),
        ({"r": None}, "invalid_type"),
        (["r"], "invalid_type"),
        (True, "invalid_type"),
    ]
    for decisions, code in wrong:
        for say in (chat.send, lambda *a, **b: list(chat.stream(*a, **b))):
            with pytest.raises(InvalidRequestError) as caught:
                say("So?", decisions=decisions)
            assert (caught.value.code, caught.value.param) == (code, "decisions")
    assert stage.request_count == 1
    assert chat.response_id == reply.response_id
    stage.upstream.plan_answers(ModelAnswer("Refunded."))
    assert chat.send(decisions={"r": True}).text == "Refunded."
    assert done == ["7"]
    # The call that waited is shown behind those that did not, next to its output.
    assert roles(stage.sent_messages()) == "uatat"
    assert outputs(stage.sent_messages()) == {"w": '{"city":"Rome","temp":20}', "r": "refunded 7"}
    assert chat.pending() == ()


def test_decisions_may_be_mixed_and_go_along_with_words(stage: ChatHarness) -> None:
    refund, done = refunds()
    chat = stage.new(tools=[refund])
    three = tuple(refund_call(str(number), f"r{number}") for number in range(4))
    stage.upstream.plan_answers(ModelAnswer(calls=three))
    chat.send("Refund them.")
    with pytest.raises(InvalidRequestError, match="r3") as caught:
        chat.send(decisions={"r0": True, "r1": True, "r2": False})
    assert caught.value.code == "decision_needed"
    decisions = {"r0": True, "r1": False, "r2": "too late", "r3": ""}
    reply = chat.send("Be quick.", decisions=decisions)
    assert done == ["0"]
    told = outputs(stage.sent_messages())
    assert told["r0"] == "refunded 0"
    assert "declined" in told["r1"]
    assert "too late" in told["r2"]
    assert "declined" in told["r3"]
    assert roles(stage.sent_messages()) == "uattttu"
    assert stage.sent_messages()[-1]["content"] == "Be quick."
    assert reply.text == "Hello."
    # Told once, and the same ever after.
    before = stage.sent_messages()
    chat.send("And?")
    assert stage.sent_messages()[: len(before)] == before
    with pytest.raises(InvalidRequestError):
        chat.send(decisions={"r0": True})


def test_empty_words_along_with_decisions_say_nothing(stage: ChatHarness) -> None:
    refund, _ = refunds()
    chat = stage.new(tools=[refund])
    stage.upstream.plan_answers(ModelAnswer(calls=(refund_call("1", "r"),)))
    chat.send("Refund 1.")
    chat.send("", decisions={"r": False})
    assert roles(stage.sent_messages()) == "uat"


def test_a_decided_call_may_lead_to_another_that_waits(stage: ChatHarness) -> None:
    refund, done = refunds()
    chat = stage.new(tools=[refund])
    stage.upstream.plan_answers(
        ModelAnswer(calls=(refund_call("1", "a"),)),
        ModelAnswer(calls=(refund_call("2", "a"),)),
        ModelAnswer("Both."),
    )
    chat.send("Refund 1 and 2.")
    (pending,) = chat.send(decisions={"a": True}).pending
    # The conversation has a call of the id "a" already.
    assert (pending.call_id != "a", pending.arguments) == (True, '{"order": "2"}')
    assert chat.send(decisions={pending.call_id: True}).text == "Both."
    assert done == ["1", "2"]
    assert contents(stage.sent_messages())[1:] == ["", "refunded 1", "", "refunded 2"]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (True, "refunded 1"),
        (False, "declined"),
        ("not this week", "not this week"),
        (None, "declined"),
        (ValueError("nobody there"), "Nobody could be asked"),
    ],
)
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_somebody_is_asked_to_agree(stage: ChatHarness, kind: str, answer: Any, told: str) -> None:
    asked: list[FunctionCall] = []

    def approve(call: FunctionCall) -> Any:
        asked.append(call)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def approve_soon(call: FunctionCall) -> Any:
        await asyncio.sleep(0)
        return approve(call)

    refund, done = refunds()
    chat = stage.new(
        tools=[refund, weather], approve=approve if kind == "def" else approve_soon, deps=1
    )
    both = (refund_call("1", "r"), Call("weather", {"city": "Rome"}, "w"))
    stage.upstream.plan_answers(ModelAnswer(calls=both), ModelAnswer("So."))
    reply = chat.send("Refund 1.")
    assert (reply.text, reply.pending) == ("So.", ())
    assert [call.call_id for call in asked] == ["r"]
    assert told in outputs(stage.sent_messages())["r"]
    assert done == (["1"] if answer is True else [])


RESTART = """
import json, sys
from antiphon import Conversation, Settings, tool
from antiphon.settings import ModelSettings

@tool(needs_approval=True)
def refund(order: str) -> str:
    "Give the money back."
    return f"refunded {order} after the restart"

models = {"m": ModelSettings(kind="chat_completions", base_url=sys.argv[2])}
settings = Settings(store=sys.argv[1], model="m", models=models)
chat = Conversation.resume(sys.argv[3], tools=[refund], settings=settings)
calls = chat.pending()
print(calls[0].arguments)
print(chat.send(decisions={call.call_id: True for call in calls}).text)
"""


def test_a_decision_may_come_in_another_process(stage: ChatHarness) -> None:
    refund, done = refunds()
    stage.upstream.plan_answers(ModelAnswer(calls=(refund_call("1", "r"),)), ModelAnswer("Done."))
    waiting = stage.new(tools=[refund]).send("Refund 1.")
    ended = subprocess.run(
        [
            *(sys.executable, "-W", "error", "-c", RESTART),
            *(stage.settings.store, stage.upstream.base_url, waiting.response_id),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.stdout, ended.stderr) == ('{"order": "1"}\nDone.\n', "")
    assert outputs(stage.sent_messages()) == {"r": "refunded 1 after the restart"}
    assert done == []


def test_a_call_that_was_agreed_to_needs_its_tool(stage: ChatHarness) -> None:
    """It would else be told as an error, and could not be decided again."""
    refund, done = refunds()
    stage.upstream.plan_answers(ModelAnswer(calls=(refund_call("1", "r"),)))
    waiting = stage.new(tools=[refund]).send("Refund 1.")
    for tools in ([], [weather]):
        chat = stage.resume(waiting.response_id, tools=tools)
        with pytest.raises(InvalidRequestError, match="refund") as caught:
            chat.send(decisions={"r": True})
        assert caught.value.param == "tools"
        assert chat.response_id == waiting.response_id
    assert stage.request_count == 1
    # To decline needs nobody, and the tool can still be given.
    assert stage.resume(waiting.response_id).send(decisions={"r": False}).text == "Hello."
    later = stage.resume(waiting.response_id, tools=[refund])
    assert later.send(decisions={"r": True}).text == "Hello."
    assert done == ["1"]
