"""Bootstrap: builds the engine from ``Settings``; the only module that imports every layer."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import msgspec

from antiphon.api.common.node_client import NodeClient
from antiphon.configured_models import build_model_registry
from antiphon.core.connection_limits import ConnectionLimits
from antiphon.core.erase_report import EraseReport
from antiphon.core.retention import DAY_SECONDS, RETAIN_FOREVER, RetentionPolicy
from antiphon.core.token_prices import PriceLookup
from antiphon.errors import ConfigError, ModelNotFoundError, StoreError
from antiphon.models.fallback import FallbackModel
from antiphon.models.llama.model import LlamaModel
from antiphon.models.model_registry import ModelRegistry
from antiphon.models.openai.upstream_model import (
    UpstreamModel,
    why_undecided,
    why_unknown,
)
from antiphon.models.retry import AttemptError
from antiphon.settings import Limits, Settings
from antiphon.stores.memory.store import MemoryStore
from antiphon.stores.sqlite.store import SqliteStore, open_sqlite
from antiphon.tools.mcp.manager import McpServerManager
from antiphon.turn.chat_titler import ChatTitler
from antiphon.turn.copy_protocols import CopyStore
from antiphon.turn.handover import OrphanResumption
from antiphon.turn.service import TurnService
from antiphon.turn.store_protocols import Stores

if TYPE_CHECKING:
    from antiphon.api.grpc.server import GrpcServer
    from antiphon.api.http.middleware import RequestMiddleware
    from antiphon.api.mcp.server import McpServer
    from antiphon.stores.postgres.store import PostgresStore

log = logging.getLogger("antiphon")

#: What has expired is gone from the files a few seconds later.
_SWEEP_SECONDS = 5.0
#: How often a node looks for others that died.
RECOVERY_SECONDS = 1.0
#: How soon an endpoint that did not say which models it has is asked again.
_ASK_AGAIN_SECONDS = 5.0


class Engine:
    """A turn service with its stores, models and MCP servers."""

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        settings: Settings,
        service: TurnService,
        stores: Stores,
        model_registry: ModelRegistry,
        mcp_servers: McpServerManager,
        nodes: NodeClient | None = None,
    ) -> None:
        self.settings = settings
        self.service = service
        self.stores = stores
        self._model_registry = model_registry
        self._mcp_servers = mcp_servers
        self._orphans = OrphanResumption(service.handover, stores.nodes)
        stores.nodes.on_lost = self._stop_lost
        #: Asks the other nodes of the store; None: no other process can open it.
        self.nodes = nodes

    async def warm(self, name: str | None = None) -> None:
        """Load a local model, or what calls an upstream, before it is asked anything."""
        _, model = self._model_registry.get(name)
        if isinstance(model, FallbackModel):
            model = model.first
        if isinstance(model, LlamaModel | UpstreamModel):
            await model.warm()

    async def choose_model(self) -> bool:
        """Where no model was named take the only one that the upstream has.

        False: it could not be asked, or has none yet, so that it is worth asking again.
        A request that names no model gets an error with what there is
        (``ModelRegistry.undecided``).
        """
        upstream = self._model_registry.catch_all
        if self.settings.model is not None or not isinstance(upstream, UpstreamModel):
            return True
        try:
            names = await upstream.model_names()
        except AttemptError as failure:
            self._model_registry.undecided = why_unknown(upstream.where, failure)
            return False
        if len(names) == 1:
            self._model_registry.choose(names[0])
        self._model_registry.undecided = why_undecided(upstream.where, names)
        return bool(names)

    def default_model(self) -> str | None:
        """The name of the default model, if there is one."""
        return self._model_registry.default

    async def keep_choosing(self) -> None:
        """``choose_model`` until it has been answered. To be cancelled."""
        while True:
            if await self.choose_model():
                return
            await asyncio.sleep(_ASK_AGAIN_SECONDS)

    async def run_retention_sweep(self) -> None:
        """Erase what has expired, for ever. To be cancelled."""
        while True:
            try:
                await self.stores.response_index.delete_expired()
            except StoreError as error:
                # The next one finds it again.
                log.warning("expired turns could not be erased: %s", error.message)
            await asyncio.sleep(_SWEEP_SECONDS)

    async def resume_orphans(self) -> None:
        """Go on with the turns of nodes that died or are going, for ever. To be cancelled."""
        while True:
            try:
                await self._orphans.run_once()
            except StoreError as error:
                log.warning("turns of other nodes could not be recovered: %s", error.message)
            await asyncio.sleep(RECOVERY_SECONDS)

    def _stop_lost(self) -> None:
        """This process was taken for dead: others have its turns."""
        self._orphans.forget()
        self.service.registry.stop_lost()

    async def close(self) -> None:
        """Interrupt what runs, keep it, and let go of store and models."""
        try:
            await self.service.close()
        finally:
            await self._mcp_servers.close()
            for model in self._model_registry.all():
                await model.close()


@asynccontextmanager
async def open_engine(settings: Settings) -> AsyncIterator[Engine]:
    """An engine that closes with the context. Raises ``ConfigError``, ``StoreError``."""
    engine = await _build(settings)
    try:
        yield engine
    finally:
        await engine.close()


async def _build(settings: Settings) -> Engine:
    models = build_model_registry(settings)
    if settings.title_model is not None:
        _check_title_model(models, settings.title_model)
    mcp_servers = McpServerManager(settings.mcp, settings.mcp_allowed_urls)
    retention = RetentionPolicy(
        _days_to_seconds(settings.retention_days),
        {
            name: _days_to_seconds(tenant.retention_days)
            for name, tenant in settings.tenants.items()
        },
    )
    store = await _open_store(settings.store, retention)
    if not isinstance(store, MemoryStore):
        try:
            # From now on it is in use, if it was a copy.
            await store.copies.end_copy()
        except BaseException:
            await store.close()
            raise
    prices = _price_lookup(settings)
    nodes = NodeClient(store.stores.nodes) if store.stores.nodes.is_shared else None
    service = TurnService(store, models, store.stores, mcp_servers, retention, prices, nodes)
    if settings.title_model is not None:
        _write_titles(service, store.stores, settings.title_model)
    return Engine(settings, service, store.stores, models, mcp_servers, nodes)


def _check_title_model(models: ModelRegistry, name: str) -> None:
    try:
        models.get(name)
    except ModelNotFoundError as error:
        raise ConfigError(f"title_model: {error.message}") from error


def _write_titles(service: TurnService, stores: Stores, model: str) -> None:
    """Have a model write the titles of chats."""
    titler = ChatTitler(model, service.models, service.reader, stores.chats)
    service.registry.add_observer(titler)
    service.on_close.append(titler.close)


def _days_to_seconds(days: float | None) -> float | None:
    return None if days is None else days * DAY_SECONDS


def http_app(engine: Engine, worker: tuple[int, str] | None = None) -> RequestMiddleware:
    """The ASGI application of the HTTP API.

    ``worker`` is its number and what all workers of the server have in common; None: it is the only
    one.
    """
    from antiphon.api.http.app import create_app  # loaded on first use

    settings = engine.settings
    tables = (settings.limits, *(tenant.limits for tenant in settings.tenants.values()))
    return create_app(
        engine.service,
        engine.stores.api_keys,
        rate_limit_for=(
            (lambda tenant: settings.tenant(tenant).limits) if set(tables) != {Limits()} else None
        ),
        origins=settings.cors_origins,
        health=engine.stores.health,
        prices=_price_lookup(engine.settings),
        store_chat_completions=settings.store_chat_completions,
        nodes=engine.nodes,
        worker=worker,
    )


def http_protocols(limits: ConnectionLimits) -> tuple[Any, Any]:
    """uvicorn's protocols for HTTP and for WebSockets, with these limits."""
    from antiphon.api.http.connections import connection_protocols  # loaded on first use

    return connection_protocols(limits)


def _price_lookup(settings: Settings) -> PriceLookup:
    models = settings.models
    return lambda name: models[name].price if name in models else None


def grpc_server(engine: Engine, app: RequestMiddleware) -> GrpcServer:
    """The gRPC API over the same service; keys, limits and metrics are the HTTP one's.

    Raises ``ConfigError`` where the extra ``grpc`` is not installed.
    """
    try:
        # The embedded model's process is started by a fork that gRPC has no part in.
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
        from antiphon.api.grpc.interceptor import RequestInterceptor  # loaded on first use
        from antiphon.api.grpc.server import GrpcServer  # loaded on first use
    except ModuleNotFoundError as error:
        raise ConfigError("gRPC is not installed: `pip install 'antiphon[grpc]'`") from error
    return GrpcServer(
        engine.service,
        RequestInterceptor(app.authorizer, app.metrics),
        prices=_price_lookup(engine.settings),
        fun_prompt=engine.settings.fun_prompt,
        limits=engine.settings.connection_limits,
        shares_port=engine.settings.workers > 1,
        deferred_completions=app.deferred_completions,
    )


def mcp_app(engine: Engine, roots: Sequence[Path] = ()) -> McpServer:
    """The MCP server for a program on this machine; images may be read from ``roots``.

    Raises ``ConfigError`` where the extra ``mcp`` is not installed.
    """
    try:
        from antiphon.api.mcp.server import McpServer  # loaded on first use
    except ModuleNotFoundError as error:
        raise ConfigError("MCP is not installed: `pip install 'antiphon[mcp]'`") from error
    return McpServer(engine.service, roots)


class _SharedEngine(msgspec.Struct):
    engine: Engine
    generator: AsyncGenerator[Engine, None]


_shared_engines: WeakKeyDictionary[asyncio.AbstractEventLoop, list[_SharedEngine]] = (
    WeakKeyDictionary()
)
_opening_locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
#: In a forked process, its parent's engines: without their threads, and not its own to close.
_inherited_engines: dict[asyncio.AbstractEventLoop, list[_SharedEngine]] = {}


def _reset_after_fork() -> None:
    _inherited_engines.update(_shared_engines)
    _shared_engines.clear()
    _opening_locks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)


async def shared_engine(settings: Settings) -> Engine:
    """The running loop's engine for these settings: opened once, closed with the loop."""
    loop = asyncio.get_running_loop()
    if loop in _inherited_engines:
        raise ConfigError(
            "This process was forked from one that used this event loop: run another one, or"
            " fork before the first turn."
        )
    async with _opening_locks.setdefault(loop, asyncio.Lock()):
        for shared in _shared_engines.setdefault(loop, []):
            if shared.engine.settings == settings:
                return shared.engine
        # A loop closes the generators it has begun before it ends itself.
        holder = _engine_generator(settings)
        engine = await anext(holder)
        await engine.choose_model()
        _shared_engines[loop].append(_SharedEngine(engine, holder))
        return engine


async def close_shared_engines() -> None:
    """Close the running loop's engines, for a loop that is not run to its end."""
    for shared in _shared_engines.pop(asyncio.get_running_loop(), []):
        await shared.generator.aclose()


async def _engine_generator(settings: Settings) -> AsyncGenerator[Engine, None]:
    # Not by open_engine: a loop that ends closes all its generators at once, and one
    # within the other would be closed twice.
    engine = await _build(settings)
    try:
        yield engine
    finally:
        await engine.close()


async def _open_store(
    name: str, retention: RetentionPolicy
) -> MemoryStore | SqliteStore | PostgresStore:
    scheme, _, path = name.partition(":")
    if scheme == "memory":
        return MemoryStore(retention)
    if scheme == "sqlite":
        return await open_sqlite(Path(path), retention)
    try:
        from antiphon.stores.postgres.store import open_postgres  # loaded on first use
    except ModuleNotFoundError as error:
        raise ConfigError(
            "PostgreSQL is not installed: `pip install 'antiphon[postgres]'`"
        ) from error
    return await open_postgres(name, retention)


@asynccontextmanager
async def open_copy_store(name: str) -> AsyncIterator[CopyStore]:
    """A store to copy from or to, by its name in the settings. Raises ``ConfigError``."""
    store = await _open_store(name, RETAIN_FOREVER)
    if isinstance(store, MemoryStore):
        raise ConfigError("There is nothing in a store in memory to copy, and nothing stays there.")
    try:
        yield store.copies
    finally:
        await store.close()


async def read_erase_report(name: str) -> EraseReport:
    """What is still in the files of a store that was erased. Raises ``ConfigError``."""
    store = await _open_store(name, RETAIN_FOREVER)
    try:
        return EraseReport(0) if isinstance(store, MemoryStore) else await store.erase_report()
    finally:
        await store.close()
