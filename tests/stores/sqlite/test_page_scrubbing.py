"""When the file is looked through for what erasures left: only after one, once, by one process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from antiphon.core.retention import RetentionPolicy
from antiphon.stores.sqlite.btree_pages import LeafPage, PageFile
from antiphon.stores.sqlite.process_locks import ProcessLocks
from antiphon.stores.sqlite.store import SqliteStore, open_sqlite
from support.store_subprocess import child, line
from support.store_turns import DONE, ManualTime, begin_turn, complete_turn, new_turn, run

LIFE = 1000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "turns.db"


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The tables that were looked through, by their roots."""
    seen: list[int] = []
    unclean = PageFile.dirty_leaves

    def watched(
        self: PageFile, root: int, size: int, near: Sequence[int] | None = None
    ) -> Iterator[LeafPage | None]:
        seen.append(root)
        return unclean(self, root, size, near)

    monkeypatch.setattr(PageFile, "dirty_leaves", watched)
    monkeypatch.setattr("antiphon.stores.sqlite.page_scrubbing._SCRUB_DELAY", 0.0)
    return seen


@asynccontextmanager
async def opened(path: Path, time: ManualTime | None = None) -> AsyncIterator[SqliteStore]:
    store = await open_sqlite(path, RetentionPolicy(LIFE), clock=time or ManualTime())
    try:
        yield store
    finally:
        await store.close()


async def cleaned(store: SqliteStore) -> None:
    async with asyncio.timeout(20):
        while store._database.erasures.is_pending:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def swept(store: SqliteStore) -> int:
    return await store.stores.response_index.delete_expired()


async def said(store: SqliteStore, time: ManualTime) -> None:
    new = new_turn("Hi.", created_at=time.now)
    store.begin(new)
    await store.write(new.response_id, [], DONE)


def marks(path: Path) -> list[Path]:
    return list(Path(f"{path}-owners").glob("*.unclean"))


def test_a_store_where_nothing_goes_is_never_looked_through(path: Path, looks: list[int]) -> None:
    time = ManualTime()

    async def main() -> None:
        async with opened(path, time) as store:
            await complete_turn(store)
            for _ in range(3):
                time.now += LIFE / 4
                assert await swept(store) == 0
                await complete_turn(store)
            assert not store._database.erasures.is_pending
        async with opened(path, time) as store:
            assert await swept(store) == 0

    run(main())
    assert looks == []
    assert marks(path) == []


async def test_a_sweep_that_erases_has_the_file_cleaned(path: Path, looks: list[int]) -> None:
    time = ManualTime()
    async with opened(path, time) as store:
        await store.stores.conversations.create("", {"a": "b"})
        time.now += LIFE
        assert await swept(store) == 0
        assert store._database.erasures.is_pending
        assert len(marks(path)) == 1
        await cleaned(store)
        assert marks(path) == []
        before = len(looks)
        assert before
        assert await swept(store) == 0
        assert len(looks) == before


async def test_a_sweep_with_nothing_due_reads_no_turns(path: Path) -> None:
    time = ManualTime()
    asked: list[str] = []
    async with opened(path, time) as store:
        root = await complete_turn(store)
        assert await swept(store) == 0
        readers = store._database._idle_connections
        readers[0].set_trace_callback(asked.append)
        for _ in range(5):
            assert await swept(store) == 0
        assert not [query for query in asked if "responses" in query]
        # What goes may have kept others alive: it is looked at once more.
        await store.delete("", root.response_id)
        await swept(store)
        assert [query for query in asked if "responses" in query]


async def test_one_store_of_all_that_are_open_sweeps(path: Path) -> None:
    time = ManualTime()
    async with opened(path, time) as second:
        async with opened(path, time) as first:
            assert await swept(first) == 0
            await said(first, time)
            time.now += LIFE
            assert await swept(second) == 0
            assert await swept(first) == 1
            await said(first, time)
            time.now += LIFE
        assert await swept(second) == 1


async def test_erasures_in_a_row_are_cleaned_up_after_together(
    path: Path, looks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antiphon.stores.sqlite.page_scrubbing._SCRUB_DELAY", 0.2)
    async with opened(path) as store:
        heads = [await complete_turn(store) for _ in range(10)]
        await asyncio.gather(*[store.delete("", head.response_id) for head in heads])
        await cleaned(store)
        # Each look is through three tables; a second one where there was something.
        assert len(looks) <= 6


async def test_the_task_rests_for_twenty_times_as_long_as_it_looked(path: Path) -> None:
    async with opened(path) as store:
        cleaning = store._database._scrub_task
        await store.delete("", (await complete_turn(store)).response_id)
        await cleaned(store)
        assert cleaning._rest_until > 0.0
        cleaning._rest_until += 1000.0
        assert cleaning._pause() > 900.0


async def test_cleaning_goes_on_after_an_error_of_any_kind(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("antiphon.stores.sqlite.page_scrubbing._SCRUB_DELAY", 0.0)
    monkeypatch.setattr("antiphon.stores.sqlite.page_scrubbing._RETRY_SECONDS", 0.0, raising=False)
    errors: list[BaseException] = [IndexError("odd"), RuntimeError("odder"), OSError("gone")]
    unclean = PageFile.dirty_leaves

    def failing(
        self: PageFile, root: int, size: int, near: Sequence[int] | None = None
    ) -> Iterator[LeafPage | None]:
        if errors:
            raise errors.pop()
        return unclean(self, root, size, near)

    monkeypatch.setattr(PageFile, "dirty_leaves", failing)
    async with opened(path) as store:
        await store.delete("", (await complete_turn(store)).response_id)
        await cleaned(store)
        assert errors == []
    assert "odder" in caplog.text


def test_closing_ends_a_look_that_is_under_way(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the event loop would wait for it, as long as that takes."""
    monkeypatch.setattr("antiphon.stores.sqlite.page_scrubbing._SCRUB_DELAY", 0.0)
    unclean = PageFile.dirty_leaves
    began = asyncio.Event()

    def endless(
        loop: asyncio.AbstractEventLoop,
    ) -> Callable[..., Iterator[LeafPage | None]]:
        def pages(
            self: PageFile, root: int, size: int, near: Sequence[int] | None = None
        ) -> Iterator[LeafPage | None]:
            loop.call_soon_threadsafe(began.set)
            monkeypatch.setattr(PageFile, "dirty_leaves", unclean)
            while True:
                yield None

        return pages

    async def main() -> None:
        async with opened(path) as store:
            monkeypatch.setattr(PageFile, "dirty_leaves", endless(asyncio.get_running_loop()))
            await store.delete("", (await complete_turn(store)).response_id)
            await began.wait()
        # What was not cleaned before was when it was closed.
        assert marks(path) == []

    run(main())


async def test_what_a_killed_process_erased_is_cleaned_by_who_opens_the_file_next(
    path: Path, looks: list[int]
) -> None:
    async with opened(path):
        pass
    owners = ProcessLocks(Path(f"{path}-owners"))
    owners.erasure_mark.touch()
    async with opened(path) as store:
        assert marks(path) == [store._database._process_locks.erasure_mark]
        await cleaned(store)
        assert looks
        assert marks(path) == []
        # Or by who has it open.
        before = len(looks)
        owners.erasure_mark.touch()
        await swept(store)
        await cleaned(store)
        assert len(looks) > before
        assert marks(path) == []


async def test_a_living_process_cleans_up_after_itself(path: Path, looks: list[int]) -> None:
    async with opened(path) as store, opened(path) as other:
        await begin_turn(other)
        mark = other._database._process_locks.erasure_mark
        mark.touch()
        await swept(store)
        assert marks(path) == [mark]
        os.unlink(mark)
    with child("hold", path) as process:
        line(process)
        async with opened(path) as store:
            await swept(store)
    assert looks == []
