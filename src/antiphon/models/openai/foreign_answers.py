"""Foreign answers: those of other APIs, as chat completions. Pure.

Base URLs are set to servers of other APIs, and gateways pass such answers on: Ollama's own,
Cohere's, Anthropic's, texts by themselves. What has one meaning is read; ``hides_words`` finds
answers of which nothing could be read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from antiphon.core.provider_fields import MESSAGE_FIELDS, REASONING_TEXT_FIELDS
from antiphon.models.openai.lenient_json import WRAPPING_FIELDS, decode_lenient
from antiphon.models.openai.native_answers import native_completion
from antiphon.models.openai.sse import DECODE_ERRORS
from antiphon.models.openai.text_generation_answers import text_generation
from antiphon.models.openai.tool_call_fragments import call_of_part

_MAX_DEPTH: Final = 4
_MODEL_ROLES: Final = ("assistant", "model", "chatbot", "CHATBOT")
_TEXT_FIELDS: Final = ("response", "generated_text", "output_text", "text_output", "completion")
_WHOLE_TEXT_FIELDS: Final = (*_TEXT_FIELDS, "text", "answer", "result")
_OTHER_TEXT_FIELDS: Final = (*_WHOLE_TEXT_FIELDS, "content", "output", "outputs", "generation")
_GENERATION_FIELDS: Final = ("usage", "conversation_id", "tool_calls")
#: What has one of these may be an error in words of its own.
_FAILURE_FIELDS: Final = ("error", "errors", "code", "detail", "message", "msg", "status")
_REASON_FIELDS: Final = (
    *("finish_reason", "finishReason", "done_reason", "stop_reason", "stopReason"),
)
#: Reasons why a server has said nothing at all.
_NO_REASONS: Final = ("load", "unload")
#: Where a message or a delta has what its model says.
_PLACES: Final = frozenset(
    (
        *("content", "refusal", "tool_calls", "function_call", "audio"),
        *MESSAGE_FIELDS,
        *REASONING_TEXT_FIELDS,
    )
)
_CONTENT_FIELDS: Final = ("content", "refusal")
#: Fields that say what something is.
_NAMING_FIELDS: Final = ("type", "id", "role", "name", "object", "status", "index", "format")
_FAILURE_NAME: Final = re.compile(r"err|fail|exception|fault|msg|message|reason", re.IGNORECASE)
_SUCCESS_CODES: Final = ("0", "200")
_CHOICE_PLACES: Final = ("text", "content", "messages")


def to_completion(value: Any, *, is_whole: bool = False) -> dict[str, Any] | None:
    """An object without choices as a completion, or as one chunk of it; None: it is none.

    ``is_whole``: it is all of the answer. In a stream, some texts are all that has come so far.
    """
    return _to_completion(value, is_whole, 0)


def _to_completion(value: Any, is_whole: bool, depth: int) -> dict[str, Any] | None:
    if not isinstance(value, dict) or depth > _MAX_DEPTH:
        return None
    if value.get("choices"):
        return value if depth else None
    native = native_completion(value) or text_generation(value)
    if native is not None:
        return native
    message = _find_message(value, is_whole=is_whole)
    if message is not None:
        choice = {"index": 0, "message": message, "finish_reason": _find_reason(value)}
        return {
            "choices": [choice],
            "usage": _find_usage(value),
            "error": value.get("error"),
            "is_unfinished": value.get("done") is False,
        }
    for name in WRAPPING_FIELDS:
        inner = value.get(name)
        if isinstance(inner, str) and inner.startswith("{"):
            inner = _decode_text(inner)
        if isinstance(inner, list) and inner:
            inner = inner[0]
        if found := _to_completion(inner, is_whole, depth + 1):
            return _with_end_beside(found, value)
    return None


def _with_end_beside(found: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    """An answer with the reason and the usage that stand beside it, where it has none itself."""
    choices = found["choices"]
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        reason = choices[0].get("finish_reason") or _find_reason(value)
        choices = [{**choices[0], "finish_reason": reason}, *choices[1:]]
    return {**found, "choices": choices, "usage": found.get("usage") or _find_usage(value)}


def _find_message(value: dict[str, Any], *, is_whole: bool) -> dict[str, Any] | None:
    message = value.get("message")
    if message is None:
        message = message_of_list(value.get("messages"))
    if message is None and value.get("role") in _MODEL_ROLES and "content" in value:
        message = value
    if message is None:
        names: Sequence[str] = _TEXT_FIELDS
        if is_whole and _is_generated(value):
            names = _WHOLE_TEXT_FIELDS
        texts = [value[name] for name in names if isinstance(value.get(name), str)]
        is_text = len(texts) == 1 and not texts[0].startswith("{")
        calls = value.get("tool_calls")
        return {"content": texts[0], "tool_calls": calls} if is_text else None
    return with_tool_use(message) if isinstance(message, dict) else None


def _is_generated(value: dict[str, Any]) -> bool:
    """Whether a text has what only one of a model has beside it."""
    signs = any(value.get(name) for name in (*_REASON_FIELDS, *_GENERATION_FIELDS))
    return signs and not any(value.get(name) for name in _FAILURE_FIELDS)


def message_of_list(messages: Any) -> dict[str, Any] | None:
    """What a model says in ``messages``, where one of that name stands for ``message``."""
    if isinstance(messages, dict):
        return messages
    if not isinstance(messages, list) or not messages:
        return None
    last = messages[-1]
    is_models = isinstance(last, dict) and last.get("role", "assistant") in _MODEL_ROLES
    return last if is_models else None


def with_tool_use(message: dict[str, Any]) -> dict[str, Any]:
    """A message with the calls among the parts of its content in their own place."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    calls = [call for one in content if (call := call_of_part(one)) is not None]
    if not calls:
        return message
    rest = [one for one in content if call_of_part(one) is None]
    return {**message, "content": rest, "tool_calls": calls}


def _find_reason(value: dict[str, Any]) -> Any:
    reason = next((value[name] for name in _REASON_FIELDS if value.get(name)), None)
    if reason in _NO_REASONS:
        return None
    return "stop" if reason is None and value.get("done") is True else reason


def _find_usage(value: dict[str, Any]) -> Any:
    usage = value.get("usage")
    if isinstance(usage, dict) and isinstance(usage.get("tokens"), dict):
        return usage["tokens"]
    if usage is None and ("eval_count" in value or "prompt_eval_count" in value):
        counts = value.get("prompt_eval_count"), value.get("eval_count")
        return {"prompt_tokens": counts[0], "completion_tokens": counts[1]}
    return usage


def _decode_text(text: str) -> Any:
    try:
        return decode_lenient(text.encode(errors="replace"))
    except DECODE_ERRORS:
        return None


def hides_words(events: Iterable[bytes]) -> bool:
    """Whether what was sent may have words where nobody looks for them.

    For answers in which none were found: not where the known places are empty, as those of a model
    that said nothing.
    """
    has_message = has_content = has_others = False
    for event in events:
        for choice in _choices_of(event):
            given = [choice[name] for name in _CHOICE_PLACES if name in choice]
            for message in flattened([choice.get("delta"), choice.get("message")]):
                if not isinstance(message, dict):
                    given += [] if message is None else [message]
                    continue
                has_message = has_message or not message or "role" in message
                has_content = has_content or not _PLACES.isdisjoint(message)
                given += [message[name] for name in _CONTENT_FIELDS if name in message]
                others = (it for name, it in message.items() if name not in (*_PLACES, "role"))
                has_others = has_others or any(map(_has_words, others))
            if any(map(_has_words, given)):
                return True
            has_content = has_content or bool(given)
    return not has_content and (has_others or not has_message)


def _choices_of(event: bytes) -> list[dict[str, Any]]:
    try:
        value = decode_lenient(event)
    except DECODE_ERRORS:
        return []
    choices = value.get("choices") if isinstance(value, dict) else None
    return [one for one in choices if isinstance(one, dict)] if isinstance(choices, list) else []


def flattened(values: list[Any]) -> Iterable[Any]:
    """The values in lists within lists."""
    for value in values:
        if isinstance(value, list):
            yield from flattened(value)
        else:
            yield value


def _has_words(value: Any) -> bool:
    """Whether there is a text in a value, other than what it says of its own kind."""
    if isinstance(value, dict):
        return any(_has_words(it) for name, it in value.items() if name not in _NAMING_FIELDS)
    if isinstance(value, list):
        return any(map(_has_words, value))
    return isinstance(value, str) and bool(value.strip())


def is_notice(data: bytes) -> bool:
    """Whether an event without an answer says nothing, or by its type that it is a notice."""
    kind = _decode_object(data).get("type")
    return data.strip() == b"{}" or (isinstance(kind, str) and not kind.startswith("response."))


def missing_answer_reason(data: bytes, kind: str = "chat") -> str:
    """Why an answer is none, for an error: by the last event in which no answer was found.

    ``kind`` is the model's in its settings.
    """
    value = _decode_object(data)
    if kind == "responses" and (value.get("choices") or to_completion(value)):
        return 'it is an answer of chat completions, so set kind = "chat" for this model'
    if kind == "chat" and (
        value.get("object") == "response" or str(value.get("type")).startswith("response.")
    ):
        return 'it is an answer of the Responses API, so set kind = "responses" for this model'
    return "it holds no answer"


def holds_text(data: bytes) -> bool:
    """Whether an event without an answer has words where APIs of other shapes have them."""
    value = _decode_object(data)
    return any(_has_words(value.get(name)) for name in _OTHER_TEXT_FIELDS)


def _decode_object(data: bytes) -> dict[str, Any]:
    try:
        value = decode_lenient(data)
    except DECODE_ERRORS:
        return {}
    return value if isinstance(value, dict) else {}


def is_unknown_failure(data: bytes) -> bool:
    """Whether an event without an answer may say, in its own shape, why there is no more of it."""
    value = _decode_object(data)
    codes = [str(it) for name, it in value.items() if name.lower().endswith("code")]
    return _names_failure(value) and not any(one in _SUCCESS_CODES for one in codes)


def _names_failure(value: Any) -> bool:
    """Whether there are words, or a number, under the name of a failure."""
    if isinstance(value, list):
        return any(map(_names_failure, value))
    return isinstance(value, dict) and any(
        _names_failure(it)
        or (_FAILURE_NAME.search(name) is not None and (_has_words(it) or _is_count(it)))
        for name, it in value.items()
    )


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def encode_completion(value: dict[str, Any]) -> bytes:
    """A completion's JSON. Raises what is in ``DECODE_ERRORS``."""
    try:
        return msgspec.json.encode(value)
    except (TypeError, OverflowError) as error:
        raise msgspec.DecodeError(str(error)) from error
