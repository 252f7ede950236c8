"""The gRPC server itself: who may, how errors look, what does no harm, and how it stops."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from xai_sdk.chat import image, user  # type: ignore[import-untyped]
from xai_sdk.proto import chat_pb2  # type: ignore[import-untyped]

from antiphon.errors import (
    ConfigError,
    ModelTimeoutError,
    ModelUnavailableError,
    UpstreamRateLimitError,
)
from antiphon.models.scripted import ScriptedModel, fail, hang, say, wait
from antiphon.settings import Limits
from support.example_counts import examples
from support.grpc_client import GrpcTestServer, RpcFailure, grpc_serving, rpc_failure, wait_until
from support.http_server import TIMEOUT

COMPLETE = "/xai_api.Chat/GetCompletion"


def asking(*said: str, **fields: Any) -> bytes:
    """A request's bytes."""
    messages = [user(one) for one in said]
    body: bytes = chat_pb2.GetCompletionsRequest(messages=messages, **fields).SerializeToString()
    return body


def test_every_answer_has_the_request_id_in_its_trailers(echo: GrpcTestServer) -> None:
    with grpc.insecure_channel(echo.address) as channel:
        call: Any = channel.unary_unary(COMPLETE)
        _, told = call.with_call(asking("Hi"), metadata=(("x-request-id", "mine"),))
        assert dict(told.trailing_metadata())["x-request-id"] == "mine"
        _, told = call.with_call(asking("Hi"))
        assert dict(told.trailing_metadata())["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/xai_api.Image/GenerateImage", "antiphon does not serve images"),
        ("/xai_api.Files/UploadFile", "antiphon does not serve files"),
        ("/xai_api.BatchMgmt/CreateBatch", "antiphon does not serve batches"),
        ("/xai_api.Chat/Nonsense", "There is no method /xai_api.Chat/Nonsense."),
        ("/", "There is no method /."),
    ],
)
def test_what_is_not_served(echo: GrpcTestServer, path: str, sentence: str) -> None:
    failed = rpc_failure(lambda: echo.call_raw(path, b"whatever"))
    assert failed.code is grpc.StatusCode.UNIMPLEMENTED
    assert failed.details.startswith(sentence)
    assert failed.error == "unimplemented"


def test_the_sdk_gets_a_sentence_for_what_is_not_served(echo: GrpcTestServer) -> None:
    with echo.client() as client:
        assert "images" in rpc_failure(lambda: client.image.sample("a cat", "grok-imagine")).details
        assert "files" in rpc_failure(client.files.list).details
        failed = rpc_failure(lambda: client.files.upload(b"x", filename="x.txt"))
        assert "files" in failed.details


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"\xff\xff\xff", "invalid_protobuf", None),
        (asking(), "empty_input", "input"),
        (asking(""), "empty_input", "input"),
        (chat_pb2.GetCompletionsRequest(messages=[chat_pb2.Message()]), None, "messages[0].role"),
        (
            chat_pb2.GetCompletionsRequest(
                messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, content=[chat_pb2.Content()])]
            ),
            None,
            "messages[0].content[0]",
        ),
        (asking("Hi", n=17), None, "n"),
        (asking("Hi", n=-1), None, "n"),
        (asking("Hi", model="nobody"), "model_not_found", None),
        (asking("Hi", previous_response_id="resp_x"), "previous_response_not_found", None),
        (
            asking("Hi", response_format=chat_pb2.ResponseFormat(format_type=3, schema="[")),
            None,
            "response_format.schema",
        ),
        (
            asking("Hi", response_format=chat_pb2.ResponseFormat(format_type=3, schema="[[" * 900)),
            None,
            "response_format.schema",
        ),
        (
            asking(
                "Hi",
                tools=[chat_pb2.Tool(function=chat_pb2.Function(name="f", parameters="no"))],
            ),
            None,
            "tools[0].function.parameters",
        ),
        (
            asking("Hi", tools=[chat_pb2.Tool(function=chat_pb2.Function(name="a b"))]),
            None,
            "tools[0].function.name",
        ),
    ],
)
@pytest.mark.parametrize(
    "method", ["GetCompletion", "GetCompletionChunk", "StartDeferredCompletion"]
)
def test_bad_requests(
    echo: GrpcTestServer, method: str, body: Any, code: str | None, param: str
) -> None:
    whole = chat_pb2.GetCompletionsRequest.FromString(b"")
    data = body if isinstance(body, bytes) else body.SerializeToString()
    if code != "invalid_protobuf":
        whole.MergeFromString(data)
        whole.store_messages = True
        data = whole.SerializeToString()
    failed = rpc_failure(lambda: echo.call_raw(f"/xai_api.Chat/{method}", data))
    found = {"model_not_found", "previous_response_not_found"}
    assert failed.code is (
        grpc.StatusCode.NOT_FOUND if code in found else grpc.StatusCode.INVALID_ARGUMENT
    )
    assert failed.details
    assert code in (None, failed.error)
    assert param in (None, failed.param)
    assert echo.http.stored_count() == 0


def test_images_that_are_none_or_too_large(echo: GrpcTestServer) -> None:
    with echo.client() as client:
        for url, code in (
            ("data:image/png;base64,AAAA", "unsupported_image_type"),
            ("file:///etc/passwd", "invalid_image_url"),
            ("data:image/png;base64,?", "invalid_image"),
        ):
            chat = client.chat.create(
                "scripted", messages=[user("Look", image(url))], store_messages=True
            )
            failed = rpc_failure(chat.sample)
            assert (failed.code, failed.error) == (grpc.StatusCode.INVALID_ARGUMENT, code)
    # 20 MiB is what an image may have; it is more in base64, and a message has room for it.
    large = "data:image/png;base64,iVBORw0KGgoA" + "A" * (28 * 2**20)
    body = chat_pb2.GetCompletionsRequest(messages=[user(image(large))], store_messages=True)
    failed = rpc_failure(lambda: echo.call_raw(COMPLETE, body.SerializeToString()))
    assert (failed.code, failed.error) == (grpc.StatusCode.INVALID_ARGUMENT, "image_too_large")
    beyond = rpc_failure(lambda: echo.call_raw(COMPLETE, bytes(33 * 2**20)))
    assert beyond.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert echo.http.stored_count() == 0
    assert echo.call_raw(COMPLETE, asking("Still there?"))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UpstreamRateLimitError("Slow down.", retry_after=2.5), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (ModelTimeoutError("Too late."), grpc.StatusCode.DEADLINE_EXCEEDED),
        (ModelUnavailableError("Away."), grpc.StatusCode.INTERNAL),
        (ModelUnavailableError("\N{SNOWMAN}" * 5000, code="x\ny"), grpc.StatusCode.INTERNAL),
    ],
)
@pytest.mark.parametrize("method", ["GetCompletion", "GetCompletionChunk"])
def test_what_goes_wrong_behind_the_server(error: Any, code: grpc.StatusCode, method: str) -> None:
    model = ScriptedModel(lambda messages: say("Well") + fail(error))
    with grpc_serving(model) as server:
        with grpc.insecure_channel(server.address) as channel:
            call: Any = channel.unary_stream(f"/xai_api.Chat/{method}")
            failed = rpc_failure(lambda: list(call(asking("Hi", store_messages=True))))
        assert failed.code is code
        assert failed.details.startswith(error.message[:100])
        # It is kept, and not for the client to repeat by itself.
        kept = failed.trailers["x-response-id"]
        assert failed.trailers["grpc-retry-pushback-ms"] == "-1"
        assert failed.trailers.get("retry-after") == ("3" if "Slow" in error.message else None)
        again = rpc_failure(
            lambda: server.call_raw(
                "/xai_api.Chat/GetStoredCompletion",
                chat_pb2.GetStoredCompletionRequest(response_id=kept).SerializeToString(),
            )
        )
        assert (again.code, again.trailers["x-response-id"]) == (code, kept)
        assert server.http.get(f"/v1/responses/{kept}").json["status"] == "failed"


def test_a_fault_of_ours_is_internal_and_logged() -> None:
    def broken(messages: Any) -> str:
        raise ZeroDivisionError("secret")

    with grpc_serving(ScriptedModel(broken)) as server:
        failed = rpc_failure(lambda: server.call_raw(COMPLETE, asking("Hi")))
        assert failed.code is grpc.StatusCode.INTERNAL
        assert "secret" not in failed.details
        server.http.logged_errors.clear()


def test_keys_and_tenants() -> None:
    with grpc_serving() as server:
        assert server.call_raw(COMPLETE, asking("Hi"))
        mine, other = server.key("acme"), server.key("other")
        # A server learns of the first key from who brings it.
        assert server.call_raw(COMPLETE, asking("Hi"), authorization=f"Bearer {mine}")
        for wrong in ("any", "ap_" + "a" * 52):
            with server.client(wrong) as client:
                chat = client.chat.create("scripted", messages=[user("Hi")])
                asks: list[Callable[[], object]] = [
                    chat.sample,
                    partial(list, chat.stream()),
                    client.files.list,
                ]
                for ask in asks:
                    failed = rpc_failure(ask)
                    assert (failed.code, failed.error) == (
                        grpc.StatusCode.UNAUTHENTICATED,
                        "invalid_api_key",
                    )
        with server.client(mine) as acme, server.client(other) as stranger:
            chat = acme.chat.create("scripted", messages=[user("Hi")], store_messages=True)
            stored = chat.sample().id
            info = acme.auth.get_api_key_info()
            assert (info.team_id, info.name) == ("acme", "laptop")
            assert info.redacted_api_key == f"ap_...{mine[-4:]}"
            assert mine not in str(info)
            assert info.create_time.seconds > 0
            nobody = "resp_" + "0" * 32

            def go_on(name: str) -> object:
                chat = stranger.chat.create("scripted", previous_response_id=name)
                return chat.append(user("Hi")).sample()

            finding: list[Callable[[str], object]] = [
                stranger.chat.get_stored_completion,
                stranger.chat.delete_stored_completion,
                go_on,
            ]
            for find in finding:
                foreign, missing = (
                    rpc_failure(partial(find, stored)),
                    rpc_failure(partial(find, nobody)),
                )
                assert foreign.code is missing.code is grpc.StatusCode.NOT_FOUND
                assert foreign.details.replace(stored, "") == missing.details.replace(nobody, "")
                assert foreign.error == missing.error
            assert acme.chat.get_stored_completion(stored)[0].id == stored


def test_without_keys_no_web_page_may_ask(echo: GrpcTestServer) -> None:
    for origin in ("https://evil.example", "http://localhost:3000"):
        failed = rpc_failure(partial(echo.call_raw, COMPLETE, asking("Hi"), origin=origin))
        assert failed.code is grpc.StatusCode.PERMISSION_DENIED
    assert echo.call_raw(COMPLETE, asking("Hi"))


def test_limits_are_those_of_http() -> None:
    limits = Limits(requests_per_minute=3, concurrent_turns=None)
    with grpc_serving(rate_limit_for=lambda tenant: limits) as server:
        assert server.call_raw(COMPLETE, asking("Hi"))
        assert server.http.respond().status == 200
        with grpc.insecure_channel(server.address) as channel:
            call: Any = channel.unary_unary(COMPLETE)
            _, told = call.with_call(asking("Hi"))
            assert dict(told.trailing_metadata())["x-ratelimit-remaining-requests"] == "0"
        failed = rpc_failure(lambda: server.call_raw(COMPLETE, asking("Hi")))
        assert failed.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert int(failed.trailers["retry-after"]) > 0
        assert server.http.respond().status == 429


def test_each_choice_takes_a_place() -> None:
    opened, reached = asyncio.Event(), asyncio.Event()
    model = ScriptedModel(["a", "b", wait(opened, reached) + say("c"), "d", "e", "f"])
    limits = Limits(concurrent_turns=2)
    with grpc_serving(model, rate_limit_for=lambda tenant: limits) as server:
        assert server.call_raw(COMPLETE, asking("Hi", n=2))
        failed = rpc_failure(
            lambda: server.call_raw(COMPLETE, asking("Hi", n=3, store_messages=True))
        )
        assert (failed.code, failed.error) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "rate_limit_exceeded",
        )
        # Those that had begun are gone again, and so are their places.
        server.http.set(opened)
        wait_until(lambda: not server.http.stored_count())


def status(server: GrpcTestServer, body: bytes, path: str = COMPLETE) -> grpc.StatusCode:
    """How a call is answered."""
    try:
        server.call_raw(path, body)
    except grpc.RpcError as error:
        return RpcFailure(error).code
    return grpc.StatusCode.OK


def test_a_turn_that_hangs_holds_its_place() -> None:
    reached = asyncio.Event()
    model = ScriptedModel([hang(reached), "Free again"])
    limits = Limits(concurrent_turns=1)
    with grpc_serving(model, rate_limit_for=lambda tenant: limits) as server:
        with grpc.insecure_channel(server.address) as channel:
            call: Any = channel.unary_stream("/xai_api.Chat/GetCompletionChunk")
            stream = call(asking("Hi"))
            server.http.wait(reached)
            failed = rpc_failure(lambda: server.call_raw(COMPLETE, asking("Hi")))
            assert failed.code is grpc.StatusCode.RESOURCE_EXHAUSTED
            stream.cancel()
            server.http.wait(model.cancelled)
        wait_until(lambda: status(server, asking("Hi")) is grpc.StatusCode.OK)


texts = st.text(max_size=20)
contents = st.one_of(
    st.builds(lambda text: chat_pb2.Content(text=text), texts),
    st.just(chat_pb2.Content()),
    st.builds(image, texts),
)
messages = st.builds(
    lambda role, parts, name, sealed, call_id: chat_pb2.Message(
        role=role, content=parts, name=name, encrypted_content=sealed, tool_call_id=call_id
    ),
    st.integers(-1, 8),
    st.lists(contents, max_size=3),
    texts,
    texts,
    st.none() | texts,
)
requests = st.fixed_dictionaries(
    {"messages": st.lists(messages, max_size=4)},
    optional={
        "model": st.sampled_from(["", "scripted", "x"]),
        "n": st.integers(-(2**31), 3),
        "max_tokens": st.integers(-(2**31), 2**31 - 1),
        "top_logprobs": st.integers(-5, 30),
        "seed": st.integers(-(2**31), 2**31 - 1),
        "temperature": st.floats(width=32),
        "top_p": st.floats(width=32),
        "stop": st.lists(texts, max_size=2),
        "reasoning_effort": st.integers(-1, 9),
        "service_tier": st.integers(-1, 4),
        "previous_response_id": texts,
        "store_messages": st.booleans(),
        "logprobs": st.booleans(),
        "tool_choice": st.builds(lambda mode: chat_pb2.ToolChoice(mode=mode), st.integers(-1, 5)),
        "response_format": st.builds(
            lambda kind, schema: chat_pb2.ResponseFormat(format_type=kind, schema=schema),
            st.integers(-1, 5),
            st.sampled_from(["", "{}", "[]", '{"title": 1}', "{"]),
        ),
    },
)
REFUSALS = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
fuzz = settings(max_examples=examples(60), deadline=None, suppress_health_check=list(HealthCheck))


@fuzz
@given(fields=requests, streamed=st.booleans())
def test_whatever_is_sent_is_answered_or_refused(
    echo: GrpcTestServer, fields: dict[str, Any], streamed: bool
) -> None:
    body = chat_pb2.GetCompletionsRequest(**fields).SerializeToString()
    before = echo.http.stored_count()
    answer = status(echo, body, COMPLETE + ("Chunk" if streamed else ""))
    assert answer in REFUSALS | {grpc.StatusCode.OK}
    if answer in REFUSALS:
        assert echo.http.stored_count() == before


@fuzz
@given(body=st.binary(max_size=60), method=st.sampled_from(["GetCompletion", "CompactContext"]))
def test_whatever_bytes_are_sent_do_no_harm(echo: GrpcTestServer, body: bytes, method: str) -> None:
    answer = status(echo, body, f"/xai_api.Chat/{method}")
    assert answer in REFUSALS | {grpc.StatusCode.OK}


def test_two_hundred_streams_at_once() -> None:
    opened = asyncio.Event()
    model = ScriptedModel(lambda messages: say("One") + wait(opened) + say(" two"))

    async def read(client: Any, begun: list[None]) -> str:
        chat = client.chat.create("scripted", messages=[user("Count")])
        content = ""
        async for _, chunk in chat.stream():
            content += chunk.content
            if chunk.content == "One":
                begun.append(None)
                if len(begun) == 200:
                    server.http.set(opened)
        return content

    async def read_all(client: Any) -> list[str]:
        begun: list[None] = []
        return await asyncio.gather(*(read(client, begun) for _ in range(200)))

    with grpc_serving(model) as server:
        assert asyncio.run(server.run_async(read_all)) == ["One two"] * 200


def frame(kind: int, payload: bytes = b"") -> bytes:
    """A frame of HTTP/2 that belongs to no stream."""
    return len(payload).to_bytes(3, "big") + bytes([kind]) + bytes(5) + payload


def test_who_asks_often_whether_the_line_holds_is_not_taken_for_an_attacker(
    echo: GrpcTestServer,
) -> None:
    """The SDK pings while a model thinks; by default a server would hang up on it."""
    settings, ping, goaway = 4, 6, 7
    with socket.create_connection(("127.0.0.1", echo.port), TIMEOUT) as line:
        stream = line.makefile("rb")
        line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(settings))
        for _ in range(10):
            line.sendall(frame(ping, b"are you?"))
            kind = None
            while kind != ping:
                head = stream.read(9)
                kind = head[3]
                stream.read(int.from_bytes(head[:3], "big"))
                assert kind != goaway


@contextmanager
def streaming(server: GrpcTestServer) -> Iterator[Any]:
    with grpc.insecure_channel(server.address) as channel:
        call: Any = channel.unary_stream("/xai_api.Chat/GetCompletionChunk")
        yield call(asking("Tell"))


def test_it_stops_when_the_answers_under_way_are_out() -> None:
    opened, reached = asyncio.Event(), asyncio.Event()
    model = ScriptedModel(
        lambda messages: (
            wait(opened, reached) + say("Once upon a time")
            if messages[0]["content"] == "Tell"
            else "No"
        )
    )
    with grpc_serving(model) as server, streaming(server) as stream:
        server.http.wait(reached)
        stopping = threading.Thread(target=server.http.run, args=(server.server.stop(20),))
        stopping.start()
        # No more are taken meanwhile.
        wait_until(lambda: status(server, asking("No")) is grpc.StatusCode.UNAVAILABLE)
        server.http.set(opened)
        said = [chat_pb2.GetChatCompletionChunk.FromString(one) for one in stream]
        stopping.join()
    assert "".join(out.delta.content for one in said for out in one.outputs) == "Once upon a time"


def test_two_servers_do_not_share_a_port(echo: GrpcTestServer) -> None:
    with grpc_serving() as server, pytest.raises(ConfigError, match=f"port {echo.port} for gRPC"):
        server.http.run(server.server.start("127.0.0.1", echo.port))


def test_hanging_up_without_a_word_does_no_harm(echo: GrpcTestServer) -> None:
    with socket.create_connection(("127.0.0.1", echo.port)) as line:
        line.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert echo.call_raw(COMPLETE, asking("Still there?"))
