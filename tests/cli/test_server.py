"""``antiphon serve``: a real server in a separate process."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

from antiphon.cli.server import _fit_to_system
from antiphon.core.connection_limits import ConnectionLimits
from support.command_line import PROGRAM, SCRIPTED_CONFIG, Command, environment
from support.program_process import ProgramProcess
from support.serve_process import running_server


def status(port: int, key: str | None = None, host: str = "127.0.0.1") -> int:
    """How a turn is answered."""
    with closing(http.client.HTTPConnection(host, port, timeout=30)) as connection:
        headers = {"x-request-id": "mine", **({"authorization": f"Bearer {key}"} if key else {})}
        connection.request("POST", "/v1/responses", json.dumps({"input": "Hi"}), headers)
        return connection.getresponse().status


def respond(host: str, port: int, text: str) -> str:
    with closing(http.client.HTTPConnection(host, port, timeout=30)) as connection:
        body = json.dumps({"input": text})
        connection.request("POST", "/v1/responses", body, {"content-type": "application/json"})
        answer = json.loads(connection.getresponse().read())
    return str(answer["output"][0]["content"][0]["text"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_server_serves_and_shuts_down_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    with running_server(tmp_path) as (process, host, port):
        assert respond(host, port, "hello").startswith("You said: hello")
        process.send_signal(number)
        assert process.stderr is not None
        said = process.stderr.read()
        assert "model: echo; store: sqlite:" in said
        assert "no keys: this machine only" in said
        assert process.wait() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_server_under_nohup_outlives_its_terminal(tmp_path: Path, workers: str) -> None:
    (tmp_path / "c.toml").write_text(SCRIPTED_CONFIG)
    given = ["serve", "--config", "c.toml", "--port", "0", "--workers", workers]
    with subprocess.Popen(
        ["nohup", sys.executable, "-m", "antiphon", *given],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(tmp_path),
        cwd=tmp_path,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            process.send_signal(signal.SIGHUP)
            host, port = line.rpartition("/")[2].strip().split(":")
            assert respond(host, int(port), "hello").startswith("You said: hello")
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()


def test_server_starts_and_ends_without_standard_streams(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(SCRIPTED_CONFIG)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    given = ["serve", "--config", "c.toml", "--port", str(port), "--grpc-port", "0"]
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-m", "antiphon", *given]
    with subprocess.Popen(closed, env=environment(tmp_path), cwd=tmp_path) as process:
        try:
            end = time.monotonic() + 30
            while True:
                with suppress(OSError):
                    assert respond("127.0.0.1", port, "hello").startswith("You said: hello")
                    break
                assert time.monotonic() < end
                assert process.poll() is None
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()


def test_server_listens_on_localhost(tmp_path: Path) -> None:
    with running_server(tmp_path, "--host", "localhost") as (_, host, port):
        assert host == "127.0.0.1"
        assert respond(host, port, "hello").startswith("You said: hello")


@pytest.mark.parametrize("workers", [1, 2])
def test_open_shows_the_page_in_the_browser(
    antiphon: Command, tmp_path: Path, workers: int
) -> None:
    browser = tmp_path / "browser"
    browser.write_text('#!/bin/sh\necho "$1" >address && mv address opened\n')
    browser.chmod(0o700)
    (tmp_path / "c.toml").write_text(SCRIPTED_CONFIG)
    antiphon("key", "create", "--local")
    flags = ("--host", "0.0.0.0", "--port", "0", "--open", "--workers", str(workers))
    environment_with_browser = {**environment(tmp_path), "BROWSER": str(browser)}
    with ProgramProcess(
        [PROGRAM, "serve", "--config", "c.toml", *flags], environment_with_browser, tmp_path
    ) as process:
        line = process.stdout.readline()
        end = time.monotonic() + 30
        while not (tmp_path / "opened").exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        address = (tmp_path / "opened").read_text().strip()
        shown = address.removesuffix("/").replace("localhost", "0.0.0.0")
        assert line == f"antiphon is listening on {shown}\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", "localhost.evil"])
def test_server_without_keys_refuses_other_hosts(antiphon: Command, host: str) -> None:
    ran = antiphon("serve", "--host", host, "--port", "0")
    assert (ran.code, ran.out) == (1, "")
    assert f"cannot listen on {host}" in ran.err
    assert ran.err.count("\n") == 1


def test_port_in_use_is_a_one_line_error(antiphon: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = antiphon("serve", "--port", str(taken.getsockname()[1]))
    assert ran.code == 1
    assert "address already in use: name another port" in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    "flags",
    [
        ("--host", "a..b"),
        ("--host", "a..b", "--workers", "2"),
        ("--node-url", "http://a..b:9000", "--workers", "2"),
    ],
)
def test_a_host_that_is_no_name_is_a_one_line_error(
    antiphon: Command, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    antiphon("key", "create", "--local")
    # Workers are forked from a program of its own, as a test's process has threads.
    ran = subprocess.run(
        [sys.executable, "-m", "antiphon", "serve", "--config", "c.toml", "--port", "0", *flags],
        env=environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "cannot listen on a..b port" in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_invalid_port_is_a_usage_error(antiphon: Command) -> None:
    assert antiphon("serve", "--port", "99999").code == 2


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_server_with_keys_serves_other_hosts_with_a_key(
    antiphon: Command, tmp_path: Path, host: str
) -> None:
    key = antiphon("key", "create", "--tenant", "acme").out.strip()
    with running_server(tmp_path, "--host", host) as (process, _, port):
        assert status(port) == 401
        assert status(port, key) == 200
        process.terminate()
        assert process.stderr is not None
        said = process.stderr.read()
    assert "every request needs a key" in said
    assert "in the clear" in said
    assert key not in said


def test_running_server_applies_created_and_revoked_keys(antiphon: Command, tmp_path: Path) -> None:
    with running_server(tmp_path) as (_, _, port):
        assert status(port) == 200
        made = antiphon("key", "create", "--tenant", "acme")
        key = made.out.strip()
        # Whoever brings the first key puts keys into force.
        assert status(port, key) == 200
        assert status(port) == 401
        antiphon("key", "revoke", made.err.split(" ")[0])
        assert status(port, key) == 401
        assert status(port) == 401, "the last key's end opens nothing"


def test_limits_apply_to_the_keys_tenant(antiphon: Command, tmp_path: Path) -> None:
    poor, rich = (
        antiphon("key", "create", "--tenant", name).out.strip() for name in ("poor", "rich")
    )
    limits = "[limits]\nrequests_per_minute = 1\n[tenants.rich]\nrequests_per_minute = 3\n"
    with running_server(tmp_path, more=limits) as (_, _, port):
        assert [status(port, poor) for _ in range(2)] == [200, 429]
        assert [status(port, rich) for _ in range(4)] == [200, 200, 200, 429]


def test_log_level_info_writes_an_access_log_line_for_each_request(tmp_path: Path) -> None:
    with running_server(tmp_path, "--log-level", "info") as (process, _, port):
        assert status(port) == 200
        process.terminate()
        assert process.stderr is not None
        lines = [line for line in process.stderr if "antiphon.access" in line]
    assert len(lines) == 1
    assert re.search(r" POST /v1/responses 200 [\d.]+ms - \[mine\]\n$", lines[0])


def test_invalid_log_level_is_a_one_line_error(antiphon: Command) -> None:
    ran = antiphon("serve", "--log-level", "loud")
    assert ran.code == 1
    assert "--log-level" in ran.err
    assert ran.err.count("\n") == 1


def test_connection_limit_fits_the_file_descriptor_limit() -> None:
    fitted = _fit_to_system(ConnectionLimits(max_connections=10**9))
    assert 1 <= fitted.max_connections < 10**9
    assert fitted.max_headers == ConnectionLimits().max_headers
