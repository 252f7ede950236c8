"""What a turn costs in PostgreSQL: bytes by table, write-ahead log, transactions and CPU.

    PYTHONPATH=tests python -m bench.postgres_sizes [CHATS] [TURNS]

Fills an empty database of its own server with chats, half of them at a time, as a server would; the
factors of docs/scale.md are from here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import time
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import asyncpg

from antiphon.core.ids import new_response_id
from antiphon.core.items import Message, encode_item
from antiphon.core.turns import End, Header, Usage
from antiphon.stores.postgres.store import PostgresStore, open_postgres
from antiphon.turn.store_protocols import Head, NewTurn
from support.postgres_server import running

#: Characters of a question and of an answer, as in most chats.
_QUESTION: Final = 120
_ANSWER: Final = 900
_AT_ONCE: Final = 32
_SIZES: Final = """
SELECT relname, pg_table_size(oid), pg_indexes_size(oid) FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
ORDER BY pg_total_relation_size(oid) DESC
"""


class _Words:
    """Text of some ten thousand words, as often as words are in a language."""

    def __init__(self) -> None:
        self._random = random.Random(7)
        letters = "etaoinshrdlucmfwypvbgk"
        self._words = [
            "".join(self._random.choices(letters, k=self._random.randint(2, 10)))
            for _ in range(10_000)
        ]
        self._sums = list(accumulate(1 / rank for rank in range(1, 10_001)))

    def text(self, length: int) -> str:
        words = self._random.choices(self._words, cum_weights=self._sums, k=length // 6)
        return " ".join(words)


async def _fill_chat(store: PostgresStore, words: _Words, turns: int) -> Head:
    head: Head | None = None
    for _ in range(turns):
        question = encode_item(Message("user", words.text(_QUESTION)))
        answer = encode_item(Message("assistant", words.text(_ANSWER)))
        name, now = new_response_id(), time.time()
        new = NewTurn(name, "", now, Header("a-model"), [question], parent=head)
        await store.begin(new)
        end = End("completed", now, Usage(200, 150), tokens=150)
        await store.write(name, [answer], end)
        head = await store.head("", name)
    assert head is not None
    return head


def _fields(pid: int) -> list[str]:
    """The fields of a process in ``/proc``, from its state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _cpu(server: int) -> float:
    """Seconds of CPU that a server's processes have taken, those that ended too."""
    ticks = sum(map(int, _fields(server)[11:15]))
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and int((fields := _fields(int(entry.name)))[1]) == server:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


async def _measure(uri: str, chats: int, turns: int) -> dict[str, Any]:
    watcher = await asyncpg.connect(uri)
    server = int(_fields(await watcher.fetchval("SELECT pg_backend_pid()"))[1])
    store = await open_postgres(uri)
    words, total = _Words(), chats * turns
    lsn = await watcher.fetchval("SELECT pg_current_wal_lsn()")
    commits = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
    before = await watcher.fetchval(commits)
    cpu, own, began = _cpu(server), time.process_time(), time.perf_counter()
    left = asyncio.Semaphore(_AT_ONCE)

    async def fill() -> Head:
        async with left:
            return await _fill_chat(store, words, turns)

    heads = await asyncio.gather(*(fill() for _ in range(chats)))
    seconds = time.perf_counter() - began
    result: dict[str, Any] = {
        "turns": total,
        "turns_per_second": total / seconds,
        "server_cpu_us_per_turn": (_cpu(server) - cpu) / total * 1e6,
        "own_cpu_us_per_turn": (time.process_time() - own) / total * 1e6,
    }
    written = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), $1)::bigint"
    result["wal_bytes_per_turn"] = await watcher.fetchval(written, lsn) / total
    cpu, own = _cpu(server), time.process_time()
    for head in heads[:200]:
        await store.history(head)
    read = min(200, len(heads))
    result["cold_read_server_cpu_us"] = (_cpu(server) - cpu) / read * 1e6
    result["cold_read_own_cpu_us"] = (time.process_time() - own) / read * 1e6
    began = time.perf_counter()
    await store.stores.search.search("", words.text(12), 10)
    result["first_search_seconds"] = time.perf_counter() - began
    while await watcher.fetchval("SELECT count(*) FROM search_pending"):
        await store.stores.search.search("", "nothing", 1)
    # As the server does by itself within a minute.
    await watcher.execute("ANALYZE")
    began = time.perf_counter()
    for _ in range(20):
        await store.stores.search.search("", words.text(12), 10)
    result["search_seconds"] = (time.perf_counter() - began) / 20
    await asyncio.sleep(1.5)
    result["commits_per_turn"] = (await watcher.fetchval(commits) - before) / total
    await store.close()
    await watcher.execute("VACUUM ANALYZE")
    result["bytes_per_turn"] = {
        row[0]: [round(row[1] / total, 1), round(row[2] / total, 1)]
        for row in await watcher.fetch(_SIZES)
        if row[1] + row[2] > total
    }
    await watcher.close()
    return result


def main() -> None:
    chats, turns = (int(one) for one in (sys.argv[1:3] or (500, 20)))
    with TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        with running(Path(folder, "postgres")) as uri:
            for name, value in asyncio.run(_measure(uri, chats, turns)).items():
                print(f"{name}: {value}")


if __name__ == "__main__":
    main()
