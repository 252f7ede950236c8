"""What clients offer as tools: every kind starts a turn, and calls come back as what they are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.misbehaving_upstream import Behaviour
from support.scenario import (
    DONE,
    LOOKUP,
    Json,
    Scenario,
    call,
    end,
    nested,
    scenario,
    stream_of,
    text,
    whole,
)

HELLO = stream_of(text("Hello"), text(" there."), end("stop"), DONE)
PATCH_TOOL: Json = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Edits files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
}
PATCH = '*** Begin Patch\n+ "\\d" 😀\n*** End Patch'
#: The group of functions that Codex sends by default.
AGENTS: Json = {
    "type": "namespace",
    "name": "multi_agent_v1",
    "description": "Agents.",
    "tools": [
        {"type": "function", "name": "spawn_agent", "parameters": {"type": "object"}},
        {"type": "function", "name": "close_agent", "parameters": {"type": "object"}},
    ],
}
EXEC: Json = {
    "type": "namespace",
    "name": "functions",
    "tools": [{"type": "custom", "name": "exec"}],
}
ADDITIONAL: Json = {"type": "additional_tools", "role": "developer", "tools": [EXEC]}
SEARCH: Json = {"type": "web_search", "external_web_access": False}
USER: Json = {"role": "user", "content": "Hi"}


def fragments(name: str, arguments: str, size: int = 7) -> list[bytes]:
    """A call whose arguments come in pieces."""
    pieces = [arguments[start : start + size] for start in range(0, len(arguments), size)]
    first = {"index": 0, "id": "c1", "function": {"name": name, "arguments": ""}}
    return [call(first), *(call({"index": 0, "function": {"arguments": one}}) for one in pieces)]


def called(name: str, arguments: str) -> Behaviour:
    return stream_of(*fragments(name, arguments), end("tool_calls"), DONE)


def offered(world: Scenario) -> list[str]:
    """The names of the functions that the upstream was offered last."""
    return [one["function"]["name"] for one in world.requests[-1].get("tools", ())]


#: Tools beside a function, and the functions that a chat completions upstream is offered.
STARTS: dict[str, tuple[list[Any], list[str]]] = {
    "codex-tools": ([LOOKUP, PATCH_TOOL, SEARCH, AGENTS], ["lookup", "apply_patch"]),
    "codex-plain": ([LOOKUP], ["lookup"]),
    "tool-web_search": ([LOOKUP, {"type": "web_search"}], ["lookup"]),
    "tool-web_search_preview": ([LOOKUP, {"type": "web_search_preview"}], ["lookup"]),
    "tool-local_shell": ([LOOKUP, {"type": "local_shell"}], ["lookup"]),
    "tool-shell": ([LOOKUP, {"type": "shell"}], ["lookup"]),
    "tool-namespace": ([LOOKUP, AGENTS], ["lookup"]),
    "tool-tool_search": ([LOOKUP, {"type": "tool_search"}], ["lookup"]),
    "tool_search-of-client": (
        [LOOKUP, {"type": "tool_search", "execution": "client", "parameters": {}}],
        ["lookup", "tool_search"],
    ),
    "tool-image_generation": ([LOOKUP, {"type": "image_generation"}], ["lookup"]),
    "tool-file-search": (
        [LOOKUP, {"type": "file_search", "vector_store_ids": ["v"]}],
        ["lookup"],
    ),
    "tool-code-interpreter": (
        [LOOKUP, {"type": "code_interpreter", "container": {"type": "auto"}}],
        ["lookup"],
    ),
    "tool-name-long": ([LOOKUP, {**LOOKUP, "name": "l" * 100}], ["lookup", "l" * 100]),
    "only-hosted": ([SEARCH], []),
    "shape-nested": ([nested(LOOKUP)], ["lookup"]),
    "shape-nested-custom": (
        [
            {
                "type": "custom",
                "custom": {
                    "name": "p",
                    "format": {
                        "type": "grammar",
                        "grammar": {"syntax": "regex", "definition": "a"},
                    },
                },
            }
        ],
        ["p"],
    ),
    "shape-no-type": ([{"name": "lookup", "parameters": {"type": "object"}}], ["lookup"]),
    "shape-input-schema": ([{"name": "lookup", "input_schema": {"type": "object"}}], ["lookup"]),
    "nulls-inside": ([{**LOOKUP, "description": None, "strict": None, "x": 1}], ["lookup"]),
    "no-parameters": ([{"type": "function", "name": "lookup"}], ["lookup"]),
    "custom-text-format": ([{**PATCH_TOOL, "format": {"type": "text"}}], ["apply_patch"]),
    "custom-bare": ([{"type": "custom", "name": "apply_patch"}], ["apply_patch"]),
    "apply_patch": ([LOOKUP, {"type": "apply_patch"}], ["lookup"]),
    "computer": ([LOOKUP, {"type": "computer_use_preview", "display_width": 1}], ["lookup"]),
    "xai-search": ([LOOKUP, {"type": "x_search"}], ["lookup"]),
}


def test_every_kind_of_tool_starts_a_turn() -> None:
    with scenario() as world:
        for name, (tools, functions) in STARTS.items():
            for stream in (True, False):
                world.upstream_sends(HELLO if stream else whole({"content": "Hello there."}))
                world.respond(tools=tools, stream=stream).expect("completed", "Hello there.")
                plain = [one for one in offered(world) if not one.startswith("multi_agent_v1")]
                assert plain == functions, name


def test_parameters_of_another_name_are_passed_on() -> None:
    with scenario() as world:
        world.upstream_sends(HELLO)
        world.respond(tools=[{"name": "f", "input_schema": {"type": "object", "x": 1}}])
        assert world.requests[-1]["tools"][0]["function"]["parameters"]["x"] == 1


def test_a_custom_tool_is_offered_as_a_function_of_one_text() -> None:
    with scenario() as world:
        world.upstream_sends(HELLO)
        shown = world.respond(tools=[PATCH_TOOL]).expect("completed").body["tools"]
        (function,) = (one["function"] for one in world.requests[-1]["tools"])
    assert shown == [PATCH_TOOL]
    assert function["description"] == "Edits files."
    schema = function["parameters"]
    assert list(schema["properties"]) == schema["required"] == ["input"]
    assert schema["properties"]["input"]["type"] == "string"
    assert "start: /.+/" in schema["properties"]["input"]["description"]


ARGUMENTS = {
    "codex-custom-call": json.dumps({"input": PATCH}),
    "unescaped": json.dumps({"input": PATCH}, ensure_ascii=False),
    "spaces": ' { "input" : ' + json.dumps(PATCH) + " } ",
    "other-name": json.dumps({"patch": PATCH}),
    "other-field-first": json.dumps({"why": "x", "input": PATCH}),
    "other-field-after": json.dumps({"input": PATCH, "why": "x"}),
    "bare-string": json.dumps(PATCH),
    "no-json": PATCH,
}


@pytest.mark.parametrize("stream", [True, False])
def test_a_custom_call_comes_back_with_its_input(stream: bool) -> None:
    with scenario() as world:
        for name, arguments in ARGUMENTS.items():
            made = {"id": "c1", "function": {"name": "apply_patch", "arguments": arguments}}
            world.upstream_sends(
                called("apply_patch", arguments)
                if stream
                else whole({"tool_calls": [made]}, "tool_calls")
            )
            outcome = world.respond(tools=[PATCH_TOOL, LOOKUP], stream=stream).expect("completed")
            (item,) = outcome.body["output"]
            assert item["id"].startswith("ctc_")
            del item["id"]
            assert item == {
                "type": "custom_tool_call",
                "status": "completed",
                "call_id": "c1",
                "name": "apply_patch",
                "input": PATCH,
            }, name
            if stream:
                check_input_events(outcome.events)


def check_input_events(events: list[Json]) -> None:
    kinds = [one["type"] for one in events]
    deltas = [one["delta"] for one in events if one["type"].endswith("_input.delta")]
    (done,) = (one for one in events if one["type"] == "response.custom_tool_call_input.done")
    assert "".join(deltas) == done["input"] == PATCH
    assert not any("arguments" in kind for kind in kinds)
    added = next(one for one in events if one["type"] == "response.output_item.added")
    assert (added["item"]["type"], added["item"]["input"]) == ("custom_tool_call", "")
    finished = kinds.index("response.output_item.done")
    assert kinds.index("response.custom_tool_call_input.done") == finished - 1


def test_a_custom_tool_round_goes_on() -> None:
    with scenario() as world:
        world.upstream_sends(called("apply_patch", json.dumps({"input": PATCH})), HELLO)
        first = world.respond(tools=[PATCH_TOOL]).body
        output = {"type": "custom_tool_call_output", "call_id": "c1", "output": "Done!"}
        again = world.respond(
            [output], tools=[PATCH_TOOL], previous_response_id=first["id"]
        ).expect("completed", "Hello there.")
        asked, made, answered = world.requests[-1]["messages"]
        function = made["tool_calls"][0]["function"]
        assert (asked["role"], answered) == (
            "user",
            {"role": "tool", "content": "Done!", "tool_call_id": "c1"},
        )
        assert function["name"] == "apply_patch"
        assert json.loads(function["arguments"]) == {"input": PATCH}
        # A client without a stored history sends the call back with its output.
        world.upstream_sends(HELLO)
        sent = [USER, first["output"][0], output]
        resent = world.respond(sent, tools=[PATCH_TOOL]).expect("completed", "Hello there.")
        assert world.requests[-1]["messages"] == world.requests[-2]["messages"]
        for name, kinds in (
            (again.body["id"], ["custom_tool_call_output"]),
            (resent.body["id"], ["custom_tool_call_output", "custom_tool_call", "message"]),
        ):
            listed = world.server.get(f"/v1/responses/{name}/input_items").json["data"]
            assert [one["type"] for one in listed] == kinds
        assert listed[1]["input"] == PATCH


#: A tool choice of the Responses API, and what a chat completions upstream gets of it.
CHOICES: dict[str, tuple[Any, Any]] = {
    "codex-custom-choice": ({"type": "custom", "name": "apply_patch"}, "apply_patch"),
    "choice-function": ({"type": "function", "name": "lookup"}, "lookup"),
    "choice-nested": ({"type": "function", "function": {"name": "lookup"}}, "lookup"),
    "choice-nested-custom": ({"type": "custom", "custom": {"name": "apply_patch"}}, "apply_patch"),
    "choice-no-type": ({"name": "lookup"}, "lookup"),
    "choice-tool": ({"type": "tool", "name": "lookup"}, "lookup"),
    "choice-in-namespace": (
        {"type": "function", "name": "spawn_agent"},
        "multi_agent_v1__spawn_agent",
    ),
    "choice-required": ("required", "required"),
    "choice-any": ("any", "required"),
    "choice-bare-name": ("lookup", "lookup"),
    "choice-auto-object": ({"type": "auto"}, None),
    "choice-none": ("none", "none"),
    "choice-null": (None, None),
}


def test_choices_of_tools_are_passed_on() -> None:
    tools = [LOOKUP, PATCH_TOOL, AGENTS]
    with scenario() as world:
        for name, (choice, wanted) in CHOICES.items():
            world.upstream_sends(HELLO)
            world.respond(tools=tools, tool_choice=choice).expect("completed", "Hello there.")
            given = world.requests[-1].get("tool_choice")
            assert (given["function"]["name"] if isinstance(given, dict) else given) == wanted, name
        shown = world.server.get("/v1/responses?limit=100&order=asc").json["data"]
        assert shown[0]["tool_choice"] == {"type": "custom", "name": "apply_patch"}


ALLOWED: dict[str, tuple[list[Json], list[str]]] = {
    "allowed-custom": ([{"type": "custom", "name": "apply_patch"}], ["apply_patch"]),
    "allowed-nested": ([nested(LOOKUP)], ["lookup"]),
    "allowed-namespace": (
        [{"type": "namespace", "name": "multi_agent_v1"}],
        ["multi_agent_v1__spawn_agent", "multi_agent_v1__close_agent"],
    ),
    "allowed-member": (
        [{"type": "function", "name": "close_agent"}],
        ["multi_agent_v1__close_agent"],
    ),
    "allowed-hosted-too": (
        [{"type": "function", "name": "lookup"}, {"type": "web_search"}],
        ["lookup"],
    ),
}


def test_allowed_tools_are_those_that_are_offered() -> None:
    tools = [LOOKUP, PATCH_TOOL, AGENTS, SEARCH]
    with scenario() as world:
        for name, (allowed, functions) in ALLOWED.items():
            for choice in (
                {"type": "allowed_tools", "mode": "auto", "tools": allowed},
                {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": allowed}},
            ):
                world.upstream_sends(HELLO)
                world.respond(tools=tools, tool_choice=choice).expect("completed", "Hello there.")
                assert offered(world) == functions, name


def test_a_namespace_is_offered_and_called_by_joined_names() -> None:
    with scenario() as world:
        world.upstream_sends(called("multi_agent_v1__spawn_agent", '{"a":1}'), HELLO)
        first = world.respond(tools=[AGENTS]).expect("completed").body
        assert offered(world) == ["multi_agent_v1__spawn_agent", "multi_agent_v1__close_agent"]
        (made,) = first["output"]
        assert (made["type"], made["namespace"], made["name"], made["arguments"]) == (
            *("function_call", "multi_agent_v1", "spawn_agent", '{"a":1}'),
        )
        assert [(one["name"], len(one["tools"])) for one in first["tools"]] == [
            ("multi_agent_v1", 2)
        ]
        output = {"type": "function_call_output", "call_id": made["call_id"], "output": "ok"}
        world.respond([USER, made, output], tools=[AGENTS]).expect("completed", "Hello there.")
        back = world.requests[-1]["messages"][1]["tool_calls"][0]["function"]
        assert back == {"name": "multi_agent_v1__spawn_agent", "arguments": '{"a":1}'}
        listed = world.server.get("/v1/responses?limit=1").json["data"][0]["id"]
        items = world.server.get(f"/v1/responses/{listed}/input_items").json["data"]
        assert items[1]["namespace"] == "multi_agent_v1"


#: Names that a model calls a namespace's function by.
MADE_NAMES = ("spawn_agent", "multi_agent_v1.spawn_agent", "multi_agent_v1__spawn_agent")


def test_a_model_that_leaves_out_the_namespace_is_understood() -> None:
    with scenario() as world:
        for name in MADE_NAMES:
            world.upstream_sends(called(name, "{}"))
            (made,) = world.respond(tools=[LOOKUP, AGENTS]).body["output"]
            assert (made["namespace"], made["name"]) == ("multi_agent_v1", "spawn_agent")
        world.upstream_sends(called("unheard_of", "{}"))
        (made,) = world.respond(tools=[LOOKUP, AGENTS]).body["output"]
        assert (made.get("namespace"), made["name"]) == (None, "unheard_of")


def test_names_of_namespaces_are_unique_and_short() -> None:
    function = {"type": "function", "name": "read"}
    tools: list[Json] = [
        {"type": "function", "name": "files__read"},
        {"type": "namespace", "name": "files", "tools": [function]},
        {"type": "namespace", "name": "mcp__files__", "tools": [function]},
        {"type": "namespace", "name": "my files", "tools": [function]},
        {"type": "namespace", "name": "n" * 60, "tools": [function]},
        {"type": "namespace", "name": "n" * 61, "tools": [function]},
    ]
    with scenario() as world:
        world.upstream_sends(HELLO)
        world.respond(tools=tools).expect("completed", "Hello there.")
        names = offered(world)
        assert names[0] == "files__read"
        assert names[2] == "mcp__files__read"
        assert len(set(names)) == len(tools)
        assert all(len(name) <= 64 and name.replace("_", "a").isalnum() for name in names)
        for name, tool in zip(names[1:], tools[1:], strict=True):
            world.upstream_sends(called(name, "{}"))
            (made,) = world.respond(tools=tools).body["output"]
            assert (made["namespace"], made["name"]) == (tool["name"], "read")


def test_additional_tools_hold_from_their_item_on() -> None:
    with scenario() as world:
        world.upstream_sends(called("functions__exec", json.dumps({"input": "ls"})))
        choice = {"type": "custom", "name": "exec"}
        first = world.respond([ADDITIONAL, USER], tool_choice=choice).expect("completed")
        assert offered(world) == ["functions__exec"]
        assert first.body["tools"] == []
        (made,) = first.body["output"]
        assert (made["type"], made["namespace"], made["name"], made["input"]) == (
            *("custom_tool_call", "functions", "exec", "ls"),
        )
        world.upstream_sends(HELLO)
        output = {"type": "custom_tool_call_output", "call_id": made["call_id"], "output": "a b"}
        world.respond([output], previous_response_id=first.body["id"], tools=[LOOKUP]).expect(
            "completed", "Hello there."
        )
        assert offered(world) == ["functions__exec", "lookup"]
        listed = world.server.get(f"/v1/responses/{first.body['id']}/input_items?order=asc").json
        shown = listed["data"][0]
        assert {**shown, "id": ""} == {**ADDITIONAL, "id": ""}


#: Requests that only an upstream with tools of its own could do.
DEMANDS: dict[str, Json] = {
    "demand-hosted": {"tools": [LOOKUP, SEARCH], "tool_choice": {"type": "web_search"}},
    "demand-any-of-hosted": {"tools": [SEARCH], "tool_choice": "required"},
    "demand-allowed-hosted": {
        "tools": [LOOKUP, SEARCH],
        "tool_choice": {
            "type": "allowed_tools",
            "mode": "required",
            "tools": [{"type": "web_search"}],
        },
    },
}


def test_tools_that_nobody_runs_are_left_out_unless_they_are_demanded() -> None:
    with scenario() as world:
        for name, fields in DEMANDS.items():
            outcome = world.respond(**fields)
            assert outcome.http == 400, name
            assert outcome.error is not None
            assert outcome.error["param"] == "tool_choice", name
            assert "functions, custom tools and MCP servers" in outcome.error["message"]
        assert world.requests == []
        world.upstream_sends(HELLO)
        body = world.respond(tools=[LOOKUP, SEARCH]).expect("completed").body
        assert [one["type"] for one in body["tools"]] == ["function"]


REFUSED: dict[str, tuple[Json, str]] = {
    "tool-misspelt": ({"tools": [{**LOOKUP, "type": "functon"}]}, "tools[0].type"),
    "tool-without-type": ({"tools": [{"x": 1}]}, "tools[0].name"),
    "tool-type-number": ({"tools": [{"type": 1}]}, "tools[0].type"),
    "tool-custom-nameless": ({"tools": [{"type": "custom"}]}, "tools[0].name"),
    "tool-name-too-long": ({"tools": [{**LOOKUP, "name": "l" * 129}]}, "tools[0].name"),
    "namespace-twice": ({"tools": [AGENTS, {**AGENTS, "tools": []}]}, "tools[1]"),
    "choice-word": ({"tools": [LOOKUP], "tool_choice": "maybe"}, "tool_choice"),
    "choice-missing-custom": (
        {"tools": [LOOKUP], "tool_choice": {"type": "custom", "name": "x"}},
        "tool_choice.name",
    ),
    "choice-missing-hosted": (
        {"tools": [LOOKUP], "tool_choice": {"type": "web_search"}},
        "tool_choice.type",
    ),
}


def test_what_cannot_be_meant_is_refused_by_name() -> None:
    with scenario() as world:
        for name, (fields, param) in REFUSED.items():
            outcome = world.respond(**fields)
            assert outcome.http == 400, name
            assert outcome.error is not None
            assert outcome.error["param"] == param, name
        assert world.requests == []
