"""Routes of chats: a part of the route table (``routes``)."""

from __future__ import annotations

from typing import Final

from antiphon.api.http.chats import CHAT_STATUSES, ChatChange
from antiphon.api.http.openapi import Parameter
from antiphon.api.http.route import PAGINATION, STRING, Route

_CHAT_PATH: Final = "/v1/chats/{id}"
CHAT_ROUTES: Final = (
    Route(
        "GET",
        "/v1/chats",
        "List chats, or search them.",
        "ChatList",
        query=(
            *PAGINATION,
            Parameter("query", STRING, "Full-text search: each chat once, the best first."),
            Parameter("status", {"enum": sorted(CHAT_STATUSES)}, "Only chats with this status."),
            Parameter("pinned", {"type": "boolean"}, "Only chats that are pinned, or are not."),
            Parameter("model", STRING, "Only chats whose newest turn is of this model."),
            Parameter(
                "metadata",
                {"type": "object", "additionalProperties": STRING},
                "Only chats with all of these pairs: metadata[key]=value.",
                style="deepObject",
            ),
        ),
        handler=lambda to: to.chats.list_all,
    ),
    Route(
        "GET",
        _CHAT_PATH,
        "Retrieve a chat.",
        "Chat",
        handler=lambda to: to.chats.retrieve,
    ),
    Route(
        "POST",
        _CHAT_PATH,
        "Update a chat's title, metadata, or whether it is pinned.",
        "Chat",
        ChatChange,
        handler=lambda to: to.chats.update,
    ),
    Route(
        "DELETE",
        _CHAT_PATH,
        "Delete a chat with all its turns.",
        "Deleted",
        handler=lambda to: to.chats.delete,
    ),
)
