"""ASGI application: dispatches requests to the handlers of the route table (``routes``).

``create_app`` builds the endpoints and puts the middleware before them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from antiphon.api.common.authentication import ApiKeyAuthenticator
from antiphon.api.common.authorization import Authorizer
from antiphon.api.common.deferred_completions import DeferredCompletions
from antiphon.api.common.metrics import Metrics
from antiphon.api.common.node_client import NodeClient
from antiphon.api.common.rate_limits import RateLimit, RateLimiter
from antiphon.api.common.shared_limits import SharedLimits
from antiphon.api.common.worker_metrics import WorkerMetrics
from antiphon.api.http.asgi_responses import Handler, handle_errors, send_error
from antiphon.api.http.blobs import BlobEndpoints
from antiphon.api.http.chains import ChainEndpoints
from antiphon.api.http.chat_completions import ChatCompletionsEndpoint
from antiphon.api.http.chats import ChatEndpoints
from antiphon.api.http.conversations import ConversationEndpoints
from antiphon.api.http.cors import CorsPolicy
from antiphon.api.http.exports import ExportEndpoints
from antiphon.api.http.feed import FeedEndpoints
from antiphon.api.http.health import HealthEndpoints, ModelEndpoints
from antiphon.api.http.idempotency import IdempotencyKeys
from antiphon.api.http.imports import ImportEndpoints
from antiphon.api.http.middleware import RequestMiddleware, set_route
from antiphon.api.http.node_endpoints import NodeEndpoints
from antiphon.api.http.openapi import DocsEndpoints
from antiphon.api.http.responses import CompactionEndpoints, ResponseEndpoints
from antiphon.api.http.route import Endpoints
from antiphon.api.http.routes import ROUTES, handlers_by_path
from antiphon.api.http.shares import ShareEndpoints
from antiphon.api.http.stored_chat_completions import StoredChatCompletionEndpoints
from antiphon.api.http.usage import UsageEndpoints
from antiphon.api.http.web_page import WebPageEndpoints
from antiphon.api.http.websocket import WebSocketEndpoint
from antiphon.api.http.xai_rest import XaiEndpoints
from antiphon.api.mcp.streamable_http import McpEndpoint
from antiphon.core.token_prices import PriceLookup, no_prices
from antiphon.errors import MethodNotAllowedError, NotFoundError
from antiphon.transfer.import_jobs import ImportJobs
from antiphon.turn.chats import ChatService
from antiphon.turn.conversations import ConversationService
from antiphon.turn.service import TurnService
from antiphon.turn.shares import ShareService
from antiphon.turn.store_protocols import ApiKeyStore, StoreHealth

#: What clients ask for whose base URL lacks the version, has it twice, or is another server's.
_API_PATHS: Final = ("/chat/completions", "/responses", "/models", "/conversations")
_MAX_SHOWN_PATH: Final = 200


class HttpApp:
    """ASGI application: the HTTP API over one service; authorization is the middleware's.

    The two paths that run turns are looked up directly: a router that walks through
    patterns costs as much as the whole turn around the model's call.
    """

    def __init__(
        self,
        service: TurnService,
        health: HealthEndpoints,
        xai: XaiEndpoints,
        *,
        store_chat_completions: bool = False,
        nodes: NodeClient | None = None,
    ) -> None:
        #: The gRPC server of the same service has these too.
        self.deferred_completions = DeferredCompletions(nodes)
        endpoints = _create_endpoints(
            service, health, xai, store_chat_completions, nodes, self.deferred_completions
        )
        handlers = handlers_by_path(endpoints)
        #: What other nodes ask this one, besides its turns.
        self.node_operations = {
            **endpoints.mcp.operations(),
            **endpoints.responses.operations(),
            **endpoints.chat_completions.operations(),
            **endpoints.imports.operations(),
            **self.deferred_completions.operations(),
        }
        self._websocket = WebSocketEndpoint(service)
        self._fast_routes = {
            (method, path): handlers[path][method]
            for method, path in (("POST", "/v1/responses"), ("POST", "/v1/chat/completions"))
        }
        self._router = Router(
            [Route(path, _MethodRouter(path, methods)) for path, methods in handlers.items()],
            default=handle_errors(_path_not_found),
            redirect_slashes=False,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._handle_non_http(scope, receive, send)
            return
        handler = self._fast_routes.get((scope["method"], scope["path"]))
        await (handler or self._router)(scope, receive, send)

    async def _handle_non_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._router.lifespan(scope, receive, send)
        elif scope["path"] == "/v1/responses":
            await self._websocket(scope, receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "unknown_url"})


def _create_endpoints(  # noqa: PLR0913, PLR0917
    service: TurnService,
    health: HealthEndpoints,
    xai: XaiEndpoints,
    store_chat_completions: bool,
    nodes: NodeClient | None,
    deferred_completions: DeferredCompletions,
) -> Endpoints:
    stores = service.stores
    assert stores is not None, "every store has them"
    # Shared: a key that was used on one path is used on every other.
    idempotency_keys = IdempotencyKeys(stores.idempotency)
    chats = ChatService(service, stores)
    conversations = ConversationService(service, stores.conversations, stores.search)
    import_jobs = ImportJobs(stores.chat_transfer, stores.imports)
    service.on_close.append(import_jobs.close)
    return Endpoints(
        responses=ResponseEndpoints(service, stores.response_index, idempotency_keys, nodes),
        compaction=CompactionEndpoints(service),
        chat_completions=ChatCompletionsEndpoint(
            service,
            idempotency_keys,
            store_by_default=store_chat_completions,
            nodes=nodes,
            deferred_completions=deferred_completions,
        ),
        stored_chat_completions=StoredChatCompletionEndpoints(service, stores.response_index),
        models=ModelEndpoints(service),
        conversations=ConversationEndpoints(conversations, idempotency_keys),
        imports=ImportEndpoints(import_jobs, nodes),
        exports=ExportEndpoints(service, chats),
        chats=ChatEndpoints(chats),
        chains=ChainEndpoints(chats),
        blobs=BlobEndpoints(stores.chats),
        usage=UsageEndpoints(stores.chats, chats, health.authenticator),
        feed=FeedEndpoints(stores.changes, health.authenticator),
        shares=ShareEndpoints(ShareService(service, stores.shares), chats),
        mcp=McpEndpoint(service, nodes),
        health=health,
        xai=xai,
        docs=DocsEndpoints(ROUTES),
        web_page=WebPageEndpoints(),
    )


class _MethodRouter:
    """The methods of one path; any other is answered with 405 and the allowed ones."""

    def __init__(self, path: str, methods: Mapping[str, Handler]) -> None:
        self._path = path
        self._methods = methods
        self._allowed = ", ".join(methods)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        set_route(scope, self._path)
        handler = self._methods.get(scope["method"])
        if handler is not None:
            await handler(scope, receive, send)
            return
        message = f"{scope['path']} takes {self._allowed}, not {scope['method']}."
        allow = (b"allow", self._allowed.encode())
        await send_error(send, MethodNotAllowedError(message), [allow])


async def _path_not_found(scope: Scope, receive: Receive, send: Send) -> None:
    path: str = scope["path"]
    found = next((it for it in _API_PATHS if path.endswith(it)), None)
    hint = f"the base URL of a client ends in /v1, so that it asks for /v1{found}" if found else ""
    raise NotFoundError(
        f"There is nothing at {path[:_MAX_SHOWN_PATH]}: {hint or '/docs lists what there is'}.",
        code="unknown_url",
    )


def create_app(  # noqa: PLR0913
    service: TurnService,
    keys: ApiKeyStore,
    *,
    rate_limit_for: Callable[[str], RateLimit] | None = None,
    origins: Sequence[str] = (),
    health: StoreHealth | None = None,
    prices: PriceLookup = no_prices,
    store_chat_completions: bool = False,
    nodes: NodeClient | None = None,
    worker: tuple[int, str] | None = None,
) -> RequestMiddleware:
    """The ASGI application of the HTTP API, behind its middleware.

    ``rate_limit_for`` gives the rate limit of each key of a tenant, None: there are no limits.
    ``origins`` are the web pages that may read responses (CORS; "*": all). ``health`` is the
    store's, None: nothing is known of it. ``prices`` says what models cost.
    ``store_chat_completions``: they are stored unless a request says otherwise. ``nodes`` asks the
    other nodes of the store, None: there are none. ``worker`` is the number of this process among
    the workers of a server, and what they have in common; None: it is the only one.
    """
    authenticator = ApiKeyAuthenticator(keys)
    metrics = Metrics(lambda: {name for name, _ in service.models.items()}, health)
    service.registry.add_observer(metrics)
    limiter = None
    if rate_limit_for is not None:
        limiter = RateLimiter(rate_limit_for, shared=SharedLimits(nodes) if nodes else None)
        service.registry.add_observer(limiter)
    workers = WorkerMetrics(metrics, nodes, worker)
    app = HttpApp(
        service,
        HealthEndpoints(
            authenticator, workers.render, health, lambda: service.registry.is_draining
        ),
        XaiEndpoints(service, authenticator, prices),
        store_chat_completions=store_chat_completions,
        nodes=nodes,
    )
    operations = {
        **app.node_operations,
        **workers.operations(),
        **({} if limiter is None else limiter.operations()),
    }
    return RequestMiddleware(
        app,
        Authorizer(authenticator, limiter, origins),
        metrics,
        CorsPolicy(origins) if origins else None,
        NodeEndpoints(service, operations),
        app.deferred_completions,
    )
