"""Keys on a real socket: who is let in, and whose things they see."""

from __future__ import annotations

import asyncio
import gc
import http.client
import json
import logging
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import closing

import pytest

from antiphon.api.common.authentication import ApiKeyAuthenticator, credential_of, tenant_of
from antiphon.core.api_keys import hash_api_key, new_api_key
from antiphon.core.turns import DEFAULT_TENANT
from antiphon.errors import AuthenticationError, StoreError
from antiphon.models.scripted import ScriptedModel, say, wait
from antiphon.stores.memory.store import MemoryApiKeyStore
from antiphon.turn.store_protocols import ApiKey
from support.http_server import Answer, parse_events
from support.keyed_server import Client, KeyedServer, serving_with_keys

UNKNOWN = "resp_" + "0" * 32


@pytest.fixture(scope="module")
def site() -> Iterator[KeyedServer]:
    with serving_with_keys() as started:
        yield started


@pytest.fixture(scope="module")
def acme(site: KeyedServer) -> Client:
    return site.client("acme")


def refused(answer: Answer) -> bytes:
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="antiphon"'
    assert (answer.error["type"], answer.error["code"]) == (
        "authentication_error",
        "invalid_api_key",
    )
    return answer.body


def test_no_key_is_required_without_any_key() -> None:
    with serving_with_keys() as site:
        for headers in ({}, {"authorization": "Bearer sk-whatever"}, {"x-api-key": "x"}):
            answer = site.server.request("POST", "/v1/responses", {"input": "Hi"}, headers)
            assert answer.status == 200
        assert site.server.stored_count() == 3


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/responses"),
        ("POST", "/v1/chat/completions"),
        ("GET", f"/v1/responses/{UNKNOWN}"),
        ("DELETE", f"/v1/responses/{UNKNOWN}"),
        ("GET", "/v1/models"),
        ("GET", "/metrics"),
        ("OPTIONS", "/v1/responses"),
        ("GET", "/nowhere"),
        ("GET", "/metrics/"),
        ("GET", "//v1//models"),
        ("GET", "/healthz%2f../v1/models"),
    ],
)
def test_everything_needs_a_key(site: KeyedServer, acme: Client, method: str, path: str) -> None:
    refused(site.anonymous_client().request(method, path, {"input": "Hi", "messages": []}))
    assert acme.request(method, path, {"input": "Hi", "messages": []}).status != 401


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json", "/docs"])
def test_who_watches_or_reads_about_the_server_needs_none(
    site: KeyedServer, acme: Client, path: str
) -> None:
    assert site.anonymous_client().get(path).status == 200
    assert site.anonymous_client().request("POST", path).status == 405


def test_all_that_is_wrong_with_a_key_looks_the_same(site: KeyedServer, acme: Client) -> None:
    revoked = site.client("acme")
    assert revoked.respond().status == 200
    site.revoke(revoked)
    bodies = {
        refused(site.server.request("POST", "/v1/responses", {"input": "Hi"}, headers))
        for headers in (
            {},
            {"authorization": ""},
            {"authorization": "Bearer"},
            {"authorization": "Bearer "},
            {"authorization": "Bearer sk-1"},
            {"authorization": f"Bearer {new_api_key()}"},
            {"authorization": f"Bearer {acme.text}x"},
            {"authorization": f"Basic {acme.text}"},
            {"authorization": acme.text or ""},
            {"authorization": "Bearer " + "x" * 10_000},
            {"x-api-key": new_api_key()},
            {"x-api-key": (acme.text or "").upper()},
            {"api-key": acme.text or ""},
            {"cookie": f"authorization=Bearer {acme.text}"},
            revoked.headers,
        )
    }
    assert len(bodies) == 1


def test_where_a_key_may_be(acme: Client) -> None:
    text = acme.text or ""
    for headers in (
        {"authorization": f"Bearer {text}"},
        {"authorization": f"bearer  {text} "},
        {"x-api-key": text},
        {"authorization": "Basic eDp5", "x-api-key": text},
    ):
        assert acme.server.request("GET", "/v1/models", None, headers).status == 200
    assert credential_of({b"authorization": b"Bearer a", b"x-api-key": b"b"}) == b"a"


def test_with_keys_the_servers_name_is_its_own_affair(site: KeyedServer, acme: Client) -> None:
    elsewhere = {"host": "chat.example.com", "origin": "https://app.example.com"}
    assert acme.request("GET", "/v1/models", None, elsewhere).status == 200
    answer = site.anonymous_client().request("GET", "/v1/models", None, elsewhere)
    refused(answer)
    assert not {name for name in answer.headers if name.startswith("access-control")}


def test_tenants_do_not_see_each_other(site: KeyedServer, acme: Client) -> None:
    other, colleague = site.client("other"), site.client("acme")
    kept = acme.respond("A secret").json["id"]
    assert colleague.get(f"/v1/responses/{kept}").json["id"] == kept

    def tries(response_id: str) -> list[tuple[int, bytes]]:
        path = f"/v1/responses/{response_id}"
        answers = [
            other.get(path),
            other.get(f"{path}/input_items"),
            other.request("DELETE", path),
            other.respond(previous_response_id=response_id),
            other.respond(previous_response_id=response_id, stream=True),
        ]
        return [(one.status, one.body.replace(response_id.encode(), b"ID")) for one in answers]

    assert tries(kept) == tries(UNKNOWN)
    assert {status for status, _ in tries(kept)} == {400, 404}
    assert acme.get(f"/v1/responses/{kept}").status == 200
    assert site.server.stored_count() == 0, "nothing of it is nobody's"


def test_what_was_stored_without_keys_is_for_a_local_key_only() -> None:
    with serving_with_keys() as site:
        before = site.server.respond("Before").json["id"]
        tenant, local = site.client("acme"), site.client(DEFAULT_TENANT)
        assert tenant.get(f"/v1/responses/{before}").status == 404
        assert local.get(f"/v1/responses/{before}").status == 200


def test_a_revoked_key_ends_no_answer_but_begins_none() -> None:
    opened, reached = asyncio.Event(), asyncio.Event()
    model = ScriptedModel([say("Hel") + wait(opened, reached) + say("lo")])
    with serving_with_keys(model) as site:
        acme = site.client()
        with closing(site.server.connect()) as connection:
            body = json.dumps({"input": "Hi", "stream": True})
            connection.request("POST", "/v1/responses", body, acme.headers)
            stream = connection.getresponse()
            site.server.wait(reached)
            site.revoke(acme)
            refused(acme.get("/v1/models"))
            site.server.set(opened)
            events = parse_events(stream.read())
            assert events[-1]["type"] == "response.completed"
            # Neither on the line that it was good on.
            connection.request(
                "GET", f"/v1/responses/{events[0]['response']['id']}", "", acme.headers
            )
            assert connection.getresponse().status == 401


@pytest.mark.slow
def test_bad_keys_take_no_room(site: KeyedServer, acme: Client) -> None:
    def knock(connection: http.client.HTTPConnection, times: int) -> None:
        for _ in range(times):
            connection.request("GET", "/v1/models", headers={"x-api-key": new_api_key()})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 401

    with closing(site.server.connect()) as connection:
        knock(connection, 200)
        tracemalloc.start()
        try:
            knock(connection, 100)
            gc.collect()
            before, _ = tracemalloc.get_traced_memory()
            knock(connection, 3000)
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    # What one key takes, a hash and a key, would be a hundred bytes and more.
    assert after - before < 3000 * 20


def test_no_key_gets_into_the_log(
    site: KeyedServer, acme: Client, caplog: pytest.LogCaptureFixture
) -> None:
    bad = new_api_key()
    with caplog.at_level(logging.DEBUG):
        acme.respond("Hi")
        site.server.request("GET", f"/v1/models?key={bad}", None, {"x-api-key": bad})
        # The line is written when the answer is out already.
        site.server.run(asyncio.sleep(0))
    said = [one.getMessage() for one in caplog.records if one.name.startswith("antiphon")]
    assert "/v1/models 401" in said[-1]
    assert not any(bad in line or (acme.text or "") in line for line in said)
    assert "ap_" not in repr(acme.key)


class Broken(MemoryApiKeyStore):
    """A store that is out of order."""

    async def find(self, sha256: bytes) -> ApiKey | None:
        raise StoreError("No disk.")


def test_a_failing_store_admits_no_request() -> None:
    with serving_with_keys(keys=Broken(time.time)) as site:
        answer = site.client().respond()
        assert (answer.status, answer.error["code"]) == (503, "store_unavailable")


class Ticking:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Counting(MemoryApiKeyStore):
    """Counts how often it is asked whether there are keys."""

    asked = 0

    async def has_keys(self) -> bool:
        self.asked += 1
        return await super().has_keys()


async def test_the_first_key_counts_within_a_second_and_at_once_for_its_owner() -> None:
    keys, clock = Counting(time.time), Ticking()
    keyring = ApiKeyAuthenticator(keys, clock)
    for _ in range(100):
        assert not await keyring.is_required()
    assert keys.asked == 1, "not each request asks the store"
    text = new_api_key().encode()
    await keys.add(ApiKey("key_1", "acme", 0), hash_api_key(text) or b"")
    assert not await keyring.is_required(b"sk-1")
    clock.now += 1
    assert await keyring.is_required()
    assert await ApiKeyAuthenticator(keys, clock).is_required(text)
    # For good, and no more questions.
    asked = keys.asked
    await keys.revoke("key_1")
    clock.now += 1000
    assert await keyring.is_required()
    assert keys.asked == asked
    with pytest.raises(AuthenticationError):
        await keyring.authenticate(text)


async def test_a_key_that_is_brought_makes_the_server_look() -> None:
    keys, clock = MemoryApiKeyStore(time.time), Ticking()
    keyring = ApiKeyAuthenticator(keys, clock)
    assert not await keyring.is_required()
    text = new_api_key().encode()
    await keys.add(ApiKey("key_1", "acme", 0), hash_api_key(text) or b"")
    assert await keyring.is_required(text)
    assert (await keyring.authenticate(text)).tenant == "acme"


def test_an_endpoint_without_a_door_knows_no_tenant() -> None:
    with pytest.raises(KeyError):
        tenant_of({"type": "http"})
