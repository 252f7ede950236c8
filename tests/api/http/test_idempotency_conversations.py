"""``Idempotency-Key`` where conversations are made, filled and described."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from antiphon.models.scripted import ScriptedModel
from antiphon.stores.idempotency_keys import RESERVATION_TIMEOUT
from antiphon.stores.sqlite.store import open_sqlite
from support.http_server import Answer, ThreadServer, serving
from support.keyed_server import serving_with_keys
from support.store_turns import ManualClock

ALL = "/v1/conversations"
ITEMS = {"items": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}
MORE = {"items": [{"role": "user", "content": "More"}]}


@pytest.fixture(params=["memory", "sqlite"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ThreadServer]:
    store = tmp_path / "a.db" if request.param == "sqlite" else None
    with serving(ScriptedModel(), store) as started:
        yield started


def send(
    server: ThreadServer, path: str, body: Mapping[str, Any] | bytes | None, key: str = "k-1"
) -> Answer:
    return server.request("POST", path, body, {"idempotency-key": key})


def begun(server: ThreadServer) -> str:
    """The path of a new conversation."""
    return f"{ALL}/{server.post(ALL).json['id']}"


def count(server: ThreadServer, path: str = ALL) -> int:
    return len(server.get(f"{path}?limit=100").json["data"])


@pytest.mark.parametrize("body", [None, b"{}", ITEMS, {"metadata": {"topic": "x"}}])
def test_one_conversation_is_made(server: ThreadServer, body: Any) -> None:
    first = send(server, ALL, body)
    assert first.status == 200
    assert {send(server, ALL, body).body for _ in range(3)} == {first.body}
    assert count(server) == 1
    if body is ITEMS:
        assert count(server, f"{ALL}/{first.json['id']}/items") == 2
    assert send(server, ALL, body, "k-2").json["id"] != first.json["id"]


def test_items_are_added_once(server: ThreadServer) -> None:
    path = begun(server)
    first = send(server, f"{path}/items", ITEMS)
    assert [item["role"] for item in first.json["data"]] == ["user", "assistant"]
    # Also when others have come since.
    assert send(server, f"{path}/items", MORE, "k-2").status == 200
    assert send(server, f"{path}/items", ITEMS).body == first.body
    assert count(server, f"{path}/items") == 3


def test_a_description_is_not_put_back(server: ThreadServer) -> None:
    path = begun(server)
    old, new = ({"metadata": {"topic": topic}} for topic in ("old", "new"))
    first = send(server, path, old)
    assert send(server, path, old).body == first.body
    server.request("POST", path, new)
    again = send(server, path, old)
    assert (again.status, again.json) == (200, {**first.json, **new})
    assert server.get(path).json["metadata"] == {"topic": "new"}


def test_another_body_or_path_is_refused(server: ThreadServer) -> None:
    one, other = begun(server), begun(server)
    assert send(server, f"{one}/items", ITEMS).status == 200
    others: list[tuple[str, dict[str, Any]]] = [
        (f"{one}/items", MORE),
        (f"{other}/items", ITEMS),
        (ALL, ITEMS),
        (one, {"metadata": {}}),
        ("/v1/responses", {"input": "Hi"}),
    ]
    for path, body in others:
        answer = send(server, path, body)
        assert (answer.status, answer.error["code"]) == (409, "idempotency_key_in_use")
    assert (count(server), count(server, f"{one}/items")) == (2, 2)
    assert count(server, f"{other}/items") == 0


def test_what_was_refused_leaves_its_key_free(server: ThreadServer) -> None:
    path = begun(server)
    bodies: list[dict[str, Any]] = [
        {"items": []},
        {"items": [{"role": "user", "content": ""}]},
        {"items": 1},
    ]
    for bad in bodies:
        assert send(server, f"{path}/items", bad).status == 400
    assert send(server, ALL, {"items": [{"role": "user", "content": ""}]}).status == 400
    assert send(server, f"{ALL}/conv_1/items", ITEMS).status == 404
    assert send(server, f"{ALL}/conv_1", {"metadata": {}}).status == 404
    assert (count(server), count(server, f"{path}/items")) == (1, 0)
    assert send(server, f"{path}/items", ITEMS).status == 200


def test_what_was_deleted_since_is_not_made_again(server: ThreadServer) -> None:
    made = f"{ALL}/{send(server, ALL, ITEMS).json['id']}"
    added = send(server, f"{made}/items", MORE, "k-2").json["data"][0]["id"]
    assert send(server, made, {"metadata": {}}, "k-3").status == 200
    turn = "resp_" + added.removeprefix("msg_")[:32]
    server.request("DELETE", f"/v1/responses/{turn}")
    answer = send(server, f"{made}/items", MORE, "k-2")
    assert (answer.status, answer.error["code"]) == (404, "response_not_found")
    server.request("DELETE", made)
    requests: list[tuple[str, dict[str, Any], str]] = [
        (ALL, ITEMS, "k-1"),
        (f"{made}/items", MORE, "k-2"),
        (made, {"metadata": {}}, "k-3"),
    ]
    for path, body, key in requests:
        answer = send(server, path, body, key)
        assert (answer.status, answer.error["code"]) == (404, "conversation_not_found")
    assert count(server) == 0


def test_an_item_erased_since_is_not_shown_again(server: ThreadServer) -> None:
    path = begun(server)
    first, second = send(server, f"{path}/items", ITEMS).json["data"]
    server.request("DELETE", f"{path}/items/{first['id']}")
    assert send(server, f"{path}/items", ITEMS).json["data"] == [second]


def test_keys_are_the_tenants_own() -> None:
    with serving_with_keys() as site:
        names = {
            client.request("POST", ALL, ITEMS, {"idempotency-key": "k"}).json["id"]
            for client in (site.client("acme"), site.client("acme"), site.client("other"))
        }
        assert len(names) == 2


def test_many_at_once_through_two_processes_stores_are_one(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with (
        serving(ScriptedModel(), path) as one,
        serving(ScriptedModel(), path) as two,
        ThreadPoolExecutor(8) as pool,
    ):
        made = {
            done.result().body
            for done in [pool.submit(send, server, ALL, ITEMS) for server in (one, two) * 4]
        }
        assert (len(made), count(one)) == (1, 1)
        items = f"{ALL}/{one.get(ALL).json['data'][0]['id']}/items"
        added = {
            done.result().body
            for done in [pool.submit(send, server, items, MORE, "k-2") for server in (one, two) * 4]
        }
        assert (len(added), count(two, items)) == (1, 3)


def test_the_first_ones_answer_outlives_its_server(tmp_path: Path) -> None:
    with serving(ScriptedModel(), tmp_path / "a.db") as server:
        first = send(server, ALL, ITEMS)
        items = f"{ALL}/{first.json['id']}/items"
        added = send(server, items, MORE, "k-2")
    with serving(ScriptedModel(), tmp_path / "a.db") as server:
        assert send(server, ALL, ITEMS).body == first.body
        assert send(server, items, MORE, "k-2").body == added.body
        assert (count(server), count(server, items)) == (1, 3)


def test_a_claim_without_an_outcome_is_anothers_after_a_minute(tmp_path: Path) -> None:
    clock = ManualClock(time.time() - RESERVATION_TIMEOUT)
    with serving(store=functools.partial(open_sqlite, tmp_path / "a.db", clock=clock)) as server:
        receipts = server.service.stores.idempotency  # type: ignore[union-attr]
        server.run(receipts.reserve("", "k-1", b"?"))
        assert send(server, ALL, ITEMS).error["code"] == "idempotency_key_in_use"
        clock.now += RESERVATION_TIMEOUT
        first = send(server, ALL, ITEMS)
        assert (first.status, send(server, ALL, ITEMS).body) == (200, first.body)


def test_where_nothing_is_stored_a_key_says_nothing(server: ThreadServer) -> None:
    body = {"model": "scripted", "input": "Hi"}
    for path in ("/v1/responses/compact", "/v1/responses/input_tokens"):
        assert send(server, path, body).status == 200
        assert send(server, path, body, "x" * 256).status == 200
    # It was not even used.
    assert send(server, ALL, None).status == 200
