"""Whatever node is asked does what the one that runs the turn would do: two and three real server
processes on one store, behind a plain round-robin proxy.

``ANTIPHON_TEST_STORE=postgres`` has them share an empty PostgreSQL database and not a file.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from antiphon.turn.queued_turns import _RECHECK_INTERVAL
from support.http_server import Address, Answer
from support.node_cluster import NodeCluster, Stream, node_cluster, started
from support.node_interfaces import INTERFACE_DEEDS, files_server
from support.postgres_database import empty_database

IS_POSTGRES = os.environ.get("ANTIPHON_TEST_STORE") == "postgres"
#: How often each is done in ``make test``, and in ``make test-slow``.
FEW, MANY = 3, 100


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow)])
def nodes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NodeCluster]:
    folder = tmp_path_factory.mktemp("nodes")
    store = empty_database(folder) if IS_POSTGRES else None
    with node_cluster(folder, request.param, store=store, settings=files_server()) as started:
        yield started


def wait_for_word(node: Address, response_id: str) -> None:
    """Wait until the model has said something."""
    stream = Stream(node, events_path(response_id))
    stream.read_events(5)
    stream.close()


def events_path(response_id: str, after: int | None = None) -> str:
    suffix = "" if after is None else f"&starting_after={after}"
    return f"/v1/responses/{response_id}?stream=true{suffix}"


# What is done, each time with other nodes.


def continue_elsewhere(nodes: NodeCluster, number: int) -> None:
    """A turn that has just ended on one node is continued on the next one."""
    previous, count = None, 1
    for _ in range(3):
        answer = nodes.proxy.respond(f"go on {number}", previous_response_id=previous)
        assert answer.status == 200, answer.body
        assert answer.json["output"][0]["content"][0]["text"] == f"{count} messages"
        previous, count = answer.json["id"], count + 2


def follow_elsewhere(nodes: NodeCluster, number: int) -> None:
    """A stream that is read on another node has the same bytes, from any event on."""
    right, wrong = nodes.pair(number)
    gate = f"follow{number}{len(nodes.nodes)}"
    name = started(right, f"count to 6 gate:{gate}")
    after = number % 8 - 1
    streams = [
        Stream(node, events_path(name, start)) for start in (None, after) for node in (right, wrong)
    ]
    # They are read while the turn runs.
    begun = [one.read_events(1) for one in streams[:2]]
    nodes.upstream.open(gate)
    whole, elsewhere, rest, rest_elsewhere = [
        begin + one.read_rest() for begin, one in zip([*begun, b"", b""], streams, strict=True)
    ]
    assert whole == elsewhere
    assert whole.endswith(b"data: [DONE]\n\n")
    assert rest == rest_elsewhere
    assert whole.endswith(rest)
    for node in (right, wrong):
        assert node.get(events_path(name)).body == whole


def resume_elsewhere(nodes: NodeCluster, number: int) -> None:
    """A reader who lost a stream goes on reading at another node, and misses nothing."""
    right, wrong = nodes.pair(number)
    gate = f"resume{number}{len(nodes.nodes)}"
    name = started(right, f"count to 5 gate:{gate}")
    lost = Stream(right, events_path(name))
    begun = lost.read_events(3)
    lost.close()
    resumed = Stream(wrong, events_path(name), {"last-event-id": "2"})
    nodes.upstream.open(gate)
    assert begun + resumed.read_rest() == right.get(events_path(name)).body


def cancel_elsewhere(nodes: NodeCluster, number: int) -> None:
    """A turn that is cancelled on another node stops at once, and keeps what arrived."""
    right, wrong = nodes.pair(number)
    question = f"hang {number} of {len(nodes.nodes)}"
    name = started(right, question)
    wait_for_word(right, name)
    answer = wrong.post(f"/v1/responses/{name}/cancel")
    assert (answer.status, answer.json["status"]) == (200, "cancelled"), answer.body
    assert answer.json["output"][0]["content"][0]["text"] == "Well"
    assert right.get(f"/v1/responses/{name}").body == answer.body
    assert right.post(f"/v1/responses/{name}/cancel").body == answer.body
    nodes.upstream.wait_until_left(question)


def queue_elsewhere(nodes: NodeCluster, number: int) -> None:
    """Turns of one conversation wait for each other, whatever nodes run them."""
    name = nodes.proxy.post("/v1/conversations").json["id"]
    gate = f"queue{number}{len(nodes.nodes)}"
    started(nodes.proxy, f"count to 2 gate:{gate}", conversation=name)
    with ThreadPoolExecutor(len(nodes.nodes)) as pool:
        waiting = [
            pool.submit(node.respond, f"me {number}", conversation=name, on_busy="queue")
            for node in nodes.nodes
        ]
        busy = [node.respond("me too", conversation=name) for node in nodes.nodes]
        assert {one.error["code"] for one in busy} == {"conversation_locked"}
        nodes.upstream.open(gate)
        answers = [one.result() for one in waiting]
    lengths = [one.json["output"][0]["content"][0]["text"] for one in answers]
    # Each has seen all turns before it.
    assert sorted(lengths) == [f"{3 + 2 * at} messages" for at in range(len(answers))]


def queue_behind_elsewhere(nodes: NodeCluster, number: int) -> None:
    """Background turns wait behind one of another node, each at a node of its own."""
    right, wrong = nodes.pair(number)
    gate = f"behind{number}{len(nodes.nodes)}"
    running = started(right, f"count to 2 gate:{gate}")
    fields = {"background": True, "on_busy": "queue"}
    first = wrong.respond("first", previous_response_id=running, **fields).json["id"]
    second = right.respond("second", previous_response_id=first, **fields).json["id"]
    for node in nodes.nodes:
        shown = [node.get(f"/v1/responses/{one}").json["status"] for one in (first, second)]
        assert shown == ["queued", "queued"]
    nodes.upstream.open(gate)
    nodes.wait_until(
        lambda: wrong.get(f"/v1/responses/{second}").json["status"] not in {"queued", "in_progress"}
    )
    answered = [wrong.get(f"/v1/responses/{one}").json for one in (first, second)]
    texts = [one["output"][0]["content"][0]["text"] for one in answered]
    assert texts == ["3 messages", "5 messages"]


def delete_elsewhere(nodes: NodeCluster, number: int) -> None:
    """A running turn that is deleted on another node stops, and is gone on all of them."""
    right, wrong = nodes.pair(number)
    question = f"hang deleted {number} of {len(nodes.nodes)}"
    kinds: list[Callable[[str, str], str]] = [
        lambda response, _: f"/v1/responses/{response}",
        lambda response, _: f"/v1/responses/{response}?cascade=true",
        lambda response, _: f"/v1/chats/{response}",
        lambda _, conversation: f"/v1/conversations/{conversation}",
    ]
    conversation = right.post("/v1/conversations").json["id"]
    name = started(right, question, conversation=conversation)
    wait_for_word(right, name)
    answer = wrong.request("DELETE", kinds[number % len(kinds)](name, conversation))
    assert answer.status == 200, answer.body
    nodes.upstream.wait_until_left(question)
    for node in nodes.nodes:
        for path in (f"/v1/responses/{name}", events_path(name)):
            assert node.get(path).status == 404
    assert wrong.request("DELETE", f"/v1/responses/{name}").status == 404


def delete_ancestor_elsewhere(nodes: NodeCluster, number: int) -> None:
    """Deleting a turn with its descendants stops those that other nodes run."""
    right, wrong = nodes.pair(number)
    question = f"hang descendant {number} of {len(nodes.nodes)}"
    first = wrong.respond("hello").json["id"]
    name = started(right, question, previous_response_id=first)
    wait_for_word(right, name)
    assert wrong.request("DELETE", f"/v1/responses/{first}?cascade=true").status == 200
    nodes.upstream.wait_until_left(question)
    assert right.get(f"/v1/responses/{name}").status == 404


def delete_before_queued_elsewhere(nodes: NodeCluster, number: int) -> None:
    """What waits behind an erased turn begins at once, at whatever node it waits."""
    right, wrong = nodes.pair(number)
    question = f"hang held {number} of {len(nodes.nodes)}"
    name = started(right, question)
    wait_for_word(right, name)
    fields = {"previous_response_id": name, "background": True, "on_busy": "queue"}
    held = [node.respond("then", **fields).json["id"] for node in (right, wrong)]
    began = time.monotonic()
    if number % 2:
        # It is kept, and what waits for it waits still.
        assert wrong.post(f"/v1/responses/{name}/cancel").status == 200
    assert wrong.request("DELETE", f"/v1/responses/{name}").status == 200
    shown = [f"/v1/responses/{one}" for one in held]
    nodes.wait_until(lambda: all(right.get(path).json["status"] == "completed" for path in shown))
    assert time.monotonic() - began < _RECHECK_INTERVAL


def repeat_elsewhere(nodes: NodeCluster, number: int) -> None:
    """A request with an Idempotency-Key that another node executes gets the result of that."""
    gate = f"repeat{number}{len(nodes.nodes)}"
    question = f"count to 3 gate:{gate}"
    fields = {"input": question, "stream": number % 2 == 1}
    headers = {"idempotency-key": gate}

    def ask(node: Address) -> Answer:
        return node.request("POST", "/v1/responses", fields, headers)

    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(ask, node) for node in [*nodes.nodes, nodes.nodes[0]]]
        nodes.upstream.open(gate)
        bodies = {one.result().body for one in answers}
    assert len(bodies) == 1
    assert len(nodes.upstream.requests_of(question)) == 1
    assert {ask(node).body for node in nodes.nodes} == bodies


def retry_elsewhere(nodes: NodeCluster, number: int) -> None:
    """A request that its client repeats at another node is the same turn."""
    right, wrong = nodes.pair(number)
    gate = f"retry{number}{len(nodes.nodes)}"
    question = f"count to 3 gate:{gate}"
    fields = {"input": question, "stream": True}
    left = Stream(right, "/v1/responses", body=fields)
    begun = left.read_events(2)
    again = Stream(wrong, "/v1/responses", {"x-stainless-retry-count": "1"}, fields)
    assert again.read_events(2) == begun
    nodes.upstream.open(gate)
    assert again.read_rest() == left.read_rest()
    assert len(nodes.upstream.requests_of(question)) == 1


DEEDS = [
    continue_elsewhere,
    follow_elsewhere,
    resume_elsewhere,
    cancel_elsewhere,
    queue_elsewhere,
    queue_behind_elsewhere,
    delete_elsewhere,
    delete_ancestor_elsewhere,
    delete_before_queued_elsewhere,
    repeat_elsewhere,
    retry_elsewhere,
    *INTERFACE_DEEDS,
]


@pytest.mark.parametrize("deed", DEEDS)
def test_any_node_does_what_the_right_one_would(
    nodes: NodeCluster, deed: Callable[[NodeCluster, int], None]
) -> None:
    for number in range(FEW):
        deed(nodes, number)


@pytest.mark.slow
@pytest.mark.parametrize("deed", DEEDS)
def test_any_node_does_it_each_of_a_hundred_times(
    nodes: NodeCluster, deed: Callable[[NodeCluster, int], None]
) -> None:
    for number in range(FEW, FEW + MANY):
        deed(nodes, number)
