"""Page scrubbing: runs only after an erasure, once, in one process."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from antiphon.core.retention import RetentionPolicy
from antiphon.stores.sqlite.btree_pages import LeafPage, PageFile
from antiphon.stores.sqlite.connection import DatabaseConnections
from antiphon.stores.sqlite.process_locks import ProcessLocks
from antiphon.stores.sqlite.store import SqliteStore, open_sqlite
from support.side_stores import all_bytes
from support.store_subprocess import child, line
from support.store_turns import DONE, ManualClock, begin_turn, complete_turn, new_turn, run

LIFE = 1000.0


@pytest.fixture
def scrubbed_roots(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The root pages of the tables that were scrubbed."""
    roots: list[int] = []
    dirty_leaves = PageFile.dirty_leaves

    def recording_dirty_leaves(
        self: PageFile, root: int, size: int, near: Sequence[int] | None = None
    ) -> Iterator[LeafPage | None]:
        roots.append(root)
        return dirty_leaves(self, root, size, near)

    monkeypatch.setattr(PageFile, "dirty_leaves", recording_dirty_leaves)
    monkeypatch.setattr("antiphon.stores.sqlite.page_scrubbing._SCRUB_DELAY", 0.0)
    return roots


@asynccontextmanager
async def open_store(path: Path, time: ManualClock | None = None) -> AsyncIterator[SqliteStore]:
    store = await open_sqlite(path, RetentionPolicy(LIFE), clock=time or ManualClock())
    try:
        yield store
    finally:
        await store.close()


async def wait_until_scrubbed(store: SqliteStore) -> None:
    async with asyncio.timeout(20):
        while store._database.erasures.is_pending:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def delete_expired(store: SqliteStore) -> int:
    return await store.stores.response_index.delete_expired()


async def store_turn(store: SqliteStore, time: ManualClock) -> None:
    new = new_turn("Hi.", created_at=time.now)
    store.begin(new)
    await store.write(new.response_id, [], DONE)


def erasure_marks(path: Path) -> list[Path]:
    return list(Path(f"{path}-owners").glob("*.unclean"))


def test_store_without_erasures_is_never_scrubbed(path: Path, scrubbed_roots: list[int]) -> None:
    time = ManualClock()

    async def main() -> None:
        async with open_store(path, time) as store:
            await complete_turn(store)
            for _ in range(3):
                time.now += LIFE / 4
                assert await delete_expired(store) == 0
                await complete_turn(store)
            assert not store._database.erasures.is_pending
        async with open_store(path, time) as store:
            assert await delete_expired(store) == 0

    run(main())
    assert scrubbed_roots == []
    assert erasure_marks(path) == []


async def test_expiry_that_erases_starts_a_scrub(path: Path, scrubbed_roots: list[int]) -> None:
    time = ManualClock()
    async with open_store(path, time) as store:
        await store.stores.conversations.create("", {"a": "b"})
        time.now += LIFE
        assert await delete_expired(store) == 0
        assert store._database.erasures.is_pending
        assert len(erasure_marks(path)) == 1
        await wait_until_scrubbed(store)
        assert erasure_marks(path) == []
        before = len(scrubbed_roots)
        assert before
        assert await delete_expired(store) == 0
        assert len(scrubbed_roots) == before


async def test_expiry_with_nothing_due_reads_no_turns(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = ManualClock()
    queries: list[str] = []
    connect = DatabaseConnections.connect_reader

    def connect_traced(connections: DatabaseConnections) -> sqlite3.Connection:
        connection = connect(connections)
        connection.set_trace_callback(queries.append)
        return connection

    # Any connection of the pool may serve a read.
    monkeypatch.setattr(DatabaseConnections, "connect_reader", connect_traced)
    async with open_store(path, time) as store:
        root = await complete_turn(store)
        assert await delete_expired(store) == 0
        queries.clear()
        for _ in range(5):
            assert await delete_expired(store) == 0
        assert not [query for query in queries if "responses" in query]
        # The deleted turn may have kept others alive, so that expiry is checked again.
        await store.delete("", root.response_id)
        await delete_expired(store)
        assert [query for query in queries if "responses" in query]


async def test_only_one_of_several_open_stores_runs_expiry(path: Path) -> None:
    time = ManualClock()
    async with open_store(path, time) as second:
        async with open_store(path, time) as first:
            assert await delete_expired(first) == 0
            await store_turn(first, time)
            time.now += LIFE
            assert await delete_expired(second) == 0
            assert await delete_expired(first) == 1
            await store_turn(first, time)
            time.now += LIFE
        assert await delete_expired(second) == 1


async def test_expiry_in_many_transactions_leaves_no_words(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antiphon.stores.sqlite.page_scrubbing._SCRUB_DELAY", 0.0)
    # A turn each.
    monkeypatch.setattr("antiphon.stores.sqlite.retention_sweep.MAX_SWEEP_SECONDS", 0.0)
    time = ManualClock()
    async with open_store(path, time) as store:
        for number in range(12):
            new = new_turn(f"canary{number}", created_at=time.now)
            store.begin(new)
            await store.write(new.response_id, [], DONE)
        assert b"canary" in all_bytes(path.parent)
        time.now += LIFE
        assert await delete_expired(store) == 12
        await wait_until_scrubbed(store)
        assert b"canary" not in all_bytes(path.parent)


async def test_consecutive_erasures_share_a_scrub(
    path: Path, scrubbed_roots: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    delay = "antiphon.stores.sqlite.page_scrubbing._SCRUB_DELAY"
    monkeypatch.setattr(delay, 3600.0)
    async with open_store(path) as store:
        heads = [await complete_turn(store) for _ in range(10)]
        await asyncio.gather(*[store.delete("", head.response_id) for head in heads])
        scrub, erasures = store._database._scrub_task, store._database.erasures
        async with asyncio.timeout(20):
            # All have left the write-ahead log.
            while scrub._task is None or erasures.scope().count < erasures.count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert scrubbed_roots == []
        # The delay is over.
        monkeypatch.setattr(delay, 0.0)
        scrub._task.cancel()
        await asyncio.gather(scrub._task, return_exceptions=True)
        scrub.start()
        await wait_until_scrubbed(store)
        # Each scrub reads three tables, and again if something was dirty.
        assert len(scrubbed_roots) <= 6


async def test_scrub_task_pauses_after_each_scrub(path: Path) -> None:
    async with open_store(path) as store:
        cleaning = store._database._scrub_task
        await store.delete("", (await complete_turn(store)).response_id)
        await wait_until_scrubbed(store)
        assert cleaning._rest_until > 0.0
        cleaning._rest_until += 1000.0
        assert cleaning._pause() > 900.0


async def test_scrubbing_retries_after_any_error(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("antiphon.stores.sqlite.page_scrubbing._SCRUB_DELAY", 0.0)
    monkeypatch.setattr("antiphon.stores.sqlite.page_scrubbing._RETRY_SECONDS", 0.0, raising=False)
    errors: list[BaseException] = [IndexError("odd"), RuntimeError("odder"), OSError("gone")]
    dirty_leaves = PageFile.dirty_leaves

    def failing(
        self: PageFile, root: int, size: int, near: Sequence[int] | None = None
    ) -> Iterator[LeafPage | None]:
        if errors:
            raise errors.pop()
        return dirty_leaves(self, root, size, near)

    monkeypatch.setattr(PageFile, "dirty_leaves", failing)
    async with open_store(path) as store:
        await store.delete("", (await complete_turn(store)).response_id)
        await wait_until_scrubbed(store)
        assert errors == []
    assert "odder" in caplog.text


def test_closing_stops_a_running_scrub(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the event loop would wait until the scrub ends."""
    monkeypatch.setattr("antiphon.stores.sqlite.page_scrubbing._SCRUB_DELAY", 0.0)
    dirty_leaves = PageFile.dirty_leaves
    began = asyncio.Event()

    def never_ending(
        loop: asyncio.AbstractEventLoop,
    ) -> Callable[..., Iterator[LeafPage | None]]:
        def pages(
            self: PageFile, root: int, size: int, near: Sequence[int] | None = None
        ) -> Iterator[LeafPage | None]:
            # First: the store closes once this has begun, and then checks its pages again.
            monkeypatch.setattr(PageFile, "dirty_leaves", dirty_leaves)
            loop.call_soon_threadsafe(began.set)
            while True:
                yield None

        return pages

    async def main() -> None:
        async with open_store(path) as store:
            monkeypatch.setattr(PageFile, "dirty_leaves", never_ending(asyncio.get_running_loop()))
            await store.delete("", (await complete_turn(store)).response_id)
            await began.wait()
        # Closing the store has scrubbed the rest.
        assert erasure_marks(path) == []

    run(main())


async def test_next_process_scrubs_what_a_killed_process_erased(
    path: Path, scrubbed_roots: list[int]
) -> None:
    async with open_store(path):
        pass
    owners = ProcessLocks(Path(f"{path}-owners"))
    owners.erasure_mark.touch()
    async with open_store(path) as store:
        assert erasure_marks(path) == [store._database._process_locks.erasure_mark]
        await wait_until_scrubbed(store)
        assert scrubbed_roots
        assert erasure_marks(path) == []
        # Or by a process that has it open.
        before = len(scrubbed_roots)
        owners.erasure_mark.touch()
        await delete_expired(store)
        await wait_until_scrubbed(store)
        assert len(scrubbed_roots) > before
        assert erasure_marks(path) == []


async def test_erasure_marks_of_living_processes_are_left_to_them(
    path: Path, scrubbed_roots: list[int]
) -> None:
    async with open_store(path) as store, open_store(path) as other:
        await begin_turn(other)
        mark = other._database._process_locks.erasure_mark
        mark.touch()
        await delete_expired(store)
        assert erasure_marks(path) == [mark]
        os.unlink(mark)
    with child("hold", path) as process:
        line(process)
        async with open_store(path) as store:
            await delete_expired(store)
    assert scrubbed_roots == []
