"""Answer endings: why a chat completion ended, or why it is no answer. Pure.

A reason to stop counts only beside an answer: servers end with "stop" or "tool_calls" what holds
nothing, and what broke off. What nobody could read may say why there is no answer.
"""

from __future__ import annotations

from typing import Final

import msgspec

from antiphon.core.deltas import FinishReason
from antiphon.errors import ModelError
from antiphon.models.openai.chat_completions_answer import find_reason_words
from antiphon.models.openai.finish_reasons import finish_meaning
from antiphon.models.openai.foreign_answers import (
    hides_words,
    holds_text,
    is_notice,
    is_unknown_failure,
    missing_answer_reason,
)
from antiphon.models.openai.tool_call_assembly import ToolCallAssembler
from antiphon.models.openai.upstream_errors import Unreadable, cut_call, incomplete_stream
from antiphon.models.retry import AttemptError

_MAX_QUIET_EVENTS: Final = 8


class UnusedEvents:
    """The events of an answer in which nothing was found."""

    def __init__(self) -> None:
        #: The last event without a choice.
        self.last = b""
        #: The last one that is no part of an answer.
        self.unknown = b""
        #: The first ones with a choice.
        self.quiet: list[bytes] = []

    def add_quiet(self, event: bytes) -> None:
        """An event with a choice that says nothing."""
        if len(self.quiet) < _MAX_QUIET_EVENTS:
            self.quiet.append(event)

    def add_other(self, event: bytes, *, has_usage: bool) -> None:
        """An event without a choice: it may say why there is no answer."""
        self.last = event
        if not has_usage and not is_notice(event):
            self.unknown = event


def read_ending(  # noqa: PLR0913
    given: str | None,
    events: UnusedEvents,
    calls: ToolCallAssembler,
    *,
    is_done: bool,
    has_words: bool,
    has_reasoning: bool,
    reason_event: bytes,
) -> FinishReason | bytes | AttemptError:
    """Why the model stopped; or the error, where that is no good end.

    ``given`` is the reason to stop and ``reason_event`` the event with it; ``is_done``: the end
    marker has come.
    """
    is_explained = given is None and is_unknown_failure(events.unknown)
    calls.complete_names()
    has_answer = has_words or calls.has_calls
    has_anything = has_answer or has_reasoning
    if not has_anything and holds_text(events.unknown):
        # The end of an answer in a shape that is not known.
        given = None
    meaning = finish_meaning(given) if given else "stop"
    # Some servers end an answer that calls tools as if it were any other, and vice versa.
    ending: FinishReason | bytes | AttemptError = "tool_calls" if calls.has_calls else "stop"
    if is_explained or (given is None and not has_answer and events.unknown):
        ending = _no_answer(events.unknown)
    elif given is None and (not is_done or calls.has_cut_call):
        ending = incomplete_stream()
    elif given is None and not (has_anything or calls.nameless_arguments):
        ending = _no_answer(events.last)
    elif meaning == "error":
        ending = _failure(given or "", find_reason_words(reason_event))
    elif meaning == "length":
        ending = "length"
    elif meaning == "content_filter":
        ending = "content_filter"
    elif calls.nameless_arguments is not None:
        arguments = calls.nameless_arguments.encode(errors="replace")
        ending = Unreadable("a tool call has no name", arguments)
    elif meaning == "tool_calls" and not has_answer:
        ending = Unreadable("it announces tool calls and holds none", events.last)
    elif not has_anything and hides_words(events.quiet):
        ending = _no_answer((*events.quiet, events.last)[0])
    elif (name := calls.cut_call) is not None:
        ending = cut_call(name)
    return ending


def _no_answer(event: bytes) -> Unreadable:
    return Unreadable(missing_answer_reason(event), event)


def _failure(reason: str, words: str) -> bytes | AttemptError:
    """The error of an answer whose reason to stop is a failure, in the words beside it."""
    if words:
        return msgspec.json.encode({"error": {"message": f"{words} (finish_reason: {reason})"}})
    text = f"The upstream failed while it was answering (finish_reason: {reason})."
    return AttemptError(ModelError(text))
