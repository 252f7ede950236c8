"""The index in a SQLite file: made in the background, kept through kills, erased for good."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
from pathlib import Path

import pytest

from antiphon.core.retention import RetentionPolicy
from antiphon.stores.sqlite.rows import END_POSITION
from antiphon.stores.sqlite.search.index import SqliteSearchIndex, apply_plan, read_plan
from antiphon.stores.sqlite.search.segment import MAX_SEGMENT_TURNS
from antiphon.stores.sqlite.sql_files import migrate
from antiphon.stores.sqlite.store import SqliteStore
from antiphon.stores.sqlite.write_transaction import WriteTransaction
from antiphon.turn.store_protocols import Head
from support.side_stores import CHILD_PROGRAM, ManualClock, all_bytes, openers, query_file
from support.store_turns import DONE, assistant, complete_turn, new_turn, run, sqlite


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "turns.db"


async def found(store: SqliteStore, words: str, limit: int = 1_000, tenant: str = "") -> list[str]:
    hits = await store.stores.search.search(tenant, words, limit)
    return [hit.response_id for hit in hits]


async def many(store: SqliteStore, count: int, text: str = "common") -> list[Head]:
    """So many complete turns, in few commits."""
    return list(await asyncio.gather(*[complete_turn(store, text) for _ in range(count)]))


async def at_rest(store: SqliteStore) -> None:
    """Nothing is being indexed in the background."""
    search = store.stores.search
    assert isinstance(search, SqliteSearchIndex)
    while search._background_task is not None:  # noqa: ASYNC110
        await asyncio.sleep(0.005)


def sizes(path: Path) -> list[object]:
    """How many turns are in each chunk."""
    return [size for (size,) in query_file(path, "SELECT turns FROM search_segments ORDER BY id")]


def waiting(path: Path) -> object:
    return query_file(path, "SELECT count(*) FROM search_pending")[0][0]


def is_sound(path: Path) -> bool:
    """Every turn with words is in one chunk or waits, and every chunk's parts belong to it."""
    lost = query_file(
        path,
        "SELECT count(*) FROM log WHERE kind = 3"
        " AND row_id - ? NOT IN (SELECT row_id FROM search_pending)"
        " AND row_id - ? NOT IN (SELECT row_id FROM search_segment_turns)",
        END_POSITION,
        END_POSITION,
    )
    strays = query_file(
        path,
        "SELECT (SELECT count(*) FROM search_buckets"
        "        WHERE segment NOT IN (SELECT id FROM search_segments)),"
        "       (SELECT count(*) FROM search_segment_turns"
        "        WHERE segment NOT IN (SELECT id FROM search_segments)),"
        "       (SELECT count(*) FROM search_segment_turns)"
        "       - (SELECT total(turns) FROM search_segments)",
    )
    check = query_file(path, "PRAGMA integrity_check")
    return (lost, strays, check) == ([(0,)], [(0, 0, 0)], [("ok",)])


# When turns are indexed


async def test_a_turns_commit_only_notes_it(path: Path) -> None:
    async with sqlite(path) as store:
        await many(store, 20)
        assert (waiting(path), sizes(path)) == (20, [])
        await found(store, "nothing")
        assert (waiting(path), sizes(path)) == (0, [20])
        assert is_sound(path)


async def test_turns_are_indexed_in_the_background(path: Path) -> None:
    async with sqlite(path) as store:
        await many(store, MAX_SEGMENT_TURNS)
        await at_rest(store)
        await complete_turn(store)
        await at_rest(store)
        assert (waiting(path), sizes(path)) == (1, [MAX_SEGMENT_TURNS])
        assert len(await found(store, "common")) == MAX_SEGMENT_TURNS


async def test_indexing_keeps_up_with_turns_that_never_stop(path: Path) -> None:
    async with sqlite(path) as store, asyncio.timeout(60):
        for _ in range(5):
            await many(store, MAX_SEGMENT_TURNS)
        await at_rest(store)
        # The newest may not have been on disk yet when it was looked.
        assert sizes(path)[:3] == [MAX_SEGMENT_TURNS] * 3


async def test_a_search_behind_a_large_import_indexes_a_part_and_counts_the_rest(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SqliteSearchIndex, "on_turn_end", lambda self: None)
    async with sqlite(path) as store, asyncio.timeout(60):
        await many(store, 3 * MAX_SEGMENT_TURNS)
        last = await complete_turn(store, "last one", tenant="other")
        search = store.stores.search
        assert len(await found(store, "common")) == 2 * MAX_SEGMENT_TURNS
        assert await search.count_unsearched("") in (0, MAX_SEGMENT_TURNS)
        assert await found(store, "last", tenant="other") == [last.response_id]
        assert await search.count_unsearched("other") == 0
        await at_rest(store)
        assert len(await found(store, "common")) == 3 * MAX_SEGMENT_TURNS
        assert await search.count_unsearched("") == 0
        assert is_sound(path)


async def test_what_others_left_is_indexed_after_the_first_turn(path: Path) -> None:
    async with sqlite(path) as store:
        await many(store, MAX_SEGMENT_TURNS - 10)
    async with sqlite(path) as store:
        await many(store, 20)
    async with sqlite(path) as store:
        await complete_turn(store)
        await at_rest(store)
        assert sizes(path) == [MAX_SEGMENT_TURNS]


async def test_closing_does_not_wait_for_the_background(path: Path) -> None:
    async with sqlite(path) as store:
        await many(store, MAX_SEGMENT_TURNS)
        head = await complete_turn(store, "last one")
    async with sqlite(path) as store:
        assert await found(store, "last") == [head.response_id]
    assert is_sound(path)


async def test_few_at_a_time_become_few_chunks(path: Path) -> None:
    async with sqlite(path) as store:
        for number in range(1, 12):
            await complete_turn(store, "common")
            assert len(await found(store, "common")) == number
        # As numbers are counted by twos.
        assert sizes(path) == [8, 2, 1]
        await many(store, MAX_SEGMENT_TURNS)
        assert len(await found(store, "common")) == 11 + MAX_SEGMENT_TURNS
        assert sizes(path) == [8, 2, 1, MAX_SEGMENT_TURNS]
        assert is_sound(path)


async def test_a_tenants_search_indexes_its_own_turns(path: Path) -> None:
    async with sqlite(path) as store:
        for tenant in ("a", "b", "a"):
            await complete_turn(store, "common", tenant=tenant)
        assert len(await found(store, "common", tenant="a")) == 2
        assert (waiting(path), sizes(path)) == (1, [2])
        assert len(await found(store, "common", tenant="b")) == 1
        assert sizes(path) == [2, 1]
        assert is_sound(path)


async def test_a_turn_without_words_waits_for_nothing(path: Path) -> None:
    async with sqlite(path) as store:
        await complete_turn(store, "", "?!")
        await found(store, "word")
        assert (waiting(path), sizes(path)) == (0, [])


async def test_many_searches_at_once(path: Path) -> None:
    async with sqlite(path) as store, sqlite(path) as other:
        await many(store, 30)
        searches = [found(one, "common") for one in (store, other) * 5]
        assert [len(hits) for hits in await asyncio.gather(*searches)] == [30] * 10
        assert is_sound(path)


# What is erased


async def test_the_index_holds_no_words(path: Path) -> None:
    async with sqlite(path) as store:
        await complete_turn(store, "canaryword", "canaryword 東京都")
        assert len(await found(store, "canaryword 東京")) == 1
        before = all_bytes(path.parent)
        for table in ("search_buckets", "search_segments"):
            for row in query_file(path, f"SELECT * FROM {table}"):
                assert b"canary" not in b"".join(v for v in row if isinstance(v, bytes))
        # The same words of another chunk look different.
        drawers = {body for (body,) in query_file(path, "SELECT body FROM search_buckets")}
        await many(store, 2, "canaryword")
        await found(store, "x")
        assert drawers.isdisjoint(query_file(path, "SELECT body FROM search_buckets"))
        assert b"canaryword" in before


async def test_what_was_erased_is_in_no_file(path: Path) -> None:
    async with sqlite(path) as store:
        heads = [
            await complete_turn(store, f"canary{n}canary shared", f"zebra{n}zebra")
            for n in range(40)
        ]
        assert len(await found(store, "shared")) == 40
        ((secret,),) = query_file(path, "SELECT secret FROM search_segments")
        assert isinstance(secret, bytes)
        assert secret in all_bytes(path.parent)
        for head in heads[::2]:
            await store.delete("", head.response_id)
        assert sizes(path) == []
        await store.stores.conversations.erase_item("", heads[1].response_id, 0)
        # Erased bytes go after the answer: the next job's answer comes after that.
        await store.stores.idempotency.release("", "")
        kept = all_bytes(path.parent)
        assert secret not in kept
        assert [n for n in range(40) if b"canary%dcanary" % n in kept] == list(range(3, 40, 2))
        assert [n for n in range(40) if b"zebra%dzebra" % n in kept] == list(range(1, 40, 2))
        assert len(await found(store, "shared")) == 19
        assert is_sound(path)


async def test_what_has_expired_is_in_no_file(path: Path) -> None:
    clock = ManualClock(1_000.0)
    async with openers(path.parent)["sqlite"](clock, RetentionPolicy(100.0)) as store:
        assert isinstance(store, SqliteStore)
        for time, text in ((1_000.0, "canary one"), (1_050.0, "sparrow two")):
            new = new_turn(text, created_at=time)
            store.begin(new)
            await store.write(new.response_id, [], DONE)
        assert len(await found(store, "canary")) == 1
        clock.now = 1_120.0
        await store.stores.response_index.delete_expired()
        await store.stores.idempotency.release("", "")
        kept = all_bytes(path.parent)
        assert b"canary" not in kept
        assert b"sparrow" in kept
        assert len(await found(store, "sparrow")) == 1
        assert is_sound(path)


@pytest.mark.parametrize("erased", ["turn", "item", "merged"])
def test_a_plan_is_not_carried_out_if_words_were_erased_since(path: Path, erased: str) -> None:
    async def main() -> None:
        async with sqlite(path) as store:
            head = await complete_turn(store, "alpha", "beta")
            if erased == "merged":
                await found(store, "x")
                await complete_turn(store, "gamma")
            plan = await store._database.read_pooled(lambda reading: read_plan(reading, None, 1))
            assert plan is not None
            assert len(plan.merged_segments) == (erased == "merged")
            if erased == "turn":
                await store.delete("", head.response_id)
            else:
                await store.stores.conversations.erase_item("", head.response_id, 0)
            assert not await store._database.submit(apply_plan, plan)
            assert sizes(path) == []
            assert await found(store, "alpha") == []
            assert len(await found(store, "beta")) == (erased != "turn")
            assert not await store._database.submit(apply_plan, plan)
            assert is_sound(path)

    run(main())


async def test_a_deletion_and_indexing_in_one_commit(path: Path) -> None:
    async with sqlite(path) as store:
        head = await complete_turn(store, "alpha")
        await complete_turn(store, "beta")
        plan = await store._database.read_pooled(lambda reading: read_plan(reading, None, 1))
        done = store._database.submit(apply_plan, plan)
        await store.delete("", head.response_id)
        assert await done
        assert await found(store, "alpha") == []
        assert len(await found(store, "beta")) == 1
        assert is_sound(path)


# Other processes, dead ones too, and older files


def start(command: str, path: Path) -> subprocess.Popen[str]:
    arguments = [*CHILD_PROGRAM, command, str(path)]
    pipe = subprocess.PIPE
    return subprocess.Popen(arguments, stdin=pipe, stdout=pipe, text=True)


def kill(child: subprocess.Popen[str]) -> list[str]:
    """What else it has said, in whole lines."""
    child.kill()
    rest, _ = child.communicate()
    return [line for line in rest.splitlines(keepends=True) if line.endswith("\n")]


async def test_a_kill_in_the_middle_of_indexing_loses_nothing(path: Path) -> None:
    async with sqlite(path) as store:
        await many(store, 100)
        await found(store, "x")
        await many(store, 120)
    child = start("half", path)
    assert child.stdout is not None
    assert await asyncio.to_thread(child.stdout.readline) == "half\n"
    kill(child)
    async with sqlite(path) as store:
        assert (waiting(path), sizes(path)) == (120, [100])
        assert len(await found(store, "common")) == 220
        assert is_sound(path)


def test_what_another_process_acknowledged_is_found_before_and_after_its_kill(path: Path) -> None:
    async def main() -> None:
        child = start("talk", path)
        assert child.stdout is not None
        lines = [await asyncio.to_thread(child.stdout.readline) for _ in range(40)]
        async with sqlite(path) as store:
            for line in lines[::5]:
                response_id, word = line.split()
                assert await found(store, word) == [response_id]
            lines += kill(child)
            for line in lines:
                response_id, word = line.split()
                assert await found(store, word) == [response_id]
            assert len(await found(store, "spoke", 100_000)) >= len(lines)
        assert is_sound(path)

    run(main())


async def test_turns_that_a_dead_process_left_are_found(path: Path) -> None:
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
        # The last was left running by a process that is no more: it ends now.
        ids = {turn.response_id for turn in turns[1:]}
        assert set(await found(store, "from before")) == ids
        assert await found(store, "before 2 indeed") == [turns[2].response_id]
        await store.delete("", turns[2].response_id)
        assert set(await found(store, "before")) == ids - {turns[2].response_id}
        assert is_sound(path)
