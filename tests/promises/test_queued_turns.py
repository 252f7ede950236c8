"""Queued turns over HTTP: sent once and in order, whatever dies, and erased like any other."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.http_server import TIMEOUT, Address, ServerProcess, parse_events
from support.node_cluster import NodeCluster, SteeredUpstream, Stream, node_cluster, started
from support.postgres_database import empty_database
from support.scenario import UpstreamThread

FIRST = "count to 1 gate:a"


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return empty_database(tmp_path)
    return f"sqlite:{tmp_path / 'shared.db'}"


@pytest.fixture
def cluster(tmp_path: Path, store: str) -> Iterator[NodeCluster]:
    with node_cluster(tmp_path, store=store) as nodes:
        yield nodes


def poll(look: Callable[[], bool], what: str, seconds: float = TIMEOUT) -> None:
    """Wait until something is so."""
    until = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < until, what
        time.sleep(0.05)


def queue(node: Address, text: str, after: str, key: str | None = None, **more: Any) -> str:
    body = {"input": text, "previous_response_id": after, "background": True, "on_busy": "queue"}
    headers = {"idempotency-key": key} if key else {}
    answer = node.request("POST", "/v1/responses", {**body, **more}, headers)
    assert answer.status == 200, answer.body
    assert answer.json["status"] == "queued"
    return str(answer.json["id"])


def response(node: Address, name: str) -> dict[str, Any]:
    return node.get(f"/v1/responses/{name}").json


def statuses(node: Address, *names: str) -> list[str]:
    return [response(node, name)["status"] for name in names]


def text_of(node: Address, name: str) -> str:
    """The text of a response, once it has ended well."""
    poll(lambda: response(node, name)["status"] == "completed", f"{name} was not answered")
    output = response(node, name)["output"]
    return "".join(part["text"] for item in output for part in item["content"])


def test_queue_is_the_same_at_every_node_and_goes_on_by_itself(cluster: NodeCluster) -> None:
    first, second = cluster.nodes
    running = started(first, FIRST)
    one = queue(second, "one", running, "key")
    assert queue(first, "one", running, "key") == one
    two = queue(first, "two", one)
    for node in cluster.nodes:
        assert statuses(node, running, one, two) == ["in_progress", "queued", "queued"]
        turns = node.get(f"/v1/responses/{two}/turns").json["data"]
        assert [turn["response"]["status"] for turn in turns] == ["in_progress", "queued", "queued"]
        assert node.get("/v1/chats").json["data"][0]["status"] == "running"
        late = node.respond("late", previous_response_id=one)
        assert (late.status, late.error["code"]) == (409, "response_in_progress")
    cluster.upstream.open("a")
    assert text_of(first, two) == "5 messages"
    assert text_of(second, one) == "3 messages"
    assert len(cluster.upstream.requests) == 3


def test_every_interface_tells_what_is_queued_from_what_runs(cluster: NodeCluster) -> None:
    first, second = cluster.nodes
    running = started(first, FIRST)
    queued = [queue(second, "one", running)]
    queued.append(queue(first, "two", queued[0]))
    beside = queue(first, "beside", running)
    for node in cluster.nodes:

        def listed(path: str, field: str, node: Address = node) -> list[tuple[str, str]]:
            answer = node.get(path)
            assert answer.status == 200, answer.body
            return [(one[field], one["status"]) for one in answer.json["data"]]

        shown = [(one, "queued") for one in (*queued, beside)]
        begun = (running, "in_progress")
        assert listed("/v1/responses?order=asc", "id") == [begun, *shown]
        assert listed("/v1/responses?status=in_progress&limit=1", "id") == [begun]
        assert listed("/v1/responses?status=queued&order=asc", "id") == shown
        newest = "/v1/responses?status=queued&limit=2"
        assert listed(newest, "id") == [shown[2], shown[1]]
        assert node.get(newest).json["has_more"]
        assert listed(f"{newest}&after={queued[1]}", "id") == [shown[0]]
        assert not node.get(f"{newest}&after={queued[1]}").json["has_more"]
        assert listed(f"/v1/responses/{running}/siblings", "response_id") == [begun]
        together = [shown[0], shown[2]]
        assert listed(f"/v1/responses/{running}/children", "response_id") == together
        assert listed(f"/v1/responses/{beside}/siblings", "response_id") == together
        assert listed(f"/v1/chats/{running}/branches", "response_id") == shown[1:]
        exported = node.get(f"/v1/chats/{running}/export?format=html").body.decode()
        assert exported.count("waits for the answer before it") == 1


def test_queue_of_a_stopped_turn_waits_until_it_is_removed(cluster: NodeCluster) -> None:
    first, second = cluster.nodes
    running = started(first, FIRST)
    one = queue(second, "one", running)
    two = queue(second, "two", one)
    assert second.request("POST", f"/v1/responses/{running}/cancel").json["status"] == "cancelled"
    for node in cluster.nodes:
        assert statuses(node, running, one, two) == ["cancelled", "queued", "queued"]
        assert node.get("/v1/chats").json["data"][0]["status"] == "idle"
    # Whichever node has it.
    assert first.request("DELETE", f"/v1/responses/{two}").status == 200
    assert first.request("POST", f"/v1/responses/{one}/cancel").json["status"] == "cancelled"
    assert len(cluster.upstream.requests) == 1


def test_stream_of_a_queued_turn_is_the_one_that_is_read_again(cluster: NodeCluster) -> None:
    first, second = cluster.nodes
    running = started(first, FIRST)
    body = {"input": "count to 3", "previous_response_id": running, "stream": True}
    stream = Stream(second, "/v1/responses", None, {**body, "background": True, "on_busy": "queue"})
    begin = stream.read_events(2)
    name = json.loads(begin.partition(b"data: ")[2].partition(b"\n")[0])["response"]["id"]
    # It is opened, though nothing comes before the gate is open.
    elsewhere = Stream(first, f"/v1/responses/{name}?stream=true&starting_after=1")
    cluster.upstream.open("a")
    raw = begin + stream.read_rest()
    events = parse_events(raw)
    assert [one["type"] for one in events[:3]] == [
        "response.created",
        "response.queued",
        "response.in_progress",
    ]
    assert [one["response"]["status"] for one in events[:3]] == ["queued", "queued", "in_progress"]
    assert events[-1]["response"]["status"] == "completed"
    for node in cluster.nodes:
        again = node.get(f"/v1/responses/{name}?stream=true").without_ids
        assert [one["type"] for one in parse_events(again)] == [one["type"] for one in events]
    assert b"response.completed" in elsewhere.read_rest()


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_queue_outlives_the_node_that_has_it(cluster: NodeCluster, victim: int) -> None:
    first, second = cluster.nodes
    running = started(first, FIRST)
    one = queue(second, "one", running)
    two = queue(second, "two", one)
    dead, alive = cluster.nodes[victim], cluster.nodes[1 - victim]
    dead.kill()
    if victim == 0:
        # Nobody has said that what follows is to be sent though the answer is lost.
        poll(lambda: response(alive, running)["status"] == "failed", "it did not end")
        assert statuses(alive, one, two) == ["queued", "queued"]
        assert len(cluster.upstream.requests) == 1
        return
    assert statuses(alive, running, one, two) == ["in_progress", "queued", "queued"]
    cluster.upstream.open("a")
    assert text_of(alive, two) == "5 messages"
    assert len(cluster.upstream.requests) == 3


@pytest.mark.slow
@pytest.mark.parametrize("way", ["kill", "stop"])
def test_queue_outlives_the_only_server(tmp_path: Path, store: str, way: str) -> None:
    with UpstreamThread() as thread:
        upstream = SteeredUpstream(thread)
        with ServerProcess(tmp_path, upstream.base_url, store=store) as server:
            running = str(server.respond(FIRST, background=True).json["id"])
            poll(lambda: bool(upstream.requests_of(FIRST)), "the model was not asked")
            one = queue(server, "one", running)
            two = queue(server, "two", one)
            if way == "kill":
                server.kill()
            else:
                server.request("POST", f"/v1/responses/{running}/cancel")
                assert server.stop() == 0
        with ServerProcess(tmp_path, upstream.base_url, store=store) as server:
            assert statuses(server, one, two) == ["queued", "queued"]
            if way == "stop":
                assert response(server, running)["status"] == "cancelled"
                assert len(upstream.requests) == 1
                return
            upstream.open("a")
            assert text_of(server, two) == "5 messages"
            assert [len(upstream.requests_of(text)) for text in ("one", "two")] == [1, 1]


def test_words_of_an_erased_queue_are_in_no_file(tmp_path: Path) -> None:
    with UpstreamThread() as thread:
        upstream = SteeredUpstream(thread)
        with ServerProcess(tmp_path, upstream.base_url) as server:
            running = started(server, FIRST)
            one = queue(server, "quixotic", running)
            two = queue(server, "zephyrous", one)
            files = server.database.parent

            def has(word: bytes) -> bool:
                return any(word in file.read_bytes() for file in files.iterdir() if file.is_file())

            assert has(b"quixotic")
            assert server.request("DELETE", f"/v1/responses/{one}").status == 200
            poll(lambda: not has(b"quixotic"), "the words are still there", 10)
            assert has(b"zephyrous")
            assert server.request("DELETE", f"/v1/chats/{running}").status == 200
            poll(lambda: not has(b"zephyrous"), "the words are still there", 10)
            assert [server.get(f"/v1/responses/{name}").status for name in (one, two)] == [404, 404]
