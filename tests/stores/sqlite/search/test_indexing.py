"""The search index in a SQLite file: built in the background, crash safe, and securely erased."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
from pathlib import Path

import pytest

from antiphon.core.retention import RetentionPolicy
from antiphon.stores.sqlite.rows import END_POSITION
from antiphon.stores.sqlite.search.index import SqliteSearchIndex
from antiphon.stores.sqlite.search.indexing import apply_plan, read_plan
from antiphon.stores.sqlite.search.segment import MAX_SEGMENT_TURNS
from antiphon.stores.sqlite.sql_files import migrate
from antiphon.stores.sqlite.store import SqliteStore
from antiphon.stores.sqlite.write_transaction import WriteTransaction
from antiphon.turn.store_protocols import Head
from support.side_stores import CHILD_PROGRAM, all_bytes, apply_deferred_in, query_file
from support.store_turns import (
    DONE,
    ManualClock,
    assistant,
    complete_turn,
    new_turn,
    opener,
    run,
    sqlite,
)


async def search_ids(
    store: SqliteStore, words: str, limit: int = 1_000, tenant: str = ""
) -> list[str]:
    hits = await store.stores.search.search(tenant, words, limit)
    return [hit.response_id for hit in hits]


async def complete_many(store: SqliteStore, count: int, text: str = "common") -> list[Head]:
    """Completes so many turns, in few commits."""
    return list(await asyncio.gather(*[complete_turn(store, text) for _ in range(count)]))


async def wait_until_indexed(store: SqliteStore) -> None:
    """Waits until no background indexing runs."""
    search = store.stores.search
    assert isinstance(search, SqliteSearchIndex)
    while search._background_task is not None:  # noqa: ASYNC110
        await asyncio.sleep(0.005)


def segment_sizes(path: Path) -> list[object]:
    """The number of turns in each segment, the largest first."""
    rows = query_file(path, "SELECT turns FROM search_segments ORDER BY turns DESC")
    return [size for (size,) in rows]


def pending_count(path: Path) -> object:
    apply_deferred_in(path)
    return query_file(path, "SELECT count(*) FROM search_pending")[0][0]


def is_consistent(path: Path) -> bool:
    """Every turn with text is in one segment or pending, and every row belongs to a segment."""
    apply_deferred_in(path)
    unindexed = query_file(
        path,
        "SELECT count(*) FROM log WHERE kind = 3"
        " AND row_id - ? NOT IN (SELECT row_id FROM search_pending)"
        " AND row_id - ? NOT IN (SELECT row_id FROM search_segment_turns)",
        END_POSITION,
        END_POSITION,
    )
    owners = "(SELECT id FROM search_segments UNION SELECT id FROM search_groups)"
    strays = query_file(
        path,
        f"SELECT (SELECT count(*) FROM search_buckets WHERE id >> 16 NOT IN {owners}),"
        "       (SELECT count(*) FROM search_segment_turns"
        "        WHERE segment NOT IN (SELECT id FROM search_segments)),"
        "       (SELECT count(*) FROM search_segment_turns)"
        "       - (SELECT total(turns) FROM search_segments),"
        "       (SELECT count(*) FROM search_secrets"
        f"        WHERE (secret = zeroblob(16)) = (id IN {owners})),"
        "       (SELECT count(*) FROM search_segments"
        "        WHERE group_id IS NOT NULL AND group_id NOT IN (SELECT id FROM search_groups)),"
        "       (SELECT total(turns) FROM search_segments WHERE group_id IS NOT NULL)"
        "       - (SELECT total(turns) FROM search_groups)",
    )
    check = query_file(path, "PRAGMA integrity_check")
    return (unindexed, strays, check) == ([(0,)], [(0, 0, 0, 0, 0, 0)], [("ok",)])


# When turns are indexed


async def test_commit_of_a_turn_only_marks_it_as_pending(path: Path) -> None:
    async with sqlite(path) as store:
        await complete_many(store, 20)
        assert (pending_count(path), segment_sizes(path)) == (20, [])
        await search_ids(store, "nothing")
        assert (pending_count(path), segment_sizes(path)) == (0, [20])
        assert is_consistent(path)


async def test_full_segments_are_indexed_in_the_background(path: Path) -> None:
    async with sqlite(path) as store:
        await complete_many(store, MAX_SEGMENT_TURNS)
        await wait_until_indexed(store)
        await complete_turn(store)
        await wait_until_indexed(store)
        assert (pending_count(path), segment_sizes(path)) == (1, [MAX_SEGMENT_TURNS])
        assert len(await search_ids(store, "common")) == MAX_SEGMENT_TURNS


async def test_one_of_several_stores_indexes_and_the_others_leave_it_to_that(path: Path) -> None:
    async with sqlite(path) as first, sqlite(path) as second:
        assert first._database.begin_indexing()
        await complete_many(second, 2 * MAX_SEGMENT_TURNS)
        await wait_until_indexed(second)
        assert segment_sizes(path) == []
        first._database.end_indexing()
        await complete_many(second, MAX_SEGMENT_TURNS)
        await wait_until_indexed(second)
        assert segment_sizes(path) == [MAX_SEGMENT_TURNS] * 3


async def test_background_indexing_keeps_up_with_continuous_turns(path: Path) -> None:
    async with sqlite(path) as store, asyncio.timeout(60):
        for _ in range(5):
            await complete_many(store, MAX_SEGMENT_TURNS)
        await wait_until_indexed(store)
        # The newest turns may not have been on disk yet when pending turns were read.
        assert segment_sizes(path)[:3] == [MAX_SEGMENT_TURNS] * 3


async def test_search_after_a_large_import_indexes_a_part_and_counts_the_rest(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SqliteSearchIndex, "on_turn_end", lambda self: None)
    async with sqlite(path) as store, asyncio.timeout(60):
        await complete_many(store, 3 * MAX_SEGMENT_TURNS)
        last = await complete_turn(store, "last one", tenant="other")
        search = store.stores.search
        assert len(await search_ids(store, "common")) == 2 * MAX_SEGMENT_TURNS
        assert await search.count_unsearched("") in (0, MAX_SEGMENT_TURNS)
        assert await search_ids(store, "last", tenant="other") == [last.response_id]
        assert await search.count_unsearched("other") == 0
        await wait_until_indexed(store)
        assert len(await search_ids(store, "common")) == 3 * MAX_SEGMENT_TURNS
        assert await search.count_unsearched("") == 0
        assert is_consistent(path)


async def test_pending_turns_of_earlier_processes_are_indexed_after_the_first_turn(
    path: Path,
) -> None:
    async with sqlite(path) as store:
        await complete_many(store, MAX_SEGMENT_TURNS - 10)
    async with sqlite(path) as store:
        await complete_many(store, 20)
    async with sqlite(path) as store:
        await complete_turn(store)
        await wait_until_indexed(store)
        assert segment_sizes(path) == [MAX_SEGMENT_TURNS]


async def test_closing_does_not_wait_for_background_indexing(path: Path) -> None:
    async with sqlite(path) as store:
        await complete_many(store, MAX_SEGMENT_TURNS)
        head = await complete_turn(store, "last one")
    async with sqlite(path) as store:
        assert await search_ids(store, "last") == [head.response_id]
    assert is_consistent(path)


async def test_small_segments_are_merged(path: Path) -> None:
    async with sqlite(path) as store:
        for number in range(1, 12):
            await complete_turn(store, "common")
            assert len(await search_ids(store, "common")) == number
        # Segments merge like binary digits.
        assert segment_sizes(path) == [8, 2, 1]
        await complete_many(store, MAX_SEGMENT_TURNS)
        assert len(await search_ids(store, "common")) == 11 + MAX_SEGMENT_TURNS
        assert segment_sizes(path) == [MAX_SEGMENT_TURNS, 8, 2, 1]
        assert is_consistent(path)


async def test_search_indexes_only_pending_turns_of_its_tenant(path: Path) -> None:
    async with sqlite(path) as store:
        for tenant in ("a", "b", "a"):
            await complete_turn(store, "common", tenant=tenant)
        assert len(await search_ids(store, "common", tenant="a")) == 2
        assert (pending_count(path), segment_sizes(path)) == (1, [2])
        assert len(await search_ids(store, "common", tenant="b")) == 1
        assert segment_sizes(path) == [2, 1]
        assert is_consistent(path)


async def test_turn_without_text_is_not_pending(path: Path) -> None:
    async with sqlite(path) as store:
        await complete_turn(store, "", "?!")
        await search_ids(store, "word")
        assert (pending_count(path), segment_sizes(path)) == (0, [])


async def test_concurrent_searches_in_two_stores_agree(path: Path) -> None:
    async with sqlite(path) as store, sqlite(path) as other:
        await complete_many(store, 30)
        searches = [search_ids(one, "common") for one in (store, other) * 5]
        assert [len(hits) for hits in await asyncio.gather(*searches)] == [30] * 10
        assert is_consistent(path)


# Erasure


async def test_index_contains_no_plain_words(path: Path) -> None:
    async with sqlite(path) as store:
        await complete_turn(store, "canaryword", "canaryword 東京都")
        assert len(await search_ids(store, "canaryword 東京")) == 1
        before = all_bytes(path.parent)
        for table in ("search_buckets", "search_segments"):
            for row in query_file(path, f"SELECT * FROM {table}"):
                assert b"canary" not in b"".join(v for v in row if isinstance(v, bytes))
        # The same words look different in another segment.
        bodies = {body for (body,) in query_file(path, "SELECT body FROM search_buckets")}
        await complete_many(store, 2, "canaryword")
        await search_ids(store, "x")
        assert bodies.isdisjoint(query_file(path, "SELECT body FROM search_buckets"))
        assert b"canaryword" in before


async def test_erased_words_and_segment_secrets_are_in_no_file(path: Path) -> None:
    async with sqlite(path) as store:
        heads = [
            await complete_turn(store, f"canary{n}canary shared", f"zebra{n}zebra")
            for n in range(40)
        ]
        assert len(await search_ids(store, "shared")) == 40
        ((secret,),) = query_file(path, "SELECT secret FROM search_secrets")
        assert isinstance(secret, bytes)
        assert secret in all_bytes(path.parent)
        for head in heads[::2]:
            await store.delete("", head.response_id)
        assert segment_sizes(path) == [20]
        await store.stores.conversations.erase_item("", heads[1].response_id, 0)
        # Erased bytes are overwritten after the deletion returns, and before the next job returns.
        await store.stores.idempotency.release("", "")
        file_bytes = all_bytes(path.parent)
        assert secret not in file_bytes
        assert [n for n in range(40) if b"canary%dcanary" % n in file_bytes] == list(
            range(3, 40, 2)
        )
        assert [n for n in range(40) if b"zebra%dzebra" % n in file_bytes] == list(range(1, 40, 2))
        assert len(await search_ids(store, "shared")) == 19
        assert is_consistent(path)


async def test_expired_words_are_in_no_file(path: Path) -> None:
    clock = ManualClock(1_000.0)
    async with opener("sqlite", path.parent)(clock, RetentionPolicy(100.0)) as store:
        assert isinstance(store, SqliteStore)
        for time, text in ((1_000.0, "canary one"), (1_050.0, "sparrow two")):
            new = new_turn(text, created_at=time)
            store.begin(new)
            await store.write(new.response_id, [], DONE)
        assert len(await search_ids(store, "canary")) == 1
        clock.now = 1_120.0
        await store.stores.response_index.delete_expired()
        await store.stores.idempotency.release("", "")
        file_bytes = all_bytes(path.parent)
        assert b"canary" not in file_bytes
        assert b"sparrow" in file_bytes
        assert len(await search_ids(store, "sparrow")) == 1
        assert is_consistent(path)


@pytest.mark.parametrize("erased", ["turn", "item", "merged"])
def test_index_plan_is_discarded_after_an_erasure(path: Path, erased: str) -> None:
    async def main() -> None:
        async with sqlite(path) as store:
            head = await complete_turn(store, "alpha", "beta")
            if erased == "merged":
                await search_ids(store, "x")
                await complete_turn(store, "gamma")
            await store._database.apply_deferred()
            plan = await store._database.read_pooled(lambda reading: read_plan(reading, None, 1))
            assert plan is not None
            assert len(plan.merged_segments) == (erased == "merged")
            if erased == "turn":
                await store.delete("", head.response_id)
            else:
                await store.stores.conversations.erase_item("", head.response_id, 0)
            assert not await store._database.submit(apply_plan, plan)
            assert segment_sizes(path) == []
            assert await search_ids(store, "alpha") == []
            assert len(await search_ids(store, "beta")) == (erased != "turn")
            assert not await store._database.submit(apply_plan, plan)
            assert is_consistent(path)

    run(main())


async def test_deletion_and_indexing_share_a_commit(path: Path) -> None:
    async with sqlite(path) as store:
        head = await complete_turn(store, "alpha")
        await complete_turn(store, "beta")
        await store._database.apply_deferred()
        plan = await store._database.read_pooled(lambda reading: read_plan(reading, None, 1))
        done = store._database.submit(apply_plan, plan)
        await store.delete("", head.response_id)
        assert await done
        assert await search_ids(store, "alpha") == []
        assert len(await search_ids(store, "beta")) == 1
        assert is_consistent(path)


# Other processes, and killed ones


def start(command: str, path: Path) -> subprocess.Popen[str]:
    arguments = [*CHILD_PROGRAM, command, str(path)]
    pipe = subprocess.PIPE
    return subprocess.Popen(arguments, stdin=pipe, stdout=pipe, text=True)


def kill(child: subprocess.Popen[str]) -> list[str]:
    """Kills the child; returns its remaining output, in whole lines."""
    child.kill()
    rest, _ = child.communicate()
    return [line for line in rest.splitlines(keepends=True) if line.endswith("\n")]


async def test_kill_during_indexing_loses_no_turn(path: Path) -> None:
    async with sqlite(path) as store:
        await complete_many(store, 100)
        await search_ids(store, "x")
        await complete_many(store, 120)
    child = start("half", path)
    assert child.stdout is not None
    assert await asyncio.to_thread(child.stdout.readline) == "half\n"
    kill(child)
    async with sqlite(path) as store:
        assert (pending_count(path), segment_sizes(path)) == (120, [100])
        assert len(await search_ids(store, "common")) == 220
        assert is_consistent(path)


def test_acknowledged_turns_of_a_killed_process_are_found(path: Path) -> None:
    async def main() -> None:
        child = start("talk", path)
        assert child.stdout is not None
        lines = [await asyncio.to_thread(child.stdout.readline) for _ in range(40)]
        async with sqlite(path) as store:
            for line in lines[::5]:
                response_id, word = line.split()
                assert await search_ids(store, word) == [response_id]
            lines += kill(child)
            for line in lines:
                response_id, word = line.split()
                assert await search_ids(store, word) == [response_id]
            assert len(await search_ids(store, "spoke", 100_000)) >= len(lines)
        assert is_consistent(path)

    run(main())


async def test_unindexed_turns_of_a_dead_process_are_found(path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection)
    batch = WriteTransaction(connection, 7, {})
    turns = [new_turn(f"from before {number}") for number in range(4)]
    for turn in turns:
        batch.begin(turn)
    for turn in turns[:3]:
        batch.write(turn.response_id, [assistant("indeed")], DONE)
    assert batch.delete("", turns[0].response_id, False)
    batch.flush()
    connection.close()
    async with sqlite(path) as store:
        # The last turn was running in a dead process: it is ended on opening.
        ids = {turn.response_id for turn in turns[1:]}
        assert set(await search_ids(store, "from before")) == ids
        assert await search_ids(store, "before 2 indeed") == [turns[2].response_id]
        await store.delete("", turns[2].response_id)
        assert set(await search_ids(store, "before")) == ids - {turns[2].response_id}
        assert is_consistent(path)
