"""Program process for tests: ``antiphon`` in a process forked from one that has loaded it.

It is the program's own entry point, in a fresh process group, with its own files, folder and
environment. Only the loading of the modules, which takes a second of CPU, is done once for all.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

_TESTS = Path(__file__).parents[1]


class ProgramProcess:
    """A running ``antiphon``, as ``subprocess.Popen`` has it; ``args`` are without its name.

    ``terminal`` becomes its own. Without one it has pipes; ``stderr`` is a file in place of one.
    """

    stdin: IO[str]
    stdout: IO[str]
    stderr: IO[str] | None

    def __init__(
        self,
        args: Sequence[str],
        env: Mapping[str, str],
        cwd: Path,
        *,
        terminal: int | None = None,
        stderr: IO[bytes] | None = None,
    ) -> None:
        self.returncode: int | None = None
        self._pipes: list[IO[str]] = []
        files = self._open_pipes(stderr) if terminal is None else [terminal] * 3
        self._link = socket.socket(socket.AF_UNIX)
        self._link.connect(parent_process("antiphon"))
        request = {
            "args": [*map(str, args)],
            "env": dict(env),
            "cwd": str(cwd),
            "has_terminal": terminal is not None,
        }
        socket.send_fds(self._link, [json.dumps(request).encode()], files)
        if terminal is None:
            for file in files[: 2 if stderr else 3]:
                os.close(file)
        self._answers = self._link.makefile("r")
        self.pid = int(self._answers.readline())

    def _open_pipes(self, stderr: IO[bytes] | None) -> list[int]:
        read_in, write_in = os.pipe()
        read_out, write_out = os.pipe()
        self.stdin, self.stdout = os.fdopen(write_in, "w"), os.fdopen(read_out)
        self._pipes = [self.stdin, self.stdout]
        if stderr is not None:
            self.stderr = None
            return [read_in, write_out, stderr.fileno()]
        read_error, write_error = os.pipe()
        self.stderr = os.fdopen(read_error)
        self._pipes.append(self.stderr)
        return [read_in, write_out, write_error]

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            # Its parent has not waited for it before it said so: the id is no other's.
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; returns its exit code, or the negative number of a signal."""
        if self.returncode is None:
            self._link.settimeout(timeout)
            self.returncode = int(self._answers.readline())
        return self.returncode

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._pipes:
            file.close()
        self.wait()
        self._answers.close()
        self._link.close()


@functools.cache
def parent_process(program: str) -> str:
    """Where the process listens that has a program loaded. It ends with this one."""
    folder = tempfile.TemporaryDirectory(prefix="antiphon")
    at = f"{folder.name}/socket"
    process = subprocess.Popen(
        [sys.executable, "-m", "support.program_parent", program, at],
        cwd=_TESTS,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.read() == b"", "it listens once it has closed its output"

    def stop() -> None:
        with process:
            pass
        folder.cleanup()

    atexit.register(stop)
    return at
