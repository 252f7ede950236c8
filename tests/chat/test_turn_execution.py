"""Tools in a conversation's turn: execution, outputs, errors and limits."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import dataclass
from typing import Any

import pytest

from antiphon import (
    AsyncConversation,
    Conversation,
    InvalidRequestError,
    Tool,
    ToolContext,
    tool,
)
from antiphon.core.items import FunctionCall, FunctionCallOutput, Message
from antiphon.errors import ConfigError, ModelTimeoutError
from support.chat_harness import (
    Call,
    ChatHarness,
    ModelAnswer,
    outputs,
    roles,
)


@tool
def weather(city: str) -> dict[str, Any]:
    """Tell the weather."""
    return {"city": city, "temp": 20}


@tool
async def clock(zone: str = "UTC") -> str:
    """Tell the time."""
    await asyncio.sleep(0)
    return f"noon in {zone}"


def test_all_kinds_of_tools_run(harness: ChatHarness) -> None:
    def plain(number: int) -> int:
        """Double a number."""
        return 2 * number

    schema = {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]}
    raw = Tool.from_schema("raw", "As it came.", schema, lambda x: f"raw {x}")
    chat = harness.new(tools=[weather, clock, plain, raw], instructions="Be brief.")
    chat.register_tool("late", "Given later.", schema, lambda x: f"late {x}")
    calls = (
        Call("weather", {"city": "Rome"}, "w"),
        Call("clock", {}, "c"),
        Call("plain", {"number": 4}, "p"),
        Call("raw", {"x": "1"}, "r"),
        Call("late", {"x": "2"}, "l"),
    )
    harness.upstream.plan_answers(ModelAnswer("Let me see.", calls), ModelAnswer("Done."))
    reply = chat.send("All of it.")
    assert (reply.text, reply.status, reply.pending) == ("Done.", "completed", ())
    assert reply.usage.input_tokens == 10, "usage of both model calls"
    assert outputs(harness.sent_messages()) == {
        "w": '{"city":"Rome","temp":20}',
        "c": "noon in UTC",
        "p": "8",
        "r": "raw 1",
        "l": "late 2",
    }
    assert [one["function"]["name"] for one in harness.request_body()["tools"]] == [
        *("weather", "clock", "plain", "raw", "late")
    ]
    # Calls and their outputs are one turn, and sent again in the next.
    assert len(chat.usage().turns) == 1
    chat.send("And?")
    assert roles(harness.sent_messages()) == "suatttttau"


def test_duplicate_tool_name_is_refused(harness: ChatHarness) -> None:
    with pytest.raises(ConfigError):
        harness.new(tools=[weather, weather])
    chat = harness.new(tools=[weather])
    with pytest.raises(ConfigError):
        chat.register_tool("weather", "Again.", {"type": "object", "properties": {}}, lambda: 1)


def test_tools_get_deps(harness: ChatHarness) -> None:
    @dataclass
    class Shop:
        orders: dict[str, str]

    @tool
    def status(order: str, ctx: ToolContext[Shop]) -> str:
        """Where an order is."""
        return f"{ctx.deps.orders[order]} ({ctx.name}, {ctx.call_id})"

    harness.upstream.plan_answers(
        ModelAnswer(calls=(Call("status", {"order": "1"}, "x"),)), ModelAnswer("Sent.")
    )
    harness.new(tools=[status], deps=Shop({"1": "sent"})).send("Where is it?")
    assert outputs(harness.sent_messages()) == {"x": "sent (status, x)"}
    assert list(harness.request_body()["tools"][0]["function"]["parameters"]["properties"]) == [
        "order"
    ]


def test_tool_errors_are_sent_to_the_model(harness: ChatHarness) -> None:
    @tool(timeout=0.02)
    async def slow() -> str:
        """Never ready."""
        await asyncio.Event().wait()
        return ""

    @tool
    def broken() -> str:
        """Bad."""
        raise ValueError("out of paper")

    @tool
    def odd() -> object:
        """Gives what is no JSON."""
        return object()

    calls = (
        Call("slow", {}, "s"),
        Call("broken", {}, "b"),
        Call("odd", {}, "o"),
        Call("nobody", {}, "n"),
        Call("weather", '{"city" "Rome"}', "j"),
        Call("weather", {"town": "Rome"}, "a"),
    )
    harness.upstream.plan_answers(ModelAnswer(calls=calls), ModelAnswer("Sorry."))
    reply = harness.new(tools=[slow, broken, odd, weather]).send("Go.")
    assert (reply.text, reply.status) == ("Sorry.", "completed")
    errors = {
        call_id: json.loads(text)["error"]
        for call_id, text in outputs(harness.sent_messages()).items()
    }
    assert "did not finish within 0.02 s" in errors["s"]
    assert "out of paper" in errors["b"]
    assert "not JSON" in errors["o"]
    assert "no tool named 'nobody'" in errors["n"]
    assert "not valid JSON" in errors["j"]
    assert "'city' is missing" in errors["a"]


def test_call_of_an_unknown_tool_gets_an_error_output(harness: ChatHarness) -> None:
    """A model may call a tool that it was not offered."""
    harness.upstream.plan_answers(
        ModelAnswer(calls=(Call("browse", {}, "b"),)), ModelAnswer("I cannot.")
    )
    chat = harness.new()
    reply = chat.send("Search the web.")
    assert (reply.text, reply.pending) == ("I cannot.", ())
    assert "no tool named 'browse'" in outputs(harness.sent_messages())["b"]
    assert "tools" not in harness.request_body()


def test_parallel_tool_calls_false_runs_calls_in_sequence(harness: ChatHarness) -> None:
    running, most_running = 0, 0
    lock = threading.Lock()
    both = threading.Barrier(2)

    def work(together: bool) -> str:
        """Work."""
        nonlocal running, most_running
        with lock:
            running += 1
            most_running = max(most_running, running)
        if together:
            both.wait(30)
        with lock:
            running -= 1
        return "ok"

    for parallel in (False, True):
        two = tuple(Call("work", {"together": parallel}, f"c{one}") for one in range(2))
        harness.upstream.plan_answers(ModelAnswer(calls=two), ModelAnswer("Done."))
        most_running = 0
        harness.new(tools=[work], parallel_tool_calls=parallel).send("Go.")
        assert most_running == (2 if parallel else 1)
        assert harness.request_body(0).get("parallel_tool_calls", True) is False


def test_tool_choice_applies_to_the_first_answer_only(harness: ChatHarness) -> None:
    harness.upstream.plan_answers(
        ModelAnswer(calls=(Call("weather", {"city": "Rome"}),)), ModelAnswer("Sunny.")
    )
    harness.new(tools=[weather, clock], tool_choice="weather").send("Go.")
    chosen = {"type": "function", "function": {"name": "weather"}}
    assert harness.request_body(0)["tool_choice"] == chosen
    assert harness.request_body(1).get("tool_choice", "auto") == "auto"
    with pytest.raises(InvalidRequestError) as caught:
        harness.new(tools=[weather], tool_choice="wether").send("Go.")
    assert caught.value.param == "tool_choice"
    assert "wether" in caught.value.message
    assert harness.request_count == 2


def test_turn_over_max_tool_rounds_is_incomplete(harness: ChatHarness) -> None:
    for number in range(3):
        harness.upstream.plan_answers(ModelAnswer(calls=(Call("clock", {}, f"c{number}"),)))
    chat = harness.new(tools=[clock], max_tool_rounds=2)
    reply = chat.send("Time?")
    assert (reply.status, reply.pending, chat.pending()) == ("incomplete", (), ())
    assert harness.request_count == 3
    # The unanswered call is shown as interrupted everywhere.
    assert chat.context() == chat.messages() == harness.load(json.loads(chat.export())).messages()
    assert roles(chat.messages()) == "uatatat"
    assert chat.send("And?").text == "Hello."
    assert harness.sent_messages()[:-1] == chat.messages()[:-2]
    assert "interrupted" in outputs(harness.sent_messages())["c2"]


def test_timed_out_turn_is_an_error(harness: ChatHarness) -> None:
    @tool(timeout=None)
    async def forever() -> str:
        """Never ready."""
        await asyncio.Event().wait()
        return ""

    head = harness.new().send("Hi.").response_id
    chat = harness.resume(head, tools=[forever], timeout=0.3)
    harness.upstream.plan_answers(ModelAnswer(calls=(Call("forever", {}),)))
    with pytest.raises(ModelTimeoutError) as caught:
        chat.send("Go.")
    assert caught.value.code == "turn_timeout"
    assert chat.response_id == head
    assert harness.response(caught.value.response_id).status == "failed"
    # Without a limit, which a busy machine could exceed here.
    assert harness.resume(chat.response_id).send("Hi again.").text == "Hello."
    assert roles(harness.sent_messages()) == "uau"


def test_tool_can_run_its_own_conversation(harness: ChatHarness) -> None:
    def expert(question: str) -> str:
        """Ask an expert."""
        chat = Conversation(instructions="You are an expert.", settings=harness.settings)
        return chat.send(question).text

    async def other_expert(question: str) -> str:
        """Ask another expert."""
        chat = AsyncConversation(instructions="You are another.", settings=harness.settings)
        return (await chat.send(question)).text

    for name in ("expert", "other_expert"):
        harness.upstream.plan_answers(
            ModelAnswer(calls=(Call(name, {"question": "Why?"}, "x"),)),
            ModelAnswer("Because."),
            ModelAnswer("So."),
        )
        chat = harness.new(tools=[expert, other_expert])
        assert chat.send("Ask.").text == "So."
        assert outputs(harness.sent_messages()) == {"x": "Because."}


def test_unknown_argument_is_refused(harness: ChatHarness) -> None:
    """It must not be ignored: ``instruction=`` would drop the instructions."""
    wrong: list[tuple[Any, str]] = [
        (lambda: harness.new(instruction="Be brief."), "Did you mean 'instructions'?"),
        (lambda: harness.new(system_prompt="Be brief."), "Did you mean 'instructions'?"),
        (lambda: harness.new(base_url="http://x"), "a key is in the environment"),
        (
            lambda: harness.new().send("Hi.", response_format=dict),
            "Did you mean 'returns', of send and stream?",
        ),
        (lambda: harness.load([], tool=[]), "Did you mean 'tools'?"),
        (lambda: harness.new().send("Hi.", image=["a.png"]), "Did you mean 'images'?"),
        (lambda: harness.new().stream("Hi.", decision={}), "Did you mean 'decisions'?"),
        (lambda: harness.new(colour="red"), "'colour'"),
    ]
    for call, hint in wrong:
        with pytest.raises(TypeError, match="unexpected keyword argument") as caught:
            call()
        assert str(caught.value).endswith(hint)
    assert harness.request_count == 0


def test_items_include_calls_and_outputs(harness: ChatHarness) -> None:
    chat = harness.new(tools=[weather])
    harness.upstream.plan_answers(
        ModelAnswer("Looking.", (Call("weather", {"city": "Rome"}, "w"),)), ModelAnswer("Sunny.")
    )
    reply = chat.send("Weather?")
    assert reply.output == (
        Message("assistant", "Looking."),
        FunctionCall("w", "weather", '{"city": "Rome"}'),
        FunctionCallOutput("w", '{"city":"Rome","temp":20}'),
        Message("assistant", "Sunny."),
    )
    assert chat.items() == (Message("user", "Weather?"), *reply.output)
