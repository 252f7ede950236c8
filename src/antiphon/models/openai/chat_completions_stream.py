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
from antiphon.models.openai.answer_choices import ChoiceSelector
from antiphon.models.openai.answer_endings import UnusedEvents, read_ending
from antiphon.models.openai.answer_fields import AnswerFields
from antiphon.models.openai.answer_names import has_odd_names, with_usual_names
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
    given_reason,
    message_beside,
)
from antiphon.models.openai.finish_reasons import finish_meaning, read_finish_reason
from antiphon.models.openai.lenient_json import (
    is_plain_data,
    split_objects,
    text_of_value,
    thoughts_of_value,
)
from antiphon.models.openai.logprobs_citations import normalize_citation, normalize_logprobs
from antiphon.models.openai.sse import DECODE_ERRORS
from antiphon.models.openai.tool_call_assembly import ToolCallAssembler
from antiphon.models.openai.tool_call_fragments import call_of_part, decoded_text, read_fragments
from antiphon.models.openai.upstream_errors import Unreadable, incomplete_stream
from antiphon.models.openai.usage_counts import UsageCounts
from antiphon.models.retry import AttemptError

_GOOD_ENDS: Final = ("stop", "tool_calls")
_DONE_MARKS: Final = (b"[DONE]", b'"[DONE]"')
_REASONING_PARTS: Final = ("thinking", "reasoning", "reasoning_text", "reasoning_content")
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
        #: Whether what it says came in a ``message``, and not in a ``delta`` alone.
        self._has_messages = False
        #: Under which of its names reasoning has come last.
        self._reasoning_field: str | None = None
        self._choices = ChoiceSelector()
        self._unused = UnusedEvents()
        #: The event with the reason to stop.
        self._reason_event = b""
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
        elif has_odd_names(event):
            return False
        elif not self._texts:
            self._unused.add_quiet(event)
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

    def finish(self) -> list[Delta]:
        """The final deltas (usage, finish), or none and ``error``."""
        out: list[Delta] = []
        if self.error is None:
            self._parse_other_choices(out)
        reason = self._read_ending() if self.error is None else "stop"
        if self.error is not None:
            return out
        out += self._tool_calls.finish(is_cut=reason in ("length", "content_filter"))
        if (usage := self._counts.usage) is not None:
            out.append(UsageUpdate(usage))
        return [*out, Finish(reason)]

    def _read_ending(self) -> FinishReason:
        """Why the model stopped. Sets ``error`` where that is no good end."""
        ending = read_ending(
            self.finish_reason,
            self._unused,
            self._tool_calls,
            is_done=self.done,
            has_words=bool(self._texts) or self._has_refusal,
            has_reasoning=self._has_reasoning,
            reason_event=self._reason_event,
        )
        if isinstance(ending, str):
            return ending
        self.error = ending
        return "stop"

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
            has_usage = answer.choices is not None or answer.usage is not None
            self._unused.add_other(data, has_usage=has_usage)
            return None
        has_words = bool(self._texts) or self._tool_calls.has_calls
        size, choice = len(out), self._choices.first(answer.choices, has_words=has_words)
        if choice is not None:
            self._parse_choice(choice, out, is_whole=is_whole)
        if len(out) == size and not self._texts:
            self._unused.add_quiet(data)
        return choice

    def _parse_other_choices(self, out: list[Delta]) -> None:
        """Take what the choice that counts does not say itself."""
        calls = self._tool_calls
        if not (self._texts or self._has_refusal or calls.has_calls):
            for choice in self._choices.lowest():
                self._parse_choice(choice, out, is_whole=False)
        elif not calls.has_calls:
            is_announced = finish_meaning(self.finish_reason or "") == "tool_calls"
            for choice in self._choices.split_calls(is_announced=is_announced):
                message = choice.message or choice.delta or AnswerMessage()
                self._add_calls(message, out, is_whole=choice.message is not None)

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
            self._has_messages = True
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
        text = text_of_value(message.content).strip()
        if self._texts:
            is_other_form = not self._has_messages or len(self._texts) > 1
            may_repeat = is_other_form or self.finish_reason is not None
            return may_repeat and text == "".join(self._texts).strip()
        is_repeated_thought = self._has_reasoning and not (self._has_messages or message.tool_calls)
        return not text and (self._tool_calls.has_arguments or is_repeated_thought)

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
            if _is_thought(part):
                thoughts = (
                    part.get("thinking")
                    or part.get("summary")
                    or part.get("reasoningContent")
                    or part
                )
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
    data = with_usual_names(data)
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


def _is_thought(part: Any) -> bool:
    """Whether a part of a content is reasoning: by its type, Gemini's mark or Bedrock's field."""
    if not isinstance(part, dict):
        return False
    return (
        part.get("type") in _REASONING_PARTS
        or part.get("thought") is True
        or isinstance(part.get("reasoningContent"), dict)
    )


def _listed(content: Any) -> list[Any]:
    return content if isinstance(content, list) else [content]


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
