"""Routes of chats: a part of the route table (``routes``)."""

from __future__ import annotations

from typing import Final

from antiphon.api.http.chains import IMAGE_FORMS
from antiphon.api.http.chats import CHAT_STATUSES, MAX_BRANCHES, ChatChange
from antiphon.api.http.openapi import Parameter
from antiphon.api.http.route import BOOLEAN, INCLUDE, PAGINATION, STRING, Route
from antiphon.turn.usage_groups import GROUPING_NAMES

_CHAT_PATH: Final = "/v1/chats/{id}"
_RESPONSE_PATH: Final = "/v1/responses/{id}"
_PAGE: Final = tuple(one for one in PAGINATION if one.name != "order")
_FEED_CURSOR: Final = Parameter(
    "feed_cursor", BOOLEAN, "Add feed_cursor: /v1/feed?after= has all that changes since."
)
CHAT_ROUTES: Final = (
    Route(
        "GET",
        "/v1/chats",
        "List chats, or search them.",
        "ChatList",
        query=(
            *PAGINATION,
            _FEED_CURSOR,
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
        query=(
            Parameter(
                "window",
                {"type": "integer", "minimum": 1, "maximum": 100},
                "Also so many of its last turns, as window; images as paths of /v1/blobs.",
            ),
            _FEED_CURSOR,
        ),
        handler=lambda to: to.chains.retrieve_chat,
    ),
    Route(
        "POST",
        _CHAT_PATH,
        "Update a chat's title, metadata, or whether it is pinned or permanent.",
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
    Route(
        "GET",
        f"{_CHAT_PATH}/branches",
        "List a chat's branches: where each ends, and what it forks from.",
        "ChatBranchList",
        query=(
            Parameter("limit", {**PAGINATION[0].schema, "maximum": MAX_BRANCHES}, "The page size."),
            *_PAGE[1:],
        ),
        handler=lambda to: to.chats.list_branches,
    ),
    Route(
        "GET",
        f"{_CHAT_PATH}/search",
        "Search the turns of a chat, the best first.",
        "ChatHitList",
        query=(*_PAGE, Parameter("query", STRING, "Turns with all of these words.")),
        handler=lambda to: to.chats.search,
    ),
    Route(
        "GET",
        f"{_RESPONSE_PATH}/turns",
        "List a part of a response's chain, oldest turn first; its last turns by default.",
        "TurnList",
        query=(
            Parameter("limit", {**PAGINATION[0].schema, "default": 60}, "How many turns."),
            Parameter("before", STRING, "The id of the response to end before."),
            Parameter("after", STRING, "The id of the response to begin after."),
            Parameter("around", STRING, "The id of the response in the middle."),
            Parameter(
                "position",
                {"type": "integer", "minimum": 0, "maximum": 999_999_999},
                "The position of the turn in the middle, from 0.",
            ),
            Parameter(
                "images",
                {"enum": list(IMAGE_FORMS), "default": "data"},
                "reference: images as paths of /v1/blobs instead of data URLs.",
            ),
            INCLUDE,
        ),
        handler=lambda to: to.chains.list_turns,
    ),
    Route(
        "GET",
        f"{_RESPONSE_PATH}/siblings",
        "List the turns that continue what a response continues, oldest first.",
        "BranchList",
        query=(
            *_PAGE,
            Parameter(
                "around",
                {"type": "boolean", "default": False},
                "With the response itself in the middle, in place of a page after another.",
            ),
            _FEED_CURSOR,
        ),
        handler=lambda to: to.chains.list_siblings,
    ),
    Route(
        "GET",
        f"{_RESPONSE_PATH}/children",
        "List the turns that continue a response, oldest first.",
        "BranchList",
        query=_PAGE,
        handler=lambda to: to.chains.list_children,
    ),
    Route(
        "GET",
        "/v1/blobs/{sha256}",
        "Retrieve an image by the SHA-256 of its bytes.",
        None,
        handler=lambda to: to.blobs.retrieve,
    ),
    Route(
        "GET",
        "/v1/approvals",
        "List the calls that wait for a person, in all chats.",
        "ApprovalList",
        query=_PAGE,
        handler=lambda to: to.blobs.list_approvals,
    ),
    Route(
        "GET",
        "/v1/usage",
        "List what ended turns used, by day, model and API key; erased ones count.",
        "UsageList",
        query=(
            Parameter("from", STRING, "The first day: a date of UTC, or Unix seconds."),
            Parameter("to", STRING, "The last day."),
            Parameter("by", {"enum": list(GROUPING_NAMES), "default": "day"}, "What a row is of."),
        ),
        handler=lambda to: to.usage.list_sums,
    ),
    Route(
        "GET",
        "/v1/usage/store",
        "Count what the store holds: chats, conversations, turns; and what expires next.",
        "StoreUsage",
        handler=lambda to: to.usage.retrieve_of_store,
    ),
    Route(
        "GET",
        f"{_RESPONSE_PATH}/usage",
        "Sum up the tokens and cost of a response, and of the chain that ends with it.",
        "ResponseUsage",
        handler=lambda to: to.usage.retrieve_of_response,
    ),
    Route(
        "GET",
        "/v1/feed",
        "Follow what changes, as events without words; Last-Event-ID resumes.",
        None,
        query=(Parameter("after", STRING, "The id of the last event that was received."),),
        streams=True,
        handler=lambda to: to.feed.follow,
    ),
)
