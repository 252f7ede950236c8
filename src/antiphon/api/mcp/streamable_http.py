"""MCP over streamable HTTP: ``POST /mcp``, stateless, with cancellation of running calls.

The server remembers nothing of a client between two requests, so no session can be stolen, or
lost in a restart. A session id is only a name by which a client, within its tenant, can cancel its
own calls.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.types import Message, Receive, Scope, Send

from antiphon.api.common.authentication import tenant_of
from antiphon.api.common.body import DECODE_ERRORS, MAX_BODY, read_body
from antiphon.api.common.node_client import NodeClient, Operation
from antiphon.errors import NotFoundError
from antiphon.turn.running_turns import RunningTurn
from antiphon.turn.service import TurnService

if TYPE_CHECKING:
    from antiphon.api.mcp.server import McpServer

_SESSION_HEADER: Final = b"mcp-session-id"


class _Params(msgspec.Struct, frozen=True, rename="camel"):
    request_id: str | int | None = None


class _MessageHead(msgspec.Struct, frozen=True):
    """As much of a message as the endpoint has to know; the rest is the SDK's."""

    method: str | None = None
    params: _Params | None = None


_decode = msgspec.json.Decoder(_MessageHead).decode


class CallKey(msgspec.Struct, frozen=True):
    """A call as its caller knows it. ``session`` tells callers of one tenant apart."""

    tenant: str
    session: str
    request_id: str | int


class ActiveCalls:
    """Turns by the calls that wait for them, for as long as they do."""

    def __init__(self) -> None:
        self._turns: dict[CallKey, RunningTurn] = {}

    @contextmanager
    def track(self, key: CallKey | None, turn: RunningTurn) -> Iterator[None]:
        """While entered, a call waits for a turn. None: it cannot be told from others."""
        if key is None:
            yield
            return
        self._turns[key] = turn
        try:
            yield
        finally:
            # A caller may have used an id twice.
            if self._turns.get(key) is turn:
                del self._turns[key]

    def cancel(self, key: CallKey) -> bool:
        """Stop what a call waits for, unless it is stored: that goes on. False: it is not here."""
        turn = self._turns.get(key)
        if turn is not None and not turn.is_stored:
            turn.stop(None)
        return turn is not None


class McpEndpoint:
    """The endpoint, over one service. The SDK is loaded by the first request."""

    def __init__(self, service: TurnService, nodes: NodeClient | None = None) -> None:
        self._service = service
        self._nodes = nodes
        self._active_calls = ActiveCalls()
        self._server: McpServer | None = None

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST /mcp. Raises ``NotFoundError`` where the extra ``mcp`` is not installed."""
        if self._server is None:
            # In a thread: others go on being answered meanwhile.
            self._server = await asyncio.to_thread(_load_server, self._service, self._active_calls)
        from mcp.server.streamable_http_manager import (  # loaded on first use
            StreamableHTTPSessionManager,
        )

        body = await read_body(receive)
        message_head = _decode_head(body)
        if message_head.method == "initialize":
            send = _add_session_id(send)
        elif message_head.method == "notifications/cancelled":
            await self._cancel(scope, message_head)
        # One for each request: it holds sessions, and there shall be none.
        manager = StreamableHTTPSessionManager(
            self._server.sdk, stateless=True, max_request_body_size=MAX_BODY
        )
        async with manager.run():
            await manager.handle_request(scope, _replay_body(body, receive), send)

    def operations(self) -> dict[str, Operation]:
        """What other nodes ask this one, by name."""
        return {"cancel_call": self._cancel_for_other}

    async def _cancel_for_other(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {"is_found": self._active_calls.cancel(msgspec.convert(fields, CallKey))}

    async def _cancel(self, scope: Scope, message_head: _MessageHead) -> None:
        session = session_id(scope)
        request_id = message_head.params.request_id if message_head.params else None
        if session is None or request_id is None:
            return
        key = CallKey(tenant_of(scope), session, request_id)
        if not self._active_calls.cancel(key) and self._nodes is not None:
            # Whose call it is only its node knows.
            await self._nodes.call_all("cancel_call", **msgspec.to_builtins(key))


def session_id(scope: Scope) -> str | None:
    """The name that a client was given when it said hello, if it did."""
    for name, value in scope["headers"]:
        if name == _SESSION_HEADER:
            session: str = value.decode("latin-1")
            return session
    return None


def _decode_head(body: bytes) -> _MessageHead:
    try:
        return _decode(body)
    except DECODE_ERRORS:
        return _MessageHead()


def _add_session_id(send: Send) -> Send:
    """Give a client the name of its session with the answer to its hello."""

    async def named(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 200:
            name = (_SESSION_HEADER, os.urandom(16).hex().encode())
            message = {**message, "headers": [*message["headers"], name]}
        await send(message)

    return named


def _replay_body(body: bytes, receive: Receive) -> Receive:
    """A body that was read, to be read once more; then what comes after it."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return waiting.pop() if waiting else await receive()

    return receive_again


def _load_server(service: TurnService, active_calls: ActiveCalls) -> McpServer:
    try:
        from antiphon.api.mcp.server import McpServer  # loaded on first use
    except ModuleNotFoundError as error:
        raise NotFoundError(
            "MCP is not installed at this server: `pip install 'antiphon[mcp]'`",
            code="mcp_not_installed",
        ) from error
    from sse_starlette.sse import AppStatus  # loaded on first use

    # It would cut answers under way short as soon as the server is told to stop. Ours are
    # let out, like all others.
    AppStatus.enable_automatic_graceful_drain = False
    return McpServer(service, active_calls=active_calls)
