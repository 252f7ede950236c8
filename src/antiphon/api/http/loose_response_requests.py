"""Loose response requests: rewrites shapes with one meaning into those of the API. Pure.

For bodies of ``/v1/responses`` that are not in the API's own shape, as ``loose_chat_requests`` does
for chat completions.
"""

from __future__ import annotations

from typing import Any, Final

from antiphon.api.common.body import drop_nulls
from antiphon.api.http.loose_chat_requests import (
    as_text,
    decoded_object,
    normalize_format,
    normalize_metadata,
)

#: Lists, each with the type of its elements: one may stand alone.
_LISTS: Final = {"tools": dict, "include": str, "context_management": dict}
_TEXTS: Final = ("user", "prompt_cache_key", "safety_identifier")
_LIMITS: Final = ("max_output_tokens", "max_completion_tokens", "max_tokens")
#: What separates instructions that came as several.
_GAP: Final = "\n\n"


def normalize_response_request(fields: dict[str, Any]) -> dict[str, Any]:
    """A body of other shapes in this API's: one value for a list, empty words for none."""
    clean = dict(fields)
    for name in ("input", *_LISTS):
        if isinstance(clean.get(name), list):
            clean[name] = [one for one in clean[name] if one is not None]
    for name, element in _LISTS.items():
        value = clean.get(name)
        if value in ("", {}) or isinstance(value, element):
            clean[name] = [value] if value else None
    for name in _LIMITS:
        if clean.get(name) in (-1, "-1", ""):
            clean[name] = None
    for name in _TEXTS:
        clean[name] = as_text(clean.get(name))
    text = clean.get("text")
    if isinstance(text, dict):
        clean["text"] = {**text, "verbosity": text.get("verbosity") or None}
        clean["text"]["format"] = normalize_response_format(text.get("format"))
    if isinstance(clean.get("reasoning"), str):
        clean["reasoning"] = {"effort": clean["reasoning"]}
    if isinstance(clean.get("instructions"), list):
        clean["instructions"] = _GAP.join(filter(None, map(_words_of, clean["instructions"])))
    clean["metadata"] = normalize_metadata(clean.get("metadata") or None)
    return {**clean, "truncation": clean.get("truncation") or None}


def normalize_response_format(given: Any) -> Any:
    """The format of an answer; chat completions nest its schema."""
    normalized = normalize_format(given)
    nested = normalized.get("json_schema") if isinstance(normalized, dict) else None
    if isinstance(given, dict) and isinstance(given.get("schema"), str):
        given = {**given, "schema": decoded_object(given["schema"])}
    if isinstance(nested, dict):
        return {**drop_nulls(nested), "type": "json_schema"}
    return (given if nested is None and _is_schema(normalized) else normalized) or None


def _is_schema(answer_format: Any) -> bool:
    return isinstance(answer_format, dict) and answer_format.get("type") == "json_schema"


def _words_of(instruction: Any) -> str:
    """The text of an instruction: a text, a part, or a message with one of them."""
    match instruction:
        case str():
            return instruction
        case {"text": str(text)}:
            return text
        case {"content": list() as parts}:
            return "".join(map(_words_of, parts))
        case {"content": content}:
            return _words_of(content)
    return ""
