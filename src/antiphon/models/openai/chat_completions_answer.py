"""Chat completions answer: its JSON, whole or one chunk of a stream, as structs. Pure.

The shape that nearly all servers send is decoded at once. Where that fails, the answer is
decoded leniently and each field that is needed is taken as it is: no other field can spoil it.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal, TypeVar

import msgspec

from antiphon.core.provider_fields import ProviderMessageFields
from antiphon.models.openai.foreign_answers import (
    encode_completion,
    flattened,
    message_of_list,
    to_completion,
    with_tool_use,
)
from antiphon.models.openai.lenient_json import decode_lenient
from antiphon.models.openai.provider_errors import find_message
from antiphon.models.openai.sse import DECODE_ERRORS

_Struct = TypeVar("_Struct", bound=msgspec.Struct)


class AnswerMessage(ProviderMessageFields, gc=False):
    """A chunk's ``delta`` or an answer's ``message``."""

    content: Any = None
    refusal: Any = None
    tool_calls: Any = None
    function_call: Any = None
    annotations: Any = None
    #: Words that were spoken, an error, and a reason, where they do not belong.
    audio: Any = None
    text: Any = None
    error: Any = None
    finish_reason: Any = None
    stop_reason: Any = None


class Choice(msgspec.Struct, gc=False):
    index: Any = None
    delta: AnswerMessage | None = None
    message: AnswerMessage | None = None
    #: The words, in the oldest shape.
    text: Any = None
    #: As some name the message, or the words in it.
    messages: Any = None
    content: Any = None
    tool_calls: Any = None
    logprobs: Any = None
    finish_reason: Any = None
    #: The reason by its other names.
    stop_reason: Any = None
    finishReason: Any = None
    stopReason: Any = None
    done_reason: Any = None
    finish_details: Any = None
    native_finish_reason: Any = None
    #: Thoughts that stand beside the message.
    reasoning_content: Any = None
    reasoning: Any = None
    usage: Any = None
    error: Any = None


class Completion(msgspec.Struct, gc=False):
    """A chunk of a stream, or a whole completion. ``base_resp`` is a status that some send."""

    choices: list[Choice] | None = None
    usage: Any = None
    error: Any = None
    base_resp: Any = None
    finish_reason: Any = None
    stop_reason: Any = None
    #: Where Groq has the usage of a stream.
    x_groq: Any = None
    #: Another API says that more of it comes.
    is_unfinished: Any = None


class PlainFunction(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    name: str | None = None
    arguments: str | None = None


class PlainCall(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    function: PlainFunction
    index: int
    id: str | None = None
    type: Any = None


class PlainMessage(msgspec.Struct, gc=False):
    """A message with words or calls, and null for all else that an ``AnswerMessage`` has."""

    content: str | None = None
    tool_calls: list[PlainCall] | None = None
    refusal: None = None
    reasoning_content: None = None
    reasoning: None = None
    reasoning_text: None = None
    thinking: None = None
    function_call: None = None
    annotations: None = None
    reasoning_details: None = None
    thinking_blocks: None = None
    reasoning_opaque: None = None
    extra_content: None = None
    thought_signature: None = None
    provider_specific_fields: None = None
    audio: None = None
    text: None = None
    error: None = None
    finish_reason: None = None
    stop_reason: None = None
    #: Calls and thoughts, by the names that ``answer_names`` knows.
    tool_call: None = None
    toolCalls: None = None
    function_calls: None = None
    reasoningContent: None = None
    ReasoningContent: None = None
    thought: None = None
    thoughts: None = None
    reasoning_summary: None = None
    reasoningSummary: None = None


class PlainChoice(msgspec.Struct, gc=False):
    delta: PlainMessage
    index: Literal[0] = 0
    message: None = None
    text: None = None
    tool_calls: None = None
    logprobs: None = None
    finish_reason: str | None = None
    stop_reason: None = None
    finishReason: None = None
    stopReason: None = None
    done_reason: None = None
    finish_details: None = None
    native_finish_reason: None = None
    reasoning_content: None = None
    reasoning: None = None
    usage: None = None
    error: None = None


class PlainChunk(msgspec.Struct, gc=False):
    """A chunk as nearly all are: its fields have the types that ``Completion`` takes any of."""

    choices: tuple[PlainChoice]
    finish_reason: None = None
    stop_reason: None = None
    usage: Any = None
    error: None = None
    base_resp: None = None
    x_groq: None = None


#: Fields of an object that is an error, though it does not say so under ``error``.
_MESSAGE_FIELDS: Final = ("message", "msg")
_ERROR_FIELDS: Final = (
    *("detail", "errors", "error_msg", "error_message", "errorMessage", "errmsg"),
    *("error_description", "Message", "status_msg", "statusMessage"),
)

_ERROR_TYPE: Final = re.compile("error|exception|fail", re.IGNORECASE)
_SUCCESS_CODES: Final = (0, "0", 200, "200")
_NO_ERROR: Final = ("", "null", "none", "false", "ok", "success")

#: An answer, or a chunk of one, in the usual shape. Raises what is in ``DECODE_ERRORS``.
decode_answer = msgspec.json.Decoder(Completion).decode
#: A chunk, if it is one of the most common kind. Raises what is in ``DECODE_ERRORS``.
decode_plain_chunk = msgspec.json.Decoder(PlainChunk).decode


def decode_answer_leniently(data: bytes) -> Completion:
    """An answer in any shape.

    Raises what is in ``DECODE_ERRORS``.
    """
    value = decode_lenient(data)
    if not isinstance(value, dict):
        raise msgspec.DecodeError("it is no JSON object")
    completion = _convert(value, Completion)
    choices: Any = completion.choices
    if isinstance(choices, str) and choices.startswith(("[", "{")):
        choices = decode_lenient(choices.encode(errors="replace"))
    if isinstance(choices, dict):
        # One by itself, or several by their numbers.
        is_choice = any(name in choices for name in Choice.__struct_fields__)
        choices = [choices] if is_choice else list(choices.values())
    completion.choices = [
        _convert_choice(one)
        for one in flattened(choices if isinstance(choices, list) else [])
        if one
    ]
    return completion


def _convert_choice(value: Any) -> Choice:
    choice = _convert(value, Choice)
    choice.delta = _convert_message(choice.delta)
    choice.message = _convert_message(choice.message)
    return choice


def message_beside(choice: Choice) -> AnswerMessage | None:
    """What a choice without a message says under another name."""
    message = message_of_list(choice.messages)
    if message is None and choice.content:
        message = {"content": choice.content}
    return None if message is None else _convert_message(with_tool_use(message))


def _convert_message(value: Any) -> AnswerMessage | None:
    """A message of any type; one that is a text is its content."""
    if isinstance(value, list) and value:
        value = _joined_messages(value)
    if isinstance(value, str) and value:
        return AnswerMessage(content=value)
    return _convert(value, AnswerMessage) if isinstance(value, dict) else None


def _joined_messages(values: list[Any]) -> Any:
    """One message of those in a list."""
    if len(values) == 1:
        return values[0]
    joined: dict[str, Any] = {}
    for value in values:
        fields = {"content": value} if isinstance(value, str) else value
        for name, given in fields.items() if isinstance(fields, dict) else ():
            before = joined.get(name)
            is_more = before and given and name != "role"
            joined[name] = [*_listed(before), *_listed(given)] if is_more else given or before
    return joined


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _convert(value: Any, kind: type[_Struct]) -> _Struct:
    """An object's fields as a struct's, whatever their types."""
    if not isinstance(value, dict):
        return kind()
    return kind(**{name: value[name] for name in kind.__struct_fields__ if name in value})


def find_answer(data: bytes, *, is_whole: bool) -> bytes | None:
    """The answer in an object of another API, or within one of a gateway; None: there is none."""
    value = decode_lenient(data)
    inner = to_completion(value, is_whole=is_whole)
    return None if inner is None else encode_completion(inner)


def find_error(answer: Completion, data: bytes) -> bytes | None:
    """The error in an answer, None: it holds none; ``data`` is the answer's own JSON.

    As JSON of any shape: ``provider_errors`` finds the words in it.
    """
    is_alone = answer.choices is None and answer.usage is None
    if _is_error(answer.error) or (is_alone and isinstance(answer.error, dict)):
        return data
    status = answer.base_resp
    if isinstance(status, dict) and _is_error_code(status.get("status_code")):
        return msgspec.json.encode({"base_resp": status})
    for choice in answer.choices or ():
        if error := choice_error(choice):
            return msgspec.json.encode({"error": error})
    if answer.choices or answer.usage:
        return None
    return data if _is_bare_error(decode_lenient(data)) else None


def choice_error(choice: Choice) -> Any:
    """The error of a choice, or of its message; None: it has none."""
    for one in (choice, choice.delta, choice.message):
        if one is not None and _is_error(one.error):
            return one.error
    return None


def given_reason(choice: Choice) -> Any:
    """Why a choice ends, under the name that says it."""
    message = choice.delta or choice.message
    given = (choice.finish_reason, choice.finishReason, choice.stop_reason, choice.stopReason)
    others = (choice.done_reason, choice.finish_details, choice.native_finish_reason)
    inner = (message.finish_reason, message.stop_reason) if message else ()
    return next((one for one in (*given, *others, *inner) if one is not None), None)


def find_reason_words(data: bytes) -> str:
    """Why an answer failed, in the words beside its finish reason; empty, if there are none."""
    try:
        value = decode_lenient(data)
    except DECODE_ERRORS:
        return ""
    outer = {name: it for name, it in value.items() if name != "choices"}
    choices = [one for one in flattened([value.get("choices")]) if isinstance(one, dict)]
    inner = [
        {name: it for name, it in one.items() if name not in ("message", "delta", "text")}
        for one in choices
    ]
    return next(filter(None, map(find_message, (*inner, outer))), "")


def _is_bare_error(value: dict[str, Any]) -> bool:
    """Whether an object without an answer is an error, as some servers send with status 200.

    One with a message and another type than an error is a notice.
    """
    if any(value.get(name) for name in _ERROR_FIELDS):
        return True
    kind = value.get("type")
    is_notice = isinstance(kind, str) and not _ERROR_TYPE.search(kind)
    return any(value.get(name) for name in _MESSAGE_FIELDS) and (
        not is_notice or _is_error_code(value.get("code"))
    )


def _is_error(error: Any) -> bool:
    """Whether an ``error`` says anything: some servers send an empty one with each answer."""
    if isinstance(error, dict):
        return any(error.values()) and error.get("code") not in _SUCCESS_CODES
    if isinstance(error, str):
        return error.strip().lower() not in _NO_ERROR
    return bool(error)


def _is_error_code(code: Any) -> bool:
    return bool(code) and code is not True and code not in _SUCCESS_CODES
