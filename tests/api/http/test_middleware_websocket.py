"""Who is let in where one connection has many turns."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import msgspec
import pytest
from starlette.types import Message, Receive, Scope, Send
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from antiphon.api.common.authentication import ApiKeyAuthenticator, tenant_of
from antiphon.api.common.authorization import Authorizer
from antiphon.api.common.metrics import Metrics
from antiphon.api.common.rate_limits import RateLimiter
from antiphon.api.http.middleware import RequestMiddleware, reauthorize
from antiphon.errors import AntiphonError
from antiphon.stores.memory.store import MemoryApiKeyStore
from antiphon.turn.service import TurnService
from support.http_server import serving
from support.keyed_server import KeyedServer


class Allowed(msgspec.Struct, frozen=True):
    requests_per_minute: int | None = None
    concurrent_turns: int | None = None


async def turns(scope: Scope, receive: Receive, send: Send) -> None:
    """For each message begins what would be a turn, and says whose; or why not."""
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        try:
            async with reauthorize(scope):
                said = tenant_of(scope)
        except AntiphonError as error:
            said = error.code
        await send({"type": "websocket.send", "text": said})


@contextmanager
def site(allowed: Allowed | None = None) -> Iterator[KeyedServer]:
    keys = MemoryApiKeyStore(time.time)

    def make(service: TurnService) -> RequestMiddleware:
        limiter = RateLimiter(lambda _: allowed) if allowed else None
        return RequestMiddleware(
            turns, Authorizer(ApiKeyAuthenticator(keys), limiter), Metrics(set)
        )

    with serving(site=make) as server:
        yield KeyedServer(server, keys)


def connected(site: KeyedServer, headers: Mapping[str, str]) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{site.server.port}/v1/responses", additional_headers=headers)


def say(client: ClientConnection) -> str:
    client.send("go")
    return str(client.recv(30))


def refusal(site: KeyedServer, headers: Mapping[str, str]) -> InvalidStatus:
    with pytest.raises(InvalidStatus) as refused, connected(site, headers):
        pass
    return refused.value


def test_a_key_opens_a_connection_until_it_is_revoked() -> None:
    with site() as started:
        acme = started.client("acme")
        with connected(started, acme.headers) as client:
            assert say(client) == "acme"
            started.revoke(acme)
            assert say(client) == "invalid_api_key"
            assert say(client) == "invalid_api_key"


def test_without_a_key_there_is_an_answer_and_no_connection() -> None:
    with site() as started:
        started.client()
        answer = refusal(started, {}).response
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == 'Bearer realm="antiphon"'
        assert answer.headers["x-request-id"].startswith("req_")
        assert json.loads(answer.body or b"")["error"]["code"] == "invalid_api_key"


def test_without_any_key_pages_from_elsewhere_stay_out() -> None:
    with site() as started:
        with connected(started, {}) as client:
            assert say(client) == ""
        for headers in ({"origin": "https://evil.example"}, {"origin": "null"}):
            assert refusal(started, headers).response.status_code == 403


def test_each_turn_counts_as_a_request() -> None:
    with site(Allowed(requests_per_minute=3)) as started:
        acme = started.client()
        with connected(started, acme.headers) as client:
            assert [say(client) for _ in range(3)] == ["acme", "acme", "rate_limit_exceeded"]
        assert refusal(started, acme.headers).response.status_code == 429


async def test_a_server_that_cannot_say_why_hangs_up() -> None:
    keys, sent = MemoryApiKeyStore(time.time), []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    front = RequestMiddleware(turns, Authorizer(ApiKeyAuthenticator(keys)), Metrics(set))
    headers = [(b"host", b"evil.example")]
    scope = {"type": "websocket", "path": "/v1/responses", "headers": headers}
    await front(scope, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": "forbidden"}]
