"""``antiphon serve`` beside HTTP: gRPC, and TLS for both."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
import xai_sdk  # type: ignore[import-untyped]
from xai_sdk.chat import user  # type: ignore[import-untyped]

from antiphon.bootstrap import grpc_server, http_app, open_engine
from antiphon.cli.server import GrpcListener, check_tls
from antiphon.errors import ConfigError
from antiphon.settings import FUN_PROMPT, ModelSettings, Settings, Tls, load_settings
from support.command_line import Command
from support.command_line_upstream import upstream
from support.grpc_client import rpc_failure, wait_until
from support.http_server import PROGRAM, TIMEOUT
from support.program_process import ProgramProcess
from support.serve_process import running_server
from support.tls_certificates import self_signed_certificate

SETTINGS = Settings(store="memory:", model="echo", models={"echo": ModelSettings(kind="scripted")})


def grpc_at(process: ProgramProcess) -> str:
    """Where a server says that it listens for gRPC."""
    assert process.stderr is not None
    line = process.stderr.readline()
    found = re.fullmatch(r"gRPC, for the xai-sdk: (\S+)\n", line)
    assert found, line
    return found[1]


def test_xai_sdk_connects_without_tls(tmp_path: Path) -> None:
    with running_server(tmp_path) as (process, _, port):
        at = grpc_at(process)
        # "localhost" is the one host that the SDK does not want TLS from.
        hosts = (
            {"api_host": at, "use_insecure_channel": True},
            {"api_host": f"localhost:{at[10:]}"},
        )
        for host in hosts:
            with xai_sdk.Client("any", timeout=TIMEOUT, **host) as client:
                chat = client.chat.create("echo", messages=[user("Hi")], store_messages=True)
                response = chat.sample()
                assert response.content.startswith("You said: Hi")
                url = f"http://127.0.0.1:{port}/v1/responses/{response.id}"
                with urllib.request.urlopen(url) as answer:
                    assert json.load(answer)["status"] == "completed"
        with xai_sdk.Client("any", **hosts[0]) as client:
            list(client.chat.create("echo", messages=[user("Hi")]).stream())
            # A client that stays does not hold it up.
            process.terminate()
            assert process.wait(TIMEOUT) == 0


@pytest.mark.slow
def test_grpc_port_0_starts_no_grpc_listener(tmp_path: Path) -> None:
    with running_server(tmp_path, "--grpc-port", "0") as (process, _, _):
        process.terminate()
        assert process.stderr is not None
        assert "gRPC" not in process.stderr.read()


def test_grpc_port_in_use_is_an_error_only_if_configured(antiphon: Command, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = antiphon("serve", "--port", "0", "--grpc-port", str(port))
        assert ran.code == 1
        assert f"cannot listen on 127.0.0.1 port {port} for gRPC" in ran.err

        async def beside() -> str | None:
            settings = SETTINGS.__class__(
                store="memory:", model="echo", models=SETTINGS.models, port=port - 1
            )
            return await started(settings)

        assert asyncio.run(beside()) is None


async def started(settings: Settings) -> str | None:
    """Where a listener is, once it was started."""
    async with open_engine(settings) as engine:
        rpc = GrpcListener()
        front = http_app(engine)
        await rpc.start(settings, "127.0.0.1", lambda: grpc_server(engine, front))
        await rpc.stop(0)
        return rpc.address


def test_missing_grpc_extra_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [
        name for name in sys.modules if name.startswith(("antiphon.api.grpc", "antiphon.protos"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("xai_sdk", "xai_sdk.proto"):
        monkeypatch.setitem(sys.modules, name, None)
    assert asyncio.run(started(SETTINGS)) is None
    said = capsys.readouterr().err
    assert said == "gRPC is off: gRPC is not installed: `pip install 'antiphon[grpc]'`\n"
    wanting = Settings(store="memory:", model="echo", models=SETTINGS.models, grpc_port=1)
    with pytest.raises(ConfigError, match="gRPC is not installed"):
        asyncio.run(started(wanting))


def test_grpc_is_imported_on_first_use() -> None:
    look = (
        "import sys, antiphon, antiphon.cli.main, antiphon.cli.server; print('grpc' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert said.stdout == "False\n"


@pytest.mark.slow
def test_a_second_signal_does_not_wait_for_running_calls(tmp_path: Path) -> None:
    with (
        upstream() as url,
        running_server(tmp_path, "--base-url", url, "--drain-seconds", "600") as (process, _, _),
    ):
        at = grpc_at(process)
        with xai_sdk.Client("any", api_host=at, use_insecure_channel=True) as client:
            stream = client.chat.create("m", messages=[user("hang")]).stream()
            next(stream)
            process.send_signal(signal.SIGINT)
            # A listener that is to stop takes nobody any more, while it still talks to some.
            with grpc.insecure_channel(at) as other:
                call: Any = other.unary_unary("/")
                wait_until(
                    lambda: rpc_failure(lambda: call(b"")).code is grpc.StatusCode.UNAVAILABLE
                )
            process.send_signal(signal.SIGINT)
            # Its turn is interrupted now, and not when its time is up.
            assert rpc_failure(lambda: list(stream)).code is grpc.StatusCode.INTERNAL
            assert process.wait(TIMEOUT) == 0


def test_an_upstream_of_one_model_is_served_by_its_name(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    with (
        upstream() as url,
        subprocess.Popen(
            [PROGRAM, "serve", "--base-url", url, "--port", "0", "--store", "memory:"],
            env=env,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            at = process.stdout.readline().split()[-1]
            with urllib.request.urlopen(f"{at}/v1/models") as answer:
                assert json.load(answer)["data"][0]["id"] == "far"
        finally:
            process.kill()


def test_the_prompt_of_fun_mode_can_be_set(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('fun_prompt = "Ha"')
    at = {"ANTIPHON_CONFIG": str(tmp_path / "c.toml")}
    assert load_settings({}, at, tmp_path).fun_prompt == "Ha"
    assert load_settings({}, {}, tmp_path).fun_prompt == FUN_PROMPT


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """A certificate for this machine that vouches for itself."""
    return self_signed_certificate(tmp_path_factory.mktemp("tls"), "localhost")


TALK = """
import sys, xai_sdk
from xai_sdk.chat import user
with xai_sdk.Client("any", api_host=sys.argv[1]) as client:
    print(client.chat.create("echo", messages=[user("Hi")]).sample().content)
"""


def test_http_and_grpc_use_tls(tmp_path: Path, certificate: Tls) -> None:
    more = ("--tls-cert", str(certificate.cert), "--tls-key", str(certificate.key))
    with running_server(tmp_path, *more, scheme="https") as (process, _, port):
        trusting = ssl.create_default_context(cafile=str(certificate.cert))
        url = f"https://127.0.0.1:{port}/v1/models"
        with urllib.request.urlopen(url, context=trusting) as answer:
            assert answer.status == 200
        # What the SDK trusts is told to its process.
        said = subprocess.run(
            [sys.executable, "-c", TALK, grpc_at(process)],
            env={**os.environ, "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(certificate.cert)},
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )
        assert said.stdout.startswith("You said: Hi"), said.stderr


def test_incomplete_or_invalid_certificate_is_refused(
    antiphon: Command, tmp_path: Path, certificate: Tls
) -> None:
    cert, key = str(certificate.cert), str(certificate.key)
    assert "--tls-cert: needs tls_key as well" in antiphon("serve", "--tls-cert", cert).err
    assert "--tls-key: needs tls_cert as well" in antiphon("serve", "--tls-key", key).err
    ran = antiphon("serve", "--tls-cert", cert, "--tls-key", "nowhere.pem")
    assert "--tls-key: there is no file" in ran.err
    ran = antiphon("serve", "--tls-cert", key, "--tls-key", key)
    assert (ran.code, "cannot be used" in ran.err) == (1, True)
    with pytest.raises(ConfigError, match="cannot be used"):
        check_tls(Tls(certificate.cert, tmp_path / "c.toml"))


def test_closing_an_unstarted_listener_is_allowed() -> None:
    with closing(asyncio.new_event_loop()) as loop:
        loop.run_until_complete(GrpcListener().stop(0))
