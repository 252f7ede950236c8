"""Another process with a store, for the tests of its ledgers.

Commands, each after ``python -m support.side_stores_process``:

claim PATH COUNT    claims that many keys, and completes them; says which it got
hold PATH KEY       claims a key, and does nothing more, until killed
revoke PATH ID      revokes an API key
talk PATH           turns and searches, until killed; says what is kept
half PATH           stops in the middle of indexing, until killed
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from antiphon.stores.sqlite.connection import open_database
from antiphon.stores.sqlite.search.indexing import apply_plan, read_plan
from antiphon.stores.sqlite.store import SqliteStore
from antiphon.stores.sqlite.write_transaction import WriteTransaction
from support.store_turns import complete_turn, sqlite


def print_line(*words: object) -> None:
    print(*words, flush=True)


async def reserve_keys(store: SqliteStore, count: int) -> None:
    for number in range(count):
        key = f"key {number}"
        if await store.stores.idempotency.reserve("", key, b"print") is None:
            print_line(number)
            await store.stores.idempotency.complete("", key, "resp_1")


async def hold_key(store: SqliteStore, key: str) -> None:
    print_line(await store.stores.idempotency.reserve("me", key, b"print"))
    sys.stdin.read()


async def write_until_killed(store: SqliteStore) -> None:
    async def speak(number: int) -> None:
        for turn in range(1_000_000):
            head = await complete_turn(store, f"canary{number}x{turn} spoke")
            print_line(head.response_id, f"canary{number}x{turn}")

    async def look() -> None:
        while True:
            await store.stores.search.search("", "spoke", 3)

    await asyncio.gather(look(), *[speak(number) for number in range(4)])


def stop_while_indexing(path: Path) -> None:
    database = open_database(path)
    plan = read_plan(database.read_connection, None, 1)
    assert plan is not None
    database.write_connection.execute("BEGIN IMMEDIATE")
    assert apply_plan(
        WriteTransaction(database.write_connection, database.process_locks.owner_id, {}), plan
    )
    print_line("half")
    sys.stdin.read()


async def main(command: str, path: Path, *rest: str) -> None:
    async with sqlite(path) as store:
        if command == "claim":
            await reserve_keys(store, int(rest[0]))
        elif command == "hold":
            await hold_key(store, rest[0])
        elif command == "revoke":
            print_line(await store.stores.api_keys.revoke(rest[0]))
        else:
            await write_until_killed(store)


if __name__ == "__main__":
    if sys.argv[1] == "half":
        stop_while_indexing(Path(sys.argv[2]))
    else:
        asyncio.run(main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]))
