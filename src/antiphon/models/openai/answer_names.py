"""Answer names: the fields of an answer by other spellings of their names. Pure.

Gateways write them as their language does, ``toolCalls`` or ``ToolCalls``, or in the other number.
Only objects of the answer are looked at, never a content or the arguments of a call.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from antiphon.models.openai.lenient_json import WRAPPING_FIELDS, decode_lenient
from antiphon.models.openai.sse import DECODE_ERRORS

Json = dict[str, Any]

#: The fields of each object, and other words for them.
_BODY: Final = ("choices", "usage")
_CHOICE: Final = ("message", "delta", "index", "finish_reason", "tool_calls", "content", "text")
_MESSAGE: Final = ("role", "content", "refusal", "reasoning_content", "tool_calls", "function_call")
_ENTRY: Final = ("id", "index", "type", "function")
_FUNCTION: Final = ("name", "arguments")
_OTHER_WORDS: Final = {
    "choice": "choices",
    "toolcall": "tool_calls",
    "functioncalls": "tool_calls",
    "outputtext": "content",
    **dict.fromkeys(("thought", "thoughts", "reasoningsummary"), "reasoning_content"),
    "amazon-bedrock-invocationmetrics": "usage",
}
_ODD_NAME: Final = re.compile(
    rb'"(?:choice|tool_call|toolCalls?|function_calls|functionCalls|output_text|outputText'
    rb"|reasoningContent|ReasoningContent|thoughts?|reasoning_summary|reasoningSummary"
    rb'|Choices|Message|Delta|ToolCalls|Content|FinishReason|amazon-bedrock-invocationMetrics)"'
    rb"[ \t]*:"
)


def with_usual_names(data: bytes) -> bytes:
    """An answer's JSON with the names that all others use; what has those stays as it is."""
    if not _ODD_NAME.search(data):
        return data
    try:
        value = decode_lenient(data)
        return msgspec.json.encode(_answer(value)) if isinstance(value, dict) else data
    except (*DECODE_ERRORS, OverflowError):
        return data


def has_odd_names(data: bytes) -> bool:
    """Whether JSON may have fields under other names."""
    return _ODD_NAME.search(data) is not None


def _answer(body: Json) -> Json:
    body = _renamed(body, _BODY)
    choices = body.get("choices")
    if choices is None:
        inner = {name: body[name] for name in WRAPPING_FIELDS if isinstance(body.get(name), dict)}
        return {**body, **{name: _answer(value) for name, value in inner.items()}}
    if isinstance(choices, dict):
        return {**body, "choices": [_choice(choices)]}
    if isinstance(choices, list):
        return {**body, "choices": [_choice(one) for one in choices]}
    return body


def _choice(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    choice = _with_calls(_renamed(value, _CHOICE))
    for name in ("message", "delta"):
        if isinstance(message := choice.get(name), dict):
            choice[name] = _with_calls(_renamed(message, _MESSAGE))
    return choice


def _with_calls(holder: Json) -> Json:
    calls = holder.get("tool_calls")
    if isinstance(calls, dict):
        calls = [calls]
    if isinstance(calls, list):
        return {**holder, "tool_calls": [_entry(one) for one in calls]}
    return holder


def _entry(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    entry = _renamed(value, _ENTRY)
    function = entry.get("function")
    if isinstance(function, dict):
        return {**entry, "function": _renamed(function, _FUNCTION)}
    return entry


def _renamed(fields: Json, names: tuple[str, ...]) -> Json:
    """An object with these of its fields under these names; a field that has its name counts."""
    known = {name.replace("_", ""): name for name in names}
    renamed = dict(fields)
    for name in fields.keys() - {*names}:
        plain = name.replace("_", "").lower()
        usual = known.get(plain) or _OTHER_WORDS.get(plain)
        if usual in names and not renamed.get(usual):
            renamed[usual] = renamed.pop(name)
    return renamed
