"""Turns over a WebSocket: one after another, what is remembered between them, and hanging up."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from antiphon.api.common.authentication import set_caller
from antiphon.api.common.body import MAX_BODY
from antiphon.api.http.websocket import WebSocketEndpoint
from antiphon.models.scripted import ScriptedModel, cut, hang, say, wait
from antiphon.stores.memory.store import MemoryStore
from antiphon.turn.service import TurnService
from support.http_server import TIMEOUT, ThreadServer, app_without_keys, serving
from support.keyed_server import KeyedServer, serving_with_keys
from support.mcp_toolsets import wait_until

Event = dict[str, Any]


@contextmanager
def connected(
    server: ThreadServer, headers: dict[str, str] | None = None
) -> Iterator[ClientConnection]:
    with connect(
        f"ws://127.0.0.1:{server.port}/v1/responses",
        additional_headers=headers,
        max_size=None,
        open_timeout=TIMEOUT,
    ) as client:
        yield client


def ask(client: ClientConnection, text: str = "Hi", /, **fields: Any) -> None:
    client.send(json.dumps({"type": "response.create", "input": text, **fields}))


def event(client: ClientConnection) -> Event:
    told: Event = json.loads(client.recv(TIMEOUT))
    return told


def told(client: ClientConnection) -> list[Event]:
    """All events of the next turn; an error is one."""
    events = [event(client)]
    while events[-1]["type"] not in {
        "response.completed",
        "response.failed",
        "response.incomplete",
        "error",
    }:
        events.append(event(client))
    return events


def turned(client: ClientConnection, text: str = "Hi", /, **fields: Any) -> Event:
    """A turn's end, as its last event has it."""
    ask(client, text, **fields)
    last = told(client)[-1]
    response: Event = last["response"]
    return response


def refused(client: ClientConnection) -> Event:
    (only,) = told(client)
    assert set(only) == {"type", "status", "error"}
    assert set(only["error"]) == {"type", "code", "message", "param"}
    return only


def text_of(response: Event) -> str:
    return str(response["output"][0]["content"][0]["text"])


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadServer]:
    with serving() as started:
        yield started


def test_turns_follow_each_other_with_the_events_of_a_stream(server: ThreadServer) -> None:
    with connected(server) as client:
        first = turned(client, "one")
        ask(client, "two", previous_response_id=first["id"])
        events = told(client)
        assert [one["sequence_number"] for one in events] == list(range(len(events)))
        second = events[-1]["response"]
        assert "Before that you said: one" in text_of(second)
        # What was stored here is found everywhere, and the other way round.
        assert server.get(f"/v1/responses/{second['id']}").json == second
        stream = server.get(f"/v1/responses/{second['id']}?stream=true")
        assert stream.events == events
        third = server.respond("three", previous_response_id=second["id"]).json["id"]
        assert "three" in text_of(turned(client, "four", previous_response_id=third))


def test_several_that_wait_are_answered_in_order(server: ThreadServer) -> None:
    with connected(server) as client:
        for number in range(10):
            ask(client, f"number {number}")
        answers = [text_of(told(client)[-1]["response"]) for _ in range(10)]
        assert [answer.splitlines()[0] for answer in answers] == [
            f"You said: number {number}" for number in range(10)
        ]


def test_unstored_turns_go_on_from_each_other_on_their_connection() -> None:
    model = ScriptedModel()
    with serving(model) as server, connected(server) as client, connected(server) as other:
        first = turned(client, "one", store=False)
        second = turned(client, "two", store=False, previous_response_id=first["id"])
        third = turned(client, "three", store=False, previous_response_id=second["id"])
        assert [one["content"] for one in model.context() if one["role"] == "user"] == [
            "one",
            "two",
            "three",
        ]
        assert server.stored_count() == 0
        # Only the newest, only here, and nothing stored can hang on it.
        for elsewhere, fields in (
            (other, {"previous_response_id": third["id"], "store": False}),
            (client, {"previous_response_id": first["id"], "store": False}),
            (client, {"previous_response_id": "resp_" + "0" * 32, "store": False}),
        ):
            ask(elsewhere, **fields)
            error = refused(elsewhere)
            assert (error["status"], error["error"]["code"]) == (400, "previous_response_not_found")
        assert "three" in text_of(
            turned(client, "four", store=False, previous_response_id=third["id"])
        )


def test_unstored_turns_go_on_from_stored_ones(server: ThreadServer) -> None:
    with connected(server) as client:
        stored = server.respond("kept").json["id"]
        ours = turned(client, "ours", store=False, previous_response_id=stored)
        ours = turned(client, "more", store=False, previous_response_id=ours["id"])
        assert "shown 5 messages" in text_of(ours)
        ask(client, previous_response_id=ours["id"], store=True)
        assert refused(client)["error"]["code"] == "previous_response_not_found"


@pytest.mark.parametrize("failing", [say("Half") + cut(), None])
def test_a_continuation_that_fails_forgets_what_it_went_on_from(failing: Any) -> None:
    model = ScriptedModel(["Hello.", failing or "", "Unasked."])
    with serving(model) as server, connected(server) as client:
        first = turned(client, store=False)["id"]
        if failing:
            assert turned(client, store=False, previous_response_id=first)["status"] == "failed"
        else:
            ask(client, "", store=False, previous_response_id=first)
            assert refused(client)["error"]["code"] == "empty_input"
        ask(client, store=False, previous_response_id=first)
        assert refused(client)["error"]["code"] == "previous_response_not_found"


def test_what_has_nothing_to_do_with_it_forgets_nothing() -> None:
    model = ScriptedModel(["Hello.", say("Half") + cut(), "Still here."])
    with serving(model) as server, connected(server) as client:
        first = turned(client, store=False)["id"]
        client.send("garbage")
        assert refused(client)["error"]["code"] == "invalid_json"
        ask(client, previous_response_id="resp_" + "0" * 32)
        assert refused(client)["status"] == 400
        assert turned(client, store=False)["status"] == "failed"
        assert text_of(turned(client, store=False, previous_response_id=first)) == "Still here."


@pytest.mark.parametrize(
    ("message", "code", "param"),
    [
        ("", "invalid_json", None),
        ("{", "invalid_json", None),
        ("[]", "invalid_type", None),
        ('"response.create"', "invalid_type", None),
        ("{}", "invalid_value", "type"),
        ('{"type": "response.cancel"}', "invalid_value", "type"),
        ('{"type": 1}', "invalid_type", "type"),
        ('{"type": "response.create"}', "empty_input", "input"),
        ('{"type": "response.create", "input": 1}', "invalid_type", "input"),
        (
            '{"type": "response.create", "input": "Hi", "background": true}',
            "unsupported_parameter",
            "background",
        ),
        (b"\xff\xfe", "invalid_json", None),
        (b"\0" * 10, "invalid_json", None),
        ('{"type": ' * 100_000, "invalid_type", "type"),
        ('{"type": "response.create", "input": ' + "[" * 100_000, "invalid_json", None),
    ],
)
def test_garbage_is_answered_and_the_connection_stays(
    server: ThreadServer, message: str | bytes, code: str, param: str | None
) -> None:
    before = server.stored_count()
    with connected(server) as client:
        client.send(message)
        error = refused(client)
        assert (error["status"], error["error"]["code"], error["error"]["param"]) == (
            400,
            code,
            param,
        )
        assert server.stored_count() == before
        # As bytes it is as good as as text.
        client.send(json.dumps({"type": "response.create", "input": "Hi"}).encode())
        assert told(client)[-1]["type"] == "response.completed"


def code_after(client: ClientConnection, texts: list[str]) -> int | None:
    """How the server closes the connection when it is asked all that."""
    with contextlib.suppress(ConnectionClosed):
        for text in texts:
            ask(client, text)
        while True:
            client.recv(TIMEOUT)
    return client.close_code


def test_a_message_larger_than_the_server_reads_ends_the_connection(server: ThreadServer) -> None:
    with connected(server) as client:
        assert code_after(client, ["x" * (17 * 2**20)]) == 1009
    assert server.respond().status == 200


def local(
    make: Callable[[TurnService], WebSocketEndpoint],
    story: Callable[[TurnService, Send, list[Any]], Any],
) -> None:
    """The endpoint without a server: what it is sent goes in as it is."""

    async def main() -> None:
        arriving: asyncio.Queue[Any] = asyncio.Queue()
        sent: list[Any] = []
        service = TurnService(MemoryStore(), _Only(ScriptedModel()))

        async def send(message: Any) -> None:
            sent.append(message)

        scope: Scope = {"type": "websocket", "path": "/v1/responses", "headers": []}
        set_caller(scope)
        await arriving.put({"type": "websocket.connect"})
        serving = asyncio.create_task(make(service)(scope, arriving.get, send))
        await story(service, arriving.put, sent)
        await asyncio.wait_for(serving, TIMEOUT)
        await service.close()

    asyncio.run(main())


class _Only:
    """A catalog of one model."""

    def __init__(self, model: ScriptedModel) -> None:
        self._model = model

    def get(self, name: str | None) -> tuple[str, ScriptedModel]:
        return "scripted", self._model

    def items(self) -> list[Any]:
        return [("scripted", self._model)]


def test_a_message_larger_than_a_body_is_refused() -> None:
    async def story(service: TurnService, put: Send, sent: list[Any]) -> None:
        await put({"type": "websocket.receive", "bytes": b" " * (MAX_BODY + 1)})
        await wait_until(lambda: len(sent) == 2)
        await put({"type": "websocket.disconnect"})
        assert json.loads(sent[1]["text"])["error"]["code"] == "body_too_large"

    local(WebSocketEndpoint, story)


def small(lifetime: float) -> Any:
    """A site whose connections end soon."""

    def make(service: TurnService) -> Any:
        front = app_without_keys(service)
        endpoint = WebSocketEndpoint(service, lifetime)
        inner = front._app

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await (endpoint if scope["type"] == "websocket" else inner)(scope, receive, send)

        front._app = app
        return front

    return make


def test_a_connection_ends_after_its_time() -> None:
    with serving(site=small(0.0)) as server, connected(server) as client:
        error = refused(client)
        assert error["error"]["code"] == "websocket_connection_limit_reached"
        assert code_after(client, []) == 1000


@pytest.mark.parametrize("store", [True, False])
def test_a_turn_that_outlasts_its_connection_goes_on_if_it_is_stored(store: bool) -> None:
    opened = asyncio.Event()
    model = ScriptedModel([say("Hel") + wait(opened) + say("lo")])
    with serving(model, site=small(0.3)) as server, connected(server) as client:
        ask(client, store=store)
        events = told(client)
        assert events[-1]["error"]["code"] == "websocket_connection_limit_reached"
        if store:
            server.set(opened)
            stream = server.get(f"/v1/responses/{events[0]['response']['id']}?stream=true")
            assert stream.events[-1]["type"] == "response.completed"
            assert not model.cancelled.is_set()
        else:
            server.wait(model.cancelled)


def test_an_unstored_turn_ends_with_its_client() -> None:
    model = ScriptedModel([say("Hel") + hang()])
    with serving(model) as server:
        with connected(server) as client:
            ask(client, store=False)
            while event(client)["type"] != "response.output_text.delta":
                pass
        server.wait(model.cancelled)


def test_a_stored_turn_outlives_its_client_and_what_waited_is_forgotten() -> None:
    opened, reached = asyncio.Event(), asyncio.Event()
    model = ScriptedModel([say("Hel") + wait(opened, reached) + say("lo"), "Never."])
    with serving(model) as server:
        with connected(server) as client:
            ask(client)
            name = event(client)["response"]["id"]
            ask(client, "behind it")
            server.wait(reached)
        server.set(opened)
        stream = server.get(f"/v1/responses/{name}?stream=true")
        assert text_of(stream.events[-1]["response"]) == "Hello"
        assert len(model.calls) == 1


def test_a_client_that_breaks_off_without_a_word_is_noticed() -> None:
    model = ScriptedModel([say("Hel") + hang()])
    with serving(model) as server, connected(server) as client:
        ask(client, store=False)
        event(client)
        client.socket.close()
        server.wait(model.cancelled)


def test_too_many_that_wait_are_turned_away() -> None:
    reached = asyncio.Event()
    model = ScriptedModel([say("Hel") + hang(reached)])
    with serving(model) as server, connected(server) as client:
        ask(client, store=False)
        server.wait(reached)
        assert code_after(client, ["Hi"] * 40) == 1013
        server.wait(model.cancelled)
        assert len(model.calls) == 1


def test_too_many_bytes_that_wait_are_turned_away() -> None:
    async def story(service: TurnService, put: Send, sent: list[Any]) -> None:
        for _ in range(4):
            await put({"type": "websocket.receive", "bytes": b"x" * MAX_BODY})
        await wait_until(lambda: sent[-1:] == [{"type": "websocket.close", "code": 1013}])

    local(WebSocketEndpoint, story)


def test_only_who_has_a_key_is_let_in_and_sees_their_own() -> None:
    with serving_with_keys() as site:
        acme, other = site.client("acme"), site.client("other")
        kept = acme.respond("A secret").json["id"]
        with pytest.raises(InvalidStatus) as denied, connected(site.server):
            pass
        assert denied.value.response.status_code == 401
        with connected(site.server, other.headers) as client:
            answers = []
            for name in (kept, "resp_" + "0" * 32):
                ask(client, previous_response_id=name)
                answers.append(json.dumps(refused(client)).replace(name, "ID"))
            assert answers[0] == answers[1]
        with connected(site.server, acme.headers) as client:
            assert "A secret" in text_of(turned(client, previous_response_id=kept))
            _revoked(site, acme, client)


def _revoked(site: KeyedServer, owner: Any, client: ClientConnection) -> None:
    site.revoke(owner)
    ask(client)
    error = refused(client)
    assert (error["status"], error["error"]["code"]) == (401, "invalid_api_key")


def test_an_unexpected_error_is_reported_and_the_connection_stays(server: ThreadServer) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise RuntimeError("a fault of ours")

    with connected(server) as client:
        start = server.service.start
        server.service.start = fails  # type: ignore[assignment, method-assign]
        try:
            ask(client)
            error = refused(client)
        finally:
            server.service.start = start  # type: ignore[method-assign]
        assert (error["status"], error["error"]["code"]) == (500, "server_error")
        assert "a fault of ours" in server.logged_errors.pop()
        assert turned(client)["status"] == "completed"


def test_what_only_a_stream_over_http_needs_is_ignored(server: ThreadServer) -> None:
    with connected(server) as client:
        for fields in ({"stream": False}, {"stream_options": {"include_obfuscation": False}}):
            assert turned(client, **fields)["status"] == "completed"
