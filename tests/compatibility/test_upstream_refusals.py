"""What upstreams refuse: too much input, errors in every shape, and what is worth a retry."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest

from antiphon.models.openai.chat_completions import ChatCompletionsModel
from antiphon.models.retry import RetryPolicy
from antiphon.turn.protocols import ModelInfo
from support.misbehaving_upstream import Behaviour, answer
from support.scenario import (
    DONE,
    Json,
    Scenario,
    body_of,
    data,
    end,
    scenario,
    stream_of,
    text,
    whole,
)

KEY = "sk-0123456789abcdefghij"
GOOD = stream_of(text("Hello there."), end(), DONE)

RESPONSE = {
    "status": "completed",
    "output": [
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Hello there."}],
        }
    ],
}


@pytest.fixture(scope="module")
def world() -> Iterator[Scenario]:
    def models(url: str) -> dict[str, ChatCompletionsModel]:
        return {"m": ChatCompletionsModel(ModelInfo("m"), url, KEY, retry=RetryPolicy(base=0.0))}

    with scenario(models=models) as opened:
        yield opened


# ---- too much input

TOO_LONG = {
    "too-long-vllm": "You passed 7001 input tokens and requested 2000 output tokens. However, the "
    "model's context length is only 8192 tokens.",
    "too-long-moonshot": "Your request exceeded model token limit: 8192",
    "too-long-sglang": "The input (9000 tokens) is longer than the model's context length (8192 "
    "tokens).",
    "too-long-dashscope": "Range of input length should be [1, 8192]",
    "too-long-minimax": "context window exceeds limit (2013)",
    "too-long-tgi": "`inputs` tokens + `max_new_tokens` must be <= 8192",
    "too-long-ark": "Total tokens of image and text exceed max message tokens",
    "too-long-openai": "This model's maximum context length is 8192 tokens. However, your "
    "messages resulted in 9000 tokens.",
    "too-long-anthropic": "prompt is too long: 9000 tokens > 8192 maximum",
    "too-long-gemini": "The input token count (9000) exceeds the maximum number of tokens allowed "
    "(8192).",
}


def long_refusals(message: str) -> list[Behaviour]:
    """The same refusal in the shapes of several servers."""
    return [
        body_of({"error": {"message": message, "type": "invalid_request_error"}}, 400),
        body_of({"error": message, "error_type": "validation"}, 422),
        body_of({"object": "error", "message": message, "code": 400}, 400),
        body_of({"detail": [{"loc": ["body"], "msg": message}]}, 422),
        body_of(message.encode(), 400, "text/plain"),
        body_of({"error": {"message": message, "code": 500}}, 500),
        body_of({"error": {"message": message, "code": 400}}),
        stream_of(data({"error": {"message": message, "code": "400"}})),
        body_of(
            {
                "error": {
                    "message": "Provider returned error",
                    "code": 400,
                    "metadata": {"raw": json.dumps({"error": {"message": message}})},
                }
            },
            400,
        ),
    ]


@pytest.mark.parametrize("name", TOO_LONG)
def test_too_much_input_is_one_error_and_truncated(world: Scenario, name: str) -> None:
    for behaviour in long_refusals(TOO_LONG[name]):
        for ask in (world.respond, world.chat):
            world.upstream_sends(behaviour)
            failed = ask()
            assert failed.error
            assert failed.error["code"] == "context_length_exceeded"
            assert TOO_LONG[name] in failed.error["message"].replace("\\", "")
    # With a history, the request is sent again without its oldest turns.
    first = GOOD
    world.upstream_sends(first, GOOD, long_refusals(TOO_LONG[name])[0], GOOD)
    one = world.respond("first").expect("completed")
    two = world.respond("second", previous_response_id=one.body["id"]).expect("completed")
    last = world.respond("third", previous_response_id=two.body["id"], truncation="auto")
    last.expect("completed", "Hello there.")
    assert len(world.requests[-1]["messages"]) < len(world.requests[-2]["messages"])


@pytest.mark.parametrize("kind", ["chat_completions", "responses"])
def test_truncation_acts_on_every_shape_of_an_overflow(kind: str) -> None:
    good = GOOD if kind == "chat_completions" else body_of(RESPONSE)
    field = "messages" if kind == "chat_completions" else "input"
    words = list(TOO_LONG.values())
    with scenario(kind) as world:
        world.upstream_sends(good, good)
        one = world.respond("first", stream=False).expect("completed")
        two = world.respond("second", stream=False, previous_response_id=one.body["id"])
        history = {"previous_response_id": two.body["id"], "truncation": "auto"}
        for number in range(len(long_refusals(""))):
            refusal = long_refusals(words[number % len(words)])[number]
            world.upstream_sends(refusal, good)
            last = world.respond("third", stream=number % 2 == 0, **history)
            last.expect("completed", "Hello there.")
            whole, shorter = world.requests[-2:]
            assert len(whole[field]) == 5
            assert len(shorter[field]) < 5
            assert shorter[field][-1] == whole[field][-1]
            assert last.body["truncation"] == "auto"
        # With nothing left to leave out it is the error that it is.
        world.upstream_sends(*[long_refusals(words[0])[0]] * 3)
        failed = world.respond("third", stream=False, **history)
        assert failed.error
        assert (failed.http, failed.error["code"]) == (400, "context_length_exceeded")


def test_truncation_acts_on_a_history_that_comes_as_one_input() -> None:
    refusal = long_refusals("Input is too long: 9000 tokens, the limit is 7000")[0]
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c", "output": "found"}
    history: list[Json] = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "first " * 50},
        call,
        output,
        {"role": "assistant", "content": "One."},
        {"role": "user", "content": "second " * 50},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": "third"},
    ]
    with scenario() as world:
        for stream in (True, False):
            good = GOOD if stream else whole({"content": "Hello there."})
            world.upstream_sends(refusal, good)
            outcome = world.respond(history, stream=stream, truncation="auto")
            outcome.expect("completed", "Hello there.")
            sent = world.requests[-1]["messages"]
            assert [one["role"] for one in sent] == ["system", "user", "assistant", "user"]
            assert sent[1]["content"].startswith("second")
            path = f"/v1/responses/{outcome.body['id']}"
            assert world.server.get(f"{path}/context").json["messages"] == sent
            assert len(world.server.get(f"{path}/input_items").json["data"]) == len(history)
            # It is one turn of a chain as any other.
            world.upstream_sends(good)
            world.respond("fourth", stream=stream, previous_response_id=outcome.body["id"])
            assert len(world.requests[-1]["messages"]) == len(history) + 2
        # Of a single exchange nothing can go.
        world.upstream_sends(refusal)
        failed = world.respond("first", stream=False, truncation="auto")
        assert failed.error
        assert failed.error["code"] == "context_length_exceeded"


def test_another_limit_is_another_error(world: Scenario) -> None:
    message = "max_tokens is too large: 20000. This model supports at most 16384 completion tokens."
    world.upstream_sends(body_of({"error": {"message": message}}, 400))
    failed = world.respond(truncation="auto")
    assert failed.error
    assert failed.error["code"] == "invalid_value"
    assert failed.error["message"] == message


# ---- what errors say

S = "The harbour is closed."
#: Bodies by name, which hold the words.
WORDS: dict[str, Any] = {
    "words-openai": {"error": {"message": S, "type": "x", "param": None, "code": None}},
    "words-detail-list": {"detail": [{"msg": S}]},
    "words-object-error": {"object": "error", "message": S},
    "words-list": [{"error": {"message": S}}],
    "words-error-string": {"error": S},
    "words-errors": {"errors": [{"message": S}]},
    "words-plain": S.encode(),
    "words-latin-1": ("Café: " + S).encode("latin-1"),
    "words-latin-1-json": json.dumps({"error": f"Café: {S}"}, ensure_ascii=False).encode("latin-1"),
    "words-json-string": S,
    "words-list-of-strings": [S],
    "words-list-of-many": [{"message": "Sorry."}, {"message": S}],
    "words-errors-of-strings": {"errors": [S]},
    "words-errors-by-field": {"errors": {"message": S}},
    "words-detail": {"detail": S},
    "words-detail-object": {"detail": {"error": S, "code": 7}},
    "words-detail-with-place": {"detail": [{"loc": ["body", "top_k"], "msg": S, "type": "y"}]},
    "words-message": {"code": 500, "message": S},
    "words-msg": {"code": 500, "msg": S},
    "words-error-msg": {"error_code": 336007, "error_msg": S},
    "words-base-resp": {"choices": None, "base_resp": {"status_code": 1008, "status_msg": S}},
    "words-of-spring": {"status": 400, "error": "Bad Request", "message": S, "path": "/v1"},
    "words-of-google": {
        "error": {
            "code": 400,
            "message": S,
            "status": "INVALID_ARGUMENT",
            "details": [{"@type": "x", "reason": "Y"}],
        }
    },
    "words-of-a-router": {
        "error": {
            "message": "Provider returned error",
            "code": 400,
            "metadata": {"raw": S, "provider_name": "P"},
        }
    },
    "words-of-a-problem": {"type": "about:blank", "title": "Bad", "status": 400, "detail": S},
    "words-of-aws": {"__type": "ValidationException", "Message": S},
    "words-twice-nested": {"error": {"error": {"message": S}}},
    "words-in-a-string-of-json": {"error": {"message": json.dumps({"error": {"message": S}})}},
    "words-message-object": {"error": {"message": {"deep": S}}},
    "words-message-list": {"message": [S, "and so on"]},
    "words-as-event": data({"error": {"message": S}}),
    "words-as-named-event": b"event: error\n" + data({"message": S}) + DONE,
    "words-nowhere": {"oops": {"why": S}},
    "words-of-a-router-nested": {
        "error": {"message": "Provider returned error", "metadata": {"raw": {"error": S}}}
    },
    "words-of-xml": b"<?xml version='1.0'?><Error><Code>X</Code><Message>%b</Message></Error>"
    % S.encode(),
    "words-bom": b"\xef\xbb\xbf" + json.dumps({"error": S}).encode(),
    "words-json-cut": b'{"error":{"message":"' + S.encode(),
}


@pytest.mark.parametrize("name", WORDS)
def test_what_an_upstream_says_is_in_the_error(world: Scenario, name: str) -> None:
    for status in (400, 404, 414, 418, 422, 451, 501):
        for kind in ("application/json", "text/plain; charset=iso-8859-1"):
            world.upstream_sends(body_of(WORDS[name], status, kind))
            failed = world.respond(stream=False)
            assert failed.error
            assert S in failed.error["message"]
    for ask in (world.respond, world.chat):
        world.upstream_sends(body_of(WORDS[name], 400))
        failed = ask()
        assert failed.error
        assert S in failed.error["message"]


@pytest.mark.parametrize(
    "page",
    [
        b"<!DOCTYPE html><html><body>nginx</body></html>",
        b"\n\n<html>nginx</html>",
        b'\xef\xbb\xbf<?xml version="1.0"?><Error>nginx</Error>',
    ],
)
def test_of_a_page_nothing_is_quoted(page: bytes) -> None:
    with scenario() as world:
        for status in (400, 403, 502):
            world.upstream_sends(*[body_of(page, status, "text/html")] * (1 if status < 500 else 3))
            failed = world.respond()
            assert failed.error
            assert str(status) in failed.error["message"]
            assert "nginx" not in failed.error["message"]


def test_a_compressed_error_is_read(world: Scenario) -> None:
    body = gzip.compress(json.dumps({"error": S}).encode())
    for headers in ({"Content-Encoding": "gzip"}, {}):
        world.upstream_sends(answer(body, 400, headers))
        failed = world.respond()
        assert failed.error
        assert failed.error["message"] == S


def test_what_has_no_words_is_quoted_shortened_and_without_keys(world: Scenario) -> None:
    for body in (
        {"oops": {"token": KEY, "why": "x" * 5000}},
        {"error": {"seen": f"Bearer {KEY}", "rest": ["x"] * 5000}},
        f"{KEY} {'x' * 5000}".encode(),
    ):
        world.upstream_sends(body_of(body, 400))
        failed = world.respond()
        assert failed.error
        assert "[key]" in failed.error["message"]
        assert KEY not in failed.error["message"]
        assert len(failed.error["message"]) < 1100


def test_a_validation_error_names_the_field(world: Scenario) -> None:
    body = {"detail": [{"loc": ["body", "messages", 0, "role"], "msg": "Bad role."}]}
    world.upstream_sends(body_of(body, 422))
    failed = world.chat()
    assert failed.http == 400
    assert failed.error
    assert (failed.error["message"], failed.error["param"]) == ("Bad role.", "messages.0.role")


# ---- what is tried again

RETRIED: dict[str, Behaviour] = {
    "status-529-then-fine": body_of({"error": {"message": "Overloaded"}}, 529),
    "status-503-loading": body_of({"error": {"message": "Loading model", "code": 503}}, 503),
    "status-425-then-fine": body_of({"error": {"message": "Too early"}}, 425),
    "status-408": body_of(b"", 408),
    **{
        f"status-{status}": body_of({"error": {"message": "Not now."}}, status)
        for status in (409, 421, 424, 498, 499)
    },
    "status-429": body_of({"error": {"message": "Slow down."}}, 429),
    "status-500": body_of(b"", 500),
    "status-502-page": body_of(b"<html>", 502, "text/html"),
    "status-520": body_of(b"error code: 520", 520, "text/plain"),
    "status-504": body_of(b"", 504),
    "inside-200-overloaded": body_of({"error": {"type": "overloaded_error", "message": "Busy"}}),
    "inside-stream-529": stream_of(data({"error": {"code": 529, "message": "Busy"}})),
    "inside-stream-425": stream_of(data({"error": {"code": "425", "message": "Early"}})),
    "inside-stream-exhausted": stream_of(
        data({"error": {"status": "RESOURCE_EXHAUSTED", "message": "Busy"}})
    ),
}


@pytest.mark.parametrize("name", RETRIED)
def test_what_passes_is_tried_again(world: Scenario, name: str) -> None:
    for stream in (True, False):
        world.upstream_sends(RETRIED[name], GOOD, RETRIED[name], RETRIED[name], GOOD)
        world.respond(stream=stream).expect("completed", "Hello there.")
        world.chat(stream=stream).expect("stop", "Hello there.")


def test_a_failure_that_is_stored_is_not_worth_a_retry_by_the_client(world: Scenario) -> None:
    for status in (429, 503, 529, 500):
        refused = answer(
            json.dumps({"error": {"message": "Later."}}).encode(), status, {"Retry-After": "31"}
        )
        for ask, stream in ((world.respond, False), (world.chat, True), (world.chat, False)):
            world.upstream_sends(refused)
            failed = ask(stream=stream, store=True)
            assert failed.answer
            headers = failed.answer.headers
            assert failed.http >= 429
            assert headers["retry-after"] == "31"
            assert headers["x-should-retry"] == "false"


def test_an_upstream_may_forbid_retries(world: Scenario) -> None:
    world.upstream_sends(answer(b"{}", 500, {"x-should-retry": "false"}))
    asked = len(world.requests)
    assert world.respond().status == "failed"
    assert len(world.requests) == asked + 1
