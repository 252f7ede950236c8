"""A Responses upstream over real sockets, on good days and bad ones."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from antiphon.core.deltas import (
    Delta,
    EncryptedReasoning,
    Finish,
    ItemEnd,
    OutputTextDelta,
    ToolCallDelta,
    UsageUpdate,
)
from antiphon.core.items import FunctionCall, FunctionCallOutput, Item, Message, Reasoning
from antiphon.core.turns import FunctionTool, Options, Usage
from antiphon.errors import (
    AntiphonError,
    ContextLengthExceededError,
    InvalidRequestError,
    ModelError,
    ModelNotFoundError,
    ModelTimeoutError,
    UpstreamRateLimitError,
)
from antiphon.models.openai.responses import ResponsesModel
from antiphon.turn.message_rendering import build_messages, render_turn
from antiphon.turn.protocols import Model, ModelCall, ModelInfo
from support.chat_completions_upstream import (
    KEY,
    batches,
    collect_deltas,
    expect_failure,
    make_call,
)
from support.misbehaving_upstream import CUT, HANG, answer, events, refuse, stream
from support.model_calls import call_with_messages
from support.responses_upstream import (
    ResponsesUpstream,
    event_stream,
    function_call_item,
    json_response,
    message,
    reasoning_item,
    run_with_upstream,
    sse_frames,
    stream_events,
)

HELLO: list[Delta] = [
    OutputTextDelta("Hel"),
    OutputTextDelta("lo."),
    ItemEnd(),
    UsageUpdate(Usage(5, 2)),
    Finish("stop"),
]
#: OpenAI's words.
NO_REASONING = {
    "error": {
        "message": "Encrypted content is not supported with this model.",
        "type": "invalid_request_error",
        "param": "include",
        "code": None,
    }
}
STALE = {
    "error": {
        "message": "The encrypted content gAAA... could not be verified.",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_encrypted_content",
    }
}


def test_an_answer_in_one_piece() -> None:
    async def main(upstream: ResponsesUpstream, model: ResponsesModel) -> None:
        assert await batches(model, make_call(streamed=False)) == [
            [OutputTextDelta("Hello."), ItemEnd(), UsageUpdate(Usage(5, 2)), Finish("stop")]
        ]
        request = upstream.requests[0]
        assert (request.method, request.path) == ("POST", "/v1/responses")
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.json == {
            "model": "grok-4",
            "input": [{"type": "message", "role": "user", "content": "Hi"}],
            "store": False,
            "truncation": "disabled",
            "include": ["reasoning.encrypted_content"],
        }

    run_with_upstream(main)


def test_a_stream() -> None:
    async def main(upstream: ResponsesUpstream, model: ResponsesModel) -> None:
        assert await collect_deltas(model) == HELLO
        assert upstream.requests[0].json["stream"] is True

    run_with_upstream(main)


@pytest.mark.parametrize("size", [1, 7])
def test_a_stream_in_small_pieces(size: int) -> None:
    async def main(upstream: ResponsesUpstream, model: ResponsesModel) -> None:
        received = b"".join(
            sse_frames(*stream_events(reasoning_item("gAAA"), message("é😀"), function_call_item()))
        )
        upstream.then(stream(received, size=size))
        assert await collect_deltas(model) == [
            EncryptedReasoning("gAAA", f"127.0.0.1:{upstream.port}/grok-4"),
            OutputTextDelta("é😀"),
            ItemEnd(),
            ToolCallDelta(2, "call_1", "f"),
            ToolCallDelta(2, arguments="{}"),
            UsageUpdate(Usage(5, 2)),
            Finish("tool_calls"),
        ]

    run_with_upstream(main)


def test_what_arrives_together_is_one_batch() -> None:
    async def main(upstream: ResponsesUpstream, model: ResponsesModel) -> None:
        rest = asyncio.Event()
        received = sse_frames(*stream_events(message("Hello.")))
        upstream.then(stream(b"".join(received[:5]), rest, b"".join(received[5:])))
        async with aclosing(model.generate(make_call())) as answered:
            assert await anext(answered) == [OutputTextDelta("Hel"), OutputTextDelta("lo.")]
            rest.set()
            assert await anext(answered) == HELLO[2:]

    run_with_upstream(main)


def test_connections_are_used_again() -> None:
    async def main(upstream: ResponsesUpstream, model: ResponsesModel) -> None:
        upstream.then(json_response(message()), event_stream(message()), refuse(429))
        await collect_deltas(model, streamed=False)
        await collect_deltas(model)
        await collect_deltas(model)
        assert len(upstream.requests) == 4
        assert upstream.connections == 1

    run_with_upstream(main)


def test_an_answer_in_the_form_that_was_not_requested() -> None:
    async def main(upstream: ResponsesUpstream, model: ResponsesModel) -> None:
        upstream.then(json_response(message("Hi.")), event_stream(message("Hi.")))
        output = [OutputTextDelta("Hi."), ItemEnd(), UsageUpdate(Usage(5, 2)), Finish("stop")]
        assert await collect_deltas(model) == output
        assert await collect_deltas(model, streamed=False) == output

    run_with_upstream(main)


def test_a_name_of_its_own_there() -> None:
    async def main(upstream: ResponsesUpstream, model: ResponsesModel) -> None:
        upstream.then(json_response(reasoning_item("gAAA"), message()))
        deltas = await collect_deltas(model, streamed=False)
        assert upstream.requests[0].json["model"] == "other"
        assert deltas[0] == EncryptedReasoning("gAAA", f"127.0.0.1:{upstream.port}/other")

    run_with_upstream(main, upstream_name="other")


@pytest.mark.parametrize("told_within", [True, False])
def test_a_busy_upstream_is_retried(told_within: bool) -> None:
    async def main(upstream: ResponsesUpstream, model: ResponsesModel) -> None:
        error = {"code": "rate_limit_exceeded", "message": "Slow."}
        upstream.then(
            event_stream(status="failed", error=error)
            if told_within
            else refuse(429, headers={"Retry-After": "3"}),
            stream(*sse_frames({"type": "error", "code": "server_error", "message": "Oops."})),
        )
        assert await collect_deltas(model) == HELLO
        assert len(upstream.waits) == 2
        assert told_within or upstream.waits[0] == 3.0

    run_with_upstream(main)


def test_retries_of_a_busy_upstream_end() -> None:
    async def main(upstream: ResponsesUpstream, model: ResponsesModel) -> None:
        upstream.then(*[refuse(429, headers={"Retry-After": "3"})] * 3)
        _, error = await expect_failure(model, UpstreamRateLimitError)
        assert error.retry_after == 3.0
        assert len(upstream.requests) == 3

    run_with_upstream(main)


def test_a_connection_cut_before_the_answer_is_tried_again() -> None:
    async def main(upstream: ResponsesUpstream, model: ResponsesModel) -> None:
        created = sse_frames(*stream_events())[0]
        upstream.then([CUT], stream(created, end=CUT), event_stream(message()))
        assert await collect_deltas(model) == HELLO

    run_with_upstream(main)


@pytest.mark.parametrize("end", [CUT, None])
def test_a_stream_cut_after_its_first_word_is_an_error(end: Any) -> None:
    async def main(upstream: ResponsesUpstream, model: ResponsesModel) -> None:
        heard_it = asyncio.Event()
        first = b"".join(sse_frames(*stream_events(message("Hello.")))[:4])
        upstream.then(stream(first, heard_it, end=end))
        answered = model.generate(make_call())
        assert await anext(answered) == [OutputTextDelta("Hel")]
        heard_it.set()
        with pytest.raises(ModelError) as caught:
            await anext(answered)
        assert caught.value.code == "upstream_disconnected"
        assert len(upstream.requests) == 1

    run_with_upstream(main)


def test_an_error_after_the_first_delta_is_raised() -> None:
    async def main(upstream: ResponsesUpstream, model: ResponsesModel) -> None:
        error = {"code": "server_error", "message": f"Oops, {KEY}."}
        upstream.then(event_stream(message("Hi."), status="failed", error=error))
        deltas, received = await expect_failure(model, ModelError)
        assert deltas == [OutputTextDelta("Hi."), ItemEnd()]
        assert "Oops, [key]" in received.message
        assert len(upstream.requests) == 1

    run_with_upstream(main)


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (refuse(401), ModelError),
        (refuse(404, {"error": {"message": "model 'x' not found"}}), ModelNotFoundError),
        (refuse(400, {"error": {"message": "Bad.", "param": "input"}}), InvalidRequestError),
        (
            refuse(400, {"error": {"message": "x", "code": "context_length_exceeded"}}),
            ContextLengthExceededError,
        ),
        (
            event_stream(
                status="failed", error={"code": "context_length_exceeded", "message": "Too long."}
            ),
            ContextLengthExceededError,
        ),
        (event_stream(status="failed", error={"code": "invalid_prompt", "message": "No."}),
         InvalidRequestError),
        (json_response(status="failed", error={"code": "invalid_prompt", "message": "No."}),
         InvalidRequestError),
        (json_response(status="queued"), ModelError),
        (answer(b"{"), ModelError),
        (answer(b"<html>", headers={"Content-Type": "text/html"}), ModelError),
        (answer(b'{"object":"chat.completion","choices":[]}'), ModelError),
        (stream(b'data: {"type":"response.output_item.done","item":3}\n\n'), ModelError),
    ],
)  # fmt: skip
@pytest.mark.parametrize("streaming", [True, False])
def test_bad_answers(behaviour: Any, kind: type[AntiphonError], streaming: bool) -> None:
    async def main(upstream: ResponsesUpstream, model: ResponsesModel) -> None:
        upstream.then(*[behaviour] * 3)
        deltas, _ = await expect_failure(model, kind, streamed=streaming)
        assert deltas == []

    run_with_upstream(main)


def test_bad_events_keep_what_came_before() -> None:
    async def main(upstream: ResponsesUpstream, model: ResponsesModel) -> None:
        received = sse_frames(*stream_events(message("Hello.")))
        bad = events(b'{"type":"response.output_text.delta","delta":"lo"')
        upstream.then(stream(*received[:4], *bad, *received[4:]))
        deltas, error = await expect_failure(model, ModelError)
        assert error.code == "upstream_invalid_response"
        assert deltas == [OutputTextDelta("Hel")]

    run_with_upstream(main)


def test_silence_and_leaving() -> None:
    async def main(upstream: ResponsesUpstream, model: ResponsesModel) -> None:
        first = b"".join(sse_frames(*stream_events(message("Hello.")))[:4])
        upstream.then(stream(first, end=HANG), stream(first, end=HANG))
        deltas, _ = await expect_failure(model, ModelTimeoutError)
        assert deltas == [OutputTextDelta("Hel")]
        async with aclosing(model.generate(make_call())) as answered:
            await anext(answered)
        for request in upstream.requests:
            await request.disconnected.wait()

    run_with_upstream(main, read_timeout=0.2)


def test_a_model_without_reasoning_rejects_it_once() -> None:
    async def main(upstream: ResponsesUpstream, model: ResponsesModel) -> None:
        upstream.then(refuse(400, NO_REASONING))
        assert await collect_deltas(model) == HELLO
        assert await collect_deltas(model) == HELLO
        requested = ["include" in request.json for request in upstream.requests]
        assert requested == [True, False, False]
        assert upstream.waits == [], "there is nothing to wait for"

    run_with_upstream(main)


def test_two_at_once_find_out_together_that_there_is_no_reasoning() -> None:
    async def main(upstream: ResponsesUpstream, model: ResponsesModel) -> None:
        both = asyncio.Event()
        upstream.then([both, *refuse(400, NO_REASONING)], [both, *refuse(400, NO_REASONING)])
        answers = asyncio.gather(collect_deltas(model), collect_deltas(model))
        await upstream.request(1)
        both.set()
        assert list(await answers) == [HELLO, HELLO]
        assert len(upstream.requests) == 4

    run_with_upstream(main)


def test_an_upstream_that_rejects_every_repair() -> None:
    async def main(upstream: ResponsesUpstream, model: ResponsesModel) -> None:
        upstream.then(*[refuse(422, {"detail": [{"loc": ["body", "include"]}]})] * 3)
        await expect_failure(model, InvalidRequestError)
        assert len(upstream.requests) == 2

    run_with_upstream(main)


def reasoned(upstream: ResponsesUpstream) -> ModelCall:
    """A call in the middle of a tool loop."""
    origin = f"127.0.0.1:{upstream.port}/grok-4"
    output: list[Item] = [
        Message("user", "Weather?"),
        Reasoning(encrypted_content="gAAA", origin=origin),
        FunctionCall("c", "f", "{}"),
        FunctionCallOutput("c", "sunny"),
    ]
    options = Options(tools=(FunctionTool("f"),))
    return call_with_messages("grok-4", build_messages([render_turn(output)]), options, True)


def test_reasoning_that_cannot_be_read_any_more_is_left_out() -> None:
    async def main(upstream: ResponsesUpstream, model: ResponsesModel) -> None:
        upstream.then(refuse(400, STALE))
        assert [one for batch in await batches(model, reasoned(upstream)) for one in batch] == HELLO
        kinds = [[item["type"] for item in request.json["input"]] for request in upstream.requests]
        assert kinds == [
            ["message", "reasoning", "function_call", "function_call_output"],
            ["message", "function_call", "function_call_output"],
        ]
        assert all("include" in request.json for request in upstream.requests)

    run_with_upstream(main)


def test_repairs_are_limited() -> None:
    async def main(upstream: ResponsesUpstream, model: ResponsesModel) -> None:
        upstream.then(*[refuse(400, one) for one in (STALE, NO_REASONING) * 4])
        with pytest.raises(InvalidRequestError):
            await batches(model, reasoned(upstream))
        assert len(upstream.requests) == 3

    run_with_upstream(main)


def test_what_the_dialect_cannot_say_is_not_sent() -> None:
    async def main(upstream: ResponsesUpstream, model: ResponsesModel) -> None:
        with pytest.raises(InvalidRequestError):
            await batches(model, make_call(options=Options(stop=("x",))))
        assert upstream.requests == []

    run_with_upstream(main)


def test_many_calls_at_once() -> None:
    async def main(upstream: ResponsesUpstream, model: ResponsesModel) -> None:
        assert await asyncio.gather(*[collect_deltas(model) for _ in range(30)]) == [HELLO] * 30

    run_with_upstream(main)


def test_it_is_a_model() -> None:
    model: Model = ResponsesModel(ModelInfo("m"), "https://api.x.ai/v1", KEY)
    assert model.info == ModelInfo("m", runs_hosted_tools=True)
    assert KEY not in repr(model)
