"""An endpoint without the Responses API is called by chat completions."""

from __future__ import annotations

import json
import logging

import pytest

from antiphon.models.openai.chat_fallback import ResponsesOrChatModel
from antiphon.models.retry import RetryPolicy
from antiphon.turn.protocols import Model, ModelInfo
from support.misbehaving_upstream import Behaviour, Request, answer
from support.scenario import Json, Scenario, body_of, scenario, whole

RESPONSE: Json = {
    "status": "completed",
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "Hello."}]}],
}
CHAT = whole({"role": "assistant", "content": "Hello."})


def models(url: str) -> dict[str, Model]:
    return {"m": ResponsesOrChatModel(ModelInfo("m"), url, retry=RetryPolicy(base=0.0))}


def paths(world: Scenario) -> list[str]:
    return [one.path.rpartition("/")[2] for one in world.all_requests if one.method == "POST"]


def without_responses(status: int, body: bytes) -> Behaviour:
    return answer(body, status, {"Content-Type": "text/plain"})


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"404 page not found"),
        (404, b""),
        (404, b'{"detail":"Not Found"}'),
        (404, b'{"error":{"message":"Invalid URL (POST /v1/responses)"}}'),
        (405, b'{"detail":"Method Not Allowed"}'),
        (410, b"Gone"),
        (501, b"Not implemented"),
    ],
)
def test_an_endpoint_that_is_missing_is_remembered(
    status: int, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    def answered(request: Request) -> Behaviour:
        return without_responses(status, body) if request.path.endswith("/responses") else CHAT

    with caplog.at_level(logging.WARNING, "antiphon.models"), scenario(models=models) as world:
        world.upstream_answers(answered)
        world.respond(stream=False).expect("completed", "Hello.")
        world.respond(stream=False).expect("completed", "Hello.")
        world.chat(stream=False).expect("stop", "Hello.")
        assert paths(world) == ["responses", "completions", "completions", "completions"]
    assert len([one for one in caplog.records if "no Responses API" in one.message]) == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, {"error": {"message": "The model m does not exist.", "code": "model_not_found"}}),
        (400, {"error": {"message": "No."}}),
        (401, {"error": {"message": "No."}}),
        (422, {"error": {"message": "No."}}),
    ],
)
def test_other_refusals_are_no_reason(status: int, body: Json) -> None:
    with scenario(models=models) as world:
        world.upstream_answers(lambda _: answer(json.dumps(body).encode(), status))
        assert world.respond(stream=False).http >= 400
        assert set(paths(world)) == {"responses"}


def test_an_endpoint_that_has_neither_is_an_error_and_is_tried_again() -> None:
    with scenario(models=models) as world:
        world.upstream_answers(lambda _: without_responses(404, b"nothing here"))
        outcome = world.respond(stream=False)
        assert outcome.error is not None
        assert outcome.error["code"] == "upstream_not_found"
        world.upstream_answers(lambda _: body_of(RESPONSE))
        world.respond(stream=False).expect("completed", "Hello.")
        assert paths(world) == ["responses", "completions", "responses"]


def test_options_that_only_chat_completions_have() -> None:
    def answered(request: Request) -> Behaviour:
        return body_of(RESPONSE) if request.path.endswith("/responses") else CHAT

    with scenario(models=models) as world:
        world.upstream_answers(answered)
        for fields in ({"stop": ["x"]}, {"seed": 7}, {}):
            world.chat(stream=False, **fields).expect("stop", "Hello.")
        assert paths(world) == ["completions", "completions", "responses"]
        assert world.requests[0]["stop"] == ["x"]


def test_a_system_prompt_is_a_message_and_nothing_is_stored() -> None:
    with scenario(models=models) as world:
        world.upstream_answers(lambda _: body_of(RESPONSE))
        world.respond(stream=False, instructions="Be brief.").expect("completed", "Hello.")
        sent = world.requests[0]
        assert sent["store"] is False
        assert sent["include"] == ["reasoning.encrypted_content"]
        assert "instructions" not in sent
        assert sent["input"][0] == {"type": "message", "role": "system", "content": "Be brief."}


@pytest.mark.parametrize("count", [0, 2, 50])
def test_a_model_that_is_unknown_upstream_is_answered_with_those_there_are(count: int) -> None:
    names = [f"grok-{number}" for number in range(count)]

    def answered(request: Request) -> Behaviour:
        if request.path.endswith("/models"):
            return body_of({"object": "list", "data": [{"id": name} for name in names]})
        error = {"message": "The model m does not exist.", "code": "model_not_found"}
        return body_of({"error": error}, 404)

    with scenario(models=models) as world:
        world.upstream_answers(answered)
        for outcome in (world.respond(stream=False), world.chat(stream=False)):
            assert outcome.error is not None
            assert (outcome.http, outcome.error["code"]) == (404, "model_not_found")
            message = outcome.error["message"]
            assert message.startswith("The model m does not exist.")
            assert all(name in message for name in names[:20])
            assert ("and 30 more" in message) == (count == 50)
