"""``/healthz``, ``/readyz``, ``/metrics``: for those who watch over a server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from antiphon.api.common.authentication import ApiKeyAuthenticator
from antiphon.api.common.body import Receive, Scope, Send
from antiphon.api.common.metrics import Metrics
from antiphon.api.http.asgi_responses import Handler
from antiphon.errors import StoreError
from antiphon.turn.store_protocols import StoreHealth

#: Seconds that the store has for one read and one write.
_STORE_TIMEOUT = 2.0
_TEXT_HEADER = (b"content-type", b"text/plain; charset=utf-8")


class HealthEndpoints:
    """The endpoints."""

    def __init__(
        self,
        authenticator: ApiKeyAuthenticator,
        metrics: Metrics,
        health: StoreHealth | None = None,
    ) -> None:
        self._authenticator = authenticator
        self._health = health
        self._metrics = metrics

    def routes(self) -> Mapping[str, dict[str, Handler]]:
        """Methods by path."""
        return {
            "/healthz": {"GET": health},
            "/readyz": {"GET": self.ready},
            "/metrics": {"GET": self._metrics.serve},
        }

    async def ready(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /readyz: whether a turn could be kept and found. Raises ``StoreError``."""
        try:
            async with asyncio.timeout(_STORE_TIMEOUT):
                await self._authenticator.ping()
                if self._health is not None:
                    await self._health.check_writable()
        except TimeoutError as late:
            raise StoreError("The store does not answer.") from late
        await _send_text(send, b"ready\n")


async def health(scope: Scope, receive: Receive, send: Send) -> None:
    """GET /healthz: the process answers."""
    await _send_text(send, b"ok\n")


async def _send_text(send: Send, body: bytes) -> None:
    headers = [_TEXT_HEADER, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
