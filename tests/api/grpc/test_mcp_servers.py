"""MCP servers over gRPC: the official SDK's ``mcp`` tool, and a real server behind it."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xai_sdk.chat import required_tool, tool, tool_result, user  # type: ignore[import-untyped]
from xai_sdk.proto import chat_pb2  # type: ignore[import-untyped]
from xai_sdk.tools import get_tool_call_type, mcp, web_search  # type: ignore[import-untyped]

from antiphon.api.grpc.message_codec import decode_messages
from antiphon.api.grpc.tool_codec import decode_toolset
from antiphon.core.items import FunctionCall, FunctionCallOutput
from antiphon.errors import InvalidRequestError
from antiphon.models.scripted import ScriptedModel, call, calls, say, think
from support.grpc_client import grpc_serving, rpc_failure
from support.mcp_toolsets import LOCAL_URLS, HttpServer, http_server, stdio_config

COMPLETED = chat_pb2.TOOL_CALL_STATUS_COMPLETED
FAILED = chat_pb2.TOOL_CALL_STATUS_FAILED
IN_PROGRESS = chat_pb2.TOOL_CALL_STATUS_IN_PROGRESS
INCOMPLETE = chat_pb2.TOOL_CALL_STATUS_INCOMPLETE
URL = "http://127.0.0.1:9/mcp"
MINE = tool("mine", "A function of the client's own.", {"type": "object"})


@pytest.fixture(scope="module")
def tools() -> Iterator[HttpServer]:
    with http_server() as started:
        yield started


def files(tools: HttpServer, **fields: Any) -> Any:
    return mcp(**{"server_url": tools.url.reveal(), "server_label": "files", **fields})


def adding(call_id: str = "c1") -> Any:
    return calls(call("files__add", {"a": 1, "b": 2}, call_id=call_id))


def both() -> Any:
    """One answer that calls two tools, one of which fails."""
    return calls(
        call("files__add", {"a": 1, "b": 2}, call_id="c1"),
        call("files__fail", {"why": "rain"}, call_id="c2"),
    )


def test_tools_are_run_inside_the_turn(tools: HttpServer) -> None:
    model = ScriptedModel([think("Hm.") + say("Let me see.") + both(), "Three."])
    with grpc_serving(model, urls=LOCAL_URLS) as server, server.client() as client:
        chat = client.chat.create(
            "scripted",
            messages=[user("Add.")],
            tools=[files(tools)],
            include=["mcp_call_output"],
            store_messages=True,
        )
        made = chat.sample()
        assert (made.content, made.finish_reason) == ("Three.", "REASON_STOP")
        good, bad = made.tool_calls
        assert get_tool_call_type(good) == get_tool_call_type(bad) == "mcp_tool"
        assert (good.id, good.function.name, good.status) == ("c1", "files__add", COMPLETED)
        assert (bad.status, "rain" in bad.error_message) == (FAILED, True)
        told = {one.message.tool_calls[0].id: one.message for one in made.tool_outputs}
        assert told["c1"].content == "3"
        assert "rain" in told["c2"].content
        assert told["c2"].tool_calls[0].status == FAILED
        # What failed is not among what was used.
        assert made.server_side_tool_usage == {"SERVER_SIDE_TOOL_MCP": 1}
        assert [one.index for one in made.proto.outputs] == [0, 1, 2, 3]
        first = made.proto.outputs[0].message
        assert (first.content, first.reasoning_content) == ("Let me see.", "Hm.")
        assert made.request_settings.tools[0].mcp.server_label == "files"
        assert [message["role"] for message in model.context()] == [
            "user",
            "assistant",
            "tool",
            "tool",
        ]
        again = client.chat.get_stored_completion(made.id)
        assert again[0].proto.outputs == made.proto.outputs
        assert again[0].proto.usage == made.proto.usage
        # Over HTTP it is the same turn, in the words of that API.
        output = server.http.get(f"/v1/responses/{made.id}").json["output"]
        shown = [(one["type"], one.get("status")) for one in output if one["type"] == "mcp_call"]
        assert shown == [("mcp_call", "completed"), ("mcp_call", "failed")]
        assert output[3]["output"] == "3"


def test_a_turn_of_http_is_shown_alike(tools: HttpServer) -> None:
    server_tool = {
        "type": "mcp",
        "server_label": "files",
        "server_url": tools.url.reveal(),
        "require_approval": "never",
    }
    model = ScriptedModel([adding(), "Three."])
    with grpc_serving(model, urls=LOCAL_URLS) as server, server.client() as client:
        made = server.http.respond("Add.", tools=[server_tool]).json
        shown = client.chat.get_stored_completion(made["id"])[0]
        assert [one.message.role for one in shown.proto.outputs] == [
            chat_pb2.ROLE_ASSISTANT,
            chat_pb2.ROLE_TOOL,
            chat_pb2.ROLE_ASSISTANT,
        ]
        assert shown.tool_calls[0].type == chat_pb2.TOOL_CALL_TYPE_MCP_TOOL
        assert shown.server_side_tool_usage == {"SERVER_SIDE_TOOL_MCP": 1}


def test_a_stream_shows_the_same(tools: HttpServer) -> None:
    model = ScriptedModel([think("Hm.") + say("Let", " me.") + both(), say("Th", "ree."), "Bye."])
    with grpc_serving(model, urls=LOCAL_URLS) as server, server.client() as client:
        chat = client.chat.create(
            "scripted",
            messages=[user("Add.")],
            tools=[files(tools)],
            include=["mcp_call_output"],
            store_messages=True,
        )
        told: list[tuple[str, int]] = []
        for response, chunk in chat.stream():  # noqa: B007 - the last one is looked at
            told += [(one.id, one.status) for one in chunk.tool_calls]
            told += [(one.id, one.status) for out in chunk.tool_outputs for one in out.tool_calls]
        # Calls are told before they are run.
        assert told[:2] == [("c1", IN_PROGRESS), ("c2", IN_PROGRESS)]
        assert sorted(told[2:]) == [("c1", COMPLETED), ("c2", FAILED)]
        assert (response.content, response.finish_reason) == ("Three.", "REASON_STOP")
        assert response.server_side_tool_usage == {"SERVER_SIDE_TOOL_MCP": 1}
        kept = client.chat.get_stored_completion(response.id)[0].proto
        streamed = response.proto
        for output in (*streamed.outputs[:1], *kept.outputs[:1]):
            for one in output.message.tool_calls:
                one.ClearField("status")
                one.ClearField("error_message")
        assert streamed.outputs == kept.outputs
        # The turn can be gone on from, in a stream without tools.
        later = client.chat.create("scripted", previous_response_id=response.id)
        later.append(user("Thanks."))
        assert later.sample().content == "Bye."


@pytest.mark.parametrize("stored", [False, True])
def test_a_running_call_is_reported(tools: HttpServer, stored: bool) -> None:
    model = ScriptedModel([calls(call("files__sleep", {}, call_id="c1"))])
    with grpc_serving(model, urls=LOCAL_URLS) as server, server.client() as client:
        chat = client.chat.create(
            "scripted", messages=[user("Go.")], tools=[files(tools)], store_messages=stored
        )
        with contextlib.closing(chat.stream()) as stream:
            response, chunk = next(stream)
            assert [one.status for one in chunk.tool_calls] == [IN_PROGRESS]
            assert response.finish_reason == "REASON_INVALID"
            if stored:
                running = client.chat.get_stored_completion(response.id)[0]
                assert [one.status for one in running.tool_calls] == [IN_PROGRESS]


@pytest.mark.parametrize(
    ("asked", "read"),
    [
        ({"include": ["mcp_call_output"]}, "3"),
        ({"use_encrypted_content": True}, "3"),
        ({}, "What this call gave is not part of the conversation any more."),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_conversation_that_the_client_keeps(
    tools: HttpServer, asked: dict[str, Any], read: str, streamed: bool
) -> None:
    model = ScriptedModel([both(), "Three.", "As I said."])
    with grpc_serving(model, urls=LOCAL_URLS) as server, server.client() as client:
        chat = client.chat.create(
            "scripted", messages=[user("Add.")], tools=[files(tools)], **asked
        )
        if streamed:
            *_, (made, _) = chat.stream()
        else:
            made = chat.sample()
        assert bool(made.tool_outputs[0].message.content) == ("include" in asked)
        chat.append(made)
        chat.append(user("Sure?"))
        assert chat.sample().content == "As I said."
        messages = {one.get("tool_call_id"): one for one in model.context()}
        assert messages["c1"]["content"] == read
        assert "rain" in messages["c2"]["content"]
        assert [one["role"] for one in model.context()][-2:] == ["assistant", "user"]


def test_a_call_that_waits_for_a_person(tmp_path: Path) -> None:
    """The settings ask for approval, which only HTTP has words for."""
    model = ScriptedModel([adding(), "Never mind.", "Three."])
    configured = stdio_config(require_approval="always")
    with grpc_serving(model, tmp_path / "a.db", mcp=[configured]) as server:
        server_tool = mcp(server_url="", server_label="files")
        with server.client() as client:
            chat = client.chat.create(
                "scripted", messages=[user("Add.")], tools=[server_tool], store_messages=True
            )
            *_, (waiting, _) = chat.stream()
            assert not waiting.tool_outputs
            kept = client.chat.get_stored_completion(waiting.id)[0]
            for one in (waiting, kept):
                assert one.finish_reason == "REASON_TOOL_CALLS"
                (asked,) = one.tool_calls
                assert asked.status == INCOMPLETE
                assert "A person has to agree" in asked.error_message
                assert get_tool_call_type(asked) == "mcp_tool"
            # Who goes on without it may: the call was never run.
            chat.append(waiting)
            chat.append(user("Leave it."))
            assert chat.sample().content == "Never mind."
            assert [one["role"] for one in model.context()] == ["user", "user"]
        request = server.http.get(f"/v1/responses/{waiting.id}").json["output"][-1]
        assert request["type"] == "mcp_approval_request"
        yes = {
            "type": "mcp_approval_response",
            "approval_request_id": request["id"],
            "approve": True,
        }
        done = server.http.post(
            "/v1/responses",
            input=[yes],
            tools=[{"type": "mcp", "server_label": "files"}],
            previous_response_id=waiting.id,
        ).json
        with server.client() as client:
            shown = client.chat.get_stored_completion(done["id"])[0]
        first = shown.proto.outputs[0].message
        assert (first.role, first.tool_calls[0].id) == (chat_pb2.ROLE_TOOL, "c1")
        assert shown.server_side_tool_usage == {"SERVER_SIDE_TOOL_MCP": 1}
        assert shown.proto.outputs[-1].message.content == "Three."


@pytest.mark.parametrize(
    ("told", "sent"),
    [
        ({"authorization": "abc"}, "Bearer abc"),
        ({"authorization": "Bearer abc"}, "Bearer abc"),
        ({"authorization": "Basic abc"}, "Basic abc"),
        ({"extra_headers": {"Authorization": "Token abc"}}, "Token abc"),
    ],
)
def test_an_authorization_is_a_token_or_all_of_the_header(told: dict[str, Any], sent: str) -> None:
    request = chat_pb2.GetCompletionsRequest(tools=[mcp(URL, "files", **told)])
    (ask,) = decode_toolset(request).server_requests
    assert {name: value.reveal() for name, value in ask.headers.items()} == {"Authorization": sent}


def test_keys_reach_the_server_and_nothing_else(tools: HttpServer, tmp_path: Path) -> None:
    asking = calls(
        call("files__header", {"name": "authorization"}, call_id="c1"),
        call("files__header", {"name": "x-shop"}, call_id="c2"),
        call("files__header", {"name": "x-other"}, call_id="c3"),
    )
    path = tmp_path / "a.db"
    model = ScriptedModel([asking, "Done."])
    server_tool = files(
        tools,
        authorization="abc-secret",
        extra_headers={"X-Shop": "secret-too"},
        server_description="Files.",
    )
    with grpc_serving(model, path, urls=LOCAL_URLS) as server, server.client() as client:
        chat = client.chat.create(
            "scripted", messages=[user("Go.")], tools=[server_tool], store_messages=True
        )
        made = chat.sample()
        read = {one["tool_call_id"]: one["content"] for one in model.context()[-3:]}
        assert read == {"c1": "[hidden]", "c2": "[hidden]", "c3": "not sent"}
        shown = made.request_settings.tools[0].mcp
        assert (shown.authorization, dict(shown.extra_headers)) == ("", {})
        assert (shown.server_description, shown.server_url) == (
            "Files.",
            f"http://127.0.0.1:{tools.port}/<redacted>",
        )
    kept = b"".join(one.read_bytes() for one in tmp_path.iterdir() if one.is_file())
    assert b"Files." in kept
    assert b"abc-secret" not in kept
    assert b"secret-too" not in kept


def test_only_the_tools_that_are_allowed(tools: HttpServer) -> None:
    model = ScriptedModel(["Nothing to do."])
    with grpc_serving(model, urls=LOCAL_URLS) as server, server.client() as client:
        chat = client.chat.create(
            "scripted",
            messages=[user("Go.")],
            tools=[files(tools, allowed_tool_names=["add", "say"]), MINE],
            tool_choice=required_tool("files__add"),
        )
        settings = chat.sample().request_settings
        names = {one.name for one in model.calls[0].options.tools}
        assert names == {"files__add", "files__say", "mine"}
        assert model.calls[0].options.tool_choice == "function:files__add"
        assert list(settings.tools[1].mcp.allowed_tool_names) == ["add", "say"]
        assert settings.tool_choice.function_name == "files__add"


def test_a_server_without_a_label_is_called_by_its_host(tools: HttpServer) -> None:
    model = ScriptedModel(["Nothing to do."])
    url = tools.url.reveal()
    with grpc_serving(model, urls=LOCAL_URLS) as server, server.client() as client:
        two = [mcp(server_url=url, allowed_tool_names=["add"]) for _ in range(2)]
        client.chat.create("scripted", messages=[user("Go.")], tools=two).sample()
        names = {one.name for one in model.calls[0].options.tools}
        assert names == {"127_0_0_1__add", "127_0_0_1_2__add"}


@pytest.mark.parametrize(("asked", "rounds"), [(1, 1), (3, 3), (1000, 10), (None, 10)])
def test_rounds_have_an_end(tools: HttpServer, asked: int | None, rounds: int) -> None:
    model = ScriptedModel(lambda messages: adding(f"c{len(messages)}"))
    with grpc_serving(model, urls=LOCAL_URLS) as server, server.client() as client:
        chat = client.chat.create(
            "scripted", messages=[user("Go.")], tools=[files(tools)], max_turns=asked
        )
        made = chat.sample()
        assert made.finish_reason == "REASON_TOOL_CALLS"
        assert len(made.tool_outputs) == rounds
        assert len(made.tool_calls) == rounds + 1
        assert [one.status for one in made.tool_calls] == [COMPLETED] * rounds + [INCOMPLETE]


def test_a_clients_own_function_beside_a_servers_tool(tools: HttpServer) -> None:
    asking = calls(
        call("files__add", {"a": 1, "b": 2}, call_id="c1"), call("mine", {}, call_id="c2")
    )
    model = ScriptedModel([asking, "Done."])
    offered = [files(tools), MINE]
    with grpc_serving(model, urls=LOCAL_URLS) as server, server.client() as client:
        chat = client.chat.create(
            "scripted", messages=[user("Go.")], tools=offered, store_messages=True
        )
        *_, (made, _) = chat.stream()
        assert made.finish_reason == "REASON_TOOL_CALLS"
        assert [get_tool_call_type(one) for one in made.tool_calls] == [
            "mcp_tool",
            "client_side_tool",
        ]
        later = client.chat.create("scripted", tools=offered, previous_response_id=made.id)
        # As in the SDK's own examples, it does not say which call it is for.
        later.append(tool_result("mine is done"))
        assert later.sample().content == "Done."
        outputs = {one.get("tool_call_id"): one.get("content") for one in model.context()}
        assert (outputs["c1"], outputs["c2"]) == ("3", "mine is done")


def test_deferred(tools: HttpServer) -> None:
    with (
        grpc_serving(ScriptedModel([adding(), "Three."]), urls=LOCAL_URLS) as server,
        server.client() as client,
    ):
        chat = client.chat.create("scripted", messages=[user("Go.")], tools=[files(tools)])
        made = chat.defer(interval=datetime.timedelta(milliseconds=1))
        assert [one.message.content for one in made.proto.outputs] == ["", "", "Three."]


@pytest.mark.parametrize(
    ("offered", "code", "param"),
    [
        ([mcp("https://other.example/mcp")], "server_url_not_allowed", "tools[0].server_url"),
        ([mcp("", "shop")], "mcp_server_not_found", "tools[0].server_label"),
        ([mcp("")], "invalid_value", "tools[0].server_label"),
        ([mcp(URL, "a label")], "invalid_value", "tools[0].server_label"),
        ([mcp("file:///etc/passwd", "a")], "invalid_value", "tools[0].server_url"),
        ([mcp("http://[::1", "a")], "invalid_value", "tools[0].server_url"),
        ([mcp("http://[::1")], "invalid_value", "tools[0].server_label"),
        ([mcp(URL, "a"), mcp(URL, "a")], "invalid_value", "tools[1]"),
        (
            [mcp(URL, "a", authorization="x", extra_headers={"authorization": "y"})],
            "invalid_value",
            "tools[0].authorization",
        ),
        ([mcp(URL, "a", extra_headers={"a b": "secret"})], "invalid_value", "tools[0].headers"),
        ([mcp(URL, "a"), tool("a__x", "", {})], "invalid_value", "tools[1].name"),
        ([mcp(URL, "a"), web_search()], "unsupported_parameter", "tools[1]"),
    ],
)
def test_what_is_refused(offered: list[Any], code: str, param: str) -> None:
    with grpc_serving(urls=LOCAL_URLS) as server, server.client() as client:
        chat = client.chat.create(
            "scripted", messages=[user("Hi")], tools=offered, store_messages=True
        )
        failed = rpc_failure(chat.sample)
        assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
        assert (failed.error, failed.param) == (code, param)
        assert "secret" not in failed.details
        assert not server.http.stored_count()


kinds = st.sampled_from([COMPLETED, FAILED, IN_PROGRESS, INCOMPLETE])
tool_calls = st.builds(
    lambda kind, call_id, name, status: chat_pb2.ToolCall(
        type=kind,
        id=call_id,
        status=status,
        function=chat_pb2.FunctionCall(name=name, arguments="{}"),
    ),
    st.integers(0, 8),
    st.sampled_from(["", "c1", "c2"]),
    st.sampled_from(["", "plain", "files__add", "__", "a__b__c"]),
    kinds,
)
messages = st.builds(
    lambda role, made, call_id, sealed: chat_pb2.Message(
        role=role, tool_calls=made, tool_call_id=call_id, encrypted_content=sealed
    ),
    st.sampled_from([chat_pb2.ROLE_ASSISTANT, chat_pb2.ROLE_TOOL]),
    st.lists(tool_calls, max_size=3),
    st.sampled_from(["", "c1", "c2"]),
    st.sampled_from(["", "antiphon:output:1:", "antiphon:output:1:3", "else"]),
)


@given(sent=st.lists(messages, max_size=4))
def test_no_call_that_a_server_should_have_run_is_left_open(sent: list[Any]) -> None:
    try:
        items = decode_messages(sent)
    except InvalidRequestError:
        return
    outputs = {item.call_id for item in items if isinstance(item, FunctionCallOutput)}
    for item in items:
        if isinstance(item, FunctionCall) and item.server is not None:
            assert item.call_id in outputs


def test_several_choices_have_no_servers(tools: HttpServer) -> None:
    with grpc_serving(urls=LOCAL_URLS) as server, server.client() as client:
        chat = client.chat.create("scripted", messages=[user("Hi")], tools=[files(tools)])
        with pytest.warns(PendingDeprecationWarning):
            failed = rpc_failure(lambda: chat.sample_batch(2))
        assert (failed.code, failed.param) == (grpc.StatusCode.INVALID_ARGUMENT, "n")


def test_a_server_that_does_not_answer() -> None:
    options = [("grpc.enable_retries", 0)]
    with grpc_serving(urls=LOCAL_URLS) as server, server.client(channel_options=options) as client:
        chat = client.chat.create(
            "scripted", messages=[user("Hi")], tools=[mcp("http://127.0.0.1:1/mcp", "gone")]
        )
        failed = rpc_failure(chat.sample)
        assert (failed.code, failed.error) == (
            grpc.StatusCode.UNAVAILABLE,
            "tool_server_unavailable",
        )
