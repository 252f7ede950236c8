"""Answers of Responses upstreams in the public shapes of gateways, and refusals of vendors."""

from __future__ import annotations

import json
from typing import Any

from support.misbehaving_upstream import CUT, Behaviour
from support.scenario import (
    DONE,
    Json,
    Scenario,
    answer_hello,
    body_of,
    data,
    stream_of,
)
from support.upstream_answers import C1, C2, ONE, TOOLS, TWO

HELLO = "Hello there."
PART: Json = {"type": "output_text", "text": HELLO, "annotations": []}
MESSAGE: Json = {"type": "message", "id": "m", "role": "assistant", "content": [PART]}
CALL: Json = {"type": "function_call", "id": "f", "call_id": "c", "name": "lookup"}


def event(kind: str, **fields: Any) -> bytes:
    return b"event: " + kind.encode() + b"\n" + data({"type": kind, **fields})


def delta(words: str, **fields: Any) -> bytes:
    return event("response.output_text.delta", item_id="m", output_index=0, delta=words, **fields)


def completed(*output: Any, **fields: Any) -> bytes:
    response = {"status": "completed", "output": list(output), **fields}
    return event("response.completed", response=response)


A, B = delta("Hello"), delta(" there.")
WORDS: dict[str, Behaviour] = {
    "glued-events": stream_of(A.strip() + B.strip() + completed(MESSAGE)),
    "nul-padding": stream_of(b"\0\0", A, b"\0", B, completed(MESSAGE)),
    "cut-behind-the-end": stream_of(A, B, completed(MESSAGE), b'data: {"type":"resp', CUT),
    "output-as-text": body_of({"status": "completed", "output": json.dumps([MESSAGE])}),
    "output-in-lists": body_of({"status": "completed", "output": [[MESSAGE]]}),
    "status-upper": body_of({"status": "COMPLETED", "output": [MESSAGE]}),
    "codex-rate-limits": stream_of(
        event("codex.rate_limits", rate_limits={"primary": {}}), A, B, completed(MESSAGE)
    ),
    "azure-filters": stream_of(A, B, completed(MESSAGE, content_filters=[{"blocked": False}])),
    "openrouter-keepalive": stream_of(
        b": OPENROUTER PROCESSING\n\n", A, B, completed(MESSAGE), DONE
    ),
    "vllm-sequence-from-zero": stream_of(
        event("response.created", sequence_number=0, response={"status": "in_progress"}),
        delta("Hello", sequence_number=0),
        delta(" there.", sequence_number=0),
        completed(MESSAGE),
    ),
    "sglang-ids-change": stream_of(
        event("response.output_item.added", output_index=0, item={**MESSAGE, "content": []}),
        event("response.output_text.delta", item_id="a", output_index=0, delta="Hello"),
        event("response.output_text.delta", item_id="b", output_index=0, delta=" there."),
        completed({**MESSAGE, "id": "c"}),
    ),
    "llama.cpp-no-indexes": stream_of(
        event("response.output_text.delta", item_id="m", delta="Hello"),
        event("response.output_text.delta", item_id="m", delta=" there."),
        completed(MESSAGE),
    ),
    "ollama-created-late": stream_of(
        A, event("response.created", response={}), B, completed(MESSAGE)
    ),
    "litellm-output-empty": stream_of(A, B, completed()),
    "lm-studio-done-text": stream_of(
        A,
        B,
        event("response.output_text.done", item_id="m", output_index=0, text=HELLO),
        completed(MESSAGE),
    ),
    "bedrock-incomplete-null": body_of(
        {"status": "completed", "incomplete_details": None, "error": None, "output": [MESSAGE]}
    ),
    "databricks-string": body_of(
        {"status": "completed", "output": [{**MESSAGE, "content": HELLO}]}
    ),
    "perplexity-search-item": body_of(
        {"status": "completed", "output": [{"type": "search_results", "results": []}, MESSAGE]}
    ),
    "qwen-reasoning-first": stream_of(
        event("response.reasoning_summary_text.delta", item_id="r", output_index=0, delta="Hm."),
        event("response.output_text.delta", item_id="m", output_index=1, delta=HELLO),
        completed({"type": "reasoning", "id": "r", "summary": []}, MESSAGE),
    ),
    "gateway-object": body_of({"object": "response", "status": "success", "output": [MESSAGE]}),
    "message-part-text": body_of(
        {
            "status": "completed",
            "output": [{**MESSAGE, "content": [{"type": "text", "text": HELLO}]}],
        }
    ),
    "event-name-only": stream_of(
        *(
            b"event: response.output_text.delta\n" + data({"output_index": 0, "delta": it})
            for it in ("Hello", " there.")
        ),
        b"event: response.completed\n" + data({"response": {"status": "completed"}}),
    ),
}
FAILED: dict[str, tuple[Behaviour, str]] = {
    "last-error": (
        stream_of(A, event("response.failed", response={"last_error": {"message": "No GPU"}})),
        "No GPU",
    ),
    "status-details": (
        stream_of(
            A,
            event("response.failed", response={"status_details": {"error": {"message": "No GPU"}}}),
        ),
        "No GPU",
    ),
    "failure-of-its-own": (stream_of(A, data({"retcode": 1, "retmsg": "No GPU"}), DONE), "No GPU"),
    "no-place": (body_of({"status": "completed", "output": [{"words": HELLO}]}), "no answer"),
    "no-output": (body_of({"status": "completed", "id": "r"}), "no answer"),
    "message-of-words": (
        body_of({"status": "completed", "output": [{"type": "message", "words": HELLO}]}),
        "no answer",
    ),
    "chat-completion": (
        body_of({"choices": [{"message": {"content": HELLO}, "finish_reason": "stop"}]}),
        "so set kind = ",
    ),
    "chat-chunks": (
        stream_of(data({"choices": [{"index": 0, "delta": {"content": HELLO}}]}), DONE),
        "so set kind = ",
    ),
    "failed-status": (
        body_of({"status": "failed", "error": {"message": "no memory"}, "output": []}),
        "no memory",
    ),
    "error-event": (stream_of(A, event("error", message="no memory", code="x")), "no memory"),
    "exception": (stream_of(A, event("exception", message="Too many tokens")), "Too many tokens"),
    "cut": (stream_of(A, CUT), ""),
    "detail": (body_of({"detail": "Not here"}), "Not here"),
}
CALLS: dict[str, tuple[Behaviour, list[tuple[str, str]]]] = {
    "name-with-markup": (
        body_of({"output": [{**CALL, "name": "lookup<|channel|>json", "arguments": C1}]}),
        ONE,
    ),
    "name-with-namespace": (
        stream_of(completed({**CALL, "name": "functions.lookup", "arguments": C1})),
        ONE,
    ),
    "arguments-in-python": (body_of({"output": [{**CALL, "arguments": "{'c':1}"}]}), ONE),
    "arguments-in-a-fence": (
        stream_of(completed({**CALL, "arguments": f"```json\n{C1}\n```"})),
        ONE,
    ),
    "arguments-null-then-done": (
        stream_of(
            event("response.output_item.added", output_index=0, item={**CALL, "arguments": None}),
            event("response.output_item.done", output_index=0, item={**CALL, "arguments": C1}),
            completed({**CALL, "arguments": C1}),
        ),
        ONE,
    ),
    "tool_use": (
        body_of(
            {
                "status": "completed",
                "output": [{"type": "tool_use", "id": "t", "name": "lookup", "input": {"c": 1}}],
            }
        ),
        ONE,
    ),
    "two-without-ids": (
        body_of(
            {
                "status": "completed",
                "output": [
                    {"type": "function_call", "name": "lookup", "arguments": C1},
                    {"type": "function_call", "name": "lookup", "arguments": C2},
                ],
            }
        ),
        TWO,
    ),
}
#: What vendors say where they refuse, and the code and words that a client gets.
REFUSALS: dict[str, tuple[int, Any, int, str, str]] = {
    "mistral": (
        422,
        {"object": "error", "message": {"detail": [{"msg": "Extra inputs here", "loc": ["x"]}]}},
        400,
        "",
        "Extra inputs here",
    ),
    "anthropic": (
        429,
        {"type": "error", "error": {"type": "rate_limit_error", "message": "Slow down"}},
        429,
        "rate_limit_exceeded",
        "Slow down",
    ),
    "vertex": (
        429,
        [{"error": {"code": 429, "message": "Quota gone", "status": "RESOURCE_EXHAUSTED"}}],
        429,
        "rate_limit_exceeded",
        "Quota gone",
    ),
    "bedrock": (429, {"message": "Too many requests now"}, 429, "rate_limit_exceeded", "Too many"),
    "cohere": (400, {"message": "invalid request: no words"}, 400, "", "no words"),
    "hunyuan": (400, {"Response": {"Error": {"Message": "bad thing"}}}, 400, "", "bad thing"),
    "dashscope": (400, {"code": "InvalidParameter", "message": "bad one"}, 400, "", "bad one"),
    "ollama": (404, {"error": "model 'm' not found"}, 404, "model_not_found", "not found"),
    "databricks": (
        400,
        {"error_code": "BAD_REQUEST", "message": "bad one"},
        400,
        "",
        "bad one",
    ),
    "together": (
        400,
        {"error": {"message": "Input validation error", "type": "invalid_request_error"}},
        400,
        "",
        "Input validation error",
    ),
    "tgi": (
        422,
        {"error": "Input validation error: `x` must be", "error_type": "validation"},
        400,
        "",
        "must be",
    ),
    "litellm": (
        400,
        {"error": {"message": "litellm.BadRequestError: odd", "code": "400"}},
        400,
        "",
        "litellm.BadRequestError",
    ),
    "azure-filter": (
        400,
        {"error": {"code": "content_filter", "message": "Filtered by policy", "status": 400}},
        400,
        "",
        "Filtered by policy",
    ),
    "fireworks": (
        400,
        {
            "error": {
                "object": "error",
                "type": "invalid_request_error",
                "message": "The prompt is too long: 9000, model maximum context length: 8192",
            }
        },
        400,
        "context_length_exceeded",
        "too long",
    ),
    "deepinfra": (
        400,
        {
            "detail": {
                "error": "This model's maximum context length is 8192 tokens."
                " However, you requested 9000 tokens"
            }
        },
        400,
        "context_length_exceeded",
        "8192",
    ),
    "cerebras": (
        400,
        {
            "message": "Please reduce the length of the messages or completion."
            " Current length is 9000 while limit is 8192",
            "code": "context_length_exceeded",
        },
        400,
        "context_length_exceeded",
        "reduce",
    ),
    "bedrock-long": (
        400,
        {"message": "Input is too long for requested model."},
        400,
        "context_length_exceeded",
        "too long",
    ),
    "vertex-long": (
        400,
        [
            {
                "error": {
                    "code": 400,
                    "message": "The input token count (9000) exceeds the maximum number of tokens"
                    " allowed (8192).",
                }
            }
        ],
        400,
        "context_length_exceeded",
        "9000",
    ),
    "hunyuan-long": (
        400,
        {"error": {"message": "Input token length too long, exceeds limit 8192"}},
        400,
        "context_length_exceeded",
        "8192",
    ),
    "glm-long": (
        400,
        {"error": {"code": "1261", "message": "Prompt exceeds max length"}},
        400,
        "context_length_exceeded",
        "max length",
    ),
}


def is_streamed(behaviour: Behaviour) -> bool:
    return b"event-stream" in b"".join(it for it in behaviour if isinstance(it, bytes))


def test_what_responses_gateways_send_is_what_they_say(responses_world: Scenario) -> None:
    world, wrong = responses_world, []
    for name, behaviour in WORDS.items():
        world.upstream_answers(lambda _, it=behaviour: it)  # type: ignore[misc]
        stream = is_streamed(behaviour)
        response, completion = world.respond(stream=stream), world.chat(stream=stream)
        found = (response.status, response.text, completion.status, completion.text)
        if found != ("completed", HELLO, "stop", HELLO):
            wrong.append((name, found, response.error))
    assert not wrong, "\n".join(map(str, wrong))


def test_what_responses_gateways_break_is_not_completed(responses_world: Scenario) -> None:
    world, wrong = responses_world, []
    for name, (behaviour, words) in FAILED.items():
        world.upstream_answers(lambda _, it=behaviour: it)  # type: ignore[misc]
        stream = is_streamed(behaviour)
        for outcome in (world.respond(stream=stream), world.chat(stream=stream)):
            said = json.dumps(outcome.error)
            if outcome.status not in ("failed", "error") or words not in said:
                wrong.append((name, outcome.status, outcome.text, said))
    assert not wrong, "\n".join(map(str, wrong))


def test_what_responses_gateways_call_is_what_was_meant(responses_world: Scenario) -> None:
    world, wrong = responses_world, []
    for name, (behaviour, calls) in CALLS.items():
        world.upstream_answers(lambda _, it=behaviour: it)  # type: ignore[misc]
        outcome = world.respond(stream=is_streamed(behaviour), tools=TOOLS)
        if outcome.calls != calls or len(set(outcome.call_ids)) != len(calls):
            wrong.append((name, outcome.status, outcome.calls, outcome.text, outcome.error))
    assert not wrong, "\n".join(map(str, wrong))


def test_refusals_of_vendors_are_shown_in_their_words(world: Scenario) -> None:
    wrong = []
    for name, (status, body, expected, code, words) in REFUSALS.items():
        refusal = body_of(body, status)
        world.upstream_answers(lambda _, it=refusal: it)  # type: ignore[misc]
        for outcome in (world.respond(stream=False), world.chat(stream=False)):
            error = outcome.error or {}
            is_right = outcome.http == expected and words in str(error.get("message"))
            if not is_right or (code and error.get("code") != code):
                wrong.append((name, outcome.http, error))
    world.upstream_answers(answer_hello)
    assert not wrong, "\n".join(map(str, wrong))
