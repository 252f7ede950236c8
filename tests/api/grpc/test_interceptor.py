"""What Prometheus is told of gRPC calls."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from xai_sdk.chat import user  # type: ignore[import-untyped]

from antiphon.errors import UpstreamRateLimitError
from antiphon.models.scripted import ScriptedModel, fail, hang, say
from antiphon.settings import Limits
from support.grpc_client import GrpcTestServer, grpc_serving, rpc_failure, wait_until
from support.prometheus_samples import metric_value, parse_samples

COMPLETE = "/xai_api.Chat/GetCompletion"
STREAM = "/xai_api.Chat/GetCompletionChunk"
STORED = "/xai_api.Chat/GetStoredCompletion"


def counted(server: GrpcTestServer, key: str = "") -> dict[tuple[str, str], float]:
    """How many calls there were, by method and status."""
    page = server.http.request("GET", "/metrics", headers={"authorization": f"Bearer {key}"})
    return {
        (dict(labels)["method"], dict(labels)["status"]): count
        for (name, labels), count in parse_samples(page).items()
        if name == "antiphon_grpc_requests_total"
    }


def test_calls_by_method_and_status() -> None:
    model = ScriptedModel([say("a"), say("b"), fail(UpstreamRateLimitError("Slow."))])
    with grpc_serving(model) as server, server.client() as client:
        asking = client.chat.create("scripted", messages=[user("Hi")], store_messages=True)
        asking.sample()
        list(asking.stream())
        rpc_failure(asking.sample)
        rpc_failure(lambda: client.chat.get_stored_completion("resp_" + "0" * 32))
        rpc_failure(lambda: server.call_raw(COMPLETE, b"\xff"))
        rpc_failure(lambda: server.call_raw("/xai_api.Chat/Words", b""))
        rpc_failure(lambda: server.call_raw("/more/words", b""))
        expected = {
            (COMPLETE, "OK"): 1,
            (STREAM, "OK"): 1,
            (COMPLETE, "RESOURCE_EXHAUSTED"): 1,
            (STORED, "NOT_FOUND"): 1,
            (COMPLETE, "INVALID_ARGUMENT"): 1,
            ("other", "UNIMPLEMENTED"): 2,
        }
        # The status leaves before the call is over for the server.
        wait_until(lambda: counted(server) == expected)
        took = {"method": STREAM, "status": "OK"}
        assert metric_value(server.http, "grpc_request_seconds_count", **took) == 1
        assert 0 < metric_value(server.http, "grpc_request_seconds_sum", **took) < 30
        assert metric_value(server.http, "grpc_request_seconds_bucket", le="+Inf", **took) == 1
        # Turns are counted as over HTTP, and calls are no HTTP requests.
        assert metric_value(server.http, "turns_total", status="completed") == 2
        assert "words" not in server.http.get("/metrics").body.decode().lower()


def test_a_client_that_left() -> None:
    reached = asyncio.Event()
    model = ScriptedModel([hang(reached)])
    with grpc_serving(model) as server, grpc.insecure_channel(server.address) as channel:
        call: Any = channel.unary_stream(STREAM)
        with server.client() as client:
            body = client.chat.create("scripted", messages=[user("Hi")]).proto
        stream = call(body.SerializeToString())
        server.http.wait(reached)
        stream.cancel()
        wait_until(lambda: counted(server) == {(STREAM, "CANCELLED"): 1})


def test_who_is_not_let_in_is_counted_too() -> None:
    def allowance_of(tenant: str) -> Limits:
        return Limits(requests_per_minute=1 if tenant == "acme" else None)

    with grpc_serving(rate_limit_for=allowance_of) as server:
        key, watcher = server.key("acme"), server.key("watcher")
        rpc_failure(lambda: server.call_raw(COMPLETE, b""))
        rpc_failure(lambda: server.call_raw(COMPLETE, b"", authorization=f"Bearer {key}"))
        rpc_failure(lambda: server.call_raw(COMPLETE, b"", authorization=f"Bearer {key}"))
        expected = dict.fromkeys(
            [
                (COMPLETE, "UNAUTHENTICATED"),
                (COMPLETE, "INVALID_ARGUMENT"),
                (COMPLETE, "RESOURCE_EXHAUSTED"),
            ],
            1,
        )
        wait_until(lambda: counted(server, watcher) == expected)
