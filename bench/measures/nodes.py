"""(nodes) PostgreSQL beside SQLite, and several nodes on one database."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.follow import follow_turns
from bench.lab import BenchEnvironment
from bench.load import BenchError, drive
from bench.load_nodes import over
from bench.postgres import PostgresServer, postgres_server
from bench.processes import Server, free_port, serve_command
from bench.report import Part, Row, Sample, Table, Target, sample
from bench.workloads import Conversations

_TURNS = 20
_CONNECTIONS = 32
_MOST_NODES = 3
#: SQLite's CPU time per turn over PostgreSQL's, at least.
_GOAL_RATIO = 0.6
#: How much more CPU a turn may take on three nodes than on one.
_GOAL_GROWTH = 1.15
#: Streams that are followed at once, their model, and how much more CPU a chunk may take where
#: another node runs the turn.
_FOLLOWED = 16
_CHUNKS = 200
_STREAM_MODEL = f"fake-{_CHUNKS}@5"
_GOAL_RELAY = 2.0


class _Nodes:
    """Nodes of one store, and what a turn took on them round by round; times in seconds.

    ``stays``: all turns of a conversation go to one node.
    """

    def __init__(self, name: str, servers: Sequence[Server], *, stays: bool = False) -> None:
        self.name = name
        self._stays = stays
        self.servers = servers
        self.rates: list[float] = []
        self.cpu: list[float] = []
        self.database_cpu: list[float] = []

    def run(self, lab: BenchEnvironment, connections: int, database: PostgresServer) -> None:
        """One window: the turns of a conversation go to one node after the other, or stay."""
        talk = Conversations(_TURNS, endless=True)
        kind = over([server.port for server in self.servers], stays=self._stays)
        port = self.servers[0].port

        async def by(server: Server, scripts, seconds, mark):  # type: ignore[no-untyped-def]
            return await drive(port, scripts, seconds=seconds, mark=mark, kind=kind)

        before, database_before = self._cpu_seconds(), database.cpu_seconds()
        tally = lab.drive(self.servers[0], talk.scripts(connections), seconds=lab.seconds, by=by)
        turns = len(tally.latencies)
        self.cpu.append((self._cpu_seconds() - before) / turns)
        self.database_cpu.append((database.cpu_seconds() - database_before) / turns)
        self.rates.append(turns / tally.seconds)
        talk.check()

    def _cpu_seconds(self) -> float:
        return sum(server.cpu_ns() for server in self.servers) / 1e9

    def ratio(self, to: _Nodes) -> Sample:
        """The other's CPU time per turn over this one's, round by round."""
        return sample([theirs / mine for mine, theirs in zip(self.cpu, to.cpu, strict=True)])

    def row(self, **more: Sample) -> Row:
        return {
            "store": self.name,
            "turns/s": sample(self.rates),
            "server CPU µs/turn": sample([one * 1e6 for one in self.cpu]),
            "PostgreSQL's CPU µs/turn": sample([one * 1e6 for one in self.database_cpu]),
            **more,
        }


def measure(lab: BenchEnvironment) -> Part:
    """Stored turns on each store, and on one, two and three nodes."""
    tables: list[Table] = []
    targets: list[Target] = []
    with (
        postgres_server(lab.front_cores) as database,
        _nodes(lab, [database.uri] * _MOST_NODES) as servers,
        _nodes(lab, [database.create(f"of_{n}") for n in range(_MOST_NODES)]) as separate,
        lab.server() as alone,
    ):
        for connections in (1, _CONNECTIONS):
            file = _Nodes("SQLite", [alone])
            one = _Nodes("PostgreSQL", servers[:1])
            for _ in range(lab.rounds):
                file.run(lab, connections, database)
                one.run(lab, connections, database)
            ratio = one.ratio(file)
            rows = [file.row(), one.row(**{"x SQLite by CPU": ratio})]
            tables.append(Table(f"One node, {connections} at a time", rows))
            if connections == _CONNECTIONS:
                what = f"PostgreSQL, stored turns, {connections} at a time, x SQLite by CPU"
                targets.append(Target(what, ratio, least=_GOAL_RATIO))
        table, growth = _measure_counts(lab, servers, separate, database)
        tables.append(table)
        targets += growth
        table, relay = _measure_relay(lab, servers)
        tables.append(table)
        targets.append(relay)
    return Part("nodes", "PostgreSQL and nodes", tables, targets)


def _measure_counts(
    lab: BenchEnvironment,
    servers: Sequence[Server],
    separate: Sequence[Server],
    database: PostgresServer,
) -> tuple[Table, list[Target]]:
    """What a turn takes on one, two and three nodes, and on three that have less in common."""
    counted: list[tuple[_Nodes, int]] = []
    for count in range(1, _MOST_NODES + 1):
        name = f"{count} node{'s' * (count > 1)}"
        counted.append((_Nodes(f"{name}, {_CONNECTIONS} at a time each", servers[:count]), count))
    name = f"{_MOST_NODES} nodes, {_CONNECTIONS} at a time each, each conversation on one"
    staying = _Nodes(name, servers, stays=True)
    few = _Nodes(f"1 node, {_CONNECTIONS // _MOST_NODES} at a time", servers[:1])
    spread = _Nodes(f"{_MOST_NODES} nodes, {_CONNECTIONS} at a time in all", servers)
    name = f"{_MOST_NODES} with a database each, {_CONNECTIONS} at a time each"
    apart = _Nodes(name, separate, stays=True)
    for _ in range(lab.rounds):
        for nodes, count in (*counted, (staying, _MOST_NODES), (apart, _MOST_NODES)):
            nodes.run(lab, _CONNECTIONS * count, database)
        few.run(lab, _CONNECTIONS // _MOST_NODES, database)
        spread.run(lab, _CONNECTIONS, database)
    one, most = counted[0][0], counted[-1][0]
    all_kinds = (*[nodes for nodes, _ in counted], staying, apart, few, spread)
    rows = [nodes.row() for nodes in all_kinds]
    note = (
        "Each turn of a conversation goes to the next node, if nothing else is said; where each "
        "has a database of its own, to one. All nodes share one core, and take its caches from "
        "each other, which is what nodes with a database each have more than one node. What nodes "
        "have more that share conversations is the reading of what the others have said. The fewer "
        "turns a node has at once, the fewer share a commit: so on one node, too."
    )
    targets = [
        Target(f"CPU per turn on {_MOST_NODES} nodes, times that on one{what}", to, most=goal)
        for what, to, goal in (
            (f", {_CONNECTIONS} at a time each", one.ratio(most), _GOAL_GROWTH),
            (f", {_CONNECTIONS} at a time in all", one.ratio(spread), _GOAL_GROWTH),
        )
    ]
    what = f"CPU per turn on {_MOST_NODES} nodes, times that on as many with a database each"
    targets.append(Target(what, apart.ratio(most), most=_GOAL_GROWTH))
    return Table("Several nodes", rows, note), targets


def _measure_relay(lab: BenchEnvironment, servers: Sequence[Server]) -> tuple[Table, Target]:
    """What a chunk takes that is read on the node that runs the turn, and on another one."""
    cpu: dict[str, list[float]] = {"the node that runs it": [], "another node": []}
    first = servers[0]
    for _ in range(lab.rounds):
        for (_, seconds), followed in zip(cpu.items(), servers[:2], strict=True):
            before = sum(server.cpu_ns() for server in servers[:2])
            chunks = lab.run(follow_turns(first.port, followed.port, _FOLLOWED, _STREAM_MODEL))
            if chunks != _FOLLOWED * _CHUNKS:
                raise BenchError(f"{chunks} chunks of {_FOLLOWED} streams of {_CHUNKS}")
            spent = sum(server.cpu_ns() for server in servers[:2]) - before
            seconds.append(spent / 1e3 / chunks)
    rows: list[Row] = [
        {"followed on": name, "CPU of both nodes µs/chunk": sample(spent)}
        for name, spent in cpu.items()
    ]
    here, elsewhere = cpu.values()
    ratio = sample([more / less for less, more in zip(here, elsewhere, strict=True)])
    note = (
        f"{_FOLLOWED} turns in the background at once, of {_CHUNKS} chunks, one every 5 ms; each "
        "is begun on one node and followed from its beginning."
    )
    target = Target("a chunk followed on another node, CPU, times", ratio, most=_GOAL_RELAY)
    return Table("A stream that another node runs", rows, note), target


@contextlib.contextmanager
def _nodes(lab: BenchEnvironment, uris: Sequence[str]) -> Iterator[list[Server]]:
    """Servers, each on a PostgreSQL database."""
    with contextlib.ExitStack() as stack:
        servers = []
        for uri in uris:
            home = stack.enter_context(lab.home())
            port = free_port()
            command = serve_command(port, uri, lab.fake)
            server = Server("antiphon", command, port, log=Path(home, "log"), on=lab.server_core)
            stack.callback(server.stop)
            servers.append(server)
        yield servers
