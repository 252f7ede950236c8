"""Extra fields: those of a request that antiphon does not know and passes on to the upstream. Pure.

Servers have settings of their own (``top_k``, ``chat_template_kwargs``, ``thinking``), and new
ones every month. They are passed on as they are, next to the fields that antiphon writes and
never in place of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

#: What no extra field can be: each decides what is sent, what is stored, or what kind of answer
#: comes back, and antiphon has promised its client something about that.
RESERVED_FIELDS: Final = frozenset(
    {
        # What is sent, and to which model.
        *("model", "messages", "input", "instructions", "prompt", "tools", "tool_choice"),
        *("functions", "function_call", "parallel_tool_calls", "max_tool_calls"),
        # What is stored, here or there.
        *("store", "previous_response_id", "conversation", "context_management", "truncation"),
        *("metadata", "background", "on_busy", "deferred"),
        # What comes back.
        *("stream", "stream_options", "n", "best_of", "include", "text", "response_format"),
        *("modalities", "audio"),
        # What clients say about themselves and about their connection.
        *("type", "generate", "stream_id", "event_id", "client_metadata"),
    }
)


def select_extra_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are passed on: none is reserved, and none is null, which means absent."""
    return {
        name: value
        for name, value in fields.items()
        if value is not None and name not in RESERVED_FIELDS
    }


def add_extra_fields(
    body: Mapping[str, Any], *extras: Mapping[str, Any], limits: tuple[str, ...] = ()
) -> dict[str, Any]:
    """A request's body with the extra fields that it does not have; later ones go first.

    ``limits`` are names of one and the same limit: the body holds one of them at most.
    """
    merged: dict[str, Any] = {}
    for extra in extras:
        merged |= select_extra_fields(extra)
    if any(name in body for name in limits):
        merged = {name: value for name, value in merged.items() if name not in limits}
    return {**merged, **body}
