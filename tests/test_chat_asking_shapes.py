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
from chat_kit import TWINS, Call, Says, Stage, contents, roles, staged


@pytest.fixture(params=TWINS)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    with staged(request.param, tmp_path) as stage:
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
def test_types_of_every_kind(stage: Stage, returns: Any, text: str, value: Any) -> None:
    stage.upstream.answers(Says(text), Says(text))
    chat = stage.new()
    assert chat.send("Which?", returns=returns).parsed == value
    talk = chat.stream("Which?", returns=returns)
    grown = list(talk.objects())
    assert talk.reply.parsed == value
    assert talk.reply.text == text
    plain = json.loads(text)
    assert grown[-1:] == ([] if value is None else [plain.get("value", plain)])
    assert stage.body(0)["response_format"] == stage.body(1)["response_format"]


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
    with pytest.raises(InvalidOutputError) as caught:
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
    with pytest.raises(InvalidOutputError, match="cut off") as caught:
        chat.send("A city?", returns=City)
    assert (caught.value.text, chat.response_id, stage.asked) == ('{"name": "Ro', None, 1)
    assert stage.response(caught.value.response_id).status == "incomplete"


def test_a_refusal_is_not_asked_for_again(stage: Stage) -> None:
    chat = stage.new()
    stage.upstream.answers(Says(refusal="I will not."))
    with pytest.raises(InvalidOutputError) as caught:
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
    with pytest.raises(InvalidRequestError, match="refund") as caught:
        _ = waiting.parsed
    assert caught.value.code == "decision_needed"
    assert chat.send(decisions={"r": True}, returns=City).parsed.name == "Rome"


def test_a_type_without_a_schema_is_refused_at_once(stage: Stage) -> None:
    chat = stage.new()
    for say in (chat.send, chat.stream):
        with pytest.raises(InvalidRequestError) as caught:
            say("A city?", returns=threading.Lock)
        assert caught.value.param == "returns"
    assert stage.asked == 0
