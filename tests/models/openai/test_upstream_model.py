"""The way to an upstream by a proxy."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import uvloop

from antiphon.errors import AntiphonError, ConfigError, ModelError, ModelUnavailableError
from antiphon.models.openai.chat_completions import ChatCompletionsModel
from antiphon.models.retry import RetryPolicy
from antiphon.turn.protocols import ModelInfo
from support.chat_completions_upstream import HELLO, KEY, collect_deltas, expect_failure
from support.forward_proxy import ForwardProxy
from support.misbehaving_upstream import MisbehavingUpstream, refuse
from support.tls_certificates import client_context, self_signed_certificate, server_context

USER = "ann:correct-horse"
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
Loop = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For a server, and for a client that knows it."""
    made = self_signed_certificate(tmp_path_factory.mktemp("tls"), "upstream.test")
    return server_context(made), client_context(made)


@pytest.fixture
def trust(
    tls: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> ssl.SSLContext:
    """The server's side; the HTTP client knows the certificate while the test lasts."""
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", tls[1])
    return tls[0]


def run(main: Coroutine[Any, Any, None], loop: Loop = asyncio.new_event_loop) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(asyncio.wait_for(main, 20))


def model_of(url: str) -> ChatCompletionsModel:
    """A model whose host only the proxy knows; failures are shown at once."""
    return ChatCompletionsModel(ModelInfo("m"), url, KEY, retry=RetryPolicy(max_retries=0))


async def refused(url: str, kind: type[AntiphonError]) -> Any:
    """The error of a call; nothing in it shows who asked the proxy."""
    model = model_of(url)
    _, error = await expect_failure(model, kind)
    await model.close()
    shown = f"{error!r} {error.__cause__!r} {error.__context__!r}"
    assert not [word for word in ("correct", "horse", "YW5uOmNv") if word in shown]
    return error


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("proxied_by", ["http", "https"])
def test_a_tunnel_to_a_safe_upstream(
    trust: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, loop: Loop, proxied_by: str
) -> None:
    async def main() -> None:
        async with (
            MisbehavingUpstream(tls=trust) as upstream,
            ForwardProxy(
                {"upstream.test": upstream.port},
                user=USER,
                tls=trust if proxied_by == "https" else None,
            ) as proxy,
        ):
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            model = model_of("https://upstream.test/v1")
            assert await collect_deltas(model) == HELLO
            assert await collect_deltas(model, streamed=False)
            await model.close()
            (requested,) = proxy.requests
            assert (requested.method, requested.target) == ("CONNECT", "upstream.test:443")
            # The key is for the upstream, the password for the proxy.
            assert KEY not in str(requested)
            assert requested.headers.keys() == {
                "host",
                "proxy-authorization",
                "user-agent",
                "accept",
                "accept-encoding",
            }
            for request in upstream.requests:
                assert request.headers["authorization"] == f"Bearer {KEY}"
                assert not [name for name in request.headers if "proxy" in name]

    run(main(), loop)


async def test_an_upstream_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        MisbehavingUpstream() as upstream,
        ForwardProxy({"upstream.test": upstream.port}, user=USER) as proxy,
    ):
        monkeypatch.setenv("http_proxy", proxy.url)
        model = model_of("http://upstream.test:8000/v1")
        assert await collect_deltas(model) == HELLO
        await model.close()
        (requested,) = proxy.requests
        assert requested.target == "http://upstream.test:8000/v1/chat/completions"
        assert upstream.requests[0].headers["authorization"] == f"Bearer {KEY}"
        # An answer in the clear may be the proxy's own.
        upstream.then(refuse(403))
        error = await refused("http://upstream.test/v1", ModelError)
        assert error.message == (
            f"upstream.test:80 (by the proxy {proxy.address}) answered 403: No. Check the API key."
        )


async def test_this_machine_is_reached_without(monkeypatch: pytest.MonkeyPatch) -> None:
    async with MisbehavingUpstream() as upstream:
        monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
        model = model_of(upstream.base_url)
        assert await collect_deltas(model) == HELLO
        await model.close()


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_is_not_there(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        gone = f"127.0.0.1:{taken.getsockname()[1]}"
    monkeypatch.setenv("ALL_PROXY", f"http://{USER}@{gone}")
    error = await refused(f"{scheme}://upstream.test/v1", ModelUnavailableError)
    assert error.message.startswith(f"The proxy {gone} cannot be reached: ")


@pytest.mark.parametrize(
    ("status", "kind", "why"),
    [
        (403, ModelError, "it does not allow to reach upstream.test:443."),
        (407, ModelError, "it wants a user and a password"),
        (502, ModelUnavailableError, "it does not reach upstream.test:443."),
    ],
)
async def test_a_proxy_that_refuses(
    status: int, kind: type[AntiphonError], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ForwardProxy({}, user=USER, status=status) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        error = await refused("https://upstream.test/v1", kind)
        assert error.message.startswith(f"The proxy {proxy.address} answered {status}: {why}")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_another_password(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with ForwardProxy({}, user="ann:another") as proxy:
            monkeypatch.setenv("ALL_PROXY", f"http://{USER}@{proxy.address}")
            error = await refused(f"{scheme}://upstream.test/v1", ModelError)
            assert error.code == "upstream_proxy_refused"
            assert error.message.startswith(f"The proxy {proxy.address} answered 407")

    run(main())


async def test_an_unknown_certificate_is_rejected(
    tls: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        MisbehavingUpstream(tls=tls[0]) as upstream,
        ForwardProxy({"upstream.test": upstream.port}, user=USER) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        error = await refused("https://upstream.test/v1", ModelUnavailableError)
        assert f"upstream.test:443 (by the proxy {proxy.address})" in error.message
        assert not upstream.requests


async def test_no_password_is_looked_for_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login ann password correct-horse\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with ForwardProxy({}, status=403) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        await refused("https://upstream.test/v1", ModelError)
        assert "proxy-authorization" not in proxy.requests[0].headers


def test_a_proxy_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", f"socks5://{USER}@proxy.example:1080")
    with pytest.raises(ConfigError) as caught:
        model_of("https://upstream.test/v1")
    assert caught.value.message == (
        "ALL_PROXY names a socks5 proxy, which cannot be used here: name an HTTP proxy, or put "
        "upstream.test into NO_PROXY to do without one."
    )
