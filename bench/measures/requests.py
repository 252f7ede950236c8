"""(a) Requests that are not streamed: chat completions and responses."""

from __future__ import annotations

from bench.lab import BenchEnvironment, Contender
from bench.report import Part, Row, Table, Target, sample
from bench.workloads import Conversations, Repeated

#: Length of a stored conversation before its connection begins another.
TURNS = 20
#: By how many are made at a time: the proxy's CPU time over the contender's, at least.
_GOALS = {
    1: {"chat completions": 0.75, "responses, not stored": 0.7, "responses, stored": 0.45},
    32: {"chat completions": 0.8, "responses, not stored": 0.78, "responses, stored": 0.6},
}


def measure(lab: BenchEnvironment) -> Part:
    tables: list[Table] = []
    targets: list[Target] = []
    with lab.server() as server:
        for connections, goals in _GOALS.items():
            proxy = Contender("bare proxy", lab.proxy, Repeated("completions"))
            contenders = [
                Contender("fake, called directly", lab.fake, Repeated("completions")),
                proxy,
                Contender("chat completions", server, Repeated("completions")),
                Contender("responses, not stored", server, Repeated("responses")),
                Contender("responses, stored", server, Conversations(TURNS, endless=True)),
            ]
            lab.compare(contenders, connections)
            rows = [_row(contender, proxy) for contender in contenders]
            tables.append(Table(f"{connections} at a time", rows))
            targets += [
                Target(
                    f"{one.name}, {connections} at a time, x proxy by CPU",
                    one.cpu_ratio(proxy),
                    goal,
                )
                for one in contenders
                if (goal := goals.get(one.name)) is not None
            ]
    return Part("a", "Requests", tables, targets)


def _row(one: Contender, proxy: Contender) -> Row:
    return one.row("request") | {
        "x proxy": one.ratio(proxy),
        "x proxy by CPU": one.cpu_ratio(proxy),
        "median ms": sample([latency * 1e3 for latency in one.latencies]),
        "p99 ms": sample([latency * 1e3 for latency in one.p99_latencies]),
    }
