"""What listens beside HTTP, and what both speak.

The WebSocket side of the HTTP server.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, Protocol

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from antiphon.cli import terminal_output
from antiphon.errors import ConfigError
from antiphon.settings import Settings, Tls


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's, but for this: a refusal is an answer, and no fault of the application.

    Otherwise each client that is turned away by an HTTP status leaves an error in the log.
    """

    async def send(self, message: Any) -> None:
        await super().send(message)
        if self.close_sent:
            self.handshake_complete = True


_MAX_PORT = 65535


class Listener(Protocol):
    """What listens for gRPC."""

    async def start(self, host: str, port: int, certificate: Tls | None) -> int: ...

    async def stop(self, grace: float) -> None: ...


class GrpcListener:
    """The gRPC listener, where there is one. ``at`` is where; None: there is none."""

    def __init__(self) -> None:
        self._server: Listener | None = None
        self.address: str | None = None

    async def start(
        self, settings: Settings, host: str, create_server: Callable[[], Listener]
    ) -> None:
        """Listen, if that is wanted and can be done; ``make`` loads what it takes.

        Raises ``ConfigError`` where it cannot, though somebody asked for it by its port; if
        nobody did, a note says so.
        """
        asked = settings.grpc_port
        if asked == 0:
            return
        # Beside a port that the system chose, the next one may be anybody's.
        port = asked or (settings.port + 1 if settings.port else 0)
        try:
            if port > _MAX_PORT:
                raise ConfigError("there is no port after that of HTTP: name one by --grpc-port")
            server = create_server()
            bound = await server.start(host, port, settings.tls)
        except ConfigError as error:
            if asked is not None:
                raise
            terminal_output.print_note(f"gRPC is off: {error.message}")
            return
        self._server = server
        self.address = f"[{host}]:{bound}" if ":" in host else f"{host}:{bound}"

    async def stop(self, grace: float) -> None:
        """Take no new calls, and end those under way after so many seconds."""
        if self._server is not None:
            await self._server.stop(grace)


def check_tls(tls: Tls) -> None:
    """Raise ``ConfigError`` unless certificate and key can be read and belong together."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A key that needs a password would have the server ask for it on the terminal.
        context.load_cert_chain(tls.cert, tls.key, password="")
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "reason", None) or error.strerror or "cannot be read"
        raise ConfigError(
            f"the certificate {tls.cert} and the key {tls.key} cannot be used: {reason}"
        ) from error
