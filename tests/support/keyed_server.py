"""A server with keys, and those who have them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from antiphon.api.common.rate_limits import RateLimit
from antiphon.api.http.app import create_app
from antiphon.api.http.middleware import RequestMiddleware
from antiphon.core.api_keys import hash_api_key, new_api_key, new_api_key_id
from antiphon.core.connection_limits import ConnectionLimits
from antiphon.stores.memory.store import MemoryApiKeyStore
from antiphon.turn.protocols import Model
from antiphon.turn.service import TurnService
from antiphon.turn.store_protocols import ApiKey
from support.http_server import Answer, ThreadServer, serving


class Client:
    """Someone with a key, or with none."""

    def __init__(self, server: ThreadServer, text: str | None, key: ApiKey) -> None:
        self.server = server
        self.text = text
        self.key = key
        self.headers = {"authorization": f"Bearer {text}"} if text else {}

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        return self.server.request(method, path, body, {**self.headers, **(headers or {})})

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def respond(self, text: str = "Hi", /, **fields: Any) -> Answer:
        return self.request("POST", "/v1/responses", {"input": text, **fields})


class KeyedServer:
    """A server and its keys."""

    def __init__(self, server: ThreadServer, keys: MemoryApiKeyStore) -> None:
        self.server = server
        self.keys = keys

    def client(self, tenant: str = "acme") -> Client:
        """Someone with a new key."""
        text, key = new_api_key(), ApiKey(new_api_key_id(), tenant, time.time())
        self.server.run(self.keys.add(key, hash_api_key(text.encode()) or b""))
        return Client(self.server, text, key)

    def anonymous_client(self) -> Client:
        """Someone without a key."""
        return Client(self.server, None, ApiKey("", "", 0))

    def revoke(self, client: Client) -> None:
        assert self.server.run(self.keys.revoke(client.key.id))


@contextmanager
def serving_with_keys(
    model: Model | None = None,
    *,
    keys: MemoryApiKeyStore | None = None,
    rate_limit_for: Callable[[str], RateLimit] | None = None,
    origins: Sequence[str] = (),
    limits: ConnectionLimits | None = None,
) -> Iterator[KeyedServer]:
    """A server on a real socket that asks for keys, as soon as one is made."""
    store = keys or MemoryApiKeyStore(time.time)

    def site(service: TurnService) -> RequestMiddleware:
        return create_app(service, store, rate_limit_for=rate_limit_for, origins=origins)

    with serving(model, site=site, limits=limits) as server:
        yield KeyedServer(server, store)
