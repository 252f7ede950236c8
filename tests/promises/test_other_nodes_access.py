"""Nodes and who may use them: tenants, limits of keys, the secret between nodes; their deaths."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from support.http_server import Address, Answer
from support.mcp_clients import over_http
from support.node_cluster import NodeCluster, Stream, node_cluster, started

#: Few, so that two nodes that count for themselves would let too many pass.
LIMITS = """
log_level = "debug"
[tenants.poor]
requests_per_minute = 6
[tenants.busy]
concurrent_turns = 2
"""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeCluster]:
    """Three nodes with keys and limits."""
    home = tmp_path_factory.mktemp("nodes")
    with node_cluster(home, 3, settings=LIMITS) as opened:
        yield opened


def secret_of(cluster: NodeCluster) -> str:
    """The secret that the nodes of a SQLite file share."""
    with sqlite3.connect(cluster.store.removeprefix("sqlite:")) as connection:
        ((secret,),) = connection.execute("SELECT secret FROM node_secret").fetchall()
    connection.close()
    return bytes(secret).hex()


def respond(node: Address, key: dict[str, str], question: str = "Hi", **fields: Any) -> Answer:
    return node.request("POST", "/v1/responses", {"input": question, **fields}, key)


def test_another_tenants_turn_is_missing_on_every_node(nodes: NodeCluster) -> None:
    owner, other = nodes.make_key("rich"), nodes.make_key("rich2")
    name = started(nodes.nodes[0], "hang for rich", owner)
    missing = "resp_" + "0" * 32
    for node in nodes.nodes:
        for method, path in (
            ("GET", "/v1/responses/{}?stream=true"),
            ("POST", "/v1/responses/{}/cancel"),
            ("DELETE", "/v1/responses/{}"),
            ("DELETE", "/v1/chats/{}"),
        ):
            theirs = node.request(method, path.format(name), None, other)
            nobodys = node.request(method, path.format(missing), None, other)
            assert theirs.status == 404
            assert theirs.body == nobodys.body.replace(missing.encode(), name.encode())
    assert nodes.nodes[1].request("DELETE", f"/v1/responses/{name}", None, owner).status == 200


def test_a_node_answers_others_by_the_secret_alone(nodes: NodeCluster) -> None:
    key = nodes.make_key("rich")
    name = started(nodes.nodes[0], "hang for nodes", key)
    assert nodes.nodes[1].request("POST", f"/v1/responses/{name}/cancel", None, key).status == 200
    secret = secret_of(nodes)
    fields = {"tenant": "rich", "response_id": name}
    for headers in ({}, key, {"x-antiphon-node": "0" * 64}, {"x-antiphon-node": ""}):
        refused = nodes.nodes[0].request("PUT", "/internal/cancel", fields, {**key, **headers})
        assert refused.status == (401 if "x-antiphon-node" in headers else 404)
        assert secret.encode() not in refused.body
    admitted = nodes.nodes[0].request(
        "PUT", "/internal/cancel", fields, {"x-antiphon-node": secret}
    )
    assert admitted.json == {"is_found": False}
    # No more than that is to be had by it: it is no key.
    listed = nodes.nodes[0].request("GET", "/v1/responses", {}, {"x-antiphon-node": secret})
    assert (listed.status, listed.error["code"]) == (404, "unknown_url")
    assert secret not in nodes.log()


def test_a_key_has_its_requests_once_however_many_nodes_there_are(nodes: NodeCluster) -> None:
    key = nodes.make_key("poor")
    answers = [respond(nodes.nodes[number % 3], key) for number in range(8)]
    assert [one.status for one in answers[:7]] == [200] * 6 + [429]
    remaining = [int(one.headers["x-ratelimit-remaining-requests"]) for one in answers[:7]]
    assert remaining == [5, 4, 3, 2, 1, 0, 0]
    assert "retry-after" in answers[6].headers


def test_a_key_has_its_turns_once_however_many_nodes_there_are(nodes: NodeCluster) -> None:
    key = nodes.make_key("busy")
    running = [started(nodes.nodes[number], f"hang busy {number}", key) for number in range(2)]
    for node in nodes.nodes:
        assert respond(node, key).error["code"] == "rate_limit_exceeded"
    nodes.nodes[2].request("POST", f"/v1/responses/{running[0]}/cancel", None, key)
    nodes.wait_until(lambda: respond(nodes.nodes[2], key).status == 200)
    with ThreadPoolExecutor(3) as pool:
        gates = [pool.submit(respond, node, key, "count to 2 gate:busy") for node in nodes.nodes]
        nodes.wait_until(lambda: sum(one.done() for one in gates) >= 2)
        nodes.upstream.open("busy")
        statuses = sorted(one.result().status for one in gates)
    assert statuses == [200, 429, 429]


async def test_an_mcp_client_deletes_a_turn_of_another_node(nodes: NodeCluster) -> None:
    key = nodes.make_key("rich")
    question = "hang for mcp"
    name = started(nodes.nodes[0], question, key)
    async with over_http(nodes.nodes[1], headers=key) as client:
        result = await client.call_tool("delete_stateful_response", {"response_id": name})
    assert not result.is_error
    nodes.upstream.wait_until_left(question)
    assert nodes.nodes[0].request("GET", f"/v1/responses/{name}", None, key).status == 404


def test_a_stream_ends_with_the_turn_when_the_node_that_runs_it_is_killed(tmp_path: Path) -> None:
    with node_cluster(tmp_path) as nodes:
        right, wrong = nodes.nodes
        name = started(right, "hang until killed")
        stream = Stream(wrong, f"/v1/responses/{name}?stream=true")
        begun = stream.read_events(5)
        right.send_kill()
        rest = stream.read_rest()
        *_, last, done, _ = rest.split(b"\n\n")
        assert done == b"data: [DONE]"
        event = json.loads(last.partition(b"data: ")[2])
        assert event["type"] == "response.failed"
        assert event["response"]["status"] == "failed"
        numbers = [line for line in (begun + rest).split(b"\n") if line.startswith(b"id: ")]
        assert numbers == [b"id: %d" % at for at in range(len(numbers))]
        assert wrong.get(f"/v1/responses/{name}").json["status"] == "failed"
        assert (
            wrong.post(f"/v1/responses/{name}/cancel").error["code"] == "response_not_cancellable"
        )
