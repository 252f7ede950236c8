"""Every response and every event against the Open Responses specification's own types."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openresponses_types as spec
import pytest
from pydantic import BaseModel, ValidationError
from websockets.sync.client import connect

from antiphon.core.deltas import (
    AnnotationDelta,
    EncryptedReasoning,
    OutputTextDelta,
    ReasoningTextDelta,
)
from antiphon.errors import ModelError, UpstreamRateLimitError
from antiphon.models.scripted import (
    ScriptedModel,
    ScriptedReply,
    call,
    calls,
    cut,
    fail,
    finish,
    hang,
    refuse,
    say,
    think,
)
from support.api_strategies import SPEC_EVENTS
from support.http_server import Address, ThreadServer, serving

LOGPROB = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": []}
CITED = {
    "type": "url_citation",
    "url": "https://example.com",
    "title": "Example",
    "start_index": 0,
    "end_index": 2,
}
REPLIES: list[ScriptedReply] = [
    say("Hel", "lo"),
    say("") + think("Only thoughts."),
    think("Hm.", " Well.") + say("Hello"),
    ScriptedReply(
        (ReasoningTextDelta("Hm."), ReasoningTextDelta(" Well."), OutputTextDelta("Hello"))
    ),
    ScriptedReply((OutputTextDelta("Hi", (LOGPROB,)), AnnotationDelta(CITED))),
    ScriptedReply(
        (
            ReasoningTextDelta("Hm."),
            EncryptedReasoning("opaque", "scripted"),
            OutputTextDelta("Hello"),
        )
    ),
    refuse("No.", " Never."),
    calls(call("f", {"a": 1})),
    calls(call("f", {"a": 1}), call("g", "{oops")),
    think("Hm.") + say("Let me see.") + calls(call("f", {}), call("g", {})),
    say('{"a":', "1}"),
    say("Hel") + finish("length"),
    say("Hel") + finish("content_filter"),
    say("Hel") + fail(ModelError("It broke.")),
    fail(UpstreamRateLimitError("Slow down.", retry_after=1)),
    calls(call("f", {"a": 1})) + cut(),
    say("Hel") + cut(),
]
TOOLS = [{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}]
SCHEMA = {"type": "json_schema", "name": "a", "schema": {"type": "object"}, "strict": True}
FULL: dict[str, Any] = {
    "instructions": "Be brief.",
    "temperature": 0,
    "top_p": 0.5,
    "max_output_tokens": 50,
    "metadata": {"a": "b"},
    "tools": [{"type": "function", "name": "f"}, {"type": "function", "name": "g"}],
    "tool_choice": {"type": "function", "name": "f"},
    "text": {"format": {"type": "json_object"}, "verbosity": "low"},
    "reasoning": {"effort": "low", "summary": "auto"},
    "truncation": "auto",
    "parallel_tool_calls": False,
    "max_tool_calls": 3,
    "include": ["reasoning.encrypted_content", "message.output_text.logprobs"],
    "top_logprobs": 2,
    "service_tier": "flex",
    "prompt_cache_key": "k",
    "safety_identifier": "s",
    "user": "u",
}
CHOICE = {
    "type": "allowed_tools",
    "mode": "auto",
    "tools": [{"type": "function", "name": "f"}],
}
OPTIONS: list[dict[str, Any]] = [
    {},
    FULL,
    {"tools": TOOLS, "tool_choice": "required", "text": {"format": SCHEMA}},
    {"tools": TOOLS, "tool_choice": CHOICE, "store": False},
]
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwAD"
    "hgGAWjR9awAAAABJRU5ErkJggg=="
)
INPUT: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "developer", "content": [{"type": "input_text", "text": "Be kind."}]},
    {
        "role": "user",
        "content": [
            {"type": "input_text", "text": "What is this?"},
            {"type": "input_image", "image_url": PIXEL, "detail": "low"},
        ],
    },
    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
    {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
    {
        "type": "function_call_output",
        "call_id": "c1",
        "output": [
            {"type": "input_text", "text": "3"},
            {"type": "input_image", "image_url": PIXEL},
        ],
    },
    {"role": "assistant", "content": "A dot.", "phase": "final_answer"},
    {"role": "user", "content": "And now?"},
]
ITEM: dict[str, type[BaseModel]] = {
    "message": spec.Message,
    "function_call": spec.FunctionCall,
    "function_call_output": spec.FunctionCallOutput,
    "reasoning": spec.ReasoningBody,
    "compaction": spec.CompactionBody,
}


def checked(response: dict[str, Any]) -> dict[str, Any]:
    """The response, which is as specified, each of its items by its own type."""
    spec.ResponseResource.model_validate(without_schema(response))
    for item in response["output"]:
        ITEM[item["type"]].model_validate(item)
    return response


def without_schema(response: dict[str, Any]) -> dict[str, Any]:
    """The response as the specification has it: by its letter a shown schema is null.

    OpenAI's API shows the schema, its clients require it, and so we show it.
    """
    form = response["text"]["format"]
    if "schema" not in form:
        return response
    return {**response, "text": {**response["text"], "format": {**form, "schema": None}}}


def checked_events(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The response that the events end with; all of them are as specified."""
    for event in events:
        known = event
        if "response" in event:
            known = {**event, "response": without_schema(checked(event["response"]))}
        SPEC_EVENTS[event["type"]].model_validate(known)
        if "item" in event:
            ITEM[event["item"]["type"]].model_validate(event["item"])
    last: dict[str, Any] = events[-1]["response"]
    return last


def found(server: Address, response_id: str) -> dict[str, Any]:
    return checked(server.get(f"/v1/responses/{response_id}").json)


def test_the_types_look_closely() -> None:
    with serving() as server:
        response = server.respond().json
    for field in ("error", "tools", "metadata", "temperature", "usage"):
        with pytest.raises(ValidationError):
            checked({name: value for name, value in response.items() if name != field})


@pytest.mark.parametrize("reply", REPLIES)
@pytest.mark.parametrize("options", OPTIONS)
def test_every_event_is_as_specified(reply: ScriptedReply, options: dict[str, Any]) -> None:
    with serving(ScriptedModel([reply, reply])) as server:
        streamed = checked_events(server.respond(stream=True, **options).events)
        whole = server.respond(**options)
        if whole.status == 200:
            again = checked(whole.json)
            assert [kind(item) for item in again["output"]] == [
                kind(item) for item in streamed["output"]
            ]
        if options.get("store", True):
            assert found(server, streamed["id"]) == streamed
            replayed = server.get(f"/v1/responses/{streamed['id']}?stream=true").events
            assert checked_events(replayed) == streamed


def kind(item: dict[str, Any]) -> list[Any]:
    return [item["type"], item["status"], *(part["type"] for part in item.get("content", ()))]


def test_all_kinds_of_input() -> None:
    with serving() as server:
        response = checked(server.respond(input=INPUT).json)
        page = server.get(f"/v1/responses/{response['id']}/input_items?order=asc").json
        assert [item["type"] for item in page["data"]] == [
            item.get("type", "message") for item in INPUT
        ]
        for item in page["data"]:
            ITEM[item["type"]].model_validate(item)


def test_a_turn_in_the_background_and_one_that_is_cancelled(tmp_path: Path) -> None:
    reached = asyncio.Event()
    model = ScriptedModel([say("One ") + hang(reached)])
    with serving(model, tmp_path / "a.db") as server:
        queued = checked(server.respond(background=True).json)
        server.wait(reached)
        running = found(server, queued["id"])
        stopped = checked(server.post(f"/v1/responses/{queued['id']}/cancel").json)
        assert [one["status"] for one in (queued, running, stopped)] == [
            "queued",
            "in_progress",
            "cancelled",
        ]
        assert found(server, queued["id"]) == stopped
        assert server.get(f"/v1/responses/{queued['id']}?stream=true").events[-1]["response"] == (
            stopped
        )


def test_a_conversation() -> None:
    reply = think("Hm.") + say("Hello") + calls(call("f", {}, call_id="c1"))
    with serving(ScriptedModel([reply, "Done."])) as server:
        talk = server.post("/v1/conversations").json["id"]
        first = server.respond(conversation=talk, stream=True, tools=TOOLS)
        assert checked_events(first.events)["conversation"] == {"id": talk}
        output = {"type": "function_call_output", "call_id": "c1", "output": "3"}
        checked(server.respond(conversation=talk, input=[output], tools=TOOLS).json)
        items = server.get(f"/v1/conversations/{talk}/items?order=asc").json["data"]
        assert len(items) == 6
        for item in items:
            ITEM[item["type"]].model_validate(item)


def test_compaction() -> None:
    with serving(ScriptedModel(["Hello.", "Alice said hello.", "Alice."])) as server:
        first = server.respond("I am Alice.").json
        compact = server.post(
            "/v1/responses/compact", model="scripted", previous_response_id=first["id"]
        ).json
        spec.CompactResource.model_validate(compact)
        window = [*compact["output"], {"role": "user", "content": "Who am I?"}]
        second = checked(server.respond(input=window).json)
        (item, _) = server.get(f"/v1/responses/{second['id']}/input_items?order=asc").json["data"]
        spec.CompactionBody.model_validate(item)


ERRORS: list[Callable[[ThreadServer], Any]] = [
    lambda server: server.respond(input=[]),
    lambda server: server.respond(temperature=9),
    lambda server: server.respond(model="other"),
    lambda server: server.respond(previous_response_id="resp_" + "0" * 32),
    lambda server: server.get("/v1/responses/resp_" + "0" * 32),
    lambda server: server.get("/v1/nothing"),
]


@pytest.mark.parametrize("ask", ERRORS)
def test_errors(ask: Callable[[ThreadServer], Any]) -> None:
    with serving() as server:
        spec.ErrorPayload.model_validate(ask(server).error)


def test_a_websocket() -> None:
    model = ScriptedModel([say("Hello") + calls(call("f", {}))])
    with serving(model) as server, connect(f"ws://127.0.0.1:{server.port}/v1/responses") as socket:
        socket.send(json.dumps({"type": "response.create", "input": "Hi", "tools": TOOLS}))
        events: list[dict[str, Any]] = []
        while not events or events[-1]["type"] != "response.completed":
            events.append(json.loads(socket.recv()))
        checked_events(events)
        socket.send(json.dumps({"type": "response.create", "input": []}))
        spec.WebSocketErrorEvent.model_validate_json(socket.recv())
