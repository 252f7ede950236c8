"""What clients send as input: items of other servers, and loose shapes with one meaning."""

from __future__ import annotations

import json
from typing import Any

from support.scenario import (
    DONE,
    LOOKUP,
    Json,
    Scenario,
    call,
    end,
    scenario,
    stream_of,
    text,
)

HELLO = stream_of(text("Hello"), text(" there."), end("stop"), DONE)
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhg"
    "GAWjR9awAAAABJRU5ErkJggg=="
)
EXEC: Json = {"type": "custom", "name": "exec"}
BEFORE: Json = {"role": "user", "content": "Words before."}
AFTER: Json = {"role": "user", "content": "Words after."}
CALL: Json = {"type": "function_call", "call_id": "c1", "name": "lookup", "arguments": '{"c":1}'}
OUTPUT: Json = {"type": "function_call_output", "call_id": "c1", "output": "one"}


def asked(world: Scenario, given: Any, **fields: Any) -> list[Json]:
    """The messages that the upstream gets of an input."""
    world.upstream_sends(HELLO)
    world.respond(given, **fields).expect("completed", "Hello there.")
    messages: list[Json] = world.requests[-1]["messages"]
    return messages


def words(messages: list[Json]) -> list[Any]:
    return [one["content"] for one in messages if not one.get("tool_calls")]


# ---- items of other servers

#: Items that only their own server understands: the words around them reach the model.
SILENT: dict[str, list[Json]] = {
    "item-web_search_call": [
        {
            "type": "web_search_call",
            "id": "ws_1",
            "status": "completed",
            "action": {"type": "search", "query": "q", "sources": None},
        }
    ],
    "item-file_search_call": [
        {"type": "file_search_call", "id": "fs_1", "queries": ["q"], "results": None}
    ],
    "item-tool_search_call": [
        {"type": "tool_search_call", "call_id": None, "execution": "server", "arguments": {}},
        {"type": "tool_search_output", "call_id": None, "execution": "server", "tools": []},
    ],
    "item-additional_tools": [
        {"type": "additional_tools", "role": "developer", "tools": [LOOKUP, {"type": "shell"}]}
    ],
    "item-reasoning-null": [
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": None}
    ],
    "reasoning-bare": [{"type": "reasoning"}],
    "reasoning-nulls": [{"type": "reasoning", "summary": None, "content": None, "status": None}],
    "reasoning-strings": [{"type": "reasoning", "summary": ["a"], "content": "b"}],
    "image_generation_call": [{"type": "image_generation_call", "id": "ig_1", "result": None}],
    "computer_call": [
        {"type": "computer_call", "call_id": "k", "action": {"type": "screenshot"}},
    ],
    "x_search_call": [
        {"type": "x_search_call", "id": "x_1", "status": "completed", "action": {"query": "q"}}
    ],
    "compaction_trigger": [{"type": "compaction_trigger"}],
    "output-without-call": [{"type": "local_shell_call_output", "id": "z", "output": "x"}],
    "mcp_list_tools": [{"type": "mcp_list_tools", "server_label": "s", "tools": []}],
}


def test_items_of_other_servers_are_no_obstacle_and_are_shown_as_they_came() -> None:
    with scenario() as world:
        for name, items in SILENT.items():
            messages = asked(world, [BEFORE, *items, AFTER])
            assert words(messages) == ["Words before.", "Words after."], name
            newest = world.server.get("/v1/responses?limit=1").json["data"][0]["id"]
            path = f"/v1/responses/{newest}/input_items?order=asc"
            shown = world.server.get(path).json["data"][1:-1]
            assert [one["type"] for one in shown] == [one["type"] for one in items], name
            for given, one in zip(items, shown, strict=True):
                if given["type"] not in ("reasoning", "mcp_list_tools"):
                    assert {**one, "id": 0} == {**given, "id": 0}, name


#: Calls of other servers that a client answered, and the words of them that reach the model.
PAIRED: dict[str, tuple[list[Json], list[str], str]] = {
    "item-custom_tool_call": (
        [
            {"type": "custom_tool_call", "call_id": "x", "name": "exec", "input": "ls"},
            {"type": "custom_tool_call_output", "call_id": "x", "output": "a.txt"},
        ],
        ["exec", "ls"],
        "a.txt",
    ),
    "item-local_shell_call": (
        [
            {
                "type": "local_shell_call",
                "id": "lsh_1",
                "call_id": "x",
                "status": "completed",
                "action": {"type": "exec", "command": ["ls", "-l"], "env": {}},
            },
            {"type": "local_shell_call_output", "id": "x", "output": "a.txt"},
        ],
        ["local_shell", "ls"],
        "a.txt",
    ),
    "local_shell-by-item": (
        [
            {"type": "local_shell_call", "id": "i", "call_id": "x", "action": {"command": ["ls"]}},
            {"type": "local_shell_call_output", "id": "i", "output": "a.txt"},
        ],
        ["local_shell", "ls"],
        "a.txt",
    ),
    "local_shell-function-output": (
        [
            {"type": "local_shell_call", "call_id": "x", "action": {"command": ["ls"]}},
            {"type": "function_call_output", "call_id": "x", "output": "a.txt"},
        ],
        ["local_shell", "ls"],
        "a.txt",
    ),
    "item-mcp_call": (
        [
            {
                "type": "mcp_call",
                "id": "mcp_1",
                "server_label": "files",
                "name": "list",
                "arguments": '{"path":"ls"}',
                "output": "a.txt",
                "error": None,
            }
        ],
        ["files__list", "ls"],
        "a.txt",
    ),
    "shell_call": (
        [
            {"type": "shell_call", "call_id": "x", "action": {"commands": ["ls"]}},
            {
                "type": "shell_call_output",
                "call_id": "x",
                "output": [{"stdout": "a.txt", "stderr": "", "outcome": {"type": "exit"}}],
            },
        ],
        ["shell", "ls"],
        "a.txt",
    ),
    "apply_patch_call": (
        [
            {"type": "apply_patch_call", "call_id": "x", "operation": {"diff": "ls"}},
            {"type": "apply_patch_call_output", "call_id": "x", "output": "a.txt", "status": "ok"},
        ],
        ["apply_patch", "ls"],
        "a.txt",
    ),
    "item-tool_search-client": (
        [
            {
                "type": "tool_search_call",
                "call_id": "t",
                "execution": "client",
                "arguments": {"query": "ls"},
            },
            {
                "type": "tool_search_output",
                "call_id": "t",
                "execution": "client",
                "tools": [{**LOOKUP, "description": "Finds a.txt"}],
            },
        ],
        ["tool_search", '{"query":"ls"}'],
        '{"name":"lookup","description":"Finds a.txt"}',
    ),
    "namespaced": (
        [{**CALL, "namespace": "files", "arguments": "ls"}, {**OUTPUT, "output": "a.txt"}],
        ["files__lookup", "ls"],
        "a.txt",
    ),
}


def test_calls_and_outputs_of_other_servers_reach_the_model() -> None:
    with scenario() as world:
        for name, (items, called, output) in PAIRED.items():
            messages = asked(world, [BEFORE, *items, AFTER])
            assert [one["role"] for one in messages] == ["user", "assistant", "tool", "user"], name
            made = messages[1]["tool_calls"][0]
            assert made["function"]["name"] == called[0], name
            assert called[1] in made["function"]["arguments"], name
            assert output in messages[2]["content"], name
            assert messages[2]["tool_call_id"] == made["id"]
            newest = world.server.get("/v1/responses?limit=1").json["data"][0]["id"]
            shown = world.server.get(f"/v1/responses/{newest}/input_items?order=asc").json["data"]
            assert [one["type"] for one in shown[1:-1]] == [one["type"] for one in items], name


def test_conversations_keep_items_of_other_servers() -> None:
    given = [BEFORE, *SILENT["item-web_search_call"], *PAIRED["item-custom_tool_call"][0], AFTER]
    with scenario() as world:
        made = world.server.request("POST", "/v1/conversations", {"items": given}).json
        path = f"/v1/conversations/{made['id']}/items"
        shown = world.server.get(f"{path}?order=asc").json["data"]
        assert [one["type"] for one in shown] == [
            "message",
            *("web_search_call", "custom_tool_call", "custom_tool_call_output", "message"),
        ]
        for one in shown:
            assert world.server.get(f"{path}/{one['id']}").json == one
        messages = asked(world, "Go on.", conversation=made["id"])
        assert words(messages) == ["Words before.", "a.txt", "Words after.", "Go on."]
        reference = {"type": "item_reference", "id": shown[1]["id"]}
        assert words(asked(world, [BEFORE, reference])) == ["Words before."]
        found = world.server.get("/v1/conversations?query=before").json["data"]
        assert made["id"] in [one["conversation"] for one in found]


def test_a_turn_with_items_of_every_kind_is_replayed_and_read_by_all() -> None:
    function = {"name": "functions__exec", "arguments": '{"input":"ls -l"}'}
    made = {"index": 0, "id": "c9", "function": function}
    exec_tool = {"type": "namespace", "name": "functions", "tools": [EXEC]}
    with scenario() as world:
        world.upstream_sends(
            stream_of(text("Let me "), text("see."), call(made), end("tool_calls"), DONE)
        )
        given = [BEFORE, *SILENT["item-web_search_call"], *PAIRED["item-custom_tool_call"][0]]
        first = world.respond(given, tools=[exec_tool]).expect("completed", "Let me see.")
        name = first.body["id"]
        again = world.server.get(f"/v1/responses/{name}?stream=true")
        assert again.events == first.events
        after = world.server.get(f"/v1/responses/{name}?stream=true&starting_after=4").body
        assert again.body.endswith(after)
        assert after.startswith(b"id: 5\nevent: response.output_text.delta")
        context = world.server.get(f"/v1/responses/{name}/context").json["messages"]
        assert [one["role"] for one in context] == ["user", "assistant", "tool"]
        counted = world.server.post("/v1/responses/input_tokens", input=given, model="m")
        assert counted.json["input_tokens"] > 0
        deleted = world.server.request("DELETE", f"/v1/responses/{name}")
        assert deleted.json["deleted"] is True


# ---- an output that comes again


def test_an_output_that_comes_again_is_left_out() -> None:
    def called(call_id: str) -> Any:
        made = {"index": 0, "id": call_id, "function": {"name": "lookup", "arguments": "{}"}}
        return stream_of(call(made), end("tool_calls"), DONE)

    outputs = [{**OUTPUT, "call_id": name, "output": f"{name}!"} for name in ("r1", "r2", "r3")]
    for chain in ("previous_response_id", "conversation"):
        with scenario() as world:
            fields: Json = {"tools": [LOOKUP]}
            if chain == "conversation":
                fields[chain] = world.server.request("POST", "/v1/conversations", {}).json["id"]
            world.upstream_sends(called("r1"), called("r2"), called("r3"), HELLO, HELLO)
            for count in range(4):
                given = [{"role": "user", "content": f"Round {count}"}, *outputs[:count]]
                outcome = world.respond(given, **fields)
                if chain != "conversation":
                    fields[chain] = outcome.body["id"]
            outcome.expect("completed", "Hello there.")
            messages = world.requests[-1]["messages"]
            assert [one["content"] for one in messages if one["role"] == "tool"] == [
                *("r1!", "r2!", "r3!"),
            ]
            listed = world.server.get(f"/v1/responses/{outcome.body['id']}/input_items").json
            assert len(listed["data"]) == 2
            # Alone, it brings nothing new; a call that is nowhere is an error.
            world.respond([outputs[0]], **fields).expect("completed", "Hello there.")
            error = world.respond([{**OUTPUT, "call_id": "nowhere"}], **fields).error
            assert error is not None
            assert error["code"] == "tool_call_not_found"


# ---- loose shapes

#: Inputs, and what they say: the messages of the upstream.
LOOSE: dict[str, tuple[Any, list[Any]]] = {
    "loose-content-object": (
        [{"role": "user", "content": {"type": "input_text", "text": "Hi"}}],
        ["Hi"],
    ),
    "loose-text-part": ([{"role": "user", "content": [{"type": "text", "text": "Hi"}]}], ["Hi"]),
    "loose-part-string": ([{"role": "user", "content": ["Hi", " you"]}], ["Hi you"]),
    "loose-part-no-type": ([{"role": "user", "content": [{"text": "Hi"}]}], ["Hi"]),
    "loose-part-nulls": (
        [{"role": "user", "content": [{"type": "input_text", "text": "Hi", "x": None}]}],
        ["Hi"],
    ),
    "loose-nulls-in-lists": ([None, {"role": "user", "content": [None, "Hi"]}], ["Hi"]),
    "loose-item-string": (["Hi", "you"], ["Hi", "you"]),
    "loose-item-object": ({"role": "user", "content": "Hi"}, ["Hi"]),
    "loose-status-failed": ([{**BEFORE, "type": "message", "status": "failed"}], ["Words before."]),
    "loose-status-odd": ([{**BEFORE, "status": "queued"}], ["Words before."]),
    "loose-arguments-object": ([{**CALL, "arguments": {"c": 1}}, OUTPUT], ["one"]),
    "loose-arguments-null": ([{**CALL, "arguments": None}, OUTPUT], ["one"]),
    "loose-arguments-missing": (
        [{"type": "function_call", "call_id": "c1", "name": "lookup"}, OUTPUT],
        ["one"],
    ),
    "loose-call-failed": ([{**CALL, "status": "failed"}, {**OUTPUT, "status": "failed"}], ["one"]),
    "loose-call-id": ([{**CALL, "call_id": None, "id": "c1"}, OUTPUT], ["one"]),
    "loose-output-text-parts": (
        [CALL, {**OUTPUT, "output": [{"type": "text", "text": "one"}]}],
        ["one"],
    ),
    "loose-output-part": ([CALL, {**OUTPUT, "output": {"type": "text", "text": "one"}}], ["one"]),
    "loose-output-object": ([CALL, {**OUTPUT, "output": {"a": [1]}}], ['{"a":[1]}']),
    "loose-output-typed-object": ([CALL, {**OUTPUT, "output": {"type": "x"}}], ['{"type":"x"}']),
    "loose-output-list": ([CALL, {**OUTPUT, "output": [1, "b"]}], ['[1,"b"]']),
    "loose-output-number": ([CALL, {**OUTPUT, "output": 1.5}], ["1.5"]),
    "loose-output-null": ([CALL, {**OUTPUT, "output": None}], [""]),
    "sdk-fake-id": ([{**BEFORE, "id": "__fake_id__", "type": "message"}], ["Words before."]),
    "sdk-input-text-of-assistant": (
        [{"role": "assistant", "content": [{"type": "input_text", "text": "Yes."}]}, AFTER],
        ["Yes.", "Words after."],
    ),
    "sdk-text-of-assistant": (
        [{"role": "assistant", "content": [{"type": "text", "text": "Yes."}]}, AFTER],
        ["Yes.", "Words after."],
    ),
    "sdk-nulls": (
        [
            {
                "role": "user",
                "content": "Hi",
                "id": None,
                "status": None,
                "type": None,
                "phase": None,
                "name": None,
            }
        ],
        ["Hi"],
    ),
    "sdk-content-null": ([{"role": "assistant", "content": None}, AFTER], ["Words after."]),
    "sdk-whole-message": (
        [
            {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "phase": None,
                "content": [
                    {
                        "type": "output_text",
                        "text": "Yes.",
                        "annotations": None,
                        "logprobs": None,
                        "parsed": {"a": 1},
                    }
                ],
            },
            {**CALL, "id": "fc_1", "status": "completed", "parsed_arguments": {"c": 1}},
            {**OUTPUT, "id": None, "status": None},
        ],
        ["one"],
    ),
    "chat-tool-round": (
        [
            BEFORE,
            {
                "role": "assistant",
                "content": None,
                "refusal": None,
                "function_call": None,
                "tool_calls": [
                    {
                        "id": "c1",
                        "type": "function",
                        "index": 0,
                        "function": {"name": "lookup", "arguments": '{"c":1}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "name": "lookup", "content": "one"},
        ],
        ["Words before.", "one"],
    ),
    "chat-legacy-round": (
        [
            BEFORE,
            {"role": "assistant", "function_call": {"name": "lookup", "arguments": "{}"}},
            {"role": "function", "name": "lookup", "content": "one"},
        ],
        ["Words before.", "one"],
    ),
    "chat-no-calls": ([{"role": "assistant", "content": "Yes.", "tool_calls": []}], ["Yes."]),
    "chat-refusal": (
        [{"role": "assistant", "content": None, "refusal": "No."}, AFTER],
        ["No.", "Words after."],
    ),
}
#: Pictures that are one and the same.
PICTURES: dict[str, Json] = {
    "detail-original": {"type": "input_image", "image_url": PIXEL, "detail": "original"},
    "detail-empty": {"type": "input_image", "image_url": PIXEL, "detail": ""},
    "detail-null": {"type": "input_image", "image_url": PIXEL, "detail": None},
    "loose-image_url-part": {"type": "image_url", "image_url": {"url": PIXEL}},
    "loose-image_url-string": {"type": "image_url", "image_url": PIXEL},
    "loose-image-object": {"type": "input_image", "image_url": {"url": PIXEL, "detail": "auto"}},
    "loose-file": {"type": "file", "file": {"filename": "a.pdf", "file_data": "JVBERg=="}},
}


def test_loose_shapes_say_what_they_mean() -> None:
    with scenario() as world:
        for name, (given, wanted) in LOOSE.items():
            messages = asked(world, given)
            assert words(messages) == wanted, name
            for one in messages:
                for made in one.get("tool_calls") or ():
                    assert made["function"]["name"] == "lookup", name
                    json.loads(made["function"]["arguments"])


def test_pictures_in_messages_and_outputs_are_taken() -> None:
    with scenario() as world:
        for name, picture in PICTURES.items():
            part = {"type": "input_text", "text": "See:"}
            messages = asked(world, [{"role": "user", "content": [part, picture]}])
            kind = "file" if name == "loose-file" else "image_url"
            assert [one["type"] for one in messages[0]["content"]] == ["text", kind], name
            asked(world, [CALL, {**OUTPUT, "output": [part, picture]}])
            sent = json.dumps(world.requests[-1])
            assert ("JVBERg" if kind == "file" else PIXEL) in sent, name
