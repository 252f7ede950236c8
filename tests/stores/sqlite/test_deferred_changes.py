"""Deferred changes: what commits change of chats, sums and pending turns, applied for many."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.turns import End, Usage
from antiphon.stores.sqlite.connection import open_database
from antiphon.stores.sqlite.deferred_changes import apply_deferred, has_deferred
from antiphon.stores.sqlite.rows import seq_of, thread_of
from antiphon.stores.sqlite.sql_files import migrate
from antiphon.stores.sqlite.store import SqliteStore
from antiphon.stores.sqlite.write_transaction import OpenTurn, WriteTransaction
from antiphon.turn.store_protocols import Head
from support.side_stores import query_file
from support.store_turns import DONE, assistant, complete_turn, new_turn, run, sqlite

ME = 7
#: A turn, or a part of one: which chat it is of, whether it has a usage, and a cost.
_Step: TypeAlias = tuple[int, bool, float | None]
_STEPS = st.tuples(st.integers(0, 3), st.booleans(), st.sampled_from([None, 0.25, 3.0]))
_COMMITS = st.lists(st.lists(_STEPS, min_size=1, max_size=5), max_size=12)


def write_commits(
    connection: sqlite3.Connection, commits: list[list[_Step]], *, defers: bool
) -> None:
    """Stores turns of four chats, so many a commit. Each ends in the commit after its beginning."""
    heads: dict[int, Head] = {}
    running: dict[str, OpenTurn] = {}
    ends: dict[str, End] = {}
    for number, steps in enumerate([*commits, []]):
        transaction = WriteTransaction(connection, ME, running)
        for response_id, end in ends.items():
            transaction.write(response_id, [assistant("a")], end)
        ends, known = {}, dict(heads)
        for position, (chat, has_usage, cost) in enumerate(steps):
            parent = known.get(chat)
            # Ids and times are the same each time.
            name = f"resp_{number + 1:016x}{position:016x}"
            at = 1_700_000_000.0 + (number * 7 + position * 3) % 11
            transaction.begin(new_turn("q", parent=parent, response_id=name, created_at=at))
            ends[name] = End("completed", 1e9, Usage(3, 5, 2) if has_usage else None, cost=cost)
            turn = transaction.changed_turns[name]
            assert turn is not None
            place = (thread_of(turn.row_id), seq_of(turn.row_id), turn.tree)
            latest = at if parent is None else max(at, parent.timestamp)
            heads[chat] = Head(name, "", *place, epoch=0, is_running=True, timestamp=latest)
        if defers:
            transaction.finish()
        else:
            transaction.flush()
        running = {name: one for name, one in transaction.changed_turns.items() if one}


def derived_tables(connection: sqlite3.Connection) -> list[list[tuple[object, ...]]]:
    return [
        connection.execute(query).fetchall()
        for query in (
            "SELECT * FROM chats ORDER BY tree",
            "SELECT * FROM usage_sums",
            "SELECT row_id FROM search_pending ORDER BY row_id",
        )
    ]


@given(_COMMITS)
def test_deferred_changes_come_to_the_same_as_changes_at_once(commits: list[list[_Step]]) -> None:
    with (
        closing(sqlite3.connect(":memory:", isolation_level=None)) as deferring,
        closing(sqlite3.connect(":memory:", isolation_level=None)) as direct,
    ):
        for connection in (deferring, direct):
            migrate(connection)
        write_commits(deferring, commits, defers=True)
        write_commits(direct, commits, defers=False)
        assert not has_deferred(direct)
        apply_deferred(deferring)
        assert not has_deferred(deferring)
        assert derived_tables(deferring) == derived_tables(direct)
        apply_deferred(deferring)
        assert derived_tables(deferring) == derived_tables(direct)


async def complete_in_turn(store: SqliteStore, count: int) -> Head:
    """A chain of so many turns, each in a commit of its own."""
    head = None
    for _ in range(count):
        head = await complete_turn(store, "spoke", parent=head)
    assert head is not None
    return head


def test_no_more_commits_than_32_are_behind(path: Path) -> None:
    async def main() -> None:
        async with sqlite(path) as store:
            for _ in range(3):
                await complete_in_turn(store, 40)
                deferred = query_file(path, "SELECT id FROM changes WHERE deferred IS NOT NULL")
                ((last,),) = query_file(path, "SELECT max(id) FROM changes")
                assert [one for (one,) in deferred] == [*range(last // 32 * 32 + 1, last + 1)]  # type: ignore[operator]

    run(main())


def test_a_process_that_dies_leaves_its_changes_to_the_next(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"

    async def live() -> None:
        async with sqlite(path) as store:
            await complete_in_turn(store, 5)
            # What is in the file when the process is killed.
            for suffix in ("", "-wal"):
                shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")

    async def look() -> None:
        async with sqlite(copy) as store:
            (chat,) = await store.stores.chats.list_chats("", 10)
            assert chat.usage.input_tokens == 5 * (DONE.usage or Usage()).input_tokens
            (used,) = await store.stores.chats.usage_sums("", 0, 10**6)
            assert used.turns == 5
            assert len(await store.stores.search.search("", "spoke", 10)) == 5

    run(live())
    assert query_file(copy, "SELECT count(*) FROM changes WHERE deferred IS NOT NULL") != [(0,)]
    run(look())


def test_another_process_sees_what_is_deferred_in_the_first(path: Path) -> None:
    async def main() -> None:
        async with sqlite(path) as one, sqlite(path) as other:
            head = await complete_turn(one)
            for turns in range(2, 5):
                head = await complete_turn(one, parent=head)
                (used,) = await other.stores.chats.usage_sums("", 0, 10**6)
                assert used.turns == turns
                (chat,) = await other.stores.chats.list_chats("", 10)
                assert chat.updated_at == head.timestamp

    run(main())


def test_an_erasure_follows_all_that_was_deferred(path: Path) -> None:
    async def main() -> None:
        async with sqlite(path) as store:
            head = await complete_in_turn(store, 4)
            assert await store.delete("", head.response_id)
            assert query_file(path, "SELECT count(*) FROM search_pending") == [(4,)]
            (chat,) = await store.stores.chats.list_chats("", 10)
            assert chat.updated_at < head.timestamp
            assert len(await store.stores.search.search("", "spoke", 10)) == 3

    run(main())


def test_a_turn_in_a_commit_of_its_own_writes_few_pages(path: Path) -> None:
    async def main() -> int:
        async with sqlite(path) as store:
            head = await complete_in_turn(store, 3)
            before = log_pages(path)
            turn = new_turn("Hi.", parent=head)
            # Both in one commit, as of a turn that runs alone.
            await asyncio.gather(
                store.begin(msgspec.structs.replace(turn, is_awaited=False)),
                store.write(turn.response_id, [assistant("Hello.")], DONE),
            )
            return log_pages(path) - before

    # Those of its texts, of its rows in log, responses and changes, and of responses by time.
    assert run(main()) <= 6


def log_pages(path: Path) -> int:
    """How many pages the write-ahead log has."""
    return Path(f"{path}-wal").stat().st_size // (4096 + 24)


def test_where_nothing_can_be_written_chats_are_read_as_they_are(path: Path) -> None:
    async def main() -> None:
        async with sqlite(path) as store:
            await complete_in_turn(store, 3)
            writer = store._database._connections.write_connection
            writer.execute("PRAGMA query_only = ON")
            (chat,) = await store.stores.chats.list_chats("", 10)
            assert chat.usage == DONE.usage
            writer.execute("PRAGMA query_only = OFF")
            (chat,) = await store.stores.chats.list_chats("", 10)
            assert chat.usage.output_tokens == 3 * (DONE.usage or Usage()).output_tokens

    run(main())


def test_a_damaged_row_does_not_stop_later_ones(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    connections = open_database(path)
    connections.write_connection.execute(
        "INSERT INTO changes (mark, body, deferred) VALUES (1, x'90', x'c1')"
    )
    for connection in (connections.write_connection, connections.read_connection):
        connection.close()
    connections.page_file.close()
    connections.process_locks.release()

    async def main() -> None:
        async with sqlite(path) as store:
            await complete_in_turn(store, 2)
            (used,) = await store.stores.chats.usage_sums("", 0, 10**6)
            assert used.turns == 2

    run(main())
    assert "damaged" in caplog.text
