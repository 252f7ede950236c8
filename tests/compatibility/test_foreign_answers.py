"""Answers in the public shapes of vendors, gateways and local servers, and what they say.

Each is asked for over both APIs. What has one meaning is read; what holds no answer fails.
"""

from __future__ import annotations

import json
from typing import Any, TypeAlias

from support.misbehaving_upstream import Behaviour
from support.scenario import (
    DONE,
    Json,
    Scenario,
    body_of,
    call,
    chunk,
    data,
    end,
    stream_of,
    text,
    whole,
)
from support.upstream_answers import C1, C2, ONE, TWO, ask_both, entry, first, of_calls, whole_calls

Answers: TypeAlias = dict[str, Behaviour]
Failures: TypeAlias = dict[str, tuple[Behaviour, str]]
Calls: TypeAlias = dict[str, tuple[Behaviour, list[tuple[str, str]]]]

HELLO = "Hello there."
A, B = text("Hello"), text(" there.")
GOOD = (A, B, end("stop"), DONE)
SAID: Json = {"role": "assistant", "content": HELLO}


def lines(*values: Any, content_type: str = "application/x-ndjson") -> Behaviour:
    """A stream of JSON objects, one a line."""
    parts = [json.dumps(value).encode() + b"\n" for value in values]
    return stream_of(*parts, content_type=content_type)


def events(*values: Any) -> Behaviour:
    return stream_of(*map(data, values), DONE)


def choice(**fields: Any) -> Json:
    return {"choices": [{"index": 0, **fields}]}


def named(name: str, value: Any) -> bytes:
    return b"event: " + name.encode() + b"\n" + data(value)


def ollama(words: str, **fields: Any) -> Json:
    message = {"role": "assistant", "content": words}
    return {"model": "m", "created_at": "2026-01-01T00:00:00Z", "message": message, **fields}


OLLAMA_END: Json = {"done": True, "done_reason": "stop", "prompt_eval_count": 5, "eval_count": 2}
WORDS: Answers = {
    "ollama": body_of(ollama(HELLO, **OLLAMA_END)),
    "ollama-lines": lines(
        ollama("Hello", done=False), ollama(" there.", done=False), ollama("", **OLLAMA_END)
    ),
    "ollama-lines-as-json": lines(
        ollama("Hello", done=False),
        ollama(" there.", **OLLAMA_END),
        content_type="application/json",
    ),
    "ollama-generate": body_of({"model": "m", "response": HELLO, **OLLAMA_END}),
    "ollama-generate-lines": lines(
        {"response": "Hello", "done": False}, {"response": " there.", **OLLAMA_END}
    ),
    "ollama-load": lines(
        ollama("", done=False), ollama(HELLO, done=False), ollama("", **OLLAMA_END)
    ),
    "messages": body_of(choice(messages=SAID, finish_reason="stop")),
    "messages-list": body_of(choice(messages=[SAID], finish_reason="stop")),
    "messages-in-stream": events(
        choice(messages=[{"content": "Hello"}]),
        choice(messages=[{"content": " there."}], finish_reason="stop"),
    ),
    "message-alone": body_of({"message": SAID, "finish_reason": "stop"}),
    "messages-alone": body_of({"messages": [SAID], "finish_reason": "stop"}),
    "messages-with-the-question": body_of(
        {"messages": [{"role": "user", "content": "Hi"}, SAID], "finish_reason": "stop"}
    ),
    "cohere": body_of(
        {
            "id": "x",
            "message": {"role": "assistant", "content": [{"type": "text", "text": HELLO}]},
            "finish_reason": "COMPLETE",
            "usage": {"tokens": {"input_tokens": 5, "output_tokens": 2}},
        }
    ),
    "anthropic": body_of(
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "text", "text": HELLO}],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 5, "output_tokens": 2},
        }
    ),
    "dashscope": body_of(
        {"request_id": "r", "output": choice(message=SAID, finish_reason="stop"), "code": ""}
    ),
    "dashscope-stream": events(
        {"output": choice(message={"content": "Hello"}, finish_reason="null")},
        {"output": choice(message={"content": " there."}, finish_reason="stop")},
    ),
    "hunyuan": body_of({"Response": choice(message=SAID, finish_reason="stop")}),
    "mistral-parts": whole(
        {"content": [{"type": "text", "text": "Hello"}, {"type": "text", "text": " there."}]}
    ),
    "mistral-references": stream_of(
        A,
        chunk({"content": [{"type": "reference", "reference_ids": [0]}]}),
        chunk({"content": [{"type": "text", "text": " there."}]}),
        end("stop"),
        DONE,
    ),
    "mistral-p": stream_of(A, data({**choice(delta={"content": " there."}), "p": "abcd"}), end()),
    "groq-x": stream_of(
        data({**choice(delta={"role": "assistant", "content": ""}), "x_groq": {"id": "r"}}),
        A,
        B,
        data({**choice(delta={}, finish_reason="stop"), "x_groq": {"usage": {"queue_time": 0.1}}}),
        DONE,
    ),
    "together-token": stream_of(
        data(choice(text="Hello", delta={"token_id": 9, "content": "Hello", "role": "assistant"})),
        data(choice(text=" there.", delta={"token_id": 7, "content": " there."})),
        data(choice(text="", delta={"token_id": 2, "content": ""}, finish_reason="eos", seed=7)),
        DONE,
    ),
    "fireworks-token-ids": stream_of(
        data({**choice(delta={"content": HELLO}, token_ids=[1, 2]), "prompt_token_ids": [1]}),
        end("stop"),
        DONE,
    ),
    "openrouter-processing": stream_of(
        b": OPENROUTER PROCESSING\n\n",
        A,
        b": OPENROUTER PROCESSING\n\n",
        B,
        data(
            {**choice(delta={}, finish_reason="stop", native_finish_reason="STOP"), "provider": "x"}
        ),
        DONE,
    ),
    "openrouter-error-null": stream_of(
        A, B, data({**choice(delta={}, finish_reason="stop", error=None), "error": None}), DONE
    ),
    "deepinfra-role-each": stream_of(
        chunk({"role": "assistant", "content": "Hello"}),
        chunk({"role": "assistant", "content": " there."}),
        end("stop"),
        DONE,
    ),
    "vllm-stop-reason": stream_of(A, B, end("stop", stop_reason=128009), DONE),
    "vllm-prompt-logprobs": whole(SAID, prompt_logprobs=None, kv_transfer_params=None),
    "sglang-hidden": stream_of(A, B, end("stop", matched_stop=2, hidden_states=None), DONE),
    "tgi-token": stream_of(
        A, B, data({**choice(delta={}, finish_reason="eos_token"), "system_fingerprint": "3-sha"})
    ),
    "llama.cpp-timings": stream_of(
        A,
        B,
        data({**choice(delta={}, finish_reason="stop"), "timings": {"predicted_ms": 1.5}}),
        DONE,
    ),
    "llama.cpp-progress": stream_of(
        data({**choice(delta={}), "prompt_progress": {"total": 9, "cache": 0}}), *GOOD
    ),
    "llama.cpp-verbose": whole(SAID, __verbose={"content": "no", "tokens": [1, 2]}),
    "lm-studio-stats": whole(SAID, stats={"draft_model": None}, model_info={}, runtime={}),
    "azure-filters": stream_of(
        data({"choices": [], "prompt_filter_results": [{"prompt_index": 0}]}),
        data(
            choice(delta={"content": HELLO}, content_filter_results={"hate": {"filtered": False}})
        ),
        data(choice(delta={}, finish_reason=None, content_filter_offsets={"end_offset": 3})),
        end("stop"),
        DONE,
    ),
    "bedrock-gateway-metrics": stream_of(
        A,
        B,
        data({**choice(delta={}, finish_reason="stop"), "amazon-bedrock-invocationMetrics": {}}),
        DONE,
    ),
    "bedrock-end-turn": whole(SAID, "end_turn"),
    "vertex-array": body_of([{**choice(message=SAID, finish_reason="stop")}]),
    "vertex-role-model": whole({"role": "model", "content": HELLO}, "STOP"),
    "vertex-extra": stream_of(
        chunk({"content": "Hello", "extra_content": {"google": {"thought": False}}}),
        B,
        end("stop"),
        DONE,
    ),
    "databricks-end": whole(SAID, usage={"prompt_tokens": 5, "completion_tokens": None}),
    "databricks-summary": whole(
        {
            "content": [
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
                {"type": "text", "text": HELLO},
            ]
        }
    ),
    "perplexity-both": stream_of(
        data(choice(delta={"content": "Hello"}, message={"content": "Hello"})),
        data(choice(delta={"content": " there."}, message={"content": HELLO})),
        data(choice(delta={"content": ""}, message={"content": HELLO}, finish_reason="stop")),
    ),
    "perplexity-results": whole(SAID, citations=["https://a"], search_results=[{"title": "A"}]),
    "minimax-final": stream_of(
        A,
        B,
        data({**choice(finish_reason="stop", message=SAID), "object": "chat.completion"}),
    ),
    "minimax-flags": stream_of(
        A, B, data({**choice(delta={}, finish_reason="stop"), "input_sensitive": False}), DONE
    ),
    "qwen-usage-first": stream_of(
        data({"choices": [], "usage": None, "object": "chat.completion.chunk"}), *GOOD
    ),
    "qwen-reasoning-null": stream_of(
        chunk({"content": None, "reasoning_content": "Hm."}),
        chunk({"content": HELLO, "reasoning_content": None}),
        end("stop"),
        DONE,
    ),
    "glm-web-search": stream_of(
        A, B, data({**choice(delta={}, finish_reason="stop"), "web_search": [{"link": "x"}]}), DONE
    ),
    "glm-tool-stub": whole({**SAID, "tool_calls": []}, "stop"),
    "hunyuan-note": whole(SAID, note="These words are made by a machine.", search_info=None),
    "doubao-encrypted": whole({**SAID, "encrypted_content": ""}, service_tier="default"),
    "kimi-usage-in-choice": stream_of(
        A, B, end("stop", usage={"prompt_tokens": 5, "completion_tokens": 2}), DONE
    ),
    "kimi-partial": whole({**SAID, "partial": False}),
    "xai-fingerprint": stream_of(A, B, end("stop"), data({"choices": [], "citations": []}), DONE),
    "deepseek-cache": whole(SAID, usage={"prompt_tokens": 5, "prompt_cache_hit_tokens": 4}),
    "cloudflare-result": body_of(
        {"result": {**choice(message=SAID, finish_reason="stop")}, "success": True, "errors": []}
    ),
    "cloudflare-response": stream_of(
        data({"response": "Hello"}), data({"response": " there.", "usage": {}}), DONE
    ),
    "replicate-like-events": stream_of(
        *(named("output", choice(delta={"content": it})) for it in ("Hello", " there.")),
        named("done", choice(delta={}, finish_reason="stop")),
    ),
    "gateway-data-list": body_of({"data": [choice(message=SAID, finish_reason="stop")]}),
    "gateway-body-text": body_of({"statusCode": 200, "body": json.dumps(choice(message=SAID))}),
    "one-api-empty-choices": stream_of(A, B, data({"choices": []}), end("stop"), DONE),
    "role-chunk-at-end": stream_of(A, B, end("stop"), chunk({"role": "assistant"}), DONE),
    "content-empty-parts": stream_of(chunk({"content": [{"type": "text", "text": ""}]}), *GOOD),
    "content-output-text": whole({"content": [{"type": "output_text", "text": HELLO}]}),
    "content-nested": whole({"content": {"parts": [{"text": HELLO}]}}),
    "finish-details": whole(SAID, None, finish_details={"type": "stop"}),
    "finish-camel": body_of(choice(message=SAID, finishReason="STOP")),
    "sse-with-ids": stream_of(b"id: 1\n" + A, b"id: 2\nretry: 10\n" + B, end("stop"), DONE),
    "sse-error-none": stream_of(A, B, named("complete", choice(delta={}, finish_reason="stop"))),
    "sse-event-done": stream_of(A, B, end("stop"), b"event: done\ndata: {}\n\n"),
}

FAILED: Failures = {
    "unknown-shape": (body_of({"id": "x", "object": "chat.completion"}), "no answer"),
    "unknown-choice": (body_of(choice(words=HELLO)), "no answer"),
    "unknown-choice-with-usage": (
        body_of({**choice(words=HELLO), "usage": {"prompt_tokens": 1, "completion_tokens": 2}}),
        "no answer",
    ),
    "unknown-in-stream": (events(choice(words="Hello"), choice(words=" there.")), "no answer"),
    "unknown-message": (body_of(choice(message={"words": HELLO})), "no answer"),
    "gemini-blocked": (body_of({"promptFeedback": {"blockReason": "SAFETY"}}), "no answer"),
    "choice-null": (body_of({"choices": [None]}), "no answer"),
    "list-empty": (body_of([]), "no"),
    "text-true": (body_of(True), "no"),
    "ollama-error": (body_of({"error": "model 'm' not found, try pulling it"}), "pulling"),
    "ollama-error-line": (lines(ollama("Hello", done=False), {"error": "out of memory"}), "memory"),
    "ollama-unfinished": (lines(ollama("Hello", done=False)), "broke off"),
    "ollama-loading": (body_of(ollama("", done=True, done_reason="load")), "no answer"),
    "cohere-error": (body_of({"message": "invalid api token"}), "invalid api token"),
    "dashscope-error": (body_of({"code": "InvalidParameter", "message": "bad one"}), "bad one"),
    "hunyuan-error": (
        body_of({"Response": {"Error": {"Code": "X", "Message": "no such thing"}}}),
        "no such thing",
    ),
    "minimax-error": (
        body_of({"base_resp": {"status_code": 1004, "status_msg": "login fail"}}),
        "login fail",
    ),
    "baidu-error": (body_of({"error_code": 17, "error_msg": "daily limit"}), "daily limit"),
    "tgi-error-event": (
        stream_of(A, data({"error": "Incomplete generation", "error_type": "incomplete"})),
        "Incomplete generation",
    ),
    "sglang-abort": (
        stream_of(A, end({"type": "abort", "message": "stopped by the operator"}), DONE),
        "abort",
    ),
    "vllm-error-object": (
        stream_of(A, data({"error": {"message": "engine died", "code": 500}}), DONE),
        "engine died",
    ),
    "litellm-error-event": (
        stream_of(A, data({"error": {"message": "litellm.Timeout", "code": "408"}}), DONE),
        "litellm.Timeout",
    ),
    "bedrock-exception": (
        stream_of(A, named("exception", {"message": "Too many tokens"})),
        "Too many tokens",
    ),
    "gateway-html-in-event": (stream_of(A, b"data: <html>502 Bad Gateway</html>\n\n"), ""),
    "cut-after-role": (stream_of(chunk({"role": "assistant", "content": ""}), DONE), "no answer"),
    "cloudflare-error": (
        body_of({"success": False, "errors": [{"code": 7, "message": "no route"}]}),
        "no route",
    ),
}

CALLS: Calls = {
    "ollama": (
        body_of(
            {
                "message": {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [{"function": {"name": "lookup", "arguments": {"c": 1}}}],
                },
                **OLLAMA_END,
            }
        ),
        ONE,
    ),
    "ollama-lines": (
        lines(
            {
                "message": {
                    "content": "",
                    "tool_calls": [
                        {"function": {"index": 0, "name": "lookup", "arguments": {"c": 1}}},
                        {"function": {"index": 1, "name": "lookup", "arguments": {"c": 2}}},
                    ],
                },
                "done": False,
            },
            ollama("", **OLLAMA_END),
        ),
        TWO,
    ),
    "anthropic": (
        body_of(
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "t", "name": "lookup", "input": {"c": 1}}],
                "stop_reason": "tool_use",
            }
        ),
        ONE,
    ),
    "cohere": (
        body_of(
            {
                "message": {"tool_plan": "I look.", "tool_calls": [entry("lookup", C1, id="a")]},
                "finish_reason": "TOOL_CALL",
            }
        ),
        ONE,
    ),
    "messages": (
        body_of(choice(messages=[{"tool_calls": [entry("lookup", C1, id="a")]}])),
        ONE,
    ),
    "mistral-whole-in-stream": (
        of_calls(entry("lookup", C1, id="abcdefghi", index=0), reason="tool_calls"),
        ONE,
    ),
    "mistral-index-0-each": (
        of_calls([entry("lookup", C1, id="a"), entry("lookup", C2, id="b")]),
        TWO,
    ),
    "gemini-no-index": (
        of_calls(
            entry("lookup", C1, id="", type="function"), entry("lookup", C2, id="", type="function")
        ),
        TWO,
    ),
    "gemini-stop": (of_calls(first("lookup", C1), reason="stop"), ONE),
    "groq-end": (whole_calls(entry("lookup", C1, id="call_x"), reason="tool_calls"), ONE),
    "together-index": (of_calls(first("lookup", C1, index="0"), reason="tool_calls"), ONE),
    "fireworks-name-late": (
        of_calls(
            {"index": 0, "id": "a", "type": "function", "function": {"name": None}},
            {"index": 0, "function": {"name": "lookup", "arguments": C1}},
        ),
        ONE,
    ),
    "vllm-empty-arguments-last": (
        of_calls(first("lookup", '{"c":'), entry(None, "1}", index=0), entry(None, "", index=0)),
        ONE,
    ),
    "sglang-null-id": (of_calls(first("lookup"), entry(None, C1, index=0, id=None)), ONE),
    "tgi-object": (
        stream_of(
            chunk(
                {
                    "tool_calls": {
                        "index": 0,
                        "id": "",
                        "function": {"name": "lookup", "arguments": C1},
                    }
                }
            ),
            end("stop"),
            DONE,
        ),
        ONE,
    ),
    "tgi-name-none": (
        whole_calls(
            {"id": "0", "function": {"name": "lookup", "arguments": {"c": 1}, "description": None}}
        ),
        ONE,
    ),
    "llama.cpp-text-before": (
        stream_of(text(""), call(first("lookup", C1)), end("tool_calls"), DONE),
        ONE,
    ),
    "glm-whole-then-empty": (of_calls(first("lookup", C1), first("", "")), ONE),
    "minimax-repeated-final": (
        stream_of(
            call(first("lookup", C1)),
            data(
                choice(
                    message={"tool_calls": [first("lookup", C1)], "content": ""},
                    finish_reason="tool_calls",
                )
            ),
        ),
        ONE,
    ),
    "qwen-empty-id-later": (
        of_calls(
            first("lookup", ""), entry("", '{"c"', index=0, id=""), entry("", ":1}", index=0, id="")
        ),
        ONE,
    ),
    "doubao-spaces": (of_calls(first(" lookup", " "), entry(None, C1, index=0)), ONE),
    "databricks-custom-type": (
        whole_calls(
            {"id": "a", "type": "tool_use", "function": {"name": "lookup", "arguments": C1}}
        ),
        ONE,
    ),
    "azure-null-content": (
        whole({"content": None, "tool_calls": [entry("lookup", C1, id="a")]}),
        ONE,
    ),
}


def test_what_vendors_send_is_what_they_say(world: Scenario) -> None:
    wrong = []
    for name, behaviour in WORDS.items():
        # Asked again, it says the same.
        world.upstream_answers(lambda _, it=behaviour: it)  # type: ignore[misc]
        response, completion = ask_both(world, behaviour)
        found = (response.status, response.text, completion.status, completion.text)
        if found != ("completed", HELLO, "stop", HELLO):
            wrong.append((name, found, response.error))
    assert not wrong, "\n".join(map(str, wrong))


def test_what_holds_no_answer_is_not_completed(world: Scenario) -> None:
    wrong = []
    for name, (behaviour, words) in FAILED.items():
        world.upstream_answers(lambda _, it=behaviour: it)  # type: ignore[misc]
        stream = b"chunked" in b"".join(it for it in behaviour if isinstance(it, bytes))
        for outcome in (world.respond(stream=stream), world.chat(stream=stream)):
            said = json.dumps(outcome.error)
            if outcome.status not in ("failed", "error") or words not in said:
                wrong.append((name, outcome.status, outcome.text, said))
    assert not wrong, "\n".join(map(str, wrong))


def test_what_vendors_call_is_what_was_meant(world: Scenario) -> None:
    wrong = []
    for name, (behaviour, calls) in CALLS.items():
        world.upstream_answers(lambda _, it=behaviour: it)  # type: ignore[misc]
        for outcome in ask_both(world, behaviour, tools=True):
            if outcome.calls != calls or len(set(outcome.call_ids)) != len(calls):
                wrong.append((name, outcome.status, outcome.calls, outcome.text, outcome.error))
    assert not wrong, "\n".join(map(str, wrong))
