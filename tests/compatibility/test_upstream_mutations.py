"""Answers in which one field has another type: no word is lost, no conversation is stuck."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.json_mutations import VALUES, Path, mutated, paths
from support.misbehaving_upstream import Behaviour
from support.scenario import (
    DONE,
    LOOKUP,
    Json,
    Outcome,
    Scenario,
    body_of,
    data,
    stream_of,
)

FIELDS: Json = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
USAGE: Json = {
    "prompt_tokens": 5,
    "completion_tokens": 2,
    "total_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 1},
}


def choice(delta: Json, reason: str | None = None, name: str = "delta") -> Json:
    entry = {"token": "Hello", "logprob": -0.5, "bytes": [72], "top_logprobs": []}
    logprobs = {"content": [entry], "refusal": None}
    one = {"index": 0, name: delta, "logprobs": logprobs, "finish_reason": reason}
    return {**FIELDS, "choices": [one], "usage": None, "error": None}


CALL: Json = {"index": 0, "id": "a1", "type": "function", "function": {"name": "lookup"}}
CHUNKS: list[Json] = [
    choice({"role": "assistant", "content": "", "refusal": None}),
    choice({"content": None, "reasoning_content": "Hm."}),
    choice({"content": "Hello", "annotations": [{"type": "url_citation", "url": "https://a.b"}]}),
    choice({"content": " there.", "tool_calls": []}),
    choice({}, "stop"),
    {**FIELDS, "choices": [], "usage": USAGE},
]
COMPLETION: Json = {
    **choice(
        {"role": "assistant", "content": "Hello there.", "refusal": None, "tool_calls": None},
        "stop",
        "message",
    ),
    "usage": USAGE,
}
#: Fields that hold the words, or that the words are in.
WORDS = {"choices", "delta", "message", "content"}


def holds_words(path: Path) -> bool:
    return all(isinstance(key, int) or key in WORDS for key in path) and path[-1] != "finish_reason"


PLACES = [(index, path) for index, chunk in enumerate(CHUNKS) for path in paths(chunk)]
QUIET_PLACES = [one for one in PLACES if not holds_words(one[1])]
WORD_PLACES = [one for one in PLACES if holds_words(one[1])]


def streamed(chunks: list[Json]) -> Behaviour:
    return stream_of(*map(data, chunks), DONE)


def answer_always(world: Scenario, behaviour: Behaviour) -> None:
    world.upstream_answers(lambda _: behaviour)


def expect_next_turn(world: Scenario, answered: Outcome) -> None:
    """A conversation goes on, after a failure too."""
    answer_always(world, streamed(CHUNKS))
    response_id = answered.body.get("id") or (answered.error or {}).get("response_id")
    following = world.respond("And?", previous_response_id=response_id)
    following.expect("completed", "Hello there.")


ENDINGS = {"completed", "incomplete", "failed", "error"}
RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@RELAXED
@given(place=st.sampled_from(QUIET_PLACES), other=VALUES, stream=st.booleans())
def test_an_odd_field_of_a_chunk_loses_no_word(
    world: Scenario, place: tuple[int, Path], other: Any, stream: bool
) -> None:
    index, path = place
    chunks = [*CHUNKS[:index], mutated(CHUNKS[index], path, other), *CHUNKS[index + 1 :]]
    answer_always(world, streamed(chunks))
    answered = world.respond(stream=stream, tools=[LOOKUP])
    # What says that the answer failed, or was cut, is believed.
    if path[-1] not in ("error", "finish_reason", "refusal", "index"):
        answered.expect("completed", "Hello there.")
    assert answered.status in ENDINGS
    shown = world.chat(stream=stream)
    if answered.status == "completed":
        assert shown.text == answered.text
    expect_next_turn(world, answered)


@RELAXED
@given(place=st.sampled_from(WORD_PLACES), other=VALUES, stream=st.booleans())
def test_odd_words_of_a_chunk_lose_no_others(
    world: Scenario, place: tuple[int, Path], other: Any, stream: bool
) -> None:
    index, path = place
    chunks = [*CHUNKS[:index], mutated(CHUNKS[index], path, other), *CHUNKS[index + 1 :]]
    answer_always(world, streamed(chunks))
    answered = world.respond(stream=stream)
    assert answered.status in ENDINGS
    if answered.status == "completed":
        others = [word for at, word in ((2, "Hello"), (3, " there.")) if at != index]
        assert all(word in answered.text for word in others)
    elif index > 2:
        assert answered.text.startswith("Hello")
    expect_next_turn(world, answered)


@RELAXED
@given(
    path=st.sampled_from([one for one in paths(COMPLETION) if not holds_words(one)]),
    other=VALUES,
    stream=st.booleans(),
)
def test_an_odd_field_of_a_completion_loses_no_word(
    world: Scenario, path: Path, other: Any, stream: bool
) -> None:
    answer_always(world, body_of(mutated(COMPLETION, path, other)))
    answered = world.respond(stream=stream)
    if path[-1] not in ("error", "finish_reason", "refusal", "index"):
        answered.expect("completed", "Hello there.")
    expect_next_turn(world, answered)
