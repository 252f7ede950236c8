"""MCP servers over HTTP by a proxy."""

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
SAID = {"content": [{"type": "text", "text": "Said."}], "resultType": "complete"}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def server_at(url: str) -> McpServerConfig:
    """A server whose host only the proxy knows."""
    return McpServerConfig(
        label="files",
        url=Secret(url),
        headers={"Authorization": Secret(TOKEN)},
        require_approval="never",
    )


async def refused(url: str, caplog: pytest.LogCaptureFixture) -> str:
    """Why its tools could not be listed; nothing that is said shows who asked the proxy."""
    caplog.set_level(logging.DEBUG)
    async with gateway(server_at(url)) as opened:
        with pytest.raises(ToolServerUnavailableError) as caught:
            async with open_toolset(opened):
                pass
    for shown in (caught.value.message, caplog.text):
        assert not [word for word in ("correct", "horse", "YW5uOmNv") if word in shown]
    return caught.value.message.partition("what tools it has: ")[2]


def served(request: dict[str, Any]) -> Raw:
    return reply(request, SAID) if request["method"] == "tools/call" else usual(request)


def port_of(url: Secret) -> int:
    port = urlsplit(url.reveal()).port
    assert port is not None
    return port


@pytest.fixture
def trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """What a server speaks TLS with; the client knows it while the test lasts."""
    made = self_signed_certificate(tmp_path, "upstream.test")
    monkeypatch.setattr(http_transport, "_ssl_context", lambda: client_context(made))
    return server_context(made)


async def test_a_server_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        answering(served) as url,
        ForwardProxy({"upstream.test": port_of(url)}, user=USER) as proxy,
    ):
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        async with (
            gateway(server_at("http://upstream.test:8000/mcp")) as opened,
            open_toolset(opened) as made,
        ):
            assert await made.call_tool(call("files__read")) == "Said."
        assert proxy.requests[0].target == "http://upstream.test:8000/mcp"


@pytest.mark.parametrize("proxied_by", ["http", "https"])
async def test_a_tunnel_to_a_safe_server(
    trust: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, proxied_by: str
) -> None:
    async with (
        answering(served, trust) as url,
        ForwardProxy(
            {"upstream.test": port_of(url)},
            user=USER,
            tls=trust if proxied_by == "https" else None,
        ) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        async with (
            gateway(server_at("https://upstream.test/mcp")) as opened,
            open_toolset(opened) as made,
        ):
            assert await made.call_tool(call("files__read")) == "Said."
        for asked in proxy.requests:
            assert (asked.method, asked.target) == ("CONNECT", "upstream.test:443")
            assert TOKEN not in str(asked)


@pytest.mark.parametrize(
    ("scheme", "said"),
    [
        ("http", "it answered with HTTP status 407 by the proxy {at}."),
        ("https", "it could not be reached by the proxy {at}: HTTP status 407."),
    ],
)
async def test_a_proxy_that_refuses(
    scheme: str, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with ForwardProxy({}, user="ann:another") as proxy:
        monkeypatch.setenv("ALL_PROXY", f"http://{USER}@{proxy.address}")
        refusal = await refused(f"{scheme}://upstream.test/mcp", caplog)
        assert refusal == said.format(at=proxy.address)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_not_there(
    scheme: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ALL_PROXY", f"http://{USER}@127.0.0.1:1")
    refusal = asyncio.run(refused(f"{scheme}://upstream.test/mcp", caplog))
    assert refusal == "it could not be reached by the proxy 127.0.0.1:1."


def test_a_proxy_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ALL_PROXY", f"socks5://{USER}@127.0.0.1:1")
    refusal = asyncio.run(refused("https://upstream.test/mcp", caplog))
    assert refusal.startswith("ALL_PROXY names a socks5 proxy, which cannot be used here")


async def test_this_machine_is_reached_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")

    with http_server() as http:
        url = http.url.reveal()
        async with gateway(server_at(url)) as opened, open_toolset(opened) as made:
            assert await made.call_tool(call("files__add", a=1, b=2)) == "3"
