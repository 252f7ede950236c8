"""xAI answer parsing: the completions of xAI's SDK, whole or in chunks, as deltas. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from antiphon.core.deltas import (
    AnnotationDelta,
    Delta,
    EncryptedReasoning,
    Finish,
    FinishReason,
    ForeignItemDelta,
    OutputTextDelta,
    ReasoningSummaryDelta,
    ToolCallDelta,
    UsageUpdate,
)
from antiphon.core.turns import Usage
from antiphon.models.openai.logprobs_citations import (
    normalize_citation,
    normalize_logprobs,
)
from antiphon.models.xai.hosted_tools import hosted_call_item
from antiphon.protos.xai import (
    Proto,
    chat_pb2,
    sample_pb2,
)

#: The reasons to stop that are not "stop"; so is one that is not known here.
_FINISH_REASONS: dict[int, FinishReason] = {
    sample_pb2.REASON_MAX_LEN: "length",
    sample_pb2.REASON_MAX_CONTEXT: "length",
    sample_pb2.REASON_TIME_LIMIT: "length",
    sample_pb2.REASON_TOOL_CALLS: "tool_calls",
}
#: Tool calls that the client runs; others run upstream.
_CLIENT_TOOL_TYPES = {chat_pb2.TOOL_CALL_TYPE_INVALID, chat_pb2.TOOL_CALL_TYPE_CLIENT_SIDE_TOOL}


class XaiParser:
    """Reads one answer: call ``feed`` with each chunk or the whole completion, then ``finish``.

    ``origin`` is the model, as reasoning items name it. ``has_finish_reason``: the answer is
    complete; one that ends without it was cut off.
    """

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._encrypted_reasoning: list[str] = []
        self._calls: dict[str, int] = {}
        #: The ids of calls that ran upstream.
        self._hosted_calls: set[str] = set()
        self._finish_reason = 0
        self._usage: Proto | None = None
        self._annotations: list[dict[str, Any]] = []
        self._citation_urls: list[str] = []
        #: Logprobs of tokens without text yet: a token may be half a character.
        self._logprobs: tuple[dict[str, Any], ...] = ()

    @property
    def has_finish_reason(self) -> bool:
        return self._finish_reason != 0

    def feed(self, answer: Proto) -> list[Delta]:
        """The deltas of a ``GetChatCompletionChunk`` or a ``GetChatCompletionResponse``."""
        out: list[Delta] = []
        for output in answer.outputs:
            message = output.delta if hasattr(output, "delta") else output.message
            # The output of a tool that ran upstream is not the model's text.
            if message.role != chat_pb2.ROLE_TOOL:
                if output.logprobs.content:
                    self._logprobs += _to_logprobs(output.logprobs)
                self._add_message(message, out)
            self._finish_reason = output.finish_reason or self._finish_reason
        if answer.HasField("usage"):
            self._usage = answer.usage
        self._citation_urls += answer.citations
        return out

    def finish(self) -> list[Delta]:
        """The final deltas; only where ``has_finish_reason``."""
        out: list[Delta] = []
        if not self._annotations:
            # Without positions, where the model only lists its sources.
            self._add_annotations(({"url": url} for url in self._citation_urls), out)
        self._flush_reasoning(out)
        if self._usage is not None:
            out.append(UsageUpdate(_to_usage(self._usage)))
        reason = _FINISH_REASONS.get(self._finish_reason, "stop")
        out.append(Finish("tool_calls" if reason == "stop" and self._calls else reason))
        return out

    def _add_message(self, message: Proto, out: list[Delta]) -> None:
        if message.reasoning_content:
            out.append(ReasoningSummaryDelta(message.reasoning_content))
        if message.encrypted_content:
            # It may arrive in pieces.
            self._encrypted_reasoning.append(message.encrypted_content)
        if message.content or message.tool_calls:
            self._flush_reasoning(out)
        if message.content:
            out.append(OutputTextDelta(message.content, self._logprobs))
            self._logprobs = ()
        self._add_annotations((_citation_fields(one) for one in message.citations), out)
        for call in message.tool_calls:
            if call.type in _CLIENT_TOOL_TYPES:
                out.append(self._tool_call_delta(call))
            elif call.id not in self._hosted_calls and (item := hosted_call_item(call)):
                self._hosted_calls.add(call.id)
                out.append(ForeignItemDelta(item))

    def _flush_reasoning(self, out: list[Delta]) -> None:
        if self._encrypted_reasoning:
            out.append(EncryptedReasoning("".join(self._encrypted_reasoning), self._origin))
            self._encrypted_reasoning = []

    def _add_annotations(self, sources: Iterable[dict[str, Any]], out: list[Delta]) -> None:
        for source in sources:
            annotation = normalize_citation(source)
            if annotation is not None and annotation not in self._annotations:
                self._annotations.append(annotation)
                out.append(AnnotationDelta(annotation))

    def _tool_call_delta(self, call: Proto) -> ToolCallDelta:
        """A call, or more of one: a later piece has the first one's id, or neither id nor name."""
        key = call.id or f"#{len(self._calls)}"
        if self._calls and not call.id and not call.function.name:
            key = next(reversed(self._calls))
        arguments = call.function.arguments
        if key in self._calls:
            return ToolCallDelta(self._calls[key], arguments=arguments)
        self._calls[key] = index = len(self._calls)
        return ToolCallDelta(index, call.id or None, call.function.name, arguments)


def _citation_fields(citation: Proto) -> dict[str, Any]:
    kind = citation.WhichOneof("citation")
    return {
        "url": getattr(getattr(citation, kind), "url", None) if kind else None,
        "start_index": citation.start_index,
        "end_index": citation.end_index,
    }


def _to_logprobs(logprobs: Proto) -> tuple[dict[str, Any], ...]:
    return normalize_logprobs(
        [
            {**_to_logprob(one), "top_logprobs": [_to_logprob(other) for other in one.top_logprobs]}
            for one in logprobs.content
        ]
    )


def _to_logprob(one: Proto) -> dict[str, Any]:
    return {"token": one.token, "logprob": one.logprob, "bytes": list(one.bytes)}


def _to_usage(usage: Proto) -> Usage:
    prompt, completion, reasoning = (
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.reasoning_tokens,
    )
    if usage.total_tokens == prompt + completion + reasoning:
        # xAI counts reasoning apart from the completion, we within it.
        completion += reasoning
    return Usage(prompt, completion, usage.cached_prompt_text_tokens, reasoning)
