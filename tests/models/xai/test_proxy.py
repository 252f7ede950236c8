"""xAI's gRPC API by a proxy: as everything else goes, not as the gRPC library would."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from antiphon.core.deltas import OutputTextDelta
from antiphon.errors import ConfigError, ModelUnavailableError
from antiphon.models.scripted import ScriptedModel
from support.forward_proxy import ForwardProxy
from support.grpc_client import grpc_serving
from support.tls_certificates import self_signed_certificate
from support.xai_upstream import KEY, NO_RETRIES, collect_deltas, model_at

USER = "ann:correct-horse"
URL = "https://upstream.test"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


async def test_a_tunnel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = self_signed_certificate(tmp_path, "upstream.test")

    with grpc_serving(ScriptedModel(["Hi."]), certificate=tls) as server:
        port = server.port
        async with ForwardProxy({"upstream.test": port}, user=USER) as proxy:
            # In capitals, which the library does not read.
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            known = grpc.ssl_channel_credentials(tls.cert.read_bytes())
            model = model_at(0, url=URL, credentials=known)
            assert OutputTextDelta("Hi.") in await collect_deltas(model)
            await model.close()
            (requested,) = proxy.requests
            assert (requested.method, requested.target) == ("CONNECT", "upstream.test:443")
            assert KEY not in str(requested)


async def test_this_machine_is_reached_without(monkeypatch: pytest.MonkeyPatch) -> None:
    # The library reads these, and would ask them for this machine.
    for name in ("grpc_proxy", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    with grpc_serving(ScriptedModel(["Hi."])) as server:
        port = server.port
        model = model_at(port, retry=NO_RETRIES)
        assert OutputTextDelta("Hi.") in await collect_deltas(model)
        await model.close()


async def test_a_proxy_that_refuses_is_named_and_its_password_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with ForwardProxy({}, user="ann:another") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{USER}@{proxy.address}")
        model = model_at(0, url=URL, retry=NO_RETRIES)
        with pytest.raises(ModelUnavailableError) as caught:
            await collect_deltas(model)
        await model.close()
        assert f"upstream.test:443 (by the proxy {proxy.address})" in caught.value.message
        assert "407" in caught.value.message
        assert "horse" not in f"{caught.value!r} {caught.value.__cause__!r}"


def test_a_proxy_that_grpc_cannot_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"https://{USER}@proxy.example")
    with pytest.raises(ConfigError, match="a proxy that speaks TLS") as caught:
        model_at(0, url=URL)
    assert "horse" not in repr(caught.value)
