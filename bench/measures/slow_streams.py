"""(slow) A thousand streams at once, each as slow as a model with much to do."""

from __future__ import annotations

from typing import Final

from bench.history import MARK
from bench.lab import BenchEnvironment
from bench.load import BenchError, Script
from bench.processes import Server
from bench.report import Part, Row, Table, Target, sample
from bench.workloads import Repeated

_STREAMS: Final = 1_000
_CHUNKS: Final = 50
_PACE_MS: Final = 200
_GOAL_MB: Final = 120.0


def measure(lab: BenchEnvironment) -> Part:
    streams = 100 if lab.quick else _STREAMS

    def work(dialect: str, store: bool = False) -> Repeated:
        return Repeated(dialect, store=store, chunks=_CHUNKS, pause_ms=_PACE_MS)  # type: ignore[arg-type]

    rows = [_row(lab, "bare proxy", lab.proxy, work("completions"), streams)]
    for name, one in (
        ("chat completions", work("completions")),
        ("responses, not stored", work("responses")),
        ("responses, stored", work("responses", store=True)),
    ):
        with lab.server() as server:
            rows.append(_row(lab, name, server, one, streams))
    note = (
        f"{streams:,} streams begin at once, each of {_CHUNKS} chunks, one every {_PACE_MS} ms. "
        "Each row has a server of its own, so that its peak is its own; the proxy's is that so far."
    )
    peak = max(float(str(row[_PEAK])) for row in rows[1:])
    target = Target(f"{streams:,} slow streams: peak memory, MB", sample([peak]), most=_GOAL_MB)
    return Part("slow", "Slow streams", [Table(f"{streams:,} at once", rows, note)], [target])


_PEAK: Final = "peak memory, MB"


def _row(lab: BenchEnvironment, name: str, server: Server, work: Repeated, streams: int) -> Row:
    before = server.cpu_ns()
    stats = lab.drive(server, [_once(work.scripts(1)[0]) for _ in range(streams)], mark=MARK)
    cpu = (server.cpu_ns() - before) / 1e3
    if len(stats.latencies) != streams:
        raise BenchError(f"{len(stats.latencies)} of {streams} streams ended")
    work.check()
    ordered = sorted(stats.latencies)
    first = sorted(stats.first_chunk_seconds)
    return {
        "contender": name,
        "server CPU µs/chunk": cpu / streams / _CHUNKS,
        _PEAK: server.memory_mb(),
        "first chunk, median ms": first[len(first) // 2] * 1e3,
        "slowest stream, s": ordered[-1],
    }


def _once(script: Script) -> Script:
    """The first request of an endless script."""
    body = yield next(script)
    script.send(body)
