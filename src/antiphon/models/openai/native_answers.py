"""Native answers: those of Gemini's and Anthropic's own APIs, whole or streamed. Pure.

Gateways pass them on as they come. Each becomes a completion, each event of a stream a chunk.
"""

from __future__ import annotations

from typing import Any, Final

Json = dict[str, Any]

_ANTHROPIC_EVENTS: Final = (
    *("message_start", "content_block_start", "content_block_delta", "content_block_stop"),
    *("message_delta", "message_stop"),
)


def native_completion(value: Json) -> Json | None:
    """A completion, or a chunk of one; None: the object is none of these APIs'."""
    candidates = value.get("candidates")
    if isinstance(candidates, list) and candidates:
        choices = [_gemini_choice(one) for one in candidates if isinstance(one, dict)]
        return {"choices": choices, "usage": _gemini_usage(value.get("usageMetadata"))}
    kind = value.get("type")
    return _anthropic_chunk(kind, value) if kind in _ANTHROPIC_EVENTS else None


def _anthropic_chunk(kind: str, event: Json) -> Json:
    delta = _object(event.get("delta"))
    match kind:
        case "message_start":
            return _chunk({}, usage=_object(event.get("message")).get("usage"))
        case "content_block_start":
            return _chunk(_block(event, _object(event.get("content_block"))))
        case "content_block_delta":
            return _chunk(_block(event, delta))
        case "message_delta":
            return _chunk({}, delta.get("stop_reason"), usage=event.get("usage"))
    return _chunk({})


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _chunk(delta: Json, reason: Any = None, usage: Any = None) -> Json:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}], "usage": usage}


def _block(event: Json, block: Json) -> Json:
    """What a block of Anthropic's, or a piece of one, is as a delta."""
    match block.get("type"):
        case "text" | "text_delta":
            return {"content": block.get("text")}
        case "thinking" | "thinking_delta":
            return {"thinking": block.get("thinking")}
        case "tool_use":
            function = {"name": block.get("name"), "arguments": ""}
            call = {"index": event.get("index"), "id": block.get("id"), "function": function}
            return {"tool_calls": [call]}
        case "input_json_delta":
            function = {"arguments": block.get("partial_json")}
            return {"tool_calls": [{"index": event.get("index"), "function": function}]}
    return {}


def _gemini_choice(candidate: Json) -> Json:
    parts = _object(candidate.get("content")).get("parts")
    message: Json = {"role": "assistant", "content": [], "tool_calls": [], "thinking": []}
    for part in parts if isinstance(parts, list) else ():
        called = _object(part).get("functionCall")
        if isinstance(called, dict):
            function = {"name": called.get("name"), "arguments": called.get("args") or {}}
            message["tool_calls"].append({"id": called.get("id"), "function": function})
        else:
            is_thought = _object(part).get("thought") is True
            message["thinking" if is_thought else "content"].append(part)
    return {
        "index": candidate.get("index", 0),
        "delta": message,
        "finish_reason": candidate.get("finishReason"),
    }


def _gemini_usage(value: Any) -> Json | None:
    if not isinstance(value, dict):
        return None
    thoughts = value.get("thoughtsTokenCount")
    output = value.get("candidatesTokenCount")
    if isinstance(thoughts, int) and isinstance(output, int):
        output += thoughts
    return {
        "prompt_tokens": value.get("promptTokenCount"),
        "completion_tokens": output,
        "prompt_tokens_details": {"cached_tokens": value.get("cachedContentTokenCount")},
        "completion_tokens_details": {"reasoning_tokens": thoughts},
    }
