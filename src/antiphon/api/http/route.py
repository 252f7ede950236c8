"""Routes: one row of the route table, its endpoints, and the parameters that several rows take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from antiphon.api.http.asgi_responses import Handler
from antiphon.api.http.blobs import BlobEndpoints
from antiphon.api.http.chains import ChainEndpoints
from antiphon.api.http.chat_completions import ChatCompletionsEndpoint
from antiphon.api.http.chats import ChatEndpoints
from antiphon.api.http.conversations import ConversationEndpoints
from antiphon.api.http.exports import ExportEndpoints
from antiphon.api.http.feed import FeedEndpoints
from antiphon.api.http.health import HealthEndpoints, ModelEndpoints
from antiphon.api.http.imports import ImportEndpoints
from antiphon.api.http.item_bodies import INCLUDABLE
from antiphon.api.http.openapi import DocsEndpoints, Operation, Parameter
from antiphon.api.http.pagination import STATUSES
from antiphon.api.http.responses import CompactionEndpoints, ResponseEndpoints
from antiphon.api.http.shares import ShareEndpoints
from antiphon.api.http.stored_chat_completions import StoredChatCompletionEndpoints
from antiphon.api.http.usage import UsageEndpoints
from antiphon.api.http.web_page import WebPageEndpoints
from antiphon.api.http.xai_rest import XaiEndpoints
from antiphon.api.mcp.streamable_http import McpEndpoint


class Endpoints(msgspec.Struct, frozen=True):
    """The objects whose methods handle requests, one for each resource."""

    responses: ResponseEndpoints
    compaction: CompactionEndpoints
    chat_completions: ChatCompletionsEndpoint
    stored_chat_completions: StoredChatCompletionEndpoints
    models: ModelEndpoints
    conversations: ConversationEndpoints
    chats: ChatEndpoints
    chains: ChainEndpoints
    feed: FeedEndpoints
    blobs: BlobEndpoints
    usage: UsageEndpoints
    shares: ShareEndpoints
    imports: ImportEndpoints
    exports: ExportEndpoints
    mcp: McpEndpoint
    health: HealthEndpoints
    xai: XaiEndpoints
    docs: DocsEndpoints
    web_page: WebPageEndpoints


class Route(Operation, frozen=True, kw_only=True):
    """One row of the table. ``handler`` picks the method that handles the requests."""

    handler: Callable[[Endpoints], Handler]


STRING: Final = {"type": "string"}
BOOLEAN: Final = {"type": "boolean", "default": False}

PAGINATION: Final = (
    Parameter(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
        "The page size.",
    ),
    Parameter("order", {"enum": ["asc", "desc"], "default": "desc"}, "desc: the newest first."),
    Parameter("after", STRING, "The id of the last entry of the previous page."),
)
ASCENDING_PAGINATION: Final = (
    *(one for one in PAGINATION if one.name != "order"),
    Parameter("order", {"enum": ["asc", "desc"], "default": "asc"}, "asc: the oldest first."),
)
FILTERS: Final = (
    Parameter("model", STRING, "Only responses of this model."),
    Parameter("status", {"enum": sorted(STATUSES)}, "Only responses with this status."),
    Parameter(
        "metadata",
        {"type": "object", "additionalProperties": STRING},
        "Only responses with all of these pairs: metadata[key]=value.",
        style="deepObject",
    ),
)
SEARCH: Final = Parameter(
    "query", STRING, "Full-text search: turns with all of these words, the best first."
)
STREAM: Final = (
    Parameter("stream", BOOLEAN, "Stream the response's events from the first one on."),
    Parameter(
        "starting_after",
        {"type": "integer", "minimum": -1, "maximum": 999_999_999},
        "With stream: only the events after this sequence number.",
    ),
)
INCLUDE: Final = Parameter(
    "include",
    {"type": "array", "items": {"enum": list(INCLUDABLE)}},
    "Fields that are included on request only.",
)
CASCADE: Final = Parameter("cascade", BOOLEAN, "Delete its descendants too.")
