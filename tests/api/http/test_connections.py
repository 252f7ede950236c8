"""Clients that are too slow or send too much: answered, closed, and no hindrance to others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from antiphon.api.http import connection_pool, connections
from antiphon.core.connection_limits import ConnectionLimits
from antiphon.models.scripted import ScriptedModel, hang, say, wait
from support.http_server import TIMEOUT, Answer, ServerProcess, ThreadServer, read_answer, serving
from support.keyed_server import serving_with_keys

QUICK = ConnectionLimits(header_timeout=0.05, body_timeout=0.05)
BODY = b'{"input":"Hi"}'
POST = b"POST /v1/responses HTTP/1.1\r\nhost: localhost\r\n"
WHOLE = POST + b"content-length: %d\r\n\r\n%b" % (len(BODY), BODY)
GET = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadServer]:
    with serving() as started:
        yield started


@pytest.fixture(scope="module")
def quick() -> Iterator[ThreadServer]:
    with serving(limits=QUICK) as started:
        yield started


def read_to_end(connection: socket.socket) -> bytes:
    """What comes until the server closes the connection."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def last_answer(raw: bytes) -> Answer:
    """The last of several answers."""
    head, _, body = raw[raw.rindex(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return Answer(int(status.split()[1]), headers, body)


def refusal(server: ThreadServer, *pieces: bytes) -> Answer:
    """The answer to these bytes, after which the server closes by itself."""
    with closing(server.socket()) as connection:
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                connection.sendall(piece)
        answer = last_answer(read_to_end(connection))
    assert answer.headers["connection"] == "close"
    assert answer.error["type"] == "invalid_request_error"
    return answer


# ---- too slow

UNFINISHED = {
    "half-a-line": (b"POST /v1/resp",),
    "one-byte": (b"P",),
    "half-a-header": (POST,),
    "header-without-end": (POST + b"content-length: 5\r\n",),
    "no-body": (POST + b"content-length: 5\r\n\r\n",),
    "half-a-body": (POST + b"content-length: 14\r\n\r\n", BODY[:7]),
    "half-a-chunk": (POST + b"transfer-encoding: chunked\r\n\r\n5\r\n{",),
    "no-last-chunk": (POST + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n",),
    "half-a-body-of-many-bytes": (POST + b"content-length: 9000000\r\n\r\n", b"x" * 300_000),
    "half-a-websocket": (
        b"GET /v1/responses HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\n"
        b"upgrade: websocket\r\n",
    ),
    "second-header": (GET, b"GET /v1/mod"),
    "second-body": (GET, POST + b"content-length: 14\r\n\r\n", BODY[:7]),
    "second-in-one": (GET + POST,),
}


@pytest.mark.parametrize("name", UNFINISHED)
def test_the_rest_of_a_request_is_not_waited_for(quick: ThreadServer, name: str) -> None:
    answer = refusal(quick, *UNFINISHED[name])
    assert (answer.status, answer.error["code"]) == (408, "request_timeout")
    assert quick.respond().status == 200


@pytest.mark.parametrize("sent", [b"", b"\r\n"])
def test_a_connection_without_a_request_is_closed(quick: ThreadServer, sent: bytes) -> None:
    with closing(quick.socket()) as connection:
        connection.sendall(sent)
        raw = read_to_end(connection)
    assert raw.count(b"HTTP/1.1 ") == (sent != b"")


def test_a_header_that_comes_drop_by_drop_is_late_too(quick: ThreadServer) -> None:
    with closing(quick.socket()) as connection:
        connection.sendall(POST)
        with contextlib.suppress(ConnectionError):
            while True:
                connection.sendall(b"x")
                connection.settimeout(0.01)
                with contextlib.suppress(TimeoutError):
                    raw = connection.recv(65536)
                    break
        assert b"408" in raw


def test_a_turn_that_takes_long_is_not_late() -> None:
    model = ScriptedModel([wait(spoke := asyncio.Event()) + say("Well.")])
    with serving(model, limits=QUICK) as server, closing(server.connect()) as connection:
        connection.request("POST", "/v1/responses", BODY)
        # The time of two other connections runs out meanwhile, one after the other.
        for _ in range(2):
            with closing(server.socket()) as other:
                assert read_to_end(other) == b""
        server.set(spoke)
        assert read_answer(connection).status == 200


@pytest.mark.parametrize("size", [1, 200_000])
@pytest.mark.parametrize("fields", [{"stream": True}, {"stream": False}])
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions"])
def test_a_client_that_leaves_ends_its_unstored_turn(
    path: str, fields: dict[str, bool], size: int
) -> None:
    """Also where its body was so long that the connection was not read for a while."""
    model = ScriptedModel([hang(reached := asyncio.Event())])
    said = [{"role": "user", "content": "x" * size}]
    asked = {"input" if path == "/v1/responses" else "messages": said, "store": False}
    with serving(model) as server:
        connection = server.connect()
        body = json.dumps({**asked, **fields})
        connection.request("POST", path, body, {"content-type": "application/json"})
        server.wait(reached)
        connection.close()
        server.wait(model.cancelled)


def test_half_a_message_of_a_websocket_is_not_waited_for(quick: ThreadServer) -> None:
    url = f"ws://127.0.0.1:{quick.port}/v1/responses"
    with connect(url, open_timeout=TIMEOUT) as client:
        client.send(json.dumps({"type": "response.create", "input": "Hi"}))
        while json.loads(client.recv(TIMEOUT))["type"] != "response.completed":
            pass

        def pieces() -> Iterator[str]:
            yield '{"type": '
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(TIMEOUT)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008

        with contextlib.suppress(ConnectionClosed):
            client.send(pieces())


def test_connections_that_ask_no_more_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = property(lambda _: 0.05, lambda *_: None)
    monkeypatch.setattr(connections.HttpProtocol, "timeout_keep_alive", seconds, raising=False)
    model = ScriptedModel([wait(spoke := asyncio.Event()) + say("Well.")])
    with serving(model) as server, ExitStack() as stack:
        busy = stack.enter_context(closing(server.connect()))
        busy.request("POST", "/v1/responses", BODY)
        for _ in range(2):
            idle = [stack.enter_context(closing(server.socket())) for _ in range(3)]
            for one in idle:
                one.sendall(GET)
            for one in idle:
                assert read_to_end(one).startswith(b"HTTP/1.1 200 ")
        server.set(spoke)
        assert read_answer(busy).status == 200


@pytest.mark.parametrize("gap", range(1, len(WHOLE), 7))
def test_a_request_may_come_in_two_packets(server: ThreadServer, gap: int) -> None:
    with closing(server.socket()) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(2):
            connection.sendall(WHOLE[:gap])
            connection.sendall(WHOLE[gap:])
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_waits_for_leave_to_send_its_body_gets_it(server: ThreadServer) -> None:
    head, body = WHOLE.split(b"\r\n\r\n")
    with closing(server.socket()) as connection:
        connection.sendall(head + b"\r\nexpect: 100-continue\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


# ---- too large

LINE = b"x-header-%06d: value\r\n"
LARGE = {
    "header-of-a-megabyte": b"x-large: " + b"x" * 2**20 + b"\r\n\r\n",
    "header-without-end": b"x-large: " + b"x" * 2**20,
    "name-of-a-megabyte": b"x" * 2**20 + b": x\r\n\r\n",
    "100000-headers": b"".join(LINE % number for number in range(100_000)) + b"\r\n",
    "101-headers": b"".join(LINE % number for number in range(100)) + b"\r\n",
    "a-little-too-large": b"x-large: " + b"x" * 65_536 + b"\r\n\r\n",
}


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("size", [2**20, 50_000])
def test_headers_that_are_too_large_are_refused(server: ThreadServer, name: str, size: int) -> None:
    raw = POST + LARGE[name]
    answer = refusal(server, *(raw[at : at + size] for at in range(0, len(raw), size)))
    assert (answer.status, answer.error["code"]) == (431, "headers_too_large")
    assert server.respond().status == 200


def test_a_path_that_is_too_large_is_refused(server: ThreadServer) -> None:
    answer = refusal(server, b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n")
    assert (answer.status, answer.error["code"]) == (431, "headers_too_large")


@pytest.mark.parametrize(
    "headers",
    [
        b"".join(LINE % number for number in range(97)),
        b"x-large: " + b"x" * 60_000 + b"\r\n",
        b"authorization: Bearer " + b"x" * 8_000 + b"\r\n",
    ],
)
def test_large_headers_within_the_limits_are_read(server: ThreadServer, headers: bytes) -> None:
    # The body does not count.
    body = json.dumps({"input": "x" * 100_000}).encode()
    raw = POST + headers + b"content-length: %d\r\n\r\n" % len(body) + body
    for size in (len(raw), 40_000):
        with closing(server.socket()) as connection:
            for at in range(0, len(raw), size):
                connection.sendall(raw[at : at + size])
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_second_request_has_limits_of_its_own(server: ThreadServer) -> None:
    large = b"x-large: " + b"x" * 40_000 + b"\r\n\r\n"
    with closing(server.socket()) as connection:
        for _ in range(5):
            connection.sendall(GET[:-2] + large)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        connection.sendall(GET[:-2] + large[:-4] + large)
        assert last_answer(read_to_end(connection)).status == 431


MALFORMED = {
    "no-http": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n",
    "http-2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "bad-length": POST + b"content-length: x\r\n\r\n",
    "two-lengths": POST + b"content-length: 1\r\ncontent-length: 2\r\n\r\n{}",
    "bad-chunk": POST + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
    "bad-path": b"GET /\xff\xfe HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "proxy": b"CONNECT example.com:443 HTTP/1.1\r\nhost: example.com:443\r\n\r\n",
    "space-before-colon": b"GET / HTTP/1.1\r\nhost : localhost\r\n\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_request_is_refused_in_our_words(server: ThreadServer, name: str) -> None:
    answer = refusal(server, MALFORMED[name])
    assert answer.status == 400
    assert answer.error["code"] == "invalid_http"


def test_requests_may_follow_each_other_at_once(server: ThreadServer) -> None:
    last = GET.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    with closing(server.socket()) as connection:
        connection.sendall(GET + WHOLE + GET + last)
        assert read_to_end(connection).count(b"HTTP/1.1 200 ") == 4


# ---- too many


def test_the_oldest_that_ask_nothing_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_pool, "_MIN_AGE", 0.0)
    limits = ConnectionLimits(max_connections_without_key=10)
    with serving(limits=limits) as server, ExitStack() as stack:
        idle = [stack.enter_context(closing(server.socket())) for _ in range(40)]
        for place, one in enumerate(idle):
            with contextlib.suppress(ConnectionError):
                one.sendall(POST[:place])
        assert server.respond().status == 200
        assert server.respond(stream=True).status == 200
        for one in idle[:30]:
            with contextlib.suppress(ConnectionError):
                assert one.recv(1000) == b""


def test_who_asks_at_once_is_never_the_oldest() -> None:
    """Connections of many clients at once are young, and none is closed for another."""
    limits = ConnectionLimits(max_connections_without_key=2)
    with serving(limits=limits) as server, ExitStack() as stack:
        clients = [stack.enter_context(closing(server.socket())) for _ in range(20)]
        for one in clients:
            one.sendall(WHOLE)
        assert all(one.recv(65536).startswith(b"HTTP/1.1 200 ") for one in clients)


def test_a_server_full_of_slow_clients_serves_those_with_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection_pool, "_MIN_AGE", 0.0)
    limits = ConnectionLimits(max_connections=30, max_connections_without_key=20)
    with serving_with_keys(limits=limits) as site, ExitStack() as stack:
        client = site.client()
        turns = []
        for _ in range(5):
            connection = stack.enter_context(closing(site.server.connect()))
            connection.request("GET", "/v1/models", headers=client.headers)
            assert read_answer(connection).status == 200
            turns.append(connection)
        for place in range(100):
            slow = stack.enter_context(closing(site.server.socket()))
            with contextlib.suppress(ConnectionError):
                slow.sendall(POST[: 1 + place % len(POST)])
                # Refused requests admit nobody.
                slow.sendall(GET if place % 3 else b"")
        assert client.respond().status == 200
        for connection in turns:
            connection.request("GET", "/v1/models", headers=client.headers)
            assert read_answer(connection).status == 200


def test_no_more_connections_than_there_may_be() -> None:
    limits = ConnectionLimits(max_connections=3)
    running = [asyncio.Event() for _ in range(3)]
    model = ScriptedModel([wait(one) + say("Done.") for one in running])
    with serving(model, limits=limits) as server, ExitStack() as stack:
        busy = [stack.enter_context(closing(server.socket())) for _ in running]
        for one in busy:
            one.sendall(WHOLE.replace(b"host:", b"connection: close\r\nhost:"))
        while len(model.calls) < 3:
            pass
        with closing(server.socket()) as another:
            answer = last_answer(read_to_end(another))
        assert (answer.status, answer.error["code"]) == (503, "server_busy")
        for event in running:
            server.set(event)
        assert all(last_answer(read_to_end(one)).status == 200 for one in busy)
        assert server.get("/v1/models").status == 200


@pytest.mark.parametrize("limit", ["max_connections", "max_connections_without_key"])
def test_half_requests_make_room_for_whole_ones(
    monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """Without keys each of them is somebody's who may ask."""
    monkeypatch.setattr(connection_pool, "_MIN_AGE", 0.0)
    limits = msgspec.structs.replace(ConnectionLimits(), **{limit: 10})
    with serving(limits=limits) as server, ExitStack() as stack:
        for _ in range(30):
            slow = stack.enter_context(closing(server.socket()))
            with contextlib.suppress(ConnectionError):
                slow.sendall(POST + b"content-length: 50\r\n\r\n{")
        assert server.respond().status == 200
        assert server.respond(stream=True).status == 200


# ---- the end


@pytest.mark.slow
def test_a_process_full_of_slow_clients_ends_without_a_traceback(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server, ExitStack() as stack:
        slow: list[Any] = []
        for place in range(200):
            slow.append(stack.enter_context(closing(server.socket())))
            slow[-1].sendall(
                [
                    b"",
                    POST,
                    POST + b"content-length: 50\r\n\r\n{",
                    POST + b"transfer-encoding: chunked\r\n\r\n5\r\n{",
                    GET + b"GET /v1",
                ][place % 5]
            )
        url = f"ws://127.0.0.1:{server.port}/v1/responses"
        with connect(url, open_timeout=TIMEOUT, close_timeout=0.1):
            assert server.respond().status == 200
            assert server.stop() == 0
    log = (tmp_path / "server.log").read_text()
    assert len(log.splitlines()) == 3, "an address, a model and who is served"
