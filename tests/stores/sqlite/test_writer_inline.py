"""Inline commits on the event loop's thread: for a turn that runs alone, while they are fast."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from antiphon.errors import StoreError
from antiphon.stores.sqlite.write_transaction import WriteTransaction
from antiphon.stores.sqlite.writer import Writer
from support.side_stores import query_file
from support.store_turns import DONE, assistant, complete_turn, new_turn, sqlite
from support.store_writers import count, writing


async def thread_of(writer: Writer, *, is_alone: bool = True) -> str:
    """The name of the thread that a job runs on."""

    def name(transaction: WriteTransaction) -> str:
        return threading.current_thread().name

    found: str = await writer.submit(name, is_alone=is_alone)
    return found


async def begin_and_end(writer: Writer) -> None:
    turn = new_turn("Hi.")
    await asyncio.gather(
        writer.submit(WriteTransaction.begin, turn, is_alone=True),
        writer.submit(
            WriteTransaction.write, turn.response_id, (assistant("a"),), DONE, is_alone=True
        ),
    )


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treats every commit as fast, also on a loaded computer."""
    monkeypatch.setattr("antiphon.stores.sqlite.writer._MAX_INLINE_SECONDS", 60.0)


async def test_lone_job_commits_on_the_event_loop_thread(tmp_path: Path) -> None:
    async with writing(tmp_path) as (writer, database):
        assert await thread_of(writer) == threading.current_thread().name
        await begin_and_end(writer)
        assert (count(database, "responses"), count(database, "log")) == (1, 4)
        assert await thread_of(writer, is_alone=False) == "antiphon-writer"


async def test_write_that_nothing_follows_is_on_disk_when_it_returns(tmp_path: Path) -> None:
    async with sqlite(tmp_path / "turns.db") as store:
        turn = new_turn("Hi.")
        begun = store.begin(turn)
        ended = store.write(turn.response_id, (assistant("a"),), DONE, inline=True)
        assert begun.done()
        assert ended.done()
        assert query_file(tmp_path / "turns.db", "SELECT count(*) FROM log") == [(4,)]
        await asyncio.gather(begun, ended)
        # Where others run, it waits for theirs.
        other, turn = new_turn("Hi."), new_turn("Hi.")
        begins = store.begin(other), store.begin(turn)
        ended = store.write(turn.response_id, (), DONE, inline=True)
        assert not ended.done()
        await asyncio.gather(*begins, ended, store.write(other.response_id, (), DONE))


async def test_heads_read_by_the_writers_connection_are_of_all_commits(tmp_path: Path) -> None:
    async with sqlite(tmp_path / "turns.db") as store, sqlite(tmp_path / "turns.db") as other:
        for _ in range(3):
            theirs, mine = await complete_turn(other), await complete_turn(store)
            while not store._database._writer._is_inline:
                # The index looked for turns of others.
                mine = await complete_turn(store)
            assert await store.head("", mine.response_id) == mine
            assert await store.head("", theirs.response_id) == theirs
            assert await other.delete("", mine.response_id)
            assert await store.head("", mine.response_id) is None


async def test_one_concurrent_job_moves_all_jobs_to_the_writer_thread(tmp_path: Path) -> None:
    async with writing(tmp_path) as (writer, _):
        names = await asyncio.gather(thread_of(writer), thread_of(writer, is_alone=False))
        assert set(names) == {"antiphon-writer"}


async def test_lone_job_runs_after_jobs_queued_in_the_writer_thread(tmp_path: Path) -> None:
    async with writing(tmp_path) as (writer, _):
        go, order = threading.Event(), list[str]()

        def wait(transaction: WriteTransaction) -> None:
            assert go.wait(60)
            order.append("first")

        first = writer.submit(wait)
        await asyncio.sleep(0)
        second = writer.submit(lambda transaction: order.append("second"), is_alone=True)
        await asyncio.sleep(0)
        assert not second.done()
        go.set()
        await asyncio.gather(first, second)
        assert order == ["first", "second"]


async def test_writer_thread_waits_for_another_processs_lock(tmp_path: Path) -> None:
    async with writing(tmp_path) as (writer, _):
        other = sqlite3.connect(tmp_path / "turns.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(thread_of(writer))
        # The loop is free while the thread waits.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not waiting.done()
        other.execute("COMMIT")
        other.close()
        assert await waiting == "antiphon-writer"


async def test_failing_inline_job_does_not_affect_others(tmp_path: Path) -> None:
    async with writing(tmp_path) as (writer, database):

        def fail(transaction: WriteTransaction) -> None:
            transaction.flush()
            raise sqlite3.OperationalError("disk I/O error")

        turn = new_turn("Hi.")
        good = writer.submit(WriteTransaction.begin, turn, is_alone=True)
        bad = writer.submit(fail, is_alone=True)
        with pytest.raises(StoreError):
            await bad
        await good
        assert count(database, "responses") == 1


async def test_slow_inline_commit_moves_commits_to_the_writer_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antiphon.stores.sqlite.writer._MAX_INLINE_SECONDS", -1.0)
    async with writing(tmp_path) as (writer, _):
        assert await thread_of(writer) == threading.current_thread().name
        assert await thread_of(writer) == "antiphon-writer"


async def test_writer_thread_checkpoints_after_inline_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antiphon.stores.sqlite.writer._COMMITS_PER_CHECKPOINT", 10)
    path = tmp_path / "turns.db"
    async with writing(tmp_path) as (writer, _):
        before = path.stat().st_size
        for _ in range(40):
            await begin_and_end(writer)
        await thread_of(writer, is_alone=False)
        assert path.stat().st_size > before


async def test_turns_with_large_items_or_images_use_the_writer_thread(tmp_path: Path) -> None:
    async with sqlite(tmp_path / "turns.db") as store:
        seen: list[bool] = []
        submit = store._database._writer.submit

        def recording_submit(*arguments: Any, **options: Any) -> asyncio.Future[Any]:
            if arguments[0] is not WriteTransaction.flush:
                seen.append(options.get("is_alone", False))
            return submit(*arguments, **options)

        store._database._writer.submit = recording_submit  # type: ignore[method-assign]
        await complete_turn(store)
        assert seen == [True, True]
        await complete_turn(store, "x" * 100_000)
        assert seen[2:] == [False, True]
        await complete_turn(store, images=[b"image"])
        assert seen[4:] == [False, True]
        await store.begin(new_turn("Hi."))
        await complete_turn(store)
        # Two turns run now.
        assert seen[6:] == [True, False, False]
