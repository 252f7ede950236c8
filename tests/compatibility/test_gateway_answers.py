"""Answers as gateways mangle them on their way: charsets, layers of compression, split calls."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

from support.misbehaving_upstream import Behaviour
from support.scenario import (
    DONE,
    Json,
    Outcome,
    Scenario,
    body_of,
    chunk,
    data,
    end,
    nested,
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
    entry,
    first,
    is_stream,
    of_calls,
    then,
    whole_calls,
)

HELLO = "Hello there."
A, B = text("Hello"), text(" there.")
SENT = b"".join((A, B, end("stop"), DONE))
ANSWER: Json = {
    "choices": [{"index": 0, "message": {"content": HELLO}, "finish_reason": "stop"}],
}
WHOLE = json.dumps(ANSWER).encode()
PRETTY = json.dumps({"choices": [{"index": 0, "delta": {"content": HELLO}}]}, indent=2).encode()


def ask(world: Scenario, behaviour: Behaviour, *, tools: bool = False) -> list[Outcome]:
    """What both APIs make of it; the upstream answers however often it is asked."""
    world.upstream_answers(lambda _: behaviour)
    stream = is_stream(behaviour)
    response: Json = {"tools": TOOLS} if tools else {}
    completion: Json = {"tools": list(map(nested, TOOLS))} if tools else {}
    return [world.respond(stream=stream, **response), world.chat(stream=stream, **completion)]


def encoded(body: bytes, encoding: str, **options: Any) -> Behaviour:
    return stream_of(body, headers={"Content-Encoding": encoding}, **options)


def byte_by_byte(body: bytes, content_type: str = "text/event-stream") -> Behaviour:
    parts = (body[at : at + 1] for at in range(len(body)))
    return stream_of(*parts, content_type=content_type)


WIDE: dict[str, bytes] = {
    name: SENT.decode().encode(charset)
    for name, charset in (("marked", "utf-16"), ("le", "utf-16-le"), ("be", "utf-16-be"))
}
WORDS: dict[str, Behaviour] = {
    **{f"utf-16-{name}": stream_of(body) for name, body in WIDE.items()},
    **{f"utf-16-{name}-pieces": byte_by_byte(body) for name, body in WIDE.items()},
    "utf-16-whole": body_of(WHOLE.decode().encode("utf-16")),
    "utf-16-whole-labelled": body_of(
        WHOLE.decode().encode("utf-16-le"), content_type="application/json; charset=utf-16le"
    ),
    "gzip-twice": encoded(gzip.compress(gzip.compress(SENT)), "gzip, gzip"),
    "gzip-twice-one-label": encoded(gzip.compress(gzip.compress(SENT)), "gzip"),
    "gzip-twice-without-label": stream_of(gzip.compress(gzip.compress(SENT))),
    "deflate-within-gzip": encoded(gzip.compress(zlib.compress(SENT)), "deflate, gzip"),
    "gzip-twice-label-once-zipped": encoded(gzip.compress(SENT), "gzip, gzip"),
    "gzip-of-members": encoded(
        gzip.compress(b"".join(map(gzip.compress, (A, B, end("stop"), DONE)))), ""
    ),
    "pretty-first-line-marked": stream_of(b"data: " + PRETTY + b"\n\n", end("stop"), DONE),
    "pretty-crlf": stream_of(
        b"data: " + PRETTY.replace(b"\n", b"\r\n") + b"\r\n\r\n", end("stop"), DONE
    ),
    "pretty-with-comment": stream_of(
        b"data: " + PRETTY.replace(b"\n", b"\n: ping\n", 1) + b"\n\n", end("stop"), DONE
    ),
}


def copilot(*messages: Json) -> Behaviour:
    """Choices without an index, of which each is a part of one message."""
    choices = [{"finish_reason": "tool_calls", "message": one} for one in messages]
    return body_of({"choices": choices})


TOOL_USE: Json = {"type": "tool_use", "id": "t", "name": "lookup", "input": {"c": 1}}
CALLED: Json = {"role": "assistant", "tool_calls": [entry("lookup", C1, id="a")]}
CALLS: dict[str, tuple[Behaviour, list[tuple[str, str]]]] = {
    "arguments-in-pieces": (whole_calls(entry("lookup", ['{"c"', ":1}"], id="a")), ONE),
    "arguments-in-pieces-stream": (of_calls(first("lookup", ['{"c"']), then([":1}"])), ONE),
    "arguments-listed": (whole_calls(entry("lookup", [{"c": 1}], id="a")), ONE),
    "arguments-repeated": (of_calls(first("lookup", ""), then(C1), then(C1)), ONE),
    "one-call-under-many-indexes": (
        of_calls(*(first("lookup", C1, index=number, id="x") for number in range(3))),
        ONE,
    ),
    "one-id-for-two": (
        of_calls(first("lookup", C1, id="x"), first("lookup", C2, index=1, id="x")),
        TWO,
    ),
    "heads-of-one-index": (
        of_calls(
            *(first("lookup", id="a"), then(C1)),
            *(first("lookup", id="b"), then(C2, index=1)),
        ),
        TWO,
    ),
    "heads-of-one-index-in-pieces": (
        of_calls(
            *(first("lookup", id="a"), then('{"c"'), then(":1}")),
            *(first("lookup", id="b"), then('{"c"', index=1), then(":2}", index=1)),
        ),
        TWO,
    ),
    "words-and-calls-in-choices": (copilot({"content": "Let me see."}, CALLED), ONE),
    "calls-in-first-choice": (copilot(CALLED, {"content": None}), ONE),
    "tool-use-part": (whole({"content": [TOOL_USE]}, "tool_use"), ONE),
    "tool-use-part-behind-words": (
        whole({"content": [{"type": "text", "text": "Let me see."}, TOOL_USE]}, "tool_use"),
        ONE,
    ),
    "tool-use-part-stream": (
        stream_of(chunk({"content": [TOOL_USE]}), end("tool_use"), DONE),
        ONE,
    ),
}
#: Where a usage is, or what its counts are called.
COUNTED: dict[str, Behaviour] = {
    "camel": whole({"content": HELLO}, usage={"promptTokens": 5, "completionTokens": 2}),
    "camel-bedrock": whole({"content": HELLO}, usage={"inputTokens": 5, "outputTokens": 2}),
    "groq": stream_of(
        *(A, B),
        data(
            {
                "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
                "x_groq": {"id": "r", "usage": {"prompt_tokens": 5, "completion_tokens": 2}},
            }
        ),
        DONE,
    ),
}


def test_charsets_and_layers_of_compression_are_read(world: Scenario) -> None:
    for name, behaviour in WORDS.items():
        response, completion = ask(world, behaviour)
        assert (response.status, response.text) == ("completed", HELLO), (name, response.error)
        assert (completion.status, completion.text) == ("stop", HELLO), name


def test_split_and_repeated_calls_are_what_was_meant(world: Scenario) -> None:
    for name, (behaviour, calls) in CALLS.items():
        for outcome in ask(world, behaviour, tools=True):
            assert outcome.calls == calls, (name, outcome.error)
            assert len(set(outcome.call_ids)) == len(calls), name
            if "words" in name:
                assert outcome.text == "Let me see.", name


def test_usage_is_counted_wherever_it_stands(world: Scenario) -> None:
    for name, behaviour in COUNTED.items():
        usage = ask(world, behaviour)[0].body["usage"]
        assert (usage["input_tokens"], usage["output_tokens"]) == (5, 2), name
