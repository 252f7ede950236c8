"""(pg-scale) What the next turn of a conversation costs when PostgreSQL has more turns."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path

from bench.chains import Chain, filled_chains, grow
from bench.continued import next_turns
from bench.lab import BenchEnvironment
from bench.postgres import PostgresServer, postgres_server
from bench.processes import Server, free_port, serve_command
from bench.report import Part, Row, Table, Target, sample

_TURNS = 20
_CONTINUED = 50
_COLD = "cold turn, server CPU µs"
_COLD_DATABASE = "cold turn, PostgreSQL's CPU µs"
#: Times what it is at the smallest size.
_GOAL = 1.2
_NOTE = (
    f"A database of each size, in one server. Conversations of {_TURNS} turns, stored by the same "
    f"turn service in a process of its own, without HTTP and upstream (`bench/fill_store.py`). The "
    f"sizes take turns within a round. Cold: the next turn of the same {_CONTINUED} conversations, "
    "one after another, after a start of antiphon; warm: the turn after that one. Each reply "
    "proves its history."
)


def measure(lab: BenchEnvironment) -> Part:
    """10^3 turns beside 10^5."""
    return _measure(lab, "pg-scale", (1_000, 4_000) if lab.quick else (1_000, 100_000))


def measure_million(lab: BenchEnvironment) -> Part:
    """10^3 turns beside 10^6."""
    return _measure(lab, "pg-million", (1_000, 1_000_000))


def _measure(lab: BenchEnvironment, letter: str, sizes: tuple[int, int]) -> Part:
    small, large = sizes
    with postgres_server(lab.front_cores) as database:
        stores = [_Store(lab, database, size) for size in sizes]
        for number in range(lab.rounds):
            for store in stores:
                store.run(number)
    ratios = {
        figure: sample(
            [more / less for more, less in zip(stores[1].figures[figure], values, strict=True)]
        )
        for figure, values in stores[0].figures.items()
    }
    rows: list[Row] = [
        {
            "figure": figure,
            **{f"{store.size:,} turns": sample(store.figures[figure]) for store in stores},
            f"{large:,} / {small:,}": ratio,
        }
        for figure, ratio in ratios.items()
    ]
    targets = [
        Target(f"PostgreSQL: {figure}: {large:,} / {small:,} turns", ratios[figure], most=_GOAL)
        for figure in (_COLD, _COLD_DATABASE)
    ]
    return Part(letter, "Growth of PostgreSQL", [Table("By turns stored", rows, _NOTE)], targets)


class _Store:
    """A database of so many turns, and what the next ones cost in each round."""

    def __init__(self, lab: BenchEnvironment, database: PostgresServer, size: int) -> None:
        self.size = size
        self.figures: dict[str, list[float]] = {}
        self._lab = lab
        self._database = database
        self._uri = database.create(f"of_{size}")
        chains = filled_chains(self._uri, 0, size // _TURNS, _TURNS)
        self._chains = random.Random(size).sample(chains, _CONTINUED)

    def run(self, number: int) -> None:
        """The next two turns of the conversations."""
        with _server(self._lab, self._uri) as server:
            # The upstream's connection and what runs once.
            self._lab.drive(server, [grow(iter([Chain(-1 - number)]), 10)])
            for kind in ("cold", "warm"):
                before = self._database.cpu_ns()
                cpu, ms = next_turns(self._lab, server, self._chains)
                spent = (self._database.cpu_ns() - before) / 1e3 / len(self._chains)
                for what, figure in (
                    ("server CPU µs", cpu),
                    ("PostgreSQL's CPU µs", spent),
                    ("ms", ms),
                ):
                    self.figures.setdefault(f"{kind} turn, {what}", []).append(figure)


@contextlib.contextmanager
def _server(lab: BenchEnvironment, uri: str) -> Iterator[Server]:
    with lab.home() as home:
        port = free_port()
        command = serve_command(port, uri, lab.fake)
        server = Server("antiphon", command, port, log=Path(home, "log"), on=lab.server_core)
        try:
            yield server
        finally:
            server.stop()
