"""Route table: path, method, handler, request body, response and summary of each endpoint.

The router (``app``), the OpenAPI document (``openapi``) and which paths need no key
(``middleware``) are all derived from it. The bodies are the decoders' own types, so that the
description cannot differ from the decoding. HEAD is added to each path that has GET.
"""

from __future__ import annotations

from typing import Final

from antiphon.api.http.asgi_responses import Handler, answering_head, handle_errors
from antiphon.api.http.chat_completion_requests import ChatCompletionCreate
from antiphon.api.http.chat_routes import CHAT_ROUTES
from antiphon.api.http.conversations import (
    ConversationCreate,
    ConversationUpdate,
    ItemsCreate,
)
from antiphon.api.http.responses_codec import ResponseCreate
from antiphon.api.http.route import (
    ASCENDING_PAGINATION,
    CASCADE,
    FILTERS,
    INCLUDE,
    PAGINATION,
    SEARCH,
    STREAM,
    Endpoints,
    Route,
)
from antiphon.api.http.stored_chat_completions import (
    ChatCompletionUpdate,
)
from antiphon.api.http.transfer_routes import TRANSFER_ROUTES
from antiphon.api.http.xai_rest import TokenizeText

_RESPONSE_PATH: Final = "/v1/responses/{id}"
_CONVERSATION_PATH: Final = "/v1/conversations/{id}"
_ITEM_PATH: Final = f"{_CONVERSATION_PATH}/items/{{item}}"

_RESPONSE_ROUTES: Final = (
    Route(
        "POST",
        "/v1/responses",
        "Create a response.",
        "Response",
        ResponseCreate,
        streams=True,
        takes_idempotency_key=True,
        handler=lambda to: to.responses.create,
    ),
    Route(
        "GET",
        "/v1/responses",
        "List responses.",
        "ResponseList",
        query=(*PAGINATION, *FILTERS),
        handler=lambda to: to.responses.list_all,
    ),
    Route(
        "POST",
        "/v1/responses/compact",
        "Summarize a conversation.",
        "Compaction",
        ResponseCreate,
        handler=lambda to: to.compaction.compact,
    ),
    Route(
        "POST",
        "/v1/responses/input_tokens",
        "Count the input tokens of a request.",
        "InputTokens",
        ResponseCreate,
        handler=lambda to: to.compaction.count_tokens,
    ),
    Route(
        "GET",
        _RESPONSE_PATH,
        "Retrieve a response, or its events.",
        "Response",
        query=(*STREAM, INCLUDE),
        streams=True,
        handler=lambda to: to.responses.retrieve,
    ),
    Route(
        "DELETE",
        _RESPONSE_PATH,
        "Delete a response.",
        "Deleted",
        query=(CASCADE,),
        handler=lambda to: to.responses.delete,
    ),
    Route(
        "POST",
        f"{_RESPONSE_PATH}/cancel",
        "Cancel a running response; its output so far is stored.",
        "Response",
        handler=lambda to: to.responses.cancel,
    ),
    Route(
        "GET",
        f"{_RESPONSE_PATH}/input_items",
        "List a response's input items.",
        "ItemList",
        query=(*PAGINATION, INCLUDE),
        handler=lambda to: to.responses.list_input,
    ),
    Route(
        "GET",
        f"{_RESPONSE_PATH}/context",
        "The messages that the model was called with.",
        "Context",
        handler=lambda to: to.responses.context,
    ),
    Route(
        "GET",
        f"{_RESPONSE_PATH}/rhythm",
        "When the text of a streamed response came.",
        "Rhythm",
        handler=lambda to: to.responses.rhythm,
    ),
    Route(
        "POST",
        "/v1/chat/completions",
        "Create a chat completion; it is stored on request.",
        "ChatCompletion",
        ChatCompletionCreate,
        streams=True,
        takes_idempotency_key=True,
        handler=lambda to: to.chat_completions.create,
    ),
    Route(
        "GET",
        "/v1/models",
        "List models.",
        "ModelList",
        handler=lambda to: to.models.list_all,
    ),
    Route(
        "GET",
        # The name of a model may contain slashes.
        "/v1/models/{id:path}",
        "Retrieve a model.",
        "Model",
        handler=lambda to: to.models.retrieve,
    ),
)
_COMPLETION_PATH: Final = "/v1/chat/completions/{id}"
_STORED_COMPLETION_ROUTES: Final = (
    Route(
        "GET",
        "/v1/chat/completions",
        "List stored chat completions.",
        "ChatCompletionList",
        query=(*ASCENDING_PAGINATION, *(one for one in FILTERS if one.name != "status")),
        handler=lambda to: to.stored_chat_completions.list_all,
    ),
    Route(
        "GET",
        _COMPLETION_PATH,
        "Retrieve a stored chat completion.",
        "ChatCompletion",
        handler=lambda to: to.stored_chat_completions.retrieve,
    ),
    Route(
        "POST",
        _COMPLETION_PATH,
        "Update the metadata of a stored chat completion.",
        "ChatCompletion",
        ChatCompletionUpdate,
        handler=lambda to: to.stored_chat_completions.update,
    ),
    Route(
        "DELETE",
        _COMPLETION_PATH,
        "Delete a stored chat completion.",
        "Deleted",
        handler=lambda to: to.stored_chat_completions.delete,
    ),
    Route(
        "GET",
        f"{_COMPLETION_PATH}/messages",
        "List the messages of a stored chat completion's request.",
        "ChatMessageList",
        query=ASCENDING_PAGINATION,
        handler=lambda to: to.stored_chat_completions.list_messages,
    ),
)
_XAI_ROUTES: Final = (
    Route(
        "GET",
        "/v1/chat/deferred-completion/{id}",
        "Retrieve a deferred chat completion; 202 while it is not ready.",
        "ChatCompletion",
        handler=lambda to: to.chat_completions.retrieve_deferred,
    ),
    Route(
        "GET",
        "/v1/language-models",
        "List models with their modalities and prices.",
        "LanguageModelList",
        handler=lambda to: to.xai.list_language_models,
    ),
    Route(
        "GET",
        "/v1/language-models/{id:path}",
        "Retrieve a model with its modalities and prices.",
        "LanguageModel",
        handler=lambda to: to.xai.retrieve_language_model,
    ),
    Route(
        "GET",
        "/v1/api-key",
        "Describe the API key of the request.",
        "ApiKeyInfo",
        handler=lambda to: to.xai.retrieve_api_key,
    ),
    Route(
        "POST",
        "/v1/tokenize-text",
        "Split a text into the model's tokens.",
        "Tokens",
        TokenizeText,
        handler=lambda to: to.xai.tokenize_text,
    ),
)
_CONVERSATION_ROUTES: Final = (
    Route(
        "POST",
        "/v1/conversations",
        "Create a conversation.",
        "Conversation",
        ConversationCreate,
        body_optional=True,
        takes_idempotency_key=True,
        handler=lambda to: to.conversations.create,
    ),
    Route(
        "GET",
        "/v1/conversations",
        "List conversations, or search them.",
        "ConversationList",
        query=(*PAGINATION, SEARCH),
        handler=lambda to: to.conversations.list_all,
    ),
    Route(
        "GET",
        _CONVERSATION_PATH,
        "Retrieve a conversation.",
        "Conversation",
        handler=lambda to: to.conversations.retrieve,
    ),
    Route(
        "POST",
        _CONVERSATION_PATH,
        "Update a conversation's metadata, or move its head.",
        "Conversation",
        ConversationUpdate,
        takes_idempotency_key=True,
        handler=lambda to: to.conversations.update,
    ),
    Route(
        "DELETE",
        _CONVERSATION_PATH,
        "Delete a conversation with its items.",
        "Deleted",
        handler=lambda to: to.conversations.delete,
    ),
    Route(
        "POST",
        f"{_CONVERSATION_PATH}/items",
        "Append items; no model is called.",
        "ItemList",
        ItemsCreate,
        query=(INCLUDE,),
        takes_idempotency_key=True,
        handler=lambda to: to.conversations.add_items,
    ),
    Route(
        "GET",
        f"{_CONVERSATION_PATH}/items",
        "List a conversation's items.",
        "ItemList",
        query=(*PAGINATION, INCLUDE),
        handler=lambda to: to.conversations.list_items,
    ),
    Route(
        "GET",
        _ITEM_PATH,
        "Retrieve an item.",
        "Item",
        query=(INCLUDE,),
        handler=lambda to: to.conversations.retrieve_item,
    ),
    Route(
        "DELETE",
        _ITEM_PATH,
        "Erase an item.",
        "Conversation",
        handler=lambda to: to.conversations.delete_item,
    ),
)
_SERVER_ROUTES: Final = (
    Route(
        "POST",
        "/mcp",
        "The Model Context Protocol, one message.",
        "Message",
        handler=lambda to: to.mcp.handle,
    ),
    Route(
        "GET",
        "/healthz",
        "Liveness: the process answers.",
        None,
        public=True,
        handler=lambda to: to.health.live,
    ),
    Route(
        "GET",
        "/readyz",
        "Readiness: the store can be read and written.",
        None,
        public=True,
        handler=lambda to: to.health.ready,
    ),
    Route(
        "GET",
        "/metrics",
        "Metrics for Prometheus.",
        None,
        handler=lambda to: to.health.metrics,
    ),
    Route(
        "GET",
        "/openapi.json",
        "This description.",
        "Message",
        public=True,
        handler=lambda to: to.docs.get_openapi,
    ),
    Route(
        "GET",
        "/docs",
        "This description as a page.",
        None,
        public=True,
        handler=lambda to: to.docs.get_docs,
    ),
)
ROUTES: Final = (
    *_RESPONSE_ROUTES,
    *_STORED_COMPLETION_ROUTES,
    *_XAI_ROUTES,
    *_CONVERSATION_ROUTES,
    *CHAT_ROUTES,
    *TRANSFER_ROUTES,
    *_SERVER_ROUTES,
)
#: The web page: for browsers, so that the API's description does not have it.
PAGE_ROUTES: Final = (
    Route("GET", "/", "The page.", None, public=True, handler=lambda to: to.web_page.page),
    Route("GET", "/c/{id}", "A chat.", None, public=True, handler=lambda to: to.web_page.page),
    Route("GET", "/r/{id}", "A turn.", None, public=True, handler=lambda to: to.web_page.page),
    # The secret is the key.
    Route(
        "GET",
        "/s/{secret}",
        "A shared chat.",
        None,
        public=True,
        handler=lambda to: to.shares.page,
    ),
    Route(
        "GET",
        "/web/{version}/{path:path}",
        "A file of the page.",
        None,
        public=True,
        handler=lambda to: to.web_page.file,
    ),
    *(
        Route(
            "GET",
            path,
            "A service worker that removes itself.",
            None,
            public=True,
            handler=lambda to: to.web_page.removing_worker,
        )
        for path in ("/sw.js", "/service-worker.js")
    ),
)
_PUBLIC: Final = [route.path for route in (*ROUTES, *PAGE_ROUTES) if route.public]
_PUBLIC_PATHS: Final = frozenset(path for path in _PUBLIC if "{" not in path)
_PUBLIC_PREFIXES: Final = tuple(path.partition("{")[0] for path in _PUBLIC if "{" in path)


def is_public(path: str) -> bool:
    """Whether a path needs no API key: monitors and browsers have none to send.

    Nothing public shows a tenant's data.
    """
    return path in _PUBLIC_PATHS or path.startswith(_PUBLIC_PREFIXES)


def handlers_by_path(endpoints: Endpoints) -> dict[str, dict[str, Handler]]:
    """Handlers by method by path, which answer errors themselves; HEAD comes last."""
    handlers: dict[str, dict[str, Handler]] = {}
    for route in (*ROUTES, *PAGE_ROUTES):
        handlers.setdefault(route.path, {})[route.method] = handle_errors(route.handler(endpoints))
    for methods in handlers.values():
        if "GET" in methods:
            methods["HEAD"] = answering_head(methods["GET"])
    return handlers
