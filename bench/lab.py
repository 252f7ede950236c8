"""The laboratory: the processes, the cores they are on, and fair contests between them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import shutil
import statistics
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import uvloop

from bench.load import LoadStats, Script, drive
from bench.processes import (
    Server,
    antiphon_command,
    busy_seconds,
    cores,
    embedded_command,
    free_port,
    pinned,
    start_fake,
    start_proxy,
)
from bench.report import Row, Sample, sample

T = TypeVar("T")

#: Makes the command line of the server under test of a port, a store and the upstream.
Command = Callable[[int, Path, Server], list[str]]
#: Acts out scripts against a server: at once, for so many seconds, noting a stream's mark.
Driver = Callable[
    [Server, Sequence[Script], float | None, bytes | None], Coroutine[None, None, LoadStats]
]


class Workload(Protocol):
    """What a contender is asked, and the check of its answers afterwards."""

    def scripts(self, connections: int) -> list[Script]: ...

    def check(self) -> float:
        """Raise ``BenchError`` unless all replies were right; then forget them.

        Returns the events that carried a stream's text, per stream (1 where none did).
        """
        ...


async def drive_http(
    server: Server, scripts: Sequence[Script], seconds: float | None, mark: bytes | None
) -> LoadStats:
    """See ``bench.load.drive``."""
    return await drive(server.port, scripts, seconds=seconds, mark=mark)


class Contender:
    """A server with the work it is given, by which way, and what each round showed.

    Times are in seconds; a unit is a request, or a chunk where chunks are counted.
    """

    def __init__(self, name: str, server: Server, work: Workload, by: Driver = drive_http) -> None:
        self.name = name
        self.server = server
        self.work = work
        self.driver = by
        self.rates: list[float] = []
        self.cpu_per_unit: list[float] = []
        self.busy: list[float] = []
        self.front_busy: list[float] = []
        self.other_processes: list[float] = []
        self.latencies: list[float] = []
        self.p99_latencies: list[float] = []
        self.first_chunk_seconds: list[float] = []
        self.events: list[float] = []

    def ratio(self, to: Contender) -> Sample:
        """Units per second as a multiple of another's, round by round."""
        return sample([mine / theirs for mine, theirs in zip(self.rates, to.rates, strict=True)])

    def cpu_ratio(self, to: Contender) -> Sample:
        """The same if each had its core to itself: by CPU time per unit."""
        pairs = zip(self.cpu_per_unit, to.cpu_per_unit, strict=True)
        return sample([theirs / mine for mine, theirs in pairs])

    def row(self, unit: str) -> Row:
        """The columns that every contest shows."""
        return {
            "contender": self.name,
            f"{unit}s/s": sample(self.rates),
            f"server CPU µs/{unit}": sample([cpu * 1e6 for cpu in self.cpu_per_unit]),
            "server's core": sample(self.busy),
            "load + fake": sample(self.front_busy),
            "strangers": sample(self.other_processes),
        }


def store_file(home: Path) -> Path:
    """The database of the server in a folder."""
    return home / "store" / "antiphon.db"


class BenchEnvironment:
    """Holds the fake upstream and the proxy, and starts the servers under test."""

    def __init__(
        self, folder: Path, *, quick: bool = False, command: Command = antiphon_command
    ) -> None:
        self.folder = folder
        self.quick = quick
        self.rounds = 3 if quick else 5
        #: Length of one measured window, and of what goes before it.
        self.seconds = 0.4 if quick else 1.5
        self.warm_up = 0.15
        divided = cores()
        self.server_core = divided[0] if divided else None
        self.front_cores = divided[1] if divided else None
        self.all_cores = divided[0] | divided[1] if divided else None
        #: Cores that processes not ours used in each measured window.
        self.other_processes: list[float] = []
        self._command = command
        self._count = 0
        self._closing = contextlib.ExitStack()
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._closing.enter_context(pinned(self.front_cores))

    def close(self) -> None:
        """Stop all processes and return to the cores we came from."""
        self._closing.close()
        self._runner.close()

    @functools.cached_property
    def fake(self) -> Server:
        fake = start_fake(self.folder, self.front_cores)
        self._closing.callback(fake.stop)
        return fake

    @functools.cached_property
    def proxy(self) -> Server:
        proxy = start_proxy(self.folder, self.fake, self.server_core)
        self._closing.callback(proxy.stop)
        return proxy

    @contextlib.contextmanager
    def server(self, *, grpc: bool = False) -> Iterator[Server]:
        """The server under test on an empty store, before the fake upstream."""
        with self.home() as home, self.server_in(home, grpc=grpc) as server:
            yield server

    @contextlib.contextmanager
    def server_in(self, home: Path, *, grpc: bool = False) -> Iterator[Server]:
        """The server under test on the store in this folder."""
        port = free_port()
        command = self._command(port, store_file(home), self.fake)
        grpc_port = free_port() if grpc else 0
        if grpc:
            command += ["--grpc-port", str(grpc_port)]
        server = Server("antiphon", command, port, log=home / "log", on=self.server_core)
        server.grpc_port = grpc_port
        try:
            yield server
        finally:
            server.stop()

    @contextlib.contextmanager
    def embedded(self, config: str) -> Iterator[Server]:
        """antiphon on any core, with a TOML configuration and an empty store."""
        with self.home() as home:
            port = free_port()
            file = home / "antiphon.toml"
            file.write_text(config)
            command = embedded_command(port, store_file(home), file)
            server = Server("antiphon", command, port, log=home / "log", on=self.all_cores)
            try:
                yield server
            finally:
                server.stop()

    @contextlib.contextmanager
    def home(self) -> Iterator[Path]:
        """A folder for a server and its store, deleted afterwards."""
        self._count += 1
        home = self.folder / f"server-{self._count}"
        (home / "store").mkdir(parents=True)
        yield home
        shutil.rmtree(home)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """The result of a load of another kind, run as ``drive`` runs scripts."""
        # A collection in the load generator would be counted as the server's delay.
        gc.collect()
        gc.disable()
        try:
            return self._runner.run(main)
        finally:
            gc.enable()

    def drive(
        self,
        server: Server,
        scripts: Sequence[Script],
        *,
        seconds: float | None = None,
        mark: bytes | None = None,
        by: Driver = drive_http,
    ) -> LoadStats:
        """Run scripts against a server; see ``bench.load.drive``."""
        return self.run(by(server, scripts, seconds, mark))

    def compare(
        self,
        contenders: Sequence[Contender],
        connections: int,
        *,
        units: int = 1,
        mark: bytes | None = None,
    ) -> None:
        """Measure all in turn, round after round, so that a noisy minute hits everyone.

        ``units`` are the chunks of a request, 1 where requests are counted.
        """
        for _ in range(self.rounds):
            for contender in contenders:
                self._window(contender, connections, units, mark)

    def _window(self, one: Contender, connections: int, units: int, mark: bytes | None) -> None:
        work = one.work
        self.drive(one.server, work.scripts(connections), seconds=self.warm_up, by=one.driver)
        work.check()
        before = self._cpu_seconds(one.server)
        tally = self.drive(
            one.server, work.scripts(connections), seconds=self.seconds, mark=mark, by=one.driver
        )
        after = self._cpu_seconds(one.server)
        server, front, everyone = (now - then for now, then in zip(after, before, strict=True))
        ours = front if one.server is self.fake else front + server
        done = len(tally.latencies) * units
        ordered = sorted(tally.latencies)
        one.rates.append(done / tally.seconds)
        one.cpu_per_unit.append(server / done)
        one.busy.append(server / tally.seconds)
        one.front_busy.append(front / tally.seconds)
        one.other_processes.append(max(0.0, everyone - ours) / tally.seconds)
        self.other_processes.append(one.other_processes[-1])
        one.latencies.append(statistics.median(ordered))
        one.p99_latencies.append(ordered[int(len(ordered) * 0.99)])
        if tally.first_chunk_seconds:
            one.first_chunk_seconds.append(statistics.median(tally.first_chunk_seconds))
        one.events.append(work.check())

    def _cpu_seconds(self, server: Server) -> tuple[float, float, float]:
        """CPU seconds so far: of the server, of load and fake, of everybody."""
        front = self.fake.cpu_seconds() + time.process_time()
        return server.cpu_seconds(), front, busy_seconds(self.all_cores)
