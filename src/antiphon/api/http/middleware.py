"""Middleware: request id, CORS, authorization, rate limits, metrics and access log.

It wraps ``send`` once and reads the headers once, because it runs before each turn.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from functools import partial

from starlette.types import Message, Receive, Scope, Send

from antiphon.api.common.access_log import access_logger, log_access, request_id_for
from antiphon.api.common.authentication import CHALLENGE, set_caller, set_needs_key
from antiphon.api.common.authorization import Authorizer, Principal, check_single_headers
from antiphon.api.common.deferred_completions import DeferredCompletions
from antiphon.api.common.metrics import Metrics
from antiphon.api.common.rate_limits import concurrency_slot, set_key_usage
from antiphon.api.http.asgi_responses import (
    ADMIT,
    WRITER,
    AnswerSender,
    Handler,
    Headers,
    send_error,
)
from antiphon.api.http.content_encoding import decompress_body, has_content_encoding
from antiphon.api.http.cors import CorsPolicy, send_preflight_response
from antiphon.api.http.node_endpoints import HEADER as NODE_HEADER
from antiphon.api.http.node_endpoints import NodeEndpoints
from antiphon.api.http.routes import is_public
from antiphon.errors import AntiphonError, AuthenticationError
from antiphon.logging_setup import request_id

_ROUTE, _REAUTHORIZE = "antiphon.route", "antiphon.again"
#: Where a POST starts a turn. They are looked up before any router, so no route tells of them.
_TURN_PATHS = {"/v1/responses", "/v1/chat/completions", "/v1/responses/compact"}
_NO_SNIFFING = (b"x-content-type-options", b"nosniff")
#: How an answer is counted that nobody stayed for.
_CLIENT_CLOSED_REQUEST = 499
_POLICY_VIOLATION = 1008
#: How a WebSocket is answered that goes on, and one that was closed before it began.
_SWITCHING_PROTOCOLS = 101
_FORBIDDEN = 403
_SLASHES = re.compile("//+")


def normalize_path(path: str) -> str:
    """A path without repeated slashes and without one at its end. Pure.

    Clients join a base URL and a path, with a slash in both, or behind them.
    """
    return _SLASHES.sub("/", path).rstrip("/") or "/"


class RequestMiddleware:
    """ASGI middleware before the application. ``cors`` None: no web page may read responses.

    ``nodes`` answers the other nodes of the store, which have no keys but a secret.
    """

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        app: Handler,
        authorizer: Authorizer,
        metrics: Metrics,
        cors: CorsPolicy | None = None,
        nodes: NodeEndpoints | None = None,
        deferred_completions: DeferredCompletions | None = None,
    ) -> None:
        self._app = app
        #: The gRPC server of the same service uses these too.
        self.authorizer = authorizer
        self.metrics = metrics
        self.deferred_completions = deferred_completions
        self._cors = cors
        self._nodes = nodes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if path[-1:] == "/" or "//" in path:
            scope["path"] = normalize_path(path)
        if scope["type"] != "http":
            other = self._handle_websocket if scope["type"] == "websocket" else self._app
            await other(scope, receive, send)
            return
        began = time.perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if NODE_HEADER in headers and self._nodes is not None:
            await self._nodes.handle(scope, receive, send)
            return
        answer = AnswerSender(send, _assign_request_id(headers), scope.get(WRITER))
        if has_content_encoding(headers):
            receive = decompress_body(scope["headers"], receive)
        try:
            await self._handle_http(scope, receive, answer, headers)
        finally:
            seconds = time.perf_counter() - began
            path, method = scope["path"], scope["method"]
            status = answer.status or _CLIENT_CLOSED_REQUEST
            route = path if path in _TURN_PATHS else scope.get(_ROUTE)
            self.metrics.observe_request(route, method, status, seconds)
            if access_logger.isEnabledFor(logging.INFO):
                log_access(scope, status, seconds)

    async def _handle_http(
        self, scope: Scope, receive: Receive, send: AnswerSender, headers: dict[bytes, bytes]
    ) -> None:
        if self._cors is not None:
            send.headers += self._cors.headers(headers.get(b"origin"))
            if self._cors.is_preflight(scope["method"], headers):
                await send_preflight_response(send, headers)
                return
        try:
            check_single_headers(scope["headers"], headers)
            await self._authorize(scope, headers, send.headers)
            if (
                self.authorizer.limiter is not None
                and scope["path"] in _TURN_PATHS
                and scope["method"] == "POST"
            ):
                async with concurrency_slot(scope):
                    await self._app(scope, receive, send)
                return
        except AntiphonError as error:
            await _send_refusal(send, error)
            return
        await self._app(scope, receive, send)

    async def _handle_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, status = time.perf_counter(), _CLIENT_CLOSED_REQUEST
        try:
            status = await self._serve_websocket(scope, receive, send)
        finally:
            if access_logger.isEnabledFor(logging.INFO):
                log_access(scope, status, time.perf_counter() - began)

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> int:
        """Serve a WebSocket to its end; the status that it was answered with."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        extra = _assign_request_id(headers)
        try:
            check_single_headers(scope["headers"], headers)
            await self._authorize(scope, headers, extra)
        except AntiphonError as error:
            if "websocket.http.response" not in scope.get("extensions", ()):
                await send(
                    {"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": error.code}
                )
                return _FORBIDDEN

            def deny(message: Message) -> Awaitable[None]:
                return send({**message, "type": f"websocket.{message['type']}"})

            await _send_refusal(AnswerSender(deny, extra), error)
            return error.status
        scope[_REAUTHORIZE] = partial(self._reauthorize, scope, headers)
        status = _FORBIDDEN

        def answer(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "websocket.accept":
                status = _SWITCHING_PROTOCOLS
            return send(message)

        await self._app(scope, receive, answer)
        return status

    async def _reauthorize(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        await self._authorize(scope, headers, [])

    async def _authorize(
        self, scope: Scope, headers: Mapping[bytes, bytes], response_headers: Headers
    ) -> None:
        """Admit a request; ``response_headers`` get those of its rate limit."""
        needs_no_key = is_public(scope["path"])
        await self.authorizer.authorize(
            headers,
            local_headers=scope["headers"],
            add_header=lambda name, value: response_headers.append((name, value)),
            on_principal=partial(_set_principal, scope),
            is_public=needs_no_key,
        )
        if ADMIT in scope and not needs_no_key:
            scope[ADMIT]()


def _set_principal(scope: Scope, principal: Principal) -> None:
    set_caller(scope, principal.tenant, principal.key)
    if principal.needs_key:
        set_needs_key(scope)
    if principal.usage is not None:
        set_key_usage(scope, principal.usage)


def set_route(scope: Scope, route: str) -> None:
    """Set a request's route template, which is its label in the metrics."""
    scope[_ROUTE] = route


@asynccontextmanager
async def reauthorize(scope: Scope) -> AsyncIterator[None]:
    """Within this, a turn may be started on a connection that has many, such as a WebSocket.

    It is to be let in like a request of its own: its key may have been revoked since the
    connection was made. Raises what keeps a request out.
    """
    if again := scope.get(_REAUTHORIZE):
        await again()
    async with concurrency_slot(scope):
        yield


def _assign_request_id(headers: dict[bytes, bytes]) -> Headers:
    """Give the request its id, here and in the log; the headers of its answer."""
    name = request_id_for(headers.get(b"x-request-id"))
    request_id.set(name)
    return [(b"x-request-id", name.encode()), _NO_SNIFFING]


async def _send_refusal(send: Send, error: AntiphonError) -> None:
    await send_error(send, error, [CHALLENGE] if isinstance(error, AuthenticationError) else ())
