"""Argument mending: arguments of a tool call that are meant as an object, as JSON. Pure.

Models write Python for JSON, fences around it and markup of their templates, and servers pass that
on, encode it twice, or leave control characters as they are.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import msgspec

from antiphon.models.openai.lenient_json import evaluate_literal
from antiphon.models.openai.sse import DECODE_ERRORS
from antiphon.models.openai.tool_call_fragments import is_blank

_NOTHING: Final = ("None", "undefined", "nil", "NaN")
_FENCE: Final = re.compile(r"```\w*\s*(.*?)\s*```", re.DOTALL)
_MARKUP: Final = re.compile(r"\A(?:\s*<[^<>{}]*>)+|(?:<[^<>{}]*>\s*)+\Z")
#: A word of what follows, as behind a fence that is gone.
_LABEL: Final = re.compile(r"(?:json|arguments|parameters)\s*[:=]?\s*(?={)", re.IGNORECASE)
#: How often JSON is found within a JSON string.
_MAX_DEPTH: Final = 3
#: How such objects begin, and what they have.
_WRAPPERS: Final = ('{"function"', '{"name"')
_CALLS: Final = ({"name", "arguments"}, {"name", "parameters"})

#: A function that nobody offers, by which models of OpenAI's call several at once.
PARALLEL_CALLS: Final = "multi_tool_use.parallel"


class _ToolUse(msgspec.Struct):
    recipient_name: str
    parameters: msgspec.Raw = msgspec.Raw(b"{}")


class _ParallelCalls(msgspec.Struct):
    tool_uses: list[_ToolUse]


_decoder = json.JSONDecoder(strict=False)
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def normalize_arguments(arguments: str) -> str:
    """Arguments that are whole, as an object of JSON where they are meant as one.

    None become an empty object. What cannot be read stays as it is.
    """
    if is_blank(arguments):
        return "{}"
    return arguments if is_object(arguments) else _mended(arguments) or arguments


def unwrap_arguments(arguments: str, name: str) -> str:
    """The arguments of a function within an object of its name, as grammars and models make it."""
    text = arguments.lstrip()
    if not text.startswith(_WRAPPERS):
        return arguments
    try:
        fields = _decode_object(text)
        if fields.keys() == {"function"}:
            # The grammar of TGI.
            inner = _decode_object(fields["function"])
            is_named = inner.pop("_name", None) is not None
            return msgspec.json.encode(inner).decode() if is_named else arguments
        if (named := _call_in(fields)) is not None and named[0] == name:
            return named[1]
    except DECODE_ERRORS:
        pass
    return arguments


def named_call(arguments: str) -> tuple[str, str] | None:
    """A function's name and its arguments, where an object has both; None: it is no such."""
    try:
        return _call_in(_decode_object(arguments))
    except DECODE_ERRORS:
        return None


def _call_in(fields: dict[str, msgspec.Raw]) -> tuple[str, str] | None:
    if fields.keys() not in _CALLS:
        return None
    name = msgspec.json.decode(fields["name"])
    (inner,) = (bytes(value).decode() for key, value in fields.items() if key != "name")
    return (name, inner) if isinstance(name, str) and is_object(inner) else None


def parallel_calls(arguments: str) -> list[tuple[str, str]]:
    """Names and arguments of the calls in those of ``PARALLEL_CALLS``; empty: there are none."""
    try:
        uses = msgspec.json.decode(arguments, type=_ParallelCalls).tool_uses
    except DECODE_ERRORS:
        return []
    return [(one.recipient_name, bytes(one.parameters).decode()) for one in uses]


def _mended(arguments: str) -> str | None:
    text = arguments.strip("\ufeff \t\r\n")
    if fence := _FENCE.fullmatch(text):
        text = fence[1]
    text = _MARKUP.sub("", text).strip()
    for _ in range(_MAX_DEPTH):
        if not text.startswith('"'):
            break
        try:
            text = msgspec.json.decode(text, type=str)
        except DECODE_ERRORS:
            return None
    if text in _NOTHING:
        return "{}"
    if text.startswith("["):
        return _single_object(text)
    if label := _LABEL.match(text):
        text = text[label.end() :]
    if text.startswith(("{{", '{"{')):
        # Doubled, as templates escape them, or as servers repeat what they have sent.
        rest = text[2:] if text[1] == '"' else text[1:]
        inner = rest.removesuffix("}") if rest.endswith("}}") else rest
        text = next((one for one in (rest, inner) if is_object(one)), text)
    if not text.startswith("{"):
        return None
    return text if is_object(text) else _rewritten(text)


def _single_object(text: str) -> str | None:
    """The object that is alone in a list."""
    try:
        values = msgspec.json.decode(text, type=list[msgspec.Raw])
    except DECODE_ERRORS:
        return None
    only = bytes(values[0]).decode() if len(values) == 1 else ""
    return only if only.startswith("{") else None


def _rewritten(text: str) -> str | None:
    """An object in almost JSON, or in Python, as JSON."""
    value: Any = None
    try:
        value, end = _decoder.raw_decode(text)
        if "{" in text[end:]:
            # Another call's arguments, or no JSON at all.
            return None
    except (ValueError, RecursionError):
        value = evaluate_literal(text)
    if not isinstance(value, dict):
        return None
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None


def is_object(text: str | msgspec.Raw) -> bool:
    """Whether a text is an object of JSON."""
    try:
        _decode_object(text)
    except DECODE_ERRORS:
        return False
    return True
