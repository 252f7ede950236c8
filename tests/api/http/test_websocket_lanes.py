"""Lanes of a WebSocket, and turns that only prepare the next one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from antiphon.errors import UpstreamRateLimitError
from antiphon.models.scripted import ScriptedModel, fail, say, wait
from support.http_server import TIMEOUT, ThreadServer, serving
from support.scenario import DONE, LOOKUP, Scenario, end, scenario, stream_of, text

Event = dict[str, Any]
ENDS = {"response.completed", "response.failed", "response.incomplete", "error"}


def connected(server: ThreadServer) -> ClientConnection:
    url = f"ws://127.0.0.1:{server.port}/v1/responses"
    return connect(url, max_size=None, open_timeout=TIMEOUT)


def ask(client: ClientConnection, words: Any = "Hi", /, **fields: Any) -> None:
    client.send(json.dumps({"type": "response.create", "input": words, **fields}))


def next_event(client: ClientConnection) -> Event:
    event: Event = json.loads(client.recv(TIMEOUT))
    return event


def events_to_end(client: ClientConnection) -> list[Event]:
    events = [next_event(client)]
    while events[-1]["type"] not in ENDS:
        events.append(next_event(client))
    return events


def words_of(event: Event) -> str:
    return "".join(
        part["text"] for item in event["response"]["output"] for part in item.get("content", [])
    )


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadServer]:
    with serving(ScriptedModel(["Hello."] * 100)) as started:
        yield started


# ---- lanes


@pytest.mark.parametrize("stream_id", ["a", "A-1_b.c", "0", "-", "x" * 256])
def test_events_have_the_stream_id_of_their_request(server: ThreadServer, stream_id: str) -> None:
    with connected(server) as client:
        ask(client, stream_id=stream_id)
        events = events_to_end(client)
        assert events[-1]["type"] == "response.completed"
        assert {one["stream_id"] for one in events} == {stream_id}
        ask(client, stream_id=None)
        assert not any("stream_id" in one for one in events_to_end(client))


WRONG = ["", "a b", "ä", "x" * 257, "a/b", "a\n", 1, True, ["a"], {"id": "a"}]


@pytest.mark.parametrize("stream_id", WRONG)
def test_other_stream_ids_are_refused(server: ThreadServer, stream_id: Any) -> None:
    with connected(server) as client:
        ask(client, stream_id=stream_id)
        error = next_event(client)
        assert (error["type"], error["error"]["code"]) == ("error", "invalid_stream_id")
        assert (error["status"], error["error"]["param"]) == (400, "stream_id")
        assert error.get("stream_id") == (stream_id if isinstance(stream_id, str) else None)
        ask(client)
        assert events_to_end(client)[-1]["type"] == "response.completed"


def test_errors_have_the_stream_id_of_their_request(server: ThreadServer) -> None:
    with connected(server) as client:
        for fields in (
            {"previous_response_id": "resp_nobodys"},
            {"temperature": "hot"},
            {"background": True},
            {"model": "nobody"},
        ):
            ask(client, stream_id="lane", **fields)
            error = next_event(client)
            assert (error["type"], error["stream_id"]) == ("error", "lane")
        client.send('{"type":"nonsense","stream_id":"lane"}')
        assert next_event(client)["stream_id"] == "lane"
        client.send("{")
        assert "stream_id" not in next_event(client)


def test_a_failed_turn_has_its_stream_id() -> None:
    model = ScriptedModel([fail(UpstreamRateLimitError("Slow down."))])
    with serving(model) as server, connected(server) as client:
        ask(client, stream_id="lane")
        events = events_to_end(client)
        assert events[-1]["type"] == "response.failed"
        assert {one["stream_id"] for one in events} == {"lane"}


def test_lanes_are_answered_at_once_and_each_in_order() -> None:
    first = asyncio.Event()
    model = ScriptedModel([wait(first) + say("one"), "two", "three", "four"])
    with serving(model) as server, connected(server) as client:
        ask(client, "1", stream_id="slow")
        while next_event(client)["type"] != "response.in_progress":
            pass
        ask(client, "2", stream_id="slow")
        ask(client, "3", stream_id="quick")
        quick = events_to_end(client)[-1]
        assert (quick["stream_id"], words_of(quick)) == ("quick", "two")
        ask(client, "4")
        unnamed = events_to_end(client)[-1]
        assert ("stream_id" in unnamed, words_of(unnamed)) == (False, "three")
        server.set(first)
        ends = [events_to_end(client)[-1] for _ in range(2)]
        assert [(one["stream_id"], words_of(one)) for one in ends] == [
            ("slow", "one"),
            ("slow", "four"),
        ]
        assert [json.loads(call.messages)[-1]["content"] for call in model.calls] == [
            "1",
            "3",
            "4",
            "2",
        ]


def test_a_connection_has_at_most_32_lanes_in_use() -> None:
    done = asyncio.Event()
    model = ScriptedModel([wait(done) + say("Done.")] * 32 + ["Now."] * 50)
    with serving(model) as server, connected(server) as client:
        for number in range(33):
            ask(client, stream_id=f"lane-{number}")
        errors: list[Event] = []
        while not errors:
            event = next_event(client)
            errors += [event] if event["type"] == "error" else []
        assert (errors[0]["stream_id"], errors[0]["error"]["code"]) == (
            "lane-32",
            "invalid_stream_id",
        )
        server.set(done)
        ends = {events_to_end(client)[-1]["stream_id"] for _ in range(32)}
        assert ends == {f"lane-{number}" for number in range(32)}
        # Lanes that are not in use make room.
        for number in range(40):
            ask(client, stream_id=f"other-{number}")
            assert events_to_end(client)[-1]["stream_id"] == f"other-{number}"


def test_each_lane_goes_on_from_its_own_unstored_turn_or_another_ones() -> None:
    model = ScriptedModel([f"answer {number}" for number in range(5)])
    with serving(model) as server, connected(server) as client:
        names = {}
        for lane in ("a", "b"):
            ask(client, f"first of {lane}", stream_id=lane, store=False)
            names[lane] = events_to_end(client)[-1]["response"]["id"]
        for lane, previous in (("a", "a"), ("b", "b"), ("c", "b")):
            ask(client, "on", stream_id=lane, store=False, previous_response_id=names[previous])
            end = events_to_end(client)[-1]
            names[lane] = end["response"]["id"]
            if lane == "b":
                names["b"] = end["response"]["id"]
            shown = json.loads(model.calls[-1].messages)
            assert shown[0]["content"] == f"first of {previous}"
        assert server.stored_count() == 0


def test_turns_of_all_lanes_end_with_their_client() -> None:
    model = ScriptedModel([wait(asyncio.Event())] * 3)
    with serving(model) as server:
        with connected(server) as client:
            for lane in ("a", "b", None):
                ask(client, stream_id=lane, store=False)
            while len(model.calls) < 3:
                pass
        server.wait(model.cancelled)
        while server.service.registry.all():
            pass


# ---- turns without output


@pytest.fixture(scope="module")
def world() -> Iterator[Scenario]:
    with scenario() as started:
        started.upstream_answers(lambda _: stream_of(text("Hello"), text(" there."), end(), DONE))
        yield started


SYSTEM = {"role": "developer", "content": "Be brief."}
INPUTS: dict[str, Any] = {
    "socket-warm-up": "I am Bob.",
    "items": [SYSTEM, {"role": "user", "content": "I am Bob."}],
    "nothing": [],
    "null": None,
}


@pytest.mark.parametrize("stream_id", [None, "lane"])
@pytest.mark.parametrize("store", [False, True, None])
@pytest.mark.parametrize("name", INPUTS)
def test_a_turn_may_only_be_prepared(
    world: Scenario, name: str, store: bool | None, stream_id: str | None
) -> None:
    asked = len(world.requests)
    fields = {"store": store, "stream_id": stream_id}
    with connected(world.server) as client:
        ask(client, INPUTS[name], generate=False, instructions="Rhyme.", tools=[LOOKUP], **fields)
        events = events_to_end(client)
        names = [one["type"] for one in events]
        assert names[0] == "response.created"
        assert names[-1] == "response.completed"
        assert set(names) <= {"response.created", "response.in_progress", "response.completed"}
        done = events[-1]["response"]
        assert (done["status"], done["output"], done["error"]) == ("completed", [], None)
        assert done["instructions"] == "Rhyme."
        assert {one.get("stream_id") for one in events} == {stream_id}
        assert len(world.requests) == asked
        assert world.server.get(f"/v1/responses/{done['id']}").status == (
            404 if store is False else 200
        )

        ask(client, "Who am I?", previous_response_id=done["id"], **fields)
        last = events_to_end(client)[-1]
        assert words_of(last) == "Hello there."
        shown = [one["content"] for one in world.requests[-1]["messages"]]
        assert shown[-1] == "Who am I?"
        assert ("I am Bob." in shown) == (name in {"socket-warm-up", "items"})
        assert ("Be brief." in shown) == (name == "items")
        assert not {"generate", "stream_id", "type"} & set(world.requests[-1])


def test_a_prepared_turn_may_be_prepared_further(world: Scenario) -> None:
    with connected(world.server) as client:
        previous = None
        for words in ("One.", "Two."):
            ask(client, words, generate=False, store=False, previous_response_id=previous)
            previous = events_to_end(client)[-1]["response"]["id"]
        ask(client, "Three.", store=False, previous_response_id=previous)
        assert words_of(events_to_end(client)[-1]) == "Hello there."
        shown = [one["content"] for one in world.requests[-1]["messages"]]
        assert shown == ["One.", "Two.", "Three."]


def test_what_is_wrong_with_a_prepared_turn_is_said(world: Scenario) -> None:
    with connected(world.server) as client:
        ask(client, "Hi", generate=False, model="m", previous_response_id="resp_nobodys")
        assert next_event(client)["error"]["code"] == "previous_response_not_found"
        ask(client, "Hi", generate="no")
        assert next_event(client)["error"]["param"] == "generate"
        for generate in (True, None):
            ask(client, "Hi", generate=generate)
            assert words_of(events_to_end(client)[-1]) == "Hello there."
