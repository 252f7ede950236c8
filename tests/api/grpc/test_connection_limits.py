"""gRPC clients that send half a call, or nothing: ended, and no hindrance to others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from socket import create_connection
from typing import Any

import grpc
import pytest
from xai_sdk.chat import user  # type: ignore[import-untyped]

from antiphon.core.connection_limits import ConnectionLimits
from support.grpc_client import GrpcTestServer, RpcFailure, grpc_serving, rpc_failure, wait_until
from support.http_server import TIMEOUT

UNARY, STREAM = "/xai_api.Chat/GetCompletion", "/xai_api.Chat/GetCompletionChunk"
ADD = "/xai_api.Models/ListLanguageModels"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[GrpcTestServer]:
    with grpc_serving(limits=ConnectionLimits(header_timeout=0.2, body_timeout=0.05)) as started:
        yield started


def call_without_message(server: GrpcTestServer, path: str, *, end: bool) -> RpcFailure:
    """A call that sends its headers, and perhaps its end, but no message."""
    done = threading.Event()

    def messages() -> Iterator[bytes]:
        if not end:
            done.wait(TIMEOUT)
        yield from ()

    with grpc.insecure_channel(server.address) as channel:
        try:
            call: Any = channel.stream_stream(path)
            return rpc_failure(lambda: list(call(messages(), timeout=TIMEOUT)))
        finally:
            done.set()


def is_serving(server: GrpcTestServer, **metadata: str) -> bool:
    """Whether a call is answered. On a busy machine its own message may be late."""
    try:
        return bool(server.call_raw(ADD, b"", **metadata))
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
            raise
        return False


@pytest.mark.parametrize("path", [UNARY, STREAM, ADD])
def test_the_message_of_a_call_is_not_waited_for(server: GrpcTestServer, path: str) -> None:
    failed = call_without_message(server, path, end=False)
    assert (failed.code, failed.error) == (grpc.StatusCode.DEADLINE_EXCEEDED, "request_timeout")
    wait_until(lambda: is_serving(server))


@pytest.mark.parametrize("path", [UNARY, STREAM])
def test_a_call_without_a_message_is_refused(server: GrpcTestServer, path: str) -> None:
    failed = call_without_message(server, path, end=True)
    assert (failed.code, failed.error) == (grpc.StatusCode.INVALID_ARGUMENT, "invalid_protobuf")


def test_without_a_key_no_message_is_waited_for() -> None:
    with grpc_serving(limits=ConnectionLimits(body_timeout=TIMEOUT)) as server:
        server.key("acme")
        failed = call_without_message(server, UNARY, end=False)
        assert failed.code is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("sent", [b"", b"PRI", b"GET / HTTP/1.1\r\n", PREFACE])
def test_a_connection_that_is_not_set_up_is_closed(server: GrpcTestServer, sent: bytes) -> None:
    with closing(create_connection(("127.0.0.1", server.port), TIMEOUT)) as connection:
        connection.sendall(sent)
        while connection.recv(65536):
            pass


def test_large_metadata_is_refused(server: GrpcTestServer) -> None:
    wait_until(lambda: is_serving(server, x_large="x" * 30_000))
    failed = rpc_failure(lambda: server.call_raw(ADD, b"", x_large="x" * 100_000))
    assert failed.code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_silent_connections_delay_no_other() -> None:
    with ExitStack() as stack:
        server = stack.enter_context(grpc_serving())
        for _ in range(200):
            address = ("127.0.0.1", server.port)
            connection = stack.enter_context(closing(create_connection(address, TIMEOUT)))
            connection.sendall(PREFACE)
        assert server.call_raw(ADD, b"")
        with server.client() as client:
            chat = client.chat.create(model="scripted", messages=[user("Hi")])
            assert chat.sample().content
