"""``antiphon serve``: a real server in a process of its own."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from command_line import PROGRAM, Command, commands, environment

CONFIG = """
model = "echo"
store = "sqlite:turns.db"
[models.echo]
kind = "scripted"
"""


@contextmanager
def served(home: Path, *args: str) -> Iterator[tuple[subprocess.Popen[str], str, int]]:
    """A server on a free port: its process, host and port, from the line it prints."""
    (home / "c.toml").write_text(CONFIG)
    with subprocess.Popen(
        [PROGRAM, "serve", "--config", "c.toml", "--port", "0", *args],
        env=environment(home),
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.fullmatch(r"antiphon is listening on http://(.+):(\d+)\n", line)
            assert found, line
            yield process, found[1].strip("[]"), int(found[2])
        finally:
            process.kill()


def respond(host: str, port: int, text: str) -> str:
    connection = http.client.HTTPConnection(host, port, timeout=30)
    try:
        body = json.dumps({"input": text})
        connection.request("POST", "/v1/responses", body, {"content-type": "application/json"})
        answer = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    return str(answer["output"][0]["content"][0]["text"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_and_stops_in_good_order(tmp_path: Path, number: signal.Signals) -> None:
    with served(tmp_path) as (process, host, port):
        assert respond(host, port, "hello").startswith("You said: hello")
        process.send_signal(number)
        assert process.stderr is not None
        assert "model: echo; store: sqlite:" in process.stderr.read()
        assert process.wait() == 0


def test_localhost_and_an_unused_grpc_port_are_fine(tmp_path: Path) -> None:
    with served(tmp_path, "--host", "localhost", "--grpc-port", "8081") as (process, host, port):
        assert host == "127.0.0.1"
        assert respond(host, port, "hello").startswith("You said: hello")
        process.terminate()
        assert process.stderr is not None
        assert "gRPC is not served yet" in process.stderr.read()


@pytest.fixture
def antiphon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    (tmp_path / "c.toml").write_text(CONFIG)
    with commands(tmp_path, monkeypatch, capsys) as command:
        monkeypatch.setenv("ANTIPHON_CONFIG", "c.toml")
        yield command


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", "localhost.evil"])
def test_without_keys_it_serves_this_machine_only(antiphon: Command, host: str) -> None:
    ran = antiphon("serve", "--host", host, "--port", "0")
    assert (ran.code, ran.out) == (1, "")
    assert f"cannot listen on {host}" in ran.err
    assert ran.err.count("\n") == 1


def test_a_port_in_use_is_a_line(antiphon: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = antiphon("serve", "--port", str(taken.getsockname()[1]))
    assert ran.code == 1
    assert "in use" in ran.err
    assert ran.err.count("\n") == 1


def test_a_wrong_port_is_wrong_usage(antiphon: Command) -> None:
    assert antiphon("serve", "--port", "99999").code == 2
