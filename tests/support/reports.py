"""Reports: the tables of what servers and gateways were reported to send, by dialect."""

from __future__ import annotations

from typing import Final

from support import (
    reported_answers,
    reported_calls,
    reported_errors,
    reported_frames,
    reported_responses,
)

CHAT: Final = {
    "calls-that-come-again": reported_calls.REPEATED,
    "marks-of-calls": reported_calls.MARKS,
    "names-of-calls": reported_calls.NAMES,
    "places-of-calls": reported_calls.PLACES,
    "choices": reported_calls.CHOICES,
    "calls-that-break-off": reported_calls.CUTS,
    "calls-as-they-were-written": reported_calls.WRITTEN,
    "arguments-within-others": reported_calls.WRAPPED,
    "answers-that-come-again": reported_answers.REPETITIONS,
    "frames": reported_frames.FRAMES,
    "notices": reported_answers.NOTICES,
    "contents": reported_answers.CONTENTS,
    "ends": reported_answers.ENDS,
    "errors": reported_errors.ERRORS,
    "names": reported_answers.NAMES,
}
RESPONSES: Final = {
    "calls-that-break-off": reported_responses.CUTS,
    "marks-of-items": reported_responses.MARKS,
    "failures": reported_responses.FAILURES,
}
