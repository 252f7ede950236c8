"""Copies of a store at each of its sizes, and what the same turns cost on each, in rounds."""

from __future__ import annotations

import copy
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

from bench.chains import Chain, grow
from bench.continued import next_turns
from bench.lab import BenchEnvironment, store_file
from bench.report import Sample, sample

_TURNS = 20
_AT_ONCE = 32
_CONTINUED = 100
#: Conversations that are stored in each round, so many at a time.
_ADDED = 3 * _AT_ONCE

FILL = "fill, server CPU µs/turn"
COLD = "cold turn, server CPU µs"
WARM = "warm turn, server CPU µs"
COLD_MS = "cold turn, ms"


class Snapshots:
    """Stopped stores, smallest first. The sizes take turns within a round.

    A machine that is slow for a minute is slow for all of them, so each ratio is taken within a
    round before its median is.
    """

    def __init__(self, lab: BenchEnvironment, folder: Path) -> None:
        self._lab = lab
        self._folder = folder
        self._chains: dict[int, list[Chain]] = {}
        self._figures: dict[int, dict[str, list[float]]] = {}
        self._chance = random.Random(2)

    def keep(self, size: int, home: Path, chains: Sequence[Chain]) -> None:
        """Copy the stopped store of a folder, and what can be continued in it."""
        shutil.copytree(store_file(home).parent, store_file(self._home(size)).parent)
        some = self._chance.sample(chains, min(_CONTINUED, len(chains)))
        self._chains[size] = copy.deepcopy(some)

    def measure(self) -> None:
        """All rounds; the copies are used up then."""
        for number in range(self._lab.rounds):
            for size in self._chains:
                self._measure(size, number)
        for size in self._chains:
            shutil.rmtree(self._home(size))

    def figures(self, size: int) -> dict[str, Sample]:
        """What was measured on the store of this size."""
        return {what: sample(values) for what, values in self._figures[size].items()}

    def ratio(self, figure: str, size: int) -> Sample:
        """A figure beside that of the smallest store, round by round."""
        smallest = self._figures[next(iter(self._chains))][figure]
        pairs = zip(self._figures[size][figure], smallest, strict=True)
        return sample([large / small for large, small in pairs])

    def _home(self, size: int) -> Path:
        return self._folder / f"of-{size}"

    def _measure(self, size: int, number: int) -> None:
        """One round on a copy, so that the store keeps its size."""
        first = 1_000_000 * (number + 10)
        chains = copy.deepcopy(self._chains[size])
        with self._lab.home() as home:
            shutil.copytree(store_file(self._home(size)).parent, home / "store", dirs_exist_ok=True)
            with self._lab.server_in(home) as server:
                # The upstream's connection and what runs once.
                self._lab.drive(server, [grow(iter([Chain(first)]), 10)])
                cold, ms = next_turns(self._lab, server, chains)
                warm, _ = next_turns(self._lab, server, chains)
                before = server.cpu_ns()
                added = iter([Chain(first + one) for one in range(1, _ADDED + 1)])
                self._lab.drive(server, [grow(added, _TURNS) for _ in range(_AT_ONCE)])
                fill = (server.cpu_ns() - before) / 1e3 / (_ADDED * _TURNS)
        figures = self._figures.setdefault(size, {})
        for what, value in ((FILL, fill), (COLD, cold), (WARM, warm), (COLD_MS, ms)):
            figures.setdefault(what, []).append(value)
