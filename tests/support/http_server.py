"""The real server for tests: in a thread of this process, or as a process of its own."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import os
import re
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec
import uvicorn
import uvloop

from antiphon.api.http.app import create_app
from antiphon.api.http.connections import connection_protocols
from antiphon.api.http.middleware import RequestMiddleware
from antiphon.core.connection_limits import ConnectionLimits
from antiphon.core.mcp_servers import McpServerConfig
from antiphon.models.model_registry import ModelRegistry
from antiphon.models.scripted import ScriptedModel
from antiphon.stores.memory.store import MemoryApiKeyStore, MemoryStore
from antiphon.stores.postgres.store import open_postgres
from antiphon.stores.sqlite.store import open_sqlite
from antiphon.tools.mcp.manager import McpServerManager
from antiphon.turn.protocols import Model
from antiphon.turn.service import TurnService
from antiphon.turn.store_protocols import Store
from support.postgres_database import leased_database
from support.program_process import ProgramProcess
from support.stored_responses import response_ids

PROGRAM = str(Path(sys.executable).parent / "antiphon")
T = TypeVar("T")
StoreMaker = Callable[[], Awaitable[Store]]
SiteMaker = Callable[[TurnService], RequestMiddleware]
#: Seconds after which whatever has not happened never will.
TIMEOUT = 30.0


class Answer(msgspec.Struct, frozen=True):
    """An HTTP answer, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.body)
        return value

    @property
    def error(self) -> dict[str, Any]:
        """The error of an answer that is one, with exactly OpenAI's fields and ours."""
        body = self.json
        assert set(body) == {"error"}
        error: dict[str, Any] = body["error"]
        assert set(error) - {"response_id"} == {"message", "type", "param", "code"}
        assert isinstance(error["message"], str)
        assert error["message"]
        return error

    @property
    def without_ids(self) -> bytes:
        """The body of a stream that was read again, without the numbers of its events."""
        return re.sub(rb"(?m)^id: \d+\n", b"", self.body)

    @property
    def events(self) -> list[dict[str, Any]]:
        return parse_events(self.body)


def parse_events(raw: bytes) -> list[dict[str, Any]]:
    """The data of a whole stream of a response, every line of which is looked at."""
    *blocks, done, rest = raw.decode().split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    events = []
    for place, block in enumerate(blocks):
        *ids, name, data = block.split("\n")
        assert ids in ([], [f"id: {place}"])
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == place
        events.append(event)
    return events


def parse_chunks(raw: bytes) -> list[dict[str, Any]]:
    """The data of a whole chat completions stream."""
    *blocks, done, rest = raw.decode().split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


class Address:
    """Where a server listens, and plain ways to ask it something."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.base_url = f"{self.url}/v1"

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        data = json.dumps(body).encode() if isinstance(body, Mapping) else body
        with closing(self.connect()) as connection:
            connection.request(
                method, path, data, {"content-type": "application/json", **(headers or {})}
            )
            return read_answer(connection)

    def post(self, path: str, /, **fields: Any) -> Answer:
        return self.request("POST", path, fields)

    def respond(self, text: str = "Hi", /, **fields: Any) -> Answer:
        """One turn; ``text`` is its input unless that is given."""
        return self.post("/v1/responses", **{"input": text, **fields})

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)

    def socket(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT)


def read_answer(connection: http.client.HTTPConnection) -> Answer:
    answer = connection.getresponse()
    headers = {name.lower(): value for name, value in answer.getheaders()}
    return Answer(answer.status, headers, answer.read())


class ThreadServer(Address):
    """A server in a thread. ``faults`` are errors it logged: the test fails for any left."""

    def __init__(
        self, port: int, service: TurnService, store: Store, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(port)
        self.service = service
        self.store = store
        self.logged_errors: list[str] = []
        self._loop = loop

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something where the server runs, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(TIMEOUT)

    def wait(self, event: asyncio.Event) -> None:
        """Wait for an event that the server's side sets."""
        self.run(_with_timeout(event.wait()))

    def set(self, event: asyncio.Event) -> None:
        self._loop.call_soon_threadsafe(event.set)

    def stored_count(self) -> int:
        """How many responses the store has."""
        return len(self.run(response_ids(self.store)))


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until something is so, whoever makes it so."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


async def _with_timeout(work: Awaitable[T]) -> T:
    return await asyncio.wait_for(work, TIMEOUT)


class _Uvicorn(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started
        self._stopping = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()

    async def main_loop(self) -> None:
        # The original looks ten times a second whether it shall stop.
        await self._stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # The original waits 0.1 s, whatever there is to wait for.
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await asyncio.sleep(0)
        if self.server_state.connections or self.server_state.tasks:
            await super().shutdown(sockets)
            return
        for server in self.servers:
            server.close()
        for listener in sockets or ():
            listener.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)


class _ErrorLogHandler(logging.Handler):
    """Keeps the errors that one thread logs."""

    def __init__(self, thread: threading.Thread) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []
        self._thread = thread

    def emit(self, record: logging.LogRecord) -> None:
        message = logging.Formatter().format(record)
        # What a test's browser has left undone may be collected in this thread.
        if record.thread == self._thread.ident and "playwright/_impl" not in message:
            self.messages.append(message)


def app_without_keys(service: TurnService) -> RequestMiddleware:
    """The site of a server for which no key was ever made."""
    return create_app(service, MemoryApiKeyStore(time.time))


@contextmanager
def serving(
    model: Model | Mapping[str, Model] | None = None,
    store: Path | StoreMaker | str | None = None,
    site: SiteMaker = app_without_keys,
    mcp: Sequence[McpServerConfig] = (),
    urls: Sequence[str] = (),
    *,
    limits: ConnectionLimits | None = None,
) -> Iterator[ThreadServer]:
    """The HTTP API on a real socket, with a scripted model and a store in memory unless given.

    ``store`` is a database's path, the kind of a store (``STORES``) or what makes one; where none
    is given, ANTIPHON_TEST_STORE may name the kind. ``mcp`` are the MCP servers
    that requests may name, besides those at ``urls``. Fails at the end if the server
    logged an error that the test did not take out of ``faults``.
    """
    models = model if isinstance(model, Mapping) else {"scripted": model or ScriptedModel()}
    started: Future[tuple[ThreadServer, _Uvicorn]] = Future()
    with closing(socket.create_server(("127.0.0.1", 0), backlog=256)) as sock:
        thread = threading.Thread(
            target=_run,
            args=(
                sock,
                _ServerParts(models, store, site, mcp, urls, limits or ConnectionLimits()),
                started,
            ),
        )
        faults = _ErrorLogHandler(thread)
        logging.getLogger().addHandler(faults)
        thread.start()
        try:
            server, uvicorn_server = started.result(TIMEOUT)
            server.logged_errors = faults.messages
            try:
                yield server
            finally:
                uvicorn_server.stop()
        finally:
            thread.join(TIMEOUT)
            logging.getLogger().removeHandler(faults)
    if thread.is_alive() or faults.messages:
        raise AssertionError(faults.messages or "the server does not stop")


class _ServerParts(msgspec.Struct, frozen=True):
    """What a server is made of."""

    models: Mapping[str, Model]
    store: Path | StoreMaker | str | None
    site: SiteMaker
    mcp: Sequence[McpServerConfig]
    urls: Sequence[str]
    limits: ConnectionLimits


def _run(
    sock: socket.socket,
    parts: _ServerParts,
    started: Future[tuple[ThreadServer, _Uvicorn]],
) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_serve(sock, parts, started))
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)


async def _serve(
    sock: socket.socket,
    parts: _ServerParts,
    started: Future[tuple[ThreadServer, _Uvicorn]],
) -> None:
    with _opened(parts.store) as opening:
        await _serve_store(sock, parts, started, await opening)


async def _serve_store(
    sock: socket.socket,
    parts: _ServerParts,
    started: Future[tuple[ThreadServer, _Uvicorn]],
    store: Store,
) -> None:
    catalog = ModelRegistry(parts.models, default=next(iter(parts.models)))
    gateway = McpServerManager(parts.mcp, parts.urls)
    service = TurnService(store, catalog, getattr(store, "stores", None), gateway)
    http, ws = connection_protocols(parts.limits)
    config = uvicorn.Config(
        parts.site(service),
        http=http,
        ws=ws,
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    server = ThreadServer(sock.getsockname()[1], service, store, asyncio.get_running_loop())
    uvicorn_server = _Uvicorn(config, lambda: started.set_result((server, uvicorn_server)))
    try:
        await uvicorn_server.serve([sock])
    finally:
        await service.close()
        await gateway.close()


@contextmanager
def _opened(store: Path | StoreMaker | str | None) -> Iterator[Awaitable[Store]]:
    """What opens the store of a server, and where it lies while the block runs."""
    if callable(store):
        yield store()
    elif isinstance(store, Path):
        yield open_sqlite(store)
    elif (kind := store or os.environ.get("ANTIPHON_TEST_STORE", "memory")) == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            yield open_sqlite(Path(folder, "turns.db"))
    elif kind == "postgres":
        with leased_database() as uri:
            yield open_postgres(uri)
    else:
        yield _open_memory()


async def _open_memory() -> MemoryStore:
    return MemoryStore()


class ServerProcess(Address):
    """``antiphon serve`` as a process, with a database in ``home``.

    Its models are scripted ones, or the upstream at ``base_url``; the first is the default.
    A context, which at its end kills the process if that still lives. ``store`` is the URI of
    another store, ``settings`` further lines of the settings, ``flags`` options of the command.
    """

    def __init__(
        self,
        home: Path,
        base_url: str | None = None,
        names: Sequence[str] = ("m",),
        *,
        store: str | None = None,
        settings: str = "",
        flags: Sequence[str] = (),
    ) -> None:
        self.config = config = home / "antiphon.toml"
        model = f'base_url = "{base_url}"' if base_url else 'kind = "scripted"'
        models = "".join(f'[models."{name}"]\n{model}\n' for name in names)
        config.write_text(f'model = "{names[0]}"\n{settings}\n{models}')
        self.database = home / "data" / "antiphon.db"
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "ANTIPHON_CONFIG": str(config),
            "ANTIPHON_STORE": store or f"sqlite:{self.database}",
            "ANTIPHON_PORT": "0",
        }
        self._log = (home / "server.log").open("ab")
        self.process = ProgramProcess(
            [PROGRAM, "serve", *flags], environment, home, stderr=self._log
        )
        line = self.process.stdout.readline()
        found = re.search(r"listening on https?://127\.0\.0\.1:(\d+)", line)
        if found is None:
            self.kill()
            raise AssertionError((line, (home / "server.log").read_text()))
        super().__init__(int(found[1]))

    @property
    def grpc_address(self) -> str:
        """Where it listens for gRPC."""
        until = time.monotonic() + TIMEOUT
        # It is printed right behind the line that says that it listens.
        while (found := re.search(r"gRPC, for the xai-sdk: (\S+)\n", self.log_text())) is None:
            assert time.monotonic() < until, self.log_text()
            time.sleep(0.01)
        return found[1]

    def log_text(self) -> str:
        """What it has logged so far."""
        return (self.config.parent / "server.log").read_text()

    def send_kill(self) -> None:
        """Kill it at once, without waiting to see it dead."""
        self.process.send_signal(signal.SIGKILL)

    def kill(self) -> None:
        self.send_kill()
        self._reap()

    def stop(self) -> int:
        """Ask it to stop, and say how it exited."""
        self.process.send_signal(signal.SIGTERM)
        return self._reap()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _reap(self) -> int:
        self._log.close()
        with self.process:
            return self.process.wait(TIMEOUT)
