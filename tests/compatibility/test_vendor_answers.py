"""Answers as providers and gateways send them: what each means, over both APIs."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any, TypeAlias

from support.misbehaving_upstream import CUT, Behaviour
from support.scenario import (
    DONE,
    Json,
    Outcome,
    body_of,
    call,
    chunk,
    data,
    end,
    scenario,
    stream_of,
    text,
    whole,
)
from support.upstream_answers import (
    C1,
    C2,
    ONE,
    TOOLS,
    TWO,
    ask_both,
    entry,
    first,
    of_calls,
    then,
    whole_calls,
)

Answers: TypeAlias = dict[str, Behaviour]

HELLO = "Hello there."
A, B = text("Hello"), text(" there.")
END = (end("stop"), DONE)
GOOD = (A, B, *END)
SENT = b"".join(GOOD)


def choice(**fields: Any) -> bytes:
    return data({"choices": [{"index": 0, **fields}]})


#: Answers that say "Hello there.".
WORDS: Answers = {
    "tab-behind-colon": stream_of(*(one.replace(b"data: ", b"data:\t") for one in GOOD)),
    "done-as-object": stream_of(A, B, end("stop"), data({"done": True})),
    "done-lower-without-reason": stream_of(A, B, data(b"[done]")),
    "event-names": stream_of(*(b"event: chat.completion.chunk\n" + one for one in GOOD)),
    "comment-within-event": stream_of(A[:-1] + b": ping\n\n", B, *END),
    "data-null": stream_of(A, data(None), B, *END),
    "data-true": stream_of(A, data(True), B, *END),
    "data-empty-list": stream_of(A, data([]), B, *END),
    "data-empty-object": stream_of(A, data({}), B, *END),
    "heartbeat-object": stream_of(A, data({"object": "ping"}), B, *END),
    "status-first": stream_of(data({"type": "status", "message": "queued"}), *GOOD),
    "groq-first": stream_of(data({"choices": [], "x_groq": {"id": "r"}}), *GOOD),
    "reason-in-last-words": stream_of(A, chunk({"content": " there."}, "stop"), DONE),
    "reason-in-each": stream_of(
        chunk({"content": "Hello"}, "stop"), chunk({"content": " there."}, "stop"), DONE
    ),
    "reason-twice": stream_of(A, B, end("stop"), *END),
    "no-reason-but-stop_reason": stream_of(A, B, choice(delta={}, stop_reason="<|im_end|>"), DONE),
    "ndjson": stream_of(
        *(one.removeprefix(b"data: ")[:-1] for one in GOOD[:-1]),
        content_type="application/x-ndjson",
    ),
    "list-of-chunks": body_of([json.loads(one[6:]) for one in GOOD[:-1]]),
    "list-of-one": body_of([{"choices": [{"message": {"content": HELLO}}]}]),
    "within-data": body_of({"data": {"choices": [{"message": {"content": HELLO}}]}}),
    "within-result": body_of(
        {"result": {"choices": [{"message": {"content": HELLO}}]}, "success": True, "errors": []}
    ),
    "within-output": body_of({"output": {"choices": [{"message": {"content": HELLO}}]}}),
    "chunks-within-data": stream_of(
        *(data({"data": json.loads(one[6:])}) for one in (A, B, end("stop"))), DONE
    ),
    "deflate": stream_of(zlib.compress(SENT), headers={"Content-Encoding": "deflate"}),
    "deflate-raw": stream_of(zlib.compress(SENT)[2:-4], headers={"Content-Encoding": "deflate"}),
    "gzip-without-label": stream_of(gzip.compress(SENT)),
    "gzip-label-only": stream_of(*GOOD, headers={"Content-Encoding": "gzip"}),
    "gzip-in-members": stream_of(*map(gzip.compress, GOOD), headers={"Content-Encoding": "gzip"}),
    "error-false": stream_of(data({"error": False, **json.loads(A[6:])}), B, *END),
    "error-code-0": stream_of(data({"error": {"code": 0}, **json.loads(A[6:])}), B, *END),
    "code-200": stream_of(data({"code": 200, "msg": "ok", **json.loads(A[6:])}), B, *END),
    "content-nested": stream_of(text([[{"type": "text", "text": "Hello"}], [" there."]]), *END),
    "content-value": stream_of(text([{"type": "text", "text": {"value": HELLO}}]), *END),
    "content-reference": whole(
        {"content": [{"type": "text", "text": HELLO}, {"type": "reference", "reference_ids": [1]}]}
    ),
    "delta-text": stream_of(choice(delta="Hello"), B, *END),
    "delta-list": stream_of(choice(delta=[{"content": "Hello"}]), B, *END),
    "message-text": body_of({"choices": [{"index": 0, "message": HELLO}]}),
    "choices-one": body_of({"choices": {"message": {"content": HELLO}}}),
    "choices-numbered": body_of({"choices": {"0": {"message": {"content": HELLO}}}}),
    "choice-1-only": stream_of(
        *(data({"choices": [{"index": 1, "delta": {"content": it}}]}) for it in (HELLO[:5],)),
        data({"choices": [{"index": 1, "delta": {"content": " there."}, "finish_reason": "stop"}]}),
        DONE,
    ),
    "choices-in-turn": stream_of(
        data({"choices": [{"index": 1, "delta": {"content": "No"}}]}),
        A,
        data({"choices": [{"index": 1, "delta": {"content": " way"}}]}),
        B,
        *END,
    ),
    "usage-odd": stream_of(*GOOD[:3], data({"choices": [], "usage": {"prompt_tokens": [1]}}), DONE),
    "usage-true": whole({"content": HELLO}, usage=True),
    "usage-infinite": whole({"content": HELLO}, usage={"prompt_tokens": "Infinity"}),
    "logprobs-odd": whole({"content": HELLO}, choices_logprobs={"content": "x"}),
    "reason-list": stream_of(A, B, end(["stop"]), DONE),
    "reason-0": stream_of(A, B, end(0), DONE),
    "reason-unspecified": whole({"content": HELLO}, "FINISH_REASON_UNSPECIFIED"),
    "twice-one-field": stream_of(
        data(b'{"choices":[{"index":0,"delta":{"content":"x","content":"Hello"}}]}'), B, *END
    ),
    "infinity": stream_of(
        data(b'{"choices":[{"index":0,"delta":{"content":"Hello"},"x":-Infinity}]}'), B, *END
    ),
    "sources-of-search": stream_of(
        A, B, data({"citations": ["https://a"], "choices": [{"index": 0, "delta": {}}]}), *END
    ),
}
#: Answers that fail, and a word of the error.
FAILED: dict[str, tuple[Behaviour, str]] = {
    "role-only": (stream_of(chunk({"role": "assistant"}), close=True), "broke off"),
    "nothing-but-done": (stream_of(DONE), "no answer"),
    "cut-in-event": (stream_of(A, B, end("stop")[:30], CUT), "cut"),
    "text-for-event": (stream_of(A, data(b"Error: CUDA out of memory")), "CUDA out of memory"),
    "text-then-done": (stream_of(A, data(b"Internal Server Error"), DONE), "Internal Server Error"),
    "object-error": (stream_of(A, data({"object": "error", "message": "worker died"})), "worker"),
    "detail": (stream_of(A, data({"detail": "engine dead"})), "engine dead"),
    "list-of-errors": (stream_of(A, data({"errors": [{"message": "nope"}]})), "nope"),
    "type-error": (
        stream_of(A, data({"type": "error", "error": {"message": "Overloaded"}})),
        "Overloaded",
    ),
    "error-without-choices": (
        stream_of(data({"choices": [], "error": {"code": 502, "message": "limit reached"}})),
        "limit reached",
    ),
    "success-false": (body_of({"success": False, "error": {"message": "An odd thing"}}), "odd"),
    "errors-of-gateway": (
        body_of({"result": None, "success": False, "errors": [{"message": "no upstream"}]}),
        "no upstream",
    ),
    "preempted": (stream_of(A, B, end("preempted"), DONE), "preempted"),
    "nameless-call": (whole_calls(entry("", C1, id="a")), "no name"),
}
#: Answers that call tools.
CALLS: dict[str, tuple[Behaviour, list[tuple[str, str]]]] = {
    "vllm": (
        of_calls(first(id="t1"), then(C1, id=""), first(id="t2"), then(C2, id="")),
        TWO,
    ),
    "sglang": (
        of_calls(
            first(id="0"),
            then('{"c"', id="0"),
            then(":1}", id="0"),
            *(first(id="1"), then(C2, id="1")),
        ),
        TWO,
    ),
    "ids-change": (of_calls(first(id="a"), then('{"c"', id="b"), then(":1}", id="c")), ONE),
    "no-index-behind": (of_calls(first(), {"function": {"arguments": C1}}), ONE),
    "parameters": (
        whole_calls({"id": "a", "function": {"name": "lookup", "parameters": {"c": 1}}}),
        ONE,
    ),
    "input": (whole_calls({"id": "a", "name": "lookup", "input": {"c": 1}}), ONE),
    "args": (whole_calls({"id": "a", "function": {"name": "lookup", "args": C1}}), ONE),
    "flat": (whole_calls({"type": "function_call", "name": "lookup", "arguments": C1}), ONE),
    "text-within-text": (whole_calls(entry("lookup", json.dumps(C1), id="a")), ONE),
    "cumulative": (of_calls(first("lookup", '{"c"'), then('{"c":'), then(C1)), ONE),
    "message-behind": (
        stream_of(
            call(first("lookup", C1)),
            choice(message={"tool_calls": [entry("lookup", C1, id="call_a")]}),
            end("tool_calls"),
            DONE,
        ),
        ONE,
    ),
    "entries-by-number": (
        stream_of(
            chunk(
                {
                    "tool_calls": {
                        "0": first("lookup", C1),
                        "1": first("lookup", C2, index=1, id="b"),
                    }
                }
            ),
            end("tool_calls"),
            DONE,
        ),
        TWO,
    ),
    "legacy-list": (
        whole({"content": None, "function_call": [{"name": "lookup", "arguments": C1}]}, "stop"),
        ONE,
    ),
    "legacy-beside": (
        whole(
            {
                "tool_calls": [entry("lookup", C1, id="a")],
                "function_call": {"name": "lookup", "arguments": C1},
            }
        ),
        ONE,
    ),
    "null-beside": (whole_calls(None, entry("lookup", C1, id="a")), ONE),
    "two-by-line": (of_calls(first("lookup", C1 + "\n" + C2)), TWO),
    "braces-in-text": (
        of_calls(first("lookup", '{"c":"}{"'), then("}")),
        [("lookup", '{"c":"}{"}')],
    ),
    "reason-upper": (of_calls(first("lookup", C1), reason="TOOL_CALLS"), ONE),
    "reason-eos": (of_calls(first("lookup", C1), reason="eos_token"), ONE),
}
#: Answers without a call, though they look like it.
STUBS: Answers = {
    "null": stream_of(A, B, chunk({"tool_calls": [None]}), *END),
    "text": stream_of(A, B, chunk({"tool_calls": "none"}), *END),
    "false": stream_of(A, B, chunk({"tool_calls": False}), *END),
    "space": whole({"content": HELLO, "tool_calls": [entry("", " ", id="x")]}),
    "null-in-words": stream_of(A, B, call(entry(None, "null", index=0)), *END),
}


def test_what_providers_send_is_what_they_say() -> None:
    with scenario() as world:
        for name, behaviour in WORDS.items():
            response, completion = ask_both(world, behaviour)
            assert (response.status, response.text) == ("completed", HELLO), (name, response.error)
            assert (completion.status, completion.text) == ("stop", HELLO), name


def test_what_providers_break_is_not_completed() -> None:
    with scenario() as world:
        for name, (behaviour, words) in FAILED.items():
            world.upstream_answers(lambda request, it=behaviour: it)  # type: ignore[misc]
            stream = b"event-stream" in b"".join(it for it in behaviour if isinstance(it, bytes))
            for outcome in (world.respond(stream=stream), world.chat(stream=stream)):
                assert outcome.status in ("failed", "error"), (name, outcome)
                assert words in json.dumps(outcome.error), (name, outcome.error)


def test_a_model_that_says_nothing_has_answered() -> None:
    quiet = (
        whole({"role": "assistant", "content": ""}),
        whole({"role": "assistant", "content": None, "native_finish_reason": "STOP"}),
        stream_of(chunk({"role": "assistant"}), end("stop"), DONE),
        stream_of(chunk({"content": "", "provider": "x"}), end("stop"), DONE),
        whole({"role": "assistant", "content": [{"type": "text", "text": ""}]}),
    )
    with scenario() as world:
        for behaviour in quiet:
            response, completion = ask_both(world, behaviour)
            response.expect("completed", "")
            completion.expect("stop", "")


def test_what_providers_call_is_what_was_meant() -> None:
    with scenario() as world:
        for name, (behaviour, calls) in CALLS.items():
            for outcome in ask_both(world, behaviour, tools=True):
                assert outcome.calls == calls, (name, outcome)
                assert len(set(outcome.call_ids)) == len(calls), name
        for name, behaviour in STUBS.items():
            response, completion = ask_both(world, behaviour, tools=True)
            assert (response.text, response.calls) == (HELLO, []), name
            assert (completion.status, completion.calls) == ("stop", []), name


# ---- upstreams of the Responses API

MESSAGE: Json = {
    "type": "message",
    "id": "m1",
    "role": "assistant",
    "content": [{"type": "output_text", "text": HELLO, "annotations": []}],
}
CALLED: Json = {"type": "function_call", "id": "f1", "call_id": "c1", "name": "lookup"}


def event(kind: str, **fields: Any) -> bytes:
    return data({"type": kind, **fields})


def delta(words: Any, **fields: Any) -> bytes:
    place = {"item_id": "m1", "output_index": 0, "content_index": 0}
    return event("response.output_text.delta", **{**place, "delta": words, **fields})


def completed(*output: Any, **fields: Any) -> bytes:
    return event("response.completed", response={"status": "completed", "output": output, **fields})


def response_of(*output: Any, **fields: Any) -> Behaviour:
    return body_of({"status": "completed", "output": output, **fields})


PLACE: Json = {"item_id": "m1", "output_index": 0, "content_index": 0}
PART: Json = {"type": "output_text", "text": HELLO}
RESPONSE_WORDS: Answers = {
    "delta-object": stream_of(delta({"text": "Hello"}), delta({"text": " there."}), completed()),
    "delta-named-text": stream_of(
        *(event("response.output_text.delta", **PLACE, text=it) for it in ("Hello", " there.")),
        completed(),
    ),
    "delta-null": stream_of(delta(None), delta("Hello"), delta(" there."), completed(MESSAGE)),
    "places-null": stream_of(
        *(
            delta(it, item_id=None, output_index=None, content_index=None)
            for it in ("Hello", " there.")
        ),
        completed(MESSAGE),
    ),
    "places-text": stream_of(
        delta("Hello", output_index="0"), delta(" there.", output_index="0"), completed()
    ),
    "part-begins-whole": stream_of(
        event("response.content_part.added", **PLACE, part=PART), completed()
    ),
    "part-done-only": stream_of(
        event("response.content_part.done", **PLACE, part=PART), completed()
    ),
    "part-begins-whole-and-deltas": stream_of(
        event("response.content_part.added", **PLACE, part=PART),
        delta("Hello"),
        delta(" there."),
        completed(MESSAGE),
    ),
    "no-response-in-end": stream_of(delta("Hello"), delta(" there."), event("response.completed")),
    "done-in-place-of-end": stream_of(
        delta("Hello"),
        delta(" there."),
        event("response.output_item.done", output_index=0, item=MESSAGE),
        DONE,
    ),
    "item-of-text": stream_of(
        event("response.output_item.done", item={"type": "message", "content": HELLO}), completed()
    ),
    "parts-of-text": response_of({"type": "message", "content": ["Hello", " there."]}),
    "output-one": body_of({"status": "completed", "output": MESSAGE}),
    "output-text": body_of({"status": "completed", "output": HELLO}),
    "output_text-only": body_of({"status": "completed", "output_text": HELLO}),
    "within-response": body_of({"response": {"status": "completed", "output": [MESSAGE]}}),
    "status-upper": body_of({"status": "COMPLETED", "output": [MESSAGE]}),
    "status-number": body_of({"status": 1, "output": [MESSAGE]}),
    "odd-items": response_of(None, {"type": "weird_thing", "x": 1}, MESSAGE, 7),
    "usage-huge": response_of(MESSAGE, usage={"input_tokens": 10**40, "output_tokens": -1}),
    "phase-odd": response_of({**MESSAGE, "phase": 7}),
    "annotations-odd": response_of(
        {**MESSAGE, "content": [{**PART, "annotations": "x", "logprobs": {}}]}
    ),
}
RESPONSE_CALLS: dict[str, tuple[Behaviour, list[tuple[str, str]]]] = {
    "arguments-object": (response_of({**CALLED, "arguments": {"c": 1}}), ONE),
    "arguments-within-text": (response_of({**CALLED, "arguments": json.dumps(C1)}), ONE),
    "within-function": (
        response_of({"type": "function_call", "function": {"name": "lookup", "arguments": C1}}),
        ONE,
    ),
    "of-another-type": (response_of({**CALLED, "type": "tool_call", "arguments": C1}), ONE),
    "in-a-message": (
        response_of(
            {"type": "message", "content": [], "tool_calls": [entry("lookup", C1, id="c")]}
        ),
        ONE,
    ),
    "two-in-a-message": (
        stream_of(
            completed(
                {
                    "type": "message",
                    "tool_calls": [entry("lookup", C1, id="c"), entry("lookup", C2, id="d")],
                }
            )
        ),
        TWO,
    ),
    "name-with-space": (response_of({**CALLED, "name": " lookup ", "arguments": C1}), ONE),
    "id-number": (response_of({**CALLED, "call_id": 7, "arguments": C1}), ONE),
    "one-id-for-two": (
        response_of({**CALLED, "arguments": C1}, {**CALLED, "id": "f2", "arguments": C2}),
        TWO,
    ),
    "other-item-id": (
        stream_of(
            event("response.output_item.added", output_index=0, item={**CALLED, "arguments": ""}),
            event("response.function_call_arguments.delta", item_id="x", output_index=0, delta=C1),
            event("response.output_item.done", output_index=0, item={**CALLED, "arguments": C1}),
            completed(),
        ),
        ONE,
    ),
}


def asked(behaviour: Behaviour, world: Any, **fields: Any) -> tuple[Outcome, Outcome]:
    stream = b"event-stream" in b"".join(it for it in behaviour if isinstance(it, bytes))
    world.upstream_sends(behaviour, behaviour)
    return world.respond(stream=stream, **fields), world.chat(stream=stream, **fields)


def test_what_responses_upstreams_send_is_what_they_say() -> None:
    with scenario("responses") as world:
        for name, behaviour in RESPONSE_WORDS.items():
            response, completion = asked(behaviour, world)
            assert (response.status, response.text) == ("completed", HELLO), (name, response.error)
            assert (completion.status, completion.text) == ("stop", HELLO), name
        for name, (behaviour, calls) in RESPONSE_CALLS.items():
            for outcome in asked(behaviour, world, tools=TOOLS):
                assert outcome.calls == calls, (name, outcome)
                assert len(set(outcome.call_ids)) == len(calls), name


def test_a_nameless_call_of_a_responses_upstream_fails() -> None:
    with scenario("responses") as world:
        world.upstream_answers(lambda request: response_of({**CALLED, "name": "", "arguments": C1}))
        outcome = world.respond(stream=False, tools=TOOLS).expect("error")
        assert "no name" in json.dumps(outcome.error)
