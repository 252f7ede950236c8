"""Calls in a history that hold what came of them: chat models see them as calls of functions."""

from __future__ import annotations

import json

from support.misbehaving_upstream import Behaviour
from support.scenario import Json, body_of, scenario, whole

BEFORE: Json = {"role": "user", "content": "Words before."}
AFTER: Json = {"role": "user", "content": "Words after."}
#: The items of calls, what is called, and the words that come of it.
RESULTS: dict[str, tuple[list[Json], list[str], str]] = {
    "code_interpreter_call": (
        [
            {
                "type": "code_interpreter_call",
                "id": "ci_1",
                "code": "ls()",
                "container_id": "c",
                "outputs": [{"type": "logs", "logs": "a.txt"}, {"type": "logs", "logs": "b"}],
            }
        ],
        ["code_interpreter", '{"code":"ls()"}'],
        "a.txt\nb",
    ),
    "code_interpreter_call-no-outputs": (
        [{"type": "code_interpreter_call", "id": "ci_1", "code": "ls()", "outputs": None}],
        ["code_interpreter", "ls()"],
        "",
    ),
    "file_search_call": (
        [
            {
                "type": "file_search_call",
                "id": "fs_1",
                "queries": ["ls"],
                "results": [{"filename": "a.txt", "text": "words", "score": 0.5}],
            }
        ],
        ["file_search", "ls"],
        '"text":"words"',
    ),
    "web_search_call-results": (
        [
            {
                "type": "web_search_call",
                "id": "ws_1",
                "action": {"type": "search", "query": "ls"},
                "results": [{"title": "a.txt", "text": "words"}],
            }
        ],
        ["web_search", "ls"],
        "a.txt",
    ),
    "image_generation_call": (
        [
            {
                "type": "image_generation_call",
                "id": "ig_1",
                "result": "AA==",
                "revised_prompt": "ls",
            }
        ],
        ["image_generation", '{"revised_prompt":"ls"}'],
        "image",
    ),
    "hosted-without-id": (
        [{"type": "x_search_call", "query": "ls", "output": {"posts": ["a.txt"]}}],
        ["x_search", "ls"],
        "a.txt",
    ),
    "computer_call": (
        [
            {
                "type": "computer_call_output",
                "call_id": "k",
                "output": {"image_url": "data:image/png;base64,AA=="},
            },
        ],
        ["computer", "{}"],
        "screenshot",
    ),
}


def test_results_of_hosted_tools_reach_a_chat_model() -> None:
    with scenario() as world:
        for name, (items, called, output) in RESULTS.items():
            world.upstream_sends(whole({"content": "Hello"}))
            given = [BEFORE, *items, AFTER]
            outcome = world.respond(given, stream=False).expect("completed", "Hello")
            messages = world.requests[-1]["messages"]
            assert [one["role"] for one in messages] == ["user", "assistant", "tool", "user"], name
            made = messages[1]["tool_calls"][0]
            assert made.keys() == {"id", "type", "function"}
            assert made["function"]["name"] == called[0], name
            assert called[1] in made["function"]["arguments"], name
            assert messages[2].keys() == {"role", "content", "tool_call_id"}
            assert output in messages[2]["content"], name
            assert messages[2]["tool_call_id"] == made["id"]
            path = f"/v1/responses/{outcome.body['id']}/input_items?order=asc"
            shown = world.server.get(path).json["data"][1:-1]
            assert [{**one, "id": 0} for one in shown] == [{**one, "id": 0} for one in items], name


def test_results_of_hosted_tools_go_to_a_responses_upstream_as_they_are() -> None:
    with scenario("responses") as world:
        for name, (items, _, _) in RESULTS.items():
            world.upstream_sends(hello())
            world.respond([BEFORE, *items, AFTER], stream=False).expect("completed", "Hello")
            assert world.requests[-1]["input"][1:-1] == items, name


def test_results_of_hosted_tools_are_kept_where_an_upstream_refuses_their_items() -> None:
    message = "Invalid value: 'code_interpreter_call'. Supported values are: 'message'."
    refusal = body_of({"error": {"message": message, "param": "input[1]"}}, 400)
    items, called, output = RESULTS["code_interpreter_call"]
    with scenario("responses") as world:
        world.upstream_sends(refusal, hello())
        world.respond([BEFORE, *items, AFTER], stream=False).expect("completed", "Hello")
        call, result = world.requests[-1]["input"][1:-1]
        assert (call["type"], call["name"]) == ("function_call", called[0])
        assert json.loads(call["arguments"]) == {"code": "ls()"}
        assert result == {
            "type": "function_call_output",
            "call_id": call["call_id"],
            "output": output,
        }


def hello() -> Behaviour:
    part = {"type": "output_text", "text": "Hello"}
    message = {"type": "message", "role": "assistant", "content": [part]}
    return body_of({"status": "completed", "output": [message]})
