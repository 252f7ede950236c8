"""Answers, errors, and what happens when a client hangs up."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import closing
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from antiphon.api.common.body import ClientDisconnected
from antiphon.api.http.asgi_responses import (
    DisconnectWatcher,
    handle_errors,
    send_chunk,
    send_error,
    send_json,
    start_stream,
)
from antiphon.core.deltas import Delta, OutputTextDelta
from antiphon.core.items import Message as Said
from antiphon.core.turns import Header, Response, TurnRequest
from antiphon.errors import (
    AntiphonError,
    BodyTooLargeError,
    ModelTimeoutError,
    NotFoundError,
    StoreError,
    UpstreamRateLimitError,
)
from antiphon.models.model_registry import ModelRegistry
from antiphon.models.scripted import ScriptedModel, hang
from antiphon.stores.memory.store import MemoryStore
from antiphon.turn.protocols import ModelCall
from antiphon.turn.running_turns import RunningTurn
from antiphon.turn.service import TurnService
from support.http_server import TIMEOUT, serving

TALK = {"messages": [{"role": "user", "content": "Hi"}]}


class Sent:
    """What an application sent: one whole answer."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def send(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def status(self) -> int:
        assert [message["type"] for message in self.messages] == [
            "http.response.start",
            "http.response.body",
        ]
        assert not self.messages[1].get("more_body")
        assert int(self.headers["content-length"]) == len(self.messages[1]["body"])
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.messages[0]["headers"]}

    @property
    def body(self) -> Any:
        return json.loads(self.messages[1]["body"])


async def nothing() -> Message:
    raise AssertionError("nobody was to listen")


def test_json() -> None:
    sent = Sent()
    asyncio.run(send_json(sent.send, b'{"a":1}', 201, [(b"x-a", b"b")]))
    assert (sent.status, sent.body) == (201, {"a": 1})
    assert sent.headers == {
        "content-type": "application/json",
        "cache-control": "no-store",
        "content-length": "7",
        "x-a": "b",
    }


@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (
            NotFoundError("Not here.", code="response_not_found", param="id"),
            404,
            {"type": "invalid_request_error", "param": "id", "code": "response_not_found"},
        ),
        (
            ModelTimeoutError("Too slow."),
            504,
            {"type": "upstream_error", "param": None, "code": "upstream_timeout"},
        ),
        (
            StoreError("No room."),
            503,
            {"type": "server_error", "param": None, "code": "store_unavailable"},
        ),
    ],
)
def test_errors(error: AntiphonError, status: int, body: dict[str, Any]) -> None:
    sent = Sent()
    asyncio.run(send_error(sent.send, error))
    assert sent.status == status
    assert sent.body == {"error": {"message": error.message, **body}}
    assert set(sent.headers) == {"content-type", "content-length", "cache-control"}


@pytest.mark.parametrize(
    ("seconds", "header"), [(None, None), (0.0, "1"), (0.2, "1"), (2.6, "3"), (60.0, "60")]
)
def test_how_long_to_wait(seconds: float | None, header: str | None) -> None:
    sent = Sent()
    asyncio.run(send_error(sent.send, UpstreamRateLimitError("Slow down.", retry_after=seconds)))
    assert sent.status == 429
    assert sent.headers.get("retry-after") == header


def test_a_turn_that_was_kept_is_not_to_be_tried_again() -> None:
    error = UpstreamRateLimitError("Slow down.")
    error.response_id = "resp_1"
    sent = Sent()
    asyncio.run(send_error(sent.send, error))
    assert sent.body["error"]["response_id"] == "resp_1"
    assert sent.headers["x-should-retry"] == "false"


def handled(raised: Exception) -> Sent:
    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        raise raised

    sent = Sent()

    async def main() -> None:
        await handle_errors(handler)({"method": "GET", "path": "/x"}, nothing, sent.send)

    asyncio.run(main())
    return sent


def test_errors_become_answers() -> None:
    sent = handled(BodyTooLargeError("Too large."))
    assert (sent.status, sent.body["error"]["code"]) == (413, "body_too_large")


def test_nobody_answers_a_client_that_is_gone() -> None:
    assert handled(ClientDisconnected()).messages == []


def test_an_unexpected_error_is_logged_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        sent = handled(KeyError("a secret"))
    assert sent.status == 500
    assert sent.body["error"]["code"] == "server_error"
    assert "secret" not in json.dumps(sent.body)
    assert "a secret" in caplog.text


@pytest.mark.parametrize("raised", [KeyError("a secret"), StoreError("No room.")])
async def test_an_answer_that_has_begun_is_left_without_an_end(
    raised: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    sent = Sent()

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        await start_stream(send)
        await send_chunk(send, b"data: 1\n\n")
        raise raised

    with caplog.at_level(logging.ERROR):
        await handle_errors(handler)({"method": "GET", "path": "/x"}, nothing, sent.send)
    kinds = [(message["type"], message.get("more_body")) for message in sent.messages]
    assert kinds == [("http.response.start", None), ("http.response.body", True)]
    assert str(raised) in caplog.text


class Spoilt(ScriptedModel):
    """Says a word, and when told to one that cannot be written into a stream."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()

    async def generate(self, call: ModelCall) -> AsyncGenerator[Sequence[Delta], None]:
        yield [OutputTextDelta("Well")]
        await self.go.wait()
        yield [OutputTextDelta("\ud800")]


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/responses", {"input": "Hi"}), ("/v1/chat/completions", TALK)]
)
def test_a_stream_that_cannot_be_written_on_says_so(path: str, body: dict[str, Any]) -> None:
    model = Spoilt()
    with serving(model) as server, closing(server.connect()) as reader:
        reader.request("POST", path, json.dumps({**body, "stream": True}))
        reading = reader.getresponse()
        while b"Well" not in reading.readline():
            pass
        server.set(model.go)
        told = [
            json.loads(line.removeprefix(b"data: "))
            for line in reading.read().splitlines()
            if line.startswith(b"data: {")
        ]
        assert told[-1]["error"]["code"] == "server_error"
        assert "surrogates" not in str(told)
        assert any("the stream of resp_" in fault for fault in server.logged_errors)
        server.logged_errors.clear()


class Wire:
    """The client's side: hangs up when told to."""

    def __init__(self) -> None:
        self.hung_up = asyncio.Event()
        self.listened = 0

    async def receive(self) -> Message:
        self.listened += 1
        if self.listened == 1:
            return {"type": "http.request", "body": b""}
        await self.hung_up.wait()
        return {"type": "http.disconnect"}


@pytest.mark.parametrize("store", [True, False])
async def test_hanging_up_stops_only_what_is_not_stored(store: bool) -> None:
    model = ScriptedModel([hang(reached := asyncio.Event())])
    service = TurnService(MemoryStore(), ModelRegistry({"m": model}, default="m"))
    turn = await service.start(TurnRequest((Said("user", "Hi"),), store=store))
    wire = Wire()

    async def write() -> None:
        with DisconnectWatcher(wire.receive, turn):
            await asyncio.Event().wait()

    writing = asyncio.create_task(write())
    await reached.wait()
    wire.hung_up.set()
    with pytest.raises(ClientDisconnected):
        await asyncio.wait_for(writing, TIMEOUT)
    assert turn.done() is not store
    assert model.cancelled.is_set() is not store
    await service.close()


async def test_a_writer_that_is_cancelled_otherwise_stays_cancelled() -> None:
    turn = RunningTurn(Response("resp_" + "0" * 32, 0.0, Header("m"), ()))
    entered = asyncio.Event()

    async def write() -> None:
        with DisconnectWatcher(Wire().receive, turn):
            entered.set()
            await asyncio.Event().wait()

    writing = asyncio.create_task(write())
    await entered.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing


def test_a_quick_answer_costs_no_listener() -> None:
    async def main() -> None:
        turn = RunningTurn(Response("resp_" + "0" * 32, 0.0, Header("m"), ()))
        with DisconnectWatcher(nothing, turn):
            pass
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert others == set()

    asyncio.run(main())
