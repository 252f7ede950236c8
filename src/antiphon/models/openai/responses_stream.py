"""Responses API parser: an answer's JSON or event stream to deltas. No I/O.

Deltas are emitted as they arrive. Content that a server sends only with the end of an item or
of the answer is emitted then; content that it sends twice is emitted once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, get_args

import msgspec

from antiphon.core.deltas import (
    AnnotationDelta,
    Delta,
    EncryptedReasoning,
    Finish,
    FinishReason,
    ItemEnd,
    OutputTextDelta,
    PhaseDelta,
    ReasoningSummaryDelta,
    ReasoningTextDelta,
    RefusalTextDelta,
    ToolCallDelta,
    UsageUpdate,
)
from antiphon.core.items import Phase
from antiphon.core.turns import Usage
from antiphon.errors import ModelError
from antiphon.models.openai.logprobs_citations import normalize_logprobs
from antiphon.models.openai.upstream_errors import DECODE_ERRORS, Unreadable, incomplete_stream
from antiphon.models.retry import AttemptError

#: The separator of a summary's parts, which are paragraphs with a heading each.
_PARAGRAPH = "\n\n"


_EMPTY_OBJECT = msgspec.Raw(b"{}")


class _Part(msgspec.Struct, gc=False):
    type: str = ""
    text: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    logprobs: Any = None


class _ItemHeader(msgspec.Struct, gc=False):
    type: str = ""
    #: A message's.
    phase: Any = None


class _Message(msgspec.Struct, gc=False):
    content: list[_Part] | None = None
    status: str | None = None


class _Reasoning(msgspec.Struct, gc=False):
    summary: list[_Part] | None = None
    content: list[_Part] | None = None
    encrypted_content: str | None = None
    status: str | None = None


class _Call(msgspec.Struct, gc=False):
    call_id: str | None = None
    id: str | None = None
    name: str | None = None
    arguments: str | None = None


class _InputDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class _OutputDetails(msgspec.Struct, gc=False):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class _Incomplete(msgspec.Struct, gc=False):
    reason: str | None = None


class _Response(msgspec.Struct, gc=False):
    status: str | None = None
    output: list[msgspec.Raw] | None = None
    usage: _Usage | None = None
    error: Any = None
    incomplete_details: _Incomplete | None = None


class _Event(msgspec.Struct, gc=False):
    """An event of a stream. What only some of them have is decoded when it is needed."""

    type: str = ""
    output_index: int | None = None
    summary_index: int | None = None
    #: Text, but in events that are ignored it may be anything.
    delta: Any = None
    logprobs: Any = None
    annotation: Any = None
    item: msgspec.Raw = _EMPTY_OBJECT
    response: msgspec.Raw = _EMPTY_OBJECT
    error: Any = None


class _ItemProgress(msgspec.Struct):
    """What has been emitted of one item."""

    has_text: bool = False
    has_phase: bool = False
    has_reasoning: bool = False
    #: Annotations that came before the end of their item, where most servers repeat them.
    annotations: list[Any] = []
    has_call: bool = False
    has_arguments: bool = False
    summary_index: int = 0


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_item_header = msgspec.json.Decoder(_ItemHeader).decode
_decode_message = msgspec.json.Decoder(_Message).decode
_decode_reasoning = msgspec.json.Decoder(_Reasoning).decode
_decode_call = msgspec.json.Decoder(_Call).decode
_decode_response = msgspec.json.Decoder(_Response).decode

_PHASES: tuple[str, ...] = get_args(Phase)
_INCOMPLETE_REASONS: dict[str | None, FinishReason] = {"content_filter": "content_filter"}


class ResponsesParser:
    """Parses one answer (see ``ResponseParser``); ``origin`` is the model, for reasoning."""

    def __init__(self, origin: str) -> None:
        self.done = False
        self.finish_reason: FinishReason | None = None
        self.error: bytes | AttemptError | None = None
        self._origin = origin
        self._usage: _Usage | None = None
        self._items: dict[int, _ItemProgress] = {}
        #: How many items are complete.
        self._completed_items = 0
        self._handlers: dict[str, Callable[[_Event, list[Delta]], None]] = {
            "response.output_text.delta": self._on_text,
            "response.output_text.annotation.added": self._on_annotation,
            "response.refusal.delta": self._on_refusal,
            "response.reasoning_summary_text.delta": self._on_summary,
            # One event, by OpenAI's name and by the specification's.
            "response.reasoning_text.delta": self._on_reasoning,
            "response.reasoning.delta": self._on_reasoning,
            "response.function_call_arguments.delta": self._on_arguments,
            "response.output_item.added": self._on_item_added,
            "response.output_item.done": self._on_item_done,
            "response.completed": self._on_end,
            "response.incomplete": self._on_end,
            "response.failed": self._on_end,
            "response.cancelled": self._on_end,
        }

    def feed(self, events: Iterable[bytes]) -> list[Delta]:
        """The deltas of a stream's events, which are their data."""
        out: list[Delta] = []
        for event in events:
            if event and not event.isspace() and event != b"[DONE]":
                self._handle_event(event, out)
            if self.done or self.error is not None:
                break
        return out

    def parse_body(self, body: bytes) -> list[Delta]:
        """The deltas of an answer that is not streamed."""
        out: list[Delta] = []
        try:
            response = _decode_response(body)
            if response.output is None and response.error is not None:
                self.error = body
            elif response.output is None:
                self.error = Unreadable("it holds no answer", body)
            else:
                self._end_response(response, out)
        except DECODE_ERRORS as error:
            self.error = Unreadable(str(error), body, error)
        return out

    def finish(self) -> list[Delta]:
        """The final deltas (usage, finish), or none and ``error``."""
        if self.error is None and self.finish_reason is None:
            self.error = incomplete_stream()
        if self.error is not None or self.finish_reason is None:
            return []
        usage = [UsageUpdate(_to_usage(self._usage))] if self._usage is not None else []
        return [*usage, Finish(self.finish_reason)]

    def _handle_event(self, data: bytes, out: list[Delta]) -> None:
        try:
            event = _decode_event(data)
            handler = self._handlers.get(event.type)
            if handler is not None:
                handler(event, out)
            elif event.type == "error" or (event.error is not None and not event.type):
                self.error = data
        except DECODE_ERRORS as error:
            self.error = Unreadable(str(error), data, error)

    def _item_progress(self, event: _Event) -> _ItemProgress:
        return self._items.setdefault(event.output_index or 0, _ItemProgress())

    def _on_text(self, event: _Event, out: list[Delta]) -> None:
        self._item_progress(event).has_text = True
        out.append(
            OutputTextDelta(
                _delta_text(event), normalize_logprobs(event.logprobs) if event.logprobs else ()
            )
        )

    def _on_refusal(self, event: _Event, out: list[Delta]) -> None:
        self._item_progress(event).has_text = True
        out.append(RefusalTextDelta(_delta_text(event)))

    def _on_annotation(self, event: _Event, out: list[Delta]) -> None:
        self._item_progress(event).annotations.append(event.annotation)

    def _on_summary(self, event: _Event, out: list[Delta]) -> None:
        progress, index = self._item_progress(event), event.summary_index or 0
        separator = _PARAGRAPH if index > progress.summary_index else ""
        progress.summary_index, progress.has_reasoning = index, True
        out.append(ReasoningSummaryDelta(separator + _delta_text(event)))

    def _on_reasoning(self, event: _Event, out: list[Delta]) -> None:
        self._item_progress(event).has_reasoning = True
        out.append(ReasoningTextDelta(_delta_text(event)))

    def _on_arguments(self, event: _Event, out: list[Delta]) -> None:
        self._item_progress(event).has_arguments = True
        out.append(ToolCallDelta(event.output_index or 0, arguments=_delta_text(event)))

    def _on_item_added(self, event: _Event, out: list[Delta]) -> None:
        kind = _decode_item_header(event.item)
        if kind.type == "function_call":
            self._start_call(event.output_index or 0, _decode_call(event.item), out)
        _add_phase(kind, self._item_progress(event), out)

    def _on_item_done(self, event: _Event, out: list[Delta]) -> None:
        self._complete_item(event.output_index or 0, event.item, out)

    def _on_end(self, event: _Event, out: list[Delta]) -> None:
        response = _decode_response(event.response)
        if response.status is None:
            response.status = event.type.removeprefix("response.")
        self._end_response(response, out)

    def _end_response(self, response: _Response, out: list[Delta]) -> None:
        self._usage = response.usage
        match response.status or "completed":
            case "failed":
                self.error = msgspec.json.encode({"error": response.error or "It failed."})
                return
            case "completed" | "incomplete" as status:
                if not self._completed_items:
                    for index, item in enumerate(response.output or ()):
                        self._complete_item(index, item, out)
            case status:
                error = ModelError(f"The upstream's answer was given up: it is {status!r}.")
                self.error = AttemptError(error)
                return
        self.done = True
        if status == "incomplete":
            details = response.incomplete_details or _Incomplete()
            self.finish_reason = _INCOMPLETE_REASONS.get(details.reason, "length")
        else:
            called = any(progress.has_call for progress in self._items.values())
            self.finish_reason = "tool_calls" if called else "stop"

    def _complete_item(self, index: int, item: msgspec.Raw, out: list[Delta]) -> None:
        """Emit the rest of a complete item, and its end."""
        self._completed_items += 1
        progress = self._items.setdefault(index, _ItemProgress())
        kind = _decode_item_header(item)
        _add_phase(kind, progress, out)
        match kind.type:
            case "message":
                _complete_message(_decode_message(item), progress, out)
            case "reasoning":
                self._complete_reasoning(_decode_reasoning(item), progress, out)
            case "function_call":
                call = _decode_call(item)
                self._start_call(index, call, out)
                if call.arguments and not progress.has_arguments:
                    progress.has_arguments = True
                    out.append(ToolCallDelta(index, arguments=call.arguments))

    def _complete_reasoning(
        self, item: _Reasoning, progress: _ItemProgress, out: list[Delta]
    ) -> None:
        if not progress.has_reasoning:
            summary = _PARAGRAPH.join(part.text or "" for part in item.summary or ())
            content = "".join(part.text or "" for part in item.content or ())
            out += [ReasoningSummaryDelta(summary)] if summary else []
            out += [ReasoningTextDelta(content)] if content else []
        if item.status == "incomplete":
            return
        if item.encrypted_content:
            out.append(EncryptedReasoning(item.encrypted_content, self._origin))
        else:
            out.append(ItemEnd())

    def _start_call(self, index: int, call: _Call, out: list[Delta]) -> None:
        progress = self._items.setdefault(index, _ItemProgress())
        if not progress.has_call:
            progress.has_call = True
            out.append(ToolCallDelta(index, call.call_id or call.id, call.name))


def _complete_message(item: _Message, progress: _ItemProgress, out: list[Delta]) -> None:
    parts = item.content or []
    if not progress.has_text:
        for part in parts:
            if part.text:
                out.append(OutputTextDelta(part.text, normalize_logprobs(part.logprobs)))
            elif part.refusal:
                out.append(RefusalTextDelta(part.refusal))
    sources = [
        source for part in parts for source in part.annotations or ()
    ] or progress.annotations
    out += [AnnotationDelta(source) for source in sources if isinstance(source, dict)]
    if item.status != "incomplete":
        out.append(ItemEnd())


def _add_phase(item: _ItemHeader, progress: _ItemProgress, out: list[Delta]) -> None:
    """Emit a message's phase, if it is a known one."""
    if item.type == "message" and item.phase in _PHASES and not progress.has_phase:
        progress.has_phase = True
        out.append(PhaseDelta(item.phase))


def _delta_text(event: _Event) -> str:
    if not isinstance(event.delta, str):
        raise msgspec.ValidationError("a delta is no text")
    return event.delta


def _to_usage(usage: _Usage) -> Usage:
    cached = usage.input_tokens_details and usage.input_tokens_details.cached_tokens
    reasoning = usage.output_tokens_details and usage.output_tokens_details.reasoning_tokens
    return Usage(usage.input_tokens or 0, usage.output_tokens or 0, cached or 0, reasoning or 0)
