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
from antiphon.models.openai.logprobs_citations import citation_of, logprobs_of
from antiphon.protos.xai import Proto, chat_pb2, sample_pb2

_REASONS: dict[int, FinishReason] = {
    sample_pb2.REASON_STOP: "stop",
    sample_pb2.REASON_MAX_LEN: "length",
    sample_pb2.REASON_MAX_CONTEXT: "length",
    sample_pb2.REASON_TIME_LIMIT: "length",
    sample_pb2.REASON_TOOL_CALLS: "tool_calls",
}
#: Others are run upstream, and are no business of ours.
_OURS = {chat_pb2.TOOL_CALL_TYPE_INVALID, chat_pb2.TOOL_CALL_TYPE_CLIENT_SIDE_TOOL}


class AnswerReader:
    """Reads one answer: ``feed`` it each chunk, or the whole completion, then ``end``.

    ``origin`` is the model, as reasoning items name it. ``finished``: the model said why
    it stopped; an answer that ends without that was cut.
    """

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._sealed: list[str] = []
        self._calls: dict[str, int] = {}
        self._reason = 0
        self._usage: Proto | None = None
        self._cited: list[dict[str, Any]] = []
        self._sources: list[str] = []
        #: Odds of tokens that belong to the next words: half a character has odds, too.
        self._logprobs: tuple[dict[str, Any], ...] = ()

    @property
    def finished(self) -> bool:
        return self._reason in _REASONS

    def feed(self, answer: Proto) -> list[Delta]:
        """The deltas of a ``GetChatCompletionChunk`` or a ``GetChatCompletionResponse``."""
        out: list[Delta] = []
        for output in answer.outputs:
            said = output.delta if hasattr(output, "delta") else output.message
            # What is of a tool that ran upstream are no words of the model.
            if said.role != chat_pb2.ROLE_TOOL:
                if output.logprobs.content:
                    self._logprobs += _odds(output.logprobs)
                self._say(said, out)
            self._reason = output.finish_reason or self._reason
        if answer.HasField("usage"):
            self._usage = answer.usage
        self._sources += answer.citations
        return out

    def end(self) -> list[Delta]:
        """What closes an answer that is ``finished``."""
        out: list[Delta] = []
        if not self._cited:
            # Without places, where the model named its sources only as a list.
            self._cite(({"url": url} for url in self._sources), out)
        self._unseal(out)
        if self._usage is not None:
            out.append(UsageUpdate(_tokens(self._usage)))
        reason = _REASONS[self._reason]
        out.append(Finish("tool_calls" if reason == "stop" and self._calls else reason))
        return out

    def _say(self, said: Proto, out: list[Delta]) -> None:
        if said.reasoning_content:
            out.append(ReasoningSummaryDelta(said.reasoning_content))
        if said.encrypted_content:
            # It may come in pieces.
            self._sealed.append(said.encrypted_content)
        if said.content or said.tool_calls:
            self._unseal(out)
        if said.content:
            out.append(OutputTextDelta(said.content, self._logprobs))
            self._logprobs = ()
        self._cite((_source(one) for one in said.citations), out)
        out += (self._piece(call) for call in said.tool_calls if call.type in _OURS)

    def _unseal(self, out: list[Delta]) -> None:
        if self._sealed:
            out.append(EncryptedReasoning("".join(self._sealed), self._origin))
            self._sealed = []

    def _cite(self, sources: Iterable[dict[str, Any]], out: list[Delta]) -> None:
        for source in sources:
            annotation = citation_of(source)
            if annotation is not None and annotation not in self._cited:
                self._cited.append(annotation)
                out.append(AnnotationDelta(annotation))

    def _piece(self, call: Proto) -> ToolCallDelta:
        """A call, or more of one: a later piece has the first one's id."""
        key = call.id or f"#{len(self._calls)}"
        arguments = call.function.arguments
        if key in self._calls:
            return ToolCallDelta(self._calls[key], arguments=arguments)
        self._calls[key] = index = len(self._calls)
        return ToolCallDelta(index, call.id or None, call.function.name, arguments)


def _source(citation: Proto) -> dict[str, Any]:
    kind = citation.WhichOneof("citation")
    return {
        "url": getattr(getattr(citation, kind), "url", None) if kind else None,
        "start_index": citation.start_index,
        "end_index": citation.end_index,
    }


def _odds(logprobs: Proto) -> tuple[dict[str, Any], ...]:
    return logprobs_of(
        [
            {**_odd(one), "top_logprobs": [_odd(other) for other in one.top_logprobs]}
            for one in logprobs.content
        ]
    )


def _odd(one: Proto) -> dict[str, Any]:
    return {"token": one.token, "logprob": one.logprob, "bytes": list(one.bytes)}


def _tokens(usage: Proto) -> Usage:
    prompt, completion, reasoning = (
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.reasoning_tokens,
    )
    if usage.total_tokens == prompt + completion + reasoning:
        # xAI counts reasoning beside the completion, we within it.
        completion += reasoning
    return Usage(prompt, completion, usage.cached_prompt_text_tokens, reasoning)
