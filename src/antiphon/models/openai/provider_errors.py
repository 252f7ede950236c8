"""Provider errors: what an upstream's error body says, in any of the shapes in use. Pure."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from antiphon.models.openai.lenient_json import count_of_value
from antiphon.models.openai.sse import DECODE_ERRORS, SseParser

#: Fields with the message; with further errors; and with what may hold one, if nothing else does.
_MESSAGE_FIELDS = (
    "message", "Message", "msg", "detail", "error_msg", "error_message", "errorMessage", "errmsg",
    "error_description", "status_msg", "statusMessage", "description", "reason", "title", "text",
)  # fmt: skip
_ERROR_FIELDS = ("error", "Error", "errors")
_WRAPPING_FIELDS = (
    "detail",
    "details",
    "message",
    "base_resp",
    "fault",
    "response",
    "data",
    "body",
)
_CODE_FIELDS = ("code", "error_code", "errorCode", "errcode", "status_code", "statusCode")
_STATUS_FIELDS = (
    *("code", "status", "status_code", "statusCode", "error_code"),
    *("http_status", "httpStatus", "http_code", "httpCode", "http_status_code", "httpStatusCode"),
)
#: Gateways and object stores answer in XML. Of HTML nothing is quoted.
_XML_STARTS = ("<?xml", "<Error", "<error", "<fault")
_XML_MESSAGE = re.compile(r"<(?:\w+:)?(?:message|faultstring)[^>]*>([^<]+)</", re.IGNORECASE)
#: Objects in objects that are searched for a message.
_MAX_DEPTH = 5


class ProviderError(msgspec.Struct, frozen=True):
    """An upstream's error."""

    message: str = ""
    code: str = ""
    kind: str = ""
    param: str = ""
    #: A status of HTTP that it names.
    status: int | None = None
    used: int | None = None
    limit: int | None = None


def parse_provider_error(body: bytes) -> ProviderError:
    """The error in a body: JSON, an event stream, or a text. Of a page nothing is quoted."""
    text = _decode_text(body).strip("\ufeff \t\r\n")
    if text.startswith("<"):
        found = _XML_MESSAGE.search(text) if text.startswith(_XML_STARTS) else None
        return ProviderError(message=html.unescape(found[1]).strip() if found else "")
    value = _decode_json(text.encode())
    if not value:
        return ProviderError()
    error = _find_error_object(value)
    return ProviderError(
        message=find_message(value) or text,
        code=_first_text(_CODE_FIELDS, error, value),
        kind=_first_text(("type", "status", "__type"), error, value),
        param=_first_text(("param",), error, value) or _location(value),
        status=_find_status(error, value),
        used=_int_or_none(error.get("n_prompt_tokens")),
        limit=_int_or_none(error.get("n_ctx")),
    )


def _decode_text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body.decode("latin-1")


def _decode_json(text: bytes) -> Any:
    """The JSON value, alone or as an event of a stream, or else the text itself."""
    parser = SseParser()
    for data in (text, *parser.feed(text), *parser.close()):
        try:
            return msgspec.json.decode(data)
        except DECODE_ERRORS:
            continue
    return text.decode()


def find_message(value: Any, depth: int = 0) -> str:
    """The words in an error of any shape; empty, if there are none."""
    if isinstance(value, str):
        return value.strip()
    if depth == _MAX_DEPTH:
        return ""
    if isinstance(value, list):
        return _join("; ", (find_message(one, depth + 1) for one in value))
    if not isinstance(value, dict):
        return ""
    messages = [value[name] for name in _MESSAGE_FIELDS if isinstance(value.get(name), str)]
    errors = [find_message(value.get(name), depth + 1) for name in _ERROR_FIELDS]
    if isinstance(by_field := value.get("errors"), dict) and not any(errors):
        lists = (one for one in by_field.values() if isinstance(one, list))
        errors = [find_message(one, depth + 1) for one in lists]
    # A router's own words come with the raw ones of the server behind it.
    metadata = value.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    found = _join(": ", (*errors, *messages[:1], find_message(raw, depth + 1)))
    if found:
        return found
    return next(
        filter(None, (find_message(value.get(one), depth + 1) for one in _WRAPPING_FIELDS)), ""
    )


def _join(separator: str, texts: Iterable[str]) -> str:
    """The texts that are not empty, each once."""
    return separator.join(dict.fromkeys(filter(None, texts)))


def _find_error_object(value: Any) -> dict[str, Any]:
    """The innermost object with an error's fields."""
    for _ in range(_MAX_DEPTH):
        if isinstance(value, list):
            value = value[0] if value else None
            continue
        if not isinstance(value, dict):
            break
        inner = next((value[one] for one in (*_ERROR_FIELDS, "base_resp") if value.get(one)), None)
        if not isinstance(inner, dict | list):
            return value
        value = inner
    return value if isinstance(value, dict) else {}


def _first_text(names: Iterable[str], *objects: Any) -> str:
    """The first of these fields that is there, as text."""
    for one in objects:
        for name in names:
            value = one.get(name) if isinstance(one, dict) else None
            if value is not None:
                return value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return ""


def _find_status(*objects: Any) -> int | None:
    """The first field that is a status of HTTP."""
    for one in objects:
        for name in _STATUS_FIELDS:
            status = count_of_value(one.get(name)) if isinstance(one, dict) else None
            if status is not None and 400 <= status < 600:
                return status
    return None


def _location(value: Any) -> str:
    """The field that a list of validation errors names first, as FastAPI sends it."""
    details = value.get("detail") if isinstance(value, dict) else None
    if details is None and isinstance(value, dict):
        inner = value.get("message", value.get("error"))
        details = inner.get("detail") if isinstance(inner, dict) else None
    first = details[0] if isinstance(details, list) and details else None
    location = first.get("loc") if isinstance(first, dict) else None
    if not isinstance(location, list):
        return ""
    return ".".join(str(one) for one in location if one != "body")


def _int_or_none(value: Any) -> int | None:
    return value if type(value) is int else None
