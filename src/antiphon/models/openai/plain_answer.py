"""Plain answer: a whole chat completion that is words and nothing else, decoded at once. Pure.

Nearly all are. Its deltas are those that ``ChatCompletionsParser`` makes of it in many steps; what
may have another meaning there is left to that.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec

from antiphon.core.deltas import Delta, Finish, FinishReason, OutputTextDelta, UsageUpdate
from antiphon.core.turns import Usage
from antiphon.models.openai.chat_completions_answer import PlainMessage
from antiphon.models.openai.finish_reasons import finish_meaning, read_finish_reason
from antiphon.models.openai.sse import DECODE_ERRORS
from antiphon.models.openai.usage_counts import MAX_COUNT, usage_of_counts

_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]
_NoEntries = Annotated[list[Any], msgspec.Meta(max_length=0)]


class WholeMessage(PlainMessage, gc=False):
    """A message with words, and null or nothing for all else that an ``AnswerMessage`` has."""

    annotations: _NoEntries | None = None  # type: ignore[assignment]
    tool_calls: _NoEntries | None = None


class WholeChoice(msgspec.Struct, gc=False):
    """A choice whose fields have the types that ``Choice`` takes any of; it says why it ends."""

    message: WholeMessage
    finish_reason: str
    index: Literal[0] = 0
    delta: None = None
    text: None = None
    tool_calls: None = None
    logprobs: None = None
    usage: None = None
    error: None = None
    reasoning: None = None
    reasoning_content: None = None


class PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: _Count | None = None


class CompletionDetails(msgspec.Struct, gc=False):
    reasoning_tokens: _Count | None = None


class PlainUsage(msgspec.Struct, gc=False):
    """A usage with the names that OpenAI's has, and null for those that others give a count.

    One without both counts under these names is for the general parser.
    """

    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    total_tokens: _Count | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None
    input_tokens: None = None
    promptTokens: None = None
    inputTokens: None = None
    inputTokenCount: None = None
    PromptTokens: None = None
    InputTokens: None = None
    promptTokenCount: None = None
    prompt_token_count: None = None
    output_tokens: None = None
    completionTokens: None = None
    outputTokens: None = None
    outputTokenCount: None = None
    CompletionTokens: None = None
    OutputTokens: None = None
    generated_tokens: None = None
    candidatesTokenCount: None = None
    candidates_token_count: None = None
    totalTokens: None = None
    TotalTokens: None = None
    cached_tokens: None = None
    prompt_cache_hit_tokens: None = None
    input_tokens_details: None = None
    output_tokens_details: None = None


class GroqFields(msgspec.Struct, gc=False):
    usage: None = None


class WholeAnswer(msgspec.Struct, gc=False):
    """A whole completion of that kind."""

    choices: tuple[WholeChoice]
    usage: PlainUsage | None = None
    error: None = None
    base_resp: None = None
    finish_reason: None = None
    x_groq: GroqFields | None = None
    is_unfinished: None = None


_decode: Final = msgspec.json.Decoder(WholeAnswer).decode
_FINISHES: Final[dict[str, FinishReason]] = {
    "stop": "stop",
    # Some servers end an answer as if it called tools.
    "tool_calls": "stop",
    "length": "length",
    "content_filter": "content_filter",
}


def plain_answer_deltas(body: bytes) -> list[Delta] | None:
    """The deltas of a body; None: it may be of another kind."""
    if not body.startswith(b"{"):
        return None
    try:
        if not body.isascii():
            # What is not decoded must be UTF-8, too: else all of it is in another character set.
            body.decode()
        answer = _decode(body)
    except DECODE_ERRORS:
        return None
    (choice,) = answer.choices
    finish = _FINISHES.get(choice.finish_reason)
    if finish is None and (reason := read_finish_reason(choice.finish_reason)):
        finish = _FINISHES.get(finish_meaning(reason))
    if finish is None or not choice.message.content:
        return None
    deltas: list[Delta] = [OutputTextDelta(choice.message.content)]
    if answer.usage is not None:
        usage = _to_usage(answer.usage)
        if usage is None:
            return None
        deltas.append(UsageUpdate(usage))
    deltas.append(Finish(finish))
    return deltas


def _to_usage(given: PlainUsage) -> Usage | None:
    prompt, completion = given.prompt_tokens, given.completion_tokens
    if prompt is None or completion is None:
        return None
    details, made = given.prompt_tokens_details, given.completion_tokens_details
    return usage_of_counts(
        prompt,
        completion,
        given.total_tokens,
        (details and details.cached_tokens) or 0,
        (made and made.reasoning_tokens) or 0,
    )
