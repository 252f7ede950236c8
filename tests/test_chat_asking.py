"""Tools, decisions and shapes, from the question to the reply, over a real upstream."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from antiphon import (
    AsyncConversation,
    Conversation,
    InvalidRequest,
    ModelError,
    OutputInvalid,
    Tool,
    ToolContext,
    tool,
)
from antiphon.core.items import FunctionCall, FunctionCallOutput, Message
from antiphon.errors import ConfigError, ModelTimeout
from chat_kit import TWINS, Call, Says, Stage, contents, roles, staged


@pytest.fixture(params=TWINS)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    with staged(request.param, tmp_path) as stage:
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


def outputs(messages: list[dict[str, Any]]) -> dict[str, str]:
    """What a model was told of its calls."""
    return {one["tool_call_id"]: one["content"] for one in messages if one["role"] == "tool"}


# Tools.


def test_tools_of_every_kind_run_and_the_model_goes_on(stage: Stage) -> None:
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
    stage.upstream.answers(Says("Let me see.", calls), Says("Done."))
    reply = chat.send("All of it.")
    assert (reply.text, reply.status, reply.pending) == ("Done.", "completed", ())
    assert reply.usage.input_tokens == 10, "both calls to the model are paid"
    assert outputs(stage.shown()) == {
        "w": '{"city":"Rome","temp":20}',
        "c": "noon in UTC",
        "p": "8",
        "r": "raw 1",
        "l": "late 2",
    }
    assert [one["function"]["name"] for one in stage.body()["tools"]] == [
        *("weather", "clock", "plain", "raw", "late")
    ]
    # Calls and their outputs are one turn, and shown again in the next.
    assert len(chat.usage.turns) == 1
    chat.send("And?")
    assert roles(stage.shown()) == "suatttttau"


def test_a_tool_of_a_name_that_is_taken_is_refused(stage: Stage) -> None:
    with pytest.raises(ConfigError):
        stage.new(tools=[weather, weather])
    chat = stage.new(tools=[weather])
    with pytest.raises(ConfigError):
        chat.register_tool("weather", "Again.", {"type": "object", "properties": {}}, lambda: 1)


def test_tools_are_given_deps(stage: Stage) -> None:
    @dataclass
    class Shop:
        orders: dict[str, str]

    @tool
    def status(order: str, ctx: ToolContext[Shop]) -> str:
        """Where an order is."""
        return f"{ctx.deps.orders[order]} ({ctx.name}, {ctx.call_id})"

    stage.upstream.answers(Says(calls=(Call("status", {"order": "1"}, "x"),)), Says("Sent."))
    stage.new(tools=[status], deps=Shop({"1": "sent"})).send("Where is it?")
    assert outputs(stage.shown()) == {"x": "sent (status, x)"}
    assert list(stage.body()["tools"][0]["function"]["parameters"]["properties"]) == ["order"]


def test_what_goes_wrong_in_a_tool_is_told_to_the_model(stage: Stage) -> None:
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
    stage.upstream.answers(Says(calls=calls), Says("Sorry."))
    reply = stage.new(tools=[slow, broken, odd, weather]).send("Go.")
    assert (reply.text, reply.status) == ("Sorry.", "completed")
    told = {call_id: json.loads(text)["error"] for call_id, text in outputs(stage.shown()).items()}
    assert "did not finish within 0.02 s" in told["s"]
    assert "out of paper" in told["b"]
    assert "not JSON" in told["o"]
    assert "no tool named 'nobody'" in told["n"]
    assert "not valid JSON" in told["j"]
    assert "'city' is missing" in told["a"]


def test_calls_that_nobody_offered_are_answered_too(stage: Stage) -> None:
    """A model may call tools that it was never given."""
    stage.upstream.answers(Says(calls=(Call("browse", {}, "b"),)), Says("I cannot."))
    chat = stage.new()
    reply = chat.send("Search the web.")
    assert (reply.text, reply.pending) == ("I cannot.", ())
    assert "no tool named 'browse'" in outputs(stage.shown())["b"]
    assert "tools" not in stage.body()


def test_calls_run_one_after_another_where_that_is_asked_for(stage: Stage) -> None:
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
        stage.upstream.answers(Says(calls=two), Says("Done."))
        most = 0
        stage.new(tools=[work], parallel_tool_calls=parallel).send("Go.")
        assert most == (2 if parallel else 1)
        assert stage.body(0).get("parallel_tool_calls", True) is False


def test_tool_choice_names_a_tool_for_the_first_answer_only(stage: Stage) -> None:
    stage.upstream.answers(Says(calls=(Call("weather", {"city": "Rome"}),)), Says("Sunny."))
    stage.new(tools=[weather, clock], tool_choice="weather").send("Go.")
    chosen = {"type": "function", "function": {"name": "weather"}}
    assert stage.body(0)["tool_choice"] == chosen
    assert stage.body(1).get("tool_choice", "auto") == "auto"
    with pytest.raises(InvalidRequest) as caught:
        stage.new(tools=[weather], tool_choice="wether").send("Go.")
    assert caught.value.param == "tool_choice"
    assert "wether" in caught.value.message
    assert stage.asked == 2


def test_a_model_that_never_stops_calling_is_stopped(stage: Stage) -> None:
    for number in range(3):
        stage.upstream.answers(Says(calls=(Call("clock", {}, f"c{number}"),)))
    chat = stage.new(tools=[clock], max_tool_rounds=2)
    reply = chat.send("Time?")
    assert (reply.status, reply.pending, chat.pending) == ("incomplete", (), ())
    assert stage.asked == 3
    # The call that nobody answered is told as that, and the conversation goes on.
    assert chat.send("And?").text == "Hello."
    assert "interrupted" in outputs(stage.shown())["c2"]


def test_a_turn_that_takes_too_long_is_an_error(stage: Stage) -> None:
    @tool(timeout=None)
    async def forever() -> str:
        """Never ready."""
        await asyncio.Event().wait()
        return ""

    chat = stage.new(tools=[forever], timeout=0.3)
    head = chat.send("Hi.").response_id
    stage.upstream.answers(Says(calls=(Call("forever", {}),)))
    with pytest.raises(ModelTimeout) as caught:
        chat.send("Go.")
    assert caught.value.code == "turn_timeout"
    assert chat.response_id == head
    assert stage.response(caught.value.response_id).status == "failed"
    assert chat.send("Hi again.").text == "Hello."
    assert roles(stage.shown()) == "uau"


def test_a_tool_may_hold_a_conversation_of_its_own(stage: Stage) -> None:
    def expert(question: str) -> str:
        """Ask an expert."""
        chat = Conversation(instructions="You are an expert.", settings=stage.settings)
        return chat.send(question).text

    async def other_expert(question: str) -> str:
        """Ask another expert."""
        chat = AsyncConversation(instructions="You are another.", settings=stage.settings)
        return (await chat.send(question)).text

    for name in ("expert", "other_expert"):
        stage.upstream.answers(
            Says(calls=(Call(name, {"question": "Why?"}, "x"),)), Says("Because."), Says("So.")
        )
        chat = stage.new(tools=[expert, other_expert])
        assert chat.send("Ask.").text == "So."
        assert outputs(stage.shown()) == {"x": "Because."}


# Approval.


def test_without_anyone_to_ask_the_turn_ends_and_waits(stage: Stage) -> None:
    refund, done = refunds()
    chat = stage.new(tools=[refund, weather])
    both = (refund_call("7", "r"), Call("weather", {"city": "Rome"}, "w"))
    stage.upstream.answers(Says("One moment.", both))
    reply = chat.send("Refund 7.")
    assert reply.status == "completed"
    assert [call.call_id for call in reply.pending] == ["r"]
    assert chat.pending == reply.pending
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
            with pytest.raises(InvalidRequest) as caught:
                say("So?", decisions=decisions)
            assert (caught.value.code, caught.value.param) == (code, "decisions")
    assert stage.asked == 1
    assert chat.response_id == reply.response_id
    stage.upstream.answers(Says("Refunded."))
    assert chat.send(decisions={"r": True}).text == "Refunded."
    assert done == ["7"]
    # The call that waited is shown behind those that did not, next to its output.
    assert roles(stage.shown()) == "uatat"
    assert outputs(stage.shown()) == {"w": '{"city":"Rome","temp":20}', "r": "refunded 7"}
    assert chat.pending == ()


def test_decisions_may_be_mixed_and_go_along_with_words(stage: Stage) -> None:
    refund, done = refunds()
    chat = stage.new(tools=[refund])
    three = tuple(refund_call(str(number), f"r{number}") for number in range(4))
    stage.upstream.answers(Says(calls=three))
    chat.send("Refund them.")
    with pytest.raises(InvalidRequest, match="r3") as caught:
        chat.send(decisions={"r0": True, "r1": True, "r2": False})
    assert caught.value.code == "decision_needed"
    decisions = {"r0": True, "r1": False, "r2": "too late", "r3": ""}
    reply = chat.send("Be quick.", decisions=decisions)
    assert done == ["0"]
    told = outputs(stage.shown())
    assert told["r0"] == "refunded 0"
    assert "declined" in told["r1"]
    assert "too late" in told["r2"]
    assert "declined" in told["r3"]
    assert roles(stage.shown()) == "uattttu"
    assert stage.shown()[-1]["content"] == "Be quick."
    assert reply.text == "Hello."
    # Told once, and the same ever after.
    before = stage.shown()
    chat.send("And?")
    assert stage.shown()[: len(before)] == before
    with pytest.raises(InvalidRequest):
        chat.send(decisions={"r0": True})


def test_empty_words_along_with_decisions_say_nothing(stage: Stage) -> None:
    refund, _ = refunds()
    chat = stage.new(tools=[refund])
    stage.upstream.answers(Says(calls=(refund_call("1", "r"),)))
    chat.send("Refund 1.")
    chat.send("", decisions={"r": False})
    assert roles(stage.shown()) == "uat"


def test_a_decided_call_may_lead_to_another_that_waits(stage: Stage) -> None:
    refund, done = refunds()
    chat = stage.new(tools=[refund])
    stage.upstream.answers(
        Says(calls=(refund_call("1", "a"),)), Says(calls=(refund_call("2", "a"),)), Says("Both.")
    )
    chat.send("Refund 1 and 2.")
    second = chat.send(decisions={"a": True})
    assert [(call.call_id, call.arguments) for call in second.pending] == [("a", '{"order": "2"}')]
    assert chat.send(decisions={"a": True}).text == "Both."
    assert done == ["1", "2"]
    assert contents(stage.shown())[1:] == ["", "refunded 1", "", "refunded 2"]


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
def test_somebody_is_asked_to_agree(stage: Stage, kind: str, answer: Any, told: str) -> None:
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
    stage.upstream.answers(Says(calls=both), Says("So."))
    reply = chat.send("Refund 1.")
    assert (reply.text, reply.pending) == ("So.", ())
    assert [call.call_id for call in asked] == ["r"]
    assert told in outputs(stage.shown())["r"]
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
calls = chat.pending
print(calls[0].arguments)
print(chat.send(decisions={call.call_id: True for call in calls}).text)
"""


def test_a_decision_may_come_in_another_process(stage: Stage) -> None:
    refund, done = refunds()
    stage.upstream.answers(Says(calls=(refund_call("1", "r"),)), Says("Done."))
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
    assert outputs(stage.shown()) == {"r": "refunded 1 after the restart"}
    assert done == []


def test_a_call_that_was_agreed_to_needs_its_tool(stage: Stage) -> None:
    """It would else be told as an error, and could not be decided again."""
    refund, done = refunds()
    stage.upstream.answers(Says(calls=(refund_call("1", "r"),)))
    waiting = stage.new(tools=[refund]).send("Refund 1.")
    for tools in ([], [weather]):
        chat = stage.resume(waiting.response_id, tools=tools)
        with pytest.raises(InvalidRequest, match="refund") as caught:
            chat.send(decisions={"r": True})
        assert caught.value.param == "tools"
        assert chat.response_id == waiting.response_id
    assert stage.asked == 1
    # To decline needs nobody, and the tool can still be given.
    assert stage.resume(waiting.response_id).send(decisions={"r": False}).text == "Hello."
    later = stage.resume(waiting.response_id, tools=[refund])
    assert later.send(decisions={"r": True}).text == "Hello."
    assert done == ["1"]


# Shapes.


class City(BaseModel):
    name: str
    people: int


ROME = '{"name": "Rome", "people": 3}'


def test_an_answer_has_the_shape_that_was_asked_for(stage: Stage) -> None:
    chat = stage.new()
    stage.upstream.answers(Says(ROME))
    reply = chat.send("A city?", returns=City)
    assert reply.parsed == City(name="Rome", people=3)
    assert reply.text == ROME
    asked = stage.body()["response_format"]
    assert asked["type"] == "json_schema"
    assert asked["json_schema"]["name"] == "City"
    assert asked["json_schema"]["strict"] is True
    assert set(asked["json_schema"]["schema"]["properties"]) == {"name", "people"}
    # The next turn is free again.
    free = chat.send("And?")
    assert free.parsed is None
    assert "response_format" not in stage.body()


def test_regenerate_and_edit_take_a_shape_too(stage: Stage) -> None:
    chat = stage.new()
    first = chat.send("A city?")
    stage.upstream.answers(Says(ROME), Says('{"value": [1, 2]}'))
    assert chat.regenerate(returns=City).parsed == City(name="Rome", people=3)
    assert "response_format" in stage.body()
    assert chat.edit(first.response_id, "Two numbers.", returns=list[int]).parsed == [1, 2]
    assert contents(stage.shown()) == ["Two numbers."]


def test_an_answer_that_does_not_fit_is_mended_once(stage: Stage) -> None:
    chat = stage.new(instructions="Be exact.")
    stage.upstream.answers(Says('{"name": "Rome"}'), Says(ROME))
    reply = chat.send("A city?", returns=City)
    assert reply.parsed == City(name="Rome", people=3)
    assert chat.response_id == reply.response_id
    assert roles(stage.shown()) == "suau"
    assert stage.shown()[2]["content"] == '{"name": "Rome"}'
    assert "people is missing" in stage.shown()[3]["content"]
    assert "response_format" in stage.body()


def test_an_answer_that_does_not_fit_twice_is_an_error(stage: Stage) -> None:
    chat = stage.new()
    head = chat.send("Hi.").response_id
    stage.upstream.answers(Says("Rome!"), Says("No, Rome!"))
    with pytest.raises(OutputInvalid) as caught:
        chat.send("A city?", returns=City)
    error = caught.value
    assert (error.text, error.code, error.status) == ("No, Rome!", "output_invalid", 502)
    assert isinstance(error, ModelError)
    assert stage.response(error.response_id).output == (Message("assistant", "No, Rome!"),)
    assert chat.response_id == head
    stage.upstream.answers(Says(ROME))
    assert chat.send("A city?", returns=City).parsed.people == 3
    assert contents(stage.shown()) == ["Hi.", "Hello.", "A city?"]


def test_an_answer_that_was_cut_is_not_asked_for_again(stage: Stage) -> None:
    chat = stage.new()
    stage.upstream.answers(Says('{"name": "Ro', finish="length"))
    with pytest.raises(OutputInvalid, match="cut off") as caught:
        chat.send("A city?", returns=City)
    assert (caught.value.text, chat.response_id, stage.asked) == ('{"name": "Ro', None, 1)
    assert stage.response(caught.value.response_id).status == "incomplete"


def test_a_refusal_is_not_asked_for_again(stage: Stage) -> None:
    chat = stage.new()
    stage.upstream.answers(Says(refusal="I will not."))
    with pytest.raises(OutputInvalid) as caught:
        chat.send("A city?", returns=City)
    assert (caught.value.text, chat.response_id, stage.asked) == ("I will not.", None, 1)


def test_a_shape_and_tools_in_one_turn(stage: Stage) -> None:
    refund, _ = refunds()
    chat = stage.new(tools=[weather, refund])
    stage.upstream.answers(
        Says("Let me look.", (Call("weather", {"city": "Rome"}, "w"),)), Says("?"), Says(ROME)
    )
    reply = chat.send("A city?", returns=City)
    assert reply.parsed == City(name="Rome", people=3)
    assert roles(stage.shown()) == "uatau", "the tools are not run again to mend the answer"
    stage.upstream.answers(Says(calls=(refund_call("1", "r"),)), Says(ROME))
    waiting = chat.send("Refund, then a city.", returns=City)
    with pytest.raises(InvalidRequest, match="refund") as caught:
        _ = waiting.parsed
    assert caught.value.code == "decision_needed"
    assert chat.send(decisions={"r": True}, returns=City).parsed.name == "Rome"


def test_a_type_without_a_schema_is_refused_at_once(stage: Stage) -> None:
    chat = stage.new()
    for say in (chat.send, chat.stream):
        with pytest.raises(InvalidRequest) as caught:
            say("A city?", returns=threading.Lock)
        assert caught.value.param == "returns"
    assert stage.asked == 0


# Arguments.


def test_an_argument_that_does_not_exist_is_refused(stage: Stage) -> None:
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
    assert stage.asked == 0


def test_the_items_tell_the_whole_story(stage: Stage) -> None:
    chat = stage.new(tools=[weather])
    stage.upstream.answers(
        Says("Looking.", (Call("weather", {"city": "Rome"}, "w"),)), Says("Sunny.")
    )
    reply = chat.send("Weather?")
    assert reply.output == (
        Message("assistant", "Looking."),
        FunctionCall("w", "weather", '{"city": "Rome"}'),
        FunctionCallOutput("w", '{"city":"Rome","temp":20}'),
        Message("assistant", "Sunny."),
    )
    assert chat.items == (Message("user", "Weather?"), *reply.output)
