"""A model behind xAI's gRPC API: answers, errors, tries and cancelling, on real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from xai_sdk.proto import chat_pb2, sample_pb2  # type: ignore[import-untyped]

from antiphon.core.deltas import (
    EncryptedReasoning,
    Finish,
    OutputTextDelta,
    ReasoningSummaryDelta,
    ToolCallDelta,
    UsageUpdate,
)
from antiphon.core.turns import FunctionTool, Options, Usage
from antiphon.errors import (
    AntiphonError,
    BodyTooLargeError,
    ConfigError,
    ContextLengthExceededError,
    InvalidRequestError,
    ModelError,
    ModelNotFoundError,
    ModelTimeoutError,
    ModelUnavailableError,
    UpstreamRateLimitError,
)
from antiphon.models.scripted import ScriptedModel, call, calls, cut, fail, hang, say, think
from antiphon.models.xai.model import XaiGrpcModel
from antiphon.turn.protocols import Token
from support.grpc_client import GrpcTestServer, grpc_serving
from support.xai_upstream import (
    KEY,
    NO_RETRIES,
    ManualClock,
    RawXai,
    abort_script,
    chunk,
    collect_deltas,
    make_call,
    model_at,
    run,
    send_script,
)

STATUS = grpc.StatusCode
HELLO = send_script(chunk(content="Hello.", finish=sample_pb2.REASON_STOP))


def asking(
    server: GrpcTestServer, work: Callable[[XaiGrpcModel], Awaitable[Any]], **options: Any
) -> None:
    """Something done with a model behind antiphon's own server."""

    async def main() -> None:
        model = model_at(server.port, **options)
        try:
            await work(model)
        finally:
            await model.close()

    run(main())


async def failing(model: XaiGrpcModel, kind: type[AntiphonError], **how: Any) -> Any:
    with pytest.raises(kind) as caught:
        await collect_deltas(model, make_call(**how))
    error = caught.value
    assert type(error) is kind
    assert KEY not in f"{error!r} {error.message} {error.__cause__!r} {error.__context__!r}"
    return error


@pytest.mark.parametrize("stream", [True, False])
def test_text_and_reasoning(stream: bool) -> None:
    upstream = ScriptedModel([think("Hm.") + say("Hello", " you.")])

    async def work(model: XaiGrpcModel) -> None:
        deltas = await collect_deltas(model, make_call(stream=stream))
        assert [one for one in deltas if isinstance(one, ReasoningSummaryDelta)] == [
            ReasoningSummaryDelta("Hm.")
        ]
        texts = [one.text for one in deltas if isinstance(one, OutputTextDelta)]
        assert "".join(texts) == "Hello you."
        assert deltas[-2:] == [UsageUpdate(Usage(1, 3)), Finish("stop")]

    with grpc_serving(upstream) as server:
        asking(server, work)
        assert server.http.stored_count() == 0, "the state is ours to keep"


@pytest.mark.parametrize("stream", [True, False])
def test_calls_of_tools(stream: bool) -> None:
    wanted = calls(call("f", {"x": 1}, call_id="a"), call("g", {}, call_id="b"))
    upstream = ScriptedModel([wanted])
    tools = (FunctionTool("f", parameters={"type": "object"}), FunctionTool("g"))

    async def work(model: XaiGrpcModel) -> None:
        deltas = await collect_deltas(model, make_call(stream=stream, options=Options(tools=tools)))
        assert [one for one in deltas if isinstance(one, ToolCallDelta)] == [
            ToolCallDelta(0, "a", "f", '{"x":1}'),
            ToolCallDelta(1, "b", "g", "{}"),
        ]
        assert deltas[-1] == Finish("tool_calls")

    with grpc_serving(upstream) as server:
        asking(server, work)
    assert [one.name for one in upstream.calls[0].options.tools] == ["f", "g"]


def test_a_key_authenticates_and_a_wrong_one_is_not_quoted() -> None:
    async def right(model: XaiGrpcModel) -> None:
        assert OutputTextDelta("Hi.") in await collect_deltas(model)

    async def wrong(model: XaiGrpcModel) -> None:
        error = await failing(model, ModelError)
        assert error.code == "upstream_unauthorized"

    with grpc_serving(ScriptedModel(["Hi."])) as server:
        asking(server, right, api_key=server.key("acme"))
        asking(server, wrong)


@pytest.mark.parametrize("stream", [True, False])
def test_errors_of_the_model_upstream(stream: bool) -> None:
    upstream = ScriptedModel(
        [
            fail(UpstreamRateLimitError("Slow down.", retry_after=90)),
            fail(ContextLengthExceededError("Too long.", used=9, limit=8)),
            fail(InvalidRequestError("No.", code="odd", param="input")),
        ]
    )

    async def work(model: XaiGrpcModel) -> None:
        limited = await failing(model, UpstreamRateLimitError, stream=stream)
        assert limited.retry_after == 90
        assert "Slow down." in limited.message
        await failing(model, ContextLengthExceededError, stream=stream)
        refused = await failing(model, InvalidRequestError, stream=stream)
        assert (refused.code, refused.param, refused.message) == ("odd", "input", "No.")

    with grpc_serving(upstream) as server:
        asking(server, work)


def test_a_truncated_answer_is_an_error_after_its_text() -> None:
    async def work(model: XaiGrpcModel) -> None:
        answer = model.generate(make_call())
        assert await anext(answer) == [OutputTextDelta("One")]
        with pytest.raises(ModelError):
            await anext(answer)

    with grpc_serving(ScriptedModel([say("One") + cut()])) as server:
        asking(server, work)


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_without_a_reason_to_stop_was_cut(stream: bool) -> None:
    whole = chat_pb2.GetChatCompletionResponse(
        outputs=[chat_pb2.CompletionOutput(message=chat_pb2.CompletionMessage(content="One"))]
    )
    async with RawXai(send_script(chunk(content="One") if stream else whole)) as raw:
        model = model_at(raw.port)
        error = await failing(model, ModelError, stream=stream)
        assert error.code == "upstream_disconnected"
        await model.close()


@pytest.mark.parametrize("stream", [True, False])
def test_cancelling_stops_the_work_upstream(stream: bool) -> None:
    reached = asyncio.Event()
    upstream = ScriptedModel([hang(reached)])

    with grpc_serving(upstream) as server:

        async def work(model: XaiGrpcModel) -> None:
            task = asyncio.create_task(collect_deltas(model, make_call(stream=stream)))
            await asyncio.to_thread(server.http.wait, reached)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.to_thread(server.http.wait, upstream.cancelled)

        asking(server, work)


def test_closing_the_answer_stops_the_work_upstream() -> None:
    upstream = ScriptedModel([say("One") + hang()])

    with grpc_serving(upstream) as server:

        async def work(model: XaiGrpcModel) -> None:
            answer = model.generate(make_call())
            assert await anext(answer) == [OutputTextDelta("One")]
            await answer.aclose()
            await asyncio.to_thread(server.http.wait, upstream.cancelled)

        asking(server, work)


def test_closing_the_model_fails_its_calls() -> None:
    reached = asyncio.Event()

    with grpc_serving(ScriptedModel([hang(reached)])) as server:

        async def work(model: XaiGrpcModel) -> None:
            task = asyncio.create_task(failing(model, ModelUnavailableError))
            await asyncio.to_thread(server.http.wait, reached)
            await model.close()
            await task
            await failing(model, ModelUnavailableError)

        asking(server, work)


@pytest.mark.parametrize(
    ("status", "details", "kind", "code"),
    [
        (STATUS.UNAUTHENTICATED, f"Bad key {KEY}", ModelError, "upstream_unauthorized"),
        (STATUS.PERMISSION_DENIED, "Not yours", ModelError, "upstream_unauthorized"),
        (STATUS.INVALID_ARGUMENT, f"Incorrect API key: {KEY}", ModelError, "upstream_unauthorized"),
        (STATUS.INVALID_ARGUMENT, f"Odd: {KEY[:12]}***", InvalidRequestError, "invalid_value"),
        (STATUS.NOT_FOUND, "The model x does not exist", ModelNotFoundError, "model_not_found"),
        (STATUS.UNIMPLEMENTED, "", ModelError, "upstream_not_found"),
        (STATUS.RESOURCE_EXHAUSTED, "Slow", UpstreamRateLimitError, "rate_limit_exceeded"),
        (
            STATUS.RESOURCE_EXHAUSTED,
            "Received message larger than max (9 vs. 8)",
            BodyTooLargeError,
            "body_too_large",
        ),
        (
            STATUS.RESOURCE_EXHAUSTED,
            "Error, decoded message length too large: found 9 bytes, the limit is: 8 bytes",
            ContextLengthExceededError,
            "context_length_exceeded",
        ),
        (STATUS.DEADLINE_EXCEEDED, "Late", ModelTimeoutError, "upstream_timeout"),
        (STATUS.UNAVAILABLE, "Down", ModelUnavailableError, "model_unavailable"),
        (STATUS.CANCELLED, "Stopped", ModelError, "upstream_error"),
        (STATUS.INTERNAL, "Broken", ModelError, "upstream_error"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_statuses_are_errors_of_ours(
    status: grpc.StatusCode, details: str, kind: type[AntiphonError], code: str, stream: bool
) -> None:
    async with RawXai(abort_script(status, details)) as raw:
        model = model_at(raw.port, retry=NO_RETRIES)
        error = await failing(model, kind, stream=stream)
        assert error.code == code
        assert KEY[:8] not in error.message
        await model.close()


async def test_a_context_that_is_too_long_says_how_long() -> None:
    details = (
        "This model's maximum prompt length is 131,072 but the request contains 200000 tokens."
    )
    async with RawXai(abort_script(STATUS.INVALID_ARGUMENT, details)) as raw:
        model = model_at(raw.port)
        error = await failing(model, ContextLengthExceededError)
        assert (error.used, error.limit) == (200000, 131072)
        assert len(raw.requests) == 1, "asking again would not help"
        await model.close()


@pytest.mark.parametrize("stream", [True, False])
async def test_transient_errors_are_retried_before_the_first_delta(stream: bool) -> None:
    whole = chat_pb2.GetChatCompletionResponse(
        outputs=[
            chat_pb2.CompletionOutput(
                message=chat_pb2.CompletionMessage(content="Hello."),
                finish_reason=sample_pb2.REASON_STOP,
            )
        ]
    )
    clock = ManualClock()
    async with RawXai(
        abort_script(STATUS.UNAVAILABLE, "Down"),
        abort_script(STATUS.RESOURCE_EXHAUSTED, "Slow", retry_after="7"),
        HELLO if stream else send_script(whole),
    ) as raw:
        model = model_at(raw.port, clock)
        assert await collect_deltas(model, make_call(stream=stream)) == [
            OutputTextDelta("Hello."),
            Finish("stop"),
        ]
        assert len(raw.requests) == 3
        assert len(clock.waits) == 2
        assert clock.waits[1] == 7
        assert raw.metadata[2]["authorization"] == f"Bearer {KEY}"
        await model.close()


async def test_nothing_is_retried_after_the_first_delta() -> None:
    async with RawXai(abort_script(STATUS.UNAVAILABLE, "Down", chunk(content="Hel")), HELLO) as raw:
        model = model_at(raw.port)
        await failing(model, ModelUnavailableError)
        assert len(raw.requests) == 1
        await model.close()


@pytest.mark.parametrize(
    "trailers",
    [{"retry_after": "90"}, {"grpc_retry_pushback_ms": "-1"}, {"grpc_retry_pushback_ms": "90000"}],
)
async def test_a_server_that_wants_no_second_try_gets_none(trailers: dict[str, str]) -> None:
    async with RawXai(abort_script(STATUS.RESOURCE_EXHAUSTED, "Slow", **trailers)) as raw:
        model = model_at(raw.port)
        await failing(model, UpstreamRateLimitError)
        assert len(raw.requests) == 1
        await model.close()


@pytest.mark.parametrize(("seconds", "attempts"), [(7, 2), (90, 1)])
async def test_a_delay_in_the_details_of_an_error_is_kept(seconds: int, attempts: int) -> None:
    details = status_pb2.Status(code=8, message="Slow")
    details.details.add().Pack(error_details_pb2.QuotaFailure())
    details.details.add().Pack(error_details_pb2.RetryInfo(retry_delay={"seconds": seconds}))
    slow = abort_script(
        STATUS.RESOURCE_EXHAUSTED, "Slow", grpc_status_details_bin=details.SerializeToString()
    )
    clock = ManualClock()
    async with RawXai(slow, HELLO) as raw:
        model = model_at(raw.port, clock)
        if attempts == 1:
            await failing(model, UpstreamRateLimitError)
        else:
            assert await collect_deltas(model) == [OutputTextDelta("Hello."), Finish("stop")]
        assert len(raw.requests) == attempts
        assert clock.waits == [seconds] * (attempts - 1)
        await model.close()


async def test_details_of_an_error_may_be_anything() -> None:
    odd = abort_script(STATUS.RESOURCE_EXHAUSTED, "Slow", grpc_status_details_bin=b"\xff\xff")
    async with RawXai(odd, HELLO) as raw:
        model = model_at(raw.port)
        assert await collect_deltas(model) == [OutputTextDelta("Hello."), Finish("stop")]
        await model.close()


async def test_a_header_with_a_key_is_not_quoted() -> None:
    secret = "gateway-0123456789"
    async with RawXai(abort_script(STATUS.INVALID_ARGUMENT, f"Odd: {secret}")) as raw:
        model = model_at(raw.port, headers={"X-Gateway-Key": secret})
        error = await failing(model, InvalidRequestError)
        assert error.message.startswith("Odd: ")
        assert secret not in error.message
        await model.close()


async def test_a_model_without_reasoning_gets_requests_without_it() -> None:
    no = abort_script(STATUS.INVALID_ARGUMENT, "use_encrypted_content is not supported")
    async with RawXai(no, HELLO) as raw:
        model = model_at(raw.port)
        assert await collect_deltas(model) == [OutputTextDelta("Hello."), Finish("stop")]
        assert [one.use_encrypted_content for one in raw.requests] == [True, False]
        await model.close()
    async with RawXai(no) as raw:
        model = model_at(raw.port)
        await failing(model, InvalidRequestError)
        assert len(raw.requests) == 2
        await model.close()


async def test_sealed_reasoning_names_its_model() -> None:
    done = chunk(encrypted_content="gA", content="Hi.", finish=sample_pb2.REASON_STOP)
    async with RawXai(send_script(done)) as raw:
        model = model_at(raw.port, upstream_name="grok-4")
        origin = f"grpc://127.0.0.1:{raw.port}/grok-4"
        assert (await collect_deltas(model))[0] == EncryptedReasoning("gA", origin)
        assert raw.requests[0].model == "grok-4"
        await model.close()


async def test_a_server_that_dies_within_an_answer() -> None:
    async with RawXai(_endless) as raw:
        model = model_at(raw.port, retry=NO_RETRIES)
        answer = model.generate(make_call())
        assert await anext(answer) == [OutputTextDelta("One")]
        await raw.stop()
        with pytest.raises(ModelError):
            await anext(answer)
        await model.close()


async def _endless(request: Any, context: Any) -> Any:
    yield chunk(content="One")
    await asyncio.Event().wait()


@pytest.mark.parametrize("stream", [True, False])
async def test_a_silent_server_times_out(stream: bool) -> None:
    async def silent(request: Any, context: Any) -> Any:
        await asyncio.Event().wait()
        yield chunk()

    async with RawXai(silent) as raw:
        model = model_at(raw.port, read_timeout=0.01)
        await failing(model, ModelTimeoutError, stream=stream)
        await model.close()


async def test_an_unreachable_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    clock = ManualClock()
    model = model_at(port, clock)
    error = await failing(model, ModelUnavailableError)
    assert f"127.0.0.1:{port}" in error.message
    assert len(clock.waits) == 2
    await model.close()


@pytest.mark.parametrize(
    "options",
    [
        {"url": "api.x.ai"},
        {"url": "ftp://api.x.ai"},
        {"url": "https://u:p@api.x.ai"},
        {"url": "https://api.x.ai/v1"},
        {"url": "https://api.x.ai?a=b"},
        {"api_key": "xai \n"},
        {"headers": {"X-Odd!": "a"}},
        {"headers": {"X-Trace-Bin": "a"}},
        {"headers": {"Grpc-Timeout": "1S"}},
        {"headers": {"User-Agent": "mine"}},
    ],
)
def test_unusable_settings_are_config_errors(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        model_at(1, **options)
    assert "u:p" not in caught.value.message


async def test_an_unused_model_closes() -> None:
    model = model_at(1)
    assert await model.count_tokens(make_call()) is None
    assert model.info.name == "m"
    await model.close()
    await model.close()


class _Spelling(ScriptedModel):
    """A model whose tokens are bytes."""

    async def tokenize(self, model: str, text: str) -> Sequence[Token]:
        return [Token(byte, bytes([byte])) for byte in text.encode()]


def test_tokens_are_the_servers() -> None:
    async def main(port: int) -> None:
        model = model_at(port, upstream_name="spelling")
        silent = model_at(port, upstream_name="silent")
        unknown = model_at(port, upstream_name="nobody")
        try:
            tokens = await model.tokenize("m", "h\u00e9")
            assert [one.data for one in tokens or ()] == [b"h", b"\xc3", b"\xa9"]
            assert await silent.tokenize("m", "h") is None
            with pytest.raises(ModelNotFoundError):
                await unknown.tokenize("m", "h")
        finally:
            for one in (model, silent, unknown):
                await one.close()
        with pytest.raises(ModelUnavailableError):
            await model.tokenize("m", "h")

    with grpc_serving({"spelling": _Spelling(), "silent": ScriptedModel()}) as server:
        run(main(server.port))


def test_headers_and_further_fields_go_with_each_request(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> RawXai:
        end = send_script(chunk(content="Hi", finish=sample_pb2.REASON_STOP))
        async with RawXai(end) as raw:
            extra = {"max_turns": 3, "top_k": 5}
            model = model_at(raw.port, headers={"X-Team": "a"}, extra=extra)
            try:
                for _ in range(2):
                    await collect_deltas(model, make_call(options=Options(extra={"top_k": 7})))
            finally:
                await model.close()
        return raw

    raw = run(main())
    assert [one.max_turns for one in raw.requests] == [3, 3]
    assert all(one["x-team"] == "a" for one in raw.metadata)
    assert all(one["authorization"] == f"Bearer {KEY}" for one in raw.metadata)
    assert [record.args for record in caplog.records] == [("m", "top_k")]
