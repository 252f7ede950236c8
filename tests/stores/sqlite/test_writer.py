"""The writer thread: order, shared commits, failing jobs, locks, full disks, and stopping."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from antiphon.core.turns import Header
from antiphon.errors import StoreError
from antiphon.stores.sqlite.connection import DatabaseConnections, open_database
from antiphon.stores.sqlite.write_transaction import WriteTransaction
from antiphon.stores.sqlite.writer import MAX_WAL_BYTES, Writer
from support.store_turns import DONE, assistant, new_turn, run
from support.store_writers import count, writing


class BlockingJob:
    """A job that blocks the writer thread, so that later jobs share a commit."""

    def __init__(self, writer: Writer) -> None:
        self._go = threading.Event()
        self.started = threading.Event()
        self.done = writer.submit(self._wait)

    def _wait(self, batch: WriteTransaction) -> None:
        self.started.set()
        assert self._go.wait(60)

    def release(self) -> None:
        self._go.set()


async def test_queued_jobs_share_a_commit(tmp_path: Path) -> None:
    async with writing(tmp_path) as (writer, _):
        blocking_job = BlockingJob(writer)
        await asyncio.to_thread(blocking_job.started.wait)
        seen: list[WriteTransaction] = []
        later = [writer.submit(seen.append) for _ in range(50)]
        assert not any(future.done() for future in later)
        blocking_job.release()
        await asyncio.gather(blocking_job.done, *later)
        assert len(seen) == 50
        assert len({id(batch) for batch in seen}) == 1


async def test_jobs_run_in_order_and_return_results(tmp_path: Path) -> None:
    async with writing(tmp_path) as (writer, _):
        new = new_turn("Hi.")
        futures = [
            writer.submit(WriteTransaction.begin, new),
            writer.submit(WriteTransaction.delete, "", new.response_id, False),
            writer.submit(WriteTransaction.write, new.response_id, (assistant("a"),), DONE),
            writer.submit(WriteTransaction.delete, "", new.response_id, False),
        ]
        assert await asyncio.gather(*futures) == [None, True, None, False]


async def test_failing_job_does_not_affect_other_jobs(tmp_path: Path) -> None:
    async with writing(tmp_path) as (writer, database):
        blocking_job = BlockingJob(writer)
        await asyncio.to_thread(blocking_job.started.wait)
        good = [new_turn(str(number)) for number in range(3)]
        twice = new_turn("again", response_id=good[0].response_id)
        unsayable = new_turn("Hi.", header=Header(object()))  # type: ignore[arg-type]
        no_bytes = msgspec.structs.replace(new_turn(), input=[object()])
        jobs = [good[0], twice, unsayable, good[1], no_bytes, good[2]]
        futures = [writer.submit(WriteTransaction.begin, new) for new in jobs]
        futures.append(
            writer.submit(WriteTransaction.write, good[0].response_id, (assistant("a"),), DONE)
        )
        blocking_job.release()
        results = await asyncio.gather(*futures, return_exceptions=True)
        kinds = [type(result) for result in results]
        nothing = type(None)
        assert kinds == [
            nothing,
            StoreError,
            StoreError,
            nothing,
            StoreError,
            nothing,
            nothing,
        ]
        assert (count(database, "responses"), count(database, "running")) == (3, 2)


@pytest.mark.parametrize("flushed", [False, True])
async def test_partially_failed_job_is_rolled_back(tmp_path: Path, flushed: bool) -> None:
    """Even if the job raises a ``StoreError``, and other jobs share its commit."""
    half = new_turn("half")

    def begin_and_fail(batch: WriteTransaction) -> None:
        batch.begin(half)
        if flushed:
            batch.flush()
        raise StoreError("No.")

    def only_fail(batch: WriteTransaction) -> None:
        batch.flush()
        raise StoreError("No.")

    async with writing(tmp_path) as (writer, database):
        blocking_job = BlockingJob(writer)
        await asyncio.to_thread(blocking_job.started.wait)
        good = [new_turn(str(number)) for number in range(4)]
        batches: list[WriteTransaction] = []
        futures = [
            writer.submit(WriteTransaction.begin, good[0]),
            writer.submit(only_fail),
            writer.submit(WriteTransaction.begin, good[1]),
            writer.submit(begin_and_fail),
            writer.submit(WriteTransaction.begin, good[2]),
            writer.submit(batches.append),
            writer.submit(WriteTransaction.write, half.response_id, (), DONE),
            writer.submit(WriteTransaction.begin, good[3]),
        ]
        blocking_job.release()
        results = await asyncio.gather(*futures, return_exceptions=True)
        failed = [isinstance(result, StoreError) for result in results]
        assert failed == [False, True, False, True, False, False, True, False]
        assert (count(database, "responses"), count(database, "log")) == (4, 8)


async def test_job_failing_before_its_writes_does_not_split_the_commit(tmp_path: Path) -> None:
    def fail(batch: WriteTransaction) -> None:
        # Writes what other jobs have collected; the ends of turns fire triggers.
        batch.flush()
        raise StoreError("No.")

    async with writing(tmp_path) as (writer, _):
        blocking_job = BlockingJob(writer)
        await asyncio.to_thread(blocking_job.started.wait)
        batches: list[WriteTransaction] = []
        new = new_turn("Hi.")
        futures = [
            writer.submit(WriteTransaction.begin, new),
            writer.submit(WriteTransaction.write, new.response_id, (assistant("a"),), DONE),
            writer.submit(fail),
            writer.submit(batches.append),
        ]
        blocking_job.release()
        await asyncio.gather(*futures, return_exceptions=True)
        assert len(batches) == 1


@pytest.mark.parametrize("error", [RuntimeError("odd"), IndexError("odd"), OSError("gone")])
async def test_failing_checkpoint_does_not_end_the_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(self: Writer) -> bool:
        raise error

    async with writing(tmp_path) as (writer, _), asyncio.timeout(20):
        monkeypatch.setattr(Writer, "_checkpoint", fail)
        for _ in range(3):
            new = new_turn("Hi.")
            await writer.submit(WriteTransaction.begin, new)
            assert await writer.submit(WriteTransaction.delete, "", new.response_id, False)
        writer.stop()
        await writer.wait_stopped()


async def test_full_database_is_an_error_until_there_is_room(tmp_path: Path) -> None:
    async with writing(tmp_path) as (writer, database):
        first = new_turn("before")
        await writer.submit(WriteTransaction.begin, first)
        pages = database.write_connection.execute("PRAGMA page_count").fetchone()[0]
        database.write_connection.execute(f"PRAGMA max_page_count = {pages + 2}")
        large = [new_turn("x" * 50_000) for _ in range(3)]
        futures = [writer.submit(WriteTransaction.begin, new) for new in large]
        results = await asyncio.gather(*futures, return_exceptions=True)
        assert [type(result) for result in results] == [StoreError] * 3
        assert all("full" in str(result) for result in results)
        # Small writes still fit, and the rest succeeds once there is room.
        await writer.submit(WriteTransaction.write, first.response_id, (assistant("a"),), DONE)
        database.write_connection.execute("PRAGMA max_page_count = 100000")
        await asyncio.gather(*[writer.submit(WriteTransaction.begin, new) for new in large])
        assert (count(database, "responses"), count(database, "threads")) == (4, 4)


async def test_writer_waits_for_another_processs_lock(tmp_path: Path) -> None:
    async with writing(tmp_path) as (writer, database):
        other = sqlite3.connect(database.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        waiting = [writer.submit(WriteTransaction.begin, new_turn("Hi.")) for _ in range(5)]
        other.execute("COMMIT")
        await asyncio.gather(*waiting)
        # A lock that is held too long fails all jobs, without a wait for each.
        database.write_connection.execute("PRAGMA busy_timeout = 1")
        other.execute("BEGIN IMMEDIATE")
        refused = [writer.submit(WriteTransaction.begin, new_turn("Hi.")) for _ in range(5)]
        results = await asyncio.gather(*refused, return_exceptions=True)
        assert all(isinstance(result, StoreError) for result in results)
        assert "Another process" in str(results[0])
        other.execute("COMMIT")
        other.close()
        await writer.submit(WriteTransaction.begin, new_turn("Hi."))
        assert count(database, "responses") == 6


async def test_stopping_finishes_queued_jobs_and_refuses_new_ones(tmp_path: Path) -> None:
    async with writing(tmp_path) as (writer, _):
        blocking_job = BlockingJob(writer)
        queued = [writer.submit(WriteTransaction.begin, new_turn("Hi.")) for _ in range(20)]
        writer.stop()
        writer.stop()
        refused = writer.submit(WriteTransaction.begin, new_turn("Hi."))
        assert isinstance(refused.exception(), StoreError)
        blocking_job.release()
        await writer.wait_stopped()
        assert all(future.done() and future.exception() is None for future in queued)
    # After stopping, nothing runs.
    database = open_database(tmp_path / "turns.db")
    assert (count(database, "responses"), count(database, "running")) == (20, 0)
    database.write_connection.close()
    database.read_connection.close()
    database.page_file.close()
    database.process_locks.release()


def test_queued_jobs_complete_after_the_event_loop_ends(tmp_path: Path) -> None:
    database = open_database(tmp_path / "turns.db")

    async def main() -> Writer:
        writer = Writer(database)
        blocking_job = BlockingJob(writer)
        await asyncio.to_thread(blocking_job.started.wait)
        writer.submit(WriteTransaction.begin, new_turn("Hi."))
        writer.stop()
        asyncio.get_running_loop().call_soon(blocking_job.release)
        return writer

    run(main())
    for thread in threading.enumerate():
        if thread.name == "antiphon-writer":
            thread.join(60)
    assert (count(database, "responses"), count(database, "running")) == (1, 0)
    database.read_connection.close()
    database.page_file.close()
    database.process_locks.release()


async def test_wal_size_stays_bounded_with_overlapping_readers(tmp_path: Path) -> None:
    async with writing(tmp_path) as (writer, database):
        finished = threading.Event()
        reading = asyncio.get_running_loop().run_in_executor(
            None, read_overlapping, database, finished
        )
        sizes = []
        for _ in range(60):
            await writer.submit(WriteTransaction.begin, new_turn("x" * 1_000_000))
            sizes.append(database.wal_path.stat().st_size)
        finished.set()
        assert await reading > 0
        assert max(sizes) < MAX_WAL_BYTES + 20_000_000


def read_overlapping(database: DatabaseConnections, finished: threading.Event) -> int:
    """Keeps at least one read transaction open at any time; returns how many ended."""
    current, upcoming = database.connect_reader(), database.connect_reader()
    number = 0
    begin_read(current)
    while not finished.is_set():
        begin_read(upcoming)
        # The duration of a slow read.
        finished.wait(0.01)
        current.execute("ROLLBACK")
        current, upcoming = upcoming, current
        number += 1
    current.close()
    upcoming.close()
    return number


def begin_read(reader: sqlite3.Connection) -> None:
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM running").fetchall()


async def test_delayed_job_commits_with_the_next_job_or_after_its_delay(tmp_path: Path) -> None:
    order: list[str] = []

    def job(name: str) -> Callable[[WriteTransaction], None]:
        return lambda batch: order.append(name)

    async with writing(tmp_path) as (writer, _):
        delayed = writer.submit(job("first"), max_delay=60)
        await writer.submit(job("second"))
        assert delayed.done()
        await writer.submit(job("alone"), max_delay=0.001)
    with pytest.raises(StoreError):
        await writer.submit(job("late"), max_delay=60)
    assert order == ["first", "second", "alone"]


async def test_held_job_commits_with_the_job_that_releases_it_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antiphon.stores.sqlite.writer.HOLD_SECONDS", 60)
    async with writing(tmp_path) as (writer, database):
        turn, other = new_turn("Hi."), new_turn("Ho.")
        begun = writer.hold(turn.response_id, WriteTransaction.begin, turn)
        left = writer.hold(other.response_id, WriteTransaction.begin, other)
        await writer.submit(WriteTransaction.begin, new_turn("Others do not release it."))
        assert (begun.done(), left.done(), count(database, "responses")) == (False, False, 1)
        writer.release(turn.response_id)
        await writer.submit(WriteTransaction.write, turn.response_id, (assistant("a"),), DONE)
        assert (begun.done(), left.done(), count(database, "responses")) == (True, False, 2)
    # Closing the store does what is left.
    assert left.done()


async def test_held_jobs_that_nothing_releases_are_committed_together_after_a_moment(
    tmp_path: Path,
) -> None:
    async with writing(tmp_path) as (writer, database):
        turns = [new_turn("Hi.") for _ in range(3)]
        await asyncio.gather(
            *[writer.hold(one.response_id, WriteTransaction.begin, one) for one in turns]
        )
        again = new_turn("Hi.")
        await writer.hold(again.response_id, WriteTransaction.begin, again)
        assert count(database, "responses") == 4
    with pytest.raises(StoreError):
        await writer.hold("late", WriteTransaction.begin, new_turn("Hi."))
