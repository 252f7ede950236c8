"""HTTP server process: uvicorn and a gRPC listener on one engine, with graceful shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Coroutine, Generator, Mapping
from types import FrameType
from typing import Any, Protocol

import msgspec
import uvicorn

from antiphon import __version__
from antiphon.bootstrap import Engine, grpc_server, http_app, http_protocols, open_engine
from antiphon.cli import terminal_output, workers
from antiphon.cli.engine_runner import warm_default_model
from antiphon.cli.node_listener import NodeListener, listen_error
from antiphon.core.connection_limits import ConnectionLimits
from antiphon.core.http_proxies import is_loopback
from antiphon.core.secrets import uri_without_password
from antiphon.errors import ConfigError, StoreError
from antiphon.logging_setup import log_to_stderr
from antiphon.settings import Settings, Tls, load_settings

if sys.platform != "win32":
    import resource

    import uvloop

#: Bytes of a WebSocket message; a little over a body's limit, so that the endpoint can refuse it.
_MAX_MESSAGE_SIZE = 33 * 2**20
#: Seconds for sending the interruption error to the clients that still read.
_INTERRUPT_SECONDS = 2
#: Seconds for requests to end whose connections were closed for good.
_ABORT_SECONDS = 2
_MAX_PORT = 65535


def run_server(flags: Mapping[str, str | int | float | None], *, open_page: bool = False) -> None:
    """Serve until a signal (``stop_signals``). Raises ``ConfigError`` if it cannot listen.

    ``open_page``: open the chat page in the browser.
    """
    settings = load_settings(flags)
    if settings.tls is not None:
        check_tls(settings.tls)
    log_to_stderr(settings.log_level, settings.log_format)
    if settings.workers == 1:
        serve_process(settings, open_page=open_page)
        return
    workers.run_workers(settings, serve_process, open_page=open_page)


def serve_process(
    settings: Settings, worker: workers.WorkerPipe | None = None, *, open_page: bool = False
) -> None:
    """Serve in this process, the only one or one of the workers that share the port."""
    run = asyncio.run if sys.platform == "win32" else uvloop.run
    run(_run_engine(settings, worker, open_page=open_page))


def listen(host: str, port: int, *, has_keys: bool, shares_port: bool = False) -> socket.socket:
    """A listening socket. Raises ``ConfigError``: in use, not allowed, or no keys yet.

    Without keys (``has_keys`` False) only this machine may be served. ``shares_port``: other
    workers listen there too.
    """
    if not has_keys and not is_loopback(host):
        raise _keys_required(host)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    try:
        sock = socket.create_server(
            (host, port),
            family=family,
            backlog=2048,
            dualstack_ipv6=both,
            reuse_port=shares_port,
        )
    except (OSError, UnicodeError) as error:
        raise listen_error(host, port, error) from error
    # A name is what the resolver makes of it: the address decides.
    if not has_keys and not is_loopback(sock.getsockname()[0]):
        sock.close()
        raise _keys_required(host)
    return sock


def _keys_required(host: str) -> ConfigError:
    return ConfigError(
        f"cannot listen on {host}: there are no keys, so antiphon serves this machine only"
        " (127.0.0.1, ::1 or localhost); `antiphon key create` makes one"
    )


async def _run_engine(
    settings: Settings, worker: workers.WorkerPipe | None, *, open_page: bool
) -> None:
    async with open_engine(settings) as engine:
        # Before anything else: nobody ends the turns that this server is about to go on with.
        await engine.stores.nodes.join(None, __version__)
        has_model_names = await engine.choose_model()
        has_keys = await engine.stores.api_keys.has_keys()
        listener = listen(
            settings.host, settings.port, has_keys=has_keys, shares_port=worker is not None
        )
        with contextlib.closing(listener) as sock:
            if open_page:
                # The socket listens already: a browser that is quicker than the server waits.
                address = _address(sock, is_encrypted=settings.tls is not None)
                threading.Thread(target=workers.open_page, args=(address,), daemon=True).start()
            await _serve(engine, sock, worker, has_keys=has_keys, has_model_names=has_model_names)


def _address(sock: socket.socket, *, is_encrypted: bool) -> str:
    host, port = sock.getsockname()[:2]
    return f"{'https' if is_encrypted else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


async def _serve(
    engine: Engine,
    sock: socket.socket,
    worker: workers.WorkerPipe | None,
    *,
    has_keys: bool,
    has_model_names: bool,
) -> None:
    app = http_app(engine, None if worker is None else (worker.number, worker.server))
    grpc_listener, tls = GrpcListener(), engine.settings.tls
    http, ws = http_protocols(_fit_to_system(engine.settings.connection_limits))
    host = sock.getsockname()[0]
    await grpc_listener.start(engine.settings, host, lambda: grpc_server(engine, app))
    # What is loaded by now lives as long as the process: a collector that skips it frees as much.
    gc.freeze()
    config = uvicorn.Config(
        app,
        http=http,
        ws=ws,
        ws_max_size=_MAX_MESSAGE_SIZE,
        # Events are small: to compress each would cost more than it saves.
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        # Rounded up.
        timeout_graceful_shutdown=int(
            engine.settings.drain_seconds + _INTERRUPT_SECONDS + _ABORT_SECONDS + 1
        ),
        ssl_certfile=tls.cert if tls else None,
        ssl_keyfile=tls.key if tls else None,
    )
    # A local default model loads before the first request arrives.
    background = [
        asyncio.create_task(warm_default_model(engine)),
        asyncio.create_task(engine.run_retention_sweep()),
    ]
    if not has_model_names:
        background.append(asyncio.create_task(engine.keep_choosing()))
    try:
        server = _Server(config, engine, grpc_listener, worker, has_keys=has_keys)
        if worker is not None:
            worker.on_parent_gone(server.stop)
        await server.serve([sock])
    finally:
        await grpc_listener.stop(0)
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)


def _fit_to_system(limits: ConnectionLimits) -> ConnectionLimits:
    """Limits within the process's limit of open files, which is raised as far as it may be.

    Half of them are for connections: upstreams and the store need files too.
    """
    if sys.platform == "win32":
        return limits
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    if soft == resource.RLIM_INFINITY:
        return limits
    return msgspec.structs.replace(
        limits, max_connections=min(limits.max_connections, max(1, soft // 2))
    )


class Listener(Protocol):
    """A gRPC server: what ``GrpcListener`` starts and stops."""

    async def start(self, host: str, port: int, certificate: Tls | None) -> int: ...

    async def stop(self, grace: float) -> None: ...


class GrpcListener:
    """gRPC listener: starts beside the HTTP server; ``address`` is None where it is off."""

    def __init__(self) -> None:
        self._server: Listener | None = None
        self.address: str | None = None

    async def start(
        self, settings: Settings, host: str, create_server: Callable[[], Listener]
    ) -> None:
        """Listen on the configured port; ``create_server`` loads gRPC and is called last.

        Raises ``ConfigError`` where it cannot listen on a port that the settings name; for
        the default port it prints a note instead.
        """
        configured = settings.grpc_port
        if configured == 0:
            return
        # Beside a port that the system chose, the next one may be anybody's.
        port = configured or (settings.port + 1 if settings.port else 0)
        try:
            if port > _MAX_PORT:
                raise ConfigError("there is no port after that of HTTP: name one by --grpc-port")
            server = create_server()
            bound = await server.start(host, port, settings.tls)
        except ConfigError as error:
            if configured is not None:
                raise
            terminal_output.print_note(f"gRPC is off: {error.message}")
            return
        self._server = server
        self.address = f"[{host}]:{bound}" if ":" in host else f"{host}:{bound}"

    async def stop(self, grace: float) -> None:
        """Refuse new calls, and cancel running ones after ``grace`` seconds."""
        if self._server is not None:
            await self._server.stop(grace)


def check_tls(tls: Tls) -> None:
    """Raise ``ConfigError`` unless certificate and key can be read and belong together."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A key that needs a password would make the server ask for it on the terminal.
        context.load_cert_chain(tls.cert, tls.key, password="")
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "reason", None) or error.strerror or "cannot be read"
        raise ConfigError(
            f"the certificate {tls.cert} and the key {tls.key} cannot be used: {reason}"
        ) from error


class _Server(uvicorn.Server):
    """uvicorn server: prints its address, and interrupts turns a grace period after a signal."""

    def __init__(
        self,
        config: uvicorn.Config,
        engine: Engine,
        grpc_listener: GrpcListener,
        worker: workers.WorkerPipe | None,
        *,
        has_keys: bool,
    ) -> None:
        super().__init__(config)
        self._worker = worker
        self._node_listener = NodeListener()
        self._tasks: set[asyncio.Task[None]] = set()
        #: On the loop's clock, and whether it was ended before.
        self._drain_ends_at = 0.0
        self._is_drain_over = asyncio.Event()
        self._grpc_listener = grpc_listener
        self._has_keys = has_keys
        self._engine = engine
        self._settings = engine.settings
        self._loop = asyncio.get_running_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        soon = self._loop.call_soon_threadsafe
        if not self.should_exit:
            self.should_exit = True
            self._drain_ends_at = self._loop.time() + self._settings.drain_seconds
            # Streams without an end: their clients continue at the next server.
            soon(self._engine.stores.changes.close_readers)
            soon(self._start, self._drain())
        elif sig == signal.SIGINT:
            # Not another SIGTERM: a worker may get one from its parent and one as a member of its
            # service, which is stopped once.
            soon(self._end_drain)

    def stop(self) -> None:
        """Stop as after SIGTERM."""
        self.handle_exit(signal.SIGTERM, None)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drain(self) -> None:
        """Take over nothing more, and stop the turns that still run when the time is over."""
        self._engine.service.registry.is_draining = True
        self._start(self._tell_nodes())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._drain_ends_at):
                await self._is_drain_over.wait()
        await self._engine.service.interrupt()

    async def _tell_nodes(self) -> None:
        """Have the other nodes see that this one is about to end."""
        # If that fails, it counts as alive and gets no turns of others in any case.
        with contextlib.suppress(StoreError):
            await self._engine.stores.nodes.set_draining()

    def _end_drain(self) -> None:
        """Stop the turns that still run now."""
        self._drain_ends_at = self._loop.time()
        self._is_drain_over.set()
        self._start(self._grpc_listener.stop(_INTERRUPT_SECONDS))
        self._loop.call_later(_INTERRUPT_SECONDS, self._abort_connections)
        self._loop.call_later(_INTERRUPT_SECONDS + _ABORT_SECONDS, self._leave_requests)

    def _leave_requests(self) -> None:
        """Wait no more for requests that go on without a connection."""
        self.force_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # Others may ask for a turn as soon as it runs here.
        url = self._settings.node_url
        if url is None:
            url = await self._node_listener.start(self._accept_node)
        elif self._worker is not None:
            # The public port is that of all workers.
            url = await self._node_listener.start_at(
                url, self._worker.number, self._accept_node, self.config.ssl
            )
        await self._engine.stores.nodes.join(url, __version__)
        self._start(self._engine.resume_orphans())
        await super().startup(sockets)
        if self.started and sockets:
            lines = self._address_lines(sockets[0])
            if self._worker is not None:
                self._worker.send_ready(lines)
            else:
                workers.print_address(lines)

    def _accept_node(self) -> asyncio.Protocol:
        """A connection of another node."""
        config = self.config
        protocol: asyncio.Protocol = config.http_protocol_class(  # type: ignore[call-arg]
            config=config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol

    def _address_lines(self, sock: socket.socket) -> list[str]:
        """What is printed once it listens: the line for programs, and notes for people."""
        address = _address(sock, is_encrypted=self.config.is_ssl)
        model = self._engine.default_model() or "whichever is named"
        lines = [f"antiphon is listening on {address}"]
        if self._grpc_listener.address:
            lines.append(f"gRPC, for the xai-sdk: {self._grpc_listener.address}")
        store = self._settings.store
        if store.startswith("postgres"):
            store = uri_without_password(store)
        lines.append(f"model: {model}; store: {store}")
        host = sock.getsockname()[0]
        lines.append(_access_note(host, has_keys=self._has_keys, encrypted=self.config.is_ssl))
        return lines

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        grace = self._settings.drain_seconds + _INTERRUPT_SECONDS
        calls = asyncio.create_task(self._grpc_listener.stop(grace))
        abort = self._loop.call_later(grace, self._abort_connections)
        await super().shutdown(sockets)
        abort.cancel()
        await calls
        await self._wait_for_background_turns()
        self._node_listener.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _wait_for_background_turns(self) -> None:
        """Let turns without a connection end, for as long as others may go on."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._drain_ends_at):
                await self._engine.service.registry.wait_all(begun_only=True)

    def _abort_connections(self) -> None:
        """Close the connections whose clients do not read, so that their requests end."""
        for one in list(self.server_state.connections):
            one.transport.abort()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # uvicorn's own would send the signal again afterwards and kill the process
        # before the engine is closed.
        numbers = workers.stop_signals()
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
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
