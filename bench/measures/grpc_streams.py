"""(g) Streams of 200 chunks over gRPC, beside the same over HTTP."""

from __future__ import annotations

from bench.history import MARK
from bench.lab import Contender, Lab
from bench.load_grpc import over_grpc
from bench.measures.streams import CHUNKS, PACE_MS
from bench.processes import Server
from bench.replies import Dialect
from bench.report import Part, Row, Table, sample
from bench.workloads import Repeated
from bench.workloads_grpc import RepeatedStream

_CONNECTIONS = (1, 32)
_NOTE = (
    "Each gRPC row is compared with the HTTP row above it. gRPC's Python client is part of the"
    " front here: where load + fake is near 1.0, it is what the rate shows, and the CPU times tell."
)
_PACED = (
    "The rate is given, and each chunk comes alone, as a model sends them: the CPU time per chunk"
    " is what a message costs."
)


def measure(lab: Lab) -> Part:
    tables: list[Table] = []
    with lab.server(grpc=True) as server:
        tables += [_table(lab, server, connections, 0) for connections in _CONNECTIONS]
        tables.append(_table(lab, server, _CONNECTIONS[-1], PACE_MS))
    return Part("g", f"Streams of {CHUNKS} chunks over gRPC", tables, [])


def _table(lab: Lab, server: Server, connections: int, pause_ms: int) -> Table:
    contenders = _contenders(server, pause_ms)
    lab.contest(contenders, connections, units=CHUNKS, mark=MARK)
    rows = [_row(one, contenders[place & ~1]) for place, one in enumerate(contenders)]
    pace = f"a chunk every {pause_ms} ms" if pause_ms else "as fast as they come"
    return Table(f"{connections} at a time, {pace}", rows, _PACED if pause_ms else _NOTE)


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
            Contender("gRPC, stored" if store else "gRPC, not stored", server, over, over_grpc)
        )
    return contenders


def _row(one: Contender, http: Contender) -> Row:
    row = one.row("chunk")
    if one is not http:
        row |= {"x HTTP": one.ratio(http), "x HTTP by CPU": one.cpu_ratio(http)}
    return row | {
        "first chunk ms": sample([first * 1e3 for first in one.firsts]),
        "events per stream": sample(one.events),
    }
