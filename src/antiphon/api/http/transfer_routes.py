"""Routes of export, import and shared links: a part of the route table (``routes``)."""

from __future__ import annotations

from typing import Final

from antiphon.api.http.openapi import Parameter
from antiphon.api.http.route import PAGINATION, STRING, Route
from antiphon.api.http.shares import ShareCreate
from antiphon.transfer.chat_exporter import EXPORT_FORMATS

TRANSFER_ROUTES: Final = (
    Route(
        "GET",
        "/v1/chats/{id}/export",
        "Export a chat: as JSON with all its branches, or a chain as Markdown or HTML.",
        None,
        query=(
            Parameter(
                "format", {"enum": list(EXPORT_FORMATS), "default": "json"}, "What is written."
            ),
            Parameter("head", STRING, "The response that a chain ends with; the newest if absent."),
        ),
        media_types=("application/json", "text/markdown", "text/html"),
        handler=lambda to: to.exports.chat,
    ),
    Route(
        "GET",
        "/v1/export",
        "Export all chats as JSON, one a line.",
        None,
        media_types=("application/x-ndjson",),
        handler=lambda to: to.exports.everything,
    ),
    Route(
        "POST",
        "/v1/import",
        "Import the chats of an export file, which is the body, in the background.",
        "Import",
        takes_file=("application/json", "application/octet-stream"),
        success_status=202,
        handler=lambda to: to.imports.create,
    ),
    Route(
        "GET",
        "/v1/import",
        "List the imports of the last day, the newest first, without the reports of their chats.",
        "ImportList",
        query=PAGINATION,
        handler=lambda to: to.imports.list_all,
    ),
    Route(
        "GET",
        "/v1/import/{id}",
        "Retrieve an import with the reports of its chats, by pages.",
        "Import",
        query=(
            Parameter("limit", {**PAGINATION[0].schema, "default": 100}, "How many reports."),
            Parameter(
                "after",
                {"type": "integer", "minimum": 0, "maximum": 999_999_999},
                "How many reports were read before.",
            ),
        ),
        handler=lambda to: to.imports.retrieve,
    ),
    Route(
        "POST",
        "/v1/shares",
        "Create a link that shows a chain to whoever has it.",
        "Share",
        ShareCreate,
        handler=lambda to: to.shares.create,
    ),
    Route(
        "GET",
        "/v1/shares",
        "List shared links.",
        "ShareList",
        query=PAGINATION,
        handler=lambda to: to.shares.list_all,
    ),
    Route(
        "DELETE",
        "/v1/shares/{id}",
        "Revoke a shared link.",
        "Deleted",
        handler=lambda to: to.shares.delete,
    ),
)
