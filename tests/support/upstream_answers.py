"""Answers of upstreams in chat completions, and what both APIs make of them."""

from __future__ import annotations

from typing import Any, Final

from support.misbehaving_upstream import Behaviour
from support.scenario import (
    DONE,
    LOOKUP,
    NOW,
    Json,
    Outcome,
    Scenario,
    call,
    chunk,
    end,
    nested,
    stream_of,
    text,
    whole,
)

HELLO = (text("Hello"), text(" there."), end("stop"), DONE)
MESSAGE = {"role": "assistant", "content": "Hello there."}
TOOLS = [LOOKUP, NOW]
C1, C2 = '{"c":1}', '{"c":2}'
ONE = [("lookup", C1)]
TWO = [("lookup", C1), ("lookup", C2)]
MISSING: Final = object()


def is_stream(behaviour: Behaviour) -> bool:
    return isinstance(behaviour[0], bytes) and b"event-stream" in behaviour[0]


def ask_both(
    world: Scenario, behaviour: Behaviour, *, stream: bool | None = None, tools: bool = False
) -> tuple[Outcome, Outcome]:
    """What comes of an upstream's answer over the Responses API and over chat completions.

    ``stream`` None: as the upstream does.
    """
    stream = is_stream(behaviour) if stream is None else stream
    world.upstream_sends(behaviour, behaviour)
    if not tools:
        return world.respond(stream=stream), world.chat(stream=stream)
    return (
        world.respond(stream=stream, tools=TOOLS),
        world.chat(stream=stream, tools=list(map(nested, TOOLS))),
    )


def expect_words(
    world: Scenario, behaviour: Behaviour, words: str, status: str = "completed", chat: str = "stop"
) -> tuple[Outcome, Outcome]:
    response, completion = ask_both(world, behaviour)
    return response.expect(status, words), completion.expect(chat, words)


def entry(name: Any = MISSING, arguments: Any = MISSING, **marks: Any) -> Json:
    function = {"name": name, "arguments": arguments}
    return {**marks, "function": {k: v for k, v in function.items() if v is not MISSING}}


def of_calls(*chunks: Any, reason: Any = "tool_calls") -> Behaviour:
    """A stream of chunks with one entry each, or with a list of them."""
    parts = [call(*(one if isinstance(one, list) else [one])) for one in chunks]
    return stream_of(chunk({"role": "assistant", "content": None}), *parts, end(reason), DONE)


def whole_calls(*entries: Any, reason: Any = "tool_calls") -> Behaviour:
    return whole({"content": None, "tool_calls": list(entries)}, reason)


def first(name: Any = "lookup", arguments: Any = "", **marks: Any) -> Json:
    return entry(name, arguments, **{"index": 0, "id": "call_a", "type": "function", **marks})


def then(arguments: Any, **marks: Any) -> Json:
    return entry(arguments=arguments, **{"index": 0, **marks})


PIECES = (then('{"c"'), then(":1}"))


def unmarked(one: Json, *names: str) -> Json:
    return {k: v for k, v in one.items() if k not in names}


def check_argument_events(response: Outcome) -> None:
    """The pieces of a streamed call are its arguments."""
    pieces: dict[str, str] = {}
    for event in response.events:
        if event["type"] == "response.function_call_arguments.delta":
            pieces[event["item_id"]] = pieces.get(event["item_id"], "") + event["delta"]
        elif event["type"] == "response.function_call_arguments.done":
            assert pieces.get(event["item_id"], "") == event["arguments"]
