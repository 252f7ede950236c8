"""MCP servers over HTTP: wrong, too large, and missing answers."""

from __future__ import annotations

import asyncio
import gzip
import logging
from typing import Any

import pytest

from antiphon.core.secrets import Secret
from antiphon.errors import ToolServerUnavailableError
from antiphon.tools.mcp.http_transport import MAX_BYTES
from support.mcp_toolsets import (
    call,
    error_message,
    gateway,
    http_server,
    open_toolset,
    server_request,
)
from support.raw_mcp_server import JSON, TOOL, Raw, answering, reply, usual


def listing_error(answer: Any) -> str:
    """The error for a server whose tools cannot be listed."""

    async def run() -> str:
        async with answering(answer) as url, gateway() as manager:
            with pytest.raises(ToolServerUnavailableError) as caught:
                await manager.open_toolset([server_request(url=url)])
            return caught.value.message.partition("what tools it has: ")[2]

    return asyncio.run(run())


def call_errors(answer: Any, times: int = 1) -> list[str]:
    """The errors of calls that get this answer; other requests succeed."""

    def mixed(request: dict[str, Any]) -> Raw | None:
        return answer(request) if request["method"] == "tools/call" else usual(request)

    async def run() -> list[str]:
        async with (
            answering(mixed) as url,
            gateway() as manager,
            open_toolset(manager, server_request(url=url)) as toolset,
        ):
            pending_calls = [toolset.call_tool(call("files__read")) for _ in range(times)]
            return [error_message(one) for one in await asyncio.gather(*pending_calls)]

    return asyncio.run(run())


@pytest.mark.parametrize("status", ["401 No", "403 No", "429 Slow", "500 Oh", "503 Busy"])
def test_http_error_status_is_reported(status: str) -> None:
    page = Raw(status, "content-type: text/html", b"<html>hunter2</html>")
    assert listing_error(lambda _: page) == f"it answered with HTTP status {status[:3]}."


def test_html_page_is_not_an_mcp_server() -> None:
    page = Raw("200 OK", "content-type: text/html", b"<html></html>")
    assert "Unexpected content type" in listing_error(lambda _: page)


def test_redirect_is_not_followed() -> None:
    away = Raw("307 Away", "location: http://127.0.0.2:1/mcp", b"")
    assert "not followed" in listing_error(lambda _: away)


def test_call_without_an_answer_fails() -> None:
    (error,) = call_errors(lambda _: None)
    assert "the connection broke off" in error
    assert error.endswith("Whether the call had an effect is not known.")
    (error,) = call_errors(lambda _: Raw(body=b'{"jsonrpc"', whole=False))
    assert error.endswith("Whether the call had an effect is not known.")


def test_stream_without_an_answer_fails() -> None:
    (error,) = call_errors(lambda _: Raw(head="content-type: text/event-stream", body=b": hi\n\n"))
    assert "the connection was lost" in error


def test_failing_calls_do_not_block_others() -> None:
    answers = iter(
        [None, Raw(body=b"not json"), Raw("500 Oh", body=b""), Raw("204 None", body=b"")]
    )
    error = call_errors(lambda _: next(answers), times=4)
    assert len(error) == 4
    assert all(error)


def test_answer_over_the_size_limit_is_refused() -> None:
    (error,) = call_errors(lambda _: Raw(body=b" " * (MAX_BYTES + 1)))
    assert "its answer is larger than 32 MiB" in error


def test_compressed_answer_is_refused() -> None:
    bomb = Raw(head=f"{JSON}\r\ncontent-encoding: gzip", body=gzip.compress(b" " * 10**6))
    assert "a compressed answer" in call_errors(lambda _: bomb)[0]


def test_invalid_results_are_errors() -> None:
    results: list[Any] = [{}, {"content": 1}, {"content": [{"type": "hologram"}]}, None, [], "text"]
    for result in results:
        (error,) = call_errors(lambda request, result=result: reply(request, result))
        assert error.startswith("files__read failed: ")
        assert len(error) < 500


async def test_endless_tool_list_is_cut_off() -> None:
    def endless(request: dict[str, Any]) -> Raw:
        if request["method"] != "tools/list":
            return usual(request)
        tools = [{**TOOL, "name": f"t{n}"} for n in range(30)]
        page = {"tools": tools, "nextCursor": "more", "resultType": "complete"}
        return reply(request, {**page, "ttlMs": 0, "cacheScope": "public"})

    async with (
        answering(endless) as url,
        gateway() as manager,
        open_toolset(manager, server_request(url=url)) as toolset,
    ):
        assert len(toolset.functions) == 30


async def test_configured_headers_cannot_replace_protocol_headers() -> None:

    with http_server() as http:
        url = http.url
        headers = {"Authorization": Secret("Bearer x"), "Accept": Secret("text/plain")}
        request = server_request(url=url, headers=headers)
        async with gateway() as manager, open_toolset(manager, request) as toolset:
            sent = await toolset.call_tool(call("files__header", name="accept"))
            assert sent == "application/json, text/event-stream"
            # The whole value is redacted, because it is too short to search for in text.
            sent = await toolset.call_tool(call("files__header", name="authorization"))
            assert sent == "[hidden]"


def test_sdk_log_lines_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    listing_error(lambda _: Raw("200 OK", "content-type: text/html", b""))
    assert {record.name for record in caplog.records} <= {"antiphon.tools", "asyncio"}
