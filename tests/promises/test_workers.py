"""Workers of one server with TLS: HTTP and gRPC, their metrics, ``antiphon nodes``, and drain."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from xai_sdk.proto import chat_pb2, chat_pb2_grpc  # type: ignore[import-untyped]

from antiphon.api.common.worker_metrics import join_metrics
from antiphon.settings import Tls
from support.command_line import PROGRAM, environment
from support.http_server import TIMEOUT, ServerProcess
from support.node_cluster import SteeredUpstream, Stream
from support.postgres_database import empty_database
from support.prometheus_samples import parse_samples
from support.scenario import UpstreamThread
from support.tls_certificates import client_context, self_signed_certificate

pytestmark = pytest.mark.slow
WORKERS = 3


class TlsServer(ServerProcess):
    """A server with TLS, to whose port each connection may reach another worker."""

    context: ssl.SSLContext

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=TIMEOUT, context=self.context
        )


def free_ports(count: int) -> int:
    """The first of so many free ports in a row, which the system gives to no connection."""
    while True:
        first = random.randrange(20_000, 32_000)
        with contextlib.ExitStack() as probes, contextlib.suppress(OSError):
            for port in range(first, first + count):
                probes.enter_context(socket.create_server(("127.0.0.1", port)))
            return first


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return (
        f"sqlite:{tmp_path / 'shared.db'}"
        if request.param == "sqlite"
        else empty_database(tmp_path)
    )


@pytest.fixture
def upstream() -> Iterator[SteeredUpstream]:
    with UpstreamThread() as thread:
        yield SteeredUpstream(thread)


@pytest.fixture
def certificate(tmp_path: Path) -> Tls:
    return self_signed_certificate(tmp_path)


@pytest.fixture
def server(
    tmp_path: Path, store: str, upstream: SteeredUpstream, certificate: Tls
) -> Iterator[TlsServer]:
    flags = ["--workers", str(WORKERS), "--drain-seconds", "8"]
    flags += ["--tls-cert", str(certificate.cert), "--tls-key", str(certificate.key)]
    # On SQLite by their sockets, on PostgreSQL by ports as other machines would.
    if store.startswith("postgresql"):
        flags += ["--node-url", f"http://127.0.0.1:{free_ports(WORKERS + 1)}"]
    with TlsServer(tmp_path, upstream.base_url, store=store, flags=flags) as started:
        started.context = client_context(certificate)
        yield started


def nodes_of(home: Path, store: str) -> list[dict[str, Any]]:
    """What ``antiphon nodes --json`` prints."""
    shown = subprocess.run(
        [PROGRAM, "nodes", "--json", "--store", store],
        env=environment(home),
        capture_output=True,
        check=True,
        timeout=TIMEOUT,
    )
    nodes: list[dict[str, Any]] = json.loads(shown.stdout)
    return nodes


def poll(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_chain_goes_over_all_workers_by_http_and_grpc(
    server: TlsServer, certificate: Tls
) -> None:
    previous, count = None, 1
    credentials = grpc.ssl_channel_credentials(certificate.cert.read_bytes())
    for _ in range(6):
        answer = server.respond("on", previous_response_id=previous).json
        assert answer["output"][0]["content"][0]["text"] == f"{count} messages"
        message = chat_pb2.Message(role=chat_pb2.ROLE_USER, content=[chat_pb2.Content(text="on")])
        request = chat_pb2.GetCompletionsRequest(
            model="m", messages=[message], previous_response_id=answer["id"], store_messages=True
        )
        with grpc.secure_channel(server.grpc_address, credentials) as channel:
            completion = chat_pb2_grpc.ChatStub(channel).GetCompletion(request)
        assert completion.outputs[0].message.content == f"{count + 2} messages"
        previous, count = completion.id, count + 4


def test_metrics_of_all_workers_come_from_any_of_them(
    server: TlsServer, upstream: SteeredUpstream
) -> None:
    for number in range(9):
        Stream(server, "/v1/responses", body={"input": f"hang {number}", "stream": True}).close()
    for _ in range(2 * WORKERS):
        samples = parse_samples(server.get("/metrics"))
        running = [at for (name, _), at in samples.items() if name == "antiphon_turns_running"]
        assert (len(running), sum(running)) == (WORKERS, 9)
    assert len(upstream.requests) >= 9


def test_killed_worker_is_replaced_and_all_drain_on_one_signal(
    server: TlsServer, upstream: SteeredUpstream, store: str, tmp_path: Path
) -> None:
    before = nodes_of(tmp_path, store)
    assert [one["is_alive"] for one in before] == [True] * WORKERS
    subprocess.run(["kill", "-9", str(before[0]["pid"])], check=True)

    def is_replaced() -> bool:
        alive = {one["pid"] for one in nodes_of(tmp_path, store) if one["is_alive"]}
        return len(alive) == WORKERS and before[0]["pid"] not in alive

    poll(is_replaced)
    body = {"input": "count to 3 gate:drain", "stream": True}
    streams = [Stream(server, "/v1/responses", body=body) for _ in range(6)]
    begun = [one.read_events(1) for one in streams]
    hanging = Stream(server, "/v1/responses", body={"input": "hang", "stream": True})
    server.process.send_signal(15)

    def is_refused() -> bool:
        try:
            server.get("/readyz")
        except OSError:
            return True
        return False

    def all_drain() -> bool:
        # Whoever drains clears up behind the dead no more.
        alive = [one for one in nodes_of(tmp_path, store) if one["is_alive"]]
        return all(one["is_draining"] for one in alive)

    poll(is_refused)
    # At once: the seconds of the drain run.
    upstream.open("drain")
    for begin, one in zip(begun, streams, strict=True):
        assert b"event: response.completed" in begin + one.read_rest()
    poll(all_drain)
    *_, last, _, _ = hanging.read_rest().split(b"\n\n")
    assert re.search(rb'"code":"interrupted"', last)
    assert server.process.wait(TIMEOUT) == 0
    assert nodes_of(tmp_path, store) == []


def test_joined_metrics_have_each_family_once_with_all_its_series() -> None:
    one = b'# HELP a_total As.\n# TYPE a_total counter\na_total{worker="0"} 1.0\n'
    other = b'# HELP b Bs.\n# TYPE b gauge\nb{worker="1"} 2.0\n'
    more = b'# HELP a_total As.\n# TYPE a_total counter\na_total{worker="1"} 3.0\n' + other
    assert join_metrics([one, b"", more]) == one + b'a_total{worker="1"} 3.0\n' + other
