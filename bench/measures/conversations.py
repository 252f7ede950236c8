"""(d) 32 conversations of 20 turns at once, and every history exact."""

from __future__ import annotations

from bench.lab import BenchEnvironment
from bench.report import Part, Row, Table, Target, sample
from bench.workloads import Conversations

COUNT = 32
TURNS = 20
# 50 times the 29 turns/s of OGX 1.5 with SQLite on such a machine.
_GOAL = 50 * 29.0


def measure(lab: BenchEnvironment) -> Part:
    rates: list[float] = []
    cpu: list[float] = []
    walked = 0
    with lab.server() as server:
        for _ in range(lab.rounds):
            talk = Conversations(TURNS)
            before = server.cpu_seconds()
            tally = lab.drive(server, talk.scripts(COUNT))
            rates.append(COUNT * TURNS / tally.seconds)
            cpu.append((server.cpu_seconds() - before) / (COUNT * TURNS) * 1e6)
            # Two requests read a turn back: the response and its input items.
            walked += len(lab.drive(server, talk.walks(4)).latencies) // 2
            talk.check()
    rows: list[Row] = [{"turns/s": sample(rates), "server CPU µs/turn": sample(cpu)}]
    expected = COUNT * TURNS * lab.rounds
    note = (
        f"{expected} turns: each reply proved the exact history that the model was shown, and "
        f"{walked} turns were read back (reply and input) and compared."
    )
    exact = Target("share of turns read back exactly", sample([walked / expected]), least=1.0)
    fast = Target("turns/s, 32 conversations", sample(rates), least=_GOAL)
    table = Table("All at once", rows, note)
    return Part("d", f"{COUNT} conversations of {TURNS} turns", [table], [fast, exact])
