"""What every answer has, whatever was asked: an id, its headers, its line in the log."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from antiphon.errors import ModelError, StoreError
from antiphon.logging_setup import RequestIdFilter
from antiphon.models.scripted import ScriptedModel, fail, hang
from antiphon.stores.memory.store import MemoryApiKeyStore
from support.http_server import TIMEOUT, ThreadServer, serving
from support.keyed_server import serving_with_keys

OWN = re.compile(r"req_[0-9a-f]{32}")


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadServer]:
    with serving() as started:
        yield started


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/responses"),
        ("POST", "/v1/chat/completions"),
        ("GET", "/v1/models"),
        ("GET", "/nowhere"),
        ("GET", "/v1/responses"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/metrics"),
    ],
)
def test_every_answer_has_an_id_and_is_what_it_says(
    server: ThreadServer, method: str, path: str
) -> None:
    first, second = (server.request(method, path, {"input": "Hi"}) for _ in range(2))
    assert OWN.fullmatch(first.headers["x-request-id"])
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert first.headers["x-content-type-options"] == "nosniff"
    if first.headers["content-type"] == "application/json":
        assert first.headers["cache-control"] == "no-store"


def test_streams_and_refusals_have_one_too(server: ThreadServer) -> None:
    assert "x-request-id" in server.respond(stream=True).headers
    for headers in ({"host": "evil.example"}, {"origin": "null"}):
        answer = server.request("GET", "/v1/models", None, headers)
        assert answer.status == 403
        assert "x-request-id" in answer.headers
    with serving_with_keys(rate_limit_for=None) as site:
        site.client()
        answer = site.anonymous_client().get("/v1/models")
        assert answer.status == 401
        assert "x-request-id" in answer.headers


def test_one_answers_headers_do_not_get_into_the_next(server: ThreadServer) -> None:
    with closing(server.socket()) as client, client.makefile("rb") as reader:
        body = b'{"input":"Hi","stream":true,"store":false}'
        request = (
            b"POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n%%b\r\n%b"
            % (len(body), body)
        )
        client.sendall(request % b"" * 3 + request % b"connection: close\r\n")
        assert reader.read().count(b"x-request-id: ") == 4


@pytest.mark.parametrize("given", ["a", "trace-1/2:3", "x" * 128, "~!#"])
def test_a_clients_own_id_is_kept(server: ThreadServer, given: str) -> None:
    answer = server.request("GET", "/v1/models", None, {"x-request-id": given})
    assert answer.headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", " ", "a b", "x" * 129, "\xe4", "a\tb"])
def test_an_id_that_could_do_harm_is_not(server: ThreadServer, given: str) -> None:
    answer = server.request("GET", "/v1/models", None, {"x-request-id": given})
    assert OWN.fullmatch(answer.headers["x-request-id"])


class Lines(logging.Handler):
    """Keeps lines as they would be written."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(levelname)s %(message)s [%(request_id)s]"))
        self.addFilter(RequestIdFilter())
        self.seen: list[str] = []
        self._new = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._new:
            self.seen.append(self.format(record))
            self._new.notify_all()

    def come(self, number: int) -> None:
        """Wait until there are so many."""
        with self._new:
            assert self._new.wait_for(lambda: len(self.seen) >= number, TIMEOUT)


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, logger = Lines(), logging.getLogger("antiphon")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def settle(server: ThreadServer) -> None:
    """What belongs to an answer may happen when the answer is out already."""
    server.run(asyncio.sleep(0))


def test_a_line_for_each_request(lines: Lines) -> None:
    with serving_with_keys() as site:
        acme = site.client("acme")
        acme.request("POST", "/v1/responses?x=secret", {"input": "secret"}, {"x-request-id": "r1"})
        site.anonymous_client().request("GET", "/v1/models", None, {"x-request-id": "r2"})
        settle(site.server)
    assert len(lines.seen) == 2
    assert re.fullmatch(r"INFO POST /v1/responses 200 \d+\.\dms acme \[r1\]", lines.seen[0])
    assert re.fullmatch(r"INFO GET /v1/models 401 \d+\.\dms - \[r2\]", lines.seen[1])


def test_a_websocket_is_one_line_when_it_is_over(lines: Lines) -> None:
    with serving_with_keys() as site:
        address = site.server.base_url.replace("http", "ws", 1)
        mine = {"authorization": f"Bearer {site.client('acme').text}"}
        with connect(f"{address}/responses", additional_headers=mine):
            assert lines.seen == []
        lines.come(1)
        refused: list[tuple[str, dict[str, str]]] = [("responses", {}), ("nowhere", mine)]
        for path, headers in refused:
            with pytest.raises(InvalidStatus):
                connect(f"{address}/{path}", additional_headers=headers)
        lines.come(3)
    told = [re.sub(r"[\d.]+ms", "ms", line.partition(" [")[0]) for line in lines.seen]
    assert told == [
        "INFO WS /v1/responses 101 ms acme",
        "INFO WS /v1/responses 401 ms -",
        "INFO WS /v1/nowhere 403 ms acme",
    ]


def test_no_line_without_a_setting(lines: Lines, server: ThreadServer) -> None:
    logging.getLogger("antiphon").setLevel(logging.WARNING)
    server.get("/v1/models")
    settle(server)
    assert lines.seen == []


def test_a_path_cannot_forge_a_line(lines: Lines, server: ThreadServer) -> None:
    server.get("/%0AINFO%20GET%20/forged?token=1")
    server.get("/" + "a" * 5000)
    settle(server)
    assert len(lines.seen) == 2
    assert all("\n" not in line and len(line) < 300 for line in lines.seen)
    assert "token" not in lines.seen[0]


def test_what_a_turn_logs_belongs_to_its_request(lines: Lines) -> None:
    class Exploding(ScriptedModel):
        def _reply(self, *_: object) -> object:  # type: ignore[override]
            raise RuntimeError("boom")

    with serving(Exploding()) as server:
        server.request("POST", "/v1/responses", {"input": "Hi"}, {"x-request-id": "mine"})
        settle(server)
        server.logged_errors.clear()
    assert any(line.startswith("ERROR") for line in lines.seen)
    assert all("[mine]" in line for line in lines.seen)


def test_a_client_that_left_before_the_answer_is_logged(lines: Lines) -> None:
    reached = asyncio.Event()
    with serving(ScriptedModel([hang(reached)])) as server:
        with server.socket() as client:
            body = b'{"input":"Hi"}'
            client.sendall(
                b"POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b"
                % (len(body), body)
            )
            server.wait(reached)
        lines.come(1)
    assert [line for line in lines.seen if " 499 " in line]


def test_failures_are_answers_like_others(server: ThreadServer) -> None:
    with serving(ScriptedModel([fail(ModelError("It broke."))])) as failing:
        assert OWN.fullmatch(failing.respond().headers["x-request-id"])


class Broken(MemoryApiKeyStore):
    """A store that is out of order."""

    async def has_keys(self) -> bool:
        raise StoreError("No disk.")


class Stuck(MemoryApiKeyStore):
    """A store that never answers, once it has."""

    asked = 0

    async def has_keys(self) -> bool:
        self.asked += 1
        if self.asked > 1:
            await asyncio.Event().wait()
        return True


def test_a_server_is_ready_when_its_store_answers(server: ThreadServer) -> None:
    assert server.get("/readyz").body == b"ready\n"
    with serving_with_keys(keys=Broken(time.time)) as site:
        answer = site.anonymous_client().get("/readyz")
        assert (answer.status, answer.error["code"]) == (503, "store_unavailable")


def test_a_store_that_hangs_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antiphon.api.http.health._STORE_TIMEOUT", 0.01)
    with serving_with_keys(keys=Stuck(time.time)) as site:
        answer = site.anonymous_client().get("/readyz")
        assert (answer.status, answer.error["code"]) == (503, "store_unavailable")
        assert site.anonymous_client().get("/healthz").body == b"ok\n"
