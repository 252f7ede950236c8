"""Refusals in many wordings: the next request is one that the upstream takes, with every word."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from antiphon.models.openai.chat_completions import ChatCompletionsModel
from antiphon.models.retry import RetryPolicy
from antiphon.turn.protocols import Model, ModelInfo
from support.misbehaving_upstream import Behaviour, Request
from support.refusal_wordings import REFUSALS
from support.scenario import Json, body_of, scenario
from support.strict_upstreams import (
    all_words,
    answer_hello,
)

#: The words that must reach the model.
WORDS = {
    "system-late": ["One.", "Sys.", "Two."],
    "no-system": ["Sys.", "One."],
    "developer": ["Dev.", "One."],
    "alternate": ["One.", "Two.", "Sys.", "Three."],
    "begin": ["I am Bo.", "Hi"],
    "parts": ["One.", "Two."],
    "empty": ["One.", "Two."],
    "last": ["One.", "Begin"],
    "no-tool-role": ["Found.", "And?"],
    "parallel-calls": ["Found.", "Second.", "And?"],
}
NAMES = [(name, number) for name, row in REFUSALS.items() for number in range(len(row[3]))]


def in_shape(words: str, shape: int) -> Behaviour:
    """A refusal as one of several servers writes it."""
    error = {"message": words, "type": "invalid_request_error"}
    shapes: list[tuple[Json, int]] = [
        ({"error": error}, 400),
        ({"detail": words}, 422),
        ({"error": words}, 500),
        ({"object": "error", "message": words, "code": 400}, 400),
    ]
    value, status = shapes[shape]
    return body_of(value, status)


def models(url: str) -> Mapping[str, Model]:
    """A model for each refusal: each learns by itself."""
    return {
        f"{name}@{number}": ChatCompletionsModel(
            ModelInfo("m"), url, retry=RetryPolicy(base=0.0), read_timeout=10.0
        )
        for name, number in NAMES
    }


@pytest.mark.parametrize(
    "shape", [0, *(pytest.param(one, marks=pytest.mark.slow) for one in (1, 2, 3))]
)
def test_the_next_request_is_one_that_is_taken(shape: int) -> None:
    def behave(request: Request) -> Behaviour:
        name, _, number = request.json["model"].rpartition("@")
        fault, _, _, words = REFUSALS[name]
        if fault(request.json):
            return in_shape(words[int(number)], shape)
        return answer_hello(request.json)

    wrong = []
    with scenario(models=models) as world:
        world.upstream_answers(behave)
        for name, number in NAMES:
            _, given, fields, words = REFUSALS[name]
            before = len(world.requests)
            model = f"{name}@{number}"
            outcome = world.respond(given, model=model, **{"stream": False, **fields})
            said_last = all_words(world.requests[-1])
            lost = [one for one in WORDS.get(name, ()) if one not in said_last]
            if outcome.status != "completed" or lost or len(world.requests) - before > 4:
                wrong.append((name, words[number], outcome.error, lost))
    assert not wrong, "\n".join(map(str, wrong))
