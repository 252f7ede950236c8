"""``python -m bench profile WORKLOAD``: where the server's time goes, by py-spy.

py-spy (PyPI) looks at the process from outside and is not among the dependencies.
"""

from __future__ import annotations

import argparse
import collections
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.lab import BenchEnvironment, Workload
from bench.load import BenchError
from bench.report import Row, Table, as_grid
from bench.workloads import Conversations, Repeated

_WORKLOADS: dict[str, Workload] = {
    "completions": Repeated("completions"),
    "responses": Repeated("responses"),
    "stored": Conversations(20, endless=True),
    "stream-completions": Repeated("completions", chunks=200),
    "stream-responses": Repeated("responses", chunks=200),
    "stream-stored": Repeated("responses", store=True, chunks=200),
}
_SHOWN = 30


def main(arguments: list[str]) -> int:
    """Profile one workload; prints the functions that took most of the time."""
    parser = argparse.ArgumentParser(prog="python -m bench profile")
    parser.add_argument("workload", choices=_WORKLOADS)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0)
    asked = parser.parse_args(arguments)
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    spy = shutil.which("py-spy", path=search)
    if spy is None:
        print("py-spy is not installed: pip install py-spy", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="bench-antiphon-") as folder:
        lab = BenchEnvironment(Path(folder), quick=True)
        try:
            stacks = _record(lab, spy, asked)
        finally:
            lab.close()
    for table in _tables(stacks):
        print(f"\n{table.title}\n")
        print("\n".join(as_grid(table.rows)))
    return 0


def _record(lab: BenchEnvironment, spy: str, asked: argparse.Namespace) -> str:
    out = lab.folder / "stacks"
    command = [spy, "record", "--format", "raw", "--rate", "500", "--output", str(out)]
    command += ["--function", "--duration", str(max(1, int(asked.seconds - 0.5)))]
    work = _WORKLOADS[asked.workload]
    with lab.server() as server:
        lab.drive(server, work.scripts(asked.connections), seconds=0.5)
        watcher = subprocess.Popen(
            [*command, "--pid", str(server.pid)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        lab.drive(server, work.scripts(asked.connections), seconds=asked.seconds + 1.0)
        said = watcher.communicate(timeout=60)[0]
        work.check()
    if not out.exists():
        raise BenchError(f"py-spy recorded nothing: {said.decode(errors='replace')[-1000:]}")
    return out.read_text()


def _tables(stacks: str) -> list[Table]:
    own: collections.Counter[str] = collections.Counter()
    within: collections.Counter[str] = collections.Counter()
    total = 0
    for line in stacks.splitlines():
        frames, _, count = line.rpartition(" ")
        names = frames.split(";")
        total += int(count)
        own[names[-1]] += int(count)
        for name in set(names):
            within[name] += int(count)
    return [
        Table("Share of samples in the function itself", _rows(own, total)),
        Table("Share of samples in the function and what it calls", _rows(within, total)),
    ]


def _rows(counts: collections.Counter[str], total: int) -> list[Row]:
    return [
        {"%": count / total * 100, "function": name} for name, count in counts.most_common(_SHOWN)
    ]
