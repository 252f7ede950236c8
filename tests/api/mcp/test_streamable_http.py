"""``/mcp``: whose request it is, how it goes on, and what hanging up does."""

from __future__ import annotations

import asyncio
import builtins
import json
import sys
from typing import Any

import pytest
from mcp import Client

from antiphon.api.mcp.streamable_http import McpEndpoint
from antiphon.errors import NotFoundError
from antiphon.models.scripted import ScriptedModel, hang, say, wait
from antiphon.settings import Limits
from support.http_server import Answer, ThreadServer, serving
from support.keyed_server import serving_with_keys
from support.mcp_clients import MODES, call, over_http, tool_error
from support.stored_responses import response_ids
from support.turn_service import service_with as service_over

ACCEPT = {"accept": "application/json, text/event-stream"}


def post(server: ThreadServer, body: bytes, headers: dict[str, str] | None = None) -> Answer:
    return server.request("POST", "/mcp", body, {**ACCEPT, **(headers or {})})


@pytest.mark.parametrize("mode", MODES)
async def test_tenants_do_not_see_each_other(mode: str) -> None:
    with serving_with_keys() as door:
        acme, other = door.client("acme"), door.client("other")
        async with (
            over_http(door.server, mode, acme.headers) as ours,
            over_http(door.server, mode, other.headers) as theirs,
        ):
            said = await call(ours, "stateful_chat", prompt="The password is swordfish.")
            name = said["response_id"]
            for tool in ("retrieve_stateful_response", "delete_stateful_response"):
                missing = await tool_error(theirs, tool, response_id=name)
                none = await tool_error(theirs, tool, response_id="resp_" + "0" * 32)
                assert missing.replace(name, "") == none.replace("resp_" + "0" * 32, "")
            await tool_error(theirs, "stateful_chat", prompt="Hi", response_id=name)
            found = await call(theirs, "search_conversations", query="swordfish")
            assert found["results"] == []
            assert (await theirs.list_resources()).resources == []
            assert len((await ours.list_resources()).resources) == 1
            await call(ours, "stateful_chat", prompt="On", response_id=name)
            # And over HTTP it is the same tenant's.
            assert acme.get(f"/v1/responses/{name}").status == 200
            assert other.get(f"/v1/responses/{name}").status == 404


def test_without_a_key_nothing_is_answered() -> None:
    with serving_with_keys() as door:
        door.client()
        answer = door.anonymous_client().request("POST", "/mcp", b"{}", ACCEPT)
        assert answer.status == 401


def test_a_web_page_elsewhere_is_kept_out() -> None:
    with serving() as server:
        assert post(server, b"{}", {"origin": "https://evil.example"}).status == 403
        assert post(server, b"{}", {"host": "evil.example"}).status == 403


def test_the_name_of_a_session_is_all_there_is_of_it() -> None:
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    }
    with serving() as server:
        answer = post(server, json.dumps(hello).encode())
        assert answer.status == 200
        assert len(answer.headers["mcp-session-id"]) == 32
        listing = b'{"jsonrpc":"2.0","id":2,"method":"tools/list"}'
        for name in (answer.headers["mcp-session-id"], "another", None):
            named = post(server, listing, {"mcp-session-id": name} if name else {})
            assert named.status == 200
            assert b"stateful_chat" in named.body
            assert "mcp-session-id" not in named.headers
        for method in ("GET", "DELETE"):
            refused = server.request(method, "/mcp", headers=ACCEPT)
            assert refused.status == 405
            assert refused.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"3", b'{"jsonrpc":"2.0"}', b'{"a":' * 50_000, b"\xff", b"null"]
)
@pytest.mark.parametrize("version", ["2025-06-18", "2026-07-28", "never"])
def test_what_is_no_message_is_refused(body: bytes, version: str) -> None:
    with serving() as server:
        answer = post(server, body, {"mcp-protocol-version": version})
        assert 400 <= answer.status < 500
        assert server.logged_errors == []


@pytest.mark.parametrize("mode", MODES)
async def test_progress_is_reported_while_the_model_writes(mode: str) -> None:
    gate = asyncio.Event()
    told: list[tuple[float, str | None]] = []
    with serving(ScriptedModel([say("One ", "two") + wait(gate) + say(" three")])) as server:

        async def report(progress: float, total: float | None, message: str | None) -> None:
            told.append((progress, message))
            if message is not None and "has written 7 characters" in message:
                # Only now the model goes on: this came while it was writing.
                server.set(gate)

        async with over_http(server, mode) as client:
            result = await client.call_tool(
                "stateful_chat", {"prompt": "Count"}, progress_callback=report
            )
    assert result.structured_content["content"] == "One two three"
    amounts = [amount for amount, _ in told]
    assert amounts == sorted(set(amounts))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("tool", ["chat", "stateful_chat"])
async def test_who_leaves_stops_what_is_not_stored_and_nothing_else(mode: str, tool: str) -> None:
    reached, gate = asyncio.Event(), asyncio.Event()
    reply = say("One") + (hang(reached) if tool == "chat" else wait(gate, reached))
    model = ScriptedModel([reply])
    with serving(model) as server:
        async with over_http(server, mode) as client:
            asking = asyncio.create_task(client.call_tool(tool, {"prompt": "Hi"}))
            await asyncio.to_thread(server.wait, reached)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            if tool == "chat":
                await asyncio.to_thread(server.wait, model.cancelled)
                assert server.stored_count() == 0
                return
            server.set(gate)
            (thread,) = (await client.list_resources()).resources
            await asyncio.to_thread(server.run, over(server, thread.name))
            turn = await call(client, "retrieve_stateful_response", response_id=thread.name)
            assert (turn["status"], turn["content"]) == ("completed", "One")


async def test_another_tenant_takes_no_call_back() -> None:
    reached, gate = asyncio.Event(), asyncio.Event()
    model = ScriptedModel([wait(gate, reached) + say("One")])
    with serving_with_keys(model) as door:
        acme, other = door.client("acme"), door.client("other")
        session = {"mcp-session-id": "same"}
        asking = asyncio.create_task(
            asyncio.to_thread(
                acme.request, "POST", "/mcp", CALL, {**ACCEPT, **acme.headers, **session}
            )
        )
        await asyncio.to_thread(door.server.wait, reached)
        for client, name in ((other, "same"), (acme, "another")):
            headers = {**ACCEPT, "mcp-session-id": name}
            answer = await asyncio.to_thread(client.request, "POST", "/mcp", CANCEL, headers)
            assert answer.status == 202
        door.server.set(gate)
        assert b"One" in (await asking).body


CALL = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 7,
        "method": "tools/call",
        "params": {"name": "chat", "arguments": {"prompt": "Hi"}},
    }
).encode()
CANCEL = b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}'


async def over(server: ThreadServer, response_id: str) -> None:
    turn = server.service.registry.get(response_id)
    if turn is not None:
        await turn.result()


async def test_a_key_has_no_more_turns_at_once_than_elsewhere() -> None:
    reached, gate = asyncio.Event(), asyncio.Event()
    model = ScriptedModel([wait(gate, reached) + say("One"), "Two"])
    limit = Limits(concurrent_turns=1)
    with serving_with_keys(model, rate_limit_for=lambda _: limit) as door:
        async with over_http(door.server, headers=door.client().headers) as client:
            first = asyncio.create_task(call(client, "chat", prompt="Hi"))
            await asyncio.to_thread(door.server.wait, reached)
            said = await tool_error(client, "chat", prompt="Hi")
            assert "1 turns running at once" in said
            assert "Wait 1 seconds" in said
            door.server.set(gate)
            await first
            assert (await call(client, "chat", prompt="Hi"))["content"] == "Two"


def test_many_at_once_get_their_own() -> None:
    async def ask(client: Client, number: int) -> None:
        said = await call(client, "stateful_chat", prompt=f"I am {number}.")
        assert f"You said: I am {number}." in said["content"]

    async def main() -> None:
        with serving() as server:
            async with over_http(server) as client, over_http(server, "legacy") as other:
                await asyncio.gather(
                    *(ask((client, other)[number % 2], number) for number in range(30))
                )
            assert server.stored_count() == 30

    asyncio.run(main())


async def test_a_large_image_goes_through() -> None:
    data = "R0lGODlhAQABAAAAACH5BAEAAAAALAAAAAABAAEAAAIBADs" + "A" * 5 * 2**20 + "="
    with serving() as server:
        async with over_http(server) as client:
            await call(
                client,
                "chat_with_vision",
                prompt="What is it?",
                image_urls=[f"data:image/gif;base64,{data}"],
            )


async def test_files_of_the_server_are_nothing_to_ask_for() -> None:
    with serving() as server:
        async with over_http(server) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert "image_paths" not in tools["chat_with_vision"].input_schema["properties"]
            said = await tool_error(
                client, "chat_with_vision", prompt="x", image_paths=["/etc/passwd"]
            )
            assert "There is no image" in said
        assert server.run(response_ids(server.store)) == []


async def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name.partition(".")[0] in {"mcp", "mcp_types"}:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return real(name, *args, **options)

    endpoint = McpEndpoint(service_over(ScriptedModel()))
    monkeypatch.delitem(sys.modules, "antiphon.api.mcp.server", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(NotFoundError, match=r"pip install 'antiphon\[mcp\]'"):
        await endpoint.handle({}, never, ignore)


async def never() -> Any:
    raise AssertionError("nothing was read")


async def ignore(message: Any) -> None:
    raise AssertionError(message)
