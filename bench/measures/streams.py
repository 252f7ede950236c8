"""(b) Streams of 200 chunks."""

from __future__ import annotations

from bench.history import MARK
from bench.lab import BenchEnvironment, Contender
from bench.processes import Server
from bench.report import Part, Row, Table, Target, sample
from bench.workloads import Repeated

CHUNKS = 200
#: By how many are read at a time: the proxy's CPU time over the contender's, at least.
_GOALS = {1: 0.8, 8: 0.8, 32: 0.85}
#: By how many milliseconds a stored stream's first chunk may come later than the proxy's.
_MAX_FIRST_CHUNK_DELAY_MS = 0.25
# What a quick model sends: at this pace no two chunks arrive in one read.
PACE_MS = 5


def measure(lab: BenchEnvironment) -> Part:
    tables: list[Table] = []
    targets: list[Target] = []
    with lab.server() as server:
        for connections, goal in _GOALS.items():
            contenders = _contenders(lab, server, 0)
            lab.compare(contenders, connections, units=CHUNKS, mark=MARK)
            proxy = contenders[1]
            rows = [_row(contender, proxy) for contender in contenders]
            tables.append(Table(f"{connections} at a time, as fast as they come", rows))
            targets += [
                Target(
                    f"{one.name}, {connections} at a time, x proxy by CPU",
                    one.cpu_ratio(proxy),
                    goal,
                )
                for one in contenders[2:]
            ]
        for connections in (1, max(_GOALS)):
            contenders = _contenders(lab, server, PACE_MS)
            lab.compare(contenders, connections, units=CHUNKS, mark=MARK)
            rows = [_row(contender, contenders[1]) for contender in contenders]
            title = f"{connections} at a time, a chunk every {PACE_MS} ms"
            note = "Here the CPU time per chunk counts: the rate is given."
            tables.append(Table(title, rows, note))
            if connections == 1:
                targets.append(_first_chunk_target(contenders[-1], contenders[1]))
    return Part("b", f"Streams of {CHUNKS} chunks", tables, targets)


def _first_chunk_target(one: Contender, proxy: Contender) -> Target:
    pairs = zip(one.first_chunk_seconds, proxy.first_chunk_seconds, strict=True)
    delays = sample([(mine - theirs) * 1e3 for mine, theirs in pairs])
    name = f"{one.name}, 1 at a time, first chunk beyond the proxy's, ms"
    return Target(name, delays, most=_MAX_FIRST_CHUNK_DELAY_MS)


def _contenders(lab: BenchEnvironment, server: Server, pause_ms: int) -> list[Contender]:
    def work(dialect: str, store: bool = False) -> Repeated:
        return Repeated(dialect, store=store, chunks=CHUNKS, pause_ms=pause_ms)  # type: ignore[arg-type]

    return [
        Contender("fake, called directly", lab.fake, work("completions")),
        Contender("bare proxy", lab.proxy, work("completions")),
        Contender("chat completions", server, work("completions")),
        Contender("responses, not stored", server, work("responses")),
        Contender("responses, stored", server, work("responses", store=True)),
    ]


def _row(one: Contender, proxy: Contender) -> Row:
    return one.row("chunk") | {
        "x proxy": one.ratio(proxy),
        "x proxy by CPU": one.cpu_ratio(proxy),
        "first chunk ms": sample([first * 1e3 for first in one.first_chunk_seconds]),
        "events per stream": sample(one.events),
    }
