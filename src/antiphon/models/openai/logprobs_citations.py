"""Logprobs and citations: normalizes both to the Responses API's shape. Pure.

Upstreams leave out fields that they do not know; here every field is filled in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from antiphon.core.turns import INCLUDE_LOGPROBS, Options

#: What OpenAI sends for a token that is as good as impossible.
_LOWEST_LOGPROB = -9999.0


def wants_logprobs(options: Options) -> bool:
    """Whether the request asks for logprobs, by ``include`` or by ``top_logprobs``."""
    return INCLUDE_LOGPROBS in options.include or bool(options.top_logprobs)


def normalize_logprobs(given: Any) -> tuple[dict[str, Any], ...]:
    """Tokens with their logprobs, from either dialect."""
    return tuple(
        {
            **_normalize_logprob(entry),
            "top_logprobs": [
                _normalize_logprob(one) for one in _iter_dicts(entry.get("top_logprobs"))
            ],
        }
        for entry in _iter_dicts(given)
    )


def _normalize_logprob(entry: dict[str, Any]) -> dict[str, Any]:
    token, data = entry.get("token"), entry.get("bytes")
    token = token if isinstance(token, str) else ""
    return {
        "token": token,
        "logprob": _finite(entry.get("logprob")),
        "bytes": data if _is_bytes(data) else list(token.encode()),
    }


def _finite(logprob: Any) -> int | float:
    if isinstance(logprob, bool) or not isinstance(logprob, int | float) or math.isnan(logprob):
        return 0.0
    # JSON has no infinity.
    return max(logprob, _LOWEST_LOGPROB) if logprob < math.inf else 0.0


def _is_bytes(data: Any) -> bool:
    return isinstance(data, list) and all(type(one) is int and 0 <= one <= 255 for one in data)


def normalize_citation(given: Any) -> dict[str, Any] | None:
    """A chat completions annotation as a ``url_citation``; None: it cites no URL."""
    if not isinstance(given, dict) or given.get("type", "url_citation") != "url_citation":
        return None
    inner = given.get("url_citation")
    fields = inner if isinstance(inner, dict) else given
    url, title = fields.get("url"), fields.get("title")
    if not isinstance(url, str):
        return None
    return {
        "type": "url_citation",
        "start_index": _text_index(fields.get("start_index")),
        "end_index": _text_index(fields.get("end_index")),
        "url": url,
        "title": title if isinstance(title, str) else "",
    }


def _text_index(given: Any) -> int:
    return given if type(given) is int else 0


def _iter_dicts(given: Any) -> Iterable[dict[str, Any]]:
    return (one for one in given if isinstance(one, dict)) if isinstance(given, list) else ()
