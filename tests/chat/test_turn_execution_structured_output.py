"""Structured output in a turn: parsed answers, and one repair round."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import Any, Literal, NotRequired

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

from antiphon import (
    InvalidOutputError,
    InvalidRequestError,
    ModelError,
)
from antiphon.chat.structured_output import OutputSchema
from antiphon.core.items import Message
from support.chat_harness import (
    Call,
    ChatHarness,
    ModelAnswer,
    contents,
    roles,
)
from support.chat_tools import refund_call, refunds, weather


class City(BaseModel):
    name: str
    people: int


ROME = '{"name": "Rome", "people": 3}'


def test_reply_is_parsed_to_the_requested_type(harness: ChatHarness) -> None:
    chat = harness.new()
    harness.upstream.plan_answers(ModelAnswer(ROME))
    reply = chat.send("A city?", returns=City)
    assert reply.parsed == City(name="Rome", people=3)
    assert reply.text == ROME
    response_format = harness.request_body()["response_format"]
    assert response_format["type"] == "json_schema"
    assert response_format["json_schema"]["name"] == "City"
    assert response_format["json_schema"]["strict"] is True
    assert set(response_format["json_schema"]["schema"]["properties"]) == {"name", "people"}
    # The next turn has no response format.
    plain_reply = chat.send("And?")
    assert plain_reply.parsed is None
    assert "response_format" not in harness.request_body()


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
def test_all_kinds_of_types_are_parsed(
    harness: ChatHarness, returns: Any, text: str, value: Any
) -> None:
    harness.upstream.plan_answers(ModelAnswer(text), ModelAnswer(text))
    chat = harness.new()
    assert chat.send("Which?", returns=returns).parsed == value
    stream_reply = chat.stream("Which?", returns=returns)
    partials = list(stream_reply.objects())
    assert stream_reply.reply.parsed == value
    assert stream_reply.reply.text == text
    plain = json.loads(text)
    assert partials[-1:] == ([] if value is None else [plain.get("value", plain)])
    assert harness.request_body(0)["response_format"] == harness.request_body(1)["response_format"]


def test_regenerate_and_edit_accept_a_return_type(harness: ChatHarness) -> None:
    chat = harness.new()
    first = chat.send("A city?")
    harness.upstream.plan_answers(ModelAnswer(ROME), ModelAnswer('{"value": [1, 2]}'))
    assert chat.regenerate(returns=City).parsed == City(name="Rome", people=3)
    assert "response_format" in harness.request_body()
    assert chat.edit(first.response_id, "Two numbers.", returns=list[int]).parsed == [1, 2]
    assert contents(harness.sent_messages()) == ["Two numbers."]


def test_invalid_answer_is_repaired_once(harness: ChatHarness) -> None:
    chat = harness.new(instructions="Be exact.")
    harness.upstream.plan_answers(ModelAnswer('{"name": "Rome"}'), ModelAnswer(ROME))
    reply = chat.send("A city?", returns=City)
    assert reply.parsed == City(name="Rome", people=3)
    assert chat.response_id == reply.response_id
    assert roles(harness.sent_messages()) == "suau"
    assert harness.sent_messages()[2]["content"] == '{"name": "Rome"}'
    assert "people is missing" in harness.sent_messages()[3]["content"]
    assert "response_format" in harness.request_body()


def test_repair_of_a_regenerated_answer_follows_that_answer(
    harness: ChatHarness,
) -> None:
    chat = harness.new()
    chat.send("Hi.")
    harness.upstream.plan_answers(ModelAnswer("Rome!"), ModelAnswer(ROME))
    assert chat.regenerate(returns=City).parsed == City(name="Rome", people=3)
    assert contents(harness.sent_messages())[:2] == ["Hi.", "Rome!"]


def test_answer_invalid_after_the_repair_is_an_error(harness: ChatHarness) -> None:
    chat = harness.new()
    head = chat.send("Hi.").response_id
    harness.upstream.plan_answers(ModelAnswer("Rome!"), ModelAnswer("No, Rome!"))
    with pytest.raises(InvalidOutputError) as caught:
        chat.send("A city?", returns=City)
    error = caught.value
    assert (error.text, error.code, error.status) == ("No, Rome!", "output_invalid", 502)
    assert isinstance(error, ModelError)
    assert harness.response(error.response_id).output == (Message("assistant", "No, Rome!"),)
    assert chat.response_id == head
    harness.upstream.plan_answers(ModelAnswer(ROME))
    assert chat.send("A city?", returns=City).parsed.people == 3
    assert contents(harness.sent_messages()) == ["Hi.", "Hello.", "A city?"]


def test_truncated_answer_is_not_repaired(harness: ChatHarness) -> None:
    chat = harness.new()
    harness.upstream.plan_answers(ModelAnswer('{"name": "Ro', finish="length"))
    with pytest.raises(InvalidOutputError, match="cut off") as caught:
        chat.send("A city?", returns=City)
    assert (caught.value.text, chat.response_id, harness.request_count) == ('{"name": "Ro', None, 1)
    assert harness.response(caught.value.response_id).status == "incomplete"


def test_refusal_is_not_repaired(harness: ChatHarness) -> None:
    chat = harness.new()
    harness.upstream.plan_answers(ModelAnswer(refusal="I will not."))
    with pytest.raises(InvalidOutputError) as caught:
        chat.send("A city?", returns=City)
    assert (caught.value.text, chat.response_id, harness.request_count) == ("I will not.", None, 1)


def test_return_type_and_tools_in_one_turn(harness: ChatHarness) -> None:
    refund, _ = refunds()
    chat = harness.new(tools=[weather, refund])
    harness.upstream.plan_answers(
        ModelAnswer("Let me look.", (Call("weather", {"city": "Rome"}, "w"),)),
        ModelAnswer("?"),
        ModelAnswer(ROME),
    )
    reply = chat.send("A city?", returns=City)
    assert reply.parsed == City(name="Rome", people=3)
    assert roles(harness.sent_messages()) == "uatau", (
        "the tools are not run again to repair the answer"
    )
    harness.upstream.plan_answers(ModelAnswer(calls=(refund_call("1", "r"),)), ModelAnswer(ROME))
    pending_reply = chat.send("Refund, then a city.", returns=City)
    with pytest.raises(InvalidRequestError, match="refund") as caught:
        _ = pending_reply.parsed
    assert caught.value.code == "decision_needed"
    assert chat.send(decisions={"r": True}, returns=City).parsed.name == "Rome"


def test_type_without_a_schema_is_refused(harness: ChatHarness) -> None:
    chat = harness.new()
    for say in (chat.send, chat.stream):
        with pytest.raises(InvalidRequestError) as caught:
            say("A city?", returns=threading.Lock)
        assert caught.value.param == "returns"
    assert harness.request_count == 0


@pytest.mark.parametrize(
    "returns", [City(name="Rome", people=3), {"type": "object"}, [City], 5], ids=repr
)
def test_value_in_place_of_a_type_is_refused_with_what_to_give(returns: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"takes a type, such as.*list\[int\]") as caught:
        OutputSchema(returns)
    assert "model_config" not in caught.value.message, "advice on Pydantic's settings"
