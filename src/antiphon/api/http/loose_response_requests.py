"""Loose response requests: rewrites shapes with one meaning into those of the API. Pure.

For bodies of ``/v1/responses`` that are not in the API's own shape, as ``loose_chat_requests`` does
for chat completions.
"""

from __future__ import annotations

from typing import Any, Final

from antiphon.api.common.body import drop_nulls
from antiphon.api.common.foreign_tools import tools_of_object
from antiphon.api.common.item_shapes import flatten_messages
from antiphon.api.http.loose_chat_requests import (
    decoded_object,
    identifier_of,
    normalize_format,
    normalize_metadata,
    words_of,
)

#: Lists, each with the type of its elements: one may stand alone.
_LISTS: Final = {"tools": dict, "include": str, "context_management": dict}
_TEXTS: Final = ("user", "prompt_cache_key", "safety_identifier")
_LIMITS: Final = ("max_output_tokens", "max_completion_tokens", "max_tokens")
#: How the ids of templates begin that a server keeps.
_PROMPT_ID: Final = "pmpt_"
#: What separates instructions that came as several.
_GAP: Final = "\n\n"


def normalize_response_request(fields: dict[str, Any]) -> dict[str, Any]:
    """A body of other shapes in this API's: one value for a list, empty words for none."""
    clean = {**fields, **_normalize_input(fields)}
    if isinstance(clean.get("tools"), dict):
        clean["tools"] = tools_of_object(clean["tools"])
    for name, element in _LISTS.items():
        value = clean.get(name)
        if isinstance(value, list):
            clean[name] = [one for one in value if one is not None]
        elif value in ("", {}) or isinstance(value, element):
            clean[name] = [value] if value else None
    for name in _LIMITS:
        if clean.get(name) in (-1, "-1", ""):
            clean[name] = None
    for name in _TEXTS:
        clean[name] = identifier_of(clean.get(name))
    if isinstance(clean.get("instructions"), dict):
        # One without words stays, to be refused.
        clean["instructions"] = words_of(clean["instructions"]) or clean["instructions"]
    if isinstance(clean.get("instructions"), list):
        clean["instructions"] = _GAP.join(filter(None, map(words_of, clean["instructions"])))
    clean |= _normalize_answer_fields(clean)
    clean["metadata"] = normalize_metadata(clean.get("metadata") or None)
    return {**clean, "truncation": clean.get("truncation") or None}


def _normalize_input(fields: dict[str, Any]) -> dict[str, Any]:
    """The input of a request, by any name."""
    clean: dict[str, Any] = {}
    prompt = fields.get("prompt")
    if isinstance(prompt, str) and not prompt.startswith(_PROMPT_ID) and not fields.get("input"):
        # What completions called the input.
        clean = {"input": prompt, "prompt": None}
    for name in ("input", "messages"):
        if isinstance(fields.get(name), list):
            clean[name] = [one for one in flatten_messages(fields[name]) if one is not None]
    return clean


def _normalize_answer_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """What a request says of its answer's format and of reasoning."""
    clean: dict[str, Any] = {}
    text, reasoning = fields.get("text"), fields.get("reasoning")
    if isinstance(text, str) and isinstance(named := normalize_format(text), dict):
        text = {"format": named}
    if isinstance(text, dict):
        clean["text"] = {**text, "verbosity": text.get("verbosity") or None}
        clean["text"]["format"] = normalize_response_format(text.get("format"))
    if isinstance(reasoning, str):
        clean["reasoning"] = {"effort": reasoning}
    elif isinstance(reasoning, bool):
        clean["reasoning"] = None
    if isinstance(fields.get("response_format"), str):
        clean["response_format"] = normalize_format(fields["response_format"])
    return clean


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
