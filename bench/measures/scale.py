"""(scale) What a turn, a search, a deletion and an idle server cost when more turns are stored."""

from __future__ import annotations

import contextlib
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import msgspec

from bench.chains import Chain, filled_chains, grow
from bench.lab import BenchEnvironment, store_file
from bench.load import BenchError, Script, get
from bench.processes import Server
from bench.prose import prose_text, rare_word, shared_word
from bench.report import Part, Row, Table, Target, sample
from bench.snapshots import COLD, FILL, Snapshots
from bench.store_files import index_bytes

_TURNS = 20
_AT_ONCE = 32
#: Turns of a fill that are measured.
_WINDOW = 3 * _AT_ONCE * _TURNS
_SEARCHES = 20
#: More turns than this are filled in without a server.
_MOST_BY_HTTP = 100_000

_MS = 1e3
#: A server that uses less of a core has nothing left to do in the background.
_RESTING = 0.02
#: A word that no turn has.
_ABSENT = "absentword"
#: How much of a file is read at once.
_PIECE = 8 << 20


class _Hit(msgspec.Struct):
    response_id: str


class _Hits(msgspec.Struct):
    data: list[_Hit]
    unsearched_turns: int = 0


_decode_hits = msgspec.json.Decoder(_Hits).decode


def measure(lab: BenchEnvironment) -> Part:
    """10^3 to 10^5 turns, all by HTTP."""
    sizes = (1_000, 4_000) if lab.quick else (1_000, 10_000, 100_000)
    return _measure(lab, "scale", sizes)


def measure_million(lab: BenchEnvironment) -> Part:
    """10^3 turns beside 10^6, most of which are stored without a server."""
    return _measure(lab, "million", (1_000, 1_000_000))


def _measure(lab: BenchEnvironment, letter: str, sizes: Sequence[int]) -> Part:
    with lab.home() as home, lab.home() as copies:
        snapshots = Snapshots(lab, copies)
        store = _GrowingStore(lab, home, snapshots)
        columns = {size: store.measure_at(size) for size in sizes}
        snapshots.measure()
    least, most = sizes[0], sizes[-1]
    rounds: list[Row] = []
    for figure in snapshots.figures(least):
        row: Row = {"figure": figure}
        row |= {f"{size:,} turns": snapshots.figures(size)[figure] for size in sizes}
        row |= {f"{size:,} / {least:,}": snapshots.ratio(figure, size) for size in sizes[1:]}
        rounds.append(row)
    rows: list[Row] = []
    for figure, smallest in columns[least].items():
        row = {"figure": figure}
        row |= {f"{size:,} turns": column[figure] for size, column in columns.items()}
        row |= {
            f"{size:,} / {least:,}": columns[size][figure] / smallest if smallest else ""
            for size in sizes[1:]
        }
        rows.append(row)
    targets = [
        Target(f"{figure}: {most:,} / {least:,} turns", snapshots.ratio(figure, most), most=1.1)
        for figure in (FILL, COLD)
    ]
    targets += [
        Target(f"{figure}, {most:,} turns", sample([columns[most][figure]]), most=goal)
        for figure, goal in _GOALS.items()
    ]
    return Part(
        letter,
        "Growth",
        [
            Table("A turn, by turns stored", rounds, _ROUNDS_NOTE),
            Table("By turns stored", rows, _NOTE),
        ],
        targets,
    )


_ROUNDS_NOTE = (
    "Copies of the store at each size take turns within a round. Cold: the next turn of 100 "
    "conversations, one after another, after a start of the server; warm: the turn after that one; "
    f"fill: new conversations of {_TURNS} turns, {_AT_ONCE} at a time. Each reply proves its "
    "history."
)
_NOTE = (
    f"One store grows. Conversations of {_TURNS} turns, {_AT_ONCE} at a time; turns beyond "
    f"{_MOST_BY_HTTP:,} are stored by the same turn service in a process of its own, without "
    f"HTTP and upstream (`bench/fill_store.py`). Its fill figures are of the last {_WINDOW:,} "
    f"turns, by HTTP, with what is indexed and merged meanwhile of the turns before them."
)

_FILL = "last turns, server CPU µs/turn"
_ALL = "turns by HTTP since the size before, server CPU µs/turn"
_WRITTEN = "last turns, bytes written/turn"
_FIRST = "first search after the fill, ms"
_RARE = "a rare word, server CPU ms"
_TWO = "two words, server CPU ms"
_IDLE = "idle, cores"
_DELETED = "DELETE, server CPU behind it, s"
#: What the largest size has to reach.
_GOALS = {
    _WRITTEN: 40_000.0,
    _FIRST: 1_000.0,
    _RARE: 5.0,
    _TWO: 5.0,
    _IDLE: 0.01,
    _DELETED: 0.1,
}


class _GrowingStore:
    """A store that grows from size to size, and what it shows at each."""

    def __init__(self, lab: BenchEnvironment, home: Path, snapshots: Snapshots) -> None:
        self._lab = lab
        self._home = home
        self._snapshots = snapshots
        self._chains: list[Chain] = []
        #: Chains there ever were: one that was deleted leaves its number.
        self._numbered = 0
        self._chance = random.Random(1)

    def measure_at(self, size: int) -> dict[str, float]:
        """All figures at so many turns."""
        figures: dict[str, float] = {}
        # As many conversations as run at once, or three times as many.
        window = _WINDOW if size > 2 * _WINDOW else _WINDOW // 3
        if size > _MOST_BY_HTTP:
            self._fill_without_server(size - window)
        with self._lab.server_in(self._home) as server:
            begun = server.cpu_ns()
            others = self._fill(server, size - window)
            cpu, written = server.cpu_ns(), server.written_bytes()
            turns = self._fill(server, size)
            figures[_FILL] = (server.cpu_ns() - cpu) / 1e3 / turns
            figures[_ALL] = (server.cpu_ns() - begun) / 1e3 / (others + turns)
            figures[_WRITTEN] = (server.written_bytes() - written) / turns
            figures |= self._search(server)
            figures["memory, MB"] = server.memory_mb("VmRSS")
            idle = 2.0 if self._lab.quick else 12.0
            figures[_IDLE] = self._idle_cores(server, idle)
            figures |= self._delete(server, figures[_IDLE])
        self._snapshots.keep(size, self._home, self._chains)
        return figures | _bytes_in(store_file(self._home), self._turns())

    def _turns(self) -> int:
        return sum(chain.turns for chain in self._chains)

    def _fill(self, server: Server, size: int) -> int:
        """Have the store grow to so many turns; how many were added."""
        before = self._turns()
        count = max(0, size - before) // _TURNS
        added = [Chain(self._numbered + number) for number in range(count)]
        self._numbered += count
        left = iter(added)
        self._chains += added
        # Of a run of hours each piece would be void alone.
        while piece := list(_take(left, 500)):
            chains = iter(piece)
            self._lab.drive(
                server, [grow(chains, _TURNS) for _ in range(min(_AT_ONCE, len(piece)))]
            )
        return self._turns() - before

    def _fill_without_server(self, size: int) -> None:
        count = max(0, size - self._turns()) // _TURNS
        path = str(store_file(self._home))
        self._chains += filled_chains(path, self._numbered, count, _TURNS)
        self._numbered += count
        self._chains.sort(key=lambda chain: chain.number)

    def _search(self, server: Server) -> dict[str, float]:
        """The first search, which finds what it can; then words when all are indexed."""
        figures: dict[str, float] = {}
        latency, hits = self._ask(server, rare_word(0, 1))
        figures[_FIRST] = latency * _MS
        figures["turns that it did not search"] = float(hits.unsearched_turns)
        while hits.unsearched_turns:
            time.sleep(0.2)
            _, hits = self._ask(server, _ABSENT)
        # Indexing and grouping in the background would be counted with the searches.
        while self._idle_cores(server, 1.0) > _RESTING:
            pass
        chains = self._chance.sample(self._chains, _SEARCHES)
        words = [rare_word(chain.number, chain.turns - 1) for chain in chains]
        figures |= self._time(server, _RARE, words)
        pairs = [
            f"{rare_word(chain.number, 2)} {shared_word(chain.number)}"
            for chain in self._chance.sample(self._chains, _SEARCHES)
        ]
        return figures | self._time(server, _TWO, pairs)

    def _time(self, server: Server, what: str, queries: Sequence[str]) -> dict[str, float]:
        """A search's CPU and its median duration."""
        latencies = []
        before = server.cpu_ns()
        for query in queries:
            latency, hits = self._ask(server, query)
            if len(hits.data) != 1:
                raise BenchError(f"{query!r}: {len(hits.data)} hits instead of 1")
            latencies.append(latency)
        cpu = (server.cpu_ns() - before) / 1e6 / len(queries)
        return {what: cpu, f"{what.partition(',')[0]}, ms": statistics.median(latencies) * _MS}

    def _ask(self, server: Server, query: str) -> tuple[float, _Hits]:
        bodies: list[bytes] = []

        def script() -> Script:
            bodies.append((yield get(f"/v1/conversations?query={quote(query)}")))

        stats = self._lab.drive(server, [script()])
        return stats.latencies[0], _decode_hits(bodies[0])

    def _idle_cores(self, server: Server, seconds: float) -> float:
        before = server.cpu_ns()
        time.sleep(seconds)
        return (server.cpu_ns() - before) / 1e9 / seconds

    def _delete(self, server: Server, idle: float) -> dict[str, float]:
        """Delete a response; how long its text is in the file, and the CPU that it costs."""
        chain = self._chains.pop(len(self._chains) // 2)
        text = prose_text(chain.number, chain.turns - 1).encode()
        if not _is_in_files(store_file(self._home), text):
            raise BenchError("the text of a stored turn is not in its file")

        def script() -> Script:
            path = f"/v1/responses/{chain.last_id}"
            yield f"DELETE {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()

        cpu, begun = server.cpu_ns(), time.perf_counter()
        self._lab.drive(server, [script()])
        while _is_in_files(store_file(self._home), text):
            time.sleep(0.02)
        gone = time.perf_counter() - begun
        # Turns that were indexed with it may be indexed again by the next search.
        self._ask(server, _ABSENT)
        time.sleep(max(0.0, 10.0 - gone))
        seconds = time.perf_counter() - begun
        spent = (server.cpu_ns() - cpu) / 1e9 - idle * seconds
        return {"DELETE, s until the text is gone": gone, _DELETED: spent}


def _take(chains: Iterator[Chain], count: int) -> Iterator[Chain]:
    for _, chain in zip(range(count), chains, strict=False):
        yield chain


def _is_in_files(database: Path, text: bytes) -> bool:
    """Whether the text is in the database or its write-ahead log."""
    for file in (database, database.with_name(f"{database.name}-wal")):
        # Read and not mapped: the server truncates the log.
        with contextlib.suppress(FileNotFoundError), file.open("rb") as opened:
            before = b""
            while piece := opened.read(_PIECE):
                if text in before + piece:
                    return True
                before = piece[-len(text) :]
    return False


def _bytes_in(database: Path, turns: int) -> dict[str, float]:
    """Bytes of the stopped store's file per turn: all, and those of the search index."""
    index = index_bytes(database)
    total = database.stat().st_size
    return {
        "file, bytes/turn": total / turns,
        "of it the log, bytes/turn": (total - index) / turns,
        "of it the search index, bytes/turn": index / turns,
    }
