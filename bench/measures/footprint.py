"""(e) Memory, start-up time and bytes on disk."""

from __future__ import annotations

from pathlib import Path

from bench.history import MARK, user_text
from bench.lab import BenchEnvironment, store_file
from bench.replies import response
from bench.report import Part, Row, Table, Target, sample
from bench.store_files import bytes_on_disk, index_bytes
from bench.workloads import Conversations, Repeated

_CONNECTIONS = 32
_TURNS = 40
_GOAL_MB = 90.0
_GOAL_SECONDS = 1.0
#: What a turn may cost on disk: this many times its messages' text, and so many bytes.
_GOAL_FACTOR, _GOAL_BYTES = 1.5, 500


def measure(lab: BenchEnvironment) -> Part:
    starts: list[float] = []
    idle: list[float] = []
    for _ in range(lab.rounds):
        with lab.server() as server:
            starts.append(server.start_seconds)
            idle.append(server.memory_mb("VmRSS"))
    with lab.server() as server:
        talk = Conversations(_TURNS)
        lab.drive(server, talk.scripts(_CONNECTIONS))
        text = _text_bytes(talk)
        talk.check()
        store = Path(server.folder, "store")
        running = bytes_on_disk(store)
        peak_turns = server.memory_mb()
        server.stop()
        stopped = bytes_on_disk(store)
        index = index_bytes(store_file(server.folder))
    peak_streams = _peak_of_streams(lab)
    turns = _CONNECTIONS * _TURNS
    peak = sample([max(peak_turns, peak_streams)])
    rows: list[Row] = [
        {"figure": "start until the first 200, s", "value": sample(starts)},
        {"figure": "bare proxy's start, s", "value": lab.proxy.start_seconds},
        {"figure": "memory when started, MB", "value": sample(idle)},
        {"figure": f"peak after {turns} stored turns, MB", "value": peak_turns},
        {"figure": f"peak after {_CONNECTIONS} streams at once, MB", "value": peak_streams},
        {"figure": "bare proxy's peak so far, MB", "value": lab.proxy.memory_mb()},
        {"figure": "text of a turn's messages, bytes", "value": text / turns},
        {"figure": "on disk per turn while running, bytes", "value": running / turns},
        {"figure": "on disk per turn after a stop, bytes", "value": stopped / turns},
        {"figure": "of it the search index, bytes", "value": index / turns},
    ]
    note = "Bytes on disk are all files of the store's folder, an empty database's pages included."
    allowed = _GOAL_FACTOR * text / turns + _GOAL_BYTES
    targets = [
        Target("peak memory, MB", peak, most=_GOAL_MB),
        Target("start until the first 200, s", sample(starts), most=_GOAL_SECONDS),
        Target(
            "bytes on disk per turn, without the search index",
            sample([(stopped - index) / turns]),
            most=allowed,
        ),
    ]
    return Part("e", "Footprint", [Table("One server", rows, note)], targets)


def _text_bytes(talk: Conversations) -> int:
    """UTF-8 bytes of what was said, both sides."""
    return sum(
        len(user_text(number, turn).encode()) + len(response(body).text.encode())
        for number, bodies in talk.replies.items()
        for turn, body in enumerate(bodies)
    )


def _peak_of_streams(lab: BenchEnvironment) -> float:
    with lab.server() as server:
        work = Repeated("responses", store=True, chunks=200)
        lab.drive(server, work.scripts(_CONNECTIONS), seconds=lab.seconds, mark=MARK)
        work.check()
        return server.memory_mb()
