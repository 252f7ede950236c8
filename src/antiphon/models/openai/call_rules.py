"""Call rules: rewrite calls and their outputs in messages of chat completions. Pure.

As ``message_rules``, whose other half they are; items of the Responses API stay as they are.
"""

from __future__ import annotations

from typing import Any, Final

from antiphon.core.provider_fields import REASONING_FIELDS
from antiphon.models.openai.message_rules import Json, Messages

#: What Google documents for calls that its model has not made.
_ANY_SIGNATURE: Final = "skip_thought_signature_validator"


def named_tool_outputs(messages: Messages) -> Messages:
    """The name of the function in each message with its output."""
    names: dict[str, Any] = {}
    out: Messages = []
    for one in messages:
        names |= {call["id"]: call["function"]["name"] for call in one.get("tool_calls") or ()}
        name = names.get(one.get("tool_call_id", ""))
        is_nameless = one.get("role") == "tool" and name and not one.get("name")
        out.append({**one, "name": name} if is_nameless else one)
    return out


def signed_calls(messages: Messages) -> Messages:
    """A signature at the first call of each message that has none, as those of other models."""

    def signed(message: Json) -> Json:
        calls = message.get("tool_calls")
        if not calls or any("thought_signature" in str(call) for call in calls):
            return message
        extra = calls[0].get("extra_content") or {}
        google = {**extra.get("google", {}), "thought_signature": _ANY_SIGNATURE}
        first = {**calls[0], "extra_content": {**extra, "google": google}}
        return {**message, "tool_calls": [first, *calls[1:]]}

    return [signed(one) for one in messages]


def calls_without_content(messages: Messages) -> Messages:
    """Calls in a message of their own, behind what was said with them."""
    out: Messages = []
    for one in messages:
        if one.get("tool_calls") and one.get("content"):
            calls_only = {"tool_calls", *REASONING_FIELDS}
            out.append({key: value for key, value in one.items() if key not in calls_only})
            out.append({**one, "content": None})
        else:
            out.append(one)
    return out
