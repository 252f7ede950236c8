"""Answers of APIs that generate texts, as base URLs lead to them, over both of our APIs."""

from __future__ import annotations

import json
from typing import Any

from support.misbehaving_upstream import Behaviour
from support.scenario import DONE, Json, Outcome, Scenario, body_of, data, nested, stream_of
from support.upstream_answers import ONE, TOOLS, is_stream

HELLO = "Hello there."


def ask(world: Scenario, behaviour: Behaviour, *, stream: bool, tools: bool) -> list[Outcome]:
    """What both APIs make of it; the upstream answers however often it is asked."""
    world.upstream_answers(lambda _: behaviour)
    response: Json = {"tools": TOOLS} if tools else {}
    completion: Json = {"tools": list(map(nested, TOOLS))} if tools else {}
    return [world.respond(stream=stream, **response), world.chat(stream=stream, **completion)]


def named(events: list[Json], field: str = "type") -> Behaviour:
    """A stream of events that have their kind in a field, too."""
    return stream_of(*(b"event: " + one[field].encode() + b"\n" + data(one) for one in events))


def lines(*values: Any) -> Behaviour:
    parts = [json.dumps(value).encode() + b"\n" for value in values]
    return stream_of(*parts, content_type="application/stream+json")


def tgi_token(text: str, *, special: bool = False, **end: Any) -> bytes:
    token = {"id": 1, "text": text, "logprob": -0.1, "special": special}
    return data({"index": 1, "token": token, "generated_text": None, "details": None, **end})


def cohere_v2(kind: str, index: int | None = None, **message: Any) -> Json:
    return {"type": kind, "index": index, "delta": {"message": message}}


TGI_END: Json = {"finish_reason": "eos_token", "generated_tokens": 2, "input_length": 5}
CONVERSE: Json = {
    "stopReason": "end_turn",
    "usage": {"inputTokens": 5, "outputTokens": 2, "totalTokens": 7},
    "metrics": {"latencyMs": 1},
}
COHERE_END: Json = {
    "response_id": "r",
    "generation_id": "g",
    "text": HELLO,
    "finish_reason": "COMPLETE",
    "meta": {"tokens": {"input_tokens": 5, "output_tokens": 2}},
}


def converse(*parts: Json, **fields: Any) -> Behaviour:
    message = {"role": "assistant", "content": list(parts)}
    return body_of({"output": {"message": message}, **CONVERSE, **fields})


def cohere_v1(*events: Json, **answer: Any) -> Behaviour:
    started = {"is_finished": False, "event_type": "stream-start", "generation_id": "g"}
    end = {"is_finished": True, "event_type": "stream-end", "finish_reason": "COMPLETE"}
    return lines(started, *events, {**end, "response": {**COHERE_END, **answer}})


#: Answers that say "Hello there.", of which some have counted 5 and 2 tokens.
WORDS: dict[str, Behaviour] = {
    "tgi": body_of({"generated_text": HELLO, "details": {**TGI_END, "seed": None, "tokens": []}}),
    "tgi-list": body_of([{"generated_text": HELLO}]),
    "tgi-stream": stream_of(
        tgi_token("Hello"),
        tgi_token(" there."),
        tgi_token("</s>", special=True, generated_text=HELLO, details=TGI_END),
    ),
    "tgi-stream-without-details": stream_of(
        tgi_token("Hello"), tgi_token(" there.", generated_text=HELLO)
    ),
    "kobold": body_of(
        {
            "results": [
                {
                    "text": HELLO,
                    "finish_reason": "stop",
                    "logprobs": None,
                    "prompt_tokens": 5,
                    "completion_tokens": 2,
                }
            ]
        }
    ),
    "kobold-stream": stream_of(
        b'event: message\ndata: {"token": "Hello", "finish_reason": null}\n\n',
        b'event: message\ndata: {"token": " there.", "finish_reason": null}\n\n',
        b'event: message\ndata: {"token": "", "finish_reason": "stop"}\n\n',
    ),
    "watsonx": body_of(
        {
            "model_id": "m",
            "results": [
                {
                    "generated_text": HELLO,
                    "generated_token_count": 2,
                    "input_token_count": 5,
                    "stop_reason": "eos_token",
                }
            ],
        }
    ),
    "watsonx-stream": stream_of(
        *(
            b"id: 1\nevent: message\n"
            + data({"results": [{"generated_text": words, "stop_reason": reason}]})
            for words, reason in (("Hello", "NOT_FINISHED"), (" there.", "eos_token"))
        )
    ),
    "cohere-v1": body_of({**COHERE_END, "chat_history": [{"role": "USER", "message": "Hi"}]}),
    "cohere-v1-stream": cohere_v1(
        {"is_finished": False, "event_type": "text-generation", "text": "Hello"},
        {"is_finished": False, "event_type": "text-generation", "text": " there."},
    ),
    "cohere-v2-stream": named(
        [
            cohere_v2("message-start", role="assistant", content=[], tool_calls=[]),
            cohere_v2("content-start", 0, content={"type": "text", "text": ""}),
            cohere_v2("content-delta", 0, content={"text": "Hello"}),
            cohere_v2("content-delta", 0, content={"text": " there."}),
            {"type": "content-end", "index": 0},
            {
                "type": "message-end",
                "delta": {
                    "finish_reason": "COMPLETE",
                    "usage": {"tokens": {"input_tokens": 5, "output_tokens": 2}},
                },
            },
        ]
    ),
    "converse": converse({"text": HELLO}),
    "titan": body_of(
        {
            "inputTextTokenCount": 5,
            "results": [{"tokenCount": 2, "outputText": HELLO, "completionReason": "FINISH"}],
        }
    ),
    "bedrock-llama": body_of(
        {
            "generation": HELLO,
            "prompt_token_count": 5,
            "generation_token_count": 2,
            "stop_reason": "stop",
        }
    ),
    "sagemaker": body_of([{"generation": {"role": "assistant", "content": HELLO}}]),
    "llama.cpp": body_of(
        {
            "content": HELLO,
            "stop": True,
            "stop_type": "eos",
            "tokens_evaluated": 5,
            "tokens_predicted": 2,
        }
    ),
    "llama.cpp-stream": stream_of(
        data({"content": "Hello", "stop": False}),
        data({"content": " there.", "stop": False}),
        data({"content": "", "stop": True, "tokens_evaluated": 5, "tokens_predicted": 2}),
    ),
    "sglang": body_of(
        {
            "text": HELLO,
            "meta_info": {
                "prompt_tokens": 5,
                "completion_tokens": 2,
                "finish_reason": {"type": "stop", "matched": 2},
            },
        }
    ),
    "sglang-stream-repeats-all": stream_of(
        data({"text": "Hello", "meta_info": {"finish_reason": None}}),
        data({"text": HELLO, "meta_info": {"finish_reason": {"type": "stop"}}}),
        DONE,
    ),
    "qianfan": body_of({"result": HELLO, "is_truncated": False, "need_clear_history": False}),
    "qianfan-stream": stream_of(
        data({"sentence_id": 0, "is_end": False, "result": "Hello"}),
        data({"sentence_id": 1, "is_end": True, "result": " there."}),
    ),
    "dashscope": body_of(
        {
            "output": {"finish_reason": "stop", "text": HELLO},
            "usage": {"input_tokens": 5, "output_tokens": 2},
        }
    ),
    "dify": body_of({"event": "message", "answer": HELLO, "conversation_id": "c"}),
    "cloudflare": body_of(
        {
            "result": {"response": HELLO, "usage": {"prompt_tokens": 5, "completion_tokens": 2}},
            "success": True,
        }
    ),
}
COUNTED = (
    *("tgi", "tgi-stream", "kobold", "watsonx", "cohere-v1", "cohere-v1-stream"),
    *("cohere-v2-stream", "converse", "titan", "bedrock-llama", "llama.cpp", "llama.cpp-stream"),
    *("sglang", "dashscope", "cloudflare"),
)
#: Answers that were not finished.
ENDINGS: dict[str, tuple[Behaviour, str, str]] = {
    "tgi-length": (
        body_of({"generated_text": HELLO, "details": {"finish_reason": "length"}}),
        "incomplete",
        HELLO,
    ),
    "tgi-cut": (stream_of(tgi_token("Hello")), "failed", "Hello"),
    "kobold-length": (
        body_of({"results": [{"text": HELLO, "finish_reason": "length"}]}),
        "incomplete",
        HELLO,
    ),
    "kobold-cut": (stream_of(data({"token": "Hello"})), "failed", "Hello"),
    "watsonx-limit": (
        body_of({"results": [{"generated_text": HELLO, "stop_reason": "max_tokens"}]}),
        "incomplete",
        HELLO,
    ),
    "cohere-v1-limit": (
        body_of({**COHERE_END, "finish_reason": "MAX_TOKENS"}),
        "incomplete",
        HELLO,
    ),
    "text-limit": (body_of({"text": HELLO, "finish_reason": "MAX_TOKENS"}), "incomplete", HELLO),
    "converse-limit": (converse({"text": HELLO}, stopReason="max_tokens"), "incomplete", HELLO),
    "converse-guardrail": (
        converse({"text": HELLO}, stopReason="guardrail_intervened"),
        "incomplete",
        HELLO,
    ),
    "llama.cpp-limit": (
        body_of({"content": HELLO, "stop": True, "stop_type": "limit"}),
        "incomplete",
        HELLO,
    ),
    "llama.cpp-cut": (stream_of(data({"content": "Hello", "stop": False})), "failed", "Hello"),
    "qianfan-cut": (stream_of(data({"is_end": False, "result": "Hello"})), "failed", "Hello"),
    "qianfan-truncated": (body_of({"result": HELLO, "is_truncated": True}), "incomplete", HELLO),
    # Whether it is all of the text, or what came last, nobody knows: no words are no answer.
    "text-stream-of-unknown-kind": (
        stream_of(data({"text": "Hello", "finish_reason": "length"})),
        "failed",
        "",
    ),
}
CALLS: dict[str, Behaviour] = {
    "cohere-v1": body_of(
        {"text": "", "tool_calls": [{"name": "lookup", "parameters": {"c": 1}}], "response_id": "r"}
    ),
    "cohere-v1-without-ids": body_of(
        {"text": "", "tool_calls": [{"name": "lookup", "parameters": {"c": 1}}]}
    ),
    "cohere-v1-stream": cohere_v1(
        {"event_type": "tool-calls-chunk", "tool_call_delta": {"index": 0, "name": "lookup"}},
        {
            "event_type": "tool-calls-generation",
            "tool_calls": [{"name": "lookup", "parameters": {"c": 1}}],
        },
        text="",
        tool_calls=[{"name": "lookup", "parameters": {"c": 1}}],
    ),
    "cohere-v2-stream": named(
        [
            cohere_v2("tool-call-start", 0, tool_calls={"id": "t", "function": {"name": "lookup"}}),
            cohere_v2("tool-call-delta", 0, tool_calls={"function": {"arguments": '{"c"'}}),
            cohere_v2("tool-call-delta", 0, tool_calls={"function": {"arguments": ":1}"}}),
            {"type": "tool-call-end", "index": 0},
            {"type": "message-end", "delta": {"finish_reason": "TOOL_CALL"}},
        ]
    ),
    "converse": converse(
        {"toolUse": {"toolUseId": "t", "name": "lookup", "input": {"c": 1}}}, stopReason="tool_use"
    ),
}


def test_texts_of_other_apis_are_what_they_say(world: Scenario) -> None:
    for name, behaviour in WORDS.items():
        for stream in (True, False):
            response, completion = ask(world, behaviour, stream=stream, tools=False)
            assert (response.status, response.text) == ("completed", HELLO), (name, response.error)
            assert (completion.status, completion.text) == ("stop", HELLO), name
            if name in COUNTED:
                usage = response.body["usage"]
                assert (usage["input_tokens"], usage["output_tokens"]) == (5, 2), name


def test_texts_of_other_apis_that_are_cut_are_not_completed(world: Scenario) -> None:
    for name, (behaviour, status, said) in ENDINGS.items():
        response, completion = ask(world, behaviour, stream=is_stream(behaviour), tools=False)
        if status == "failed":
            assert (response.status, response.text) == (status, said), (name, response.error)
            assert completion.status == "error", name
        else:
            assert (response.status, response.text) == (status, said), (name, response.error)
            assert completion.text == said, name


def test_calls_of_other_apis_are_what_was_meant(world: Scenario) -> None:
    for name, behaviour in CALLS.items():
        for stream in (True, False):
            for outcome in ask(world, behaviour, stream=stream, tools=True):
                assert outcome.calls == ONE, (name, outcome.error)
