"""Another process with a store: started, read line by line, killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: The command of the other process: a module, so that it finds what it imports.
CHILD = (
    "env",
    f"PYTHONPATH={Path(__file__).parents[1]}",
    sys.executable,
    "-m",
    "support.store_process",
)


@contextmanager
def child(command: str, path: Path, *rest: str) -> Iterator[subprocess.Popen[str]]:
    """Another process, killed at the end if it still runs."""
    with subprocess.Popen(
        [*CHILD, command, path, *rest],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line_text = process.stdout.readline().strip()
    assert line_text, "the other process ended too soon"
    return line_text
