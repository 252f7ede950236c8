"""Answers in a type's shape, and the one round in which they are mended."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

from antiphon import (
    InvalidOutputError,
    InvalidRequestError,
    ModelError,
    Tool,
    tool,
)
from antiphon.core.items import Message
from support.chat_harness import (
    VARIANTS,
    Call,
    ChatHarness,
    ModelAnswer,
    chat_harness,
    contents,
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


class City(BaseModel):
    name: str
    people: int


ROME = '{"name": "Rome", "people": 3}'


def test_an_answer_has_the_shape_that_was_asked_for(stage: ChatHarness) -> None:
    chat = stage.new()
    stage.upstream.plan_answers(ModelAnswer(ROME))
    reply = chat.send("A city?", returns=City)
    assert reply.parsed == City(name="Rome", people=3)
    assert reply.text == ROME
    asked = stage.request_body()["response_format"]
    assert asked["type"] == "json_schema"
    assert asked["json_schema"]["name"] == "City"
    assert asked["json_schema"]["strict"] is True
    assert set(asked["json_schema"]["schema"]["properties"]) == {"name", "people"}
    # The next turn is free again.
    free = chat.send("And?")
    assert free.parsed is None
    assert "response_format" not in stage.request_body()


@dataclass
class Town:
    name: str
    people: int = 0


class Place(TypedDict):
    name: str
    tags: NotRequired[list[str]]


@pytest.mark.parametrize(
    ("returns", "text", "value"),
    [
        (City, ROME, City(name="Rome", people=3)),
        (Town, '{"name": "Bari", "people": 2}', Town("Bari", 2)),
        (Place, '{"name": "Como", "tags": ["lake"]}', {"name": "Como", "tags": ["lake"]}),
        (list[Town], '{"value": [{"name": "Bari", "people": 2}]}', [Town("Bari", 2)]),
        (list[City], '{"value": [' + ROME + "]}", [City(name="Rome", people=3)]),
        (Literal["yes", "no"], '{"value": "no"}', "no"),
        (City | None, '{"value": null}', None),
        (int, '{"value": 7}', 7),
    ],
    ids=str,
)
def test_types_of_every_kind(stage: ChatHarness, returns: Any, text: str, value: Any) -> None:
    stage.upstream.plan_answers(ModelAnswer(text), ModelAnswer(text))
    chat = stage.new()
    assert chat.send("Which?", returns=returns).parsed == value
    talk = chat.stream("Which?", returns=returns)
    grown = list(talk.objects())
    assert talk.reply.parsed == value
    assert talk.reply.text == text
    plain = json.loads(text)
    assert grown[-1:] == ([] if value is None else [plain.get("value", plain)])
    assert stage.request_body(0)["response_format"] == stage.request_body(1)["response_format"]


def test_regenerate_and_edit_take_a_shape_too(stage: ChatHarness) -> None:
    chat = stage.new()
    first = chat.send("A city?")
    stage.upstream.plan_answers(ModelAnswer(ROME), ModelAnswer('{"value": [1, 2]}'))
    assert chat.regenerate(returns=City).parsed == City(name="Rome", people=3)
    assert "response_format" in stage.request_body()
    assert chat.edit(first.response_id, "Two numbers.", returns=list[int]).parsed == [1, 2]
    assert contents(stage.sent_messages()) == ["Two numbers."]


def test_an_answer_that_does_not_fit_is_mended_once(stage: ChatHarness) -> None:
    chat = stage.new(instructions="Be exact.")
    stage.upstream.plan_answers(ModelAnswer('{"name": "Rome"}'), ModelAnswer(ROME))
    reply = chat.send("A city?", returns=City)
    assert reply.parsed == City(name="Rome", people=3)
    assert chat.response_id == reply.response_id
    assert roles(stage.sent_messages()) == "suau"
    assert stage.sent_messages()[2]["content"] == '{"name": "Rome"}'
    assert "people is missing" in stage.sent_messages()[3]["content"]
    assert "response_format" in stage.request_body()


def test_an_answer_that_does_not_fit_twice_is_an_error(stage: ChatHarness) -> None:
    chat = stage.new()
    head = chat.send("Hi.").response_id
    stage.upstream.plan_answers(ModelAnswer("Rome!"), ModelAnswer("No, Rome!"))
    with pytest.raises(InvalidOutputError) as caught:
        chat.send("A city?", returns=City)
    error = caught.value
    assert (error.text, error.code, error.status) == ("No, Rome!", "output_invalid", 502)
    assert isinstance(error, ModelError)
    assert stage.response(error.response_id).output == (Message("assistant", "No, Rome!"),)
    assert chat.response_id == head
    stage.upstream.plan_answers(ModelAnswer(ROME))
    assert chat.send("A city?", returns=City).parsed.people == 3
    assert contents(stage.sent_messages()) == ["Hi.", "Hello.", "A city?"]


def test_an_answer_that_was_cut_is_not_asked_for_again(stage: ChatHarness) -> None:
    chat = stage.new()
    stage.upstream.plan_answers(ModelAnswer('{"name": "Ro', finish="length"))
    with pytest.raises(InvalidOutputError, match="cut off") as caught:
        chat.send("A city?", returns=City)
    assert (caught.value.text, chat.response_id, stage.request_count) == ('{"name": "Ro', None, 1)
    assert stage.response(caught.value.response_id).status == "incomplete"


def test_a_refusal_is_not_asked_for_again(stage: ChatHarness) -> None:
    chat = stage.new()
    stage.upstream.plan_answers(ModelAnswer(refusal="I will not."))
    with pytest.raises(InvalidOutputError) as caught:
        chat.send("A city?", returns=City)
    assert (caught.value.text, chat.response_id, stage.request_count) == ("I will not.", None, 1)


def test_a_shape_and_tools_in_one_turn(stage: ChatHarness) -> None:
    refund, _ = refunds()
    chat = stage.new(tools=[weather, refund])
    stage.upstream.plan_answers(
        ModelAnswer("Let me look.", (Call("weather", {"city": "Rome"}, "w"),)),
        ModelAnswer("?"),
        ModelAnswer(ROME),
    )
    reply = chat.send("A city?", returns=City)
    assert reply.parsed == City(name="Rome", people=3)
    assert roles(stage.sent_messages()) == "uatau", "the tools are not run again to mend the answer"
    stage.upstream.plan_answers(ModelAnswer(calls=(refund_call("1", "r"),)), ModelAnswer(ROME))
    waiting = chat.send("Refund, then a city.", returns=City)
    with pytest.raises(InvalidRequestError, match="refund") as caught:
        _ = waiting.parsed
    assert caught.value.code == "decision_needed"
    assert chat.send(decisions={"r": True}, returns=City).parsed.name == "Rome"


def test_a_type_without_a_schema_is_refused_at_once(stage: ChatHarness) -> None:
    chat = stage.new()
    for say in (chat.send, chat.stream):
        with pytest.raises(InvalidRequestError) as caught:
            say("A city?", returns=threading.Lock)
        assert caught.value.param == "returns"
    assert stage.request_count == 0
