"""Responses parser: an answer's JSON or event stream to deltas. No I/O.

Reads what OpenAI and xAI send, and the servers that imitate them: deltas or only whole items, a
stream whose last event alone has the answer, items of a response that nobody stores. An item's
text is emitted as it comes. Its annotations and encrypted reasoning come with its end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from typing import Any, Literal, TypeAlias

import msgspec

from antiphon.core.custom_tool_input import INPUT_START, custom_arguments, escape_input
from antiphon.core.deltas import (
    Delta,
    Finish,
    FinishReason,
    OutputTextDelta,
    ReasoningSummaryDelta,
    ReasoningTextDelta,
    RefusalTextDelta,
    UsageUpdate,
)
from antiphon.core.turns import Usage
from antiphon.errors import ModelError
from antiphon.models.openai.answer_framing import DONE
from antiphon.models.openai.finish_reasons import finish_meaning
from antiphon.models.openai.foreign_answers import (
    is_notice,
    is_unknown_failure,
    missing_answer_reason,
)
from antiphon.models.openai.lenient_json import (
    count_of_value,
    decode_lenient,
    name_of_value,
    split_objects,
    text_of_value,
    wrapped_object,
)
from antiphon.models.openai.responses_item_bodies import hides_words, item_bodies, output_of
from antiphon.models.openai.responses_item_matching import (
    FUNCTION_CALL,
    MESSAGE,
    Json,
    TextKind,
)
from antiphon.models.openai.responses_items import ITEM_TYPES, ItemAssembler
from antiphon.models.openai.sse import DECODE_ERRORS
from antiphon.models.openai.tool_call_fragments import arguments_text
from antiphon.models.openai.upstream_errors import Unreadable, cut_call, incomplete_stream
from antiphon.models.retry import AttemptError

_Status: TypeAlias = Literal["completed", "incomplete", "failed"]


class _Event(msgspec.Struct, gc=False):
    """An event of a stream, as far as deltas have it. The others are decoded when they come."""

    type: str = ""
    item_id: str | None = None
    output_index: int | None = None
    content_index: int | None = None
    summary_index: int | None = None
    delta: Any = None
    logprobs: Any = None


_decode_event = msgspec.json.Decoder(_Event).decode

#: The events of each kind of text, without their last word: by OpenAI's names, the
#: specification's, and older ones.
_TEXT_EVENTS: dict[str, TextKind] = {
    "response.output_text": OutputTextDelta,
    "response.refusal": RefusalTextDelta,
    "response.reasoning_summary_text": ReasoningSummaryDelta,
    "response.reasoning_summary": ReasoningSummaryDelta,
    "response.reasoning_text": ReasoningTextDelta,
    "response.reasoning": ReasoningTextDelta,
    "response.reasoning_content": ReasoningTextDelta,
    "response.thinking": ReasoningTextDelta,
}
_DELTA_EVENTS = {f"{name}.delta": kind for name, kind in _TEXT_EVENTS.items()}
_DONE_EVENTS = {f"{name}.done": kind for name, kind in _TEXT_EVENTS.items()}
_ARGUMENTS_DELTA = "response.function_call_arguments.delta"
#: A custom tool's call is read as that of a function: its text within JSON, piece by piece.
_INPUT_DELTA = "response.custom_tool_call_input.delta"

_END_EVENTS: dict[str, _Status] = {
    "response.completed": "completed",
    "response.done": "completed",
    "response.incomplete": "incomplete",
    "response.failed": "failed",
    "response.cancelled": "failed",
}
_STATUSES: dict[str, _Status] = {
    **dict.fromkeys(("incomplete", "length", "max_tokens", "max_output_tokens"), "incomplete"),
    **dict.fromkeys(("failed", "failure", "error", "abort", "aborted", "expired"), "failed"),
    **dict.fromkeys(("cancelled", "canceled", "interrupted", "rejected"), "failed"),
}
#: What other statuses mean, as reasons to stop.
_STATUS_BY_MEANING: dict[str, _Status] = {
    "length": "incomplete",
    "content_filter": "incomplete",
    "error": "failed",
}
#: What is still being worked on is no answer yet, unless its stream says that it is over.
_UNFINISHED_STATUSES = ("in_progress", "queued", "pending", "processing", "running")
_FAILURE_FIELDS = (
    *("error", "errors", "last_error", "status_details", "incomplete_details"),
    *("message", "detail", "msg"),
)
_ERROR_TYPE = re.compile("error|exception|fail", re.IGNORECASE)
#: Where servers that send no answer say why.
_ERROR_FIELDS = ("error", "message", "detail", "msg", "base_resp", "errors")


class ResponsesParser:
    """Parses one answer; see ``ResponseParser``.

    ``origin`` is the model, for its reasoning; ``tool_names`` are those of its functions.
    """

    def __init__(self, origin: str, tool_names: Collection[str] = ()) -> None:
        self.done = False
        self.finish_reason: FinishReason | None = None
        self.error: bytes | AttemptError | None = None
        self._usage: Usage | None = None
        self._items = ItemAssembler(origin, tool_names)
        #: The last event that is no part of an answer.
        self._unknown_event = b""
        self._handlers: dict[str, Callable[[_Event, Json, list[Delta]], None]] = {
            **dict.fromkeys(_DONE_EVENTS, self._on_text_done),
            **dict.fromkeys(_END_EVENTS, self._on_end),
            "response.output_text.annotation.added": self._on_annotation,
            "response.content_part.added": self._on_part_added,
            "response.content_part.done": self._on_part_done,
            "response.reasoning_summary_part.done": self._on_part_done,
            "response.function_call_arguments.done": self._on_arguments_done,
            "response.custom_tool_call_input.done": self._on_input_done,
            "response.output_item.added": self._on_item_added,
            "response.output_item.done": self._on_item_done,
        }

    def feed(self, events: Iterable[bytes]) -> list[Delta]:
        """The deltas of a stream's events, which are their data."""
        out: list[Delta] = []
        for event in events:
            if event != DONE:
                self._handle_event(event, out)
            elif self._items.are_all_done:
                self._end([], "completed", {}, out)
            if self.done or self.error is not None:
                break
        return out

    def parse_body(self, body: bytes) -> list[Delta]:
        """The deltas of an answer that is not streamed."""
        out: list[Delta] = []
        try:
            response = decode_lenient(body)
        except DECODE_ERRORS as error:
            self.error = Unreadable(str(error), body, error)
            return out
        if not isinstance(response, dict):
            self.error = Unreadable("it holds no answer", body)
            return out
        response = wrapped_object(response, "output") or response
        output = output_of(response)
        is_empty = not output and not response.get("status")
        if is_empty and any(response.get(field) for field in _ERROR_FIELDS):
            self.error = body
        elif output is None:
            self.error = _no_answer(body)
        elif name_of_value(response.get("status")).lower() in _UNFINISHED_STATUSES:
            self.error = _given_up(response["status"])
        else:
            self._end(output, _status_of(response, "completed"), response, out)
        return out

    def finish(self) -> list[Delta]:
        """The final deltas (usage, finish), or none and ``error``."""
        if self.error is None and self.finish_reason is None:
            event = self._unknown_event
            is_explained = is_unknown_failure(event) or (event and not self._items.has_words)
            self.error = _no_answer(event) if is_explained else incomplete_stream()
        if self.error is not None or self.finish_reason is None:
            return []
        usage = [UsageUpdate(self._usage)] if self._usage is not None else []
        return [*usage, Finish(self.finish_reason)]

    def _handle_event(self, data: bytes, out: list[Delta]) -> None:
        try:
            event = _decode_event(data)
        except DECODE_ERRORS:
            try:
                event = _lenient_event(decode_lenient(data))
            except DECODE_ERRORS as error:
                if pieces := split_objects(data):
                    out += self.feed(pieces)
                else:
                    self.error = Unreadable(str(error), data, error)
                return
        kind = _DELTA_EVENTS.get(event.type)
        if kind is not None:
            if event.delta is None:
                # Some servers send the words under another name.
                event.delta = decode_lenient(data).get("text")
            self._on_text_delta(event, kind, out)
        elif event.type == _ARGUMENTS_DELTA:
            item = self._items.find(FUNCTION_CALL, event.item_id or "", event.output_index)
            self._items.add_arguments(item, arguments_text(event.delta), out)
        elif event.type == _INPUT_DELTA:
            self._on_input_delta(event, out)
        elif event.type in self._handlers or not event.type.startswith("response."):
            self._handle_other_event(event, data, out)
        elif event.type == "response.error":
            self.error = data

    def _handle_other_event(self, event: _Event, data: bytes, out: list[Delta]) -> None:
        """An event that is rare, so that it is decoded twice."""
        try:
            fields = decode_lenient(data)
        except DECODE_ERRORS as error:
            self.error = Unreadable(str(error), data, error)
            return
        handler = self._handlers.get(event.type)
        if handler is not None:
            handler(event, fields, out)
        elif fields.get("error") or _ERROR_TYPE.search(event.type):
            self.error = data
        elif not event.type and (named := _event_in_field(fields)):
            self._handle_event(named, out)
        elif event.type:
            return
        elif (output := output_of(fields)) is not None:
            # A whole response, where events should be.
            self._end(output, _status_of(fields, "completed"), fields, out)
        elif any(fields.get(field) for field in _ERROR_FIELDS):
            self.error = data
        elif not is_notice(data):
            self._unknown_event = data

    def _on_text_delta(self, event: _Event, kind: TextKind, out: list[Delta]) -> None:
        text = event.delta if isinstance(event.delta, str) else text_of_value(event.delta)
        part = event.summary_index if kind is ReasoningSummaryDelta else event.content_index
        self._items.add_text(
            kind,
            text,
            out,
            item_id=event.item_id,
            index=event.output_index,
            part=part,
            logprobs=event.logprobs,
        )

    def _on_text_done(self, event: _Event, fields: Json, out: list[Delta]) -> None:
        kind = _DONE_EVENTS[event.type]
        given = fields.get("refusal") if kind is RefusalTextDelta else None
        self._finish_text(event, kind, given or fields.get("text"), out)

    def _on_part_added(self, event: _Event, fields: Json, out: list[Delta]) -> None:
        """A part begins; a server that sends no deltas has all of its text here."""
        part = fields.get("part")
        text = part.get("text") if isinstance(part, dict) else None
        if text and isinstance(text, str):
            item = self._items.find(MESSAGE, event.item_id or "", event.output_index)
            item.finals.setdefault((OutputTextDelta, event.content_index or 0), text)

    def _on_part_done(self, event: _Event, fields: Json, out: list[Delta]) -> None:
        part = fields.get("part")
        if not isinstance(part, dict):
            return
        kind: TextKind
        match part.get("type"):
            case "refusal":
                kind = RefusalTextDelta
            case "summary_text":
                kind = ReasoningSummaryDelta
            case "reasoning_text":
                kind = ReasoningTextDelta
            case _:
                kind = OutputTextDelta
        self._finish_text(event, kind, part.get("refusal") or part.get("text"), out)

    def _finish_text(self, event: _Event, kind: TextKind, given: Any, out: list[Delta]) -> None:
        text = text_of_value(given)
        if text:
            part = event.summary_index if kind is ReasoningSummaryDelta else event.content_index
            item = self._items.find(ITEM_TYPES[kind], event.item_id or "", event.output_index)
            self._items.finish_text(
                item, kind, part or 0, text, out, is_plain=isinstance(given, str)
            )

    def _on_annotation(self, event: _Event, fields: Json, out: list[Delta]) -> None:
        item = self._items.find(MESSAGE, event.item_id or "", event.output_index)
        self._items.add_annotation(item, fields.get("annotation"))

    def _on_arguments_done(self, event: _Event, fields: Json, out: list[Delta]) -> None:
        item = self._items.find(FUNCTION_CALL, event.item_id or "", event.output_index)
        arguments = fields.get("arguments", fields.get("text"))
        self._items.finish_arguments(item, arguments, fields.get("name"), out)

    def _on_input_delta(self, event: _Event, out: list[Delta]) -> None:
        item = self._items.find(FUNCTION_CALL, event.item_id or "", event.output_index)
        piece = escape_input(text_of_value(event.delta))
        self._items.add_arguments(item, piece if item.words else INPUT_START + piece, out)

    def _on_input_done(self, event: _Event, fields: Json, out: list[Delta]) -> None:
        item = self._items.find(FUNCTION_CALL, event.item_id or "", event.output_index)
        arguments = custom_arguments(text_of_value(fields.get("input")))
        self._items.finish_arguments(item, arguments, None, out)

    def _on_item_added(self, event: _Event, fields: Json, out: list[Delta]) -> None:
        for item in item_bodies(fields.get("item")):
            self._items.add(item, event.output_index, out)

    def _on_item_done(self, event: _Event, fields: Json, out: list[Delta]) -> None:
        for item in item_bodies(fields.get("item")):
            self._items.complete(item, event.output_index, out)

    def _on_end(self, event: _Event, fields: Json, out: list[Delta]) -> None:
        given = fields.get("response")
        response = given if isinstance(given, dict) else fields
        status = _status_of(response, _END_EVENTS[event.type])
        self._end(output_of(response) or [], status, response, out)

    def _end(self, output: list[Json], status: _Status, response: Json, out: list[Delta]) -> None:
        if status == "completed" and (failed := _error_item(output)) is not None:
            self.error = msgspec.json.encode(failed)
            return
        reason = _incomplete_reason(response)
        if status == "incomplete" and finish_meaning(reason) == "error":
            status, response = "failed", {**response, "error": response.get("error") or reason}
        self._items.end(output, out, is_whole=status == "completed", is_failed=status == "failed")
        self._usage = _usage_of(response.get("usage")) or self._usage
        if status == "completed" and hides_words(output) and not self._items.has_words:
            self.error = Unreadable("it holds no answer", msgspec.json.encode(output))
            return
        if self._items.nameless_arguments and status == "completed":
            arguments = self._items.nameless_arguments.encode(errors="replace")
            self.error = Unreadable("a tool call has no name", arguments)
            return
        if self._items.cut_call is not None and status == "completed":
            self.error = cut_call(self._items.cut_call)
            return
        if status == "failed":
            error = next((response[one] for one in _FAILURE_FIELDS if response.get(one)), None)
            given = name_of_value(response.get("status"))
            if not error and _STATUSES.get(given.lower()) == "failed" and given != "failed":
                self.error = _given_up(given)
            else:
                self.error = msgspec.json.encode({"error": error or "It failed."})
            return
        self.done = True
        if status == "incomplete":
            is_filtered = finish_meaning(reason) == "content_filter"
            self.finish_reason = "content_filter" if is_filtered else "length"
        else:
            self.finish_reason = "tool_calls" if self._items.has_calls else "stop"


def _no_answer(event: bytes) -> Unreadable:
    return Unreadable(missing_answer_reason(event, "responses"), event)


def _lenient_event(fields: Any) -> _Event:
    """An event of which some field has another type than it should."""
    if not isinstance(fields, dict):
        return _Event("ignored")
    return _Event(
        name_of_value(fields.get("type")),
        name_of_value(fields.get("item_id")),
        count_of_value(fields.get("output_index")),
        count_of_value(fields.get("content_index")),
        count_of_value(fields.get("summary_index")),
        fields.get("delta"),
        fields.get("logprobs"),
    )


def _status_of(response: Json, default: _Status) -> _Status:
    """How an answer ended. Of two that disagree the worse counts."""
    given = name_of_value(response.get("status")).lower()
    status = _STATUSES.get(given) or _STATUS_BY_MEANING.get(finish_meaning(given), default)
    if default == "failed" or status == "failed" or (response.get("error") and not given):
        return "failed"
    if default == "incomplete" or (not given and _incomplete_reason(response)):
        return "incomplete"
    return status


def _incomplete_reason(response: Json) -> str:
    details = response.get("incomplete_details")
    if isinstance(details, list) and details:
        details = details[0]
    reason = name_of_value(details.get("reason") if isinstance(details, dict) else details)
    status = name_of_value(response.get("status"))
    return reason or (status if finish_meaning(status) == "content_filter" else "")


def _error_item(output: list[Json]) -> Json | None:
    """The first item that is an error; None: there is none."""
    return next((one for one in output if one.get("type") in ("error", "exception")), None)


def _event_in_field(fields: Json) -> bytes | None:
    """An event whose name is in a field, as gateways put both into one object; None: it is none."""
    name, inner = fields.get("event"), fields.get("data")
    if not isinstance(name, str) or not name.startswith("response."):
        return None
    return msgspec.json.encode({**(inner if isinstance(inner, dict) else fields), "type": name})


def _given_up(status: str) -> AttemptError:
    return AttemptError(ModelError(f"The upstream's answer was given up: it is {status!r}."))


def _usage_of(given: Any) -> Usage | None:
    """Token counts, as far as they can be read; None: none can."""
    if not isinstance(given, dict):
        return None
    counts = [
        next((one for one in (count_of_value(given.get(name)) for name in names) if one), None)
        for names in (
            ("input_tokens", "prompt_tokens", "inputTokens", "promptTokens"),
            ("output_tokens", "completion_tokens", "outputTokens", "completionTokens"),
        )
    ]
    if counts == [None, None]:
        return None
    cached = _detail(given, ("input_tokens_details", "prompt_tokens_details"), "cached_tokens")
    names = ("output_tokens_details", "completion_tokens_details")
    return Usage(counts[0] or 0, counts[1] or 0, cached, _detail(given, names, "reasoning_tokens"))


def _detail(usage: Json, names: Iterable[str], field: str) -> int:
    details = (usage.get(name) for name in names)
    found = next((one for one in details if isinstance(one, dict)), {})
    return count_of_value(found.get(field)) or 0
