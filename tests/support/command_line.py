"""Command line for tests: runs ``antiphon`` in this process, or names the installed program."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from antiphon.cli.main import main

PROGRAM = str(Path(sys.executable).parent / "antiphon")
#: Settings for a model that echoes and a store in the current folder.
SCRIPTED_CONFIG = """
model = "echo"
store = "sqlite:turns.db"
[models.echo]
kind = "scripted"
"""


class CommandResult(msgspec.Struct, frozen=True):
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


def environment(home: Path) -> dict[str, str]:
    """Environment variables of a fresh account whose files are below ``home``."""
    return {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "XDG_DATA_HOME": str(home / "data"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_CACHE_HOME": str(home / "cache"),
    }


Command = Callable[..., CommandResult]


@contextmanager
def commands(
    home: Path, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """A function that runs ``antiphon`` with these arguments in this process."""
    for name in ("XAI_API_KEY", "OPENAI_API_KEY", "NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        patch.delenv(name, raising=False)
    for name, value in environment(home).items():
        patch.setenv(name, value)
    patch.chdir(home)

    def antiphon(*args: str, stdin: str = "") -> CommandResult:
        input_file = home / "stdin"
        input_file.write_text(stdin)
        with input_file.open() as file, pytest.MonkeyPatch.context() as inner:
            inner.setattr(sys, "argv", [PROGRAM, *args])
            inner.setattr(sys, "stdin", file)
            with pytest.raises(SystemExit) as exit_info:
                main()
        code = exit_info.value.code
        out, err = capture.readouterr()
        return CommandResult(code if isinstance(code, int) else 0 if code is None else 1, out, err)

    yield antiphon
