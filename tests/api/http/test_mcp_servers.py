"""MCP servers in turns over HTTP: a real server, called while a response is made."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from antiphon.errors import ModelError
from antiphon.models.scripted import ScriptedModel, call, calls, fail, say
from support.http_server import ThreadServer, serving
from support.mcp_toolsets import stdio_config

FILES = {"type": "mcp", "server_label": "files", "require_approval": "never"}


def adding(a: int = 1, b: int = 2, call_id: str = "c1") -> Any:
    return calls(call("files__add", {"a": a, "b": b}, call_id=call_id))


def kinds(response: dict[str, Any]) -> list[str]:
    return [item["type"] for item in response["output"]]


def roles(model: ScriptedModel) -> list[str]:
    return [message["role"] for message in model.context()]


def test_a_call_is_run_inside_the_turn(tmp_path: Path) -> None:
    model = ScriptedModel([adding(), "Three.", "As I said."])
    with serving(model, tmp_path / "a.db", mcp=[stdio_config()]) as server:
        first = server.respond("Add.", tools=[FILES]).json
        assert kinds(first) == ["mcp_list_tools", "mcp_call", "message"]
        assert "add" in {tool["name"] for tool in first["output"][0]["tools"]}
        made = first["output"][1]
        assert (made["name"], made["server_label"], made["output"]) == ("add", "files", "3")
        assert (made["status"], made["error"]) == ("completed", None)
        assert first["tools"][0]["server_label"] == "files"
        assert roles(model) == ["user", "assistant", "tool"]
        assert "files__add" in {tool.name for tool in model.calls[0].options.tools}
        # What was listed once is not listed again.
        second = server.respond("Sure?", tools=[FILES], previous_response_id=first["id"]).json
        assert kinds(second) == ["message"]
        assert server.get(f"/v1/responses/{first['id']}").json["output"] == first["output"]


def test_the_stream_shows_the_call_and_can_be_replayed(tmp_path: Path) -> None:
    model = ScriptedModel([adding(), "Three."])
    with serving(model, tmp_path / "a.db", mcp=[stdio_config()]) as server:
        answer = server.respond("Add.", tools=[FILES], stream=True)
        told = [event["type"] for event in answer.events]
        assert told.index("response.mcp_list_tools.completed") < told.index(
            "response.mcp_call.in_progress"
        )
        assert told.index("response.mcp_call_arguments.done") < told.index(
            "response.mcp_call.completed"
        )
        final = answer.events[-1]["response"]
        done = [e["item"] for e in answer.events if e["type"] == "response.output_item.done"]
        assert done == final["output"]
        again = server.get(f"/v1/responses/{final['id']}?stream=true")
        assert again.events == answer.events


def asked(server: ThreadServer, **fields: Any) -> dict[str, Any]:
    tool = {**FILES, "require_approval": "always"}
    response: dict[str, Any] = server.respond("Add.", tools=[tool], **fields).json
    assert response["status"] == "completed"
    assert kinds(response)[-1] == "mcp_approval_request"
    return response


def test_a_person_agrees_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with serving(ScriptedModel([adding()]), path, mcp=[stdio_config()]) as server:
        waiting = asked(server)
    request = waiting["output"][-1]
    assert json.loads(request["arguments"]) == {"a": 1, "b": 2}
    model = ScriptedModel(["Three."])
    with serving(model, path, mcp=[stdio_config()]) as server:
        yes = {
            "type": "mcp_approval_response",
            "approval_request_id": request["id"],
            "approve": True,
        }
        done = server.post(
            "/v1/responses",
            input=[yes],
            tools=[{**FILES, "require_approval": "always"}],
            previous_response_id=waiting["id"],
        ).json
        assert kinds(done) == ["mcp_call", "message"]
        made = done["output"][0]
        assert (made["output"], made["approval_request_id"]) == ("3", request["id"])
        assert roles(model) == ["user", "assistant", "tool"]
        # It has been decided: the same word again finds nothing that waits.
        again = server.post(
            "/v1/responses", input=[yes], tools=[FILES], previous_response_id=done["id"]
        )
        assert (again.status, again.error["code"]) == (409, "approval_already_decided")


def test_agreeing_takes_the_server_that_is_to_run_the_call() -> None:
    request = {"id": "mcpr_1", "server_label": "files", "name": "add", "arguments": "{}"}
    given = [
        {"type": "mcp_approval_request", **request},
        {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True},
    ]
    with serving(ScriptedModel(["Three."])) as server:
        for tools in ([], [{"type": "function", "name": "add", "parameters": {}}]):
            for stream in (True, False):
                refused = server.post("/v1/responses", input=given, tools=tools, stream=stream)
                assert refused.status == 400
                assert refused.error["code"] == "mcp_server_missing"
                assert refused.error["param"] == "tools"
                assert "'files'" in refused.error["message"]


@pytest.mark.slow
def test_a_person_says_no(tmp_path: Path) -> None:
    model = ScriptedModel([adding(), "Then not."])
    with serving(model, tmp_path / "a.db", mcp=[stdio_config()]) as server:
        waiting = asked(server)
        no = {
            "type": "mcp_approval_response",
            "approval_request_id": waiting["output"][-1]["id"],
            "approve": False,
            "reason": "Too much.",
        }
        done = server.post(
            "/v1/responses", input=[no], tools=[FILES], previous_response_id=waiting["id"]
        ).json
        assert kinds(done) == ["message"]
        assert "Too much." in model.context()[-1]["content"]
        assert model.context()[-1]["role"] == "tool"


def decision(waiting: dict[str, Any], *, approve: bool) -> dict[str, Any]:
    return {
        "previous_response_id": waiting["id"],
        "tools": [{**FILES, "require_approval": "always"}],
        "input": [
            {
                "type": "mcp_approval_response",
                "approval_request_id": waiting["output"][-1]["id"],
                "approve": approve,
            }
        ],
    }


def test_of_several_who_decide_the_first_has_decided(tmp_path: Path) -> None:
    model = ScriptedModel([adding(), "Three.", "Three again."])
    with (
        serving(model, tmp_path / "a.db", mcp=[stdio_config("files")]) as server,
        ThreadPoolExecutor(6) as people,
    ):
        waiting = asked(server)
        answers = list(
            people.map(
                lambda number: server.post(
                    "/v1/responses", **decision(waiting, approve=number % 2 == 0)
                ),
                range(6),
            )
        )
        (made,) = [one for one in answers if one.status == 200]
        late = server.post("/v1/responses", **decision(waiting, approve=False))
        children = server.get(f"/v1/responses/{waiting['id']}/children").json["data"]
        assert [one["response_id"] for one in children] == [made.json["id"]]
        for answer in (*answers, late):
            if answer is made:
                continue
            assert (answer.status, answer.error["code"]) == (409, "approval_already_decided")
            assert answer.error["response_id"] == made.json["id"]
        # Who wants another answer says so.
        again = decision(waiting, approve=True) | {"sibling_of": made.json["id"]}
        del again["previous_response_id"]
        assert server.post("/v1/responses", **again).status == 200


def test_of_several_who_decide_in_a_conversation_the_first_has_decided(tmp_path: Path) -> None:
    model = ScriptedModel([adding(), "Three."])
    with serving(model, tmp_path / "a.db", mcp=[stdio_config("files")]) as server:
        name = server.post("/v1/conversations").json["id"]
        waiting = asked(server, conversation=name)
        decisions = [decision(waiting, approve=word) for word in (True, False, True)]
        for one in decisions:
            one["conversation"] = name
            del one["previous_response_id"]
        first, *others = [server.post("/v1/responses", **one) for one in decisions]
        assert kinds(first.json)[0] == "mcp_call"
        for late in others:
            assert (late.status, late.error["code"]) == (409, "approval_already_decided")


def test_a_conversation_does_not_decide_again_what_was_decided_beside_it(tmp_path: Path) -> None:
    model = ScriptedModel([adding(), "Three.", "Well."])
    with serving(model, tmp_path / "a.db", mcp=[stdio_config("files")]) as server:
        name = server.post("/v1/conversations").json["id"]
        waiting = asked(server, conversation=name)
        made = server.post("/v1/responses", **decision(waiting, approve=True)).json
        inside = decision(waiting, approve=True) | {"conversation": name}
        del inside["previous_response_id"]
        late = server.post("/v1/responses", **inside)
        assert (late.status, late.error["code"]) == (409, "approval_already_decided")
        assert late.error["response_id"] == made["id"]


def test_a_decision_that_failed_before_a_call_ran_is_made_again(tmp_path: Path) -> None:
    model = ScriptedModel([adding(), fail(ModelError("Away.")), say("Well.")])
    with serving(model, tmp_path / "a.db", mcp=[stdio_config("files")]) as server:
        waiting = asked(server)
        refusal = decision(waiting, approve=False)
        assert server.post("/v1/responses", **refusal).status == 502
        assert server.post("/v1/responses", **refusal).json["status"] == "completed"


@pytest.mark.slow
def test_without_a_word_the_conversation_does_not_go_on(tmp_path: Path) -> None:
    with serving(ScriptedModel([adding()]), tmp_path / "a.db", mcp=[stdio_config()]) as server:
        waiting = asked(server)
        answer = server.respond("And?", previous_response_id=waiting["id"])
        assert (answer.status, answer.error["code"]) == (400, "tool_output_missing")


@pytest.mark.slow
def test_a_tool_that_fails_is_read_by_the_model(tmp_path: Path) -> None:
    wrong = calls(call("files__fail", {"why": "rain"}, call_id="c1"))
    model = ScriptedModel([wrong, "It rains."])
    with serving(model, tmp_path / "a.db", mcp=[stdio_config()]) as server:
        done = server.respond("Go.", tools=[FILES]).json
        made = done["output"][1]
        assert made["status"] == "failed"
        assert "rain" in json.dumps(made["error"])
        assert made["output"] is None
        assert done["output"][2]["content"][0]["text"] == "It rains."


@pytest.mark.slow
def test_a_clients_own_function_ends_the_turn_beside_a_servers(tmp_path: Path) -> None:
    both = calls(call("files__add", {"a": 1, "b": 2}, call_id="c1"), call("mine", {}, call_id="c2"))
    model = ScriptedModel([both, "Done."])
    with serving(model, tmp_path / "a.db", mcp=[stdio_config()]) as server:
        tools = [FILES, {"type": "function", "name": "mine"}]
        first = server.respond("Go.", tools=tools).json
        assert kinds(first) == ["mcp_list_tools", "mcp_call", "function_call"]
        assert first["output"][1]["output"] == "3"
        output = {"type": "function_call_output", "call_id": "c2", "output": "ok"}
        done = server.post(
            "/v1/responses", input=[output], tools=tools, previous_response_id=first["id"]
        ).json
        assert done["output"][-1]["content"][0]["text"] == "Done."
        assert roles(model) == ["user", "assistant", "tool", "assistant", "tool"]


@pytest.mark.slow
def test_only_allowed_tools_are_offered_and_calls_are_counted(tmp_path: Path) -> None:
    model = ScriptedModel([adding(call_id="c1"), adding(call_id="c2"), "Never."])
    with serving(model, tmp_path / "a.db", mcp=[stdio_config()]) as server:
        tool = {**FILES, "allowed_tools": ["add"]}
        done = server.respond("Go.", tools=[tool], max_tool_calls=1).json
        assert {tool.name for tool in model.calls[0].options.tools} == {"files__add"}
        assert (done["status"], done["incomplete_details"]) == (
            "incomplete",
            {"reason": "max_tool_calls"},
        )


def test_an_unconfigured_server_is_refused(tmp_path: Path) -> None:
    with serving(store=tmp_path / "a.db", mcp=[stdio_config()]) as server:
        unknown = server.respond(tools=[{**FILES, "server_label": "other"}])
        assert (unknown.status, unknown.error["param"]) == (400, "tools[0].server_label")
        tool = {**FILES, "server_label": "x", "server_url": "http://127.0.0.1:9/mcp"}
        foreign = server.respond(tools=[tool])
        assert (foreign.status, foreign.error["code"]) == (400, "server_url_not_allowed")
        assert server.stored_count() == 0
