"""Server process for tests: ``antiphon serve`` on a free port."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.command_line import PROGRAM, SCRIPTED_CONFIG, environment
from support.program_process import ProgramProcess


@contextmanager
def running_server(
    home: Path, *args: str, more: str = "", scheme: str = "http"
) -> Iterator[tuple[ProgramProcess, str, int]]:
    """A server on a free port: its process, host and port, from the line it prints."""
    (home / "c.toml").write_text(SCRIPTED_CONFIG + more)
    given = [PROGRAM, "serve", "--config", "c.toml", "--port", "0", *args]
    with ProgramProcess(given, environment(home), home) as process:
        try:
            line = process.stdout.readline()
            match = re.fullmatch(rf"antiphon is listening on {scheme}://(.+):(\d+)\n", line)
            assert match, line
            yield process, match[1].strip("[]"), int(match[2])
        finally:
            process.kill()
