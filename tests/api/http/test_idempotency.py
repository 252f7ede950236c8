"""``Idempotency-Key`` on real sockets: a request that comes again makes nothing new."""

from __future__ import annotations

import asyncio
import functools
import json
import socket
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Scope

from antiphon.api.common.authentication import set_caller
from antiphon.api.http.idempotency import IdempotencyKeys
from antiphon.errors import ConflictError, IdempotencyConflictError, ModelError, StoreError
from antiphon.models.scripted import ScriptedModel, fail, say, wait
from antiphon.stores.idempotency_keys import RESERVATION_TIMEOUT
from antiphon.stores.memory.idempotency import MemoryIdempotencyStore
from antiphon.stores.memory.store import MemoryStore
from antiphon.stores.sqlite.store import open_sqlite
from support.http_server import Answer, ThreadServer, serving
from support.keyed_server import serving_with_keys
from support.raw_http import read_raw
from support.store_turns import ManualClock
from support.turn_service import GatedStore

KEY = {"idempotency-key": "k-1"}


def send(server: ThreadServer, body: Mapping[str, Any] | bytes, key: str = "k-1") -> Answer:
    return server.request("POST", "/v1/responses", body, {"idempotency-key": key})


@pytest.fixture(params=["memory", "sqlite"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ThreadServer]:
    store = tmp_path / "a.db" if request.param == "sqlite" else None
    with serving(ScriptedModel(), store) as started:
        yield started


@pytest.mark.parametrize("extra", [{}, {"stream": True}, {"background": True}])
def test_the_same_again_is_the_first_ones_response(
    server: ThreadServer, extra: dict[str, bool]
) -> None:
    body = {"input": "Hi", **extra}
    first = send(server, body)
    if "background" in extra:
        name = first.json["id"]
        # Read to its end, so that the next one finds it over.
        assert server.get(f"/v1/responses/{name}?stream=true").status == 200
        assert [send(server, body).json["id"] for _ in range(3)] == [name] * 3
    else:
        again = [send(server, body) for _ in range(3)]
        assert {(one.status, one.body) for one in again} == {(200, first.body)}
    assert server.stored_count() == 1
    assert send(server, body, "k-2").body != first.body
    assert server.stored_count() == 2


def test_another_body_is_refused_even_by_a_space(server: ThreadServer) -> None:
    assert send(server, b'{"input": "Hi"}').status == 200
    for other in (b'{"input":  "Hi"}', b'{"input": "Ho"}', b'{"input": "Hi", "stream": true}'):
        answer = send(server, other)
        assert (answer.status, answer.error["code"], answer.error["param"]) == (
            409,
            "idempotency_key_in_use",
            "Idempotency-Key",
        )
    assert server.stored_count() == 1


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_keys_have_some_characters_and_not_too_many(server: ThreadServer, key: str) -> None:
    answer = send(server, {"input": "Hi"}, key)
    assert (answer.status, answer.error["param"]) == (400, "Idempotency-Key")
    assert server.stored_count() == 0


def test_a_key_that_is_sent_twice_is_one_or_none(server: ThreadServer) -> None:
    def ask(*fields: str) -> Answer:
        body = b'{"input": "Hi"}'
        head = ["POST /v1/responses HTTP/1.1", "Host: localhost", "Connection: close", *fields]
        head.append(f"Content-Length: {len(body)}")
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall("\r\n".join([*head, "", ""]).encode() + body)
            return read_raw(connection)

    first = ask("Idempotency-Key: k-1", "idempotency-key: k-1 ")
    assert first.status == 200
    assert send(server, b'{"input": "Hi"}').body == first.body
    for name in ("Idempotency-Key", "Authorization", "X-Api-Key", "X-Stainless-Retry-Count"):
        refused = ask(f"{name}: k-1", f"{name}: k-2")
        assert (refused.status, refused.error["param"]) == (400, name.lower())
    assert server.stored_count() == 1
    assert ask("Accept: text/html", "Accept: */*").status == 200


def test_a_request_that_was_refused_leaves_its_key_free(server: ThreadServer) -> None:
    for bad in ({"input": ""}, {"input": "Hi", "previous_response_id": "resp_1"}, {"input": 1}):
        assert send(server, bad).status in (400, 404)
    assert send(server, {"input": "Hi"}).status == 200


def test_without_storing_there_is_nothing_to_find_again(server: ThreadServer) -> None:
    body = {"input": "Hi", "store": False}
    assert send(server, body).json["id"] != send(server, body).json["id"]


def test_a_failed_turn_is_the_response_too() -> None:
    model = ScriptedModel([fail(ModelError("It broke.")), "Never said."])
    with serving(model) as server:
        first, again = send(server, {"input": "Hi"}), send(server, {"input": "Hi"})
        assert (first.status, first.headers["x-should-retry"]) == (502, "false")
        assert (again.status, again.body) == (502, first.body)
        assert len(model.calls) == 1


def test_what_was_deleted_since_is_not_made_again(server: ThreadServer) -> None:
    name = send(server, {"input": "Hi"}).json["id"]
    server.request("DELETE", f"/v1/responses/{name}")
    answer = send(server, {"input": "Hi"})
    assert (answer.status, answer.error["code"]) == (404, "response_not_found")


def test_many_at_once_are_one_turn() -> None:
    opened, reached = asyncio.Event(), asyncio.Event()
    model = ScriptedModel([say("Hel") + wait(opened, reached) + say("lo")])
    with serving(model) as server, ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(send, server, {"input": "Hi"}) for _ in range(8)]
        server.wait(reached)
        server.set(opened)
        answers = {one.result().body for one in waiting}
        assert len(answers) == 1
        assert (len(model.calls), server.stored_count()) == (1, 1)


def test_a_stream_is_read_along_by_who_asks_again() -> None:
    opened, reached = asyncio.Event(), asyncio.Event()
    model = ScriptedModel([say("Hel") + wait(opened, reached) + say("lo")])
    body = {"input": "Hi", "stream": True}
    with serving(model) as server, ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(send, server, body) for _ in range(2)]
        server.wait(reached)
        server.set(opened)
        first, again = (one.result().body for one in waiting)
        assert first == again


def test_keys_are_the_tenants_own() -> None:
    with serving_with_keys() as site:
        names = {
            client.request("POST", "/v1/responses", {"input": "Hi"}, KEY).json["id"]
            for client in (site.client("acme"), site.client("acme"), site.client("other"))
        }
        assert len(names) == 2


def test_a_turn_that_could_not_be_kept_leaves_its_key_free() -> None:
    store = GatedStore()

    async def opened() -> GatedStore:
        return store

    with serving(ScriptedModel(), opened) as server:
        store.begins.error = StoreError("The disk is full.")
        assert send(server, {"input": "Hi"}).status == 503
        assert send(server, {"input": "Hi", "stream": True}).status == 503
        store.begins.error = None
        assert send(server, {"input": "Hi"}).status == 200


def test_a_process_that_died_in_between_blocks_its_key_for_a_minute(tmp_path: Path) -> None:
    clock = ManualClock(time.time() - RESERVATION_TIMEOUT)
    body = json.dumps({"input": "Hi"}).encode()

    with serving(store=functools.partial(open_sqlite, tmp_path / "a.db", clock=clock)) as server:
        receipts = server.service.stores.idempotency  # type: ignore[union-attr]
        # Another request's, from what is known of it.
        server.run(receipts.reserve("", "k-1", b"?"))
        assert send(server, body).error["code"] == "idempotency_key_in_use"
        clock.now += RESERVATION_TIMEOUT
        first = send(server, body)
        assert (first.status, send(server, body).body) == (200, first.body)


# The rule itself, with no patience.


def scope(tenant: str = "") -> Scope:
    made: Scope = {
        "path": "/v1/responses",
        "method": "POST",
        "headers": [(b"idempotency-key", b"k")],
    }
    set_caller(made)
    return made


async def test_one_that_is_still_being_started_elsewhere_is_waited_for_and_then_refused() -> None:
    receipts = MemoryIdempotencyStore(ManualClock())
    here, elsewhere = (
        IdempotencyKeys(receipts, timeout=0.0),
        IdempotencyKeys(receipts, timeout=30.0),
    )
    first, second, third = (
        site.for_request(scope(), b"body") for site in (elsewhere, here, elsewhere)
    )
    assert first is not None
    assert second is not None
    assert third is not None
    async with first:
        assert first.result_id is None
        with pytest.raises(ConflictError) as late:
            async with second:
                pass
        assert late.value.code == "idempotency_key_in_progress"
        waiting = asyncio.create_task(third.__aenter__())
        await asyncio.sleep(0)
        await first.complete("resp_1")
    assert (await waiting).result_id == "resp_1"


async def test_whoever_waited_for_one_that_failed_is_the_first() -> None:
    site = IdempotencyKeys(MemoryIdempotencyStore(ManualClock()))
    first, second, other = (site.for_request(scope(), body) for body in (b"a", b"a", b"b"))
    assert first is not None
    assert second is not None
    assert other is not None

    async def waits() -> None:
        async with second:
            assert second.result_id is None
            await second.complete("resp_2")

    await first.__aenter__()
    waiting = asyncio.create_task(waits())
    await asyncio.sleep(0)
    error = ModelError("It broke.")
    await first.__aexit__(ModelError, error, None)
    await waiting
    with pytest.raises(IdempotencyConflictError):
        await other.__aenter__()


async def test_a_failing_store_leaves_no_caller_waiting() -> None:
    receipts = MemoryStore().stores.idempotency
    failing = [StoreError("The disk is full.")]
    claim = receipts.reserve

    async def fails_once(*args: Any) -> Any:
        if failing:
            raise failing.pop()
        return await claim(*args)

    receipts.reserve = fails_once  # type: ignore[assignment, method-assign]
    site = IdempotencyKeys(receipts)
    first, again = site.for_request(scope(), b"body"), site.for_request(scope(), b"body")
    assert first is not None
    assert again is not None
    with pytest.raises(StoreError):
        await first.__aenter__()
    async with again:
        assert again.result_id is None
        await again.complete("resp_1")
