import asyncio
import json
import zlib
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any

import pytest

from antiphon.core.deltas import CallPiece, Delta, Finish, Refused, Text, Thought, Used
from antiphon.core.turns import FunctionTool, Options, Usage
from antiphon.errors import (
    AntiphonError,
    ConfigError,
    ContextLengthExceeded,
    InvalidRequest,
    ModelError,
    ModelNotFound,
    ModelTimeout,
    ModelUnavailable,
    RateLimited,
)
from antiphon.models.chat_completions import ChatCompletionsModel
from antiphon.models.retry import RetryPolicy
from antiphon.turn.ports import Model, ModelCall, ModelInfo
from upstream import (
    CUT,
    DONE,
    HANG,
    MisbehavingUpstream,
    answer,
    chunk,
    completion,
    events,
    hello,
    refuse,
    stream,
    usage,
)

KEY = "xai-0123456789abcdefghij"
HELLO = [Text("Hel"), Text("lo."), Used(Usage(5, 2)), Finish("stop")]
BROKEN = b'data: {"choices": [}\n\n'


class Upstream(MisbehavingUpstream):
    """The upstream, models that talk to it, and a clock that only their waiting moves."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.waits: list[float] = []

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def model(self, **options: Any) -> ChatCompletionsModel:
        options = {"api_key": KEY, "clock": lambda: self.now, "sleep": self._sleep, **options}
        return ChatCompletionsModel(ModelInfo("m"), options.pop("url", self.base_url), **options)


def run(work: Callable[[Upstream, ChatCompletionsModel], Coroutine[Any, Any, None]]) -> None:
    """Run ``work`` with an upstream and a model; nothing may be left open after it."""
    with_model(work)


def with_model(
    work: Callable[[Upstream, ChatCompletionsModel], Coroutine[Any, Any, None]], **options: Any
) -> None:
    async def main() -> None:
        async with Upstream() as upstream:
            model = upstream.model(**options)
            try:
                await work(upstream, model)
            finally:
                await model.close()

    asyncio.run(asyncio.wait_for(main(), 20))


def question(*, streamed: bool = True, options: Options | None = None) -> ModelCall:
    messages = b'[{"role":"user","content":"Hi"}]'
    return ModelCall("grok-4", messages, options or Options(), streamed)


async def batches(model: Model, call: ModelCall) -> list[list[Delta]]:
    return [list(batch) async for batch in model.generate(call)]


async def heard(model: Model, *, streamed: bool = True) -> list[Delta]:
    return [delta for batch in await batches(model, question(streamed=streamed)) for delta in batch]


async def failed(
    model: Model, kind: type[AntiphonError], *, streamed: bool = True
) -> tuple[list[Delta], Any]:
    """What was heard before the call failed, and the error."""
    deltas: list[Delta] = []

    async def listen() -> None:
        async for batch in model.generate(question(streamed=streamed)):
            deltas.extend(batch)

    with pytest.raises(kind) as caught:
        await listen()
    assert type(caught.value) is kind
    assert KEY not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"
    return deltas, caught.value


def test_a_completion() -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        assert await batches(model, question(streamed=False)) == [
            [Text("Hello."), Used(Usage(5, 2)), Finish("stop")]
        ]
        assert upstream.requests[0].json == {
            "model": "grok-4",
            "messages": [{"role": "user", "content": "Hi"}],
        }

    run(main)


def test_a_stream() -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        assert await heard(model) == HELLO
        assert upstream.requests[0].json == {
            "model": "grok-4",
            "messages": [{"role": "user", "content": "Hi"}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    run(main)


def test_what_the_request_looks_like() -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        other = upstream.model(url=f"{upstream.base_url}/?version=7", upstream_name="other")
        await heard(other)
        await other.close()
        request = upstream.requests[0]
        assert (request.method, request.path) == ("POST", "/v1/chat/completions?version=7")
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.headers["content-type"] == "application/json"
        assert request.headers["accept-encoding"] == "identity"
        assert request.json["model"] == "other"

    run(main)


def test_without_a_key_none_is_sent() -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        await heard(model)
        assert "authorization" not in upstream.requests[0].headers

    with_model(main, api_key=None)


def test_options_reach_the_upstream() -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        options = Options(max_output_tokens=3, tools=(FunctionTool("f"),), tool_choice="required")
        await batches(model, question(options=options))
        sent = upstream.requests[0].json
        assert (sent["max_tokens"], sent["tool_choice"]) == (3, "required")
        assert "store" not in sent

    run(main)


def test_what_arrives_together_is_one_batch() -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        first, second = asyncio.Event(), asyncio.Event()
        upstream.then(
            stream(
                b"".join(events(chunk(content="a"), chunk(content="b"))),
                first,
                b"".join(events(chunk(reasoning="c"), chunk(refusal="d"))),
                second,
                b"".join(events(chunk("stop"), usage(), DONE)),
            )
        )
        async with aclosing(model.generate(question())) as answer:
            assert await anext(answer) == [Text("a"), Text("b")]
            first.set()
            assert await anext(answer) == [Thought("c"), Refused("d")]
            second.set()
            assert await anext(answer) == [Used(Usage(5, 2)), Finish("stop")]

    run(main)


def test_connections_are_used_again() -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        upstream.then(completion(), hello(), refuse(429), hello(), refuse(400))
        await heard(model, streamed=False)
        await heard(model)
        await heard(model)
        await failed(model, InvalidRequest)
        await heard(model)
        assert len(upstream.requests) == 6
        assert upstream.connections == 1

    run(main)


def test_a_finished_stream_is_not_waited_for() -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        rest = asyncio.Event()
        data = events(chunk("stop", content="a"), DONE)
        upstream.then(stream(*data, rest), hello(), hello())
        assert await heard(model) == [Text("a"), Finish("stop")]
        assert await heard(model) == HELLO
        rest.set()
        # The rest has come before the answer to a request that was sent after it.
        await heard(model)
        await asyncio.gather(heard(model), heard(model))
        assert [request.connection for request in upstream.requests] == [1, 2, 2, 1, 2]

    run(main)


@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_a_stream_in_small_pieces(size: int, newline: bytes) -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        data = events(chunk(content="é😀"), chunk("stop"), usage(), DONE, newline=newline)
        raw = json.dumps({"choices": [{"delta": {"content": "日本"}}]}, ensure_ascii=False).encode()
        first = b"".join(events(raw, newline=newline))
        upstream.then(stream(b": ping" + newline, first, *data, size=size))
        assert await heard(model) == [
            Text("日本"),
            Text("é😀"),
            Used(Usage(5, 2)),
            Finish("stop"),
        ]

    run(main)


def test_a_completion_in_small_pieces() -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        body = json.dumps({"choices": [{"message": {"content": "é"}}]}).encode()
        upstream.then(answer(body, size=1))
        assert await heard(model, streamed=False) == [Text("é"), Finish("stop")]

    run(main)


@pytest.mark.parametrize("cut", [True, False])
def test_a_stream_may_end_without_its_mark(cut: bool) -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        opened = asyncio.Event()
        data = events(chunk(content="a"), chunk("stop"))
        upstream.then(stream(*data, opened, end=CUT if cut else None))
        async with aclosing(model.generate(question())) as answered:
            assert await anext(answered) == [Text("a")]
            opened.set()
            assert [list(batch) async for batch in answered] == [[Finish("stop")]]

    run(main)


def test_tool_calls_in_fragments() -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        opening = {"index": 0, "id": "x", "function": {"name": "f", "arguments": ""}}
        more = {"index": 0, "function": {"arguments": "{}"}}
        data = events(chunk(tool_calls=[opening]), chunk(tool_calls=[more]), chunk("tool_calls"))
        upstream.then(stream(*data, *events(DONE)))
        assert await heard(model) == [
            CallPiece(0, "x", "f"),
            CallPiece(0, None, None, "{}"),
            Finish("tool_calls"),
        ]

    run(main)


def test_an_answer_in_the_form_that_was_not_asked_for() -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        upstream.then(completion(), hello())
        assert await heard(model) == [Text("Hello."), Used(Usage(5, 2)), Finish("stop")]
        assert await heard(model, streamed=False) == HELLO

    run(main)


def test_a_compressed_answer_is_read_all_the_same() -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        body = zlib.compress(b'{"choices":[{"message":{"content":"a"}}]}')
        upstream.then(answer(body, headers={"Content-Encoding": "deflate"}))
        assert await heard(model, streamed=False) == [Text("a"), Finish("stop")]

    run(main)


@pytest.mark.parametrize("streamed", [True, False])
def test_cancelling_reaches_the_upstream(streamed: bool) -> None:
    """Before the answer begins."""

    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        upstream.then([HANG])
        task = asyncio.create_task(heard(model, streamed=streamed))
        request = await upstream.request(0)
        task.cancel()
        await request.gone.wait()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)


def test_cancelling_within_the_answer_reaches_the_upstream() -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        upstream.then(stream(*events(chunk(content="a")), end=HANG))
        got = asyncio.Event()

        async def listen() -> None:
            async for _ in model.generate(question()):
                got.set()

        task = asyncio.create_task(listen())
        await got.wait()
        task.cancel()
        await upstream.requests[0].gone.wait()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)


def test_closing_the_answer_reaches_the_upstream() -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        upstream.then(stream(*events(chunk(content="a")), end=HANG))
        async with aclosing(model.generate(question())) as answered:
            await anext(answered)
        await upstream.requests[0].gone.wait()
        assert await heard(model) == HELLO
        assert upstream.connections == 2

    run(main)


@pytest.mark.parametrize("streamed", [True, False])
def test_an_upstream_that_is_busy_is_asked_again(streamed: bool) -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        upstream.then(refuse(429, headers={"Retry-After": "3"}), refuse(500))
        assert (await heard(model, streamed=streamed))[-1] == Finish("stop")
        assert len(upstream.requests) == 3
        assert upstream.waits[0] == 3.0
        assert 0.5 <= upstream.waits[1] <= 1.0
        assert len({request.body for request in upstream.requests}) == 1

    run(main)


def test_an_upstream_that_stays_busy_is_given_up() -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        upstream.then(*[refuse(429, headers={"Retry-After": "3"})] * 3)
        _, error = await failed(model, RateLimited)
        assert error.retry_after == 3.0
        assert len(upstream.requests) == 3

    run(main)


def test_a_long_wait_is_left_to_the_user() -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        upstream.then(refuse(429, headers={"Retry-After": "3600"}))
        _, error = await failed(model, RateLimited)
        assert error.retry_after == 3600.0
        assert upstream.waits == []

    run(main)


def test_the_deadline_counts_what_was_waited() -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        upstream.then(*[refuse(503, headers={"Retry-After": "4"})] * 5)
        await failed(model, ModelUnavailable)
        assert upstream.waits == [4.0, 4.0]

    with_model(main, retry=RetryPolicy(retries=9, deadline=10.0))


def test_a_connection_cut_before_the_answer_is_tried_again_at_once() -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        upstream.then([CUT])
        assert await heard(model) == HELLO
        assert upstream.waits == [0.0]

    run(main)


def test_a_stream_cut_before_its_first_word_is_tried_again() -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        upstream.then(stream(b": wait\n\n", end=CUT))
        assert await heard(model) == HELLO

    run(main)


@pytest.mark.parametrize("end", [CUT, None])
def test_a_stream_cut_after_its_first_word_is_an_error(end: Any) -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        opened = asyncio.Event()
        upstream.then(stream(*events(chunk(content="a")), opened, end=end))
        deltas: list[Delta] = []
        answered = model.generate(question())
        deltas += await anext(answered)
        opened.set()
        with pytest.raises(ModelError) as caught:
            await anext(answered)
        assert caught.value.code == "upstream_disconnected"
        assert deltas == [Text("a")]
        assert len(upstream.requests) == 1

    run(main)


def test_a_completion_cut_short_is_tried_again_and_given_up() -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"
        upstream.then([head, CUT], [head, CUT], [head, CUT])
        _, error = await failed(model, ModelError, streamed=False)
        assert error.code == "upstream_disconnected"
        assert len(upstream.requests) == 3

    run(main)


@pytest.mark.parametrize(
    "begun",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"],
)
def test_silence_is_a_timeout_and_hangs_up(begun: bytes) -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        upstream.then([begun, HANG])
        await failed(model, ModelTimeout, streamed=False)
        await upstream.requests[0].gone.wait()
        assert len(upstream.requests) == 1

    with_model(main, read_timeout=0.2)


def test_silence_within_a_stream_keeps_what_came() -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        upstream.then(stream(*events(chunk(content="a")), end=HANG))
        deltas, _ = await failed(model, ModelTimeout)
        assert deltas == [Text("a")]
        await upstream.requests[0].gone.wait()

    with_model(main, read_timeout=0.2)


def test_nobody_listens() -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        async with Upstream() as gone:
            port = gone.port
        nobody = upstream.model(url=f"http://127.0.0.1:{port}/v1")
        _, error = await failed(nobody, ModelUnavailable)
        assert f"127.0.0.1:{port}" in error.message
        assert len(upstream.waits) == 2
        await nobody.close()

    run(main)


def test_a_name_that_does_not_exist() -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        nowhere = upstream.model(url="http://no-such-host.invalid/v1")
        await failed(nowhere, ModelUnavailable)
        await nowhere.close()

    run(main)


def test_an_upstream_that_does_not_speak_tls() -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        async with MisbehavingUpstream(greeting=b"HTTP/1.1 400 Speak up\r\n\r\n") as plain:
            tls = upstream.model(url=f"https://127.0.0.1:{plain.port}/v1")
            _, error = await failed(tls, ModelUnavailable)
            assert "safe connection" in error.message
            assert upstream.waits == []
            await tls.close()

    run(main)


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (refuse(401, {"error": {"message": f"Incorrect API key: {KEY}"}}), ModelError),
        (refuse(403, {"error": KEY}), ModelError),
        (refuse(404, {"error": {"message": "model 'x' not found"}}), ModelNotFound),
        (refuse(400, {"error": {"message": f"{KEY} is bad"}}), InvalidRequest),
        (
            refuse(400, {"error": {"message": "x", "code": "context_length_exceeded"}}),
            ContextLengthExceeded,
        ),
        (answer(b"{"), ModelError),
        (answer(b"<html>", headers={"Content-Type": "text/html"}), ModelError),
        (answer(b'{"choices":[{"message":3}]}'), ModelError),
        (answer(b'{"choices":[{"message":{"content":"\xff"}}]}'), ModelError),
        (answer(b"zip", headers={"Content-Encoding": "gzip"}), ModelError),
        ([f"HTTP/9 {KEY}\r\n\r\n".encode(), CUT], ModelError),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", CUT], ModelError),
        (answer(b'{"error":{"message":"No.","code":400}}'), InvalidRequest),
    ],
)
@pytest.mark.parametrize("streamed", [True, False])
def test_bad_answers(behaviour: Any, kind: type[AntiphonError], streamed: bool) -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        upstream.then(*[behaviour] * 3)
        deltas, _ = await failed(model, kind, streamed=streamed)
        assert deltas == []

    run(main)


@pytest.mark.parametrize("bad", [BROKEN, b'data: {"choices":3}\n\n', b'data: {"error":{}}\n\n'])
def test_bad_events_keep_what_came_before(bad: bytes) -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        upstream.then(stream(*events(chunk(content="a")), bad, *events(chunk(content="b"))))
        deltas, _ = await failed(model, ModelError)
        assert deltas == [Text("a")]
        assert len(upstream.requests) == 1

    run(main)


def test_an_overload_told_within_the_stream_is_tried_again_before_the_first_word() -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        busy = {"error": {"message": "Overloaded", "code": 429}}
        upstream.then(stream(*events(busy)))
        assert await heard(model) == HELLO
        assert len(upstream.requests) == 2

    run(main)


def test_an_endless_event_is_an_error() -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        part = b"data: " + b"x" * 1024 * 1024
        upstream.then(stream(*[part] * 20))
        _, error = await failed(model, ModelError)
        assert error.code == "upstream_invalid_response"
        await upstream.requests[0].gone.wait()

    run(main)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        async with MisbehavingUpstream() as other:
            upstream.then(refuse(status, headers={"Location": f"{other.base_url}/x"}))
            _, error = await failed(model, ModelError)
            assert error.code == "upstream_redirect"
            assert other.connections == 0

    run(main)


def test_a_refusal_whose_body_hangs_is_told_by_its_status() -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        upstream.then([b"HTTP/1.1 401 No\r\nContent-Length: 9\r\n\r\nKey", HANG])
        _, error = await failed(model, ModelError)
        assert error.code == "upstream_unauthorized"
        assert "Key" in error.message
        await upstream.requests[0].gone.wait()

    with_model(main, read_timeout=0.2)


def test_many_calls_at_once() -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        answers = await asyncio.gather(*[heard(model) for _ in range(50)])
        assert answers == [HELLO] * 50

    run(main)


def test_closing_ends_what_runs_and_what_follows() -> None:
    async def main(upstream: Upstream, model: ChatCompletionsModel) -> None:
        upstream.then(stream(*events(chunk(content="a")), end=HANG))
        answered = model.generate(question())
        assert await anext(answered) == [Text("a")]
        await model.close()
        with pytest.raises(ModelError):
            await anext(answered)
        await failed(model, ModelUnavailable)
        await model.close()

    run(main)


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
def test_a_setting_that_cannot_work_is_told_at_once(url: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ChatCompletionsModel(ModelInfo("m"), url, key)
    assert KEY not in str(caught.value)


def test_it_is_a_model() -> None:
    model: Model = ChatCompletionsModel(ModelInfo("m"), "https://api.x.ai/v1", KEY)
    assert model.info == ModelInfo("m")
    assert KEY not in repr(model)
