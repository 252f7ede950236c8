"""MCP servers over HTTP through a proxy."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from antiphon.core.mcp_servers import McpServerConfig
from antiphon.core.secrets import Secret
from antiphon.errors import ToolServerUnavailableError
from antiphon.tools.mcp import http_transport
from support.forward_proxy import ForwardProxy
from support.mcp_toolsets import call, gateway, http_server, open_toolset
from support.raw_mcp_server import Raw, answering, reply, usual
from support.tls_certificates import client_context, self_signed_certificate, server_context

USER = "ann:correct-horse"
TOKEN = "Bearer token-of-the-wiki"
RESULT = {"content": [{"type": "text", "text": "Said."}], "resultType": "complete"}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def server_at(url: str) -> McpServerConfig:
    """A server whose host only the proxy can resolve."""
    return McpServerConfig(
        label="files",
        url=Secret(url),
        headers={"Authorization": Secret(TOKEN)},
        require_approval="never",
    )


async def listing_error(url: str, caplog: pytest.LogCaptureFixture) -> str:
    """The error for a server whose tools cannot be listed; it never has the credentials."""
    caplog.set_level(logging.DEBUG)
    async with gateway(server_at(url)) as manager:
        with pytest.raises(ToolServerUnavailableError) as caught:
            async with open_toolset(manager):
                pass
    for shown in (caught.value.message, caplog.text):
        assert not [word for word in ("correct", "horse", "YW5uOmNv") if word in shown]
    return caught.value.message.partition("what tools it has: ")[2]


def answer(request: dict[str, Any]) -> Raw:
    return reply(request, RESULT) if request["method"] == "tools/call" else usual(request)


def port_of(url: Secret) -> int:
    port = urlsplit(url.reveal()).port
    assert port is not None
    return port


@pytest.fixture
def tls_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """The TLS context of a server; the client trusts its certificate during the test."""
    toolset = self_signed_certificate(tmp_path, "upstream.test")
    monkeypatch.setattr(http_transport, "_ssl_context", lambda: client_context(toolset))
    return server_context(toolset)


async def test_http_server_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        answering(answer) as url,
        ForwardProxy({"upstream.test": port_of(url)}, user=USER) as proxy,
    ):
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        async with (
            gateway(server_at("http://upstream.test:8000/mcp")) as manager,
            open_toolset(manager) as toolset,
        ):
            assert await toolset.call_tool(call("files__read")) == "Said."
        assert proxy.requests[0].target == "http://upstream.test:8000/mcp"


@pytest.mark.parametrize("proxied_by", ["http", "https"])
async def test_https_server_through_a_connect_tunnel(
    tls_context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, proxied_by: str
) -> None:
    async with (
        answering(answer, tls_context) as url,
        ForwardProxy(
            {"upstream.test": port_of(url)},
            user=USER,
            tls=tls_context if proxied_by == "https" else None,
        ) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        async with (
            gateway(server_at("https://upstream.test/mcp")) as manager,
            open_toolset(manager) as toolset,
        ):
            assert await toolset.call_tool(call("files__read")) == "Said."
        for request in proxy.requests:
            assert (request.method, request.target) == ("CONNECT", "upstream.test:443")
            assert TOKEN not in str(request)


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("http", "it answered with HTTP status 407 by the proxy {at}."),
        ("https", "it could not be reached by the proxy {at}: HTTP status 407."),
    ],
)
async def test_proxy_authentication_failure_is_reported(
    scheme: str, expected: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with ForwardProxy({}, user="ann:another") as proxy:
        monkeypatch.setenv("ALL_PROXY", f"http://{USER}@{proxy.address}")
        refusal = await listing_error(f"{scheme}://upstream.test/mcp", caplog)
        assert refusal == expected.format(at=proxy.address)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_unreachable_proxy_is_reported(
    scheme: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ALL_PROXY", f"http://{USER}@127.0.0.1:1")
    refusal = asyncio.run(listing_error(f"{scheme}://upstream.test/mcp", caplog))
    assert refusal == "it could not be reached by the proxy 127.0.0.1:1."


def test_unsupported_proxy_is_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ALL_PROXY", f"socks5://{USER}@127.0.0.1:1")
    refusal = asyncio.run(listing_error("https://upstream.test/mcp", caplog))
    assert refusal.startswith("ALL_PROXY names a socks5 proxy, which cannot be used here")


async def test_localhost_is_reached_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")

    with http_server() as http:
        url = http.url.reveal()
        async with gateway(server_at(url)) as manager, open_toolset(manager) as toolset:
            assert await toolset.call_tool(call("files__add", a=1, b=2)) == "3"
