"""Clients that give up and ask again: with a key, and without one as OpenAI's client does."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import openai
import pytest

from antiphon.models.scripted import ScriptedModel, say, wait
from support.http_server import Answer, read_answer, wait_for
from support.keyed_server import serving_with_keys
from support.misbehaving_upstream import refuse
from support.raw_http import read_raw
from support.scenario import (
    DONE,
    Json,
    Outcome,
    Scenario,
    completion_outcome,
    end,
    response_outcome,
    scenario,
    stream_of,
    text,
    whole,
)

RESPONSES, CHAT = "/v1/responses", "/v1/chat/completions"


@pytest.fixture(scope="module")
def world() -> Iterator[Scenario]:
    with scenario() as started:
        started.upstream_answers(lambda request: answer_to(request.json))
        yield started


def answer_to(request: Json, *before: asyncio.Event) -> list[Any]:
    if request.get("stream"):
        return stream_of(*before, text("Hello"), text(" there."), end(), DONE)
    return [*before, *whole({"content": "Hello there."})]


def begin(world: Scenario, body: Json, path: str = RESPONSES, **headers: str) -> socket.socket:
    """A request that is sent and not waited for."""
    raw = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(raw)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    connection = world.server.socket()
    connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + raw)
    return connection


def ask(world: Scenario, body: Json, path: str = RESPONSES, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return world.server.request("POST", path, body, named)


def retry(world: Scenario, body: Json, count: int = 1, **headers: str) -> Outcome:
    answered = ask(world, body, x_stainless_retry_count=str(count), **headers)
    return response_outcome(answered)


def wait_for_requests(world: Scenario, count: int) -> None:
    """Until the upstream was asked so often."""
    wait_for(lambda: len(world.requests) >= count)


def wait_for_readers(world: Scenario, turn: str, count: int) -> None:
    """Until so many requests wait for more of a turn."""
    found = world.server.service.registry.get(turn)
    assert found is not None

    def waiting() -> int:
        readers = [one.waiter for one in found._relaying_readers]
        waiters = (*found._event_waiters, *found._end_waiters, *readers)
        return sum(not one.done() for one in waiters)

    wait_for(lambda: waiting() == count)


def running(world: Scenario) -> list[str]:
    listed = world.server.get("/v1/responses?status=in_progress").json["data"]
    return [one["id"] for one in listed]


def begin_and_wait(world: Scenario, body: Json, **headers: str) -> tuple[socket.socket, str]:
    """A turn that runs: its connection and its id."""
    before = set(running(world))
    connection = begin(world, body, **headers)
    wait_for(lambda: set(running(world)) - before)
    (name,) = set(running(world)) - before
    return connection, name


def items(world: Scenario, conversation: str) -> list[str]:
    listed = world.server.get(f"/v1/conversations/{conversation}/items?order=asc").json["data"]
    return [one["content"][0]["text"] for one in listed]


STARTS = ["no-key-conversation", "no-key-previous", "no-key-new", "no-key-queue"]


def request_of(world: Scenario, name: str, **fields: Any) -> Json:
    body: Json = {"input": "Add this once.", **fields}
    if name in {"no-key-conversation", "no-key-queue"}:
        body["conversation"] = world.server.post("/v1/conversations").json["id"]
    if name == "no-key-queue":
        body["on_busy"] = "queue"
    if name == "no-key-previous":
        body["previous_response_id"] = world.respond("First.").body["id"]
    return body


@pytest.mark.parametrize("hangs_up", [True, False])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", STARTS)
def test_a_retry_gets_the_turn_that_still_runs(
    world: Scenario, name: str, stream: bool, hangs_up: bool
) -> None:
    spoke = asyncio.Event()
    body = request_of(world, name, stream=stream)
    asked = len(world.requests)
    world.upstream_sends(answer_to(body, spoke))
    first, turn = begin_and_wait(world, body, x_stainless_retry_count="0")
    wait_for_readers(world, turn, 1)
    if hangs_up:
        first.close()
        wait_for_readers(world, turn, 0)
    second = begin(world, body, x_stainless_retry_count="1", connection="close")
    third = begin(world, body, x_stainless_retry_count="2", connection="close")
    wait_for_readers(world, turn, 2 if hangs_up else 3)
    world.set(spoke)
    for connection in (second, third):
        with closing(connection):
            got = response_outcome(read_raw(connection)).expect("completed", "Hello there.")
            assert got.body["id"] == turn
    first.close()
    assert len(world.requests) == asked + 1
    if "conversation" in body:
        assert items(world, body["conversation"]) == ["Add this once.", "Hello there."]
    assert running(world) == []


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", STARTS)
def test_a_retry_gets_a_turn_that_ended_after_its_client_left(
    world: Scenario, name: str, stream: bool
) -> None:
    spoke = asyncio.Event()
    body = request_of(world, name, stream=stream)
    asked = len(world.requests)
    world.upstream_sends(answer_to(body, spoke))
    first, turn = begin_and_wait(world, body)
    wait_for_readers(world, turn, 1)
    first.close()
    wait_for_readers(world, turn, 0)
    world.set(spoke)
    wait_for(lambda: not running(world))
    assert retry(world, body).expect("completed", "Hello there.").body["id"] == turn
    assert len(world.requests) == asked + 1
    # The next time the same is asked it is another turn, and so is its retry.
    if name != "no-key-previous":
        again = response_outcome(ask(world, body)).expect("completed")
        assert again.body["id"] != turn
        assert retry(world, body).expect("completed").body["id"] not in {turn, again.body["id"]}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", [RESPONSES, CHAT])
def test_a_client_that_leaves_a_quick_turn_gets_it_by_its_retry(
    world: Scenario, path: str, stream: bool
) -> None:
    """Also where it leaves before the server has begun to listen for that."""
    body: Json = {"model": "m", "store": True, "stream": stream}
    words = f"Quick {path} {stream}."
    body |= (
        {"input": words}
        if path == RESPONSES
        else {"messages": [{"role": "user", "content": words}]}
    )
    for _ in range(3):
        spoke = asyncio.Event()
        asked = len(world.requests)
        world.upstream_sends(answer_to(body, spoke))
        first = begin(world, body, path)
        wait_for_requests(world, asked + 1)
        first.close()
        world.set(spoke)
        wait_for(lambda: not running(world))
        before = world.server.get("/v1/responses?limit=1").json["data"][0]["id"]
        got = ask(world, body, path, x_stainless_retry_count="1")
        assert before.removeprefix("resp_").encode() in got.body
        assert len(world.requests) == asked + 1


@pytest.mark.parametrize("count", [None, "0", "", "00"])
@pytest.mark.parametrize("name", ["no-key-previous", "no-key-new", "no-key-queue"])
def test_the_same_words_without_the_sign_are_another_turn(
    world: Scenario, name: str, count: str | None
) -> None:
    """same-words-…"""
    spoke = asyncio.Event()
    body = request_of(world, name)
    world.upstream_sends(answer_to(body, spoke))
    first, turn = begin_and_wait(world, body)
    headers = {} if count is None else {"x_stainless_retry_count": count}
    second = begin(world, body, connection="close", **headers)
    if name != "no-key-queue":
        with closing(second):
            got = response_outcome(read_raw(second)).expect("completed")
            assert got.body["id"] != turn
    world.set(spoke)
    with closing(first):
        assert first.recv(65536).startswith(b"HTTP/1.1 200")
    if name == "no-key-queue":
        with closing(second):
            assert response_outcome(read_raw(second)).body["id"] != turn
        assert items(world, body["conversation"]) == ["Add this once.", "Hello there."] * 2


def test_a_retry_of_what_never_came_is_a_turn(world: Scenario) -> None:
    """retry-of-nothing"""
    for name in STARTS:
        body = request_of(world, name)
        asked = len(world.requests)
        names = {retry(world, body, count).expect("completed").body["id"] for count in (1, 2)}
        assert len(names) == 2
        assert len(world.requests) == asked + 2


OTHERS: dict[str, Callable[[Json], Json]] = {
    "other-words": lambda body: {**body, "input": "Add that once."},
    "other-model-options": lambda body: {**body, "temperature": 0.5},
    "other-instructions": lambda body: {**body, "instructions": "Be brief."},
    "other-metadata": lambda body: {**body, "metadata": {"a": "b"}},
    "streamed": lambda body: {**body, "stream": True},
    "unstored": lambda body: {**body, "store": False},
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_retry_of_something_else_is_a_turn(world: Scenario, name: str) -> None:
    spoke = asyncio.Event()
    body = request_of(world, "no-key-previous")
    world.upstream_sends(answer_to(body, spoke))
    first, turn = begin_and_wait(world, body)
    got = retry(world, OTHERS[name](body)).expect("completed")
    assert got.body["id"] != turn
    world.set(spoke)
    wait_for(lambda: not running(world))
    first.close()


def test_each_of_two_clients_gets_its_own_turn(world: Scenario) -> None:
    events = [asyncio.Event(), asyncio.Event()]
    body = request_of(world, "no-key-previous")
    world.upstream_sends(*(answer_to(body, event) for event in events))
    begun = [begin_and_wait(world, body) for _ in events]
    for connection, turn in begun:
        wait_for_readers(world, turn, 1)
        connection.close()
        wait_for_readers(world, turn, 0)
    for event in events:
        world.set(event)
    wait_for(lambda: not running(world))
    names = {retry(world, body).expect("completed").body["id"] for _ in events}
    assert names == {turn for _, turn in begun}


def test_a_turn_that_failed_is_no_result_for_a_retry(world: Scenario) -> None:
    body = request_of(world, "no-key-conversation")
    failed = asyncio.Event()
    world.upstream_sends([failed, *refuse(400)])
    first, turn = begin_and_wait(world, body)
    wait_for_readers(world, turn, 1)
    first.close()
    wait_for_readers(world, turn, 0)
    world.set(failed)
    wait_for(lambda: not running(world))
    assert world.server.get(f"/v1/responses/{turn}").json["status"] == "failed"
    assert retry(world, body).expect("completed", "Hello there.").body["id"] != turn
    assert items(world, body["conversation"])[-1] == "Hello there."


def test_a_background_turn_is_retried_once(world: Scenario) -> None:
    spoke = asyncio.Event()
    body = {"input": "Add this once.", "background": True}
    world.upstream_sends(answer_to(body, spoke))
    first = ask(world, body).json
    second = ask(world, body, x_stainless_retry_count="1").json
    assert (second["id"], second["status"]) == (first["id"], "queued")
    assert ask(world, body).json["id"] != first["id"]
    world.set(spoke)
    wait_for(lambda: not running(world))


def test_tenants_do_not_get_each_others_turns() -> None:
    spoke = asyncio.Event()
    model = ScriptedModel([wait(spoke) + say("For one."), "For two."])
    with serving_with_keys(model) as site:
        one, two = site.client("one"), site.client("two")
        with closing(site.server.connect()) as connection:
            connection.request("POST", RESPONSES, b'{"input":"Hi"}', one.headers)
            wait_for(lambda: model.calls)
            headers = {"x-stainless-retry-count": "1"}
            other = two.request("POST", RESPONSES, b'{"input":"Hi"}', headers)
            assert response_outcome(other).text == "For two."
            site.server.set(spoke)
            assert response_outcome(read_answer(connection)).text == "For one."


def test_the_official_client_repeats_by_itself(world: Scenario) -> None:
    spoke = asyncio.Event()
    talk = world.server.post("/v1/conversations").json["id"]
    asked = len(world.requests)
    world.upstream_sends(answer_to({}, spoke))

    def release() -> None:
        wait_for(lambda: running(world))
        (turn,) = running(world)
        wait_for_readers(world, turn, 1)
        wait_for_readers(world, turn, 0)
        world.set(spoke)

    releasing = threading.Thread(target=release)
    releasing.start()
    with openai.OpenAI(
        base_url=world.server.base_url, api_key="any", timeout=0.5, max_retries=4
    ) as client:
        done = client.responses.create(input="Once.", conversation=talk)
        assert done.output_text == "Hello there."
    releasing.join()
    assert len(world.requests) == asked + 1
    assert items(world, talk) == ["Once.", "Hello there."]


# ---- with a key


@pytest.mark.parametrize("stream", [True, False])
def test_with_a_key_it_is_one_turn(world: Scenario, stream: bool) -> None:
    """key-…"""
    spoke = asyncio.Event()
    body = request_of(world, "no-key-conversation", stream=stream)
    asked = len(world.requests)
    world.upstream_sends(answer_to(body, spoke))
    key = f"key-{stream}"
    first, turn = begin_and_wait(world, body, idempotency_key=key)
    first.close()
    second = begin(
        world, body, idempotency_key=key, x_stainless_retry_count="1", connection="close"
    )
    world.set(spoke)
    with closing(second):
        got = response_outcome(read_raw(second)).expect("completed", "Hello there.")
    later = response_outcome(ask(world, body, idempotency_key=key))
    assert got.body["id"] == later.body["id"] == turn
    assert got.events == later.events
    assert len(world.requests) == asked + 1
    assert items(world, body["conversation"]) == ["Add this once.", "Hello there."]


def test_on_chat_completions_signs_and_keys_harm_nothing(world: Scenario) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    for headers in (
        {"idempotency_key": "k"},
        {"idempotency_key": "k", "x_stainless_retry_count": "1"},
        {"x_stainless_retry_count": "2"},
    ):
        answered = completion_outcome(ask(world, body, CHAT, **headers))
        answered.expect("stop", "Hello there.")


# ---- what clients are told


def test_a_stored_failure_is_not_to_be_repeated(world: Scenario) -> None:
    """failed-is-not-retried, retry-after-is-told"""
    limit = refuse(429, headers={"Retry-After": "70"})
    with scenario() as alone:
        alone.upstream_answers(lambda _: limit)
        for path in (RESPONSES, CHAT):
            body = {"model": "m", "input": "Hi"} if path == RESPONSES else {"model": "m"}
            if path == CHAT:
                body["messages"] = [{"role": "user", "content": "Hi"}]  # type: ignore[assignment]
            answered = alone.server.request("POST", path, body)
            assert (answered.status, answered.headers["retry-after"]) == (429, "70")
            stored = "response_id" in answered.error
            assert stored == (path == RESPONSES)
            assert answered.headers.get("x-should-retry") == ("false" if stored else None)


@pytest.mark.parametrize("stream", [True, False])
def test_a_retry_of_a_stored_chat_completion_gets_its_turn(world: Scenario, stream: bool) -> None:
    spoke = asyncio.Event()
    messages = [{"role": "user", "content": "Store this once."}]
    body: Json = {"messages": messages, "store": True, "stream": stream}
    asked = len(world.requests)
    world.upstream_sends(answer_to(body, spoke))
    before = set(running(world))
    first = begin(world, body, CHAT, x_stainless_retry_count="0")
    wait_for(lambda: set(running(world)) - before)
    (turn,) = set(running(world)) - before
    wait_for_readers(world, turn, 1)
    first.close()
    wait_for_readers(world, turn, 0)
    second = begin(world, body, CHAT, x_stainless_retry_count="1", connection="close")
    wait_for_readers(world, turn, 1)
    world.set(spoke)
    with closing(second):
        answered = second.makefile("rb").read()
    assert b"Hello" in answered
    assert turn.removeprefix("resp_").encode() in answered
    assert len(world.requests) == asked + 1
    # The same request that is no retry is another one.
    assert turn.removeprefix("resp_").encode() not in ask(world, body, CHAT).body
    assert len(world.requests) == asked + 2
