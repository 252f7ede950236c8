"""Tools in a turn: what runs, what the model is told of it, and when it ends."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
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
    VARIANTS,
    Call,
    ChatHarness,
    ModelAnswer,
    chat_harness,
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


@tool
async def clock(zone: str = "UTC") -> str:
    """Tell the time."""
    await asyncio.sleep(0)
    return f"noon in {zone}"


def test_tools_of_every_kind_run_and_the_model_goes_on(stage: ChatHarness) -> None:
    def plain(number: int) -> int:
        """Double a number."""
        return 2 * number

    schema = {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]}
    raw = Tool.from_schema("raw", "As it came.", schema, lambda x: f"raw {x}")
    chat = stage.new(tools=[weather, clock, plain, raw], instructions="Be brief.")
    chat.register_tool("late", "Given later.", schema, lambda x: f"late {x}")
    calls = (
        Call("weather", {"city": "Rome"}, "w"),
        Call("clock", {}, "c"),
        Call("plain", {"number": 4}, "p"),
        Call("raw", {"x": "1"}, "r"),
        Call("late", {"x": "2"}, "l"),
    )
    stage.upstream.plan_answers(ModelAnswer("Let me see.", calls), ModelAnswer("Done."))
    reply = chat.send("All of it.")
    assert (reply.text, reply.status, reply.pending) == ("Done.", "completed", ())
    assert reply.usage.input_tokens == 10, "both calls to the model are paid"
    assert outputs(stage.sent_messages()) == {
        "w": '{"city":"Rome","temp":20}',
        "c": "noon in UTC",
        "p": "8",
        "r": "raw 1",
        "l": "late 2",
    }
    assert [one["function"]["name"] for one in stage.request_body()["tools"]] == [
        *("weather", "clock", "plain", "raw", "late")
    ]
    # Calls and their outputs are one turn, and shown again in the next.
    assert len(chat.usage().turns) == 1
    chat.send("And?")
    assert roles(stage.sent_messages()) == "suatttttau"


def test_a_tool_of_a_name_that_is_taken_is_refused(stage: ChatHarness) -> None:
    with pytest.raises(ConfigError):
        stage.new(tools=[weather, weather])
    chat = stage.new(tools=[weather])
    with pytest.raises(ConfigError):
        chat.register_tool("weather", "Again.", {"type": "object", "properties": {}}, lambda: 1)


def test_tools_are_given_deps(stage: ChatHarness) -> None:
    @dataclass
    class Shop:
        orders: dict[str, str]

    @tool
    def status(order: str, ctx: ToolContext[Shop]) -> str:
        """Where an order is."""
        return f"{ctx.deps.orders[order]} ({ctx.name}, {ctx.call_id})"

    stage.upstream.plan_answers(
        ModelAnswer(calls=(Call("status", {"order": "1"}, "x"),)), ModelAnswer("Sent.")
    )
    stage.new(tools=[status], deps=Shop({"1": "sent"})).send("Where is it?")
    assert outputs(stage.sent_messages()) == {"x": "sent (status, x)"}
    assert list(stage.request_body()["tools"][0]["function"]["parameters"]["properties"]) == [
        "order"
    ]


def test_what_goes_wrong_in_a_tool_is_told_to_the_model(stage: ChatHarness) -> None:
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
        Call("weather", "{", "j"),
        Call("weather", {"town": "Rome"}, "a"),
    )
    stage.upstream.plan_answers(ModelAnswer(calls=calls), ModelAnswer("Sorry."))
    reply = stage.new(tools=[slow, broken, odd, weather]).send("Go.")
    assert (reply.text, reply.status) == ("Sorry.", "completed")
    told = {
        call_id: json.loads(text)["error"]
        for call_id, text in outputs(stage.sent_messages()).items()
    }
    assert "did not finish within 0.02 s" in told["s"]
    assert "out of paper" in told["b"]
    assert "not JSON" in told["o"]
    assert "no tool named 'nobody'" in told["n"]
    assert "not valid JSON" in told["j"]
    assert "'city' is missing" in told["a"]


def test_calls_that_nobody_offered_are_answered_too(stage: ChatHarness) -> None:
    """A model may call tools that it was never given."""
    stage.upstream.plan_answers(
        ModelAnswer(calls=(Call("browse", {}, "b"),)), ModelAnswer("I cannot.")
    )
    chat = stage.new()
    reply = chat.send("Search the web.")
    assert (reply.text, reply.pending) == ("I cannot.", ())
    assert "no tool named 'browse'" in outputs(stage.sent_messages())["b"]
    assert "tools" not in stage.request_body()


def test_calls_run_one_after_another_where_that_is_asked_for(stage: ChatHarness) -> None:
    running, most = 0, 0
    lock = threading.Lock()
    both = threading.Barrier(2)

    def work(together: bool) -> str:
        """Work."""
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        if together:
            both.wait(30)
        with lock:
            running -= 1
        return "ok"

    for parallel in (False, True):
        two = tuple(Call("work", {"together": parallel}, f"c{one}") for one in range(2))
        stage.upstream.plan_answers(ModelAnswer(calls=two), ModelAnswer("Done."))
        most = 0
        stage.new(tools=[work], parallel_tool_calls=parallel).send("Go.")
        assert most == (2 if parallel else 1)
        assert stage.request_body(0).get("parallel_tool_calls", True) is False


def test_tool_choice_names_a_tool_for_the_first_answer_only(stage: ChatHarness) -> None:
    stage.upstream.plan_answers(
        ModelAnswer(calls=(Call("weather", {"city": "Rome"}),)), ModelAnswer("Sunny.")
    )
    stage.new(tools=[weather, clock], tool_choice="weather").send("Go.")
    chosen = {"type": "function", "function": {"name": "weather"}}
    assert stage.request_body(0)["tool_choice"] == chosen
    assert stage.request_body(1).get("tool_choice", "auto") == "auto"
    with pytest.raises(InvalidRequestError) as caught:
        stage.new(tools=[weather], tool_choice="wether").send("Go.")
    assert caught.value.param == "tool_choice"
    assert "wether" in caught.value.message
    assert stage.request_count == 2


def test_a_model_that_never_stops_calling_is_stopped(stage: ChatHarness) -> None:
    for number in range(3):
        stage.upstream.plan_answers(ModelAnswer(calls=(Call("clock", {}, f"c{number}"),)))
    chat = stage.new(tools=[clock], max_tool_rounds=2)
    reply = chat.send("Time?")
    assert (reply.status, reply.pending, chat.pending()) == ("incomplete", (), ())
    assert stage.request_count == 3
    # The call that nobody answered is told as that, wherever it is shown.
    assert chat.context() == chat.messages() == stage.load(json.loads(chat.export())).messages()
    assert roles(chat.messages()) == "uatatat"
    assert chat.send("And?").text == "Hello."
    assert stage.sent_messages()[:-1] == chat.messages()[:-2]
    assert "interrupted" in outputs(stage.sent_messages())["c2"]


def test_a_turn_that_takes_too_long_is_an_error(stage: ChatHarness) -> None:
    @tool(timeout=None)
    async def forever() -> str:
        """Never ready."""
        await asyncio.Event().wait()
        return ""

    chat = stage.new(tools=[forever], timeout=0.3)
    head = chat.send("Hi.").response_id
    stage.upstream.plan_answers(ModelAnswer(calls=(Call("forever", {}),)))
    with pytest.raises(ModelTimeoutError) as caught:
        chat.send("Go.")
    assert caught.value.code == "turn_timeout"
    assert chat.response_id == head
    assert stage.response(caught.value.response_id).status == "failed"
    assert chat.send("Hi again.").text == "Hello."
    assert roles(stage.sent_messages()) == "uau"


def test_a_tool_may_hold_a_conversation_of_its_own(stage: ChatHarness) -> None:
    def expert(question: str) -> str:
        """Ask an expert."""
        chat = Conversation(instructions="You are an expert.", settings=stage.settings)
        return chat.send(question).text

    async def other_expert(question: str) -> str:
        """Ask another expert."""
        chat = AsyncConversation(instructions="You are another.", settings=stage.settings)
        return (await chat.send(question)).text

    for name in ("expert", "other_expert"):
        stage.upstream.plan_answers(
            ModelAnswer(calls=(Call(name, {"question": "Why?"}, "x"),)),
            ModelAnswer("Because."),
            ModelAnswer("So."),
        )
        chat = stage.new(tools=[expert, other_expert])
        assert chat.send("Ask.").text == "So."
        assert outputs(stage.sent_messages()) == {"x": "Because."}


def test_an_argument_that_does_not_exist_is_refused(stage: ChatHarness) -> None:
    """It must not be ignored: ``instruction=`` would be a conversation without any."""
    wrong: list[Any] = [
        lambda: stage.new(instruction="Be brief."),
        lambda: stage.load([], tool=[]),
        lambda: stage.new().send("Hi.", image=["a.png"]),
        lambda: stage.new().stream("Hi.", decision={}),
    ]
    for call in wrong:
        with pytest.raises(TypeError, match="unexpected keyword argument"):
            call()
    assert stage.request_count == 0


def test_the_items_tell_the_whole_story(stage: ChatHarness) -> None:
    chat = stage.new(tools=[weather])
    stage.upstream.plan_answers(
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
