"""Servers over HTTP that answer wrongly, too much, or not at all."""

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


def listing(answer: Any) -> str:
    """Why its tools could not be listed."""

    async def run() -> str:
        async with answering(answer) as url, gateway() as opened:
            with pytest.raises(ToolServerUnavailableError) as caught:
                await opened.open_toolset([server_request(url=url)])
            return caught.value.message.partition("what tools it has: ")[2]

    return asyncio.run(run())


def calling(answer: Any, times: int = 1) -> list[str]:
    """The errors of calls whose answers are as told; everything else goes well."""

    def mixed(asked: dict[str, Any]) -> Raw | None:
        return answer(asked) if asked["method"] == "tools/call" else usual(asked)

    async def run() -> list[str]:
        async with (
            answering(mixed) as url,
            gateway() as opened,
            open_toolset(opened, server_request(url=url)) as made,
        ):
            given = [made.call_tool(call("files__read")) for _ in range(times)]
            return [error_message(one) for one in await asyncio.gather(*given)]

    return asyncio.run(run())


@pytest.mark.parametrize("status", ["401 No", "403 No", "429 Slow", "500 Oh", "503 Busy"])
def test_a_status_is_told(status: str) -> None:
    page = Raw(status, "content-type: text/html", b"<html>hunter2</html>")
    assert listing(lambda _: page) == f"it answered with HTTP status {status[:3]}."


def test_a_page_that_is_no_mcp_server() -> None:
    page = Raw("200 OK", "content-type: text/html", b"<html></html>")
    assert "Unexpected content type" in listing(lambda _: page)


def test_a_redirect_to_elsewhere_is_not_followed() -> None:
    away = Raw("307 Away", "location: http://127.0.0.2:1/mcp", b"")
    assert "not followed" in listing(lambda _: away)


def test_a_call_without_an_answer() -> None:
    (said,) = calling(lambda _: None)
    assert "the connection broke off" in said
    assert said.endswith("Whether the call had an effect is not known.")
    (said,) = calling(lambda _: Raw(body=b'{"jsonrpc"', whole=False))
    assert said.endswith("Whether the call had an effect is not known.")


def test_a_stream_without_an_answer() -> None:
    (said,) = calling(lambda _: Raw(head="content-type: text/event-stream", body=b": hi\n\n"))
    assert "the connection was lost" in said


def test_one_call_that_fails_costs_no_other() -> None:
    fates = iter([None, Raw(body=b"not json"), Raw("500 Oh", body=b""), Raw("204 None", body=b"")])
    said = calling(lambda _: next(fates), times=4)
    assert len(said) == 4
    assert all(said)


def test_an_answer_without_an_end_is_not_read() -> None:
    (said,) = calling(lambda _: Raw(body=b" " * (MAX_BYTES + 1)))
    assert "its answer is larger than 32 MiB" in said


def test_what_is_packed_is_not_unpacked() -> None:
    bomb = Raw(head=f"{JSON}\r\ncontent-encoding: gzip", body=gzip.compress(b" " * 10**6))
    assert "a compressed answer" in calling(lambda _: bomb)[0]


def test_results_that_are_none() -> None:
    results: list[Any] = [{}, {"content": 1}, {"content": [{"type": "hologram"}]}, None, [], "text"]
    for result in results:
        (said,) = calling(lambda asked, result=result: reply(asked, result))
        assert said.startswith("files__read failed: ")
        assert len(said) < 500


async def test_a_list_without_an_end() -> None:
    def endless(asked: dict[str, Any]) -> Raw:
        if asked["method"] != "tools/list":
            return usual(asked)
        tools = [{**TOOL, "name": f"t{n}"} for n in range(30)]
        page = {"tools": tools, "nextCursor": "more", "resultType": "complete"}
        return reply(asked, {**page, "ttlMs": 0, "cacheScope": "public"})

    async with (
        answering(endless) as url,
        gateway() as opened,
        open_toolset(opened, server_request(url=url)) as made,
    ):
        assert len(made.functions) == 30


async def test_headers_are_sent_and_cannot_replace_the_protocols() -> None:

    with http_server() as http:
        url = http.url
        headers = {"Authorization": Secret("Bearer x"), "Accept": Secret("text/plain")}
        asked = server_request(url=url, headers=headers)
        async with gateway() as opened, open_toolset(opened, asked) as made:
            sent = await made.call_tool(call("files__header", name="accept"))
            assert sent == "application/json, text/event-stream"
            # Too short a key to be searched for in every word.
            sent = await made.call_tool(call("files__header", name="authorization"))
            assert sent == "[hidden]"


def test_the_lines_of_the_sdk_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    listing(lambda _: Raw("200 OK", "content-type: text/html", b""))
    assert {record.name for record in caplog.records} <= {"antiphon.tools", "asyncio"}
