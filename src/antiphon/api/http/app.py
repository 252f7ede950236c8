"""The ASGI application: paths to endpoints, errors to answers.

The whole site: the endpoints, and what stands before them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from starlette.routing import Route, Router

from antiphon.api.common.authentication import Keyring
from antiphon.api.common.body import Receive, Scope, Send
from antiphon.api.common.metrics import Metrics
from antiphon.api.common.rate_limits import Allowance, Limiter
from antiphon.api.http.asgi_responses import Handler, answering, answering_head, send_error
from antiphon.api.http.chat_completions import ChatCompletions
from antiphon.api.http.conversations import ConversationApi
from antiphon.api.http.cors import Cors
from antiphon.api.http.docs_page import Reference
from antiphon.api.http.health import Operations
from antiphon.api.http.idempotency import Repeats
from antiphon.api.http.middleware import Front, put_route
from antiphon.api.http.models import ModelList
from antiphon.api.http.responses import Compaction, Responses
from antiphon.api.http.websocket import WebSocket
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
        self, service: TurnService, more: Mapping[str, dict[str, Handler]] | None = None
    ) -> None:
        #: Methods by path.
        self.table = table = {**_endpoints(service), **(more or {})}
        self._websocket = WebSocket(service)
        self._hot = {
            (method, path): answering(table[path][method])
            for method, path in (("POST", "/v1/responses"), ("POST", "/v1/chat/completions"))
        }
        self._router = Router(
            [Route(path, _Methods(path, methods)) for path, methods in table.items()],
            default=answering(_no_such_path),
            redirect_slashes=False,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        handler = self._hot.get((scope["method"], scope["path"]))
        await (handler or self._router)(scope, receive, send)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._router.lifespan(scope, receive, send)
        elif scope["path"] == "/v1/responses":
            await self._websocket(scope, receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "unknown_url"})


def _endpoints(service: TurnService) -> dict[str, dict[str, Handler]]:
    ledgers = service.stores
    assert ledgers is not None, "every store has them"
    # One for all: a key that was used on one path is used on every other.
    repeats = Repeats(ledgers.idempotency)
    conversations = ConversationService(service, ledgers.conversations, ledgers.search)
    return {
        **_turns(service, Responses(service, ledgers.response_index, repeats)),
        **_conversations(ConversationApi(conversations, repeats)),
    }


def _turns(service: TurnService, responses: Responses) -> dict[str, dict[str, Handler]]:
    models, compaction = ModelList(service), Compaction(service)
    return {
        "/v1/responses": {"POST": responses.create, "GET": responses.list_all},
        "/v1/responses/compact": {"POST": compaction.compact},
        "/v1/responses/input_tokens": {"POST": compaction.count},
        "/v1/responses/{id}": {"GET": responses.retrieve, "DELETE": responses.delete},
        "/v1/responses/{id}/cancel": {"POST": responses.cancel},
        "/v1/responses/{id}/input_items": {"GET": responses.list_input},
        "/v1/responses/{id}/context": {"GET": responses.context},
        "/v1/chat/completions": {"POST": ChatCompletions(service).create},
        "/v1/models": {"GET": models.list_all},
        "/v1/models/{id:path}": {"GET": models.retrieve},
        "/mcp": {"POST": McpEndpoint(service).answer},
    }


def _conversations(api: ConversationApi) -> dict[str, dict[str, Handler]]:
    one = "/v1/conversations/{id}"
    return {
        "/v1/conversations": {"POST": api.create, "GET": api.list_all},
        one: {"GET": api.retrieve, "POST": api.update, "DELETE": api.delete},
        f"{one}/items": {"POST": api.add_items, "GET": api.list_items},
        f"{one}/items/{{item}}": {"GET": api.retrieve_item, "DELETE": api.delete_item},
    }


class _Methods:
    """The methods of one path; HEAD comes with GET."""

    def __init__(self, path: str, methods: dict[str, Handler]) -> None:
        self._path = path
        self._methods = {name: answering(handler) for name, handler in methods.items()}
        if "GET" in self._methods:
            self._methods["HEAD"] = answering_head(self._methods["GET"])
        self._allowed = ", ".join(self._methods)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        put_route(scope, self._path)
        handler = self._methods.get(scope["method"])
        if handler is not None:
            await handler(scope, receive, send)
            return
        refusal = f"{scope['path']} takes {self._allowed}, not {scope['method']}."
        allow = (b"allow", self._allowed.encode())
        await send_error(send, MethodNotAllowedError(refusal), [allow])


async def _no_such_path(scope: Scope, receive: Receive, send: Send) -> None:
    raise NotFoundError(f"There is nothing at {scope['path']}.", code="unknown_url")


def open_site(
    service: TurnService,
    keys: ApiKeyStore,
    *,
    allowance_of: Callable[[str], Allowance] | None = None,
    origins: Sequence[str] = (),
    health: StoreHealth | None = None,
) -> Front:
    """The ASGI application of the HTTP API.

    ``allowance_of`` says how much each key of a tenant may ask for, None: there are no
    limits. ``origins`` are those of web pages that may read answers ("*": all). ``health`` is
    that of the store, None: nothing is known of it.
    """
    keyring = Keyring(keys)
    metrics = Metrics(lambda: {name for name, _ in service.models.names()}, health)
    service.add_observer(metrics)
    limiter = None
    if allowance_of is not None:
        limiter = Limiter(allowance_of)
        service.add_observer(limiter)
    return Front(
        HttpApp(service, {**Operations(keyring, metrics, health).table(), **Reference().table()}),
        keyring,
        metrics,
        limiter,
        Cors(origins) if origins else None,
    )
