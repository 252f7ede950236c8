"""Refusals in many wordings: the next request is one that the upstream takes, with every word."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from operator import attrgetter
from types import ModuleType
from typing import NamedTuple

import pytest

from antiphon.models.openai.chat_completions import ChatCompletionsModel
from antiphon.models.retry import RetryPolicy
from antiphon.turn.protocols import Model, ModelInfo
from support import (
    provider_refusals,
    refusal_wordings,
    reported_refusals,
    tool_refusal_wordings,
)
from support.misbehaving_upstream import Behaviour, Request
from support.request_faults import Refusal
from support.scenario import Json, body_of, scenario
from support.strict_upstreams import all_words, answer_hello

TABLES = (provider_refusals, refusal_wordings, tool_refusal_wordings, reported_refusals)
#: How servers write a refusal around its words, and the status they give it.
SHAPES = ("openai", "openai-500", "detail", "text", "flat")


class Case(NamedTuple):
    """One wording of a refusal, and the words that must reach the model all the same."""

    refusal: Refusal
    wording: str
    words: list[str]


def cases_of(table: ModuleType) -> dict[str, Case]:
    """The wordings of a table, by the name of the model that refuses so."""
    return {
        f"{name}@{number}": Case(refusal, wording, table.WORDS.get(name, []))
        for name, refusal in table.REFUSALS.items()
        for number, wording in enumerate(refusal[3])
    }


def in_shape(wording: str, shape: str) -> Behaviour:
    """A refusal as one of several servers writes it."""
    error = {"message": wording, "type": "invalid_request_error"}
    shapes: dict[str, tuple[Json, int]] = {
        "openai": ({"error": error}, 400),
        "openai-500": ({"error": error}, 500),
        "detail": ({"detail": wording}, 422),
        "text": ({"error": wording}, 500),
        "flat": ({"object": "error", "message": wording, "code": 400}, 400),
    }
    return body_of(*shapes[shape])


def models_of(cases: Collection[str], url: str) -> Mapping[str, Model]:
    """A model for each wording: each learns by itself."""
    return {
        name: ChatCompletionsModel(
            ModelInfo("m"), url, retry=RetryPolicy(base=0.0), read_timeout=10.0
        )
        for name in cases
    }


@pytest.mark.parametrize(
    "shape", [SHAPES[0], *(pytest.param(one, marks=pytest.mark.slow) for one in SHAPES[1:])]
)
@pytest.mark.parametrize(
    "table", [provider_refusals, refusal_wordings, reported_refusals], ids=attrgetter("__name__")
)
def test_the_next_request_is_one_that_is_taken(table: ModuleType, shape: str) -> None:
    cases = cases_of(table)

    def behave(request: Request) -> Behaviour:
        case = cases[request.json["model"]]
        is_refused, *_ = case.refusal
        return (
            in_shape(case.wording, shape)
            if is_refused(request.json)
            else answer_hello(request.json)
        )

    wrong = []
    with scenario(models=partial(models_of, cases)) as world:
        world.upstream_answers(behave)
        for model, (refusal, wording, words) in cases.items():
            _, given, fields, _ = refusal
            before = len(world.requests)
            outcome = world.respond(given, model=model, **{"stream": False, **fields})
            tries = len(world.requests) - before
            said_last = all_words(world.requests[-1])
            lost = [one for one in words if one not in said_last]
            if outcome.status != "completed" or lost or tries > 4:
                wrong.append((model, wording, outcome.error, lost, tries))
                continue
            # From then on it takes one request.
            before = len(world.requests)
            again = world.respond(given, model=model, **{"stream": False, **fields})
            if again.status != "completed" or len(world.requests) - before != 1:
                wrong.append((model, wording, again.error, [], len(world.requests) - before))
    assert not wrong, "\n".join(map(str, wrong))
