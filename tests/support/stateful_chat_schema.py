"""Input schema of the MCP tool ``stateful_chat``, as its callers know it."""

from __future__ import annotations

from typing import Any

#: What callers of ``stateful_chat`` know it by, wherever they met it first.
STATEFUL_CHAT: dict[str, Any] = {
    "properties": {
        "include_reasoning": {
            "default": False,
            "title": "Include Reasoning",
            "type": "boolean",
        },
        "max_tokens": {
            "anyOf": [{"type": "integer"}, {"type": "null"}],
            "default": None,
            "title": "Max Tokens",
        },
        "model": {"default": "grok-4", "title": "Model", "type": "string"},
        "prompt": {"title": "Prompt", "type": "string"},
        "response_id": {
            "anyOf": [{"type": "string"}, {"type": "null"}],
            "default": None,
            "title": "Response Id",
        },
        "system_prompt": {
            "anyOf": [{"type": "string"}, {"type": "null"}],
            "default": None,
            "title": "System Prompt",
        },
        "temperature": {
            "anyOf": [{"type": "number"}, {"type": "null"}],
            "default": None,
            "title": "Temperature",
        },
    },
    "required": ["prompt"],
    "type": "object",
}
