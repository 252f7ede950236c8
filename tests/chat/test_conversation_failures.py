"""What failure leaves: the conversation where it was, and no key in what is told."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from antiphon import (
    AntiphonError,
    AsyncConversation,
    ModelNotFoundError,
    UpstreamRateLimitError,
    tool,
)
from antiphon.bootstrap import close_shared_engines
from antiphon.core.items import FunctionCall
from antiphon.errors import ModelTimeoutError, ModelUnavailableError
from antiphon.settings import Secret
from support.chat_harness import (
    KEY,
    VARIANTS,
    Call,
    ChatHarness,
    ModelAnswer,
    chat_harness,
    contents,
    upstream_portal,
)
from support.misbehaving_upstream import CUT, HANG, answer, chunk, events, refuse, stream


@pytest.fixture(params=VARIANTS)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ChatHarness]:
    with chat_harness(request.param, tmp_path) as stage:
        yield stage


def test_a_failure_doubles_nothing(stage: ChatHarness) -> None:
    chat = stage.new()
    head = chat.send("Hi.").response_id
    failures: list[Any] = [
        refuse(400),
        refuse(401),
        answer(b"{nonsense"),
        answer(b"[]"),
        [CUT],
        stream(*events(chunk(content="Half")), end=CUT),
    ]
    for failure in failures:
        for streamed in (False, True):
            stage.upstream.planned_answers.clear()
            stage.upstream.plan_answers(*[failure] * 3)
            with pytest.raises(AntiphonError) as caught:
                list(chat.stream("And?")) if streamed else chat.send("And?")
            assert chat.response_id == head
            assert stage.response(caught.value.response_id).status == "failed"
    stage.upstream.planned_answers.clear()
    assert chat.send("And?").text == "Hello."
    assert contents(stage.sent_messages()) == ["Hi.", "Hello.", "And?"]
    assert len(chat.items()) == 4


@pytest.mark.parametrize("streamed", [False, True])
def test_what_may_pass_is_tried_again(stage: ChatHarness, streamed: bool) -> None:
    def say(text: str) -> str:
        chat = stage.new()
        return "".join(chat.stream(text)) if streamed else str(chat.send(text).text)

    begun = stream(*events(chunk(role="assistant", content="")), end=CUT)
    passings: list[Any] = [refuse(status) for status in (408, 429, 500, 502, 503)]
    for passing in (*passings, begun, [CUT]):
        stage.waits.clear()
        stage.upstream.plan_answers(passing, passing)
        assert say("Hi.") == "Hello."
        first, second = stage.waits
        # A connection that broke says nothing about the upstream.
        assert first == 0 if passing == [CUT] else 0.25 <= first <= 0.5
        assert 0.5 <= second <= 1
    for lasting in (refuse(400), refuse(401), refuse(403), refuse(404), refuse(501)):
        asked = stage.request_count
        stage.upstream.plan_answers(lasting)
        with pytest.raises(AntiphonError):
            say("Hi.")
        assert stage.request_count == asked + 1
    assert len(stage.recent()) == 12, "a turn is one however often it is tried"


def test_an_upstream_that_is_busy_says_for_how_long(stage: ChatHarness) -> None:
    busy = refuse(429, headers={"Retry-After": "120"})
    stage.upstream.plan_answers(busy)
    with pytest.raises(UpstreamRateLimitError) as caught:
        stage.new().send("Hi.")
    assert caught.value.retry_after == 120
    assert (stage.request_count, stage.waits) == (1, []), "nobody waits for two minutes"
    # A shorter wait is waited for.
    stage.upstream.plan_answers(refuse(429, headers={"Retry-After": "20"}), refuse(503))
    assert stage.new().send("Hi.").text == "Hello."
    assert stage.waits[0] == 20
    # It is tried again, but not for ever.
    stage.upstream.plan_answers(*[refuse(429, headers={"Retry-After": "1"})] * 3)
    with pytest.raises(UpstreamRateLimitError) as caught:
        stage.new().send("Hi.")
    assert (caught.value.retry_after, stage.request_count) == (1, 7)


@pytest.mark.parametrize("streamed", [False, True])
def test_the_deadline_is_the_whole_turns(stage: ChatHarness, streamed: bool) -> None:
    """Whatever it is that hangs: the upstream, before or amid its answer, or who is asked."""

    async def approve(call: FunctionCall) -> bool:
        await asyncio.Event().wait()
        return True

    @tool(needs_approval=True)
    def refund() -> str:
        """Give the money back."""
        return "refunded"

    half = stream(*events(chunk(content="Half")), end=HANG)
    chat = stage.new(tools=[refund], approve=approve, timeout=0.1)
    hanging_ones: list[Any] = [[HANG], half, ModelAnswer(calls=(Call("refund"),))]
    for hanging in hanging_ones:
        stage.upstream.planned_answers.clear()
        stage.upstream.plan_answers(hanging)
        with pytest.raises(ModelTimeoutError) as caught:
            list(chat.stream("Hi.")) if streamed else chat.send("Hi.")
        assert caught.value.code == "turn_timeout"
        assert chat.response_id is None
        assert stage.response(caught.value.response_id).status == "failed"


def test_no_key_is_ever_told(
    stage: ChatHarness, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    body = {"error": {"message": f"Bad key {KEY} for Bearer {KEY}", "code": KEY, "type": KEY}}
    told: list[str] = []

    def broken() -> str:
        """Bad."""
        raise ValueError("nothing to see")

    settings = stage.make_settings(api_key=Secret(KEY))
    chat = stage.new(settings=settings, tools=[broken])
    failures: list[Any] = [
        refuse(401, body),
        refuse(429, body, {"Retry-After": "99"}),
        answer(KEY.encode()),
        refuse(302, body, {"Location": f"http://127.0.0.1:1/{KEY}"}),
        stream(*events({"error": {"message": KEY}})),
        ModelAnswer(calls=(Call("broken"),)),
    ]
    for failure in failures:
        for streamed in (False, True):
            stage.upstream.planned_answers.clear()
            stage.upstream.plan_answers(*[failure] * 3)
            try:
                list(chat.stream("And?").events()) if streamed else chat.send("And?")
            except AntiphonError as error:
                told += [str(error), repr(error), repr(vars(error))]
                told += traceback.format_exception(error)
    assert stage.upstream.requests[0].headers["authorization"] == f"Bearer {KEY}"
    told += [repr(chat), repr(settings), repr(vars(chat)), str(settings), caplog.text]
    told += [str(record.__dict__) for record in caplog.records]
    told += [chat.export(), repr(chat.items()), *capfd.readouterr()]
    assert told
    assert [one for one in told if KEY in one] == []
    assert KEY.encode() not in stage.stored_bytes()


def test_a_model_that_is_not_there_is_named(stage: ChatHarness) -> None:
    with pytest.raises(ModelNotFoundError, match="nobody"):
        stage.new("nobody").send("Hi.")
    chat = stage.new()
    chat.model = "nobody"
    with pytest.raises(ModelNotFoundError):
        chat.send("Hi.")
    chat.model = None
    assert chat.send("Hi.").model == "m"
    away = stage.new(settings=stage.make_settings(base_url="http://127.0.0.1:9/v1"))
    with pytest.raises(ModelUnavailableError):
        away.send("Hi.")


def test_a_task_that_is_cancelled_while_it_waits_cancels_the_turn(tmp_path: Path) -> None:
    async def main(stage: ChatHarness) -> None:
        stage.upstream.plan_answers([HANG])
        chat = AsyncConversation(settings=stage.settings)
        sending = asyncio.ensure_future(chat.send("Hello."))
        await asyncio.to_thread(upstream_portal.run, lambda: stage.upstream.request(0))
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await asyncio.to_thread(stage.wait_for_disconnect)
        assert chat.response_id is None
        assert (await chat.send("Hello.")).text == "Hello."
        assert contents(stage.sent_messages()) == ["Hello."]
        await close_shared_engines()

    with chat_harness("async", tmp_path) as stage:
        stage.run(main(stage))
