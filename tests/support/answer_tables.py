"""Tables of upstreams' answers: what each means over both APIs, streamed and not.

    check_answers(world, {"done-in-words": says("Hello.", stream_of(...))})

All rows of a table go through one running scenario, and all that are wrong are reported together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from support.misbehaving_upstream import Behaviour
from support.scenario import Outcome, Scenario, nested
from support.upstream_answers import TOOLS

Meaning: TypeAlias = Literal["completed", "length", "content_filter", "failed"]
Calls: TypeAlias = list[tuple[str, str]]

HELLO = "Hello there."
#: What each meaning is as a status of a response, and as a reason to stop.
_STATUSES: dict[Meaning, tuple[str, ...]] = {
    "completed": ("completed", "stop", "tool_calls"),
    "length": ("incomplete", "length"),
    "content_filter": ("incomplete", "content_filter"),
    "failed": ("failed", "error"),
}


@dataclass(frozen=True)
class Meant:
    """What an answer means; None: that is not looked at. ``error``: words in the error."""

    behaviour: Behaviour
    meaning: Meaning = "completed"
    text: str | None = HELLO
    reasoning: str | None = None
    refusal: str | None = None
    calls: Calls | None = None
    error: str = ""
    code: str | None = None
    tokens: tuple[int, int] | None = None


def says(words: str, behaviour: Behaviour, **expected: Any) -> Meant:
    return Meant(behaviour, text=words, **expected)


def calls(made: Calls, behaviour: Behaviour, **expected: Any) -> Meant:
    return Meant(behaviour, calls=made, **{"text": "", **expected})


def fails(error: str, behaviour: Behaviour, words: str | None = None, **expected: Any) -> Meant:
    """Fails with this in the error, and keeps the words before it where it was streamed."""
    return Meant(behaviour, "failed", words, error=error, **expected)


def check_answers(world: Scenario, table: Mapping[str, Meant]) -> None:
    """Ask for each answer in the four ways, and report all that is not as it was meant."""
    wrong = []
    for name, meant in table.items():
        world.upstream_answers(lambda _, it=meant.behaviour: it)  # type: ignore[misc]
        for stream in (True, False):
            fields: dict[str, Any] = {} if meant.calls is None else {"tools": TOOLS}
            response = world.respond(stream=stream, **fields)
            if meant.calls is not None:
                fields = {"tools": list(map(nested, TOOLS))}
            completion = world.chat(stream=stream, **fields)
            for api, outcome in (("responses", response), ("chat", completion)):
                wrong += [(name, api, stream, one) for one in _differences(meant, outcome)]
            wrong += [(name, "usage", stream, one) for one in _uncounted(meant, response)]
    assert not wrong, "\n".join(map(str, wrong))


def _differences(meant: Meant, outcome: Outcome) -> list[Any]:
    found: list[Any] = []
    if outcome.status not in _STATUSES[meant.meaning]:
        found.append((outcome.status, outcome.error))
    error = outcome.error or {}
    # An error in place of an answer has no words.
    is_whole_error = meant.meaning == "failed" and outcome.http >= 400
    for expected, given in (
        (None if is_whole_error else meant.text, outcome.text),
        (meant.reasoning, outcome.reasoning),
        (meant.refusal, outcome.refusal),
        (meant.calls, outcome.calls),
        (meant.code, error.get("code")),
    ):
        if expected is not None and expected != given:
            found.append((expected, given, error))
    if meant.error not in json.dumps(error, ensure_ascii=False):
        found.append((meant.error, error))
    if not all(outcome.call_ids) or len(set(outcome.call_ids)) != len(outcome.call_ids):
        found.append(outcome.call_ids)
    return found


def _uncounted(meant: Meant, response: Outcome) -> list[Any]:
    usage = response.body.get("usage") or {}
    counted = (usage.get("input_tokens"), usage.get("output_tokens"))
    return [] if meant.tokens in (None, counted) else [(meant.tokens, counted)]
