"""Lenient JSON: decodes what upstreams send, and reads values of unexpected types. Pure.

For the answers that a typed decoder refuses: servers write ``NaN``, raw tabs, commas before the end
of an object, Python's dicts, and numbers as text.
Halves of characters have been joined before (``answer_framing``).
"""

from __future__ import annotations

import ast
import json
import math
import re
from typing import Any, Final

import msgspec

_decode = msgspec.json.Decoder().decode
#: Where an object has its text.
_TEXT_FIELDS: Final = ("text", "content", "value", "parts")
_THOUGHT_FIELDS: Final = (
    *("thinking", "summary", "reasoning", "reasoning_content", "reasoning_text"),
    *("reasoningContent", "reasoningText"),
)
#: Fields of what is a part of a content, and no data.
_CONTENT_FIELDS: Final = frozenset(
    (
        *(*_TEXT_FIELDS, *_THOUGHT_FIELDS, "type", "refusal", "thought", "signature"),
        *("functionCall", "toolUse", "function_call", "tool_use", "tool_call"),
        *("image_url", "inlineData", "inline_data", "image"),
    )
)
#: Longer texts are not read as Python.
_MAX_LITERAL_LENGTH: Final = 20_000
#: Strings, comments and words, of which some are keys without quotation marks.
_TOKEN: Final = re.compile(
    r"""\"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|//[^\n]*|/\*.*?\*/"""
    r"""|(?P<key>[A-Za-z_$][\w$]*(?=\s*:))|[A-Za-z_$][\w$]*""",
    re.DOTALL,
)
_PYTHON_WORDS: Final = {"true": "True", "false": "False", "null": "None", "undefined": "None"}
#: Python limits the digits of an integer, to 4300 unless it is told otherwise.
_MAX_DIGITS = 600


def decode_lenient(data: bytes) -> Any:
    """The JSON value. Raises what is in ``sse.DECODE_ERRORS``."""
    try:
        return _decode(data)
    except msgspec.DecodeError:
        try:
            return json.loads(data.decode(), strict=False, parse_int=_parse_int)
        except json.JSONDecodeError as error:
            value = evaluate_literal(data.decode().strip())
            if isinstance(value, dict):
                return value
            raise msgspec.DecodeError(f"JSON is malformed: {error}") from None


def evaluate_literal(text: str) -> Any:
    """The value of an object in Python or JavaScript; None: it is neither, or no literal."""
    if not text.startswith("{") or len(text) > _MAX_LITERAL_LENGTH:
        return None
    try:
        return ast.literal_eval(_TOKEN.sub(_python_token, text))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _python_token(found: re.Match[str]) -> str:
    token = found[0]
    if token.startswith("/"):
        return ""
    return repr(token) if found["key"] else _PYTHON_WORDS.get(token, token)


def split_objects(data: bytes) -> list[bytes]:
    """The objects in a text of several, and end markers: gateways leave out what is between them.

    Empty, if there are fewer than two. The last one may be no whole object.
    """
    text = data.decode(errors="replace")
    found: list[bytes] = []
    at = _find_next(text, 0)
    while at < len(text):
        end = at + len(_END_MARK)
        if not text.startswith(_END_MARK, at):
            try:
                _, end = _decoder.raw_decode(text, at)
            except (ValueError, RecursionError):
                end = len(text)
        found.append(text[at:end].encode())
        at = _find_next(text, end)
    return found if len(found) > 1 else []


def _find_next(text: str, at: int) -> int:
    """Where the next value begins: behind spaces, record separators and names of fields."""
    found = _BETWEEN.match(text, at)
    return found.end() if found else at


def _parse_int(digits: str) -> int | float:
    """An integer; one of more digits than Python takes is infinite."""
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


_decoder = json.JSONDecoder(strict=False, parse_int=_parse_int)
_END_MARK: Final = "[DONE]"
_BETWEEN: Final = re.compile(r"(?:[\s\x00\x1e\ufeff,]|data:|event:[^\n{]*\n)*")

#: Where gateways put the answer of the server behind them.
WRAPPING_FIELDS: Final = (
    "result",
    "data",
    "response",
    "output",
    "body",
    "Response",
    "chatResponse",
    "predictions",
    "completions",
)


def wrapped_object(value: dict[str, Any], field: str) -> dict[str, Any] | None:
    """The object with a field, where another one is around it; None: there is none."""
    for name in WRAPPING_FIELDS:
        inner = value.get(name)
        if isinstance(inner, str) and inner.startswith("{"):
            inner = _decoded_text(inner)
        if isinstance(inner, dict) and inner.get(field):
            return inner
    return None


def _decoded_text(text: str) -> Any:
    try:
        return decode_lenient(text.encode(errors="replace"))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


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
            texts = (text_of_value(value.get(name)) for name in _TEXT_FIELDS)
            return next(filter(None, texts), "")
    return ""


def thoughts_of_value(value: Any) -> str:
    """The text in reasoning: as that in a content, or under a name of its own."""
    if isinstance(value, list):
        return "".join(map(thoughts_of_value, value))
    text = text_of_value(value)
    if text or not isinstance(value, dict):
        return text
    texts = (thoughts_of_value(value.get(name)) for name in _THOUGHT_FIELDS)
    return next(filter(None, texts), "")


def is_plain_data(value: Any) -> bool:
    """Whether a content is an object that a model wrote as JSON, and some server has decoded."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(one, dict) and is_plain_data(one) for one in value)
    return isinstance(value, dict) and bool(value) and _CONTENT_FIELDS.isdisjoint(value)


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
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""
