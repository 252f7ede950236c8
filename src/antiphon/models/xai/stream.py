"""An answer of xAI's SDK as deltas, whole or in chunks. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from antiphon.core.deltas import (
    AnnotationDelta,
    Delta,
    EncryptedReasoning,
    Finish,
    FinishReason,
    OutputTextDelta,
    ReasoningSummaryDelta,
    ToolCallDelta,
    UsageUpdate,
)
from antiphon.core.turns import Usage
from antiphon.models.openai.logprobs_citations import normalize_citation, normalize_logprobs
from antiphon.protos.xai import Proto, chat_pb2, sample_pb2

_FINISH_REASONS: dict[int, FinishReason] = {
    sample_pb2.REASON_STOP: "stop",
    sample_pb2.REASON_MAX_LEN: "length",
    sample_pb2.REASON_MAX_CONTEXT: "length",
    sample_pb2.REASON_TIME_LIMIT: "length",
    sample_pb2.REASON_TOOL_CALLS: "tool_calls",
}
#: Others are run upstream, and are no business of ours.
_CLIENT_TOOL_TYPES = {chat_pb2.TOOL_CALL_TYPE_INVALID, chat_pb2.TOOL_CALL_TYPE_CLIENT_SIDE_TOOL}


class XaiParser:
    """Reads one answer: ``feed`` it each chunk, or the whole completion, then ``end``.

    ``origin`` is the model, as reasoning items name it. ``has_finish_reason``: the model said why
    it stopped; an answer that ends without that was cut.
    """

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._encrypted_reasoning: list[str] = []
        self._calls: dict[str, int] = {}
        self._finish_reason = 0
        self._usage: Proto | None = None
        self._annotations: list[dict[str, Any]] = []
        self._citation_urls: list[str] = []
        #: Odds of tokens that belong to the next words: half a character has odds, too.
        self._logprobs: tuple[dict[str, Any], ...] = ()

    @property
    def has_finish_reason(self) -> bool:
        return self._finish_reason in _FINISH_REASONS

    def feed(self, answer: Proto) -> list[Delta]:
        """The deltas of a ``GetChatCompletionChunk`` or a ``GetChatCompletionResponse``."""
        out: list[Delta] = []
        for output in answer.outputs:
            said = output.delta if hasattr(output, "delta") else output.message
            # What is of a tool that ran upstream are no words of the model.
            if said.role != chat_pb2.ROLE_TOOL:
                if output.logprobs.content:
                    self._logprobs += _to_logprobs(output.logprobs)
                self._add_message(said, out)
            self._finish_reason = output.finish_reason or self._finish_reason
        if answer.HasField("usage"):
            self._usage = answer.usage
        self._citation_urls += answer.citations
        return out

    def finish(self) -> list[Delta]:
        """What closes an answer that is ``has_finish_reason``."""
        out: list[Delta] = []
        if not self._annotations:
            # Without places, where the model named its sources only as a list.
            self._add_annotations(({"url": url} for url in self._citation_urls), out)
        self._flush_reasoning(out)
        if self._usage is not None:
            out.append(UsageUpdate(_to_usage(self._usage)))
        reason = _FINISH_REASONS[self._finish_reason]
        out.append(Finish("tool_calls" if reason == "stop" and self._calls else reason))
        return out

    def _add_message(self, said: Proto, out: list[Delta]) -> None:
        if said.reasoning_content:
            out.append(ReasoningSummaryDelta(said.reasoning_content))
        if said.encrypted_content:
            # It may come in pieces.
            self._encrypted_reasoning.append(said.encrypted_content)
        if said.content or said.tool_calls:
            self._flush_reasoning(out)
        if said.content:
            out.append(OutputTextDelta(said.content, self._logprobs))
            self._logprobs = ()
        self._add_annotations((_citation_fields(one) for one in said.citations), out)
        out += (
            self._tool_call_delta(call)
            for call in said.tool_calls
            if call.type in _CLIENT_TOOL_TYPES
        )

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
        """A call, or more of one: a later piece has the first one's id."""
        key = call.id or f"#{len(self._calls)}"
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
        # xAI counts reasoning beside the completion, we within it.
        completion += reasoning
    return Usage(prompt, completion, usage.cached_prompt_text_tokens, reasoning)
