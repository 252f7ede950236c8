"""(pg-scale) What the next turn of a conversation costs when PostgreSQL has more turns."""

from __future__ import annotations

import contextlib
import random
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.chains import Chain, filled_chains, grow
from bench.continued import next_turns
from bench.lab import BenchEnvironment
from bench.postgres import PostgresServer, postgres_server
from bench.processes import Server, free_port, serve_command
from bench.report import Part, Row, Table, Target, sample

_TURNS = 20
_CONTINUED = 100
_STARTS = 3
_COLD = "cold turn, server CPU µs"
_COLD_DATABASE = "cold turn, PostgreSQL's CPU µs"
#: Times what it is at the smallest size.
_GOAL = 1.2


def measure(lab: BenchEnvironment) -> Part:
    """10^3 turns beside 10^5."""
    return _measure(lab, "pg-scale", (1_000, 4_000) if lab.quick else (1_000, 100_000))


def measure_million(lab: BenchEnvironment) -> Part:
    """10^3 turns beside 10^6."""
    return _measure(lab, "pg-million", (1_000, 1_000_000))


def _measure(lab: BenchEnvironment, letter: str, sizes: Sequence[int]) -> Part:
    chains: list[Chain] = []
    columns: dict[int, dict[str, float]] = {}
    with postgres_server(lab.front_cores) as database:
        for size in sizes:
            count = size // _TURNS - len(chains)
            chains += filled_chains(database.uri, len(chains), count, _TURNS)
            columns[size] = _continue(lab, database, chains)
    least, most = columns[sizes[0]], columns[sizes[-1]]
    rows: list[Row] = [
        {
            "figure": figure,
            **{f"{size:,} turns": column[figure] for size, column in columns.items()},
            f"{sizes[-1]:,} / {sizes[0]:,}": most[figure] / least[figure],
        }
        for figure in least
    ]
    targets = [
        Target(
            f"PostgreSQL: {figure}: {sizes[-1]:,} / {sizes[0]:,} turns",
            sample([most[figure] / least[figure]]),
            most=_GOAL,
        )
        for figure in (_COLD, _COLD_DATABASE)
    ]
    note = (
        f"One database grows. Conversations of {_TURNS} turns, stored by the same turn service in "
        f"a process of its own, without HTTP and upstream (`bench/fill_store.py`). Cold: the next "
        f"turn of {_CONTINUED} conversations, one after another, after a start of the server, "
        f"{_STARTS} times; warm: the turn after that one. Each reply proves its history."
    )
    return Part(letter, "Growth of PostgreSQL", [Table("By turns stored", rows, note)], targets)


def _continue(
    lab: BenchEnvironment, database: PostgresServer, chains: Sequence[Chain]
) -> dict[str, float]:
    """What the next turns of some of the conversations cost."""
    count = min(_CONTINUED, len(chains) // _STARTS)
    # Each continues other ones: they stay as long as they are.
    unused = [chain for chain in chains if chain.turns == _TURNS]
    chosen = random.Random(len(chains)).sample(unused, min(len(unused), count * _STARTS))
    figures: dict[str, list[float]] = {}
    for start in range(_STARTS):
        with _server(lab, database) as server:
            # The upstream's connection and what runs once.
            lab.drive(server, [grow(iter([Chain(-1 - start)]), 10)])
            some = chosen[start * count : (start + 1) * count]
            for kind in ("cold", "warm"):
                before = database.cpu_ns()
                cpu, ms = next_turns(lab, server, some)
                spent = (database.cpu_ns() - before) / 1e3 / len(some)
                for what, figure in (
                    ("server CPU µs", cpu),
                    ("PostgreSQL's CPU µs", spent),
                    ("ms", ms),
                ):
                    figures.setdefault(f"{kind} turn, {what}", []).append(figure)
    return {name: statistics.median(values) for name, values in figures.items()}


@contextlib.contextmanager
def _server(lab: BenchEnvironment, database: PostgresServer) -> Iterator[Server]:
    with lab.home() as home:
        port = free_port()
        command = serve_command(port, database.uri, lab.fake)
        server = Server("antiphon", command, port, log=Path(home, "log"), on=lab.server_core)
        try:
            yield server
        finally:
            server.stop()
