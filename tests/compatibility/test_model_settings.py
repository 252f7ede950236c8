"""Settings of one model: what its upstream gets, and which other model answers in its place."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from antiphon.models.fallback import FallbackModel
from antiphon.models.openai.chat_completions import ChatCompletionsModel
from antiphon.models.openai.responses import ResponsesModel
from antiphon.models.retry import RetryPolicy
from antiphon.models.scripted import ScriptedModel
from antiphon.turn.protocols import Model, ModelInfo, Token
from support.misbehaving_upstream import CUT, Behaviour, Request
from support.scenario import DONE, body_of, chunk, end, scenario, stream_of, text, whole
from support.strict_upstreams import answer_hello

Json = dict[str, Any]
ONCE = RetryPolicy(max_retries=0)


@pytest.mark.parametrize("kind", ["chat_completions", "responses"])
def test_extra_fields_are_in_every_request(kind: str) -> None:
    extra: Json = {"top_k": 20, "thinking": {"type": "disabled"}, "temperature": 0.1}
    with scenario(kind, extra=extra) as world:
        world.upstream_answers(lambda request: answer_hello(request.json))
        world.respond(stream=False).expect("completed", "Hello")
        assert world.requests[-1] | extra == world.requests[-1]
        # What a request says itself counts.
        world.respond(stream=False, top_k=1, temperature=1.0).expect("completed", "Hello")
        sent = world.requests[-1]
        assert (sent["top_k"], sent["temperature"]) == (1, 1.0)
        assert sent["thinking"] == extra["thinking"]


def test_headers_are_in_every_request() -> None:
    got: list[Mapping[str, str]] = []

    def behave(request: Request) -> Behaviour:
        got.append({name.lower(): value for name, value in request.headers.items()})
        return answer_hello(request.json)

    headers = {"X-Title": "my app", "authorization": "Token abc", "User-Agent": "app/1"}
    with scenario(api_key="sk-unused-0123456789", headers=headers) as world:
        world.upstream_answers(behave)
        world.respond().expect("completed", "Hello")
        assert got[0]["x-title"] == "my app"
        assert got[0]["authorization"] == "Token abc"
        assert got[0]["user-agent"] == "app/1"
        assert got[0]["content-type"] == "application/json"


def test_the_values_of_headers_are_not_shown_in_errors() -> None:
    secret = "azure-key-0123456789"
    with scenario(headers={"api-key": secret}) as world:
        world.upstream_sends(body_of({"error": {"message": f"{secret} is not allowed."}}, 400))
        outcome = world.respond(stream=False)
        assert secret not in str(outcome.error)


# ---- fallbacks


def two_upstreams(kind: str = "chat_completions") -> Callable[[str], Mapping[str, Model]]:
    """``m``, which falls back to ``b`` and then to ``c``, all at one upstream."""
    make = ChatCompletionsModel if kind == "chat_completions" else ResponsesModel

    def models(url: str) -> Mapping[str, Model]:
        made: dict[str, Model] = {
            name: make(ModelInfo(name), url, upstream_name=f"up-{name}", retry=ONCE)
            for name in ("m", "b", "c")
        }
        made["m"] = FallbackModel([(name, made[name]) for name in ("m", "b", "c")])
        return made

    return models


def failing(failure: Behaviour, *names: str) -> Callable[[Request], Behaviour]:
    def behave(request: Request) -> Behaviour:
        return failure if request.json["model"] in names else answer_hello(request.json)

    return behave


FAILURES: dict[str, Behaviour] = {
    "over-its-limits": body_of({"error": {"message": "Slow down."}}, 429),
    "no-quota": body_of({"error": {"message": "No.", "code": "insufficient_quota"}}, 429),
    "unavailable": body_of({"error": {"message": "Loading."}}, 503),
    "overloaded": body_of({"error": {"message": "Overloaded."}}, 529),
    "bad-gateway": body_of(b"<html></html>", 502, "text/html"),
    "payment": body_of({"error": {"message": "Pay."}}, 402),
    "cut": [CUT],
    "timeout": body_of(b"", 504),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_the_next_model_answers(failure: str, stream: bool) -> None:
    with scenario(models=two_upstreams()) as world:
        world.upstream_answers(failing(FAILURES[failure], "up-m"))
        outcome = world.respond(stream=stream, model="m").expect("completed", "Hello")
        assert outcome.body["model"] == "b"
        world.chat(stream=stream).expect("stop", "Hello")
        world.upstream_answers(failing(FAILURES[failure], "up-m", "up-b"))
        outcome = world.respond(stream=stream, model="m").expect("completed", "Hello")
        assert outcome.body["model"] == "c"
        # A conversation goes on, by whoever answers.
        world.upstream_answers(lambda request: answer_hello(request.json))
        again = world.respond(
            "And?", stream=stream, model="m", previous_response_id=outcome.body["id"]
        )
        assert again.expect("completed", "Hello").body["model"] == "m"
        assert [one["content"] for one in world.requests[-1]["messages"]] == ["Hi", "Hello", "And?"]


def test_a_responses_upstream_falls_back_too() -> None:
    with scenario(models=two_upstreams("responses")) as world:
        world.upstream_answers(failing(FAILURES["unavailable"], "up-m"))
        outcome = world.respond(stream=False, model="m").expect("completed", "Hello")
        assert outcome.body["model"] == "b"


def test_chunks_end_with_the_name_of_who_answered() -> None:
    with scenario(models=two_upstreams()) as world:
        world.upstream_answers(failing(FAILURES["unavailable"], "up-m"))
        assert world.chat().expect("stop", "Hello").events[-1]["model"] == "b"
        body = world.chat(stream=False).expect("stop", "Hello").body
        assert body["model"] == "b"


@pytest.mark.parametrize(
    "refusal",
    [
        body_of({"error": {"message": "Bad."}}, 400),
        body_of({"error": {"message": "Key."}}, 401),
        body_of({"error": {"message": "model not found"}}, 404),
        body_of({"error": {"message": "gone", "code": "content_filter"}}, 422),
    ],
    ids=["400", "401", "404", "422"],
)
def test_what_a_person_has_to_see_is_no_reason_to_fall_back(refusal: Behaviour) -> None:
    with scenario(models=two_upstreams()) as world:
        world.upstream_answers(failing(refusal, "up-m"))
        assert world.respond(stream=False, model="m").status == "error"
        assert len(world.requests) == 1


def test_no_fallback_after_the_first_word() -> None:
    with scenario(models=two_upstreams()) as world:
        world.upstream_answers(failing(stream_of(text("Hel"), CUT), "up-m"))
        outcome = world.respond(model="m").expect("failed", "Hel")
        assert (outcome.body["model"], len(world.requests)) == ("m", 1)


class _Spelling(ScriptedModel):
    """A model whose tokens are bytes."""

    async def tokenize(self, model: str, text: str) -> Sequence[Token]:
        return [Token(byte, bytes([byte])) for byte in text.encode()]


async def test_tokens_are_those_of_the_first_model() -> None:
    first = FallbackModel([("m", _Spelling()), ("b", ScriptedModel())])
    assert await first.tokenize("m", "h") == [Token(104, b"h")]
    assert await FallbackModel([("m", ScriptedModel()), ("b", first)]).tokenize("m", "h") is None


def saying(**messages: str) -> Callable[[Request], Behaviour]:
    """Each model's refusal by its name; a 503, but for a wrong key."""

    def behave(request: Request) -> Behaviour:
        words = messages[request.json["model"].removeprefix("up-")]
        return body_of({"error": {"message": words}}, 401 if "key" in words else 503)

    return behave


def message_of(error: dict[str, Any] | None) -> str:
    assert error is not None
    return str(error["message"])


@pytest.mark.parametrize("last", ["Out of memory.", "No such key."])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_where_all_fail_the_last_failure_names_those_before(stream: bool, last: str) -> None:
    with scenario(models=two_upstreams()) as world:
        world.upstream_answers(saying(m="Loading.", b="Overloaded.", c=last))
        error = world.respond(stream=stream, model="m").error
        message = message_of(error)
        assert all(
            message.count(words) == 1 for words in ("Loading.", "Overloaded.", last, "'m'", "'b'")
        )
        assert message.index(last) < message.index("'m'") < message.index("'b'")


def test_what_is_no_reason_to_fall_back_names_what_failed_before() -> None:
    with scenario(models=two_upstreams()) as world:
        world.upstream_answers(saying(m="Loading.", b="No such key.", c="Never asked."))
        error = world.respond(stream=False, model="m").error
        assert len(world.requests) == 2
        assert re.search(r"No such key\..* Before that 'm' failed: .*Loading\.$", message_of(error))


def test_where_all_fail_the_last_status_counts() -> None:
    with scenario(models=two_upstreams()) as world:
        world.upstream_answers(failing(FAILURES["over-its-limits"], "up-m", "up-b", "up-c"))
        outcome = world.respond(stream=False, model="m")
        assert (outcome.http, len(world.requests)) == (429, 3)


def test_each_round_of_tools_asks_the_first_model_again() -> None:
    function = {"name": "now", "arguments": "{}"}
    made = chunk({"tool_calls": [{"index": 0, "id": "call_1", "function": function}]})
    calls = stream_of(made, end("tool_calls"), DONE)
    with scenario(models=two_upstreams()) as world:
        world.upstream_answers(
            lambda it: FAILURES["unavailable"] if it.json["model"] == "up-m" else calls
        )
        tool = {"type": "function", "name": "now", "parameters": {}}
        first = world.respond(model="m", tools=[tool]).expect("completed")
        assert first.body["model"] == "b"
        world.upstream_answers(lambda it: whole({"content": it.json["model"]}))
        output = {"type": "function_call_output", "call_id": "call_1", "output": "Now."}
        again = world.respond([output], model="m", previous_response_id=first.body["id"])
        assert again.expect("completed", "up-m").body["model"] == "m"
