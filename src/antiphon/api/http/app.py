"""The ASGI application: paths to endpoints, errors to answers.

The whole site: the endpoints, and what stands before them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from starlette.routing import Route, Router

from antiphon.api.common.authentication import ApiKeyAuthenticator
from antiphon.api.common.body import Receive, Scope, Send
from antiphon.api.common.metrics import Metrics
from antiphon.api.common.rate_limits import RateLimit, RateLimiter
from antiphon.api.http.asgi_responses import Handler, answering_head, handle_errors, send_error
from antiphon.api.http.chat_completions import ChatCompletionsEndpoint
from antiphon.api.http.conversations import ConversationEndpoints
from antiphon.api.http.cors import CorsPolicy
from antiphon.api.http.docs_page import DocsEndpoints
from antiphon.api.http.health import HealthEndpoints
from antiphon.api.http.idempotency import IdempotencyKeys
from antiphon.api.http.middleware import GatewayMiddleware, set_route
from antiphon.api.http.models import ModelEndpoints
from antiphon.api.http.responses import CompactionEndpoints, ResponseEndpoints
from antiphon.api.http.websocket import WebSocketEndpoint
from antiphon.api.mcp.streamable_http import McpEndpoint
from antiphon.errors import MethodNotAllowedError, NotFoundError
from antiphon.turn.conversations import ConversationService
from antiphon.turn.service import TurnService
from antiphon.turn.store_protocols import ApiKeyStore, StoreHealth


class HttpApp:
    """The HTTP API over one service; who may use it is decided before (``front``).

    The two paths that run turns are looked up directly: a router that walks through
    patterns costs as much as the whole turn around the model's call. ``more`` are
    endpoints besides the service's: methods by path.
    """

    def __init__(
        self, service: TurnService, extra_routes: Mapping[str, dict[str, Handler]] | None = None
    ) -> None:
        #: Methods by path.
        self.routes = table = {**_routes(service), **(extra_routes or {})}
        self._websocket = WebSocketEndpoint(service)
        self._fast_routes = {
            (method, path): handle_errors(table[path][method])
            for method, path in (("POST", "/v1/responses"), ("POST", "/v1/chat/completions"))
        }
        self._router = Router(
            [Route(path, _MethodRouter(path, methods)) for path, methods in table.items()],
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


def _routes(service: TurnService) -> dict[str, dict[str, Handler]]:
    ledgers = service.stores
    assert ledgers is not None, "every store has them"
    # One for all: a key that was used on one path is used on every other.
    repeats = IdempotencyKeys(ledgers.idempotency)
    conversations = ConversationService(service, ledgers.conversations, ledgers.search)
    return {
        **_response_routes(service, ResponseEndpoints(service, ledgers.response_index, repeats)),
        **_conversation_routes(ConversationEndpoints(conversations, repeats)),
    }


def _response_routes(
    service: TurnService, responses: ResponseEndpoints
) -> dict[str, dict[str, Handler]]:
    models, compaction = ModelEndpoints(service), CompactionEndpoints(service)
    return {
        "/v1/responses": {"POST": responses.create, "GET": responses.list_all},
        "/v1/responses/compact": {"POST": compaction.compact},
        "/v1/responses/input_tokens": {"POST": compaction.count_tokens},
        "/v1/responses/{id}": {"GET": responses.retrieve, "DELETE": responses.delete},
        "/v1/responses/{id}/cancel": {"POST": responses.cancel},
        "/v1/responses/{id}/input_items": {"GET": responses.list_input},
        "/v1/responses/{id}/context": {"GET": responses.context},
        "/v1/chat/completions": {"POST": ChatCompletionsEndpoint(service).create},
        "/v1/models": {"GET": models.list_all},
        "/v1/models/{id:path}": {"GET": models.retrieve},
        "/mcp": {"POST": McpEndpoint(service).handle},
    }


def _conversation_routes(api: ConversationEndpoints) -> dict[str, dict[str, Handler]]:
    one = "/v1/conversations/{id}"
    return {
        "/v1/conversations": {"POST": api.create, "GET": api.list_all},
        one: {"GET": api.retrieve, "POST": api.update, "DELETE": api.delete},
        f"{one}/items": {"POST": api.add_items, "GET": api.list_items},
        f"{one}/items/{{item}}": {"GET": api.retrieve_item, "DELETE": api.delete_item},
    }


class _MethodRouter:
    """The methods of one path; HEAD comes with GET."""

    def __init__(self, path: str, methods: dict[str, Handler]) -> None:
        self._path = path
        self._methods = {name: handle_errors(handler) for name, handler in methods.items()}
        if "GET" in self._methods:
            self._methods["HEAD"] = answering_head(self._methods["GET"])
        self._allowed = ", ".join(self._methods)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        set_route(scope, self._path)
        handler = self._methods.get(scope["method"])
        if handler is not None:
            await handler(scope, receive, send)
            return
        refusal = f"{scope['path']} takes {self._allowed}, not {scope['method']}."
        allow = (b"allow", self._allowed.encode())
        await send_error(send, MethodNotAllowedError(refusal), [allow])


async def _path_not_found(scope: Scope, receive: Receive, send: Send) -> None:
    raise NotFoundError(f"There is nothing at {scope['path']}.", code="unknown_url")


def create_app(
    service: TurnService,
    keys: ApiKeyStore,
    *,
    rate_limit_for: Callable[[str], RateLimit] | None = None,
    origins: Sequence[str] = (),
    health: StoreHealth | None = None,
) -> GatewayMiddleware:
    """The ASGI application of the HTTP API.

    ``allowance_of`` says how much each key of a tenant may ask for, None: there are no
    limits. ``origins`` are those of web pages that may read answers ("*": all). ``health`` is
    that of the store, None: nothing is known of it.
    """
    keyring = ApiKeyAuthenticator(keys)
    metrics = Metrics(lambda: {name for name, _ in service.models.items()}, health)
    service.registry.add_observer(metrics)
    limiter = None
    if rate_limit_for is not None:
        limiter = RateLimiter(rate_limit_for)
        service.registry.add_observer(limiter)
    return GatewayMiddleware(
        HttpApp(
            service,
            {**HealthEndpoints(keyring, metrics, health).routes(), **DocsEndpoints().routes()},
        ),
        keyring,
        metrics,
        limiter,
        CorsPolicy(origins) if origins else None,
    )
