"""Another process with a store, for the tests of the SQLite store.

Commands, each after ``python -m support.store_process``:

hold PATH            begins a turn, says its id, waits to be killed
talk PATH            8 conversations, until killed; says what is kept
open PATH            one turn, then an orderly end; says its id
full PATH BYTES      no file may grow over BYTES for a while
maim PATH            dies in the middle of a commit, slowly: until it
                     is told to, it keeps the lock for writing
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import sqlite3
import sys
from pathlib import Path

from antiphon.errors import StoreError
from antiphon.stores.sqlite.store import SqliteStore
from antiphon.turn.store_protocols import Head
from support.store_turns import DONE, assistant, begin_turn, complete_turn, new_turn, sqlite


def print_line(*words: object) -> None:
    print(*words, flush=True)


async def hold_open_turn(store: SqliteStore) -> None:
    head = await begin_turn(store, "Wait for me.")
    await store.write(head.response_id, [assistant("I will")])
    print_line(head.response_id)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def write_until_killed(store: SqliteStore) -> None:
    async def conversation(number: int) -> None:
        parent: Head | None = None
        for turn in range(1_000_000):
            new = new_turn(f"{number}.{turn}?", parent=parent)
            store.begin(new)
            store.write(new.response_id, [assistant(f"{number}.{turn}.")])
            await store.write(new.response_id, [assistant(f"{number}.{turn}!")], DONE)
            print_line(new.response_id, f"{number}.{turn}", parent.response_id if parent else "-")
            parent = await store.head("", new.response_id)

    await asyncio.gather(*[conversation(number) for number in range(8)])


async def fill_disk(store: SqliteStore, limit: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = await complete_turn(store, "before")
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        await complete_turn(store, "x" * 2 * limit)
    except StoreError as error:
        refused = error.message
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    after = await complete_turn(store, "after", parent=before)
    print_line(len(await store.chain(after)), refused)


def crash_in_commit(path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    index = os.open(f"{path}-shm", os.O_RDWR)
    # SQLite's lock for recovery; closing the file would drop it.
    fcntl.lockf(index, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 122)
    # The two copies of the header of the log's index differ from now on.
    os.pwrite(index, b"\xff\xff\xff\xff", 8)
    print_line("maimed")
    sys.stdin.readline()
    os._exit(0)


async def main(command: str, path: Path, *rest: str) -> None:
    async with sqlite(path) as store:
        if command == "hold":
            await hold_open_turn(store)
        elif command == "talk":
            await write_until_killed(store)
        elif command == "full":
            await fill_disk(store, int(rest[0]))
        else:
            print_line((await complete_turn(store)).response_id)


if __name__ == "__main__":
    if sys.argv[1] == "maim":
        crash_in_commit(Path(sys.argv[2]))
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]))
