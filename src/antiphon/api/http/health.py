"""Server state: liveness, readiness, metrics and models; ``/healthz`` to ``/v1/models``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.types import Receive, Scope, Send

from antiphon.api.common.authentication import ApiKeyAuthenticator
from antiphon.api.http.asgi_responses import send_json
from antiphon.errors import ServerBusyError, StoreError
from antiphon.turn.protocols import Model
from antiphon.turn.service import TurnService
from antiphon.turn.store_protocols import StoreHealth

_encode = msgspec.json.Encoder().encode

#: Seconds that the store has for one read and one write.
_STORE_TIMEOUT = 2.0


class HealthEndpoints:
    """``/healthz``, ``/readyz`` and ``/metrics``, for monitors."""

    def __init__(
        self,
        authenticator: ApiKeyAuthenticator,
        render_metrics: Callable[[], Awaitable[bytes]],
        health: StoreHealth | None = None,
        is_draining: Callable[[], bool] = lambda: False,
    ) -> None:
        self._is_draining = is_draining
        self.authenticator = authenticator
        self._health = health
        self._render_metrics = render_metrics

    async def live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /healthz: the process answers."""
        await _send_text(send, b"ok\n")

    async def ready(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /readyz: whether new turns are taken, and the store can be read and written.

        Raises ``ServerBusyError`` and ``StoreError``.
        """
        if self._is_draining():
            raise ServerBusyError("The server is draining: it is about to end.", code="draining")
        try:
            async with asyncio.timeout(_STORE_TIMEOUT):
                await self.authenticator.ping()
                if self._health is not None:
                    await self._health.check_writable()
        except TimeoutError as late:
            raise StoreError("The store does not answer.") from late
        await _send_text(send, b"ready\n")

    async def metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /metrics"""
        await _send_text(send, await self._render_metrics(), CONTENT_TYPE_PLAIN_0_0_4.encode())


class ModelEndpoints:
    """``/v1/models``: the models of one service."""

    def __init__(self, service: TurnService) -> None:
        self._service = service

    async def list_all(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/models"""
        data = [_model_body(name, model) for name, model in self._service.models.items()]
        await send_json(send, _encode({"object": "list", "data": data}))

    async def retrieve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/models/{id}"""
        name, model = self._service.models.get(scope["path_params"]["id"])
        await send_json(send, _encode(_model_body(name, model)))


async def _send_text(
    send: Send, body: bytes, content_type: bytes = b"text/plain; charset=utf-8"
) -> None:
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _model_body(name: str, model: Model) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": model.info.owned_by}
