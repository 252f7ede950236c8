"""Replies: the final text of a response, and its open calls."""

from __future__ import annotations

import pytest

from antiphon import InvalidRequestError
from antiphon.chat.reply import build_reply, final_text, is_summary
from antiphon.core.items import (
    Compaction,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    OutputText,
    Reasoning,
    Refusal,
    open_calls,
)
from antiphon.core.turns import End, Header, Response, TurnStatus, Usage

CALL = FunctionCall("a", "look", "{}")
OUTPUT = FunctionCallOutput("a", "seen")


def assistant(text: str) -> Message:
    return Message("assistant", text)


def response(*output: Item, status: TurnStatus = "completed") -> Response:
    end = End(status, 1.0, Usage(3, 4))
    header = Header("m")
    return Response(id="resp_1", created_at=0.0, header=header, input=(), output=output, end=end)


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ((), ""),
        ((assistant("Hi."),), "Hi."),
        ((assistant("Look."), CALL, OUTPUT, assistant("Seen.")), "Seen."),
        ((assistant("Look."), CALL, OUTPUT), ""),
        ((assistant("Look."), CALL), "Look."),
        ((Reasoning(), assistant("A"), Reasoning(), assistant("B")), "AB"),
        ((Message("assistant", (OutputText("No"), Refusal("pe"))),), "Nope"),
        ((Compaction("They talked."),), "They talked."),
    ],
)
def test_reply_text_is_the_final_message(output: tuple[Item, ...], text: str) -> None:
    assert final_text(output) == text
    assert build_reply(response(*output)).text == text


def test_call_is_open_until_its_output() -> None:
    other = FunctionCall("b", "look", "{}")
    assert open_calls((CALL, other, OUTPUT)) == (other,)
    assert open_calls((OUTPUT, CALL)) == (CALL,), "the output belongs to an earlier call"
    again = FunctionCall("a", "look", '{"again": true}')
    assert open_calls((CALL, OUTPUT, again)) == (again,), "ids may be reused"


def test_only_a_completed_turn_has_pending_calls() -> None:
    assert build_reply(response(CALL)).pending == (CALL,)
    unfinished: list[TurnStatus] = ["incomplete", "cancelled", "failed"]
    for status in unfinished:
        assert build_reply(response(CALL, status=status)).pending == ()


def test_parsed_is_refused_while_a_call_is_pending() -> None:
    with pytest.raises(InvalidRequestError, match="look \\('a'\\)") as caught:
        _ = build_reply(response(CALL)).parsed
    assert (caught.value.code, caught.value.param) == ("decision_needed", "decisions")
    assert build_reply(response(assistant("Hi."))).parsed is None
    assert build_reply(response(assistant("0")), value=0).parsed == 0


def test_reply_has_the_fields_of_its_response() -> None:
    reply = build_reply(response(assistant("Hi.")))
    assert (reply.response_id, reply.model, reply.status) == ("resp_1", "m", "completed")
    assert reply.usage == Usage(3, 4)
    running = Response(id="r", created_at=0.0, header=Header("m"), input=())
    assert build_reply(running).usage is None


def test_summary_response_has_only_compactions() -> None:
    assert is_summary(response(Compaction("They talked.")))
    assert not is_summary(response())
    assert not is_summary(response(Compaction("They talked."), assistant("Hi.")))
