"""Logging setup: plain or JSON lines on standard error, each with its request id."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal, TypeAlias

import msgspec

LogFormat: TypeAlias = Literal["plain", "json"]

#: The id of the request that is being answered; "-" outside of any. Turns that a request
#: starts have it too.
request_id: ContextVar[str] = ContextVar("antiphon_request_id", default="-")

_PLAIN_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s [%(request_id)s]"


class RequestIdFilter(logging.Filter):
    """Lets everything through, and adds ``request_id`` to it."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object a line. What came in ``extra={"fields": {...}}`` are fields of it."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": getattr(record, "request_id", "-"),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def log_to_stderr(level: str, log_format: LogFormat) -> None:
    """Have the process log to standard error; ``level`` holds for antiphon's own lines.

    Other libraries are heard from "warning" on: what they say below that is not for users,
    and may hold what must not be in a log.
    """
    handler = logging.StreamHandler()
    handler.addFilter(RequestIdFilter())
    handler.setFormatter(
        JsonFormatter() if log_format == "json" else logging.Formatter(_PLAIN_FORMAT)
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("antiphon").setLevel(level.upper())
