"""Chat completions parser: an answer's JSON or event stream to deltas. No I/O.

Answers are parsed as the servers in use write them, which is not always as OpenAI does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from antiphon.core.deltas import (
    AnnotationDelta,
    Delta,
    Finish,
    FinishReason,
    OutputTextDelta,
    ReasoningSummaryDelta,
    RefusalTextDelta,
    UsageUpdate,
)
from antiphon.core.provider_fields import MESSAGE_FIELDS, REASONING_TEXT_FIELDS
from antiphon.core.turns import Usage
from antiphon.errors import ModelError
from antiphon.models.openai.answer_fields import AnswerFields, decode_calls
from antiphon.models.openai.logprobs_citations import normalize_citation, normalize_logprobs
from antiphon.models.openai.tool_call_assembly import (
    FunctionFragment,
    ToolCallAssembler,
    ToolCallFragment,
)
from antiphon.models.openai.upstream_errors import DECODE_ERRORS, Unreadable, incomplete_stream
from antiphon.models.retry import AttemptError


class _Part(msgspec.Struct, gc=False):
    text: str | None = None
    thinking: Any = None


class _MessageDelta(msgspec.Struct, gc=False):
    """A chunk's ``delta`` or an answer's ``message``."""

    content: str | list[_Part] | None = None
    refusal: str | None = None
    reasoning_content: Any = None
    reasoning: Any = None
    reasoning_text: Any = None
    thinking: Any = None
    tool_calls: list[ToolCallFragment] | None = None
    function_call: FunctionFragment | None = None
    annotations: Any = None
    reasoning_details: Any = None
    thinking_blocks: Any = None
    reasoning_opaque: Any = None
    extra_content: Any = None
    thought_signature: Any = None
    provider_specific_fields: Any = None


class _Choice(msgspec.Struct, gc=False):
    index: int | None = None
    delta: _MessageDelta | None = None
    message: _MessageDelta | None = None
    logprobs: Any = None
    finish_reason: str | None = None


class _PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class _CompletionDetails(msgspec.Struct, gc=False):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Completion(msgspec.Struct, gc=False):
    """A chunk of a stream, or a whole completion."""

    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Completion).decode

_FINISH_REASONS: dict[str, FinishReason] = {
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


class ChatCompletionsParser:
    """Parses one answer (see ``ResponseParser``); ``origin`` is the model, for its own fields."""

    def __init__(self, origin: str | None = None) -> None:
        #: Whether the stream sent its end marker.
        self.done = False
        #: Why the model stopped, None until the answer has a reason.
        self.finish_reason: str | None = None
        self.error: bytes | AttemptError | None = None
        self._usage: _Usage | None = None
        self._tool_calls = ToolCallAssembler()
        self._fields = AnswerFields(origin)
        #: Logprobs of tokens without text yet: a token may be half a character.
        self._logprobs: tuple[dict[str, Any], ...] = ()
        self._annotations: list[dict[str, Any]] = []

    def feed(self, events: Iterable[bytes]) -> list[Delta]:
        """The deltas of a stream's events, which are their data."""
        out: list[Delta] = []
        for event in events:
            if event == b"[DONE]":
                self.done = True
                break
            if event and not event.isspace():
                self._parse(event, out)
                if self.error is not None:
                    break
        return out

    def parse_body(self, body: bytes) -> list[Delta]:
        """The deltas of an answer that is not streamed."""
        out: list[Delta] = []
        self._parse(body, out)
        self.done = True
        if self.error is None and not out and self.finish_reason is None:
            self.error = Unreadable("it holds no answer", body)
        return out

    def finish(self) -> list[Delta]:
        """The final deltas (usage, finish), or none and ``error``."""
        if self.error is not None:
            return []
        if self.finish_reason is None and not self.done:
            self.error = incomplete_stream()
            return []
        if self.finish_reason == "error":
            self.error = AttemptError(ModelError("The upstream failed while it was answering."))
            return []
        reason = _FINISH_REASONS.get(self.finish_reason or "stop", "stop")
        if reason == "stop" and self._tool_calls.has_calls:
            # Some servers end an answer that calls tools as if it were any other.
            reason = "tool_calls"
        usage = [UsageUpdate(_to_usage(self._usage))] if self._usage is not None else []
        return [*usage, Finish(reason)]

    def _parse(self, data: bytes, out: list[Delta]) -> None:
        try:
            answer = _decode(data)
            if answer.usage is not None:
                self._usage = answer.usage
            for position, choice in enumerate(answer.choices or ()):
                if choice.index:
                    continue
                message = choice.delta or choice.message
                if isinstance(choice.logprobs, dict):
                    self._logprobs += normalize_logprobs(choice.logprobs.get("content"))
                if message is not None:
                    self._add_message(message, out, whole=choice.delta is None)
                    if message.tool_calls:
                        self._add_calls(message.tool_calls, decode_calls(data, position), out)
                if choice.finish_reason:
                    self.finish_reason = choice.finish_reason
        except DECODE_ERRORS as error:
            self.error = Unreadable(str(error), data, error)
            return
        if answer.error is not None:
            self.error = data

    def _add_message(self, message: _MessageDelta, out: list[Delta], *, whole: bool) -> None:
        for name in REASONING_TEXT_FIELDS:
            # Servers in transition send the same text under two of these names.
            reasoning = getattr(message, name)
            if reasoning and isinstance(reasoning, str):
                out.append(self._fields.text_delta(name, reasoning))
                break
        if message.reasoning_details:
            # They are reasoning, and so before what it led to.
            given = {"reasoning_details": message.reasoning_details}
            out.extend(self._fields.field_deltas(given, whole=whole))
        content = message.content
        if isinstance(content, str):
            if content:
                if self._logprobs:
                    out.append(OutputTextDelta(content, self._logprobs))
                    self._logprobs = ()
                else:
                    out.append(OutputTextDelta(content))
        elif content:
            out.extend(_part_deltas(content))
        if message.annotations:
            self._add_annotations(message.annotations, out)
        if fields := _other_fields(message):
            out.extend(self._fields.field_deltas(fields, whole=whole))
        if message.refusal:
            out.append(RefusalTextDelta(message.refusal))
        if message.function_call is not None:
            out.extend(
                self._tool_calls.feed([ToolCallFragment(index=0, function=message.function_call)])
            )

    def _add_calls(
        self, calls: list[ToolCallFragment], given: list[dict[str, Any]], out: list[Delta]
    ) -> None:
        """The deltas of a message's calls, which are ``given`` with all their fields."""
        fields = [self._fields.call_fields(call) for call in given]
        out.extend(self._tool_calls.feed(calls, fields))

    def _add_annotations(self, annotations: Any, out: list[Delta]) -> None:
        for given in annotations if isinstance(annotations, list) else ():
            annotation = normalize_citation(given)
            # Some servers repeat all of them with each chunk.
            if annotation is not None and annotation not in self._annotations:
                self._annotations.append(annotation)
                out.append(AnnotationDelta(annotation))


def _other_fields(message: _MessageDelta) -> dict[str, Any]:
    """What a model may want back of a message, but for its reasoning."""
    if not (
        message.extra_content
        or message.thinking_blocks
        or message.reasoning_opaque
        or message.thought_signature
        or message.provider_specific_fields
    ):
        return {}
    fields = {name: getattr(message, name) for name in MESSAGE_FIELDS}
    return {name: it for name, it in fields.items() if it and name != "reasoning_details"}


def _part_deltas(parts: list[_Part]) -> Iterable[Delta]:
    for part in parts:
        if part.text:
            yield OutputTextDelta(part.text)
        thinking = part.thinking
        if isinstance(thinking, str):
            yield ReasoningSummaryDelta(thinking)
        elif isinstance(thinking, list):
            for inner in thinking:
                if isinstance(inner, dict) and isinstance(inner.get("text"), str):
                    yield ReasoningSummaryDelta(inner["text"])


def _to_usage(usage: _Usage) -> Usage:
    prompt, completion = usage.prompt_tokens or 0, usage.completion_tokens or 0
    cached = usage.prompt_tokens_details and usage.prompt_tokens_details.cached_tokens
    details = usage.completion_tokens_details
    reasoning = (details and details.reasoning_tokens) or 0
    if usage.total_tokens == prompt + completion + reasoning:
        # xAI counts reasoning apart from the completion, OpenAI within it.
        completion += reasoning
    return Usage(prompt, completion, cached or 0, reasoning)
