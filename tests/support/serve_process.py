"""``antiphon serve`` in a process of its own."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.command_line import PROGRAM, environment

CONFIG = """
model = "echo"
store = "sqlite:turns.db"
[models.echo]
kind = "scripted"
"""


@contextmanager
def served(
    home: Path, *args: str, more: str = "", scheme: str = "http"
) -> Iterator[tuple[subprocess.Popen[str], str, int]]:
    """A server on a free port: its process, host and port, from the line it prints."""
    (home / "c.toml").write_text(CONFIG + more)
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
            found = re.fullmatch(rf"antiphon is listening on {scheme}://(.+):(\d+)\n", line)
            assert found, line
            yield process, found[1].strip("[]"), int(found[2])
        finally:
            process.kill()
