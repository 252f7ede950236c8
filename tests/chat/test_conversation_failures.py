"""Failures in a conversation: it stays where it was, and no API key is exposed."""

from __future__ import annotations

import asyncio
import logging
import traceback
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
    Call,
    ChatHarness,
    ModelAnswer,
    chat_harness,
    contents,
    upstream_portal,
)
from support.misbehaving_upstream import CUT, HANG, answer, chunk, events, refuse, stream
from support.side_stores import writing_to


def test_failed_turn_is_not_in_later_requests(harness: ChatHarness) -> None:
    chat = harness.new()
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
            harness.upstream.planned_answers.clear()
            harness.upstream.plan_answers(*[failure] * 3)
            with pytest.raises(AntiphonError) as caught:
                list(chat.stream("And?")) if streamed else chat.send("And?")
            assert chat.response_id == head
            assert harness.response(caught.value.response_id).status == "failed"
    harness.upstream.planned_answers.clear()
    assert chat.send("And?").text == "Hello."
    assert contents(harness.sent_messages()) == ["Hi.", "Hello.", "And?"]
    assert len(chat.items()) == 4


@pytest.mark.parametrize("streamed", [False, True])
def test_only_transient_failures_are_retried(harness: ChatHarness, streamed: bool) -> None:
    def say(text: str) -> str:
        chat = harness.new()
        return "".join(chat.stream(text)) if streamed else str(chat.send(text).text)

    begun = stream(*events(chunk(role="assistant", content="")), end=CUT)
    transient_failures: list[Any] = [refuse(status) for status in (408, 429, 500, 502, 503)]
    for failure in (*transient_failures, begun, [CUT]):
        harness.waits.clear()
        harness.upstream.plan_answers(failure, failure)
        assert say("Hi.") == "Hello."
        first, second = harness.waits
        # After a broken connection the first retry is immediate.
        assert first == 0 if failure == [CUT] else 0.25 <= first <= 0.5
        assert 0.5 <= second <= 1
    for failure in (refuse(400), refuse(401), refuse(403), refuse(404), refuse(501)):
        request_count = harness.request_count
        harness.upstream.plan_answers(failure)
        with pytest.raises(AntiphonError):
            say("Hi.")
        assert harness.request_count == request_count + 1
    assert len(harness.response_ids()) == 12, "retries belong to one turn"


def test_retry_after_is_honored_up_to_a_limit(harness: ChatHarness) -> None:
    busy = refuse(429, headers={"Retry-After": "120"})
    harness.upstream.plan_answers(busy)
    with pytest.raises(UpstreamRateLimitError) as caught:
        harness.new().send("Hi.")
    assert caught.value.retry_after == 120
    assert (harness.request_count, harness.waits) == (1, []), "a wait of two minutes is not made"
    # A shorter wait is made.
    harness.upstream.plan_answers(refuse(429, headers={"Retry-After": "20"}), refuse(503))
    assert harness.new().send("Hi.").text == "Hello."
    assert harness.waits[0] == 20
    # The number of retries is limited.
    harness.upstream.plan_answers(*[refuse(429, headers={"Retry-After": "1"})] * 3)
    with pytest.raises(UpstreamRateLimitError) as caught:
        harness.new().send("Hi.")
    assert (caught.value.retry_after, harness.request_count) == (1, 7)


@pytest.mark.parametrize("streamed", [False, True])
def test_timeout_applies_to_the_whole_turn(harness: ChatHarness, streamed: bool) -> None:
    """Whatever hangs: the upstream, before or during its answer, or the approval callback."""

    async def approve(call: FunctionCall) -> bool:
        await asyncio.Event().wait()
        return True

    @tool(needs_approval=True)
    def refund() -> str:
        """Give the money back."""
        return "refunded"

    half = stream(*events(chunk(content="Half")), end=HANG)
    chat = harness.new(tools=[refund], approve=approve, timeout=0.1)
    hanging_answers: list[Any] = [[HANG], half, ModelAnswer(calls=(Call("refund"),))]
    for hanging in hanging_answers:
        harness.upstream.planned_answers.clear()
        harness.upstream.plan_answers(hanging)
        with pytest.raises(ModelTimeoutError) as caught:
            list(chat.stream("Hi.")) if streamed else chat.send("Hi.")
        assert caught.value.code == "turn_timeout"
        assert chat.response_id is None
        assert harness.response(caught.value.response_id).status == "failed"


def test_api_key_is_in_no_error_log_or_file(
    harness: ChatHarness, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    body = {"error": {"message": f"Bad key {KEY} for Bearer {KEY}", "code": KEY, "type": KEY}}
    exposed_texts: list[str] = []

    def broken() -> str:
        """Bad."""
        raise ValueError("nothing to see")

    settings = harness.make_settings(api_key=Secret(KEY))
    chat = harness.new(settings=settings, tools=[broken])
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
            harness.upstream.planned_answers.clear()
            harness.upstream.plan_answers(*[failure] * 3)
            try:
                list(chat.stream("And?").events()) if streamed else chat.send("And?")
            except AntiphonError as error:
                exposed_texts += [str(error), repr(error), repr(vars(error))]
                exposed_texts += traceback.format_exception(error)
    assert harness.upstream.requests[0].headers["authorization"] == f"Bearer {KEY}"
    exposed_texts += [
        repr(chat),
        repr(settings),
        repr(getattr(chat, "__dict__", {})),
        str(settings),
        caplog.text,
    ]
    exposed_texts += [str(record.__dict__) for record in caplog.records]
    exposed_texts += [chat.export(), repr(chat.items()), *capfd.readouterr()]
    assert exposed_texts
    assert [one for one in exposed_texts if KEY in one] == []
    assert KEY.encode() not in harness.stored_bytes()


def test_unknown_and_unreachable_models_are_errors(harness: ChatHarness) -> None:
    with pytest.raises(ModelNotFoundError, match="nobody"):
        harness.new("nobody").send("Hi.")
    chat = harness.new()
    chat.model = "nobody"
    with pytest.raises(ModelNotFoundError):
        chat.send("Hi.")
    chat.model = None
    assert chat.send("Hi.").model == "m"
    unreachable = harness.new(settings=harness.make_settings(base_url="http://127.0.0.1:9/v1"))
    with pytest.raises(ModelUnavailableError):
        unreachable.send("Hi.")


def test_cancelling_before_the_turn_is_written_cancels_it(tmp_path: Path) -> None:
    async def main(harness: ChatHarness) -> None:
        chat = AsyncConversation(settings=harness.settings)
        first = await chat.send("Hello.")
        harness.upstream.plan_answers([HANG])
        with writing_to(harness.file):
            sending = asyncio.ensure_future(chat.send("Go on."))
            await asyncio.to_thread(upstream_portal.run, lambda: harness.upstream.request(1))
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
        await asyncio.to_thread(harness.wait_for_disconnect)
        assert chat.response_id == first.response_id
        await close_shared_engines()

    with chat_harness("async", tmp_path) as harness:
        harness.run(main(harness))


def test_cancelling_the_sending_task_cancels_the_turn(tmp_path: Path) -> None:
    async def main(harness: ChatHarness) -> None:
        harness.upstream.plan_answers([HANG])
        chat = AsyncConversation(settings=harness.settings)
        sending = asyncio.ensure_future(chat.send("Hello."))
        await asyncio.to_thread(upstream_portal.run, lambda: harness.upstream.request(0))
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await asyncio.to_thread(harness.wait_for_disconnect)
        assert chat.response_id is None
        assert (await chat.send("Hello.")).text == "Hello."
        assert contents(harness.sent_messages()) == ["Hello."]
        await close_shared_engines()

    with chat_harness("async", tmp_path) as harness:
        harness.run(main(harness))
