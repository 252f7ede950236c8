"""What was erased is in no file of the store, whichever way it went and whoever was reading."""

from __future__ import annotations

import asyncio
import random
import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import msgspec
import pytest

from antiphon.core.items import Compaction, encode_item
from antiphon.core.retention import RetentionPolicy
from antiphon.stores.sqlite.deletion import ErasedRows
from antiphon.stores.sqlite.page_scrubbing import DirtyPages, find_dirty_pages
from antiphon.stores.sqlite.store import SqliteStore, open_sqlite
from antiphon.turn.store_protocols import Head
from support.store_subprocess import child, line
from support.store_turns import (
    DONE,
    HEADER,
    ManualTime,
    assistant,
    complete_turn,
    head_of,
    new_turn,
    run,
)

LIFE = 1000.0
#: Puts canaries into a store and erases them.
Way: TypeAlias = Callable[[SqliteStore, "Cage", ManualTime], Awaitable[None]]
CANARY = re.compile(rb"canary[0-9]{6}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "turns.db"


@asynccontextmanager
async def opened(path: Path, time: ManualTime) -> AsyncIterator[SqliteStore]:
    store = await open_sqlite(path, RetentionPolicy(LIFE), clock=time)
    try:
        yield store
    finally:
        await store.close()


def held(path: Path) -> set[str]:
    """The canaries in all files of the folder."""
    files = [file for file in path.parent.rglob("*") if file.is_file()]
    return {found.decode() for file in files for found in CANARY.findall(file.read_bytes())}


async def cleaned(store: SqliteStore) -> None:
    """Returns when all that the store has erased is gone from its files."""
    ground = store._database
    async with asyncio.timeout(10):
        while ground.erasures.is_pending:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class Cage:
    """Makes canaries, and knows which are still to be seen."""

    def __init__(self) -> None:
        self.made = 0
        self.alive: set[str] = set()

    def canary(self) -> str:
        self.made += 1
        name = f"canary{self.made:06}"
        self.alive.add(name)
        return name


async def said(
    store: SqliteStore, cage: Cage, time: ManualTime, parent: Head | None = None
) -> Head:
    """A turn of three canaries: what is asked, what is shown, what is answered."""
    new = new_turn(
        cage.canary() * 3, parent=parent, images=[cage.canary().encode()], created_at=time.now
    )
    await store.begin(new)
    await store.write(new.response_id, [assistant(f"{cage.canary()} " * 30)], DONE)
    return await head_of(store, new.response_id)


async def swept(store: SqliteStore, cage: Cage, time: ManualTime) -> None:
    first = await said(store, cage, time)
    await said(store, cage, time, first)
    await store.stores.conversations.create("", {"about": cage.canary()})
    time.now += LIFE
    assert await store.stores.response_index.delete_expired() == 2


async def deleted(store: SqliteStore, cage: Cage, time: ManualTime) -> None:
    parent = await complete_turn(store, "harmless")
    head = await said(store, cage, time, parent)
    await complete_turn(store, "harmless", parent=head)
    assert await store.delete("", head.response_id)


async def deleted_with_descendants(store: SqliteStore, cage: Cage, time: ManualTime) -> None:
    root = await complete_turn(store, "harmless")
    await complete_turn(store, "harmless", parent=root)
    branch = await said(store, cage, time, root)
    for _ in range(2):
        await said(store, cage, time, branch)
    assert await store.delete("", branch.response_id, cascade=True)


async def conversation_deleted(store: SqliteStore, cage: Cage, time: ManualTime) -> None:
    talk = await store.stores.conversations.create("", {"about": cage.canary()})
    header = msgspec.structs.replace(HEADER, conversation=talk.id, instructions=cage.canary())
    new = new_turn(cage.canary(), header=header, created_at=time.now)
    await store.begin(msgspec.structs.replace(new, conversation=talk))
    await store.write(new.response_id, [assistant(cage.canary())], DONE)
    assert await store.stores.conversations.delete("", talk.id)


async def conversation_described_anew(store: SqliteStore, cage: Cage, time: ManualTime) -> None:
    talk = await store.stores.conversations.create("", {"about": cage.canary()})
    assert await store.stores.conversations.update_metadata("", talk.id, {"about": "nothing"})


async def items_erased(store: SqliteStore, cage: Cage, time: ManualTime) -> None:
    head = await said(store, cage, time)
    for position in range(3):
        assert await store.stores.conversations.erase_item("", head.response_id, position)


async def summed_up(store: SqliteStore, cage: Cage, head: Head) -> Head:
    """A turn that tells of all before it."""
    new = new_turn(parent=head)
    await store.begin(new)
    words = encode_item(Compaction(f"They said {cage.canary()}.", replaced_turns=1))
    await store.write(new.response_id, [words], DONE)
    return await head_of(store, new.response_id)


async def deleted_under_a_summary(store: SqliteStore, cage: Cage, time: ManualTime) -> None:
    head = await said(store, cage, time)
    after = await summed_up(store, cage, await complete_turn(store, "harmless", parent=head))
    await summed_up(store, cage, await complete_turn(store, "harmless", parent=after))
    # A branch is a thread of its own.
    await summed_up(store, cage, await complete_turn(store, "harmless", parent=head))
    assert await store.delete("", head.response_id)


async def items_erased_under_a_summary(store: SqliteStore, cage: Cage, time: ManualTime) -> None:
    head = await said(store, cage, time)
    await summed_up(store, cage, await complete_turn(store, "harmless", parent=head))
    for position in range(3):
        assert await store.stores.conversations.erase_item("", head.response_id, position)


@pytest.mark.parametrize(
    "way",
    [
        swept,
        deleted,
        deleted_with_descendants,
        conversation_deleted,
        conversation_described_anew,
        items_erased,
        deleted_under_a_summary,
        items_erased_under_a_summary,
    ],
)
async def test_each_way_of_erasing_leaves_nothing(path: Path, way: Way) -> None:
    time, kept, gone = ManualTime(), Cage(), Cage()
    gone.made = 500_000
    async with opened(path, time) as store:
        await way(store, gone, time)
        await said(store, kept, time)
        await cleaned(store)
        assert gone.alive
        assert held(path) == kept.alive
    assert held(path) == kept.alive


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(n, marks=pytest.mark.soak) for n in range(1, 20))]
)
async def test_nothing_is_left_of_rows_that_were_moved(
    path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, closed: bool
) -> None:
    """Conversations that grow side by side split each other's pages."""
    if closed:
        # All that is to be cleaned is left to the closing.
        monkeypatch.setattr("antiphon.stores.sqlite.page_scrubbing._SCRUB_DELAY", 1000)
    luck = random.Random(seed)
    cage = Cage()
    left: dict[str, str] = {}
    tips: list[Head | None] = [None] * 12
    async with opened(path, ManualTime()) as store:
        for _ in range(450):
            place = luck.randrange(12)
            if left and luck.random() < 0.25:
                gone = luck.choice(list(left))
                assert await store.delete("", gone)
                cage.alive.discard(left.pop(gone))
            else:
                name = cage.canary()
                words = f"{name} " * luck.choice([1, 3, 10, 100, 400])
                tip = tips[place]
                parent = tip if tip and tip.response_id in left else None
                tips[place] = head = await complete_turn(store, words, words, parent)
                left[head.response_id] = name
        if not closed:
            await cleaned(store)
            assert held(path) == cage.alive
            # The check of all pages agrees with the one near the erased rows.
            assert dirty_pages(store) == []
    assert held(path) == cage.alive
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def dirty_pages(store: SqliteStore, near: ErasedRows | None = None) -> DirtyPages:
    """The pages with copies of rows, of all or of those near erased rows."""
    connections = store._database._connections
    connections.write_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return find_dirty_pages(connections.read_connection, connections.page_file, near)


async def complete_turns_side_by_side(store: SqliteStore, turns: int) -> list[Head]:
    """Chains that grow in turn, of turns of all lengths."""
    heads: list[Head] = []
    tips: list[Head | None] = [None] * 5
    for number in range(turns):
        place = number * number % 5
        tips[place] = head = await complete_turn(store, "x" * (number % 700), "y", tips[place])
        heads.append(head)
    return heads


async def test_adding_rows_leaves_no_copies(path: Path) -> None:
    async with opened(path, ManualTime()) as store:
        await complete_turns_side_by_side(store, 300)
        for number in range(100):
            await store.stores.conversations.create("", {"number": "9" * (number * 5)})
        assert dirty_pages(store) == []


@pytest.mark.parametrize("seed", range(3))
async def test_copies_are_near_what_was_erased(
    path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Without scrubbing there are copies, and the check near the erased rows finds them all."""
    monkeypatch.setattr("antiphon.stores.sqlite.page_scrubbing._SCRUB_DELAY", 1000)
    rng = random.Random(seed)
    async with opened(path, ManualTime()) as store:
        heads = await complete_turns_side_by_side(store, 300)
        for head in rng.sample(heads, 60):
            assert await store.delete("", head.response_id)
            await complete_turn(store, "z" * rng.randrange(900))
        erased = store._database.erasures.scope().rows
        assert erased is not None
        everywhere = dirty_pages(store)
        assert everywhere
        assert sorted(everywhere, key=repr) == sorted(dirty_pages(store, erased), key=repr)
        assert {table for table, _ in everywhere} == {"texts"}


async def test_scrubbing_leaves_no_copies(path: Path) -> None:
    async with opened(path, ManualTime()) as store:
        for head in (await complete_turns_side_by_side(store, 200))[::3]:
            assert await store.delete("", head.response_id)
        await cleaned(store)
        assert dirty_pages(store) == []


def test_readers_in_the_way_only_delay_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing waits for the reader to go, so that it is met again later or not at all.
    monkeypatch.setattr("antiphon.stores.sqlite.writer._CHECKPOINT_TIMEOUT_MS", 0)

    async def main() -> None:
        async with opened(path, ManualTime()) as store:
            cage = Cage()
            head = await complete_turn(store, cage.canary() * 99)
            # Whatever looks in the background after the first turn has done so.
            assert await store.stores.search.search("", "nothing", 1) == []
            reader = store._database._connections.connect_reader()
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM log").fetchall()
            assert await store.delete("", head.response_id)
            # More is written while the reader holds on to how it was.
            for _ in range(5):
                await complete_turn(store, "harmless")
            assert held(path) == cage.alive
            reader.execute("ROLLBACK")
            reader.close()
            # No other job is needed.
            await cleaned(store)
            assert held(path) == set()

    run(main())


async def test_another_process_that_reads_and_writes_is_no_hindrance(path: Path) -> None:
    async with opened(path, ManualTime()) as store:
        cage = Cage()
        heads = [await complete_turn(store, cage.canary() * 50) for _ in range(20)]
        with child("talk", path) as process:
            line(process)
            for head in heads:
                assert await store.delete("", head.response_id)
                line(process)
            await cleaned(store)
            assert held(path) == set()


async def test_what_a_dead_process_erased_goes_when_the_file_is_opened(path: Path) -> None:
    async with opened(path, ManualTime()) as store:
        head = await complete_turn(store, "canary000001 " * 9)
    # As a process would that dies right after its commit.
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("UPDATE texts SET body = body")
    connection.execute("DELETE FROM texts WHERE id IN (SELECT text FROM log WHERE kind IN (1, 2))")
    connection.execute("DELETE FROM log WHERE kind IN (1, 2)")
    assert held(path)
    async with opened(path, ManualTime()) as store:
        assert held(path) == set()
        assert await store.turn("", head.response_id) is not None
    connection.close()
