"""Node interfaces: what clients of each interface do at a node that does not run their turn.

Each function is given the nodes and a number, with which it takes other ones each time.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import pytest
import xai_sdk  # type: ignore[import-untyped]
from websockets.sync.client import ClientConnection, connect
from xai_sdk.chat import user  # type: ignore[import-untyped]
from xai_sdk.proto import (  # type: ignore[import-untyped]
    chat_pb2,
    chat_pb2_grpc,
    deferred_pb2,
)

from support.http_server import TIMEOUT, Address, ServerProcess, parse_chunks
from support.mcp_clients import call, over_http, tool_error
from support.mcp_toolsets import stdio_config
from support.node_cluster import NodeCluster, Stream, started

Json = dict[str, Any]
_FILES: Json = {"type": "mcp", "server_label": "files", "require_approval": "always"}


def files_server() -> str:
    """The settings of an MCP server that every node has."""
    return f"[mcp.files]\ncommand = {json.dumps(list(stdio_config().command))}\n"


# Chat completions.


def _completion(question: str, **fields: Any) -> Json:
    return {"messages": [{"role": "user", "content": question}], "store": True, **fields}


def stream_completion_elsewhere(nodes: NodeCluster, number: int) -> None:
    """A stream of chat completions is live on another node, and has the same bytes."""
    right, wrong = nodes.pair(number)
    gate = f"completion{number}{len(nodes.nodes)}"
    question = f"count to 4 gate:{gate}"
    usage = {"stream_options": {"include_usage": True}} if number % 2 else {}
    fields = _completion(question, stream=True, **usage)
    headers = {"idempotency-key": gate} if number % 3 else {}
    first = Stream(right, "/v1/chat/completions", headers, fields)
    begun = first.read_until(b'" 2"')
    again = headers or {"x-stainless-retry-count": "1"}
    second = Stream(wrong, "/v1/chat/completions", again, fields)
    # Before the turn has ended.
    assert second.read_until(b'" 2"') == begun
    nodes.upstream.open(gate)
    rest = first.read_rest()
    assert second.read_rest() == rest
    assert len(parse_chunks(begun + rest)) == 6 + number % 2
    assert len(nodes.upstream.requests_of(question)) == 1


def defer_elsewhere(nodes: NodeCluster, number: int) -> None:
    """A deferred completion is fetched at any node, stored or not."""
    right, wrong = nodes.pair(number)
    gate = f"defer{number}{len(nodes.nodes)}"
    fields = _completion(f"count to 2 gate:{gate}", deferred=True, store=number % 2 == 1)
    name = right.request("POST", "/v1/chat/completions", fields).json["request_id"]
    path = f"/v1/chat/deferred-completion/{name}"
    assert [node.get(path).status for node in nodes.nodes] == [202] * len(nodes.nodes)
    nodes.upstream.open(gate)
    nodes.wait_until(lambda: wrong.get(path).status == 200)
    bodies = {node.get(path).body for node in nodes.nodes}
    assert len(bodies) == 1
    assert json.loads(bodies.pop())["choices"][0]["message"]["content"] == " 0 1"


# WebSockets.


@contextmanager
def _web_socket(node: Address) -> Iterator[ClientConnection]:
    url = f"ws://127.0.0.1:{node.port}/v1/responses"
    with connect(url, open_timeout=TIMEOUT) as client:
        yield client


def _ask(client: ClientConnection, question: str, **fields: Any) -> None:
    client.send(json.dumps({"type": "response.create", "input": question, **fields}))


def _read_until(client: ClientConnection, kind: str) -> Json:
    while (event := json.loads(client.recv(TIMEOUT)))["type"] != kind:
        assert event["type"] != "error", event
    found: Json = event
    return found


def _text_of(event: Json) -> str:
    return str(event["response"]["output"][0]["content"][0]["text"])


def continue_by_web_socket(nodes: NodeCluster, number: int) -> None:
    """A turn of another node is continued over a WebSocket, and that one over HTTP."""
    right, wrong = nodes.pair(number)
    first = right.respond(f"socket {number}").json["id"]
    with _web_socket(wrong) as client:
        _ask(client, "on", previous_response_id=first)
        done = _read_until(client, "response.completed")
    assert _text_of(done) == "3 messages"
    last = right.respond("on", previous_response_id=done["response"]["id"]).json
    assert last["output"][0]["content"][0]["text"] == "5 messages"


def queue_by_web_socket(nodes: NodeCluster, number: int) -> None:
    """A turn over a WebSocket waits for that of another node on its conversation."""
    right, wrong = nodes.pair(number)
    conversation = wrong.post("/v1/conversations").json["id"]
    gate = f"socket{number}{len(nodes.nodes)}"
    started(right, f"count to 2 gate:{gate}", conversation=conversation)
    with _web_socket(wrong) as client:
        _ask(client, "now", conversation=conversation)
        assert json.loads(client.recv(TIMEOUT))["error"]["code"] == "conversation_locked"
        _ask(client, "then", conversation=conversation, on_busy="queue")
        nodes.upstream.open(gate)
        assert _text_of(_read_until(client, "response.completed")) == "3 messages"


def cancel_of_web_socket(nodes: NodeCluster, number: int) -> None:
    """A turn that runs over a WebSocket is cancelled or deleted at another node."""
    right, wrong = nodes.pair(number)
    question = f"hang socket {number} of {len(nodes.nodes)}"
    with _web_socket(right) as client:
        _ask(client, question)
        name = json.loads(client.recv(TIMEOUT))["response"]["id"]
        _read_until(client, "response.output_text.delta")
        if number % 2:
            assert wrong.post(f"/v1/responses/{name}/cancel").json["status"] == "cancelled"
        else:
            assert wrong.request("DELETE", f"/v1/responses/{name}").status == 200
        ended = _read_until(client, "response.incomplete")
        assert ended["response"]["status"] == "cancelled"
        nodes.upstream.wait_until_left(question)
        # The connection is as good as before.
        _ask(client, "on")
        assert _text_of(_read_until(client, "response.completed")) == "1 messages"


# gRPC.


@contextmanager
def _sdk(node: ServerProcess) -> Iterator[Any]:
    with xai_sdk.Client(
        "any", api_host=node.grpc_address, use_insecure_channel=True, timeout=TIMEOUT
    ) as client:
        yield client


@contextmanager
def _stub(node: ServerProcess) -> Iterator[Any]:
    with grpc.insecure_channel(node.grpc_address) as channel:
        yield chat_pb2_grpc.ChatStub(channel)


def _completions_request(question: str, *, stored: bool) -> Any:
    content = chat_pb2.Content(text=question)
    message = chat_pb2.Message(role=chat_pb2.ROLE_USER, content=[content])
    return chat_pb2.GetCompletionsRequest(
        model="m", messages=[message], store_messages=stored, user="u"
    )


def continue_by_grpc(nodes: NodeCluster, number: int) -> None:
    """The official client continues, reads and deletes what other nodes have answered."""
    right, wrong = nodes.pair(number)
    with _sdk(right) as first, _sdk(wrong) as second:
        chat = first.chat.create("m", messages=[user("one")], store_messages=True)
        name = chat.sample().id
        more = second.chat.create("m", previous_response_id=name, store_messages=True)
        more.append(user("two"))
        *_, (answer, _) = more.stream()
        assert answer.content == "3 messages"
        assert first.chat.get_stored_completion(answer.id)[0].content == "3 messages"
        assert first.chat.delete_stored_completion(answer.id) == answer.id
        with pytest.raises(grpc.RpcError) as gone:
            second.chat.get_stored_completion(answer.id)
        assert gone.value.code() == grpc.StatusCode.NOT_FOUND
    assert wrong.get(f"/v1/responses/{name}").status == 200


def defer_by_grpc(nodes: NodeCluster, number: int) -> None:
    """A deferred completion of gRPC is fetched at any node, stored or not, over HTTP as well."""
    right, wrong = nodes.pair(number)
    gate = f"grpc{number}{len(nodes.nodes)}"
    request = _completions_request(f"count to 2 gate:{gate}", stored=number % 2 == 1)
    with _stub(right) as first, _stub(wrong) as second:
        name = first.StartDeferredCompletion(request).request_id
        get = deferred_pb2.GetDeferredRequest(request_id=name)
        assert second.GetDeferredCompletion(get).status == deferred_pb2.PENDING
        nodes.upstream.open(gate)
        nodes.wait_until(lambda: second.GetDeferredCompletion(get).status == deferred_pb2.DONE)
        answers = [one.GetDeferredCompletion(get).response for one in (first, second)]
    assert answers[0] == answers[1]
    assert answers[0].outputs[0].message.content == " 0 1"
    shown = wrong.get(f"/v1/chat/deferred-completion/{name}").json
    assert shown["choices"][0]["message"]["content"] == " 0 1"


def delete_by_grpc(nodes: NodeCluster, number: int) -> None:
    """A running completion is deleted over gRPC at another node, and its stream ends."""
    right, wrong = nodes.pair(number)
    question = f"hang grpc {number} of {len(nodes.nodes)}"
    with _stub(right) as first, _stub(wrong) as second:
        stream = first.GetCompletionChunk(_completions_request(question, stored=True))
        name = next(iter(stream)).id
        second.DeleteStoredCompletion(chat_pb2.DeleteStoredCompletionRequest(response_id=name))
        nodes.upstream.wait_until_left(question)
        assert len(list(stream)) <= 2
    assert right.get(f"/v1/responses/{name}").status == 404


# MCP.


def continue_by_mcp(nodes: NodeCluster, number: int) -> None:
    """An MCP client continues, reads and deletes turns of other nodes, running ones too."""
    right, wrong = nodes.pair(number)
    first = right.respond(f"tool {number}").json["id"]
    question = f"hang tool {number} of {len(nodes.nodes)}"
    running = started(right, question)

    async def talk() -> None:
        async with over_http(wrong) as client:
            made = await call(client, "stateful_chat", prompt="on", response_id=first)
            assert made["content"] == "3 messages"
            shown = await call(client, "retrieve_stateful_response", response_id=running)
            assert shown["status"] == "in_progress"
            await call(client, "delete_stateful_response", response_id=running)
            error = await tool_error(client, "retrieve_stateful_response", response_id=running)
            assert "No response" in error

    # In a thread of its own: the test may have a loop.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, talk()).result(TIMEOUT)
    nodes.upstream.wait_until_left(question)


# Approvals and the feed.


def approve_elsewhere(nodes: NodeCluster, number: int) -> None:
    """A call that waits for approval at one node is decided at another, once."""
    right, wrong = nodes.pair(number)
    waiting = right.respond(f"use files__add {number}", tools=[_FILES]).json
    request = waiting["output"][-1]
    assert request["type"] == "mcp_approval_request"
    is_approved = number % 2 == 0
    decision = {
        "type": "mcp_approval_response",
        "approval_request_id": request["id"],
        "approve": is_approved,
    }
    fields = {"input": [decision], "tools": [_FILES]}
    decided = wrong.post("/v1/responses", previous_response_id=waiting["id"], **fields).json
    kinds = [item["type"] for item in decided["output"]]
    assert kinds == (["mcp_call", "message"] if is_approved else ["message"])
    if is_approved:
        # Nothing waits any more.
        again = right.post("/v1/responses", previous_response_id=decided["id"], **fields)
        assert again.status == 409, again.body
        assert again.error["code"] == "approval_already_decided"


def decide_at_once(nodes: NodeCluster, number: int) -> None:
    """Of two who decide on a call at two nodes at the same moment one has decided."""
    right, wrong = nodes.pair(number)
    with TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        runs = Path(folder) / "runs"
        given = json.dumps({"file": str(runs), "answer": f"done {number}"})
        waiting = right.respond(f"use files__record {given}", tools=[_FILES]).json
        # Both approve, or one of them refuses; one of them by a WebSocket now and then.
        ways = [_decide, _decide_by_web_socket if number % 3 == 0 else _decide]
        words = [True, number % 2 == 0]
        answers = list(
            pool.map(lambda way, node, word: way(node, waiting, word), ways, (right, wrong), words)
        )
        (made,) = [at for at, (error, _) in enumerate(answers) if error is None]
        assert answers[1 - made] == ("approval_already_decided", answers[made][1])
        children = wrong.get(f"/v1/responses/{waiting['id']}/children").json["data"]
        assert [one["response_id"] for one in children] == [answers[made][1]]
        assert (runs.read_text() if runs.exists() else "") == "run\n" * words[made]


def _decision_fields(waiting: Json, *, approve: bool) -> Json:
    decision = {
        "type": "mcp_approval_response",
        "approval_request_id": waiting["output"][-1]["id"],
        "approve": approve,
    }
    return {"input": [decision], "tools": [_FILES], "previous_response_id": waiting["id"]}


def _decide(node: Address, waiting: Json, approve: bool) -> tuple[str | None, str]:
    """The code of the refusal, if it is refused, and the id of the response that has decided."""
    answer = node.post("/v1/responses", **_decision_fields(waiting, approve=approve))
    if answer.status == 200:
        return None, answer.json["id"]
    return answer.error["code"], answer.error["response_id"]


def _decide_by_web_socket(node: Address, waiting: Json, approve: bool) -> tuple[str | None, str]:
    with _web_socket(node) as client:
        fields = _decision_fields(waiting, approve=approve)
        client.send(json.dumps({"type": "response.create", **fields}))
        while (event := json.loads(client.recv(TIMEOUT)))["type"] != "response.completed":
            if event["type"] == "error":
                return event["error"]["code"], event["error"]["response_id"]
        return None, event["response"]["id"]


def feed_elsewhere(nodes: NodeCluster, number: int) -> None:
    """The feed of one node has what happens at the others, and goes on at any of them."""
    right, wrong = nodes.pair(number)
    feed = Stream(wrong, "/v1/feed")
    cursor = feed.read_until(b"\n\n").split(b"\n")[0].removeprefix(b"id: ").decode()
    name = right.respond(f"feed {number}").json["id"].encode()
    read = _read_to_end_of(feed, name)
    resumed = Stream(right, "/v1/feed", {"last-event-id": cursor})
    resumed.read_until(b"\n\n")
    assert _read_to_end_of(resumed, name) == read


def _read_to_end_of(feed: Stream, name: bytes) -> bytes:
    """What the feed has up to the end of a turn. Others' ends may come before it."""
    read = event = b""
    while b"turn.ended" not in event or name not in event:
        event = feed.read_until(b"\n\n")
        read += event
    feed.close()
    return read


INTERFACE_DEEDS: list[Callable[[NodeCluster, int], None]] = [
    stream_completion_elsewhere,
    defer_elsewhere,
    continue_by_web_socket,
    queue_by_web_socket,
    cancel_of_web_socket,
    continue_by_grpc,
    defer_by_grpc,
    delete_by_grpc,
    continue_by_mcp,
    approve_elsewhere,
    decide_at_once,
    feed_elsewhere,
]
