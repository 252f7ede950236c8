"""The feed over HTTP: what changes, in order, resumed by its ids, by any process of the file."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from antiphon.api.http.asgi_responses import KeepAlive
from antiphon.models.scripted import ScriptedModel, wait
from support.http_server import TIMEOUT, Address, ServerProcess, ThreadServer, serving
from support.keyed_server import serving_with_keys


@pytest.fixture(params=["memory", "sqlite"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ThreadServer]:
    store = tmp_path / "a.db" if request.param == "sqlite" else None
    with serving(ScriptedModel(), store) as started:
        yield started


class Follower:
    """A client of the feed, which has read its first event."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.answer = answer
        self.last_id = ""
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert self.read()["type"] == "feed.ready"

    def read(self) -> dict[str, Any]:
        """The next event's data."""
        while True:
            fields: dict[str, str] = {}
            while line := self.answer.readline().decode().rstrip("\n"):
                name, _, value = line.partition(": ")
                fields[name] = value
            self.last_id = fields.get("id", self.last_id)
            if "data" in fields:
                data: dict[str, Any] = json.loads(fields["data"])
                assert fields["event"] == data["type"]
                return data
            assert fields, "the feed has ended"

    def read_types(self, count: int) -> list[str]:
        return [self.read()["type"] for _ in range(count)]


@contextmanager
def following(
    server: Address, after: str | None = None, headers: dict[str, str] | None = None
) -> Iterator[Follower]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)
    resume = {} if after is None else {"Last-Event-ID": after}
    connection.request("GET", "/v1/feed", headers={**resume, **(headers or {})})
    answer = connection.getresponse()
    try:
        yield Follower(answer)
    finally:
        answer.close()
        connection.close()


def test_feed_has_every_change_in_order_and_no_words(server: ThreadServer) -> None:
    with following(server) as feed:
        talk = server.post("/v1/conversations").json["id"]
        one = server.respond("A secret", conversation=talk).json["id"]
        chat = f"chat_{one[5:]}"
        server.request("POST", f"/v1/chats/{chat}", {"title": "A secret"})
        two = server.respond("A secret", previous_response_id=one).json["id"]
        server.request("DELETE", f"/v1/responses/{two}")
        server.request("DELETE", f"/v1/chats/{chat}")
        seen = [feed.read() for _ in range(9)]
    assert [event["type"] for event in seen[:7]] == [
        "conversation.created",
        "turn.started",
        "turn.ended",
        "chat.updated",
        "turn.started",
        "turn.ended",
        "turn.erased",
    ]
    assert {event["type"] for event in seen[7:]} == {"conversation.erased", "chat.erased"}
    started, ended = seen[1:3]
    assert (started["chat_id"], started["response_id"], started["conversation"]) == (
        chat,
        one,
        talk,
    )
    assert ended == {**started, "type": "turn.ended", "status": "completed", "at": ended["at"]}
    assert "secret" not in json.dumps(seen)


def test_feed_continues_behind_the_last_event_that_was_received(server: ThreadServer) -> None:
    with following(server) as feed:
        one = server.respond("Hi.").json["id"]
        assert feed.read()["response_id"] == one
        cursor = feed.last_id
    two = server.respond("Hi.").json["id"]
    with following(server, cursor) as feed:
        seen = [feed.read() for _ in range(3)]
        assert [(event["type"], event["response_id"]) for event in seen] == [
            ("turn.ended", one),
            ("turn.started", two),
            ("turn.ended", two),
        ]
        # And goes on with what comes.
        three = server.respond("Hi.").json["id"]
        assert feed.read()["response_id"] == three
    with following(server, feed.last_id) as again:
        last = again.read()
        assert (last["type"], last["response_id"]) == ("turn.ended", three)


@pytest.mark.parametrize("cursor", ["999999.1.0123abcd", "1.1", "nonsense", "-1.0", ""])
def test_feed_resets_a_reader_with_an_unknown_cursor(server: ThreadServer, cursor: str) -> None:
    server.respond("Hi.")
    with following(server, cursor) as feed:
        if cursor:
            assert feed.read()["type"] == "feed.reset"
        server.respond("Hi.")
        assert feed.read_types(2) == ["turn.started", "turn.ended"]


def test_feed_shows_a_tenant_its_own_changes_only() -> None:
    with serving_with_keys(ScriptedModel()) as site:
        owner, other = site.client("owner"), site.client("other")
        with following(site.server, headers=dict(owner.headers)) as feed:
            other.respond("Hi.")
            mine = owner.respond("Hi.").json["id"]
            assert [feed.read().get("response_id") for _ in range(2)] == [mine, mine]


def test_feed_ends_soon_after_its_key_is_revoked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KeepAlive, "INTERVAL", 0.05)
    with serving_with_keys(ScriptedModel()) as site:
        owner = site.client("owner")
        with following(site.server, headers=dict(owner.headers)) as feed:
            site.revoke(owner)
            # Returns at its end.
            feed.answer.read()


@pytest.mark.slow
def test_two_processes_on_one_file_see_each_others_changes(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as first, ServerProcess(tmp_path) as second:
        with following(first) as one, following(second) as two:
            made = [first.respond("Hi.").json["id"], second.respond("Hi.").json["id"]]
            for feed in (one, two):
                seen = [feed.read() for _ in range(4)]
                assert sorted({event["response_id"] for event in seen}) == sorted(made)
        cursor = one.last_id
        first.stop()
        made.append(second.respond("Hi.").json["id"])
        with following(second, cursor) as feed:
            assert feed.read()["response_id"] == made[-1], "a cursor outlives its process"


def test_server_that_stops_ends_its_feeds_at_once(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server, following(server) as feed:
        assert server.stop() == 0
        assert feed.answer.read() == b""


def test_stream_that_is_read_again_resumes_by_the_last_events_id(server: ThreadServer) -> None:
    made = server.respond("Hi.").json["id"]
    connection = server.connect()
    connection.request("GET", f"/v1/responses/{made}?stream=true", headers={"Last-Event-ID": "2"})
    blocks = connection.getresponse().read().decode().split("\n\n")
    connection.close()
    first = json.loads(blocks[0].split("data: ")[1])
    assert first["sequence_number"] == 3
    assert blocks[0].startswith("id: 3\n")


def test_running_turn_is_in_the_feed_before_it_ends() -> None:
    go_on = asyncio.Event()
    model = ScriptedModel([wait(go_on)])
    with serving(model) as server, following(server) as feed:
        made = server.post("/v1/responses", input="Hi.", background=True).json["id"]
        assert feed.read()["type"] == "turn.started"
        assert server.get("/v1/chats?status=running").json["data"][0]["head"] == made
        server.set(go_on)
        assert feed.read()["type"] == "turn.ended"
        assert server.get("/v1/chats?status=running").json["data"] == []
