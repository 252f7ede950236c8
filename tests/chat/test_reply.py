"""Replies: what a response says last, and what it leaves open."""

from __future__ import annotations

import pytest

from antiphon import InvalidRequestError
from antiphon.chat.reply import build_reply, final_text, is_summary, open_calls
from antiphon.core.items import (
    Compaction,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    OutputText,
    Reasoning,
    Refusal,
)
from antiphon.core.turns import End, Header, Response, TurnStatus, Usage

CALL = FunctionCall("a", "look", "{}")
OUTPUT = FunctionCallOutput("a", "seen")


def says(text: str) -> Message:
    return Message("assistant", text)


def response(*output: Item, status: TurnStatus = "completed") -> Response:
    end = End(status, 1.0, Usage(3, 4))
    header = Header("m")
    return Response(id="resp_1", created_at=0.0, header=header, input=(), output=output, end=end)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ((), ""),
        ((says("Hi."),), "Hi."),
        ((says("Look."), CALL, OUTPUT, says("Seen.")), "Seen."),
        ((says("Look."), CALL, OUTPUT), ""),
        ((says("Look."), CALL), "Look."),
        ((Reasoning(), says("A"), Reasoning(), says("B")), "AB"),
        ((Message("assistant", (OutputText("No"), Refusal("pe"))),), "Nope"),
        ((Compaction("They talked."),), "They talked."),
    ],
)
def test_the_text_is_what_was_said_last(output: tuple[Item, ...], words: str) -> None:
    assert final_text(output) == words
    assert build_reply(response(*output)).text == words


def test_calls_are_open_until_their_output_comes() -> None:
    other = FunctionCall("b", "look", "{}")
    assert open_calls((CALL, other, OUTPUT)) == (other,)
    assert open_calls((OUTPUT, CALL)) == (CALL,), "the output is of an earlier call"
    again = FunctionCall("a", "look", '{"again": true}')
    assert open_calls((CALL, OUTPUT, again)) == (again,), "ids may come again"


def test_only_a_completed_turn_waits_for_a_decision() -> None:
    assert build_reply(response(CALL)).pending == (CALL,)
    unfinished: list[TurnStatus] = ["incomplete", "cancelled", "failed"]
    for status in unfinished:
        assert build_reply(response(CALL, status=status)).pending == ()


def test_parsed_is_not_there_while_a_call_waits() -> None:
    with pytest.raises(InvalidRequestError, match="look \\('a'\\)") as caught:
        _ = build_reply(response(CALL)).parsed
    assert (caught.value.code, caught.value.param) == ("decision_needed", "decisions")
    assert build_reply(response(says("Hi."))).parsed is None
    assert build_reply(response(says("0")), value=0).parsed == 0


def test_a_reply_shows_its_response() -> None:
    reply = build_reply(response(says("Hi.")))
    assert (reply.response_id, reply.model, reply.status) == ("resp_1", "m", "completed")
    assert reply.usage == Usage(3, 4)
    running = Response(id="r", created_at=0.0, header=Header("m"), input=())
    assert build_reply(running).usage is None


def test_a_summary_is_nothing_but_summaries() -> None:
    assert is_summary(response(Compaction("They talked.")))
    assert not is_summary(response())
    assert not is_summary(response(Compaction("They talked."), says("Hi.")))
