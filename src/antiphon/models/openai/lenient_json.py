"""Lenient JSON: decodes what upstreams send, and reads values of unexpected types. Pure.

For the answers that a typed decoder refuses: servers write ``NaN``, raw tabs, halves of surrogate
pairs, and numbers as text.
"""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec

_decode = msgspec.json.Decoder().decode
#: Python limits the digits of an integer, to 4300 unless it is told otherwise.
_MAX_DIGITS = 600


def decode_lenient(data: bytes) -> Any:
    """The JSON value. Its strings may hold single surrogates (``join_surrogates``).

    Raises what is in ``upstream_errors.DECODE_ERRORS``.
    """
    try:
        return _decode(data)
    except msgspec.DecodeError:
        try:
            return json.loads(data.decode(), strict=False, parse_int=_parse_int)
        except json.JSONDecodeError as error:
            raise msgspec.DecodeError(f"JSON is malformed: {error}") from None


def _parse_int(digits: str) -> int | float:
    """An integer; one of more digits than Python takes is infinite."""
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


def join_surrogates(text: str) -> str:
    """The text with pairs of surrogates joined, and U+FFFD for each that is alone."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class SurrogateJoiner:
    """Joins surrogates over the pieces of a text: a half waits for the next piece."""

    def __init__(self) -> None:
        self._pending = ""

    def feed(self, piece: str) -> str:
        """The text that is whole after another piece."""
        if not self._pending and piece.isascii():
            return piece
        text, self._pending = self._pending + piece, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._pending = text[:-1], text[-1]
        return join_surrogates(text)

    def close(self) -> str:
        """What is left at the end of the text."""
        rest, self._pending = self._pending, ""
        return join_surrogates(rest)


def without_surrogates(value: Any) -> Any:
    """A decoded value whose strings can be encoded."""
    match value:
        case str():
            return value if value.isascii() else join_surrogates(value)
        case list():
            return [without_surrogates(one) for one in value]
        case dict():
            return {join_surrogates(key): without_surrogates(it) for key, it in value.items()}
    return value


def text_of_value(value: Any) -> str:
    """The text in a content: a string, a number as it is written, parts, or an object of one."""
    match value:
        case str():
            return value
        case bool() | None:
            return ""
        case int() | float():
            return msgspec.json.encode(value).decode()
        case list():
            return "".join(map(text_of_value, value))
        case dict():
            texts = (text_of_value(value.get(name)) for name in ("text", "content", "value"))
            return next(filter(None, texts), "")
    return ""


def count_of_value(value: Any) -> int | None:
    """A number of tokens, or an index: an integer, or what can be taken for one.

    None: it is none, or is below zero.
    """
    if type(value) is not int:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return None
        try:
            number = float(value)
        except (ValueError, OverflowError):
            return None
        if not math.isfinite(number):
            return None
        value = int(number)
    return value if 0 <= value < 2**63 else None


def name_of_value(value: Any) -> str:
    """An id or a name: a string, or a number as text; empty if it is neither."""
    if isinstance(value, str):
        return join_surrogates(value)
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""
