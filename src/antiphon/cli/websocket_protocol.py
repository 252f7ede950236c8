"""The WebSocket side of the HTTP server."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's, but for this: a refusal is an answer, and no fault of the application.

    Otherwise each client that is turned away by an HTTP status leaves an error in the log.
    """

    async def send(self, message: Any) -> None:
        await super().send(message)
        if self.close_sent:
            self.handshake_complete = True
