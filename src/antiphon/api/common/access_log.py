"""Access log and request ids: one line for each request with status, duration and tenant.

A WebSocket is one request, from its beginning to its end. Bodies, keys and queries, which may
hold either, are never in a line. ``x-request-id`` identifies a request: it is in its response and
in every log line about it.
"""

from __future__ import annotations

import logging
import re

from starlette.types import Scope

from antiphon.core.ids import new_request_id

_SAFE_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}\Z")


def request_id_for(given: bytes | None) -> str:
    """The client's own id where it can be repeated without harm, else a new one."""
    if given is not None and _SAFE_REQUEST_ID.match(given):
        return given.decode("ascii")
    return new_request_id()


#: Silent unless the log level is "info" or lower.
access_logger = logging.getLogger("antiphon.access")

_MAX_PATH_LENGTH = 200
#: What comes behind it in a path is a secret.
_SHARES = "/s/"


def log_access(scope: Scope, status: int, seconds: float) -> None:
    """Write the line."""
    fields = {
        "method": scope.get("method", "WS"),
        "path": _path(scope),
        "status": status,
        "ms": round(seconds * 1000, 1),
        "tenant": scope.get("antiphon.tenant") or "-",
    }
    access_logger.info(
        "%(method)s %(path)s %(status)d %(ms).1fms %(tenant)s", fields, extra={"fields": fields}
    )


def shown_path(scope: Scope) -> str:
    """A request's path for the log, without the secret of a shared link."""
    path: str = scope["path"]
    return f"{_SHARES}..." if path.startswith(_SHARES) else path


def _path(scope: Scope) -> str:
    if scope["path"].startswith(_SHARES):
        return shown_path(scope)
    # As it came: what is escaped in it must not break the line.
    path = ascii(scope["raw_path"].decode("latin-1"))[1:-1]
    return path if len(path) <= _MAX_PATH_LENGTH else path[:_MAX_PATH_LENGTH] + "..."
