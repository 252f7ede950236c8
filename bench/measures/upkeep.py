"""(upkeep) How turns go on while much is erased or imported at once."""

from __future__ import annotations

import random
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from bench.lab import BenchEnvironment, store_file
from bench.large_store import large_store
from bench.load import BenchError, Script, post
from bench.processes import Server
from bench.report import Part, Row, Table, Target, sample
from bench.workloads import Conversations

_CONNECTIONS = 4
_WINDOW = 2.0
#: Seconds after which an upkeep that is not over voids the run.
_LIMIT = 1_800.0
#: The slowest turn of a hundred, beside that before the upkeep.
_GOAL_FACTOR = 5.0
#: What the server may take more than before, MB.
_GOAL_MB = 64.0
_DAY = 86_400.0


def measure(lab: BenchEnvironment) -> Part:
    """Expiry, a deletion with many descendants, and an import."""
    size = 5_000 if lab.quick else 100_000
    runs = [_expire(lab, size), _delete(lab, size // 10), _import(lab, size)]
    targets = [
        target
        for run in runs
        for target in (
            Target(f"{run.what}: p99 of a turn, times", sample([run.slower]), most=_GOAL_FACTOR),
            Target(f"{run.what}: memory more, MB", sample([run.more_memory]), most=_GOAL_MB),
        )
    ]
    note = (
        f"{_CONNECTIONS} conversations go on all the time, over HTTP; the figures before are of "
        f"the same server, or of the same store before it expired."
    )
    return Part(
        "upkeep", "Upkeep", [Table("Meanwhile", [run.row() for run in runs], note)], targets
    )


class _Traffic:
    """Turns of some conversations at a time, as long as they are asked for."""

    def __init__(self, lab: BenchEnvironment, server: Server) -> None:
        self._lab = lab
        self.server = server
        self.latencies: list[float] = []

    def run(self, *more: Script) -> None:
        """A window of turns, with other requests besides."""
        work = Conversations(10, endless=True)
        scripts = [*work.scripts(_CONNECTIONS), *more]
        self.latencies += self._lab.drive(self.server, scripts, seconds=_WINDOW).latencies

    def p99_ms(self) -> float:
        return sorted(self.latencies)[int(len(self.latencies) * 0.99)] * 1e3


class _Run(msgspec.Struct):
    """What an upkeep came to."""

    what: str
    before: _Traffic
    meanwhile: _Traffic
    seconds: float
    cpu_seconds: float
    more_memory: float

    @property
    def slower(self) -> float:
        return self.meanwhile.p99_ms() / self.before.p99_ms()

    def row(self) -> Row:
        return {
            "what": self.what,
            "s": self.seconds,
            "server CPU s": self.cpu_seconds,
            "turns meanwhile": float(len(self.meanwhile.latencies)),
            "median ms before": statistics.median(self.before.latencies) * 1e3,
            "meanwhile": statistics.median(self.meanwhile.latencies) * 1e3,
            "p99 ms before": self.before.p99_ms(),
            "p99 ms meanwhile": self.meanwhile.p99_ms(),
            "slowest, ms": max(self.meanwhile.latencies) * 1e3,
            "memory more, MB": self.more_memory,
        }


def _observe(
    what: str,
    before: _Traffic,
    meanwhile: _Traffic,
    is_over: Callable[[], bool],
    start: Script | None = None,
) -> _Run:
    """Turns while something goes on in their server; ``start`` asks for it."""
    server = meanwhile.server
    memory, cpu, began = server.memory_mb("VmRSS"), server.cpu_ns(), time.perf_counter()
    meanwhile.run(*([start] if start else ()))
    while not is_over():
        if time.perf_counter() - began > _LIMIT:
            raise BenchError(f"{what} is not over after {_LIMIT} s")
        meanwhile.run()
    seconds = time.perf_counter() - began
    spent = (server.cpu_ns() - cpu) / 1e9
    return _Run(what, before, meanwhile, seconds, spent, server.memory_mb() - memory)


def _quiet(lab: BenchEnvironment, server: Server) -> _Traffic:
    """Turns with nothing beside them."""
    traffic = _Traffic(lab, server)
    for _ in range(3):
        traffic.run()
    return traffic


def _count(home: Path, query: str) -> int:
    connection = sqlite3.connect(f"{store_file(home).as_uri()}?mode=ro", uri=True, timeout=10)
    try:
        ((count,),) = connection.execute(query).fetchall()
    finally:
        connection.close()
    return int(count)


def _expire(lab: BenchEnvironment, size: int) -> _Run:
    """Conversations of one turn, all past the 30 days that are the default."""
    with lab.server() as server:
        before = _quiet(lab, server)
    with lab.home() as home:
        with large_store(store_file(home), time.time() - 60 * _DAY) as store:
            store.add_chains(size, 1)
        old = f"SELECT count(*) FROM responses WHERE created_at < {time.time() - 30 * _DAY}"
        with lab.server_in(home) as server:
            what = f"expiry of {size:,} conversations"
            return _observe(what, before, _Traffic(lab, server), lambda: not _count(home, old))


def _delete(lab: BenchEnvironment, length: int) -> _Run:
    """A chain that has a tenth as many branches as turns, deleted by its conversation."""
    chance = random.Random(2)
    with lab.home() as home:
        with large_store(store_file(home), time.time() - _DAY) as store:
            ((first, *rest),) = store.add_chains(1, length)
            for parent in chance.sample(rest, length // 10):
                store.add_branches(parent, 1)
        living = "SELECT count(*) FROM log WHERE kind = 0 AND row_id >> 34 = 1"

        def script() -> Script:
            path = f"/v1/responses/{first}?cascade=true"
            yield f"DELETE {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()

        with lab.server_in(home) as server:
            what = f"deletion of {length:,} turns with {length // 10:,} branches"
            before, meanwhile = _quiet(lab, server), _Traffic(lab, server)
            return _observe(what, before, meanwhile, lambda: not _count(home, living), script())


def _import(lab: BenchEnvironment, size: int) -> _Run:
    """Chats of twenty turns, in the form of ChatGPT's export files."""
    request = post("/v1/import", b"[" + b",".join(_chats(size // 20)) + b"]")
    with lab.home() as home, lab.server_in(home) as server:
        # The conversations that go on meanwhile have ten turns.
        imported = "SELECT count(*) FROM log WHERE kind = 0 AND row_id >> 15 & 524287 = 19"

        def script() -> Script:
            yield request

        what = f"import of {size:,} turns"
        before, meanwhile = _quiet(lab, server), _Traffic(lab, server)
        return _observe(
            what, before, meanwhile, lambda: _count(home, imported) == size // 20, script()
        )


def _chats(count: int) -> Iterator[bytes]:
    for number in range(count):
        mapping: dict[str, object] = {"root": {"id": "root", "parent": None, "children": ["n0"]}}
        for place in range(40):
            text = f"Chat {number}, message {place}: " + "and so they talked on, as ever. " * 8
            mapping[f"n{place}"] = {
                "id": f"n{place}",
                "parent": f"n{place - 1}" if place else "root",
                "children": [f"n{place + 1}"] if place < 39 else [],
                "message": {
                    "id": f"m{number}-{place}",
                    "author": {"role": "assistant" if place % 2 else "user"},
                    "create_time": 1_700_000_000.0 + number * 100 + place,
                    "content": {"content_type": "text", "parts": [text]},
                },
            }
        chat = {
            "conversation_id": f"chat-{number}",
            "title": f"Chat {number}",
            "create_time": 1_700_000_000.0 + number * 100,
            "update_time": 1_700_000_000.0 + number * 100 + 99,
            "current_node": "n39",
            "mapping": mapping,
        }
        yield msgspec.json.encode(chat)
