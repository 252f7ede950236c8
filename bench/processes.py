"""Starting, pinning, watching and stopping the processes that are measured."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.load import BenchError

ROOT = Path(__file__).resolve().parent.parent
_TICKS = os.sysconf("SC_CLK_TCK")
_START_TIMEOUT = 60.0
_STOP_TIMEOUT = 30.0
# Settings of the person who runs the benchmark must not change what is measured.
PRIVATE = ("ANTIPHON_", "XAI_", "OPENAI_")


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cores() -> tuple[set[int], set[int]] | None:
    """The server's core, and the others for upstream and load. None: nothing to divide."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    mine = sorted(os.sched_getaffinity(0))
    return ({mine[0]}, set(mine[1:])) if len(mine) > 1 else None


def busy_seconds(on: set[int] | None) -> float:
    """CPU time that anybody has spent on these cores (None: on all) since the machine began."""
    wanted = {"cpu"} if on is None else {f"cpu{core}" for core in on}
    total = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name in wanted:
            user, nice, system, _idle, _wait, irq, softirq, steal = map(int, ticks[:8])
            total += user + nice + system + irq + softirq + steal
    return total / _TICKS


@contextlib.contextmanager
def pinned(to: set[int] | None) -> Iterator[None]:
    """Run on these cores for a while; what is started meanwhile stays on them."""
    if to is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, to)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _answers(port: int) -> bool:
    """Whether ``GET /v1/models`` is answered with 200."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5.0) as link:
            link.sendall(b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            return link.recv(12).endswith(b" 200")
    except OSError:
        return False


class Server:
    """One process that listens on ``port``; ready when the constructor returns."""

    def __init__(
        self, name: str, command: Sequence[str], port: int, *, log: Path, on: set[int] | None
    ) -> None:
        self.name = name
        self.port = port
        #: Where it listens for gRPC, if it does.
        self.grpc_port = 0
        self.folder = log.parent
        self._log = log
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(PRIVATE)
        }
        environment |= {
            "PYTHONPATH": str(ROOT),
            "XDG_CONFIG_HOME": str(self.folder),
            "XDG_DATA_HOME": str(self.folder),
        }
        # As for a user, modules are compiled once, and not at each start.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        begun = time.perf_counter()
        # Its own folder as working directory: no .env of the checkout reaches it.
        with log.open("ab") as out, pinned(on):
            self._process = subprocess.Popen(
                command, stdout=out, stderr=out, env=environment, cwd=self.folder
            )
        self._wait_until_ready()
        #: Seconds from the start of the process to its first 200.
        self.start_seconds = time.perf_counter() - begun

    def _wait_until_ready(self) -> None:
        limit = time.perf_counter() + _START_TIMEOUT
        while not _answers(self.port):
            if self._process.poll() is not None:
                raise BenchError(f"{self.name} ended at its start:\n{self.tail()}")
            if time.perf_counter() > limit:
                self.stop()
                raise BenchError(f"{self.name} did not answer in time:\n{self.tail()}")
            time.sleep(0.001)

    def tail(self) -> str:
        """The end of what the process printed."""
        return self._log.read_text(errors="replace")[-2000:]

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu_seconds(self) -> float:
        """CPU time of all threads so far, user and system, in steps of 10 ms."""
        stat = Path(f"/proc/{self.pid}/stat").read_text()
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def cpu_ns(self) -> int:
        """CPU time of all threads that live, in nanoseconds: for what takes little."""
        tasks = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks)

    def written_bytes(self) -> int:
        """Bytes that the process has had written to disk so far."""
        for line in Path(f"/proc/{self.pid}/io").read_text().splitlines():
            if line.startswith("write_bytes:"):
                return int(line.split()[1])
        raise BenchError(f"no write_bytes for process {self.pid}")

    def memory_mb(self, what: str = "VmHWM") -> float:
        """A line of /proc/PID/status in MB (1e6 bytes): the peak, or ``VmRSS`` for now."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(what + ":"):
                return int(line.split()[1]) * 1024 / 1e6
        raise BenchError(f"no {what} for process {self.pid}")

    def stop(self) -> None:
        """Ask the process to end, as a service manager would; safe to call twice."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise BenchError(f"{self.name} did not stop when asked:\n{self.tail()}") from None


def start_fake(folder: Path, on: set[int] | None) -> Server:
    """The fake upstream."""
    port = free_port()
    command = [sys.executable, "-m", "bench.fake_upstream", "--port", str(port)]
    return Server("fake upstream", command, port, log=folder / "fake.log", on=on)


def start_proxy(folder: Path, upstream: Server, on: set[int] | None) -> Server:
    """The bare pass-through proxy."""
    port = free_port()
    target = f"http://127.0.0.1:{upstream.port}"
    command = [sys.executable, "-m", "bench.bare_proxy", str(port), target]
    return Server("bare proxy", command, port, log=folder / "proxy.log", on=on)


def _serve(port: int, store: str) -> list[str]:
    return [
        str(Path(sys.executable).parent / "antiphon"),
        *("serve", "--host", "127.0.0.1", "--port", str(port), "--grpc-port", "0"),
        *("--store", store),
    ]


def serve_command(port: int, store: str, upstream: Server) -> list[str]:
    """A server on a store before an upstream, started as its users start it."""
    url = f"http://127.0.0.1:{upstream.port}/v1"
    return [*_serve(port, store), "--base-url", url, "--model", "fake"]


def antiphon_command(port: int, store: Path, upstream: Server) -> list[str]:
    """The server under test before an upstream, on a file."""
    return serve_command(port, f"sqlite:{store}", upstream)


def embedded_command(port: int, store: Path, config: Path) -> list[str]:
    """The server under test with what a TOML file says."""
    return [*_serve(port, f"sqlite:{store}"), "--config", str(config)]
