"""Listens, serves, and stops in good order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import logging
import signal
import socket
import sys
from collections.abc import Generator, Mapping
from types import FrameType

import uvicorn

from antiphon.assemble import Engine, http_app, open_engine
from antiphon.cli import screen
from antiphon.errors import AntiphonError, ConfigError
from antiphon.settings import Settings, load_settings

if sys.platform != "win32":
    import uvloop

_GC_THRESHOLDS = (20_000, 20, 50)
#: Seconds that answers under way get to finish when the server is told to stop.
_GRACE = 10
#: Seconds for telling those who still read that their turn is interrupted.
_FAREWELL = 2


def serve(flags: Mapping[str, str | int | None]) -> None:
    """Serve until SIGINT or SIGTERM. Raises ``ConfigError`` if it cannot listen."""
    settings = load_settings(flags)
    if settings.grpc_port is not None:
        screen.note("gRPC is not served yet: the gRPC port is ignored")
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    run = asyncio.run if sys.platform == "win32" else uvloop.run
    with contextlib.closing(listen(settings.host, settings.port)) as sock:
        run(_serve(settings, sock))


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ``ConfigError``: in use, not allowed, not loopback."""
    if not _is_loopback(host):
        raise ConfigError(
            f"cannot listen on {host}: no keys are configured, so antiphon serves this machine"
            " only (127.0.0.1, ::1 or localhost)"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror}") from error


async def _serve(settings: Settings, sock: socket.socket) -> None:
    async with open_engine(settings) as engine:
        # What is loaded by now stays for good, and what a turn makes dies with it: a
        # collector that looks seldom, and not at the former, finds as much for less.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)
        config = uvicorn.Config(
            http_app(engine),
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_GRACE + _FAREWELL,
        )
        # A local default model loads while the first client is still on its way.
        warming = asyncio.create_task(_warm(engine))
        try:
            await _Server(config, engine).serve([sock])
        finally:
            warming.cancel()
            await asyncio.gather(warming, return_exceptions=True)


async def _warm(engine: Engine) -> None:
    if engine.settings.model is None:
        return
    try:
        await engine.warm()
    except AntiphonError as error:
        # Each turn that needs the model says so too.
        screen.complain(error.message)


class _Server(uvicorn.Server):
    """Says when it listens, and leaves its engine time to close after a signal."""

    def __init__(self, config: uvicorn.Config, engine: Engine) -> None:
        super().__init__(config)
        self._engine = engine
        self._settings = engine.settings
        self._loop = asyncio.get_running_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._loop.call_soon_threadsafe(
            self._loop.call_later, _GRACE, self._engine.service.interrupt
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            at = f"[{host}]" if ":" in host else host
            model = self._settings.model or "the upstream's models"
            screen.say(f"antiphon is listening on http://{at}:{port}\n")
            screen.note(f"model: {model}; store: {self._settings.store}")

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # uvicorn's own would send the signal again afterwards and kill the process
        # before the engine is closed.
        handled = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
