"""Calls on a llama.cpp that answers by script: refusals of a template, stop texts, repetition."""

from __future__ import annotations

import json
import queue
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from antiphon.core.turns import Options, Usage
from antiphon.models.llama.chat_template import DIALOGUE_STOPS, SystemRole
from antiphon.models.llama.control_tokens import ControlTokenEscaper
from antiphon.models.llama.frame_protocol import (
    FromWorker,
    GenerateRequest,
    GenerateResult,
    RequestFailed,
    TextChunk,
)
from antiphon.models.llama.generation import GenerationConfig, GenerationRunner

TIMEOUT = 30
DEFAULTS = Options()
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi."},
    {"role": "assistant", "content": "Hello!"},
    {"role": "system", "content": "It is May."},
    {"role": "user", "content": "Well?"},
]


class ScriptedLlama:
    """Says these pieces, one token each; its template takes what ``takes`` says."""

    def __init__(
        self, pieces: Sequence[str] = (), takes: Callable[[list[str]], bool] = lambda _: True
    ) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.said = 0
        self._pieces = pieces
        self._takes = takes

    def handle_chat_completions(self, body: bytes, callback: Callable[[bytes], bool]) -> object:
        self.bodies.append(json.loads(body))
        if not self._takes([one["role"] for one in self.bodies[-1]["messages"]]):
            raise ValueError("template generation failed: Conversation roles must alternate")
        chunks: list[dict[str, Any]] = [{"prompt_progress": {"total": 9, "cache": 4}}]
        chunks += [{"choices": [{"delta": {"content": piece}}]} for piece in self._pieces]
        chunks.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        chunks.append({"usage": {"prompt_tokens": 9, "completion_tokens": len(self._pieces)}})
        for chunk in chunks:
            self.said += "choices" in chunk
            if callback(json.dumps(chunk).encode()):
                break
        return None


def answered(
    server: ScriptedLlama,
    options: Options = DEFAULTS,
    *,
    system_role: SystemRole = "any",
    stops: tuple[str, ...] = (),
) -> tuple[str, FromWorker]:
    """The words of a call, and its last frame."""
    frames: queue.Queue[FromWorker] = queue.Queue()
    config = GenerationConfig(
        ControlTokenEscaper(()), 4096, 1, system_role=system_role, stops=stops
    )
    runner = GenerationRunner(server, None, config, frames.put)
    runner.handle(GenerateRequest(1, json.dumps(TALK).encode(), msgspec.json.encode(options)))
    words = ""
    while isinstance(frame := frames.get(timeout=TIMEOUT), TextChunk):
        words += frame.text
    return words, frame


def roles(body: dict[str, Any]) -> list[str]:
    return [one["role"] for one in body["messages"]]


def test_a_template_that_takes_everything_gets_everything() -> None:
    server = ScriptedLlama(["Fine."])
    assert answered(server) == ("Fine.", GenerateResult(1, "stop", Usage(9, 1)))
    assert roles(server.bodies[0]) == [one["role"] for one in TALK]


def test_a_template_gets_the_roles_that_its_text_takes() -> None:
    for system_role, expected in (
        ("first", ["system", "user", "assistant", "user"]),
        ("none", ["user", "assistant", "user"]),
    ):
        server = ScriptedLlama(["Fine."])
        answered(server, system_role=system_role)  # type: ignore[arg-type]
        assert [roles(one) for one in server.bodies] == [expected]


@pytest.mark.parametrize(
    ("takes", "calls"),
    [
        (lambda roles: "system" not in roles[1:], 2),
        (lambda roles: "system" not in roles, 3),
    ],
)
def test_a_template_that_refuses_roles_is_given_plainer_ones(
    takes: Callable[[list[str]], bool], calls: int
) -> None:
    server = ScriptedLlama(["Fine."], takes)
    assert answered(server)[0] == "Fine."
    assert len(server.bodies) == calls
    for words in ("Be brief.", "Hi.", "Hello!", "It is May.", "Well?"):
        assert words in json.dumps(server.bodies[-1])


def test_a_template_that_does_not_render_is_an_error_that_says_so() -> None:
    _, failed = answered(ScriptedLlama(["Fine."], lambda _: False))
    assert isinstance(failed, RequestFailed)
    assert failed.message == ("The model's chat template: Conversation roles must alternate")


def test_an_answer_that_repeats_itself_is_cut_like_one_at_its_limit() -> None:
    server = ScriptedLlama(["Well. ", *["<|im_end|>\n"] * 4000])
    words, last = answered(server)
    assert words.startswith("Well. <|im_end|>")
    assert len(words) < 3000
    said = len(words[6:].splitlines()) + 1
    assert last == GenerateResult(1, "length", Usage(9, said, cached_tokens=4))
    # The generation itself was stopped, not only hidden.
    assert server.said < 300


def test_json_has_a_grammar_and_may_repeat() -> None:
    ones = Options(text_format={"type": "json_schema", "schema": {"type": "array"}})
    words, last = answered(ScriptedLlama(["1,"] * 4000), ones)
    assert len(words) == 8000
    assert isinstance(last, GenerateResult)
    assert last.reason == "stop"


def test_a_model_without_a_template_stops_where_the_next_speaker_begins() -> None:
    server = ScriptedLlama([" ", " Fine.", " Yes."])
    words, _ = answered(server, Options(stop=("END", "###")), stops=DIALOGUE_STOPS)
    assert words == "Fine. Yes."
    assert server.bodies[0]["stop"] == ["END", "###", *DIALOGUE_STOPS]
    # Its marks may be a part of JSON, which ends by itself.
    answered(server, Options(text_format={"type": "json_object"}), stops=DIALOGUE_STOPS)
    assert "stop" not in server.bodies[1]
