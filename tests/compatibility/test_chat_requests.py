"""What clients send to ``/v1/chat/completions``: every shape with one meaning is taken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.scenario import LOOKUP, Scenario, answer_hello, scenario

Json = dict[str, Any]

HI: Json = {"role": "user", "content": "Hi"}
PIXEL = "data:image/png;base64,iVBORw0KGgo="
CALL: Json = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "lookup", "arguments": '{"c":1}'},
}
CALLED: Json = {"role": "assistant", "content": "", "tool_calls": [CALL]}
OUTPUT: Json = {"role": "tool", "content": "6", "tool_call_id": "call_1"}


def said(content: Any, role: str = "user", **fields: Any) -> Json:
    return {"role": role, "content": content, **fields}


def part(words: str) -> Json:
    return {"type": "text", "text": words}


def image(url: str, **fields: Any) -> Json:
    return {"type": "image_url", "image_url": {"url": url, **fields}}


def called(**fields: Any) -> Json:
    """An assistant message with one call, some of whose fields are odd."""
    return {"role": "assistant", "content": None, "tool_calls": [{**CALL, **fields}]}


def function(arguments: Any) -> Json:
    return {"name": "lookup", "arguments": arguments}


FILE: Json = {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:x;base64,QQ=="}}
AUDIO: Json = {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}}
VIDEO: Json = {"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}}


@pytest.fixture(scope="module")
def world() -> Iterator[Scenario]:
    with scenario() as made:
        made.upstream_answers(answer_hello)
        yield made


#: Messages that a client sends, and what the upstream is sent of them.
MESSAGES: dict[str, tuple[Any, list[Json]]] = {
    # Parts.
    "chat-file": ([said([part("Read"), FILE])], [said([part("Read"), FILE])]),
    "chat-audio": ([said([part("Hear"), AUDIO])], [said([part("Hear"), AUDIO])]),
    "chat-video": ([said([VIDEO])], [said([VIDEO])]),
    "file-nulls": (
        [said([{**FILE, "file": {**FILE["file"], "file_id": None, "file_url": None}}])],
        [said([FILE])],
    ),
    "file-flat": ([said([{"type": "input_file", **FILE["file"]}])], [said([FILE])]),
    "file-id-is-url": (
        [said([{"type": "file", "file": {"file_id": "https://example.com/a.pdf"}}])],
        [said([{"type": "file", "file": {"file_url": "https://example.com/a.pdf"}}])],
    ),
    "audio-flat": ([said([{"type": "input_audio", **AUDIO["input_audio"]}])], [said([AUDIO])]),
    "audio-data-url": (
        [said([{"type": "input_audio", "input_audio": {"data": "data:audio/x-wav;base64,QUJD"}}])],
        [said([AUDIO])],
    ),
    "audio-url": (
        [said([{"type": "audio_url", "audio_url": {"url": "data:audio/wav;base64,QUJD"}}])],
        [said([AUDIO])],
    ),
    "image-url-text": (
        [said([{"type": "image_url", "image_url": PIXEL, "detail": "low"}])],
        [said([image(PIXEL, detail="low")])],
    ),
    "image-input": (
        [said([{"type": "input_image", "image_url": PIXEL}])],
        [said([image(PIXEL)])],
    ),
    "image-input-nested": (
        [said([{"type": "input_image", "image_url": {"url": PIXEL}}])],
        [said([image(PIXEL)])],
    ),
    "image-bare": ([said([{"type": "image", "image": PIXEL}])], [said([image(PIXEL)])]),
    "detail-empty": ([said([image(PIXEL, detail="")])], [said([image(PIXEL)])]),
    "detail-null": ([said([image(PIXEL, detail=None)])], [said([image(PIXEL)])]),
    "detail-upper": ([said([image(PIXEL, detail="HIGH")])], [said([image(PIXEL, detail="high")])]),
    "loose-input-text": ([said([{"type": "input_text", "text": "Hi"}])], [HI]),
    "loose-output-text": (
        [HI, said([{"type": "output_text", "text": "A"}], "assistant"), HI],
        [HI, said("A", "assistant"), HI],
    ),
    "loose-content-object": ([said(part("Hi"))], [HI]),
    "loose-content-strings": ([said(["H", "i"])], [HI]),
    "loose-part-without-type": ([said([{"text": "Hi"}])], [HI]),
    "loose-part-null": ([said([None, part("Hi")])], [HI]),
    "loose-part-text-null": ([said([{"type": "text", "text": None}, part("Hi")])], [HI]),
    "loose-content-number": ([said(6)], [said("6")]),
    "loose-messages-text": ("Hi", [HI]),
    "loose-messages-object": (HI, [HI]),
    # Nulls, names, roles.
    "chat-nulls": (
        [
            HI,
            said("A", "assistant", tool_calls=None, refusal=None, audio=None, function_call=None),
            {**HI, "name": None, "tool_calls": None},
        ],
        [HI, said("A", "assistant"), HI],
    ),
    "chat-null-content": ([said(None), HI], [said(""), HI]),
    "chat-empty-lists": (
        [said([], "system"), HI, said("A", "assistant", tool_calls=[], annotations=[]), HI],
        [said("", "system"), HI, said("A", "assistant"), HI],
    ),
    "chat-calls-empty-object": (
        [HI, said("A", "assistant", tool_calls={}), HI],
        [HI, said("A", "assistant"), HI],
    ),
    "chat-refusal-false": (
        [HI, said("A", "assistant", refusal=False), HI],
        [HI, said("A", "assistant"), HI],
    ),
    "chat-cache-control": (
        [
            said([{**part("S"), "cache_control": {"type": "ephemeral"}}], "system"),
            {**HI, "cache_control": {"type": "ephemeral"}},
        ],
        [said("S", "system"), HI],
    ),
    "chat-names": ([said("Hi", name="Ann")], [said("Hi", name="Ann")]),
    "chat-name-number": ([said("Hi", name=7)], [said("Hi", name="7")]),
    "chat-developer": ([said("S", "developer"), HI], [said("S", "system"), HI]),
    "role-upper": ([said("S", "System"), said("Hi", "USER")], [said("S", "system"), HI]),
    "role-human-ai": (
        [said("Hi", "human"), said("A", "ai"), said("Hi", "human")],
        [HI, said("A", "assistant"), HI],
    ),
    "role-model": ([HI, said("A", "model"), HI], [HI, said("A", "assistant"), HI]),
    "refusal-and-words": (
        [HI, said("I would,", "assistant", refusal=" but no."), HI],
        [HI, said("I would, but no.", "assistant"), HI],
    ),
    "chat-sdk-dump": (
        [
            HI,
            {
                "content": "A",
                "refusal": None,
                "role": "assistant",
                "annotations": [],
                "audio": None,
                "function_call": None,
                "tool_calls": None,
                "parsed": None,
                "reasoning_content": None,
            },
            HI,
        ],
        [HI, said("A", "assistant"), HI],
    ),
    # Calls and their outputs.
    "chat-tool-parts": (
        [HI, CALLED, {**OUTPUT, "content": [part("6")]}],
        [HI, CALLED, OUTPUT],
    ),
    "chat-tool-null": (
        [HI, CALLED, {**OUTPUT, "content": None}],
        [HI, CALLED, {**OUTPUT, "content": ""}],
    ),
    "tool-object": (
        [HI, CALLED, {**OUTPUT, "content": {"a": 1}}],
        [HI, CALLED, {**OUTPUT, "content": '{"a":1}'}],
    ),
    "tool-list": (
        [HI, CALLED, {**OUTPUT, "content": [{"a": 1}, "b"]}],
        [HI, CALLED, {**OUTPUT, "content": '[{"a":1},"b"]'}],
    ),
    "tool-number": ([HI, CALLED, {**OUTPUT, "content": 6}], [HI, CALLED, OUTPUT]),
    "tool-without-id": (
        [HI, CALLED, {"role": "tool", "content": "6"}],
        [HI, CALLED, OUTPUT],
    ),
    "tool-name": ([HI, CALLED, {**OUTPUT, "name": "lookup"}], [HI, CALLED, OUTPUT]),
    "loose-arguments-object": (
        [HI, called(function=function({"c": 1})), OUTPUT],
        [HI, CALLED, OUTPUT],
    ),
    "arguments-null": (
        [HI, called(function=function(None)), OUTPUT],
        [HI, {**CALLED, "tool_calls": [{**CALL, "function": function("{}")}]}, OUTPUT],
    ),
    "call-index": ([HI, called(index=0), OUTPUT], [HI, CALLED, OUTPUT]),
    "call-type-null": ([HI, called(type=None), OUTPUT], [HI, CALLED, OUTPUT]),
    "call-flat": (
        [
            HI,
            {"role": "assistant", "tool_calls": [{"id": "call_1", **function('{"c":1}')}]},
            OUTPUT,
        ],
        [HI, CALLED, OUTPUT],
    ),
    "call-without-id": (
        [HI, called(id=None), {"role": "tool", "content": "6"}],
        [
            HI,
            {**CALLED, "tool_calls": [{**CALL, "id": "call_1_0"}]},
            {**OUTPUT, "tool_call_id": "call_1_0"},
        ],
    ),
    "call-id-number": (
        [HI, called(id=1), {**OUTPUT, "tool_call_id": 1}],
        [
            HI,
            {**CALLED, "tool_calls": [{**CALL, "id": "1"}]},
            {**OUTPUT, "tool_call_id": "1"},
        ],
    ),
    "call-of-custom-tool": (
        [
            HI,
            {
                "role": "assistant",
                "tool_calls": [
                    {"id": "c", "type": "custom", "custom": {"name": "patch", "input": "a\nb"}}
                ],
            },
            {"role": "tool", "tool_call_id": "c", "content": "Done"},
        ],
        [
            HI,
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {
                        "id": "c",
                        "type": "function",
                        "function": {"name": "patch", "arguments": '{"input":"a\\nb"}'},
                    }
                ],
            },
            {"role": "tool", "content": "Done", "tool_call_id": "c"},
        ],
    ),
    "call-as-item": (
        [
            HI,
            {"type": "function_call", "call_id": "call_1", **function('{"c":1}')},
            {"type": "function_call_output", "call_id": "call_1", "output": "6"},
        ],
        [HI, CALLED, OUTPUT],
    ),
    "chat-legacy-role": (
        [
            HI,
            {"role": "assistant", "content": None, "function_call": function('{"c":1}')},
            {"role": "function", "name": "lookup", "content": "6"},
        ],
        [HI, CALLED, OUTPUT],
    ),
    "legacy-two-rounds": (
        [
            HI,
            {"role": "assistant", "content": None, "function_call": function('{"c":1}')},
            {"role": "function", "name": "lookup", "content": "6"},
            {"role": "assistant", "content": "So", "function_call": function({"c": 1})},
            {"role": "function", "name": "lookup", "content": None},
        ],
        [
            HI,
            CALLED,
            OUTPUT,
            {"role": "assistant", "content": "So", "tool_calls": [{**CALL, "id": "call_3"}]},
            {"role": "tool", "content": "", "tool_call_id": "call_3"},
        ],
    ),
    "legacy-stub": (
        [HI, said("A", "assistant", function_call={"name": "", "arguments": ""}), HI],
        [HI, said("A", "assistant"), HI],
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages(world: Scenario, name: str) -> None:
    sent, shown = MESSAGES[name]
    body = {"model": "m", "messages": sent}
    answer = world.server.request("POST", "/v1/chat/completions", body)
    assert answer.status == 200, answer.json
    assert world.requests[-1]["messages"] == shown


#: What cannot be taken, the field at fault, and a word of the message.
REFUSED: dict[str, tuple[Json, str, str]] = {
    "detail-unknown": (
        {"messages": [said([image(PIXEL, detail="medium")])]},
        "messages[0].content[0].image_url.detail",
        "medium",
    ),
    "role-unknown": ({"messages": [said("Hi", "narrator")]}, "messages[0].role", "narrator"),
    "role-missing": ({"messages": [{"content": "Hi"}]}, "messages[0].role", "role"),
    "part-unknown": (
        {"messages": [said([{"type": "hologram"}])]},
        "messages[0].content[0].type",
        "hologram",
    ),
    "file-by-id": (
        {"messages": [said([{"type": "file", "file": {"file_id": "file-1"}}])]},
        "messages[0].content[0].file.file_data",
        "keeps no files",
    ),
    "audio-without-format": (
        {"messages": [said([{"type": "input_audio", "input_audio": {"data": "QUJD"}}])]},
        "messages[0].content[0].input_audio.format",
        "format",
    ),
    "content-missing": ({"messages": [{"role": "user"}]}, "messages[0].content", "content"),
    "output-without-call": (
        {"messages": [HI, {"role": "tool", "content": "6"}]},
        "messages[1].tool_call_id",
        "call",
    ),
    "output-of-other-function": (
        {"messages": [HI, CALLED, {"role": "function", "name": "now", "content": "6"}]},
        "messages[2].name",
        "call",
    ),
    "output-of-no-call": (
        {"messages": [HI, {"role": "tool", "tool_call_id": "no", "content": "6"}]},
        "messages",
        "no",
    ),
    "nothing-said": ({"messages": [said(None), said([])]}, "messages", "empty"),
    "legacy-choice-unknown": (
        {"messages": [HI], "functions": [{"name": "f"}], "function_call": {"name": "g"}},
        "function_call.name",
        "'g'",
    ),
    "legacy-function-without-name": (
        {"messages": [HI], "functions": [{"description": "f"}]},
        "functions[0].name",
        "name",
    ),
    "call-without-function": (
        {"messages": [HI, {"role": "assistant", "tool_calls": [{"id": "call_1"}]}]},
        "messages[1].tool_calls[0].function",
        "function",
    ),
    "tool-type-unknown": (
        {"messages": [HI], "tools": [{"type": "magic", "name": "f", "parameters": {}}]},
        "tools[0].type",
        "magic",
    ),
    "tool-of-server": (
        {"messages": [HI], "tools": [{"type": "mcp", "server_label": "a"}]},
        "tools[0].type",
        "/v1/responses",
    ),
    "choice-unknown": (
        {"messages": [HI], "tools": [LOOKUP], "tool_choice": {"function": {"name": "now"}}},
        "tool_choice.function.name",
        "now",
    ),
    "history-by-id": (
        {"messages": [HI], "previous_response_id": "resp_1"},
        "previous_response_id",
        "/v1/responses",
    ),
    "stream-word": ({"messages": [HI], "stream": "maybe"}, "stream", "stream"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_one_meaning_is_refused(world: Scenario, name: str) -> None:
    fields, param, word = REFUSED[name]
    asked = len(world.requests)
    answer = world.server.request("POST", "/v1/chat/completions", {"model": "m", **fields})
    assert answer.status == 400, answer.json
    error = answer.json["error"]
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert error["code"]
    assert word in error["message"]
    assert len(world.requests) == asked


@pytest.mark.parametrize("kind", ["chat_completions", "responses"])
def test_recordings_go_on_from_the_other_interface(kind: str) -> None:
    with scenario(kind) as world:
        world.respond([said([{"type": "input_text", "text": "Hear"}, AUDIO])])
        shown = world.requests[-1]["messages" if kind == "chat_completions" else "input"]
        assert AUDIO in shown[-1]["content"]
