"""The ASGI application: paths to endpoints, errors to answers."""

from __future__ import annotations

from typing import Any

from starlette.routing import Route, Router

from antiphon.api.http.answers import Handler, answering, send_error
from antiphon.api.http.body import Receive, Scope, Send
from antiphon.api.http.chat_completions import ChatCompletions
from antiphon.api.http.guard import check_local
from antiphon.api.http.models import ModelList
from antiphon.api.http.responses import Responses
from antiphon.errors import AntiphonError, MethodNotAllowed, NotFound
from antiphon.turn.service import TurnService


class HttpApp:
    """The HTTP API over one service.

    The two paths that run turns are looked up directly: a router that walks through
    patterns costs as much as the whole turn around the model's call.
    """

    def __init__(self, service: TurnService) -> None:
        responses, models = Responses(service), ModelList(service)
        table: dict[str, dict[str, Handler]] = {
            "/v1/responses": {"POST": responses.create},
            "/v1/responses/{id}": {"GET": responses.retrieve, "DELETE": responses.delete},
            "/v1/responses/{id}/input_items": {"GET": responses.list_input},
            "/v1/chat/completions": {"POST": ChatCompletions(service).create},
            "/v1/models": {"GET": models.list_all},
            "/v1/models/{id:path}": {"GET": models.retrieve},
            "/healthz": {"GET": _healthy},
        }
        self._hot = {
            (method, path): answering(table[path][method])
            for method, path in (("POST", "/v1/responses"), ("POST", "/v1/chat/completions"))
        }
        self._router = Router(
            [Route(path, _Methods(methods)) for path, methods in table.items()],
            default=answering(_no_such_path),
            redirect_slashes=False,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._router.lifespan(scope, receive, send)
            return
        try:
            check_local(scope)
        except AntiphonError as error:
            await send_error(send, error)
            return
        handler = self._hot.get((scope["method"], scope["path"]))
        await (handler or self._router)(scope, receive, send)


class _Methods:
    """The methods of one path."""

    def __init__(self, methods: dict[str, Handler]) -> None:
        self._methods = {name: answering(handler) for name, handler in methods.items()}
        self._allowed = ", ".join(methods)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = self._methods.get(scope["method"])
        if handler is not None:
            await handler(scope, receive, send)
            return
        refusal = f"{scope['path']} takes {self._allowed}, not {scope['method']}."
        allow = (b"allow", self._allowed.encode())
        await send_error(send, MethodNotAllowed(refusal), [allow])


async def _healthy(scope: Scope, receive: Receive, send: Send) -> None:
    body: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": []}
    await send(body)
    await send({"type": "http.response.body", "body": b"ok\n"})


async def _no_such_path(scope: Scope, receive: Receive, send: Send) -> None:
    raise NotFound(f"There is nothing at {scope['path']}.", code="unknown_url")
