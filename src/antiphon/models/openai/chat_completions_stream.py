"""Chat completions parser: an answer's JSON or event stream to deltas. No I/O.

Answers are parsed as the servers in use write them, which is not always as OpenAI does: what
has one meaning is taken, and a field that nobody needs cannot fail an answer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cached_property
from typing import Any, Final

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
from antiphon.core.provider_fields import (
    MESSAGE_FIELDS,
    REASONING_LIST_FIELDS,
    REASONING_TEXT_FIELDS,
    THINKING_PARTS,
)
from antiphon.errors import ModelError
from antiphon.models.openai.answer_fields import AnswerFields
from antiphon.models.openai.chat_completions_answer import (
    AnswerMessage,
    Choice,
    Completion,
    choice_error,
    decode_answer,
    decode_answer_leniently,
    decode_plain_chunk,
    find_answer,
    find_error,
    find_reason_words,
    given_reason,
    message_beside,
)
from antiphon.models.openai.finish_reasons import finish_meaning, read_finish_reason
from antiphon.models.openai.foreign_answers import (
    hides_words,
    holds_text,
    is_notice,
    is_unknown_failure,
    missing_answer_reason,
)
from antiphon.models.openai.lenient_json import (
    count_of_value,
    is_plain_data,
    split_objects,
    text_of_value,
    thoughts_of_value,
)
from antiphon.models.openai.logprobs_citations import normalize_citation, normalize_logprobs
from antiphon.models.openai.plain_answer import (
    plain_answer_deltas,
)
from antiphon.models.openai.sse import DECODE_ERRORS
from antiphon.models.openai.tool_call_assembly import ToolCallAssembler
from antiphon.models.openai.tool_call_fragments import call_of_part, decoded_text, read_fragments
from antiphon.models.openai.upstream_errors import Unreadable, incomplete_stream
from antiphon.models.openai.usage_counts import UsageCounts
from antiphon.models.retry import AttemptError

_GOOD_ENDS: Final = ("stop", "tool_calls")
_DONE_MARKS: Final = (b"[DONE]", b'"[DONE]"')
_REASONING_PARTS: Final = ("thinking", "reasoning", "reasoning_text", "reasoning_content")
_MAX_QUIET_EVENTS: Final = 8
#: How many chunks of other kinds are tried as one of the most common kind.
_MAX_MISSES: Final = 8


class ChatCompletionsParser:
    """Parses one answer; see ``ResponseParser``.

    ``origin`` is the model, for its own fields; ``tool_names`` are those of the functions that
    it may call.
    """

    def __init__(self, origin: str | None = None, tool_names: Collection[str] = ()) -> None:
        #: Whether the stream sent its end marker.
        self.done = False
        #: Why the model stopped, None until the answer has a reason.
        self.finish_reason: str | None = None
        self.error: bytes | AttemptError | None = None
        self._counts = UsageCounts()
        self._origin = origin
        self._tool_names = tool_names
        #: Logprobs of tokens without text yet: a token may be half a character.
        self._logprobs: tuple[dict[str, Any], ...] = ()
        self._annotations: list[dict[str, Any]] = []
        self._texts: list[str] = []
        self._has_refusal = self._has_reasoning = False
        #: Under which of its names reasoning has come last.
        self._reasoning_field: str | None = None
        #: Those that are not the first, while that has said nothing.
        self._other_choices: list[Choice] | None = []
        #: The event with the reason to stop.
        self._reason_event = b""
        #: The last event without a choice.
        self._last_event = b""
        #: The last one that is no part of an answer.
        self._unknown_event = b""
        #: The first events in which nothing was found.
        self._quiet_events: list[bytes] = []
        #: How many chunks were not of the most common kind.
        self._misses = 0

    @cached_property
    def _tool_calls(self) -> ToolCallAssembler:
        return ToolCallAssembler(self._tool_names)

    @cached_property
    def _fields(self) -> AnswerFields:
        return AnswerFields(self._origin)

    def feed(self, events: Iterable[bytes]) -> list[Delta]:
        """The deltas of a stream's events, which are their data."""
        out: list[Delta] = []
        for event in events:
            if not event.startswith(b"{"):
                text = event.strip()
                if text in _DONE_MARKS:
                    self.done = True
                    break
                if not text.startswith(b"{"):
                    # A sign of life, such as "ping" or ": keepalive".
                    continue
            if self._misses < _MAX_MISSES and self._parse_plain_chunk(event, out):
                continue
            self._parse(event, out, is_whole=False)
            if self.error is not None:
                break
        return out

    def _parse_plain_chunk(self, event: bytes, out: list[Delta]) -> bool:
        """Fast path: a chunk of words, or of one call's arguments, and nothing else.

        False: it may be another, and nothing has been taken of it.
        """
        try:
            chunk = decode_plain_chunk(event)
        except DECODE_ERRORS:
            self._misses += 1
            return False
        choice = chunk.choices[0]
        text, calls = choice.delta.content, choice.delta.tool_calls
        if calls:
            if text or len(calls) > 1:
                return False
            delta = self._tool_calls.continue_call(calls[0])
            if delta is None:
                return False
            out.append(delta)
        elif text:
            self._texts.append(text)
            out.append(OutputTextDelta(text, self._logprobs))
            self._logprobs = ()
            self._other_choices = None
        else:
            self._keep_quiet_event(event)
        if chunk.usage is not None:
            self._counts.add(chunk.usage)
        if choice.finish_reason is not None:
            self._add_finish_reason(choice.finish_reason)
        return True

    def parse_body(self, body: bytes) -> list[Delta]:
        """The deltas of an answer that is not streamed."""
        out: list[Delta] = []
        self._parse(body, out, is_whole=True)
        self.done = True
        return out

    def parse_plain_body(self, body: bytes) -> list[Delta] | None:
        """The same and what ``finish`` gives; None: it is no ``plain_answer``."""
        return plain_answer_deltas(body)

    def finish(self) -> list[Delta]:
        """The final deltas (usage, finish), or none and ``error``."""
        out: list[Delta] = []
        has_first = self._texts or self._has_refusal or self._tool_calls.has_calls
        if self.error is None and self._other_choices and not has_first:
            self._parse_lowest_choice(self._other_choices, out)
        reason = self._read_ending() if self.error is None else "stop"
        if self.error is not None:
            return out
        given = self.finish_reason
        out += self._tool_calls.finish(
            is_cut=reason in ("length", "content_filter"),
            is_announced=given is not None and finish_meaning(given) == "tool_calls",
        )
        if (usage := self._counts.usage) is not None:
            out.append(UsageUpdate(usage))
        return [*out, Finish(reason)]

    def _read_ending(self) -> FinishReason:
        """Why the model stopped. Sets ``error`` where that is no good end."""
        given, calls = self.finish_reason, self._tool_calls
        is_explained = given is None and is_unknown_failure(self._unknown_event)
        calls.complete_names()
        has_answer = bool(self._texts) or self._has_refusal or calls.has_calls
        if not (has_answer or self._has_reasoning) and holds_text(self._unknown_event):
            # The end of an answer in a shape that is not known.
            given = None
        meaning = finish_meaning(given) if given else "stop"
        if is_explained or (given is None and not has_answer and self._unknown_event):
            self.error = _no_answer(self._unknown_event)
        elif given is None and (not self.done or calls.has_cut_call):
            self.error = incomplete_stream()
        elif given is None and not (has_answer or self._has_reasoning or calls.nameless_arguments):
            self.error = _no_answer(self._last_event)
        elif meaning == "error":
            self.error = _failure(given or "", find_reason_words(self._reason_event))
        elif meaning == "length":
            return "length"
        elif meaning == "content_filter":
            return "content_filter"
        elif calls.nameless_arguments is not None:
            arguments = calls.nameless_arguments.encode(errors="replace")
            self.error = Unreadable("a tool call has no name", arguments)
        elif meaning == "tool_calls" and not has_answer:
            self.error = Unreadable("it announces tool calls and holds none", self._last_event)
        elif not (has_answer or self._has_reasoning) and hides_words(self._quiet_events):
            self.error = _no_answer((*self._quiet_events, self._last_event)[0])
        # Some servers end an answer that calls tools as if it were any other, and vice versa.
        return "tool_calls" if calls.has_calls else "stop"

    def _keep_quiet_event(self, event: bytes) -> None:
        if not self._texts and len(self._quiet_events) < _MAX_QUIET_EVENTS:
            self._quiet_events.append(event)

    def _keep_other_event(self, answer: Completion, event: bytes) -> None:
        """Remember an event without a choice: it may say why there is no answer."""
        self._last_event = event
        if answer.choices is None and answer.usage is None and not is_notice(event):
            self._unknown_event = event

    def _parse(self, data: bytes, out: list[Delta], *, is_whole: bool) -> None:
        try:
            data, answer = _decode(data, is_whole=is_whole)
            self._counts.add(answer.usage)
            if isinstance(answer.x_groq, dict):
                self._counts.add(answer.x_groq.get("usage"))
            choice = self._parse_choices(answer, data, out, is_whole=is_whole)
            if (
                choice is None
                or choice_error(choice)
                or answer.error is not None
                or answer.base_resp is not None
            ):
                self.error = find_error(answer, data)
            self._add_finish_reason(answer.finish_reason)
            if self.finish_reason is None:
                self._add_finish_reason(answer.stop_reason)
            if self.finish_reason is not None and not self._reason_event:
                self._reason_event = data
            if is_whole and answer.is_unfinished is True:
                self.error = self.error or incomplete_stream()
        except DECODE_ERRORS as error:
            if pieces := split_objects(data):
                out += self.feed(pieces)
            elif self.finish_reason is None or _may_have_words(data):
                self.error = Unreadable(str(error), data, error)

    def _parse_choices(
        self, answer: Completion, data: bytes, out: list[Delta], *, is_whole: bool
    ) -> Choice | None:
        """Take what an answer says; the choice that counts, None: there is none."""
        if not answer.choices:
            self._keep_other_event(answer, data)
            return None
        size, choice = len(out), self._first_choice(answer.choices)
        if choice is not None:
            self._parse_choice(choice, out, is_whole=is_whole)
            if is_whole:
                self._add_split_calls(answer.choices, out)
        if len(out) == size:
            self._keep_quiet_event(data)
        return choice

    def _add_split_calls(self, choices: list[Choice], out: list[Delta]) -> None:
        """The calls of an answer whose words are one choice and whose calls are another."""
        if self._tool_calls.has_calls or any(one.index is not None for one in choices):
            return
        for choice in choices:
            if choice.message is not None and choice.message.tool_calls:
                self._add_calls(choice.message, out, is_whole=True)

    def _first_choice(self, choices: list[Choice]) -> Choice | None:
        """The choice of index 0; one without an index has its position."""
        for position, choice in enumerate(choices):
            if choice.index == 0 or _choice_index(choice, position) == 0:
                if self._texts or self._tool_calls.has_calls:
                    self._other_choices = None
                return choice
        if self._other_choices is not None:
            self._other_choices += choices
        return None

    def _parse_lowest_choice(self, choices: list[Choice], out: list[Delta]) -> None:
        """No choice has the index 0: the one with the lowest index is the first."""
        first = min(_choice_index(one, 0) for one in choices)
        for choice in choices:
            if _choice_index(choice, 0) == first:
                self._parse_choice(choice, out, is_whole=False)

    def _parse_choice(self, choice: Choice, out: list[Delta], *, is_whole: bool) -> None:
        if choice.logprobs and isinstance(choice.logprobs, dict):
            self._logprobs += normalize_logprobs(choice.logprobs.get("content"))
        size = len(out)
        if choice.reasoning_content or choice.reasoning:
            beside = AnswerMessage(
                reasoning_content=choice.reasoning_content, reasoning=choice.reasoning
            )
            self._add_message_reasoning(beside, out, is_whole=is_whole)
            size = len(out)
        if choice.delta is not None:
            self._add_message(choice.delta, out, is_whole=is_whole)
        message = choice.message
        if message is None and choice.delta is None:
            message = message_beside(choice)
        if message is not None and len(out) == size and not self._is_repetition(message):
            self._add_message(message, out, is_whole=is_whole)
        if choice.text and len(out) == size:
            self._add_message(AnswerMessage(content=choice.text), out, is_whole=is_whole)
        if choice.tool_calls and len(out) == size:
            self._add_calls(AnswerMessage(tool_calls=choice.tool_calls), out, is_whole=is_whole)
        self._counts.add(choice.usage)
        self._add_finish_reason(given_reason(choice))

    def _add_finish_reason(self, given: Any) -> None:
        """The last one counts, but a good end does not undo a bad one."""
        reason = read_finish_reason(given)
        if reason is None:
            return
        if self.finish_reason is None or finish_meaning(self.finish_reason) in _GOOD_ENDS:
            self.finish_reason = reason

    def _is_repetition(self, message: AnswerMessage) -> bool:
        """Whether a message in a stream repeats what has come in pieces."""
        if self._texts:
            may_repeat = len(self._texts) > 1 or self.finish_reason is not None
            return may_repeat and text_of_value(message.content) == "".join(self._texts)
        return self._tool_calls.has_arguments and not text_of_value(message.content)

    def _add_message(self, message: AnswerMessage, out: list[Delta], *, is_whole: bool) -> None:
        content = message.content
        self._add_message_reasoning(message, out, is_whole=is_whole)
        if type(content) is str:
            self._add_text(content, out)
        elif content is not None:
            self._add_content(content, out, with_calls=not message.tool_calls)
        if not content and (message.text or message.audio):
            self._add_text(_other_words(message), out)
        if message.annotations:
            self._add_annotations(message.annotations, out)
        if fields := _other_fields(message):
            out.extend(self._fields.field_deltas(fields, whole=is_whole))
        if message.refusal and isinstance(message.refusal, str | list | dict):
            self._add_refusal(text_of_value(message.refusal), out)
        if message.tool_calls or message.function_call:
            self._add_calls(message, out, is_whole=is_whole)

    def _add_message_reasoning(
        self, message: AnswerMessage, out: list[Delta], *, is_whole: bool
    ) -> None:
        for name in REASONING_TEXT_FIELDS:
            # Servers in transition send the same text under two of these names.
            if (value := getattr(message, name)) and (text := thoughts_of_value(value)):
                self._reasoning_field = name
                self._add_reasoning(text, out)
                break
        if message.reasoning_details or message.thinking_blocks:
            # They are reasoning, and so before what it led to.
            details = {name: getattr(message, name) for name in REASONING_LIST_FIELDS}
            deltas = list(self._fields.field_deltas(details, whole=is_whole))
            self._has_reasoning |= any(isinstance(one, ReasoningSummaryDelta) for one in deltas)
            out += deltas

    def _add_calls(self, message: AnswerMessage, out: list[Delta], *, is_whole: bool) -> None:
        calls = self._tool_calls
        fragments = read_fragments(message.tool_calls, self._fields.call_fields)
        function = decoded_text(message.function_call)
        if isinstance(function, list) and function:
            function = function[0]
        if isinstance(function, dict) and all(one.is_stub for one in fragments):
            legacy = {"index": 0, "function": function}
            fragments = read_fragments(legacy, self._fields.call_fields)
        out += calls.feed_whole(fragments) if is_whole else calls.feed(fragments)

    def _add_content(self, content: Any, out: list[Delta], *, with_calls: bool) -> None:
        """Content that is not a string: parts, or a number."""
        if is_plain_data(content):
            self._add_text(msgspec.json.encode(content).decode(), out)
            return
        for part in _listed(content):
            kind = part.get("type") if isinstance(part, dict) else None
            if kind in _REASONING_PARTS or (kind is not None and part.get("thought") is True):
                thoughts = part.get("thinking") or part.get("summary") or part
                if kind == "thinking":
                    self._reasoning_field = THINKING_PARTS
                self._add_reasoning(thoughts_of_value(thoughts), out)
            elif kind == "refusal":
                self._add_refusal(text_of_value(part.get("refusal")), out)
            elif (call := call_of_part(part)) is not None:
                fragments = read_fragments(call if with_calls else None, self._fields.call_fields)
                out += self._tool_calls.feed(fragments)
            else:
                self._add_text(text_of_value(part), out)

    def _add_text(self, text: str, out: list[Delta]) -> None:
        if text:
            self._texts.append(text)
            out.append(OutputTextDelta(text, self._logprobs))
            self._logprobs = ()

    def _add_reasoning(self, text: str, out: list[Delta]) -> None:
        if text:
            self._has_reasoning = True
            name = self._reasoning_field
            out.append(self._fields.text_delta(name, text) if name else ReasoningSummaryDelta(text))

    def _add_refusal(self, text: str, out: list[Delta]) -> None:
        if text:
            self._has_refusal = True
            out.append(RefusalTextDelta(text))

    def _add_annotations(self, annotations: Any, out: list[Delta]) -> None:
        for given in annotations if isinstance(annotations, list) else ():
            annotation = normalize_citation(given)
            # Some servers repeat all of them with each chunk.
            if annotation is not None and annotation not in self._annotations:
                self._annotations.append(annotation)
                out.append(AnnotationDelta(annotation))


def _decode(data: bytes, *, is_whole: bool) -> tuple[bytes, Completion]:
    """An answer and its JSON, which of another API's is that of a completion."""
    try:
        answer = decode_answer(data)
    except DECODE_ERRORS:
        answer = decode_answer_leniently(data)
    if answer.choices is None and (inner := find_answer(data, is_whole=is_whole)) is not None:
        return inner, decode_answer_leniently(inner)
    return data, answer


def _may_have_words(data: bytes) -> bool:
    """Whether JSON that is cut or malformed may be words, and not a usage or the like."""
    return any(name in data for name in (b'"content"', b'"delta"', b'"message"', b'"text"'))


def _listed(content: Any) -> list[Any]:
    return content if isinstance(content, list) else [content]


def _choice_index(choice: Choice, position: int) -> int:
    index = count_of_value(choice.index)
    return position if index is None else index


def _no_answer(event: bytes) -> Unreadable:
    return Unreadable(missing_answer_reason(event), event)


def _failure(reason: str, words: str) -> bytes | AttemptError:
    """The error of an answer whose reason to stop is a failure, in the words beside it."""
    if words:
        return msgspec.json.encode({"error": {"message": f"{words} (finish_reason: {reason})"}})
    text = f"The upstream failed while it was answering (finish_reason: {reason})."
    return AttemptError(ModelError(text))


def _other_words(message: AnswerMessage) -> str:
    """Words under another name, or spoken ones."""
    audio = message.audio
    transcript = audio.get("transcript") if isinstance(audio, dict) else None
    return text_of_value(message.text) or (transcript if isinstance(transcript, str) else "")


def _other_fields(message: AnswerMessage) -> dict[str, Any]:
    """What a model may want back of a message, but for its reasoning."""
    if not (
        message.extra_content
        or message.reasoning_opaque
        or message.thought_signature
        or message.provider_specific_fields
    ):
        return {}
    fields = {name: getattr(message, name) for name in MESSAGE_FIELDS}
    return {name: it for name, it in fields.items() if it and name not in REASONING_LIST_FIELDS}
