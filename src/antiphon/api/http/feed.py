"""Feed endpoint: ``/v1/feed``, what changes for a tenant, as an event stream without an end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Final

import msgspec
from starlette.types import Receive, Scope, Send

from antiphon.api.common.authentication import ApiKeyAuthenticator, credential_of, tenant_of
from antiphon.api.common.body import query_params
from antiphon.api.http.asgi_responses import (
    WRITER,
    DisconnectWatcher,
    KeepAlive,
    last_event_id,
    send_chunk,
    start_stream,
)
from antiphon.errors import AuthenticationError
from antiphon.turn.feed_protocols import Change, ChangeFeed, ChangeReader

_encode = msgspec.json.Encoder().encode
_READY: Final = "feed.ready"


class FeedEndpoints:
    """The endpoint, over the changes of a store."""

    def __init__(self, changes: ChangeFeed, authenticator: ApiKeyAuthenticator) -> None:
        self._changes = changes
        self._authenticator = authenticator

    async def follow(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/feed, from now on, or behind ``Last-Event-ID`` or ``?after=…``"""
        after = last_event_id(scope) or query_params(scope).get("after", [None])[-1]
        reader = await self._changes.subscribe(tenant_of(scope), after)
        try:
            with DisconnectWatcher(receive, writer=scope.get(WRITER)):
                await start_stream(send)
                await send_chunk(send, encode_event(reader.cursor, _READY, {"type": _READY}))
                await self._send_changes(scope, reader, send)
        finally:
            reader.close()
        await send_chunk(send, b"", last=True)

    async def _send_changes(self, scope: Scope, reader: ChangeReader, send: Send) -> None:
        """Send changes until the reader is closed, or the request's key is revoked."""
        loop = asyncio.get_running_loop()
        checked_at = loop.time()
        async with aclosing(_batches(reader)) as batches:
            async for batch in batches:
                if loop.time() - checked_at >= KeepAlive.INTERVAL:
                    checked_at = loop.time()
                    if not await self._is_authorized(scope):
                        return
                # An id by itself is no event, but where a client goes on that connects again.
                body = b"".join(map(_encode_change, batch)) or b"id: %b\n\n" % (
                    reader.cursor.encode()
                )
                await send_chunk(send, body)

    async def _is_authorized(self, scope: Scope) -> bool:
        credential = credential_of(dict(scope["headers"]))
        try:
            if await self._authenticator.is_required(credential):
                await self._authenticator.authenticate(credential)
        except AuthenticationError:
            return False
        return True


async def _batches(reader: ChangeReader) -> AsyncGenerator[Sequence[Change]]:
    """The changes of a reader; an empty batch where there is none for a while."""
    changes = aiter(reader)
    pending = asyncio.ensure_future(anext(changes))
    try:
        while True:
            done, _ = await asyncio.wait({pending}, timeout=KeepAlive.INTERVAL)
            if not done:
                yield ()
                continue
            try:
                yield pending.result()
            except StopAsyncIteration:
                return
            pending = asyncio.ensure_future(anext(changes))
    finally:
        pending.cancel()


def _encode_change(change: Change) -> bytes:
    fields: dict[str, Any] = {
        "type": change.type,
        "chat_id": change.chat_id,
        "response_id": change.response_id,
        "conversation": change.conversation,
        "status": change.status,
        "cascade": change.cascade or None,
        "at": int(change.at) or None,
    }
    shown = {name: value for name, value in fields.items() if value is not None}
    return encode_event(change.cursor, change.type, shown)


def encode_event(cursor: str, event_type: str, data: dict[str, Any]) -> bytes:
    """One event of the feed. Pure."""
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (
        cursor.encode(),
        event_type.encode(),
        _encode(data),
    )
