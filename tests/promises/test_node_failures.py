"""Nodes that die, are stopped or are started again: what becomes of the turns that they ran."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.sync.client import ClientConnection, connect
from xai_sdk.proto import chat_pb2, chat_pb2_grpc  # type: ignore[import-untyped]

from antiphon.bootstrap import RECOVERY_SECONDS
from antiphon.stores.postgres.leases import LEASE_SECONDS
from support.grpc_client import RpcFailure
from support.http_server import TIMEOUT, ServerProcess
from support.node_cluster import NodeCluster, SteeredUpstream, Stream, node_cluster, started
from support.node_interfaces import files_server
from support.postgres_database import empty_database
from support.scenario import UpstreamThread
from support.side_stores import query_file

#: Seconds until others have noticed that a node is dead, as docs and README say. On a busy machine
#: a test may have to wait longer, so that none of them measures it.
NOTICED = 10.0


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return empty_database(tmp_path)
    return f"sqlite:{tmp_path / 'shared.db'}"


@pytest.fixture
def cluster(tmp_path: Path, store: str) -> Iterator[NodeCluster]:
    with node_cluster(tmp_path, store=store) as nodes:
        yield nodes


def poll(look: Callable[[], Any], what: str, seconds: float = TIMEOUT) -> Any:
    """What ``look`` gives once it is true."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError(what)


def response_at(node: Any, response_id: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(node.get(f"/v1/responses/{response_id}").body)
    return answer


def ended_at(node: Any, response_id: str, seconds: float = TIMEOUT) -> dict[str, Any]:
    """A response as a node shows it, once it has ended."""

    def look() -> dict[str, Any] | None:
        response = response_at(node, response_id)
        return None if response["status"] in {"queued", "in_progress"} else response

    found: dict[str, Any] = poll(look, f"{response_id} did not end", seconds)
    return found


def begin_in_background(node: Any, question: str, upstream: SteeredUpstream) -> str:
    """The id of a background turn whose model is being asked."""
    created = json.loads(node.respond(question, background=True).body)
    poll(lambda: upstream.requests_of(question), "the model was not asked")
    return str(created["id"])


def text_of(response: dict[str, Any]) -> str:
    return "".join(part["text"] for item in response["output"] for part in item["content"])


@pytest.mark.slow
def test_background_turn_of_a_killed_node_is_answered_whole_by_another(
    cluster: NodeCluster,
) -> None:
    first, second = cluster.nodes
    question = "count to 3 gate:a"
    response_id = begin_in_background(first, question, cluster.upstream)
    first.kill()
    poll(lambda: len(cluster.upstream.requests_of(question)) == 2, "it was not run again")
    cluster.upstream.open("a")
    response = ended_at(second, response_id)
    assert (response["status"], text_of(response)) == ("completed", " 0 1 2")
    assert len(cluster.upstream.requests_of(question)) == 2
    follow_up = json.loads(second.respond("Hi", previous_response_id=response_id).body)
    assert text_of(follow_up) == "3 messages"


def test_dead_node_is_noticed_within_ten_seconds() -> None:
    # Its lease, and the time until another one looks.
    assert LEASE_SECONDS + RECOVERY_SECONDS < NOTICED


def tools_of(response: dict[str, Any]) -> list[dict[str, Any]]:
    return [item for item in response["output"] if item["type"] == "mcp_call"]


def outputs_of(response: dict[str, Any]) -> list[dict[str, Any]]:
    """The calls that have their outputs."""
    return [one for one in tools_of(response) if one["output"] is not None]


@pytest.fixture
def tool_cluster(tmp_path: Path, store: str) -> Iterator[NodeCluster]:
    with node_cluster(tmp_path, store=store, settings=files_server()) as nodes:
        yield nodes


FILES = [{"type": "mcp", "server_label": "files", "require_approval": "never"}]


@pytest.mark.slow
def test_tool_that_has_answered_is_not_run_again_when_its_node_is_killed(
    tool_cluster: NodeCluster, tmp_path: Path
) -> None:
    first, second = tool_cluster.nodes
    runs, answer = tmp_path / "runs", "count to 2 gate:tool"
    question = f"use files__record {json.dumps({'file': str(runs), 'answer': answer})}"
    created = first.respond(question, background=True, tools=FILES)
    name = str(created.json["id"])
    upstream = tool_cluster.upstream
    poll(lambda: upstream.requests_of(answer), "the model was not given the output")
    # The model is asked while the output is being stored.
    (stored,) = poll(lambda: outputs_of(response_at(second, name)), "it was not stored")
    first.kill()
    poll(lambda: len(upstream.requests_of(answer)) == 2, "it was not run again")
    upstream.open("tool")
    response = ended_at(second, name)
    assert response["status"] == "completed"
    assert tools_of(response) == [stored]
    assert stored["output"] == answer
    assert runs.read_text() == "run\n"


@pytest.mark.slow
def test_tool_that_may_have_run_when_its_node_was_killed_is_not_run_again(
    tool_cluster: NodeCluster, tmp_path: Path
) -> None:
    first, second = tool_cluster.nodes
    runs = tmp_path / "runs"
    question = f"use files__record {json.dumps({'file': str(runs)})}"
    name = str(first.respond(question, background=True, tools=FILES).json["id"])
    poll(runs.exists, "the tool was not run")
    first.kill()
    response = ended_at(second, name)
    assert response["status"] == "completed"
    (call,) = tools_of(response)
    assert call["error"]
    assert runs.read_text() == "run\n"


@pytest.mark.slow
def test_decision_of_a_killed_node_is_made_again(tool_cluster: NodeCluster, tmp_path: Path) -> None:
    first, second = tool_cluster.nodes
    runs = tmp_path / "runs"
    tools = [{**FILES[0], "require_approval": "always"}]
    question = f"use files__record {json.dumps({'file': str(runs)})}"
    waiting = first.respond(question, tools=tools).json

    def fields(*, approve: bool) -> dict[str, Any]:
        name = waiting["output"][-1]["id"]
        word = {"type": "mcp_approval_response", "approval_request_id": name, "approve": approve}
        return {"input": [word], "tools": tools, "previous_response_id": waiting["id"]}

    with closing(first.connect()) as connection:
        body = json.dumps({**fields(approve=True), "stream": True})
        connection.request("POST", "/v1/responses", body, {"content-type": "application/json"})
        poll(runs.exists, "the tool was not run")
        late = second.post("/v1/responses", **fields(approve=True))
        assert late.error["code"] == "approval_already_decided"
        first.kill()
    ended_at(second, late.error["response_id"])
    again = second.post("/v1/responses", **fields(approve=False))
    assert again.json["status"] == "completed"
    # The third one finds the second, not the first.
    third = second.post("/v1/responses", **fields(approve=False))
    assert third.error["response_id"] == again.json["id"]
    assert runs.read_text() == "run\n"


@pytest.mark.slow
def test_other_turns_of_a_killed_node_end_as_interrupted(cluster: NodeCluster) -> None:
    first, second = cluster.nodes
    with closing(first.connect()) as connection:
        body = json.dumps({"input": "hang", "stream": True})
        connection.request("POST", "/v1/responses", body, {"content-type": "application/json"})
        poll(lambda: cluster.upstream.requests_of("hang"), "the model was not asked")
        # The model is asked while the input is being stored.
        listed = poll(lambda: second.get("/v1/responses").json["data"], "it was not stored")
        (response_id,) = [one["id"] for one in listed]
        first.kill()
        response = ended_at(second, response_id)
    assert (response["status"], response["error"]["code"]) == ("failed", "interrupted")


@contextmanager
def draining_pair(
    folder: Path, store: str, seconds: str
) -> Iterator[tuple[SteeredUpstream, ServerProcess, ServerProcess]]:
    """An upstream and two nodes, of which the first drains for so long."""
    homes = [folder / "first", folder / "second"]
    for home in homes:
        home.mkdir()
    flags = ["--drain-seconds", seconds]
    with UpstreamThread() as thread:
        upstream = SteeredUpstream(thread)
        with (
            ServerProcess(homes[0], upstream.base_url, store=store, flags=flags) as first,
            ServerProcess(homes[1], upstream.base_url, store=store) as second,
        ):
            yield upstream, first, second


@pytest.mark.slow
def test_draining_node_hands_its_background_turns_over(tmp_path: Path, store: str) -> None:
    with draining_pair(tmp_path, store, "0.5") as (upstream, first, second):
        question = "count to 2 gate:b"
        response_id = begin_in_background(first, question, upstream)
        streams = [
            Stream(node, f"/v1/responses/{response_id}?stream=true") for node in (first, second)
        ]
        for one in streams:
            one.read_events(5)
        assert first.stop() == 0
        here, elsewhere = streams
        assert b"turn_taken_over" in here.read_rest()
        assert_goes_on(upstream, second, response_id, question)
        # Who reads it through a node that stays notices nothing.
        rest = elsewhere.read_rest()
        assert b"turn_taken_over" not in rest
        assert rest.endswith(b"data: [DONE]\n\n")
        assert b"response.completed" in rest


def begin_drain(server: ServerProcess) -> None:
    """Send a server SIGTERM, and return once it drains: then the readers of its feed have gone."""
    feed = Stream(server, "/v1/feed")
    feed.read_until(b"feed.ready")
    server.process.send_signal(signal.SIGTERM)
    feed.read_rest()


def assert_goes_on(
    upstream: SteeredUpstream, node: ServerProcess, response_id: str, question: str
) -> None:
    """A turn that is handed over, ``count to 2 gate:b``, is run again and ends."""
    poll(lambda: len(upstream.requests_of(question)) == 2, "it was not run again")
    upstream.open("b")
    response = ended_at(node, response_id)
    assert (response["status"], text_of(response)) == ("completed", " 0 1")


@pytest.mark.slow
def test_request_that_waits_for_a_conversation_when_its_node_stops_is_done_by_another(
    tmp_path: Path, store: str
) -> None:
    # Long enough for a busy machine to read the request.
    with draining_pair(tmp_path, store, "3") as (upstream, first, second):
        conversation = second.post("/v1/conversations").json["id"]
        started(first, "hang", conversation=conversation)
        fields = {"input": "second", "conversation": conversation, "on_busy": "queue"}
        key = {"idempotency-key": "order-18"}
        with closing(first.connect()) as connection:
            send_when_expected(connection, fields, key)
            assert first.stop() == 0
            answer = connection.getresponse()
            assert answer.status == 503
            assert json.loads(answer.read())["error"]["code"] == "draining"
        assert second.request("POST", "/v1/responses", fields, key).status == 200
        assert len(upstream.requests_of("second")) == 1


def send_when_expected(
    connection: HTTPConnection, fields: dict[str, Any], headers: dict[str, str]
) -> None:
    """Send a request for a turn, whose body the server has begun to read."""
    body = json.dumps(fields).encode()
    connection.putrequest("POST", "/v1/responses")
    length = {"content-type": "application/json", "content-length": str(len(body))}
    for name, value in {**headers, **length, "expect": "100-continue"}.items():
        connection.putheader(name, value)
    connection.endheaders()
    assert b" 100 " in connection.sock.recv(100)
    connection.send(body)


@pytest.mark.slow
def test_interrupt_ends_the_drain_that_another_sigterm_does_not_shorten(
    tmp_path: Path, store: str
) -> None:
    with draining_pair(tmp_path, store, "600") as (upstream, first, second):
        question = "count to 2 gate:b"
        response_id = begin_in_background(first, question, upstream)
        hanging, counting = [
            Stream(first, "/v1/responses", body={"input": text, "stream": True})
            for text in ("hang", "count to 2 gate:c")
        ]
        hanging.read_events(4)
        counting.read_events(4)
        begin_drain(first)
        first.process.send_signal(signal.SIGTERM)
        upstream.open("c")
        assert b"response.completed" in counting.read_rest()
        assert len(upstream.requests_of(question)) == 1
        first.process.send_signal(signal.SIGINT)
        assert b'"code":"interrupted"' in hanging.read_rest()
        assert first.process.wait(TIMEOUT) == 0
        assert_goes_on(upstream, second, response_id, question)


@pytest.mark.slow
def test_node_that_is_killed_while_it_drains_leaves_its_turns_to_others(
    tmp_path: Path, store: str
) -> None:
    with draining_pair(tmp_path, store, "600") as (upstream, first, second):
        question = "count to 2 gate:b"
        response_id = begin_in_background(first, question, upstream)
        hanging = started(first, "hang here")
        begin_drain(first)
        first.kill()
        assert_goes_on(upstream, second, response_id, question)
        ended = ended_at(second, hanging)
        assert (ended["status"], ended["error"]["code"]) == ("failed", "interrupted")


def read_to_close(socket: ClientConnection) -> Iterator[str | bytes]:
    """The messages of a WebSocket until it is closed."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            yield socket.recv(TIMEOUT)


@pytest.mark.slow
def test_draining_node_ends_what_still_runs_for_readers_of_every_interface(
    tmp_path: Path, store: str
) -> None:
    with UpstreamThread() as thread:
        upstream = SteeredUpstream(thread)
        flags = ["--drain-seconds", "0.5"]
        with ServerProcess(tmp_path, upstream.base_url, store=store, flags=flags) as server:
            url = f"ws://127.0.0.1:{server.port}/v1/responses"
            with connect(url) as socket, grpc.insecure_channel(server.grpc_address) as channel:
                socket.send(json.dumps({"type": "response.create", "input": "hang socket"}))
                while "output_text.delta" not in (message := socket.recv(TIMEOUT)):
                    assert "error" not in json.loads(message)["type"]
                content = [chat_pb2.Content(text="hang grpc")]
                words = [chat_pb2.Message(role=chat_pb2.ROLE_USER, content=content)]
                chunks = chat_pb2_grpc.ChatStub(channel).GetCompletionChunk(
                    chat_pb2.GetCompletionsRequest(model="m", messages=words, store_messages=True)
                )
                next(iter(chunks))
                body = {"input": "hang events", "stream": True}
                events = Stream(server, "/v1/responses", body=body)
                events.read_events(4)
                begin_drain(server)
                *_, last = read_to_close(socket)
                assert json.loads(last)["type"] == "response.failed"
                assert socket.close_code == CloseCode.SERVICE_RESTART
                assert b'"code":"interrupted"' in events.read_rest()
                with pytest.raises(grpc.RpcError) as ended:
                    list(chunks)
                assert RpcFailure(ended.value).error == "interrupted"
            assert server.process.wait(TIMEOUT) == 0


@pytest.mark.slow
def test_background_turn_goes_on_when_the_only_server_is_started_again(tmp_path: Path) -> None:
    with UpstreamThread() as thread:
        upstream = SteeredUpstream(thread)
        question = "count to 2 gate:c"
        with ServerProcess(tmp_path, upstream.base_url, flags=["--drain-seconds", "0"]) as first:
            response_id = begin_in_background(first, question, upstream)
            assert first.stop() == 0
        upstream.open("c")
        with ServerProcess(tmp_path, upstream.base_url) as second:
            response = ended_at(second, response_id)
            assert (response["status"], text_of(response)) == ("completed", " 0 1")


@pytest.mark.slow
def test_workers_share_a_port_and_a_killed_one_is_started_again(tmp_path: Path) -> None:
    with UpstreamThread() as thread:
        upstream = SteeredUpstream(thread)
        with ServerProcess(tmp_path, upstream.base_url, flags=["--workers", "2"]) as server:
            workers = poll(lambda: _children(server), "there are no workers")
            assert len(workers) == 2
            question = "count to 2 gate:d"
            ids = [
                str(json.loads(server.respond(f"{question} {n}", background=True).body)["id"])
                for n in range(12)
            ]
            # Whichever worker is asked shows them all.
            assert {response_at(server, one)["id"] for one in ids} == set(ids)
            poll(
                lambda: all(upstream.requests_of(f"{question} {n}") for n in range(12)),
                "a model was not asked",
            )
            os.kill(workers[0], signal.SIGKILL)
            poll(lambda: set(_children(server)) - set(workers), "no other worker was started")
            upstream.open("d")
            for one in ids:
                response = ended_at(server, one)
                assert (response["status"], text_of(response)) == ("completed", " 0 1")
            assert server.stop() == 0
        assert "another one is started" in server.log_text()


def _children(server: ServerProcess) -> list[int]:
    pid = server.process.pid
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
@pytest.mark.slow
def test_request_of_a_killed_node_is_repeated_by_its_idempotency_key_at_once(
    cluster: NodeCluster,
) -> None:
    dying, other = cluster.nodes[:2]
    conversation = dying.post("/v1/conversations").json["id"]
    started(dying, "hang", conversation=conversation)
    second = {"input": "second", "conversation": conversation, "on_busy": "queue"}
    key = {"idempotency-key": "order-17"}
    with closing(dying.connect()) as connection:
        # It has its key, and waits for the turn before it.
        headers = {"content-type": "application/json", **key}
        connection.request("POST", "/v1/responses", json.dumps(second), headers)
        path = Path(cluster.store.removeprefix("sqlite:"))
        reserved = "SELECT 1 FROM idempotency_records WHERE result_id IS NULL"
        poll(lambda: query_file(path, reserved), "the key was not reserved")
        dying.kill()
    assert other.request("POST", "/v1/responses", second, key).status == 200
    assert len(cluster.upstream.requests_of("second")) == 1
