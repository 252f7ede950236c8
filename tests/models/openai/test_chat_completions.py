import asyncio
from contextlib import aclosing

import pytest

from antiphon.core.deltas import Finish, OutputTextDelta, UsageUpdate
from antiphon.core.turns import FunctionTool, Options, Usage
from antiphon.errors import (
    ConfigError,
    InvalidRequestError,
    ModelError,
    ModelTimeoutError,
    ModelUnavailableError,
    UpstreamRateLimitError,
)
from antiphon.models.openai.chat_completions import ChatCompletionsModel
from antiphon.models.retry import RetryPolicy
from antiphon.turn.protocols import Model, ModelInfo
from support.chat_completions_upstream import (
    HELLO,
    KEY,
    ChatCompletionsUpstream,
    batches,
    collect_deltas,
    expect_failure,
    make_call,
    run_with_upstream,
    with_model,
)
from support.misbehaving_upstream import (
    CUT,
    HANG,
    MisbehavingUpstream,
    chunk,
    completion,
    events,
    hello_answer,
    refuse,
    stream,
)


def test_a_completion() -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        assert await batches(model, make_call(streamed=False)) == [
            [OutputTextDelta("Hello."), UsageUpdate(Usage(5, 2)), Finish("stop")]
        ]
        assert upstream.requests[0].json == {
            "model": "grok-4",
            "messages": [{"role": "user", "content": "Hi"}],
        }

    run_with_upstream(main)


def test_a_stream() -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        assert await collect_deltas(model) == HELLO
        assert upstream.requests[0].json == {
            "model": "grok-4",
            "messages": [{"role": "user", "content": "Hi"}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    run_with_upstream(main)


def test_what_the_request_looks_like() -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        other = upstream.model(url=f"{upstream.base_url}/?version=7", upstream_name="other")
        await collect_deltas(other)
        await other.close()
        request = upstream.requests[0]
        assert (request.method, request.path) == ("POST", "/v1/chat/completions?version=7")
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.headers["content-type"] == "application/json"
        assert request.headers["accept-encoding"] == "identity"
        assert request.json["model"] == "other"

    run_with_upstream(main)


def test_without_a_key_none_is_sent() -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        await collect_deltas(model)
        assert "authorization" not in upstream.requests[0].headers

    with_model(main, api_key=None)


def test_options_reach_the_upstream() -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        options = Options(max_output_tokens=3, tools=(FunctionTool("f"),), tool_choice="required")
        await batches(model, make_call(options=options))
        sent = upstream.requests[0].json
        assert (sent["max_tokens"], sent["tool_choice"]) == (3, "required")
        assert "store" not in sent

    run_with_upstream(main)


def test_connections_are_used_again() -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        upstream.then(completion(), hello_answer(), refuse(429), hello_answer(), refuse(400))
        await collect_deltas(model, streamed=False)
        await collect_deltas(model)
        await collect_deltas(model)
        await expect_failure(model, InvalidRequestError)
        await collect_deltas(model)
        assert len(upstream.requests) == 6
        assert upstream.connections == 1

    run_with_upstream(main)


@pytest.mark.parametrize("streamed", [True, False])
def test_cancelling_reaches_the_upstream(streamed: bool) -> None:
    """Before the answer begins."""

    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        upstream.then([HANG])
        task = asyncio.create_task(collect_deltas(model, streamed=streamed))
        request = await upstream.request(0)
        task.cancel()
        await request.disconnected.wait()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_with_upstream(main)


def test_cancelling_within_the_answer_reaches_the_upstream() -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        upstream.then(stream(*events(chunk(content="a")), end=HANG))
        got = asyncio.Event()

        async def listen() -> None:
            async for _ in model.generate(make_call()):
                got.set()

        task = asyncio.create_task(listen())
        await got.wait()
        task.cancel()
        await upstream.requests[0].disconnected.wait()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_with_upstream(main)


def test_closing_the_answer_reaches_the_upstream() -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        upstream.then(stream(*events(chunk(content="a")), end=HANG))
        async with aclosing(model.generate(make_call())) as answered:
            await anext(answered)
        await upstream.requests[0].disconnected.wait()
        assert await collect_deltas(model) == HELLO
        assert upstream.connections == 2

    run_with_upstream(main)


@pytest.mark.parametrize("streamed", [True, False])
def test_a_busy_upstream_is_retried(streamed: bool) -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        upstream.then(refuse(429, headers={"Retry-After": "3"}), refuse(500))
        assert (await collect_deltas(model, streamed=streamed))[-1] == Finish("stop")
        assert len(upstream.requests) == 3
        assert upstream.waits[0] == 3.0
        assert 0.5 <= upstream.waits[1] <= 1.0
        assert len({request.body for request in upstream.requests}) == 1

    run_with_upstream(main)


def test_retries_of_a_busy_upstream_end() -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        upstream.then(*[refuse(429, headers={"Retry-After": "3"})] * 3)
        _, error = await expect_failure(model, UpstreamRateLimitError)
        assert error.retry_after == 3.0
        assert len(upstream.requests) == 3

    run_with_upstream(main)


def test_a_long_wait_is_left_to_the_user() -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        upstream.then(refuse(429, headers={"Retry-After": "3600"}))
        _, error = await expect_failure(model, UpstreamRateLimitError)
        assert error.retry_after == 3600.0
        assert upstream.waits == []

    run_with_upstream(main)


def test_the_deadline_counts_what_was_waited() -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        upstream.then(*[refuse(503, headers={"Retry-After": "4"})] * 5)
        await expect_failure(model, ModelUnavailableError)
        assert upstream.waits == [4.0, 4.0]

    with_model(main, retry=RetryPolicy(max_retries=9, deadline=10.0))


def test_a_connection_cut_before_the_answer_is_tried_again_at_once() -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        upstream.then([CUT])
        assert await collect_deltas(model) == HELLO
        assert upstream.waits == [0.0]

    run_with_upstream(main)


def test_a_stream_cut_before_its_first_word_is_tried_again() -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        upstream.then(stream(b": wait\n\n", end=CUT))
        assert await collect_deltas(model) == HELLO

    run_with_upstream(main)


def test_a_truncated_completion_is_retried_until_retries_end() -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"
        upstream.then([head, CUT], [head, CUT], [head, CUT])
        _, error = await expect_failure(model, ModelError, streamed=False)
        assert error.code == "upstream_disconnected"
        assert len(upstream.requests) == 3

    run_with_upstream(main)


@pytest.mark.parametrize(
    "begun",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"],
)
def test_silence_is_a_timeout_and_hangs_up(begun: bytes) -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        upstream.then([begun, HANG])
        await expect_failure(model, ModelTimeoutError, streamed=False)
        await upstream.requests[0].disconnected.wait()
        assert len(upstream.requests) == 1

    with_model(main, read_timeout=0.2)


def test_a_refused_connection() -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        async with ChatCompletionsUpstream() as gone:
            port = gone.port
        nobody = upstream.model(url=f"http://127.0.0.1:{port}/v1")
        _, error = await expect_failure(nobody, ModelUnavailableError)
        assert f"127.0.0.1:{port}" in error.message
        assert len(upstream.waits) == 2
        await nobody.close()

    run_with_upstream(main)


def test_a_name_that_does_not_exist() -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        nowhere = upstream.model(url="http://no-such-host.invalid/v1")
        await expect_failure(nowhere, ModelUnavailableError)
        await nowhere.close()

    run_with_upstream(main)


def test_an_upstream_that_does_not_speak_tls() -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        async with MisbehavingUpstream(greeting=b"HTTP/1.1 400 Speak up\r\n\r\n") as plain:
            tls = upstream.model(url=f"https://127.0.0.1:{plain.port}/v1")
            _, error = await expect_failure(tls, ModelUnavailableError)
            assert "safe connection" in error.message
            assert upstream.waits == []
            await tls.close()

    run_with_upstream(main)


def test_an_overload_within_the_stream_is_retried_before_the_first_delta() -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        busy = {"error": {"message": "Overloaded", "code": 429}}
        upstream.then(stream(*events(busy)))
        assert await collect_deltas(model) == HELLO
        assert len(upstream.requests) == 2

    run_with_upstream(main)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        async with MisbehavingUpstream() as other:
            upstream.then(refuse(status, headers={"Location": f"{other.base_url}/x"}))
            _, error = await expect_failure(model, ModelError)
            assert error.code == "upstream_redirect"
            assert other.connections == 0

    run_with_upstream(main)


def test_many_calls_at_once() -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        answers = await asyncio.gather(*[collect_deltas(model) for _ in range(50)])
        assert answers == [HELLO] * 50

    run_with_upstream(main)


def test_closing_ends_what_runs_and_what_follows() -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        upstream.then(stream(*events(chunk(content="a")), end=HANG))
        answered = model.generate(make_call())
        assert await anext(answered) == [OutputTextDelta("a")]
        await model.close()
        with pytest.raises(ModelError):
            await anext(answered)
        await expect_failure(model, ModelUnavailableError)
        await model.close()

    run_with_upstream(main)


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("", KEY),
        ("api.x.ai/v1", KEY),
        (f"ftp://user:{KEY}@api.x.ai/v1", KEY),
        ("http:///v1", KEY),
        ("http://host:99999/v1", KEY),
        (f"https://user:{KEY}@api.x.ai/v1", KEY),
        ("https://api.x.ai/v1", f"{KEY}\n"),
        ("https://api.x.ai/v1", f"Bearer {KEY}"),
        ("https://api.x.ai/v1", f"{KEY}é"),
    ],
)
def test_an_unusable_setting_is_a_config_error(url: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ChatCompletionsModel(ModelInfo("m"), url, key)
    assert KEY not in str(caught.value)


def test_it_is_a_model() -> None:
    model: Model = ChatCompletionsModel(ModelInfo("m"), "https://api.x.ai/v1", KEY)
    assert model.info == ModelInfo("m")
    assert KEY not in repr(model)
