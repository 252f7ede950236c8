"""``/v1/responses`` on the wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest

from antiphon.core.turns import End, Usage
from antiphon.errors import (
    AntiphonError,
    ContextLengthExceededError,
    ModelError,
    ModelTimeoutError,
    ModelUnavailableError,
    StoreError,
    UpstreamRateLimitError,
)
from antiphon.models.scripted import (
    ScriptedModel,
    ScriptedReply,
    call,
    calls,
    cut,
    fail,
    finish,
    hang,
    refuse,
    report_usage,
    say,
    think,
    wait,
)
from antiphon.stores.memory.store import MemoryStore
from support.http_server import ThreadServer, parse_events, serving
from support.stored_responses import response_ids


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadServer]:
    with serving() as started:
        yield started


def texts(response: dict[str, Any]) -> list[str]:
    return [
        part["text"]
        for item in response["output"]
        if item["type"] == "message"
        for part in item["content"]
    ]


def request_bytes(body: dict[str, Any]) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(data)}\r\n\r\n"
    return head.encode() + data


def test_a_turn_and_the_next(server: ThreadServer) -> None:
    first = server.respond("One").json
    assert texts(first) == ["You said: One\n(I was shown 1 messages.)"]
    second = server.respond("Two", previous_response_id=first["id"]).json
    assert second["previous_response_id"] == first["id"]
    assert texts(second) == ["You said: Two\nBefore that you said: One\n(I was shown 3 messages.)"]
    assert server.get(f"/v1/responses/{second['id']}").json == second


def test_what_was_streamed_is_what_is_kept(server: ThreadServer) -> None:
    events = server.respond("One", stream=True).events
    last = events[-1]["response"]
    assert last["status"] == "completed"
    assert server.get(f"/v1/responses/{last['id']}").json == last
    created = events[0]["response"]
    assert (created["id"], created["status"], created["output"]) == (last["id"], "in_progress", [])


def test_the_head_of_a_stream(server: ThreadServer) -> None:
    answer = server.respond(stream=True)
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"


def test_each_write_holds_whole_events() -> None:
    opened, reached = asyncio.Event(), asyncio.Event()
    model = ScriptedModel([say("Hel") + wait(opened, reached) + say("l", "o\n\nä")])
    with serving(model) as server, server.socket() as client, client.makefile("rb") as reader:
        client.sendall(request_bytes({"input": "Hi", "stream": True}))
        while reader.readline() != b"\r\n":
            pass
        writes = []
        while size := int(reader.readline(), 16):
            writes.append(reader.read(size))
            assert reader.readline() == b"\r\n"
            if b'"delta":"Hel"' in writes[-1]:
                server.wait(reached)
                server.set(opened)
        assert len(writes) > 2
        for write in writes[:-1]:
            assert write.startswith(b"event: ")
            assert write.endswith(b"\n\n")
        assert writes[-1] == b"data: [DONE]\n\n"
        assert parse_events(b"".join(writes))[-1]["type"] == "response.completed"


def test_deleting(server: ThreadServer) -> None:
    first = server.respond("One").json["id"]
    second = server.respond("Two", previous_response_id=first).json["id"]
    answer = server.request("DELETE", f"/v1/responses/{first}")
    assert answer.json == {"id": first, "object": "response", "deleted": True}
    assert server.get(f"/v1/responses/{first}").status == 404
    assert server.request("DELETE", f"/v1/responses/{first}").status == 404
    assert server.get(f"/v1/responses/{second}").status == 200
    third = server.respond("Three", previous_response_id=second).json
    assert texts(third)[0].endswith("(I was shown 3 messages.)")
    assert server.request("DELETE", f"/v1/responses/{second}?cascade=true").status == 200
    assert server.get(f"/v1/responses/{third['id']}").status == 404


def test_input_items_are_the_turns_own(server: ThreadServer) -> None:
    given = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "One"},
        {"role": "user", "content": "Two"},
    ]
    first = server.respond(input=given).json["id"]
    second = server.respond("Three", previous_response_id=first).json["id"]
    page = server.get(f"/v1/responses/{first}/input_items?order=asc&limit=2").json
    assert [item["content"][0]["text"] for item in page["data"]] == ["Be brief.", "One"]
    assert page["has_more"] is True
    page = server.get(f"/v1/responses/{first}/input_items?order=asc&after={page['last_id']}").json
    assert [item["content"][0]["text"] for item in page["data"]] == ["Two"]
    newest = server.get(f"/v1/responses/{first}/input_items").json["data"]
    assert [item["role"] for item in newest] == ["user", "user", "system"]
    own = server.get(f"/v1/responses/{second}/input_items").json["data"]
    assert [item["content"][0]["text"] for item in own] == ["Three"]


def test_reasoning_refusals_calls_and_usage() -> None:
    reply = (
        think("Hm.")
        + say("Wait.")
        + calls(call("f", {"a": 1}, call_id="c1"), call("g", "{oops", call_id="c2"))
        + report_usage(Usage(10, 20, 5, 7))
    )
    with serving(ScriptedModel([reply, reply, refuse("No.")])) as server:
        whole = server.respond().json
        streamed = server.respond(stream=True).events[-1]["response"]
        for response in (whole, streamed):
            assert [item["type"] for item in response["output"]] == [
                "reasoning",
                "message",
                "function_call",
                "function_call",
            ]
            assert response["output"][3]["arguments"] == "{oops"
            assert response["usage"]["output_tokens_details"] == {"reasoning_tokens": 7}
        part = server.respond().json["output"][0]["content"][0]
        assert part == {"type": "refusal", "refusal": "No."}


@pytest.mark.parametrize(
    ("reason", "detail"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_an_answer_that_was_cut_short(reason: Any, detail: str) -> None:
    reply = say("Hel") + finish(reason)
    with serving(ScriptedModel([reply, reply, "lo"])) as server:
        whole = server.respond().json
        last = server.respond(stream=True).events[-1]
        assert last["type"] == "response.incomplete"
        for response in (whole, last["response"]):
            assert response["status"] == "incomplete"
            assert response["incomplete_details"] == {"reason": detail}
            assert texts(response) == ["Hel"]
        assert server.respond(previous_response_id=whole["id"]).status == 200


ERRORS: list[tuple[AntiphonError, int, str]] = [
    (UpstreamRateLimitError("Slow down.", retry_after=7), 429, "rate_limit_exceeded"),
    (ModelError("It broke."), 502, "upstream_error"),
    (ModelTimeoutError("Too slow."), 504, "upstream_timeout"),
    (ModelUnavailableError("Gone."), 503, "model_unavailable"),
    (ContextLengthExceededError("Too long."), 400, "context_length_exceeded"),
]


@pytest.mark.parametrize(("error", "status", "code"), ERRORS)
@pytest.mark.parametrize("said", [say("Hel"), ScriptedReply(())])
def test_a_failure(error: AntiphonError, status: int, code: str, said: ScriptedReply) -> None:
    model = ScriptedModel([said + fail(error), said + fail(error), "Again"])
    with serving(model) as server:
        answer = server.respond("One")
        assert (answer.status, answer.error["code"]) == (status, code)
        assert answer.error["message"] == error.message
        assert answer.headers.get("retry-after") == ("7" if status == 429 else None)
        assert answer.headers["x-should-retry"] == "false"
        kept = server.get(f"/v1/responses/{answer.error['response_id']}").json

        stream = server.respond("One", stream=True)
        assert stream.status == 200
        last = stream.events[-1]
        assert last["type"] == "response.failed"
        assert server.get(f"/v1/responses/{last['response']['id']}").json == last["response"]

        for response in (kept, last["response"]):
            assert response["status"] == "failed"
            assert response["error"] == {"code": code, "message": error.message}
        # Unstreamed, what a model said before it failed may come late or never.
        assert texts(last["response"]) == (["Hel"] if said.steps else [])
        item = server.get(f"/v1/responses/{kept['id']}/input_items").json["data"][0]
        assert item["content"][0]["text"] == "One"
        # It can be gone on from.
        assert server.respond("Two", previous_response_id=kept["id"]).status == 200
        assert model.context()[0]["content"] == "One"
        assert len(model.calls) == 3


def test_a_model_that_ends_without_an_end() -> None:
    with serving(ScriptedModel([say("Hel") + cut(), say("Hel") + cut()])) as server:
        assert server.respond().status == 502
        last = server.respond(stream=True).events[-1]
        assert last["type"] == "response.failed"
        assert texts(last["response"]) == ["Hel"]
        assert last["response"]["output"][0]["status"] == "incomplete"


def test_a_failure_that_was_not_stored() -> None:
    with serving(ScriptedModel([fail(ModelError("It broke."))])) as server:
        answer = server.respond(store=False)
        assert answer.status == 502
        assert "response_id" not in answer.error
        assert "x-should-retry" not in answer.headers
        assert server.stored_count() == 0


def test_a_fault_of_the_server_itself() -> None:
    def script(messages: list[dict[str, Any]]) -> str:
        raise KeyError("a secret")

    with serving(ScriptedModel(script)) as server:
        answer = server.respond()
        last = server.respond(stream=True).events[-1]
        assert (answer.status, answer.error["code"]) == (500, "server_error")
        assert (last["type"], last["response"]["error"]["code"]) == (
            "response.failed",
            "server_error",
        )
        assert b"secret" not in answer.body + json.dumps(last).encode()
        assert ["a secret" in fault for fault in server.logged_errors] == [True, True]
        server.logged_errors.clear()


def test_a_running_response() -> None:
    opened, reached = asyncio.Event(), asyncio.Event()
    model = ScriptedModel([say("Hel") + wait(opened, reached) + say("lo"), "Next"])
    with serving(model) as server, closing(server.connect()) as client:
        client.request("POST", "/v1/responses", json.dumps({"input": "Hi", "stream": True}))
        stream = client.getresponse()
        event = b"".join(stream.readline() for _ in range(3))
        response_id = json.loads(event.split(b"\n")[1][6:])["response"]["id"]
        server.wait(reached)
        assert server.get(f"/v1/responses/{response_id}").json["status"] == "in_progress"
        busy = server.respond("More", previous_response_id=response_id)
        assert busy.status == 409
        assert busy.error["code"] == "response_in_progress"
        assert busy.error["param"] == "previous_response_id"
        server.set(opened)
        assert parse_events(event + stream.read())[-1]["type"] == "response.completed"
        assert server.respond("More", previous_response_id=response_id).status == 200


def test_deleting_a_running_response_stops_it() -> None:
    reached = asyncio.Event()
    model = ScriptedModel([say("Hel") + hang(reached)])
    with serving(model) as server, closing(server.connect()) as client:
        client.request("POST", "/v1/responses", json.dumps({"input": "Hi", "stream": True}))
        stream = client.getresponse()
        event = b"".join(stream.readline() for _ in range(3))
        response_id = json.loads(event.split(b"\n")[1][6:])["response"]["id"]
        server.wait(reached)
        assert server.request("DELETE", f"/v1/responses/{response_id}").status == 200
        server.wait(model.cancelled)
        last = parse_events(event + stream.read())[-1]
        assert (last["type"], last["response"]["status"]) == ("response.incomplete", "cancelled")
        assert server.get(f"/v1/responses/{response_id}").status == 404


@pytest.mark.parametrize("stream", [True, False])
def test_a_stored_turn_outlives_its_client(stream: bool) -> None:
    opened, reached = asyncio.Event(), asyncio.Event()
    model = ScriptedModel([say("Hel") + wait(opened, reached) + say("lo")])
    with serving(model) as server:
        with server.socket() as client:
            client.sendall(request_bytes({"input": "Hi", "stream": stream}))
            server.wait(reached)
        (running,) = server.run(response_ids(server.store))
        turn = server.service.registry.get(running)
        assert turn is not None
        server.set(opened)
        server.run(turn.result())
        kept = server.get(f"/v1/responses/{running}").json
        assert (kept["status"], texts(kept)) == ("completed", ["Hello"])
        assert not model.cancelled.is_set()


@pytest.mark.parametrize("stream", [True, False])
def test_an_unstored_turn_goes_with_its_client(stream: bool) -> None:
    reached = asyncio.Event()
    model = ScriptedModel([say("Hel") + hang(reached), "Still here"])
    with serving(model) as server:
        with server.socket() as client:
            client.sendall(request_bytes({"input": "Hi", "stream": stream, "store": False}))
            server.wait(reached)
        server.wait(model.cancelled)
        assert server.stored_count() == 0
        assert texts(server.respond(store=False).json) == ["Still here"]


def test_a_client_that_leaves_before_its_request_is_whole(server: ThreadServer) -> None:
    before = server.stored_count()
    with server.socket() as client:
        client.sendall(request_bytes({"input": "Hi"})[:-3])
    assert server.respond().status == 200
    assert server.stored_count() == before + 1


def test_a_slow_reader_delays_no_other() -> None:
    # More than the sockets' buffers hold between them.
    flood = say(*["x" * 10_000] * 1_000)
    model = ScriptedModel([flood, "Quick"])
    with serving(model) as server, server.socket() as client, client.makefile("rb") as reader:
        client.sendall(request_bytes({"input": "Hi", "stream": True}))
        # The head is read, and then nothing, while all the rest is made and kept.
        while reader.readline() != b"\r\n":
            pass
        (running,) = server.run(response_ids(server.store))
        turn = server.service.registry.get(running)
        if turn is not None:
            server.run(turn.result())
        kept = server.get(f"/v1/responses/{running}").json
        assert kept["status"] == "completed"
        assert len(texts(kept)[0]) == 10_000_000
        assert texts(server.respond().json) == ["Quick"]
        body = b""
        while size := int(reader.readline(), 16):
            body += reader.read(size)
            reader.readline()
        assert parse_events(body)[-1]["response"] == kept


class Full(MemoryStore):
    """A store that runs out of room at a chosen write: 0 is the request, then items and end."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room

    def _takes(self) -> bool:
        self._room -= 1
        return self._room >= 0

    def begin(self, turn: Any) -> asyncio.Future[None]:
        return super().begin(turn) if self._takes() else _failed()

    def write(
        self, response_id: str, items: Sequence[bytes], end: End | None = None, inline: bool = False
    ) -> asyncio.Future[None]:
        return super().write(response_id, items, end) if self._takes() else _failed()


def _failed() -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_exception(StoreError("The disk is full."))
    return future


def full(room: int) -> Callable[[], Any]:
    async def make() -> Full:
        return Full(room)

    return make


def test_what_cannot_be_kept_is_not_begun() -> None:
    with serving(ScriptedModel(["Hello", "Hello"]), full(0)) as server:
        for stream in (False, True):
            answer = server.respond(stream=stream)
            assert (answer.status, answer.error["code"]) == (503, "store_unavailable")
        assert server.stored_count() == 0


def test_an_end_that_cannot_be_kept_is_no_end() -> None:
    with serving(ScriptedModel(["Hello"]), full(1)) as server:
        answer = server.respond()
        assert (answer.status, answer.error["code"]) == (503, "store_unavailable")
    with serving(ScriptedModel(["Hello"]), full(1)) as server:
        last = server.respond(stream=True).events[-1]
        assert last["type"] == "response.failed"
        assert last["response"]["error"] == {
            "code": "store_unavailable",
            "message": "The disk is full.",
        }
        assert texts(last["response"]) == ["Hello"]


def test_readers_are_notified_before_the_server_stops() -> None:
    model = ScriptedModel([say("So far") + hang()])
    with serving(model) as server, server.socket() as client, client.makefile("rb") as reader:
        client.sendall(request_bytes({"input": "Hi", "stream": True}))
        while b"So far" not in reader.readline():
            pass
        server.run(interrupt(server))
        line = b""
        while not line.startswith(b"data: {"):
            line = reader.readline()
        while b"response.failed" not in line:
            line = reader.readline()
        assert b"interrupted" in reader.readline()


async def interrupt(server: ThreadServer) -> None:
    server.service.registry.interrupt()
