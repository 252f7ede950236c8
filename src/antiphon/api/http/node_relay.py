"""Node relay: the stream of a turn that another node runs, passed on as the bytes that it sends.

If that node dies, the stream goes on where the turn does: with the node that takes the turn over,
or with its stored end.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

import msgspec
from starlette.types import Send

from antiphon.api.common.node_client import NodeClient
from antiphon.api.http.asgi_responses import StreamHead, keep_alive_comment
from antiphon.api.http.chat_completions_codec import KEEP_ALIVE_CHUNK_END
from antiphon.api.http.completion_stream import CompletionStreamOptions
from antiphon.api.http.response_stream import EVENT_END, StreamOptions
from antiphon.errors import NodeUnreachableError
from antiphon.turn.node_protocols import Node
from antiphon.turn.other_nodes import POLL_INTERVAL, TIME_LIMIT

#: What a reader wants of a stream, of either API.
AnyStreamOptions: TypeAlias = StreamOptions | CompletionStreamOptions


class StreamPosition(msgspec.Struct):
    """How far a reader is in a stream: the number of the last event, or chunk, that it has."""

    number: int
    #: The beginning of an event, or of a comment.
    rest: bytes = b""

    def take(self, piece: bytes) -> bytes:
        """What is whole by now, for the reader: events, and what comes between two of them. Pure.

        Comments and chunks that only keep a stream alive have no numbers.
        """
        known = self.rest + piece
        end = known.rfind(EVENT_END) + len(EVENT_END) if EVENT_END in known else 0
        self.number += known.count(EVENT_END, 0, end) - known.count(KEEP_ALIVE_CHUNK_END, 0, end)
        comment = keep_alive_comment()
        while known.startswith(comment, end):
            end += len(comment)
        self.rest = known[end:]
        return known[:end]


class NodeRelay:
    """The relay of one reader's stream, to which ``head`` belongs."""

    def __init__(
        self, client: NodeClient, send: Send, head: StreamHead, options: AnyStreamOptions
    ) -> None:
        self._client = client
        self._send = send
        self._head = head
        self._options = options
        self._position = StreamPosition(options.after)

    def remaining_options(self) -> AnyStreamOptions:
        """What the reader still wants, once nothing more can be passed on."""
        changes: dict[str, Any] = {"after": self._position.number}
        if isinstance(self._options, StreamOptions):
            changes["needs_end"] = self._head.sent
        return msgspec.structs.replace(self._options, **changes)

    async def pass_on(self, tenant: str, response_id: str) -> bool:
        """Pass a turn's stream on, as long as other nodes run it; whether that was all of it.

        False: what remains is to be had from the store, or from a turn of this process.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + TIME_LIMIT
        while (node := await self._client.node_of(tenant, response_id)) is not None:
            try:
                await self._pass_on(node, tenant, response_id)
            except NodeUnreachableError:
                self._position.rest = b""
                if loop.time() > deadline and not self._head.sent:
                    raise
                await asyncio.sleep(POLL_INTERVAL)
                continue
            return True
        return False

    async def _pass_on(self, node: Node, tenant: str, response_id: str) -> None:
        operation = "stream" if isinstance(self._options, StreamOptions) else "completion_stream"
        options = msgspec.to_builtins(self.remaining_options())
        async with self._client.stream(
            node, operation, tenant=tenant, response_id=response_id, options=options
        ) as pieces:
            # That node's head is out: it has a turn to tell of, though perhaps nothing new by now.
            await self._head.put()
            async for piece in pieces:
                if body := self._position.take(piece):
                    await self._send(
                        {"type": "http.response.body", "body": body, "more_body": True}
                    )
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
