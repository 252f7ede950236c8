"""The ``antiphon`` command: options that all commands share."""

from __future__ import annotations

import subprocess
import sys

import pytest

import antiphon as package
from support.command_line import Command


def test_version(bare_antiphon: Command) -> None:
    assert bare_antiphon("--version").out == f"antiphon {package.__version__}\n"


def test_help_lists_flags_and_variables(bare_antiphon: Command) -> None:
    text = bare_antiphon("serve", "--help").out
    for name in ("host", "port", "grpc-port", "store", "base-url", "model", "api-key-env"):
        assert f"--{name} " in text
        assert f"ANTIPHON_{name.upper().replace('-', '_')}" in text


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        (
            "main",
            "aiohttp uvicorn prompt_toolkit xllamacpp starlette rich.console huggingface_hub",
        ),
        # It listens before it can call an upstream.
        ("server", "aiohttp grpc pydantic psycopg mcp pygments"),
    ],
)
def test_a_start_loads_nothing_that_can_wait(module: str, absent: str) -> None:
    code = (
        f"import sys; import antiphon.cli.{module};"
        f"print([m for m in '{absent}'.split() if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
