"""Answers of Gemini's and Anthropic's own APIs, as gateways pass them on, over both APIs."""

from __future__ import annotations

from typing import Any

from support.misbehaving_upstream import Behaviour
from support.scenario import DONE, Json, Scenario, body_of, data, stream_of
from support.upstream_answers import ONE, TWO, ask_both

HELLO = "Hello there."


def gemini(*parts: Json, reason: str | None = None, **fields: Any) -> Json:
    candidate: Json = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if reason:
        candidate["finishReason"] = reason
    return {"candidates": [candidate], "modelVersion": "m", **fields}


COUNTS = {
    "promptTokenCount": 5,
    "candidatesTokenCount": 2,
    "thoughtsTokenCount": 3,
    "totalTokenCount": 10,
}


def words(text: str, **fields: Any) -> Json:
    return {"text": text, **fields}


def called(number: int) -> Json:
    return {"functionCall": {"name": "lookup", "args": {"c": number}}, "thoughtSignature": "QUJD"}


def anthropic(*blocks: bytes, reason: str | None = "end_turn") -> Behaviour:
    """A stream of Messages around these blocks."""
    started = {"id": "m", "role": "assistant", "content": [], "usage": {"input_tokens": 5}}
    return stream_of(
        event("message_start", message=started),
        event("ping"),
        *blocks,
        event("message_delta", delta={"stop_reason": reason}, usage={"output_tokens": 5}),
        event("message_stop"),
    )


def event(kind: str, **fields: Any) -> bytes:
    return b"event: " + kind.encode() + b"\n" + data({"type": kind, **fields})


def block(index: int, start: Json, *deltas: Json) -> bytes:
    pieces = [event("content_block_delta", index=index, delta=one) for one in deltas]
    begin = event("content_block_start", index=index, content_block=start)
    return b"".join((begin, *pieces, event("content_block_stop", index=index)))


TEXT = block(
    0,
    {"type": "text", "text": ""},
    {"type": "text_delta", "text": "Hello"},
    {"type": "text_delta", "text": " there."},
)
THOUGHT = block(
    0,
    {"type": "thinking", "thinking": ""},
    {"type": "thinking_delta", "thinking": "Hm."},
    {"type": "signature_delta", "signature": "QUJD"},
)


def used(index: int, number: int) -> bytes:
    return block(
        index,
        {"type": "tool_use", "id": f"t{index}", "name": "lookup", "input": {}},
        {"type": "input_json_delta", "partial_json": ""},
        {"type": "input_json_delta", "partial_json": '{"c"'},
        {"type": "input_json_delta", "partial_json": f":{number}}}"},
    )


PIECES = (gemini(words("Hello")), gemini(words(" there."), reason="STOP", usageMetadata=COUNTS))
WORDS: dict[str, Behaviour] = {
    "gemini": body_of(gemini(words("Hello"), words(" there."), reason="STOP")),
    "gemini-list": body_of(list(PIECES)),
    "gemini-stream": stream_of(*map(data, PIECES)),
    "gemini-thought": body_of(gemini(words("Hm.", thought=True), words(HELLO), reason="STOP")),
    "gemini-empty-end": stream_of(data(gemini(words(HELLO))), data(gemini(reason="STOP"))),
    "gemini-wrapped": body_of({"response": gemini(words(HELLO), reason="STOP")}),
    "anthropic": anthropic(TEXT),
    "anthropic-thought": anthropic(THOUGHT, TEXT.replace(b'"index": 0', b'"index": 1')),
    "anthropic-start-text": anthropic(block(0, {"type": "text", "text": HELLO})),
}
ENDINGS: dict[str, tuple[Behaviour, str, str]] = {
    "gemini-limit": (body_of(gemini(words(HELLO), reason="MAX_TOKENS")), "incomplete", HELLO),
    "gemini-safety": (body_of(gemini(words(HELLO), reason="SAFETY")), "incomplete", HELLO),
    "gemini-cut": (stream_of(data(gemini(words(HELLO)))), "failed", HELLO),
    "gemini-malformed": (
        stream_of(data(gemini(words(HELLO), reason="MALFORMED_FUNCTION_CALL"))),
        "failed",
        HELLO,
    ),
    "anthropic-limit": (anthropic(TEXT, reason="max_tokens"), "incomplete", HELLO),
    "anthropic-cut": (stream_of(TEXT), "failed", HELLO),
    "anthropic-refusal": (anthropic(TEXT, reason="refusal"), "incomplete", HELLO),
    "anthropic-error": (
        stream_of(TEXT, event("error", error={"type": "overloaded_error", "message": "Busy."})),
        "failed",
        HELLO,
    ),
}
CALLS: dict[str, tuple[Behaviour, list[tuple[str, str]]]] = {
    "gemini": (body_of(gemini(called(1), reason="STOP")), ONE),
    "gemini-two": (body_of(gemini(called(1), called(2), reason="STOP")), TWO),
    "gemini-stream": (
        stream_of(data(gemini(called(1))), data(gemini(called(2), reason="STOP"))),
        TWO,
    ),
    "anthropic": (anthropic(TEXT, used(1, 1), reason="tool_use"), ONE),
    "anthropic-two": (anthropic(used(0, 1), used(1, 2), reason="tool_use"), TWO),
}


def test_native_answers_are_what_they_say(world: Scenario) -> None:
    for name, behaviour in WORDS.items():
        for stream in (True, False):
            response, completion = ask_both(world, behaviour, stream=stream)
            assert (response.status, response.text) == ("completed", HELLO), (name, response.error)
            assert (completion.status, completion.text) == ("stop", HELLO), name
            assert response.reasoning == ("Hm." if "thought" in name else ""), name


def test_native_answers_that_are_cut_are_not_completed(world: Scenario) -> None:
    for name, (behaviour, status, said) in ENDINGS.items():
        world.upstream_sends(behaviour)
        response = world.respond()
        assert (response.status, response.text) == (status, said), (name, response.error)


def test_native_calls_are_what_was_meant(world: Scenario) -> None:
    for name, (behaviour, calls) in CALLS.items():
        for stream in (True, False):
            for outcome in ask_both(world, behaviour, stream=stream, tools=True):
                assert outcome.calls == calls, (name, outcome.error)
                assert len(set(outcome.call_ids)) == len(calls), name


def test_native_usage_is_counted(world: Scenario) -> None:
    world.upstream_sends(stream_of(*map(data, PIECES)), anthropic(TEXT))
    usage = world.respond().body["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (5, 5)
    assert usage["output_tokens_details"]["reasoning_tokens"] == 3
    usage = world.respond().body["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (5, 5)


def test_an_answer_of_the_responses_api_names_the_setting(world: Scenario) -> None:
    message = {"type": "message", "content": [{"type": "output_text", "text": HELLO}]}
    response = {"object": "response", "status": "completed", "output": [message]}
    completed = {"type": "response.completed", "response": response}
    delta = {"type": "response.output_text.delta", "delta": HELLO}
    for behaviour in (body_of(response), stream_of(data(delta), data(completed), DONE)):
        world.upstream_sends(behaviour)
        failed = world.respond().expect("failed", "")
        assert failed.error is not None
        assert 'kind = "responses"' in failed.error["message"]
