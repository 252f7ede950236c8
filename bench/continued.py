"""Conversations that are continued, and what their next turns cost a server."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from bench.chains import Chain, check, continue_each
from bench.lab import BenchEnvironment
from bench.processes import Server


def next_turns(
    lab: BenchEnvironment, server: Server, chains: Sequence[Chain]
) -> tuple[float, float]:
    """Continue each chain, one after another: CPU µs per turn, and the median's ms."""
    bodies: list[tuple[str, bytes]] = []
    script = continue_each(chains, bodies)
    before = server.cpu_ns()
    stats = lab.drive(server, [script])
    cpu = (server.cpu_ns() - before) / 1e3 / len(chains)
    check(bodies)
    return cpu, statistics.median(stats.latencies) * 1e3
