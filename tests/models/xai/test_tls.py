"""The safe connection to xAI's gRPC API."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from antiphon.core.deltas import OutputTextDelta
from antiphon.errors import ModelUnavailableError
from antiphon.models.scripted import ScriptedModel
from support.grpc_client import grpc_serving
from support.tls_certificates import self_signed_certificate
from support.xai_upstream import NO_RETRIES, collect_deltas, model_at


async def test_a_host_has_to_be_who_it_says(tmp_path: Path) -> None:
    tls = self_signed_certificate(tmp_path)
    upstream = ScriptedModel(["Hi."])

    with grpc_serving(upstream, certificate=tls) as server:
        port = server.port
        url = f"https://127.0.0.1:{port}"
        stranger = model_at(port, url=url, retry=NO_RETRIES)
        with pytest.raises(ModelUnavailableError):
            await collect_deltas(stranger)
        assert not upstream.calls
        known = grpc.ssl_channel_credentials(tls.cert.read_bytes())
        friend = model_at(port, url=url, credentials=known)
        assert OutputTextDelta("Hi.") in await collect_deltas(friend)
        await stranger.close()
        await friend.close()


async def test_authorities_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A company's proxy that reads along has an authority of its own."""
    monkeypatch.delenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", raising=False)
    tls = self_signed_certificate(tmp_path)
    with grpc_serving(ScriptedModel(["Hi."]), certificate=tls) as server:
        url = f"https://127.0.0.1:{server.port}"
        for path in ("", str(tmp_path / "none.pem"), str(tmp_path)):
            monkeypatch.setenv("SSL_CERT_FILE", path)
            stranger = model_at(server.port, url=url, retry=NO_RETRIES)
            with pytest.raises(ModelUnavailableError):
                await collect_deltas(stranger)
            await stranger.close()
        monkeypatch.setenv("SSL_CERT_FILE", str(tls.cert))
        friend = model_at(server.port, url=url)
        assert OutputTextDelta("Hi.") in await collect_deltas(friend)
        await friend.close()
