"""The gRPC server for tests, beside the HTTP one, and the official SDK's clients to it."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
import xai_sdk  # type: ignore[import-untyped]
from xai_sdk.chat import tool  # type: ignore[import-untyped]

from antiphon.api.common.rate_limits import RateLimit
from antiphon.api.grpc.interceptor import RequestInterceptor
from antiphon.api.grpc.server import Certificate, GrpcServer
from antiphon.api.http.app import create_app
from antiphon.api.http.middleware import RequestMiddleware
from antiphon.core.api_keys import hash_api_key, new_api_key, new_api_key_id
from antiphon.core.connection_limits import ConnectionLimits
from antiphon.core.mcp_servers import McpServerConfig
from antiphon.core.token_prices import PriceLookup, no_prices
from antiphon.models.scripted import ScriptedModel
from antiphon.stores.memory.store import MemoryApiKeyStore
from antiphon.turn.protocols import Model
from antiphon.turn.service import TurnService
from antiphon.turn.store_protocols import ApiKey
from support.http_server import TIMEOUT, StoreMaker, ThreadServer, serving

T = TypeVar("T")

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(16)).decode()
WEATHER = tool(
    "get_weather",
    "The weather.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)


class GrpcTestServer:
    """A server that listens for both, and the model behind it."""

    def __init__(
        self, http: ThreadServer, keys: MemoryApiKeyStore, server: GrpcServer, port: int
    ) -> None:
        self.http = http
        self.server = server
        self.port = port
        self.address = f"127.0.0.1:{port}"
        self._keys = keys

    def key(self, tenant: str) -> str:
        """A new key of a tenant."""
        text = new_api_key()
        key = ApiKey(new_api_key_id(), tenant, time.time(), "laptop")
        self.http.run(self._keys.add(key, hash_api_key(text.encode()) or b""))
        return text

    @contextmanager
    def client(self, key: str = "any", **settings: Any) -> Iterator[Any]:
        """The official client, as it comes."""
        with xai_sdk.Client(
            key, api_host=self.address, use_insecure_channel=True, timeout=TIMEOUT, **settings
        ) as client:
            yield client

    async def run_async(self, work: Callable[[Any], Coroutine[Any, Any, T]], key: str = "any") -> T:
        """Something done with the official asynchronous client."""
        async with xai_sdk.AsyncClient(
            key, api_host=self.address, use_insecure_channel=True, timeout=TIMEOUT
        ) as client:
            return await work(client)

    def call_raw(self, path: str, body: bytes, **metadata: str) -> bytes:
        """One call without any classes. Raises ``grpc.RpcError``."""
        named = tuple((name.replace("_", "-"), value) for name, value in metadata.items())
        with grpc.insecure_channel(self.address) as channel:
            call: Any = channel.unary_unary(path)
            answer: bytes = call(body, timeout=TIMEOUT, metadata=named)
            return answer


@contextmanager
def grpc_serving(
    model: Model | Mapping[str, Model] | None = None,
    store: Path | StoreMaker | None = None,
    *,
    rate_limit_for: Callable[[str], RateLimit] | None = None,
    prices: PriceLookup = no_prices,
    fun_prompt: str = "Be funny.",
    certificate: Certificate | None = None,
    mcp: Sequence[McpServerConfig] = (),
    urls: Sequence[str] = (),
    limits: ConnectionLimits | None = None,
) -> Iterator[GrpcTestServer]:
    """Both APIs over one service, with a scripted model and a memory store unless given."""
    keys = MemoryApiKeyStore(time.time)
    sites: list[RequestMiddleware] = []

    def site(service: TurnService) -> RequestMiddleware:
        sites.append(create_app(service, keys, rate_limit_for=rate_limit_for))
        return sites[0]

    with serving(model or ScriptedModel(), store, site, mcp, urls) as http:
        app = sites[0]
        interceptor = RequestInterceptor(app.authorizer, app.metrics)
        server = GrpcServer(
            http.service,
            interceptor,
            prices=prices,
            fun_prompt=fun_prompt,
            limits=limits or ConnectionLimits(),
        )
        port = http.run(server.start("127.0.0.1", 0, certificate))
        try:
            yield GrpcTestServer(http, keys, server, port)
        finally:
            http.run(server.stop(0))
            http.run(wait_for_grpc_calls())


async def wait_for_grpc_calls() -> None:
    """Wait for the last events of this loop's calls, some of which come after a server's end.

    They would find the loop closed, and raise that in another one: grpc has a queue for all.
    """
    names = {"_schedule_rpc_coro", "_handle_exceptions"}
    tasks = asyncio.all_tasks()
    calls = {one for one in tasks if getattr(one.get_coro(), "__qualname__", "") in names}
    if calls:
        await asyncio.wait(calls, timeout=TIMEOUT)


class RpcFailure:
    """What a call failed with."""

    def __init__(self, error: Any) -> None:
        self.code: grpc.StatusCode = error.code()
        self.details: str = error.details()
        self.trailers: dict[str, str] = dict(error.trailing_metadata() or ())

    @property
    def error(self) -> str:
        """The error's code, in OpenAI's words."""
        return str(self.trailers["x-error-code"])

    @property
    def param(self) -> str | None:
        return self.trailers.get("x-error-param")


def rpc_failure(work: Callable[[], object]) -> RpcFailure:
    """What some work fails with."""
    with pytest.raises(grpc.RpcError) as caught:
        work()
    return RpcFailure(caught.value)


def wait_until(done: Callable[[], bool]) -> None:
    """Ask again until it is so."""
    deadline = time.monotonic() + TIMEOUT
    while not done():
        assert time.monotonic() < deadline, "it never comes to that"
