"""Builds everything from ``Settings``: the only file that sees every layer."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import msgspec

from antiphon.api.http.app import open_site
from antiphon.api.http.middleware import Front
from antiphon.core.retention import DAY, Lifetimes
from antiphon.errors import ConfigError, StoreError
from antiphon.models.llama.few_shot import PRIMER
from antiphon.models.llama.model import LlamaModel
from antiphon.models.llama.weights import SMOLLM2, SMOLLM2_DEFAULTS, embedded_weights, local_models
from antiphon.models.model_list import why_undecided, why_unknown
from antiphon.models.model_registry import Catalog
from antiphon.models.openai.chat_completions import ChatCompletionsModel
from antiphon.models.openai.responses import ResponsesModel
from antiphon.models.openai.upstream_model import UpstreamModel
from antiphon.models.retry import Failure
from antiphon.models.scripted import ScriptedModel
from antiphon.settings import Limits, ModelSettings, Settings
from antiphon.stores.memory.store import MemoryStore
from antiphon.stores.sqlite.store import SqliteStore, open_sqlite
from antiphon.tools.mcp.manager import McpGateway
from antiphon.turn.protocols import Model, ModelInfo
from antiphon.turn.service import TurnService
from antiphon.turn.store_protocols import Ledgers

if TYPE_CHECKING:
    from antiphon.api.grpc.server import GrpcServer
    from antiphon.api.mcp.server import McpServer

log = logging.getLogger("antiphon")

#: What has expired is gone from the files a few seconds later.
_SWEEP_SECONDS = 5.0
#: How soon an endpoint that did not say which models it has is asked again.
_ASK_AGAIN_SECONDS = 5.0


class Engine:
    """A service and what it runs on."""

    def __init__(
        self,
        settings: Settings,
        service: TurnService,
        ledgers: Ledgers,
        catalog: Catalog,
        gateway: McpGateway,
    ) -> None:
        self.settings = settings
        self.service = service
        self.ledgers = ledgers
        self._catalog = catalog
        self._gateway = gateway

    async def warm(self, name: str | None = None) -> None:
        """Load a local model before it is asked anything; nothing to do for others."""
        _, model = self._catalog.get(name)
        if isinstance(model, LlamaModel):
            await model.warm()

    async def choose_model(self) -> bool:
        """Where no model was named take the only one that the upstream has.

        False: it could not be asked, or has none yet, so that it is worth asking again.
        What there is instead is told to whoever names no model (``Catalog.undecided``).
        """
        upstream = self._catalog.catch_all
        if self.settings.model is not None or not isinstance(upstream, UpstreamModel):
            return True
        try:
            names = await upstream.model_names()
        except Failure as failure:
            self._catalog.undecided = why_unknown(upstream.where, failure)
            return False
        if len(names) == 1:
            self._catalog.choose(names[0])
        self._catalog.undecided = why_undecided(upstream.where, names)
        return bool(names)

    def default_model(self) -> str | None:
        """The name of the default model, if there is one."""
        return self._catalog.default

    async def keep_choosing(self) -> None:
        """``choose_model`` until it has been answered. To be cancelled."""
        while True:
            if await self.choose_model():
                return
            await asyncio.sleep(_ASK_AGAIN_SECONDS)

    async def sweep(self) -> None:
        """Erase what has expired, for ever. To be cancelled."""
        while True:
            try:
                await self.ledgers.archive.sweep()
            except StoreError as error:
                # The next one finds it again.
                log.warning("expired turns could not be erased: %s", error.message)
            await asyncio.sleep(_SWEEP_SECONDS)

    async def close(self) -> None:
        """Interrupt what runs, keep it, and let go of store and models."""
        await self.service.close()
        await self._gateway.close()
        for model in self._catalog.all():
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
    catalog = _catalog(settings)
    gateway = McpGateway(settings.mcp, settings.mcp_allowed_urls)
    lifetimes = Lifetimes(
        _seconds(settings.retention_days),
        {name: _seconds(tenant.retention_days) for name, tenant in settings.tenants.items()},
    )
    store = await _store(settings.store, lifetimes)
    service = TurnService(store, catalog, store.ledgers, gateway, lifetimes)
    return Engine(settings, service, store.ledgers, catalog, gateway)


def _seconds(days: float | None) -> float | None:
    return None if days is None else days * DAY


def http_app(engine: Engine) -> Front:
    """The ASGI application of the HTTP API."""
    settings = engine.settings
    tables = (settings.limits, *(tenant.limits for tenant in settings.tenants.values()))
    return open_site(
        engine.service,
        engine.ledgers.keys,
        allowance_of=(
            (lambda tenant: settings.tenant(tenant).limits) if set(tables) != {Limits()} else None
        ),
        origins=settings.cors_origins,
        health=engine.ledgers.health,
    )


def grpc_server(engine: Engine, front: Front) -> GrpcServer:
    """The gRPC API over the same service; keys, limits and metrics are the HTTP one's.

    Raises ``ConfigError`` where the extra ``grpc`` is not installed.
    """
    try:
        # The embedded model's process is started by a fork that gRPC has no part in.
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
        from antiphon.api.grpc.interceptor import Door  # loaded on first use
        from antiphon.api.grpc.server import GrpcServer  # loaded on first use
    except ModuleNotFoundError as error:
        raise ConfigError("gRPC is not installed: `pip install 'antiphon[grpc]'`") from error
    models = engine.settings.models
    return GrpcServer(
        engine.service,
        Door(front.keyring, front.metrics, front.limiter),
        prices=lambda name: models[name].price if name in models else None,
        fun_prompt=engine.settings.fun_prompt,
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


class _Shared(msgspec.Struct):
    engine: Engine
    holder: AsyncGenerator[Engine, None]


_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, list[_Shared]] = WeakKeyDictionary()
_opening: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
#: In a forked process, its parent's engines: without their threads, and not its own to close.
_inherited: dict[asyncio.AbstractEventLoop, list[_Shared]] = {}


def _leave_behind() -> None:
    _inherited.update(_shared)
    _shared.clear()
    _opening.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_behind)


async def shared_engine(settings: Settings) -> Engine:
    """The running loop's engine for these settings: opened once, closed with the loop."""
    loop = asyncio.get_running_loop()
    if loop in _inherited:
        raise ConfigError(
            "This process was forked from one that used this event loop: run another one, or"
            " fork before the first turn."
        )
    async with _opening.setdefault(loop, asyncio.Lock()):
        for shared in _shared.setdefault(loop, []):
            if shared.engine.settings == settings:
                return shared.engine
        # A loop closes the generators it has begun before it ends itself.
        holder = _hold(settings)
        engine = await anext(holder)
        await engine.choose_model()
        _shared[loop].append(_Shared(engine, holder))
        return engine


async def close_shared() -> None:
    """Close the running loop's engines, for a loop that is not run to its end."""
    for shared in _shared.pop(asyncio.get_running_loop(), []):
        await shared.holder.aclose()


async def _hold(settings: Settings) -> AsyncGenerator[Engine, None]:
    # Not by open_engine: a loop that ends closes all its generators at once, and one
    # within the other would be closed twice.
    engine = await _build(settings)
    try:
        yield engine
    finally:
        await engine.close()


async def _store(name: str, lifetimes: Lifetimes) -> MemoryStore | SqliteStore:
    scheme, _, path = name.partition(":")
    if scheme == "memory":
        return MemoryStore(lifetimes)
    return await open_sqlite(Path(path), lifetimes)


def _catalog(settings: Settings) -> Catalog:
    models: dict[str, Model] = {
        local.name: _gguf(local.name, local.path) for local in local_models()
    }
    models |= {name: _model(name, given) for name, given in settings.models.items()}
    upstream = settings.upstream
    return Catalog(
        models,
        default=settings.model,
        catch_all=_upstream(settings.model or "upstream", upstream) if upstream else None,
    )


def _model(name: str, given: ModelSettings) -> Model:
    match given.kind:
        case "chat_completions" | "responses" | "xai-grpc":
            return _upstream(name, given)
        case "scripted":
            return ScriptedModel()
        case "llama":
            return _llama(name, given)


def _upstream(name: str, given: ModelSettings) -> Model:
    if given.base_url is None:
        raise ConfigError(f"the model '{name}' has no base URL")
    info = ModelInfo(
        name,
        owned_by="upstream",
        context_window=given.context,
        images=given.images is not False,
    )
    key = given.api_key.reveal() if given.api_key else None
    if given.kind == "xai-grpc":
        return _xai_grpc(info, given.base_url, key, given.name)
    kind = ResponsesModel if given.kind == "responses" else ChatCompletionsModel
    return kind(info, given.base_url, key, upstream_name=given.name)


def _xai_grpc(info: ModelInfo, base_url: str, key: str | None, name: str | None) -> Model:
    try:
        from antiphon.models.xai.model import XaiGrpcModel  # loaded on first use
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the model '{info.name}' needs gRPC: `pip install 'antiphon[grpc]'`"
        ) from error
    return XaiGrpcModel(info, base_url, key, upstream_name=name)


def _llama(name: str, given: ModelSettings) -> Model:
    if given.path is not None:
        return _gguf(name, given.path, given)
    info = SMOLLM2
    if given.primer is not False:
        info = msgspec.structs.replace(info, primer=PRIMER)
    return LlamaModel(
        info,
        embedded_weights(),
        context=given.context or 8192,
        defaults=SMOLLM2_DEFAULTS,
    )


def _gguf(name: str, path: Path, given: ModelSettings | None = None) -> Model:
    context = given.context if given else None
    primer = PRIMER if given and given.primer else b""
    info = ModelInfo(name, owned_by="local", images=False, primer=primer)
    return LlamaModel(info, path, context=context or 8192)
