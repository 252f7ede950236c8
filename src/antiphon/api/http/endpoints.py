"""What each endpoint of the HTTP API takes and gives, for its description. Pure.

The bodies are the decoders' own types, so that what is described is what is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from antiphon.api.http.chat_completions_codec import ChatCompletionCreate
from antiphon.api.http.conversations import ConversationCreate, ConversationUpdate, ItemsCreate
from antiphon.api.http.includes import INCLUDABLE
from antiphon.api.http.pagination import STATUSES
from antiphon.api.http.response_request import ResponseCreate

_STRING: Final = {"type": "string"}
_BOOLEAN: Final = {"type": "boolean", "default": False}


class Parameter(msgspec.Struct, frozen=True):
    """A parameter in the query; ``style`` as in OpenAPI."""

    name: str
    schema: Mapping[str, Any]
    description: str
    style: str = "form"


class Endpoint(msgspec.Struct, frozen=True):
    """One method of one path.

    ``body`` is what its decoder makes of the request's; ``answer`` names a schema
    (``openapi``), or is None for plain text. ``streams``: it may answer with events.
    ``bare``: nothing needs to be sent. ``once``: it heeds an ``Idempotency-Key``.
    """

    summary: str
    response_schema: str | None
    body: type[msgspec.Struct] | None = None
    query: tuple[Parameter, ...] = ()
    streams: bool = False
    body_optional: bool = False
    takes_idempotency_key: bool = False
    #: Without a key, even where there are some.
    public: bool = False


_PAGINATION: Final = (
    Parameter(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
        "How many to show.",
    ),
    Parameter(
        "order", {"enum": ["asc", "desc"], "default": "desc"}, "desc: the newest come first."
    ),
    Parameter("after", _STRING, "The id of the last one on the page before."),
)
_FILTERS: Final = (
    Parameter("model", _STRING, "Those of one model."),
    Parameter("status", {"enum": sorted(STATUSES)}, "Those that stand so."),
    Parameter(
        "metadata",
        {"type": "object", "additionalProperties": _STRING},
        "Those with all of these pairs: metadata[key]=value.",
        style="deepObject",
    ),
)
_SEARCH: Final = Parameter(
    "query", _STRING, "Finds turns that hold all of these words, the best first: without order."
)
_STREAM: Final = (
    Parameter("stream", _BOOLEAN, "Tell its events instead, from the first one on."),
    Parameter(
        "starting_after",
        {"type": "integer", "minimum": -1, "maximum": 999_999_999},
        "With stream: only the events behind the one of this number.",
    ),
)
_INCLUDE: Final = Parameter(
    "include",
    {"type": "array", "items": {"enum": list(INCLUDABLE)}},
    "What shall be shown besides.",
)
_CASCADE: Final = Parameter("cascade", _BOOLEAN, "Erase all that continues it, too.")

_CONVERSATION_PATH: Final = "/v1/conversations/{id}"

#: By path, then method.
ENDPOINTS: Final[Mapping[str, Mapping[str, Endpoint]]] = {
    "/v1/responses": {
        "POST": Endpoint(
            "Take a turn.", "Response", ResponseCreate, streams=True, takes_idempotency_key=True
        ),
        "GET": Endpoint(
            "Responses, page by page.", "ResponseList", query=(*_PAGINATION, *_FILTERS)
        ),
    },
    "/v1/responses/compact": {
        "POST": Endpoint("Have a model sum up what was said.", "Compaction", ResponseCreate)
    },
    "/v1/responses/input_tokens": {
        "POST": Endpoint("Count what a turn would begin with.", "InputTokens", ResponseCreate)
    },
    "/v1/responses/{id}": {
        "GET": Endpoint(
            "A response, or its events.", "Response", query=(*_STREAM, _INCLUDE), streams=True
        ),
        "DELETE": Endpoint("Erase a response.", "Deleted", query=(_CASCADE,)),
    },
    "/v1/responses/{id}/cancel": {
        "POST": Endpoint("Stop a turn; what arrived is kept.", "Response")
    },
    "/v1/responses/{id}/input_items": {
        "GET": Endpoint("What a turn was given.", "ItemList", query=(*_PAGINATION, _INCLUDE))
    },
    "/v1/responses/{id}/context": {
        "GET": Endpoint("The messages that the model was shown.", "Context")
    },
    "/v1/chat/completions": {
        "POST": Endpoint(
            "Answer messages; nothing is kept.",
            "ChatCompletion",
            ChatCompletionCreate,
            streams=True,
        )
    },
    "/v1/models": {"GET": Endpoint("The models there are.", "ModelList")},
    "/v1/models/{id}": {"GET": Endpoint("One model.", "Model")},
    "/v1/conversations": {
        "POST": Endpoint(
            "Begin a conversation.",
            "Conversation",
            ConversationCreate,
            body_optional=True,
            takes_idempotency_key=True,
        ),
        "GET": Endpoint(
            "Conversations, or what was said in them.",
            "ConversationList",
            query=(*_PAGINATION, _SEARCH),
        ),
    },
    _CONVERSATION_PATH: {
        "GET": Endpoint("A conversation.", "Conversation"),
        "POST": Endpoint(
            "Describe it anew.", "Conversation", ConversationUpdate, takes_idempotency_key=True
        ),
        "DELETE": Endpoint("Erase it with its items.", "Deleted"),
    },
    f"{_CONVERSATION_PATH}/items": {
        "GET": Endpoint("What was said in it.", "ItemList", query=(*_PAGINATION, _INCLUDE)),
        "POST": Endpoint(
            "Append items; no model is asked.",
            "ItemList",
            ItemsCreate,
            query=(_INCLUDE,),
            takes_idempotency_key=True,
        ),
    },
    f"{_CONVERSATION_PATH}/items/{{item}}": {
        "GET": Endpoint("One item.", "Item", query=(_INCLUDE,)),
        "DELETE": Endpoint("Erase an item.", "Conversation"),
    },
    "/mcp": {"POST": Endpoint("The Model Context Protocol, one message.", "Message")},
    "/healthz": {"GET": Endpoint("The process answers.", None, public=True)},
    "/readyz": {"GET": Endpoint("Turns can be kept and found.", None, public=True)},
    "/metrics": {"GET": Endpoint("Numbers for Prometheus.", None)},
    "/openapi.json": {"GET": Endpoint("This description.", "Message", public=True)},
    "/docs": {"GET": Endpoint("This description, to be read.", None, public=True)},
}
