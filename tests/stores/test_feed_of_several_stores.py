"""The feed of a database that several stores have open: every reader sees every change, in one
order.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from antiphon.stores import change_feed
from antiphon.stores.postgres import changes
from antiphon.stores.postgres.changes import delete_future_changes
from antiphon.stores.postgres.store import open_postgres
from antiphon.turn.feed_protocols import Change, ChangeReader
from support.postgres_database import changes_are_settled, empty_database
from support.store_turns import StoreWithStores, complete_turn


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return empty_database(tmp_path)


@asynccontextmanager
async def stores_on(uri: str, number: int) -> AsyncIterator[list[StoreWithStores]]:
    async with AsyncExitStack() as stack:
        stores: list[StoreWithStores] = []
        for _ in range(number):
            store = await open_postgres(uri)
            stack.push_async_callback(store.close)
            stores.append(store)
        yield stores


async def read_until(reader: ChangeReader, number: int) -> list[Change]:
    """Changes until so many turns have ended."""
    found: list[Change] = []
    async with asyncio.timeout(30):
        async for batch in reader:
            found += batch
            if sum(change.type == "turn.ended" for change in found) >= number:
                return found
    raise AssertionError(found)


async def test_every_reader_sees_every_change_of_all_stores_in_one_order(uri: str) -> None:
    async with stores_on(uri, 3) as stores:
        readers = [await store.stores.changes.subscribe("") for store in stores]
        reading = [asyncio.create_task(read_until(reader, 60)) for reader in readers]

        async def work(store: StoreWithStores) -> list[str]:
            names = []
            for _ in range(10):
                names.append((await complete_turn(store)).response_id)
                await asyncio.sleep(random.random() / 500)
            return names

        made = await asyncio.gather(*(work(store) for store in stores for _ in range(2)))
        seen = await asyncio.gather(*reading)
        assert seen[0] == seen[1] == seen[2]
        ended = [change.response_id for change in seen[0] if change.type == "turn.ended"]
        assert sorted(ended, key=str) == sorted(name for names in made for name in names)
        # Whoever comes later, at any store, reads on behind any of them.
        at = len(seen[0]) // 2
        later = await stores[1].stores.changes.subscribe("", seen[0][at].cursor)
        rest = [change for change in seen[0][at + 1 :] if change.type == "turn.ended"]
        assert await read_until(later, len(rest)) == seen[0][at + 1 :]


async def test_a_reader_is_notified_of_another_stores_turn_without_polling(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_feed, "POLL_INTERVAL", 3600.0)
    async with stores_on(uri, 2) as (here, there):
        reader = await here.stores.changes.subscribe("")
        async with asyncio.timeout(30):
            # Notifications go to those who listen by then.
            while not await listens(uri):
                await complete_turn(there)
        head = await complete_turn(there)
        finding = asyncio.create_task(find(reader, head.response_id))
        while not finding.done():
            # Where others' transactions were in the way, the next notification shows it.
            await complete_turn(there)
        assert (await finding).type == "turn.ended"


async def listens(uri: str) -> bool:
    connection = await asyncpg.connect(uri)
    try:
        query = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = $1"
        database = await connection.fetchval("SELECT current_database()")
        return bool(await connection.fetch(query, database))
    finally:
        await connection.close()


async def find(reader: ChangeReader, response_id: str) -> Change:
    async with asyncio.timeout(30):
        async for batch in reader:
            for change in batch:
                if change.response_id == response_id and change.type == "turn.ended":
                    return change
    raise AssertionError(response_id)


async def test_a_change_behind_a_transaction_that_still_runs_waits_for_it(uri: str) -> None:
    """Otherwise a reader could be behind a row that comes later."""
    async with stores_on(uri, 1) as (store,):
        reader = await store.stores.changes.subscribe("")
        other = await asyncpg.connect(uri)
        transaction = other.transaction()
        await transaction.start()
        earlier = await other.fetchval("SELECT pg_current_xact_id()::text::bigint")
        head = await complete_turn(store)
        log = store.stores.changes._log  # type: ignore[attr-defined]
        assert await log.read(earlier - 1, 10) == []
        await transaction.rollback()
        await other.close()
        assert (await find(reader, head.response_id)).response_id == head.response_id


async def test_a_cursor_behind_deleted_rows_gets_a_reset(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stores_on(uri, 1) as (store,):
        reader = await store.stores.changes.subscribe("")
        for _ in range(6):
            await complete_turn(store)
        seen = await read_until(reader, 6)
        monkeypatch.setattr(changes, "MAX_ROWS", 3)
        await store._database.submit(changes._trim)  # type: ignore[attr-defined]
        await changes_are_settled(uri)
        for cursor, expected in ((seen[0].cursor, "feed.reset"), (seen[-1].cursor, "turn.started")):
            again = await store.stores.changes.subscribe("", cursor)
            await complete_turn(store)
            async with asyncio.timeout(30):
                async for batch in again:
                    assert batch[0].type == expected
                    break


async def test_rows_of_a_server_with_more_transactions_are_dropped(uri: str) -> None:
    async with stores_on(uri, 1) as (store,):
        await complete_turn(store)
        connection = await asyncpg.connect(uri)
        try:
            await connection.execute("INSERT INTO changes VALUES (1 << 50, 0, '\\x90')")
            await changes_are_settled(uri)
            await delete_future_changes(connection)
            assert await connection.fetchval("SELECT max(id) < 1 << 50 FROM changes")
        finally:
            await connection.close()
        reader = await store.stores.changes.subscribe("", f"{1 << 50}.1.00000000")
        async with asyncio.timeout(30):
            async for batch in reader:
                assert [change.type for change in batch] == ["feed.reset"]
                break
