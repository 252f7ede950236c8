"""Any framing of a good answer, any odd field of a foreign one, and any odd field of a request."""

from __future__ import annotations

import gzip
import json
import sys
import zlib
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.json_mutations import VALUES, Path, mutated, paths
from support.misbehaving_upstream import Behaviour
from support.responses_events import CREATED, added, arguments, call, end, item_done, message, text
from support.scenario import DONE, LOOKUP, Json, Scenario, answer_hello, data, stream_of
from support.scenario import end as chat_end
from support.scenario import text as chat_text

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
HELLO = "Hello there."
GOOD = b"".join((chat_text("Hello"), chat_text(" thére."), chat_end("stop"), DONE))
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
}


@RELAXED
@given(
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
    charset=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"]),
    codings=st.lists(st.sampled_from(sorted(COMPRESSIONS)), max_size=3),
    size=st.integers(1, 400),
    stream=st.booleans(),
)
def test_a_good_stream_says_the_same_in_any_framing(  # noqa: PLR0917
    world: Scenario, newline: str, charset: str, codings: list[str], size: int, stream: bool
) -> None:
    body = GOOD.decode().replace("\n", newline).encode(charset)
    for coding in codings:
        body = COMPRESSIONS[coding](body)
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    headers = {"Content-Encoding": ", ".join(codings)} if codings else {}
    world.upstream_answers(lambda _: stream_of(*pieces, headers=headers))
    world.respond(stream=stream).expect("completed", "Hello thére.")


# ---- answers of other APIs

COHERE_END: Json = {"finish_reason": "COMPLETE", "response": {"text": HELLO, "tool_calls": []}}
#: Streams that say "Hello there.", as their events.
FOREIGN: dict[str, list[Json]] = {
    "tgi": [
        {"index": 1, "token": {"id": 1, "text": "Hello", "special": False}, "details": None},
        {
            "index": 2,
            "token": {"id": 2, "text": " there.", "special": False},
            "generated_text": HELLO,
            "details": {"finish_reason": "stop", "generated_tokens": 2, "input_length": 5},
        },
    ],
    "kobold": [{"token": "Hello"}, {"token": " there.", "finish_reason": "stop"}],
    "watsonx": [
        {"results": [{"generated_text": "Hello", "stop_reason": "NOT_FINISHED"}]},
        {"results": [{"generated_text": " there.", "stop_reason": "eos", "input_token_count": 5}]},
    ],
    "cohere-v1": [
        {"event_type": "text-generation", "text": "Hello"},
        {"event_type": "text-generation", "text": " there."},
        {"event_type": "stream-end", "is_finished": True, **COHERE_END},
    ],
    "cohere-v2": [
        {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "Hello"}}}},
        {"type": "content-delta", "delta": {"message": {"content": {"text": " there."}}}},
        {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": {"tokens": {}}}},
    ],
    "llama.cpp": [
        {"content": "Hello", "stop": False},
        {"content": " there.", "stop": True, "stop_type": "eos", "tokens_evaluated": 5},
    ],
    "converse": [
        {
            "output": {"message": {"role": "assistant", "content": [{"text": HELLO}]}},
            "stopReason": "end_turn",
            "usage": {"inputTokens": 5, "outputTokens": 2},
        }
    ],
}
FOREIGN_PLACES = [
    (name, index, path)
    for name, events in FOREIGN.items()
    for index, event in enumerate(events)
    for path in paths(event)
]
ENDINGS = {"completed", "incomplete", "failed", "error"}


@RELAXED
@given(place=st.sampled_from(FOREIGN_PLACES), other=VALUES, stream=st.booleans())
def test_an_odd_field_of_a_foreign_answer_adds_no_word(
    world: Scenario, place: tuple[str, int, Path], other: Any, stream: bool
) -> None:
    name, index, path = place
    events = list(FOREIGN[name])
    events[index] = mutated(events[index], path, other)
    world.upstream_answers(lambda _: stream_of(*map(data, events)))
    answered = world.respond(stream=stream)
    assert answered.status in ENDINGS
    # No text is taken twice, whatever the event is taken for.
    assert answered.text.count("Hello") <= 1
    world.upstream_answers(answer_hello)
    response_id = answered.body.get("id") or (answered.error or {}).get("response_id")
    world.respond("And?", previous_response_id=response_id).expect("completed", "Hello")


# ---- answers of the Responses dialect


CALL = call()
EVENTS: list[bytes] = [
    CREATED,
    *(added(message("")), text("Hello"), text(" there."), item_done(message(HELLO))),
    *(added(CALL, 1), arguments('{"c"', index=1), arguments(":1}", index=1), item_done(CALL, 1)),
    end(message(HELLO), CALL),
]


def decoded(event: bytes) -> Json:
    value: Json = json.loads(event.rpartition(b"data: ")[2])
    return value


EVENT_PLACES = [
    (index, path) for index, event in enumerate(EVENTS) for path in paths(decoded(event))
]


@RELAXED
@given(place=st.sampled_from(EVENT_PLACES), other=VALUES, stream=st.booleans())
def test_an_odd_field_of_an_event_ends_no_conversation(
    responses_world: Scenario, place: tuple[int, Path], other: Any, stream: bool
) -> None:
    index, path = place
    events: list[bytes] = list(EVENTS)
    events[index] = data(mutated(decoded(events[index]), path, other))
    behaviour: Behaviour = stream_of(*events)
    responses_world.upstream_answers(lambda _: behaviour)
    answered = responses_world.respond(stream=stream, tools=[LOOKUP])
    assert answered.status in ENDINGS
    assert len(set(answered.call_ids)) == len(answered.calls)
    for _, made in answered.calls if answered.status == "completed" else ():
        assert isinstance(json.loads(made), dict)


# ---- requests

HI: Json = {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {}}]}
CHAT: Json = {
    "model": "m",
    "stream": False,
    "stream_options": {"include_usage": True},
    "messages": [
        {"role": "system", "content": "Be."},
        {"role": "user", "name": "ann", "content": "Hi", "images": ["iVBORw0KGgo="]},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "c0", "name": "lookup", "input": {"c": 1}}],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c0", "content": "1"}]},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "Hm",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "lookup", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "one"}]},
        HI,
        {"role": "user", "parts": [{"inlineData": {"mimeType": "image/png", "data": "QUJD"}}]},
    ],
    "tools": [{"type": "function", "function": {"name": "lookup", "parameters": {}}}],
    "tool_choice": {"type": "function", "function": {"name": "lookup"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}},
    "metadata": {"a": "b"},
    "stop": ["END"],
    "temperature": 0.5,
}
RESPONSES: Json = {
    "stream": False,
    "instructions": "Be.",
    "input": [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm"}]},
        {"type": "function_call", "call_id": "c1", "name": "lookup", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "one"},
        {"type": "custom_tool_call", "call_id": "c2", "name": "patch", "input": "x"},
        {
            "type": "custom_tool_call_output",
            "call_id": "c2",
            "output": [{"type": "input_text", "text": "two"}],
        },
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"query": "q"}},
        {"type": "mcp_call", "id": "m", "server_label": "s", "name": "n", "arguments": "{}"},
        {"type": "mcp_approval_request", "id": "a", "server_label": "s", "name": "n"},
        {"type": "additional_tools", "tools": [{"type": "function", "name": "extra"}]},
        {"role": "user", "content": [{"type": "input_image", "image_url": "https://a.b/c.png"}]},
    ],
    "tools": [
        LOOKUP,
        {"type": "custom", "name": "patch", "format": {"type": "text"}},
        {"type": "namespace", "name": "ns", "tools": [LOOKUP]},
        {"type": "web_search", "filters": {"allowed_domains": ["a.b"]}},
    ],
    "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [LOOKUP]},
    "text": {"format": {"type": "json_schema", "name": "n", "schema": {}}, "verbosity": "low"},
    "reasoning": {"effort": "low", "summary": "auto"},
    "context_management": [{"type": "compaction", "compact_threshold": 100000}],
    "include": ["reasoning.encrypted_content"],
    "metadata": {"a": "b"},
}
BODIES = {"/v1/chat/completions": CHAT, "/v1/responses": RESPONSES}
REQUEST_PLACES = [(path, place) for path, body in BODIES.items() for place in paths(body)]


@RELAXED
@given(place=st.sampled_from(REQUEST_PLACES), other=VALUES)
def test_an_odd_field_of_a_request_is_taken_or_refused_in_words(
    world: Scenario, place: tuple[str, Path], other: Any
) -> None:
    world.upstream_answers(answer_hello)
    endpoint, path = place
    answered = world.server.request("POST", endpoint, mutated(BODIES[endpoint], path, other))
    if answered.status != 200:
        assert answered.status in (400, 404), answered.body
        assert answered.error["message"]
        assert answered.error["type"] == "invalid_request_error"
