"""The Responses dialect, the way back: an answer's JSON to deltas. No I/O.

Deltas are read as they come. What a server tells only with the end of an item, or with the
end of the answer, is told then; what it tells twice is told once.
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
from antiphon.models.openai.logprobs_citations import logprobs_of
from antiphon.models.openai.upstream_errors import UNREADABLE, Unreadable, broken_off
from antiphon.models.retry import Failure

#: Between two parts of a summary, which are paragraphs with a heading each.
_PARAGRAPH = "\n\n"


_NOTHING = msgspec.Raw(b"{}")


class _Part(msgspec.Struct, gc=False):
    type: str = ""
    text: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    logprobs: Any = None


class _Kind(msgspec.Struct, gc=False):
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
    #: Text, but of events that are not for us it may be anything.
    delta: Any = None
    logprobs: Any = None
    annotation: Any = None
    item: msgspec.Raw = _NOTHING
    response: msgspec.Raw = _NOTHING
    error: Any = None


class _Told(msgspec.Struct):
    """What has been told of one item."""

    words: bool = False
    phase: bool = False
    thoughts: bool = False
    #: Annotations that came before the end of their item, where most servers repeat them.
    sources: list[Any] = []
    called: bool = False
    arguments: bool = False
    summary_index: int = 0


_event = msgspec.json.Decoder(_Event).decode
_kind = msgspec.json.Decoder(_Kind).decode
_message = msgspec.json.Decoder(_Message).decode
_reasoning = msgspec.json.Decoder(_Reasoning).decode
_call = msgspec.json.Decoder(_Call).decode
_response = msgspec.json.Decoder(_Response).decode

_PHASES: tuple[str, ...] = get_args(Phase)
_INCOMPLETE: dict[str | None, FinishReason] = {"content_filter": "content_filter"}


class AnswerReader:
    """Reads one answer (``exchange.AnswerReader``); ``origin`` is the model that gives it."""

    def __init__(self, origin: str) -> None:
        self.done = False
        self.reason: FinishReason | None = None
        self.trouble: bytes | Failure | None = None
        self._origin = origin
        self._usage: _Usage | None = None
        self._items: dict[int, _Told] = {}
        #: How many items were told to their end.
        self._whole = 0
        self._handlers: dict[str, Callable[[_Event, list[Delta]], None]] = {
            "response.output_text.delta": self._text,
            "response.output_text.annotation.added": self._annotation,
            "response.refusal.delta": self._refusal,
            "response.reasoning_summary_text.delta": self._summary,
            # One event, by OpenAI's name and by the specification's.
            "response.reasoning_text.delta": self._thought,
            "response.reasoning.delta": self._thought,
            "response.function_call_arguments.delta": self._arguments,
            "response.output_item.added": self._item_added,
            "response.output_item.done": self._item_done,
            "response.completed": self._ended,
            "response.incomplete": self._ended,
            "response.failed": self._ended,
            "response.cancelled": self._ended,
        }

    def feed(self, events: Iterable[bytes]) -> list[Delta]:
        """The deltas of a stream's events, which are their data."""
        out: list[Delta] = []
        for event in events:
            if event and not event.isspace() and event != b"[DONE]":
                self._take(event, out)
            if self.done or self.trouble is not None:
                break
        return out

    def whole(self, body: bytes) -> list[Delta]:
        """The deltas of an answer that came in one piece."""
        out: list[Delta] = []
        try:
            response = _response(body)
            if response.output is None and response.error is not None:
                self.trouble = body
            elif response.output is None:
                self.trouble = Unreadable("it holds no answer", body)
            else:
                self._finish(response, out)
        except UNREADABLE as error:
            self.trouble = Unreadable(str(error), body, error)
        return out

    def end(self) -> list[Delta]:
        """What closes the answer: its tokens and its finish, or ``trouble``."""
        if self.trouble is None and self.reason is None:
            self.trouble = broken_off()
        if self.trouble is not None or self.reason is None:
            return []
        usage = [UsageUpdate(_tokens(self._usage))] if self._usage is not None else []
        return [*usage, Finish(self.reason)]

    def _take(self, data: bytes, out: list[Delta]) -> None:
        try:
            event = _event(data)
            handler = self._handlers.get(event.type)
            if handler is not None:
                handler(event, out)
            elif event.type == "error" or (event.error is not None and not event.type):
                self.trouble = data
        except UNREADABLE as error:
            self.trouble = Unreadable(str(error), data, error)

    def _told(self, event: _Event) -> _Told:
        return self._items.setdefault(event.output_index or 0, _Told())

    def _text(self, event: _Event, out: list[Delta]) -> None:
        self._told(event).words = True
        out.append(
            OutputTextDelta(_words(event), logprobs_of(event.logprobs) if event.logprobs else ())
        )

    def _refusal(self, event: _Event, out: list[Delta]) -> None:
        self._told(event).words = True
        out.append(RefusalTextDelta(_words(event)))

    def _annotation(self, event: _Event, out: list[Delta]) -> None:
        self._told(event).sources.append(event.annotation)

    def _summary(self, event: _Event, out: list[Delta]) -> None:
        told, index = self._told(event), event.summary_index or 0
        apart = _PARAGRAPH if index > told.summary_index else ""
        told.summary_index, told.thoughts = index, True
        out.append(ReasoningSummaryDelta(apart + _words(event)))

    def _thought(self, event: _Event, out: list[Delta]) -> None:
        self._told(event).thoughts = True
        out.append(ReasoningTextDelta(_words(event)))

    def _arguments(self, event: _Event, out: list[Delta]) -> None:
        self._told(event).arguments = True
        out.append(ToolCallDelta(event.output_index or 0, arguments=_words(event)))

    def _item_added(self, event: _Event, out: list[Delta]) -> None:
        kind = _kind(event.item)
        if kind.type == "function_call":
            self._begin_call(event.output_index or 0, _call(event.item), out)
        _phase(kind, self._told(event), out)

    def _item_done(self, event: _Event, out: list[Delta]) -> None:
        self._item(event.output_index or 0, event.item, out)

    def _ended(self, event: _Event, out: list[Delta]) -> None:
        response = _response(event.response)
        if response.status is None:
            response.status = event.type.removeprefix("response.")
        self._finish(response, out)

    def _finish(self, response: _Response, out: list[Delta]) -> None:
        self._usage = response.usage
        match response.status or "completed":
            case "failed":
                self.trouble = msgspec.json.encode({"error": response.error or "It failed."})
                return
            case "completed" | "incomplete" as status:
                if not self._whole:
                    for index, item in enumerate(response.output or ()):
                        self._item(index, item, out)
            case status:
                error = ModelError(f"The upstream's answer was given up: it is {status!r}.")
                self.trouble = Failure(error)
                return
        self.done = True
        if status == "incomplete":
            details = response.incomplete_details or _Incomplete()
            self.reason = _INCOMPLETE.get(details.reason, "length")
        else:
            called = any(told.called for told in self._items.values())
            self.reason = "tool_calls" if called else "stop"

    def _item(self, index: int, item: msgspec.Raw, out: list[Delta]) -> None:
        """An item that is whole: what was not told of it yet, and its end."""
        self._whole += 1
        told = self._items.setdefault(index, _Told())
        kind = _kind(item)
        _phase(kind, told, out)
        match kind.type:
            case "message":
                _end_message(_message(item), told, out)
            case "reasoning":
                self._end_reasoning(_reasoning(item), told, out)
            case "function_call":
                call = _call(item)
                self._begin_call(index, call, out)
                if call.arguments and not told.arguments:
                    told.arguments = True
                    out.append(ToolCallDelta(index, arguments=call.arguments))

    def _end_reasoning(self, item: _Reasoning, told: _Told, out: list[Delta]) -> None:
        if not told.thoughts:
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

    def _begin_call(self, index: int, call: _Call, out: list[Delta]) -> None:
        told = self._items.setdefault(index, _Told())
        if not told.called:
            told.called = True
            out.append(ToolCallDelta(index, call.call_id or call.id, call.name))


def _end_message(item: _Message, told: _Told, out: list[Delta]) -> None:
    parts = item.content or []
    if not told.words:
        for part in parts:
            if part.text:
                out.append(OutputTextDelta(part.text, logprobs_of(part.logprobs)))
            elif part.refusal:
                out.append(RefusalTextDelta(part.refusal))
    sources = [source for part in parts for source in part.annotations or ()] or told.sources
    out += [AnnotationDelta(source) for source in sources if isinstance(source, dict)]
    if item.status != "incomplete":
        out.append(ItemEnd())


def _phase(item: _Kind, told: _Told, out: list[Delta]) -> None:
    """What a message is to its turn, where that is a word that we know."""
    if item.type == "message" and item.phase in _PHASES and not told.phase:
        told.phase = True
        out.append(PhaseDelta(item.phase))


def _words(event: _Event) -> str:
    if not isinstance(event.delta, str):
        raise msgspec.ValidationError("a delta is no text")
    return event.delta


def _tokens(usage: _Usage) -> Usage:
    cached = usage.input_tokens_details and usage.input_tokens_details.cached_tokens
    reasoning = usage.output_tokens_details and usage.output_tokens_details.reasoning_tokens
    return Usage(usage.input_tokens or 0, usage.output_tokens or 0, cached or 0, reasoning or 0)
