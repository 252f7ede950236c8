"""Tool calls that need approval: by a callback, or decided in a later turn."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from antiphon import AntiphonError, ConflictError, Conversation, InvalidRequestError, Reply
from antiphon.core.items import FunctionCall
from support.chat_harness import (
    Call,
    ChatHarness,
    ModelAnswer,
    contents,
    outputs,
    roles,
)
from support.chat_tools import refund_call, refunds, weather
from support.misbehaving_upstream import refuse


def test_turn_without_an_approval_callback_ends_with_pending_calls(harness: ChatHarness) -> None:
    refund, done = refunds()
    chat = harness.new(tools=[refund, weather])
    both = (refund_call("7", "r"), Call("weather", {"city": "Rome"}, "w"))
    harness.upstream.plan_answers(ModelAnswer("One moment.", both))
    reply = chat.send("Refund 7.")
    assert reply.status == "completed"
    assert [call.call_id for call in reply.pending] == ["r"]
    assert chat.pending() == reply.pending
    assert done == []
    # Nothing is sent before the decision, and an invalid one changes nothing.
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
    assert harness.request_count == 1
    assert chat.response_id == reply.response_id
    harness.upstream.plan_answers(ModelAnswer("Refunded."))
    assert chat.send(decisions={"r": True}).text == "Refunded."
    assert done == ["7"]
    # The pending call is sent after the others, next to its output.
    assert roles(harness.sent_messages()) == "uatat"
    assert outputs(harness.sent_messages()) == {"w": '{"city":"Rome","temp":20}', "r": "refunded 7"}
    assert chat.pending() == ()


def test_decisions_can_be_mixed_and_sent_with_text(harness: ChatHarness) -> None:
    refund, done = refunds()
    chat = harness.new(tools=[refund])
    four_calls = tuple(refund_call(str(number), f"r{number}") for number in range(4))
    harness.upstream.plan_answers(ModelAnswer(calls=four_calls))
    chat.send("Refund them.")
    with pytest.raises(InvalidRequestError, match="r3") as caught:
        chat.send(decisions={"r0": True, "r1": True, "r2": False})
    assert caught.value.code == "decision_needed"
    decisions = {"r0": True, "r1": False, "r2": "too late", "r3": ""}
    reply = chat.send("Be quick.", decisions=decisions)
    assert done == ["0"]
    sent_output = outputs(harness.sent_messages())
    assert sent_output["r0"] == "refunded 0"
    assert "declined" in sent_output["r1"]
    assert "too late" in sent_output["r2"]
    assert "declined" in sent_output["r3"]
    assert roles(harness.sent_messages()) == "uattttu"
    assert harness.sent_messages()[-1]["content"] == "Be quick."
    assert reply.text == "Hello."
    # The outputs are the same in later requests.
    before = harness.sent_messages()
    chat.send("And?")
    assert harness.sent_messages()[: len(before)] == before
    with pytest.raises(InvalidRequestError):
        chat.send(decisions={"r0": True})


def test_empty_text_with_decisions_adds_no_message(harness: ChatHarness) -> None:
    refund, _ = refunds()
    chat = harness.new(tools=[refund])
    harness.upstream.plan_answers(ModelAnswer(calls=(refund_call("1", "r"),)))
    chat.send("Refund 1.")
    chat.send("", decisions={"r": False})
    assert roles(harness.sent_messages()) == "uat"


def test_approved_call_can_lead_to_another_pending_call(harness: ChatHarness) -> None:
    refund, done = refunds()
    chat = harness.new(tools=[refund])
    harness.upstream.plan_answers(
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
    assert contents(harness.sent_messages())[1:] == ["", "refunded 1", "", "refunded 2"]


@pytest.mark.parametrize(
    ("answer", "sent_output"),
    [
        (True, "refunded 1"),
        (False, "declined"),
        ("not this week", "not this week"),
        (None, "declined"),
        (ValueError("nobody there"), "Nobody could be asked"),
    ],
)
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_approval_callback_decides_the_call(
    harness: ChatHarness, kind: str, answer: Any, sent_output: str
) -> None:
    approval_requests: list[FunctionCall] = []

    def approve(call: FunctionCall) -> Any:
        approval_requests.append(call)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def approve_soon(call: FunctionCall) -> Any:
        await asyncio.sleep(0)
        return approve(call)

    refund, done = refunds()
    chat = harness.new(
        tools=[refund, weather], approve=approve if kind == "def" else approve_soon, deps=1
    )
    both = (refund_call("1", "r"), Call("weather", {"city": "Rome"}, "w"))
    harness.upstream.plan_answers(ModelAnswer(calls=both), ModelAnswer("So."))
    reply = chat.send("Refund 1.")
    assert (reply.text, reply.pending) == ("So.", ())
    assert [call.call_id for call in approval_requests] == ["r"]
    assert sent_output in outputs(harness.sent_messages())["r"]
    assert done == (["1"] if answer is True else [])


RESUMING_SCRIPT = """
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


def test_pending_call_can_be_decided_in_another_process(harness: ChatHarness) -> None:
    refund, done = refunds()
    harness.upstream.plan_answers(ModelAnswer(calls=(refund_call("1", "r"),)), ModelAnswer("Done."))
    pending_reply = harness.new(tools=[refund]).send("Refund 1.")
    ended = subprocess.run(
        [
            *(sys.executable, "-W", "error", "-c", RESUMING_SCRIPT),
            *(harness.settings.store, harness.upstream.base_url, pending_reply.response_id),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.stdout, ended.stderr) == ('{"order": "1"}\nDone.\n', "")
    assert outputs(harness.sent_messages()) == {"r": "refunded 1 after the restart"}
    assert done == []


def test_approving_a_call_needs_its_tool(harness: ChatHarness) -> None:
    """Otherwise the call would get an error output, and could not be decided again."""
    refund, done = refunds()
    harness.upstream.plan_answers(ModelAnswer(calls=(refund_call("1", "r"),)))
    pending_reply = harness.new(tools=[refund]).send("Refund 1.")
    for tools in ([], [weather]):
        chat = harness.resume(pending_reply.response_id, tools=tools)
        with pytest.raises(InvalidRequestError, match="refund") as caught:
            chat.send(decisions={"r": True})
        assert caught.value.param == "tools"
        assert chat.response_id == pending_reply.response_id
    assert harness.request_count == 1
    # A denial needs no tool.
    denial = harness.resume(pending_reply.response_id).send(decisions={"r": False})
    assert denial.text == "Hello."
    later = harness.resume(pending_reply.response_id, tools=[refund])
    for _ in range(2):
        with pytest.raises(ConflictError) as late:
            later.send(decisions={"r": True})
        assert late.value.code == "approval_already_decided"
        assert late.value.response_id == denial.response_id
    assert done == []
    # In a branch it is decided once more on purpose.
    assert later.branch().send(decisions={"r": True}).text == "Hello."
    assert done == ["1"]


@pytest.mark.parametrize("summarizes", [False, True])
def test_of_two_programs_that_decide_at_once_the_first_has_decided(
    harness: ChatHarness, summarizes: bool
) -> None:
    refund, done = refunds()
    harness.upstream.plan_answers(ModelAnswer("Well."), ModelAnswer(calls=(refund_call("1", "r"),)))
    chat = harness.new(tools=[refund])
    chat.send("Hello.")
    waiting = chat.send("Refund 1.").response_id
    if summarizes:
        # One of the two decides behind a summary of what was before.
        chat.summarize(keep_turns=1)
    # The same file with another engine.
    programs = [
        Conversation.resume(name, tools=[refund], settings=settings)
        for name, settings in (
            (waiting, harness.settings),
            (chat.response_id, harness.make_settings(context=1_000_000)),
        )
    ]

    def decide(program: Conversation) -> Reply[None] | ConflictError:
        try:
            return program.send(decisions={"r": True})
        except ConflictError as error:
            return error

    with ThreadPoolExecutor(2) as people:
        answers = list(people.map(decide, programs))
    (made,) = [one for one in answers if not isinstance(one, ConflictError)]
    (late,) = [one for one in answers if isinstance(one, ConflictError)]
    assert (late.code, late.response_id) == ("approval_already_decided", made.response_id)
    assert done == ["1"]


def test_failed_decision_is_made_again(harness: ChatHarness) -> None:
    refund, done = refunds()
    harness.upstream.plan_answers(ModelAnswer(calls=(refund_call("1", "r"),)))
    chat = harness.new(tools=[refund])
    chat.send("Refund 1.")
    harness.upstream.plan_answers(refuse(400))
    with pytest.raises(AntiphonError):
        chat.send(decisions={"r": False})
    assert chat.send(decisions={"r": True}).text == "Hello."
    assert done == ["1"]
