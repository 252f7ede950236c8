"""(g) Streams of 200 chunks over gRPC, beside the same over HTTP."""

from __future__ import annotations

from bench.history import MARK
from bench.lab import BenchEnvironment, Contender
from bench.load_grpc import drive_grpc
from bench.measures.streams import CHUNKS, PACE_MS
from bench.processes import Server
from bench.replies import Dialect
from bench.report import Part, Row, Table, Target, sample
from bench.workloads import Repeated
from bench.workloads_grpc import RepeatedStream

_CONNECTIONS = (1, 32)
_GOAL = 0.8
_NOTE = (
    "Each gRPC row is compared with the HTTP row above it. Few messages carry many pieces each: a"
    " stream that was just written to waits some milliseconds for more."
)
_PACED = "The rate is given: the CPU time per chunk counts."


def measure(lab: BenchEnvironment) -> Part:
    tables: list[Table] = []
    targets: list[Target] = []
    with lab.server(grpc=True) as server:
        for connections in _CONNECTIONS:
            contenders = _contenders(server, 0)
            title = f"{connections} at a time, as fast as they come"
            tables.append(_table(lab, contenders, connections, title, _NOTE))
            targets += [
                Target(f"{one.name}, {connections} at a time, x HTTP", one.ratio(http), _GOAL)
                for http, one in zip(contenders[::2], contenders[1::2], strict=True)
            ]
        connections = _CONNECTIONS[-1]
        title = f"{connections} at a time, a chunk every {PACE_MS} ms"
        paced = _contenders(server, PACE_MS)
        tables.append(_table(lab, paced, connections, title, _PACED))
    return Part("g", f"Streams of {CHUNKS} chunks over gRPC", tables, targets)


def _table(
    lab: BenchEnvironment, contenders: list[Contender], connections: int, title: str, note: str
) -> Table:
    lab.compare(contenders, connections, units=CHUNKS, mark=MARK)
    rows = [_row(one, contenders[place & ~1]) for place, one in enumerate(contenders)]
    return Table(title, rows, note)


def _contenders(server: Server, pause_ms: int) -> list[Contender]:
    """Each over gRPC behind the one over HTTP that it is compared with."""
    named: list[tuple[Dialect, str, bool]] = [
        ("completions", "chat completions", False),
        ("responses", "responses, stored", True),
    ]
    contenders: list[Contender] = []
    for dialect, name, store in named:
        http = Repeated(dialect, store=store, chunks=CHUNKS, pause_ms=pause_ms)
        contenders.append(Contender(name, server, http))
        over = RepeatedStream(CHUNKS, store=store, pause_ms=pause_ms)
        contenders.append(
            Contender("gRPC, stored" if store else "gRPC, not stored", server, over, drive_grpc)
        )
    return contenders


def _row(one: Contender, http: Contender) -> Row:
    row = one.row("chunk")
    if one is not http:
        row |= {"x HTTP": one.ratio(http), "x HTTP by CPU": one.cpu_ratio(http)}
    return row | {
        "first chunk ms": sample([first * 1e3 for first in one.first_chunk_seconds]),
        "events per stream": sample(one.events),
    }
