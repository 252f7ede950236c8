"""``python -m bench [PART ...] [--quick]``: writes bench/results.json and bench/RESULTS.md.

``python -m bench profile WORKLOAD`` is ``bench.profile``."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

from bench import profile
from bench.lab import BenchEnvironment
from bench.load import BenchError
from bench.measures import (
    conversations,
    depth,
    embedded,
    footprint,
    grpc_streams,
    nodes,
    requests,
    scale,
    scale_postgres,
    slow_streams,
    streams,
    terminal,
    upkeep,
)
from bench.report import Part, Report, as_json, as_markdown, show

_HERE = Path(__file__).parent
_PARTS = {
    "a": requests.measure,
    "b": streams.measure,
    "c": depth.measure,
    "d": conversations.measure,
    "e": footprint.measure,
    "f": embedded.measure,
    "g": grpc_streams.measure,
    "slow": slow_streams.measure,
    "scale": scale.measure,
    "upkeep": upkeep.measure,
    "nodes": nodes.measure,
    "terminal": terminal.measure,
    "pg-scale": scale_postgres.measure,
    "million": scale.measure_million,
    "pg-million": scale_postgres.measure_million,
}
#: What is measured only where it is asked for by name.
_ON_REQUEST = {"million", "pg-million"}


def main() -> int:
    """Measure the parts asked for, print and write the report. Non-zero: a run was void."""
    asked = _arguments()
    parts: list[Part] = []
    is_void = False
    with tempfile.TemporaryDirectory(prefix="bench-antiphon-") as folder:
        about = _about(Path(folder), asked.quick)
        lab = BenchEnvironment(Path(folder), quick=asked.quick)
        try:
            for letter in asked.parts or [part for part in _PARTS if part not in _ON_REQUEST]:
                print(f"measuring {letter} ...", file=sys.stderr, flush=True)
                part = _PARTS[letter](lab)
                parts.append(part)
                for target in part.targets:
                    verdict = "pass" if target.passed else "MISS"
                    print(f"  {verdict}  {target.what}: {show(target.got)}", file=sys.stderr)
        except BenchError as error:
            print(f"void: {error}", file=sys.stderr)
            is_void = True
        finally:
            lab.close()
    if lab.other_processes:
        about["other processes"] = (
            f"{statistics.median(lab.other_processes):.2f} cores while measuring; "
            "above 0.1 trust the CPU times, not the rates"
        )
    report = Report(about, parts)
    print(as_markdown(report))
    if is_void:  # What was measured until then is seen, and kept nowhere.
        return 1
    asked.out.mkdir(parents=True, exist_ok=True)
    asked.out.joinpath("results.json").write_bytes(as_json(report))
    asked.out.joinpath("RESULTS.md").write_text(as_markdown(report) + "\n")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="antiphon's benchmark")
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        help="a to g, scale, upkeep, nodes, million; default: all but million",
    )
    parser.add_argument("--quick", action="store_true", help="short windows, to try things")
    parser.add_argument(
        "--out", type=Path, default=_HERE, metavar="FOLDER", help="for results.json and RESULTS.md"
    )
    asked = parser.parse_args()
    unknown = set(asked.parts) - set(_PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    return asked


def _about(folder: Path, quick: bool) -> dict[str, str]:
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "antiphon": importlib.metadata.version("antiphon"),
        "Python": platform.python_version(),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()}"
        f" {platform.release()}",
        "one fsync of 4 KiB": f"{_fsync_ms(folder):.2f} ms",
        "windows": "quick: too short to quote" if quick else "full",
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _fsync_ms(folder: Path) -> float:
    """What the disk asks for each commit that must survive a power cut."""
    taken: list[float] = []
    with (folder / "fsync").open("wb", buffering=0) as file:
        for _ in range(50):
            file.write(bytes(4096))
            begun = time.perf_counter()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - begun)
    return statistics.median(taken) * 1e3


if __name__ == "__main__":
    sys.exit(profile.main(sys.argv[2:]) if sys.argv[1:2] == ["profile"] else main())
