"""A PostgreSQL server for the benchmark, durable as an ordinary one, on the load's cores."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from bench.load import BenchError
from bench.processes import ROOT, pinned

_TICKS = os.sysconf("SC_CLK_TCK")
_START_SECONDS = 60.0
#: As docs/postgresql.md says: what is read often has to fit.
_BUFFERS = "shared_buffers=1GB"


class PostgresServer:
    """A PostgreSQL server that runs, as ``make postgres`` starts it but with more memory."""

    def __init__(self, uri: str, pid: int) -> None:
        self.uri = uri
        self._first = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def create(self, name: str) -> str:
        """The URI of a new database."""

        async def create() -> None:
            connection = await asyncpg.connect(self.uri)
            await connection.execute(f"CREATE DATABASE {name}")
            await connection.close()

        asyncio.run(create())
        return urlunsplit(urlsplit(self.uri)._replace(path=f"/{name}"))

    def cpu_seconds(self) -> float:
        """CPU time so far of all its processes, ended ones included."""
        ticks = 0
        for _, fields in self._processes():
            ticks += sum(map(int, fields[11:15]))
        return ticks / _TICKS

    def cpu_ns(self) -> int:
        """CPU time of all processes that live, in nanoseconds: for what takes little."""
        total = 0
        for folder, _ in self._processes():
            with contextlib.suppress(OSError):
                total += int((folder / "schedstat").read_text().split()[0])
        return total

    def _processes(self) -> Iterator[tuple[Path, list[str]]]:
        """Its processes, with the fields of each from its state on."""
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                # Its processes are children of its first, which is a child of ours.
                if int(fields[1]) == self._first or int(folder.name) == self._first:
                    yield folder, fields


@contextlib.contextmanager
def postgres_server(on: set[int] | None) -> Iterator[PostgresServer]:
    """A PostgreSQL server whose files are in a folder of its own: it may run as another user."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-postgres-") as folder,
        _started(Path(folder), on) as server,
    ):
        yield server


@contextlib.contextmanager
def _started(folder: Path, on: set[int] | None) -> Iterator[PostgresServer]:
    command = [sys.executable, "-m", "support.postgres_server", str(folder), "--set", _BUFFERS]
    log = folder / "bench.log"
    with log.open("wb") as out, pinned(on):
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env={**os.environ, "PYTHONPATH": str(ROOT / "tests")}
        )
    try:
        yield PostgresServer(_wait_for_uri(process, log), process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def _wait_for_uri(process: subprocess.Popen[bytes], log: Path) -> str:
    limit = time.perf_counter() + _START_SECONDS
    while process.poll() is None and time.perf_counter() < limit:
        written = log.read_text()
        if "'" in written:
            return written.split("'")[1]
        time.sleep(0.05)
    raise BenchError(f"PostgreSQL did not start:\n{log.read_text()}")
