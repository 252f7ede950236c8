"""The ``antiphon`` command: options that all commands share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import antiphon as package
from support.command_line import PROGRAM, Command, environment


def test_version(bare_antiphon: Command) -> None:
    assert bare_antiphon("--version").out == f"antiphon {package.__version__}\n"


def test_help_lists_flags_and_variables(bare_antiphon: Command) -> None:
    text = bare_antiphon("serve", "--help").out
    for name in ("host", "port", "grpc-port", "store", "base-url", "model", "api-key-env"):
        assert f"--{name} " in text
        assert f"ANTIPHON_{name.upper().replace('-', '_')}" in text


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="the system has no full device")
def test_what_the_system_refuses_is_one_line(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [PROGRAM, "model", "list", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(tmp_path),
            cwd=tmp_path,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "error: No space left on device\n")


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        (
            "main",
            "aiohttp uvicorn prompt_toolkit xllamacpp starlette rich.console huggingface_hub",
        ),
        # It listens before it can call an upstream.
        ("server", "aiohttp grpc pydantic psycopg mcp pygments"),
        # What lists, searches and chats is no server.
        ("conversations", "rich.console starlette uvicorn prometheus_client"),
        ("chat_engine, antiphon.bootstrap", "starlette uvicorn prometheus_client markdown_it"),
    ],
)
def test_a_start_loads_nothing_that_can_wait(module: str, absent: str) -> None:
    code = (
        f"import sys; import antiphon.cli.{module};"
        f"print([m for m in '{absent}'.split() if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
