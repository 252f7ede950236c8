"""Response body: encodes a response as the Responses API returns it. Pure.

Every field is always present, and numbers are never null: clients validate that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from antiphon.api.common.tool_requests import choice_body, tool_bodies
from antiphon.api.http.item_bodies import output_items
from antiphon.api.http.response_request import format_body
from antiphon.core.turns import Options, Response, Usage

_encode = msgspec.json.Encoder().encode


def encode_response(
    response: Response, *, queued: bool = False, include: Sequence[str] = ()
) -> bytes:
    """A response as JSON: see ``response_body``."""
    return _encode(response_body(response, queued=queued, include=include))


def response_body(
    response: Response, *, queued: bool = False, include: Sequence[str] = ()
) -> dict[str, Any]:
    """A response as it is shown, every key present.

    ``queued``: it runs in the background, and nobody has seen it begin. ``include`` is what
    is asked for besides what its maker asked for.
    """
    header, end, options = response.header, response.end, response.header.options
    ended = end.ended_at if end else None
    return {
        "id": response.id,
        "object": "response",
        "created_at": int(response.created_at),
        "completed_at": int(ended) if ended and response.status == "completed" else None,
        "expires_at": None if response.expires_at is None else int(response.expires_at),
        "status": "queued" if queued and end is None else response.status,
        "incomplete_details": {"reason": end.reason} if end and end.reason else None,
        "model": header.model,
        "previous_response_id": response.previous_response_id,
        "conversation": None if header.conversation is None else {"id": header.conversation},
        "instructions": header.instructions,
        "output": output_items(response, include) if response.output else [],
        "error": (
            {"code": end.error.code, "message": end.error.message} if end and end.error else None
        ),
        "tools": tool_bodies(options),
        "tool_choice": choice_body(options),
        "truncation": options.truncation,
        "parallel_tool_calls": options.parallel_tool_calls,
        "text": _text_body(options),
        "top_p": 1.0 if options.top_p is None else options.top_p,
        "presence_penalty": options.presence_penalty or 0.0,
        "frequency_penalty": options.frequency_penalty or 0.0,
        "top_logprobs": options.top_logprobs or 0,
        "temperature": 1.0 if options.temperature is None else options.temperature,
        "reasoning": _reasoning_body(options),
        "usage": usage_body(end.usage) if end and end.usage else None,
        "max_output_tokens": options.max_output_tokens,
        "max_tool_calls": options.max_tool_calls,
        "store": response.store,
        "background": header.background,
        "service_tier": options.service_tier or "default",
        "metadata": options.metadata,
        "safety_identifier": options.safety_identifier,
        "prompt_cache_key": options.prompt_cache_key,
        "user": options.user,
    }


def _text_body(options: Options) -> dict[str, Any]:
    body: dict[str, Any] = {"format": format_body(options.text_format)}
    if options.verbosity is not None:
        body["verbosity"] = options.verbosity
    return body


def _reasoning_body(options: Options) -> dict[str, Any] | None:
    effort, summary = options.reasoning_effort, options.reasoning_summary
    return {"effort": effort, "summary": summary} if effort or summary else None


def usage_body(usage: Usage) -> dict[str, Any]:
    """Tokens, as they are shown."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            # No model here says what it writes to a cache; the official client wants a number.
            "cache_write_tokens": 0,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
