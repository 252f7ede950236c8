"""The SQLite store: files, several processes, kills, and full disks."""

from __future__ import annotations

import asyncio
import os
import random
import stat
from pathlib import Path

import pytest

from antiphon.core.turns import TurnError
from antiphon.errors import StoreError
from antiphon.stores.interrupted_turns import interrupted_end
from antiphon.stores.sqlite.store import SqliteStore, open_sqlite
from antiphon.turn.store_protocols import Head
from support.side_stores import query_file
from support.store_subprocess import child, line
from support.store_turns import (
    DONE,
    assistant,
    begin_turn,
    complete_turn,
    complete_turns,
    head_of,
    ids,
    ids_of,
    new_turn,
    run,
    sqlite,
    user,
)
from support.stored_responses import response_ids

INTERRUPTED = interrupted_end().error
#: The bytes of all texts, and the number of rows.
SIZES = "SELECT sum(length(body)), (SELECT count(*) FROM log) FROM texts"


async def open_and_close(path: Path) -> None:
    async with sqlite(path):
        pass


# Durability


async def test_turns_persist_after_reopening(path: Path) -> None:
    async with sqlite(path) as store:
        heads = await complete_turns(store, 3)
        branch = await complete_turn(store, parent=heads[0])
        turns = await store.chain(heads[-1])
    async with sqlite(path) as store:
        assert await head_of(store, heads[-1].response_id) == heads[-1]
        assert await store.chain(heads[-1]) == turns
        later = await complete_turn(store, parent=heads[-1])
        assert (later.thread, later.seq) == (heads[-1].thread, 3)
        other = await complete_turn(store, parent=branch)
        assert await ids_of(store, other) == ids([heads[0], branch, other])


async def test_closing_writes_all_queued_turns(path: Path) -> None:
    store = await open_sqlite(path)
    turns = [new_turn(str(number)) for number in range(100)]
    futures = [store.begin(turn) for turn in turns]
    futures += [store.write(turn.response_id, [], DONE) for turn in turns]
    await store.close()
    assert all(future.done() and future.exception() is None for future in futures)
    async with sqlite(path) as store:
        for turn in turns:
            assert not (await head_of(store, turn.response_id)).is_running


async def test_closing_fails_running_turns_as_interrupted(path: Path) -> None:
    async with sqlite(path) as store:
        head = await begin_turn(store)
    async with sqlite(path) as store:
        turn = await store.turn("", head.response_id)
        assert turn is not None
        assert turn.end is not None
        assert (turn.end.status, turn.end.error) == ("failed", INTERRUPTED)


async def test_bytes_written_per_turn_do_not_grow_with_the_chain(path: Path) -> None:
    """Measures the write-ahead log, the only file that a commit writes to.

    It is emptied before each turn, so its size is what that turn wrote: whole pages, and
    a page more whenever one is full. Hence the sum of ten turns, not one turn's.
    """
    async with sqlite(path) as store:
        parent: Head | None = None
        written = []
        for number in range(210):
            query_file(path, "PRAGMA wal_checkpoint(TRUNCATE)")
            parent = await complete_turn(store, f"{number:090}", f"{number:0190}", parent)
            written.append(path.with_name("turns.db-wal").stat().st_size)
        early, late = sum(written[1:11]), sum(written[199:209])
        assert 0.9 < late / early < 1.1
        # A branch from the end shares all earlier turns, and adds only its thread.
        query_file(path, "PRAGMA wal_checkpoint(TRUNCATE)")
        before = query_file(path, SIZES)[0]
        await complete_turn(store, f"{0:090}", f"{0:0190}", parent)
        assert parent is not None
        ancestor = await head_of(store, (await store.chain(parent))[100].response_id)
        after = query_file(path, SIZES)[0]
        await complete_turn(store, f"{0:090}", f"{0:0190}", ancestor)
        branched = query_file(path, SIZES)[0]
        assert after[0] is not None
        assert [b - a for a, b in zip(after, branched, strict=True)] == [  # type: ignore[operator]
            b - a  # type: ignore[operator]
            for a, b in zip(before, after, strict=True)
        ]


def test_file_size_is_close_to_the_text_size(path: Path) -> None:
    words = 150
    run(open_and_close(path.with_name("empty.db")))
    empty = path.with_name("empty.db").stat().st_size

    async def complete_chain(store: SqliteStore) -> None:
        parent: Head | None = None
        for _ in range(20):
            parent = await complete_turn(store, "u" * words, "a" * words, parent)

    async def main() -> None:
        async with sqlite(path) as store:
            await asyncio.gather(*[complete_chain(store) for _ in range(32)])

    run(main())
    assert path.stat().st_size - empty <= 32 * 20 * (1.5 * 2 * words + 500)


async def test_closing_removes_the_write_ahead_log(path: Path) -> None:
    async with sqlite(path) as store:
        await complete_turns(store, 3)
        assert path.with_name("turns.db-wal").stat().st_size > 0
    assert sorted(entry.name for entry in path.parent.iterdir()) == [
        "turns.db",
        "turns.db-owners",
    ]


async def test_deleted_text_is_in_no_file(path: Path) -> None:
    async with sqlite(path) as store:
        first = await complete_turn(store, "unspeakable question", "unspeakable answer")
        second = await complete_turn(store, "harmless question", parent=first)
        long = await complete_turn(store, "unspeakable " * 2000, parent=second)
        await store.delete("", first.response_id)
        await store.delete("", long.response_id)
        # Erased text is overwritten after the deletion returns, and before the next job returns.
        await store.write(second.response_id, [], DONE)
        files = [path, path.with_name("turns.db-wal")]
        file_bytes = b"".join(file.read_bytes() for file in files)
        assert b"harmless" in file_bytes
        assert b"unspeakable" not in file_bytes
    rows = query_file(path, "SELECT kind, length(key) FROM log WHERE kind NOT IN (0, 1, 2, 3)")
    assert rows == [(4, 16), (4, 16)]
    assert query_file(path, "SELECT count(*) FROM log") == [(6,)]


# Several stores and processes


async def test_two_stores_on_one_file_see_each_others_turns(path: Path) -> None:
    async with sqlite(path) as one, sqlite(path) as two:
        parent = await complete_turn(one)
        assert await two.head("", parent.response_id) == parent
        children = [new_turn(str(number), parent=parent) for number in range(10)]
        writers = [one, two] * 5
        await asyncio.gather(
            *[store.begin(new) for store, new in zip(writers, children, strict=True)]
        )
        heads = [await head_of(one, new.response_id) for new in children]
        assert len({(head.thread, head.seq) for head in heads}) == 10
        # A turn that runs in the other store is also running here.
        assert all([(await head_of(two, head.response_id)).is_running for head in heads])
        for head, reader in zip(heads, reversed(writers), strict=True):
            assert await ids_of(reader, head) == ids([parent, head])


async def test_turn_deleted_by_another_store_ignores_writes(path: Path) -> None:
    async with sqlite(path) as one, sqlite(path) as two:
        head = await begin_turn(one)
        assert await two.delete("", head.response_id)
        await one.write(head.response_id, [assistant("late")], DONE)
        assert await one.turn("", head.response_id) is None
    assert query_file(path, "SELECT kind FROM log") == [(4,)]


async def test_another_process_can_share_the_file(path: Path) -> None:
    async with sqlite(path) as store:
        mine = await begin_turn(store)
        with child("open", path) as process:
            theirs = line(process)
            assert await asyncio.to_thread(process.wait) == 0
        assert not (await head_of(store, theirs)).is_running
        assert (await head_of(store, mine.response_id)).is_running
        await store.write(mine.response_id, [], DONE)
        assert await store.turn("", theirs) is not None


async def test_turn_of_another_process_runs_until_it_is_killed(path: Path) -> None:
    with child("hold", path) as process:
        file_bytes = line(process)
        async with sqlite(path) as store:
            head = await head_of(store, file_bytes)
            assert head.is_running
            turn = await store.turn("", file_bytes)
            assert turn is not None
            assert turn.end is None
            process.kill()
            process.wait()
            # Another open store sees it in every read.
            (turn,) = await store.chain(head)
            assert turn.end is not None
            assert (turn.end.status, turn.end.error) == ("failed", INTERRUPTED)
            assert (turn.input, turn.output) == (
                (user("Wait for me."),),
                (assistant("I will"),),
            )
            assert not (await head_of(store, file_bytes)).is_running


@pytest.mark.parametrize("ask", ["head", "turn", "open"])
async def test_turns_of_a_dead_process_are_failed_on_access(path: Path, ask: str) -> None:
    async with sqlite(path) as store:
        with child("hold", path) as process:
            file_bytes = line(process)
        if ask == "head":
            assert not (await head_of(store, file_bytes)).is_running
        elif ask == "turn":
            turn = await store.turn("", file_bytes)
            assert turn is not None
            assert turn.end is not None
            assert isinstance(turn.end.error, TurnError)
            assert turn.end.error.code == "interrupted"
        else:
            async with sqlite(path):
                pass
    assert query_file(path, "SELECT count(*) FROM running") == [(0,)]


async def test_opening_removes_locks_of_dead_processes(path: Path) -> None:
    with child("hold", path) as process:
        line(process)
    locks = path.with_name("turns.db-owners")
    (dead,) = [file for file in locks.iterdir() if file.name != "gate.lock"]
    async with sqlite(path):
        assert not dead.exists()
        assert len(list(locks.iterdir())) == 2
    assert [file.name for file in locks.iterdir()] == ["gate.lock"]


async def test_processes_can_create_the_file_concurrently(path: Path) -> None:
    with child("open", path) as one, child("open", path) as two, child("open", path) as three:
        created_ids = {line(one), line(two), line(three)}
        assert [process.wait() for process in (one, two, three)] == [0, 0, 0]

    async with sqlite(path) as store:
        assert set(await response_ids(store)) == created_ids


def test_kill_loses_no_confirmed_turn(path: Path) -> None:
    generator = random.Random(7)
    confirmed: dict[str, tuple[str, str]] = {}

    async def check_confirmed(store: SqliteStore) -> None:
        for response_id, (lines, parent) in confirmed.items():
            turn = await store.turn("", response_id)
            assert turn is not None
            assert turn.input == (user(f"{lines}?"),)
            assert turn.output == (assistant(f"{lines}."), assistant(f"{lines}!"))
            assert turn.end == DONE
            assert (turn.previous_response_id or "-") == parent

    async def main() -> None:
        async with sqlite(path) as store:
            await check_confirmed(store)
            for chat in await store.stores.chats.list_chats("", 1_000_000):
                turns = await store.chain(await head_of(store, chat.head))
                assert len(turns) == chat.turns
                assert all(turn.end for turn in turns)

    for _ in range(10):
        with child("talk", path) as process:
            lines = [line(process) for _ in range(generator.randrange(1, 60))]
            process.kill()
            assert process.stdout is not None
            # Its output before the kill, without an incomplete last line.
            lines += [rest for rest in process.stdout.read().split("\n")[:-1] if rest]
        confirmed.update((id, (text, parent)) for id, text, parent in map(str.split, lines))
        run(main())
    assert query_file(path, "SELECT count(*) FROM running") == [(0,)]
    assert query_file(path, "PRAGMA integrity_check") == [("ok",)]


# Failures


def test_full_disk_is_an_error_until_space_is_free(path: Path) -> None:
    with child("full", path, "300000") as process:
        turns, sentence = line(process).split(" ", 1)
        assert process.wait() == 0
    assert turns == "2"
    assert "disk" in sentence


async def test_damaged_file_is_a_store_error(path: Path) -> None:
    async with sqlite(path) as store:
        heads = await complete_turns(store, 30)
    async with sqlite(path) as store:
        with path.open("r+b") as file:
            # All pages except the first, which has the schema.
            file.seek(4096)
            file.write(os.urandom(os.fstat(file.fileno()).st_size - 4096))
        for reading in (
            store.head("", heads[0].response_id),
            store.turn("", heads[0].response_id),
            store.chain(heads[-1]),
            store.stores.chats.list_chats("", 9),
        ):
            with pytest.raises(StoreError, match="damaged"):
                await reading
        with pytest.raises(StoreError, match="damaged"):
            await store.begin(new_turn("Hi."))


async def test_invalid_rows_are_a_store_error(path: Path) -> None:
    async with sqlite(path) as store:
        head = await complete_turn(store)
        for damage in ("key = x'00'", "key = NULL", "text = NULL", "text = 99"):
            query_file(path, f"UPDATE log SET {damage} WHERE kind = 0")
            with pytest.raises(StoreError):
                await store.turn("", head.response_id)
            with pytest.raises(StoreError):
                await response_ids(store)


async def test_read_waits_for_a_lock(path: Path) -> None:
    async with sqlite(path) as store:
        head = await complete_turn(store)
        with child("maim", path) as process:
            line(process)
            reading = asyncio.ensure_future(store.head("", head.response_id))
            # The read runs up to the lock first.
            await asyncio.sleep(0)
            assert not reading.done()
            process.communicate("die\n")
            assert await reading == head


async def test_files_are_readable_by_the_user_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "turns.db"

    def mode(file: Path) -> int:
        return stat.S_IMODE(file.stat().st_mode)

    old = os.umask(0)
    try:
        async with sqlite(path) as store:
            await complete_turn(store)
            files = [path, *(path.with_name(f"turns.db-{end}") for end in ("wal", "shm"))]
            locks = path.with_name("turns.db-owners")
            assert [mode(file) for file in files] == [0o600] * 3
            assert [mode(folder) for folder in (path.parent, locks)] == [0o700] * 2
            assert {mode(file) for file in locks.iterdir()} == {0o600}
    finally:
        os.umask(old)
