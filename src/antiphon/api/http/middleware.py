"""What every request passes, from the outside in, before it gets to its endpoint.

1. The exchange: a request id, the headers of every answer, and at the end the metrics
   and a line in the access log.
2. Who may: without keys this machine only (``guard``); with keys whoever has one
   (``auth``), and web pages from where they are allowed (``cors``).
3. How much (``limits``).

All of it wraps ``send`` once and reads the headers once: it stands before each turn.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from functools import partial

from antiphon.api.common.access_log import access, log_access, request_id_for
from antiphon.api.common.authentication import CHALLENGE, Keyring, credential_of, put_tenant
from antiphon.api.common.body import Message, Receive, Scope, Send
from antiphon.api.common.local_only import check_local
from antiphon.api.common.metrics import Metrics
from antiphon.api.common.rate_limits import Limiter, place_of, put_account
from antiphon.api.http.asgi_responses import Handler, send_error
from antiphon.api.http.cors import Cors, Headers, answer_preflight
from antiphon.errors import AntiphonError, AuthenticationError
from antiphon.logging_setup import request_id

_ROUTE, _AGAIN = "antiphon.route", "antiphon.again"
#: Where a POST starts a turn. They are looked up before any router, so no route tells of them.
_TURNS = {"/v1/responses", "/v1/chat/completions", "/v1/responses/compact"}
#: What needs no key: it is asked by those who watch over a server, and by browsers, which
#: have none to send. Nothing of any tenant is in it.
_OPEN = {"/healthz", "/readyz", "/openapi.json", "/docs"}
_NO_SNIFFING = (b"x-content-type-options", b"nosniff")
#: How an answer is counted that nobody stayed for.
_CLIENT_GONE = 499
_REFUSED = 1008
#: How a WebSocket is answered that goes on, and one that was closed before it began.
_SWITCHED = 101
_FORBIDDEN = 403


class _Exchange:
    """One request and its answer, seen from outside."""

    __slots__ = ("_send", "headers", "status")

    def __init__(self, send: Send, headers: Headers) -> None:
        self._send = send
        #: What the answer carries besides its own.
        self.headers = headers
        self.status = _CLIENT_GONE

    def send(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], *self.headers]
        return self._send(message)


class Front:
    """Stands before an application.

    ``limiter`` None: there are no limits; ``cors`` None: no web page may read answers.
    """

    def __init__(
        self,
        app: Handler,
        keyring: Keyring,
        metrics: Metrics,
        limiter: Limiter | None = None,
        cors: Cors | None = None,
    ) -> None:
        self._app = app
        #: Other doors to the same service share these.
        self.keyring = keyring
        self.limiter = limiter
        self.metrics = metrics
        self._cors = cors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            other = self._websocket if scope["type"] == "websocket" else self._app
            await other(scope, receive, send)
            return
        began = time.perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        exchange = _Exchange(send, _named(headers))
        try:
            await self._answer(scope, receive, exchange, headers)
        finally:
            seconds = time.perf_counter() - began
            path, method, status = scope["path"], scope["method"], exchange.status
            route = path if path in _TURNS else scope.get(_ROUTE)
            self.metrics.request(route, method, status, seconds)
            if access.isEnabledFor(logging.INFO):
                log_access(scope, status, seconds)

    async def _answer(
        self, scope: Scope, receive: Receive, exchange: _Exchange, headers: dict[bytes, bytes]
    ) -> None:
        send = exchange.send
        if self._cors is not None:
            exchange.headers += self._cors.headers(headers.get(b"origin"))
            if self._cors.is_preflight(scope["method"], headers):
                await answer_preflight(send, headers)
                return
        try:
            await self._admit(scope, headers, exchange.headers)
            if self.limiter is not None and scope["path"] in _TURNS and scope["method"] == "POST":
                with place_of(scope):
                    await self._app(scope, receive, send)
                return
        except AntiphonError as error:
            await _refuse(send, error)
            return
        await self._app(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, status = time.perf_counter(), _CLIENT_GONE
        try:
            status = await self._connect(scope, receive, send)
        finally:
            if access.isEnabledFor(logging.INFO):
                log_access(scope, status, time.perf_counter() - began)

    async def _connect(self, scope: Scope, receive: Receive, send: Send) -> int:
        """Serve a WebSocket to its end; the status that it was answered with."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        extra = _named(headers)
        try:
            await self._admit(scope, headers, extra)
        except AntiphonError as error:
            if "websocket.http.response" not in scope.get("extensions", ()):
                await send({"type": "websocket.close", "code": _REFUSED, "reason": error.code})
                return _FORBIDDEN

            def deny(message: Message) -> Awaitable[None]:
                return send({**message, "type": f"websocket.{message['type']}"})

            await _refuse(_Exchange(deny, extra).send, error)
            return error.status
        scope[_AGAIN] = partial(self._again, scope, headers)
        status = _FORBIDDEN

        def answer(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "websocket.accept":
                status = _SWITCHED
            return send(message)

        await self._app(scope, receive, answer)
        return status

    async def _again(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        await self._admit(scope, headers, [])

    async def _admit(self, scope: Scope, headers: dict[bytes, bytes], extra: Headers) -> None:
        """Let a request in, or raise why not; ``extra`` gets what its answer shall carry."""
        credential, key = credential_of(headers), None
        keyed = await self.keyring.in_force(credential)
        if not keyed:
            check_local(scope)
        if scope["path"] in _OPEN:
            put_tenant(scope, None)
            return
        if keyed:
            key = await self.keyring.key(credential)
        put_tenant(scope, key)
        if self.limiter is not None:
            account = self.limiter.account(key)
            put_account(scope, account)
            try:
                account.spend()
            finally:
                extra += account.headers()


def put_route(scope: Scope, route: str) -> None:
    """Say which route a request took, as a template: metrics know it by that."""
    scope[_ROUTE] = route


@asynccontextmanager
async def another_turn(scope: Scope) -> AsyncIterator[None]:
    """Within this, a turn may be started on a connection that has many, such as a WebSocket.

    It is to be let in like a request of its own: its key may have been revoked since the
    connection was made. Raises what keeps a request out.
    """
    if again := scope.get(_AGAIN):
        await again()
    with place_of(scope):
        yield


def _named(headers: dict[bytes, bytes]) -> Headers:
    """Give the request its id, here and in the log; the headers of its answer."""
    name = request_id_for(headers.get(b"x-request-id"))
    request_id.set(name)
    return [(b"x-request-id", name.encode()), _NO_SNIFFING]


async def _refuse(send: Send, error: AntiphonError) -> None:
    await send_error(send, error, [CHALLENGE] if isinstance(error, AuthenticationError) else ())
