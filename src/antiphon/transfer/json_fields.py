"""Tolerant fields: reads values of JSON whose shape is another program's. Pure.

A field that is missing, or of another type than expected, is the same as an absent one: an odd
field never fails a chat.
"""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import msgspec

Json: TypeAlias = dict[str, Any]

#: The latest time that is taken for one: 1 January 2100. Later numbers are milliseconds.
_MAX_SECONDS: Final = 4_102_444_800.0
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def decode_json(raw: bytes) -> Any:
    """A JSON value, also with what strict readers refuse.

    NaN and infinities are read as numbers, bytes that are no UTF-8 and halves of surrogate pairs
    as U+FFFD. Raises ``ValueError`` where it is no JSON, or nested too deeply.
    """
    try:
        return msgspec.json.decode(raw)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:
        text = raw.decode("utf-8-sig", "replace")
        return _without_surrogates(json.loads(text, strict=False))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except ValueError as error:
        raise ValueError("it is not valid JSON") from error


def _without_surrogates(value: Any) -> Any:
    """The value with U+FFFD for each half of a pair, which UTF-8 cannot hold."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_without_surrogates(one) for one in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(one) for key, one in value.items()}
    return value


def object_at(value: Any, name: str) -> Json:
    """The object in a field, or an empty one."""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def list_at(value: Any, name: str) -> list[Any]:
    """The array in a field, or an empty one."""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, list) else []


def objects_at(value: Any, name: str) -> list[Json]:
    """The objects of the array in a field."""
    return [one for one in list_at(value, name) if isinstance(one, dict)]


def text_at(value: Any, *names: str) -> str:
    """The first of some fields that is a text with something in it, or an empty one."""
    for name in names:
        found = value.get(name) if isinstance(value, dict) else None
        if isinstance(found, str) and found:
            return found
    return ""


def id_at(value: Any, *names: str) -> str | None:
    """The first of some fields that can name something: a text or a whole number."""
    for name in names:
        found = value.get(name) if isinstance(value, dict) else None
        if isinstance(found, str) and found:
            return found
        if isinstance(found, int) and not isinstance(found, bool):
            return str(found)
    return None


def time_at(value: Any, *names: str) -> float | None:
    """The first of some fields that is a time, in seconds since 1970."""
    for name in names:
        found = value.get(name) if isinstance(value, dict) else None
        if (seconds := parse_time(found)) is not None:
            return seconds
    return None


def parse_time(value: Any) -> float | None:
    """A time in seconds since 1970: from seconds, milliseconds, their text, or ISO 8601."""
    if isinstance(value, dict):
        # MongoDB's own JSON.
        return parse_time(value.get("$date"))
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return _parse_iso_time(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    while math.isfinite(seconds) and seconds > _MAX_SECONDS:
        # Milliseconds, microseconds or nanoseconds.
        seconds /= 1000
    return seconds if math.isfinite(seconds) and seconds > 0 else None


def _parse_iso_time(value: str) -> float | None:
    try:
        at = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    seconds = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    return seconds if 0 < seconds <= _MAX_SECONDS else None


def to_json_text(value: Any) -> str:
    """A value as the text of its JSON; a text as it is."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
