"""Routes of export, import and shared links: a part of the route table (``routes``)."""

from __future__ import annotations

from typing import Final

from antiphon.api.http.route import PAGINATION, Route
from antiphon.api.http.shares import ShareCreate

TRANSFER_ROUTES: Final = (
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
        "/v1/import/{id}",
        "Retrieve an import with the report of each chat.",
        "Import",
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
