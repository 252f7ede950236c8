"""Listens, serves, and stops in good order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import sys
from collections.abc import Generator, Mapping
from types import FrameType

import uvicorn

from antiphon.bootstrap import Engine, grpc_server, http_app, open_engine
from antiphon.cli import terminal_output
from antiphon.cli.grpc_listener import GrpcListener, WebSocketProtocol, check_tls
from antiphon.core.proxies import is_loopback
from antiphon.errors import AntiphonError, ConfigError
from antiphon.logging_setup import log_to_stderr
from antiphon.settings import Settings, load_settings

if sys.platform != "win32":
    import uvloop

_GC_THRESHOLDS = (20_000, 20, 50)
#: Bytes; a little over what a body may have, so that the endpoint can say what is wrong.
_MAX_MESSAGE = 33 * 2**20
#: Seconds that answers under way get to finish when the server is told to stop.
_GRACE_SECONDS = 10
#: Seconds for telling those who still read that their turn is interrupted.
_INTERRUPT_SECONDS = 2


def run_server(flags: Mapping[str, str | int | None]) -> None:
    """Serve until SIGINT or SIGTERM. Raises ``ConfigError`` if it cannot listen."""
    settings = load_settings(flags)
    if settings.tls is not None:
        check_tls(settings.tls)
    log_to_stderr(settings.log_level, settings.log_format)
    run = asyncio.run if sys.platform == "win32" else uvloop.run
    run(_run_engine(settings))


def listen(host: str, port: int, *, has_keys: bool) -> socket.socket:
    """A listening socket. Raises ``ConfigError``: in use, not allowed, or no keys yet.

    ``keyed`` False: there are no keys, so that only this machine may be served.
    """
    if not has_keys and not is_loopback(host):
        raise ConfigError(
            f"cannot listen on {host}: there are no keys, so antiphon serves this machine only"
            " (127.0.0.1, ::1 or localhost); `antiphon key create` makes one"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((host, port), family=family, backlog=2048, dualstack_ipv6=both)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror}") from error


async def _run_engine(settings: Settings) -> None:
    async with open_engine(settings) as engine:
        answered = await engine.choose_model()
        keyed = await engine.stores.api_keys.has_keys()
        with contextlib.closing(listen(settings.host, settings.port, has_keys=keyed)) as sock:
            await _serve(engine, sock, has_keys=keyed, chosen=answered)


async def _serve(engine: Engine, sock: socket.socket, *, has_keys: bool, chosen: bool) -> None:
    front, rpc, tls = http_app(engine), GrpcListener(), engine.settings.tls
    host = sock.getsockname()[0]
    await rpc.start(engine.settings, host, lambda: grpc_server(engine, front))
    # What is loaded by now stays for good, and what a turn makes dies with it: a
    # collector that looks seldom, and not at the former, finds as much for less.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    config = uvicorn.Config(
        front,
        http="httptools",
        ws=WebSocketProtocol,
        ws_max_size=_MAX_MESSAGE,
        # Events are small: to compress each would cost more than it saves.
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE_SECONDS + _INTERRUPT_SECONDS,
        ssl_certfile=tls.cert if tls else None,
        ssl_keyfile=tls.key if tls else None,
    )
    # A local default model loads while the first client is still on its way.
    beside = [asyncio.create_task(_warm(engine)), asyncio.create_task(engine.run_retention_sweep())]
    if not chosen:
        beside.append(asyncio.create_task(engine.keep_choosing()))
    try:
        await _Server(config, engine, rpc, has_keys=has_keys).serve([sock])
    finally:
        await rpc.stop(0)
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)


async def _warm(engine: Engine) -> None:
    if engine.settings.model is None:
        return
    try:
        await engine.warm()
    except AntiphonError as error:
        # Each turn that needs the model says so too.
        terminal_output.print_error(error.message)


class _Server(uvicorn.Server):
    """Says when it listens, and leaves its engine time to close after a signal."""

    def __init__(
        self, config: uvicorn.Config, engine: Engine, grpc_listener: GrpcListener, *, has_keys: bool
    ) -> None:
        super().__init__(config)
        self._grpc_listener = grpc_listener
        self._has_keys = has_keys
        self._engine = engine
        self._settings = engine.settings
        self._loop = asyncio.get_running_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        soon = self._loop.call_soon_threadsafe
        soon(self._loop.call_later, _GRACE_SECONDS, self._engine.service.interrupt)
        if self.force_exit:
            # Who asks a second time does not want to wait for anybody.
            soon(self._stop_grpc_now)

    def _stop_grpc_now(self) -> None:
        self._stop_grpc_task = self._loop.create_task(self._grpc_listener.stop(0))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            at = f"[{host}]" if ":" in host else host
            model = self._engine.default_model() or "whichever is named"
            scheme = "https" if self.config.is_ssl else "http"
            terminal_output.print_output(f"antiphon is listening on {scheme}://{at}:{port}\n")
            if self._grpc_listener.address:
                terminal_output.print_note(f"gRPC, for the xai-sdk: {self._grpc_listener.address}")
            terminal_output.print_note(f"model: {model}; store: {self._settings.store}")
            terminal_output.print_note(
                _access_note(host, has_keys=self._has_keys, encrypted=self.config.is_ssl)
            )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        calls = asyncio.create_task(self._grpc_listener.stop(_GRACE_SECONDS + _INTERRUPT_SECONDS))
        await super().shutdown(sockets)
        await calls

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


def _access_note(host: str, *, has_keys: bool, encrypted: bool) -> str:
    if not has_keys:
        return "no keys: this machine only, without asking (antiphon key create makes one)"
    if encrypted or is_loopback(host):
        return "every request needs a key"
    return "every request needs a key; it travels in the clear unless a TLS proxy stands before"
