"""Clients that leave while they wait: nothing goes on waiting for them."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from starlette.types import Message, Scope

from antiphon.api.common.authentication import ApiKeyAuthenticator, set_caller
from antiphon.api.common.metrics import Metrics
from antiphon.api.http.app import HttpApp
from antiphon.api.http.health import HealthEndpoints
from antiphon.api.http.xai_rest import XaiEndpoints
from antiphon.core.ids import new_response_id
from antiphon.core.items import Message as Said
from antiphon.core.token_prices import no_prices
from antiphon.core.turns import DEFAULT_TENANT, Header, TurnRequest
from antiphon.models.model_registry import ModelRegistry
from antiphon.models.scripted import ScriptedModel, hang
from antiphon.stores.memory.store import MemoryApiKeyStore, MemoryStore
from antiphon.turn.service import TurnService
from antiphon.turn.store_protocols import NewTurn
from support.http_server import TIMEOUT


def http_app(service: TurnService) -> HttpApp:
    authenticator = ApiKeyAuthenticator(MemoryApiKeyStore(time.time))
    health = HealthEndpoints(authenticator, Metrics(set).render)
    return HttpApp(service, health, XaiEndpoints(service, authenticator, no_prices))


class Client:
    """Asks one thing, and hangs up when told to."""

    def __init__(self, app: HttpApp, method: str, path: str, body: Any = None) -> None:
        self.hung_up = asyncio.Event()
        self.sent: list[Message] = []
        self._body: bytes | None = b"" if body is None else json.dumps(body).encode()
        path, _, query = path.partition("?")
        scope: Scope = {
            "type": "http",
            "method": method,
            "path": path,
            "root_path": "",
            "query_string": query.encode(),
            "headers": [],
        }
        set_caller(scope)
        self.answering = asyncio.create_task(app(scope, self._receive, self._send))

    async def hang_up(self) -> None:
        """Leave, and wait until that was noticed."""
        self.hung_up.set()
        await asyncio.wait_for(self.answering, TIMEOUT)

    async def _receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body}
        await self.hung_up.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        # As servers do: to write to a client that left is no error.
        self.sent.append(message)


def service_of(model: ScriptedModel) -> TurnService:
    store = MemoryStore()
    return TurnService(store, ModelRegistry({"m": model}, default="m"), store.stores)


async def test_of_the_stream_of_a_turn_that_another_process_runs() -> None:
    store = MemoryStore()
    service = TurnService(store, ModelRegistry({"m": ScriptedModel()}, default="m"), store.stores)
    name = new_response_id()
    # No runner of this process has begun it, and none will end it.
    await store.begin(NewTurn(name, DEFAULT_TENANT, time.time(), Header("m"), ()))
    client = Client(http_app(service), "GET", f"/v1/responses/{name}?stream=true")
    await client.hang_up()
    await service.close()


async def test_of_a_stream_of_a_turn_of_this_process_which_goes_on() -> None:
    model = ScriptedModel([hang(reached := asyncio.Event())])
    service = service_of(model)
    turn = await service.start(TurnRequest((Said("user", "Hi"),)))
    await reached.wait()
    path = f"/v1/responses/{turn.response_id}?stream=true"
    await Client(http_app(service), "GET", path).hang_up()
    assert not turn.done()
    await service.close()


@pytest.mark.parametrize("stream", [True, False])
async def test_of_a_turn_that_waits_for_another_one(stream: bool) -> None:
    model = ScriptedModel([hang(reached := asyncio.Event()), "Done."])
    service = service_of(model)
    app = http_app(service)
    assert service.stores is not None
    talk = (await service.stores.conversations.create(DEFAULT_TENANT, {})).id
    asked = {"input": "Hi", "conversation": talk, "on_busy": "queue", "stream": stream}
    first = Client(app, "POST", "/v1/responses", asked)
    await reached.wait()
    await Client(app, "POST", "/v1/responses", asked).hang_up()
    assert len(model.calls) == 1
    await first.hang_up()
    running = await service.stores.conversations.get(DEFAULT_TENANT, talk)
    assert running is not None
    await service.cancel(DEFAULT_TENANT, running.active_response_id or "")
    again = await service.start(TurnRequest((Said("user", "Hi"),), conversation=talk))
    assert (await again.result()).status == "completed"
    await service.close()


async def test_of_a_summary_that_is_not_kept() -> None:
    model = ScriptedModel([hang(reached := asyncio.Event())])
    service = service_of(model)
    asked = {"input": "A long story.", "model": "m"}
    client = Client(http_app(service), "POST", "/v1/responses/compact", asked)
    await reached.wait()
    await client.hang_up()
    assert model.cancelled.is_set()
    await service.close()
