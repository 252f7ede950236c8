"""Chat completions answers, as chunks and read."""

from __future__ import annotations

import json
from typing import Any

from antiphon.core.deltas import Delta
from antiphon.models.openai.chat_completions_stream import ChatCompletionsParser


def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    """One chunk of a stream."""
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def parse_events(*events: dict[str, Any] | bytes) -> tuple[list[Delta], ChatCompletionsParser]:
    """The deltas of a stream's events, and what has read them."""
    reader = ChatCompletionsParser()
    data = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in events]
    return reader.feed(data) + reader.finish(), reader


def parse_deltas(*events: dict[str, Any] | bytes) -> list[Delta]:
    """The deltas of a stream that goes well."""
    deltas, reader = parse_events(*events)
    assert reader.error is None
    return deltas


def function_fields(name: str | None = None, arguments: Any = "") -> dict[str, Any]:
    """What a call names, or a fragment of it."""
    return {"name": name, "arguments": arguments}
