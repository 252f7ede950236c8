"""Secure deletion: erased content is in no file of the store, however it was erased."""

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
    ManualClock,
    assistant,
    complete_turn,
    head_of,
    new_turn,
    run,
)

LIFE = 1000.0
#: Puts canaries into a store and erases them.
EraseOperation: TypeAlias = Callable[[SqliteStore, "CanarySet", ManualClock], Awaitable[None]]
CANARY = re.compile(rb"canary[0-9]{6}")


@asynccontextmanager
async def open_store(path: Path, time: ManualClock) -> AsyncIterator[SqliteStore]:
    store = await open_sqlite(path, RetentionPolicy(LIFE), clock=time)
    try:
        yield store
    finally:
        await store.close()


def canaries_in_files(path: Path) -> set[str]:
    """The canaries in all files of the folder."""
    files = [file for file in path.parent.rglob("*") if file.is_file()]
    return {found.decode() for file in files for found in CANARY.findall(file.read_bytes())}


async def wait_until_scrubbed(store: SqliteStore) -> None:
    """Waits until the store has scrubbed its files after erasures."""
    database = store._database
    async with asyncio.timeout(10):
        while database.erasures.is_pending:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class CanarySet:
    """Unique words: creates them, and tracks those that were not erased."""

    def __init__(self) -> None:
        self.created = 0
        self.remaining: set[str] = set()

    def canary(self) -> str:
        self.created += 1
        name = f"canary{self.created:06}"
        self.remaining.add(name)
        return name


async def store_canary_turn(
    store: SqliteStore, canaries: CanarySet, time: ManualClock, parent: Head | None = None
) -> Head:
    """Stores a turn with a canary in its question, its image and its answer."""
    new = new_turn(
        canaries.canary() * 3,
        parent=parent,
        images=[canaries.canary().encode()],
        created_at=time.now,
    )
    await store.begin(new)
    await store.write(new.response_id, [assistant(f"{canaries.canary()} " * 30)], DONE)
    return await head_of(store, new.response_id)


async def expire(store: SqliteStore, canaries: CanarySet, time: ManualClock) -> None:
    first = await store_canary_turn(store, canaries, time)
    await store_canary_turn(store, canaries, time, first)
    await store.stores.conversations.create("", {"about": canaries.canary()})
    time.now += LIFE
    assert await store.stores.response_index.delete_expired() == 2


async def delete_turn(store: SqliteStore, canaries: CanarySet, time: ManualClock) -> None:
    parent = await complete_turn(store, "harmless")
    head = await store_canary_turn(store, canaries, time, parent)
    await complete_turn(store, "harmless", parent=head)
    assert await store.delete("", head.response_id)


async def delete_with_descendants(
    store: SqliteStore, canaries: CanarySet, time: ManualClock
) -> None:
    root = await complete_turn(store, "harmless")
    await complete_turn(store, "harmless", parent=root)
    branch = await store_canary_turn(store, canaries, time, root)
    for _ in range(2):
        await store_canary_turn(store, canaries, time, branch)
    assert await store.delete("", branch.response_id, cascade=True)


async def delete_conversation(store: SqliteStore, canaries: CanarySet, time: ManualClock) -> None:
    conversation = await store.stores.conversations.create("", {"about": canaries.canary()})
    header = msgspec.structs.replace(
        HEADER, conversation=conversation.id, instructions=canaries.canary()
    )
    new = new_turn(canaries.canary(), header=header, created_at=time.now)
    await store.begin(msgspec.structs.replace(new, conversation=conversation))
    await store.write(new.response_id, [assistant(canaries.canary())], DONE)
    assert await store.stores.conversations.delete("", conversation.id)


async def replace_metadata(store: SqliteStore, canaries: CanarySet, time: ManualClock) -> None:
    conversation = await store.stores.conversations.create("", {"about": canaries.canary()})
    assert await store.stores.conversations.update_metadata(
        "", conversation.id, {"about": "nothing"}
    )


async def erase_items(store: SqliteStore, canaries: CanarySet, time: ManualClock) -> None:
    head = await store_canary_turn(store, canaries, time)
    for position in range(3):
        assert await store.stores.conversations.erase_item("", head.response_id, position)


async def store_summary(store: SqliteStore, canaries: CanarySet, head: Head) -> Head:
    """Stores a turn with a summary of all turns before it."""
    new = new_turn(parent=head)
    await store.begin(new)
    words = encode_item(Compaction(f"They said {canaries.canary()}.", replaced_turns=1))
    await store.write(new.response_id, [words], DONE)
    return await head_of(store, new.response_id)


async def delete_summarized_turn(
    store: SqliteStore, canaries: CanarySet, time: ManualClock
) -> None:
    head = await store_canary_turn(store, canaries, time)
    after = await store_summary(
        store, canaries, await complete_turn(store, "harmless", parent=head)
    )
    await store_summary(store, canaries, await complete_turn(store, "harmless", parent=after))
    # A branch is a separate thread.
    await store_summary(store, canaries, await complete_turn(store, "harmless", parent=head))
    assert await store.delete("", head.response_id)


async def erase_summarized_items(
    store: SqliteStore, canaries: CanarySet, time: ManualClock
) -> None:
    head = await store_canary_turn(store, canaries, time)
    await store_summary(store, canaries, await complete_turn(store, "harmless", parent=head))
    for position in range(3):
        assert await store.stores.conversations.erase_item("", head.response_id, position)


@pytest.mark.parametrize(
    "erase",
    [
        expire,
        delete_turn,
        delete_with_descendants,
        delete_conversation,
        replace_metadata,
        erase_items,
        delete_summarized_turn,
        erase_summarized_items,
    ],
)
async def test_every_erase_operation_leaves_no_content(path: Path, erase: EraseOperation) -> None:
    time, kept_canaries, erased_canaries = ManualClock(), CanarySet(), CanarySet()
    erased_canaries.created = 500_000
    async with open_store(path, time) as store:
        await erase(store, erased_canaries, time)
        await store_canary_turn(store, kept_canaries, time)
        await wait_until_scrubbed(store)
        assert erased_canaries.remaining
        assert canaries_in_files(path) == kept_canaries.remaining
    assert canaries_in_files(path) == kept_canaries.remaining


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(n, marks=pytest.mark.soak) for n in range(1, 20))]
)
async def test_no_copies_of_moved_rows_remain(
    path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, closed: bool
) -> None:
    """Conversations that grow in parallel split each other's pages."""
    if closed:
        # Scrubbing only happens when the store is closed.
        monkeypatch.setattr("antiphon.stores.sqlite.page_scrubbing._SCRUB_DELAY", 1000)
    generator = random.Random(seed)
    canaries = CanarySet()
    name_by_id: dict[str, str] = {}
    tips: list[Head | None] = [None] * 12
    async with open_store(path, ManualClock()) as store:
        for _ in range(450):
            place = generator.randrange(12)
            if name_by_id and generator.random() < 0.25:
                erased_canaries = generator.choice(list(name_by_id))
                assert await store.delete("", erased_canaries)
                canaries.remaining.discard(name_by_id.pop(erased_canaries))
            else:
                name = canaries.canary()
                words = f"{name} " * generator.choice([1, 3, 10, 100, 400])
                tip = tips[place]
                parent = tip if tip and tip.response_id in name_by_id else None
                tips[place] = head = await complete_turn(store, words, words, parent)
                name_by_id[head.response_id] = name
        if not closed:
            await wait_until_scrubbed(store)
            assert canaries_in_files(path) == canaries.remaining
            # The check of all pages agrees with the one near the erased rows.
            assert dirty_pages(store) == []
    assert canaries_in_files(path) == canaries.remaining
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


async def test_inserts_leave_no_copies(path: Path) -> None:
    async with open_store(path, ManualClock()) as store:
        await complete_turns_side_by_side(store, 300)
        for number in range(100):
            await store.stores.conversations.create("", {"number": "9" * (number * 5)})
        assert dirty_pages(store) == []


@pytest.mark.parametrize("seed", range(3))
async def test_copies_are_found_near_erased_rows(
    path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Without scrubbing there are copies, and the check near the erased rows finds them all."""
    monkeypatch.setattr("antiphon.stores.sqlite.page_scrubbing._SCRUB_DELAY", 1000)
    rng = random.Random(seed)
    async with open_store(path, ManualClock()) as store:
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
    async with open_store(path, ManualClock()) as store:
        for head in (await complete_turns_side_by_side(store, 200))[::3]:
            assert await store.delete("", head.response_id)
        await wait_until_scrubbed(store)
        assert dirty_pages(store) == []


def test_open_reader_only_delays_scrubbing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Checkpoints do not wait for readers, so that scrubbing is retried later.
    monkeypatch.setattr("antiphon.stores.sqlite.writer._CHECKPOINT_TIMEOUT_MS", 0)

    async def main() -> None:
        async with open_store(path, ManualClock()) as store:
            canaries = CanarySet()
            head = await complete_turn(store, canaries.canary() * 99)
            # Background indexing after the first turn has finished.
            assert await store.stores.search.search("", "nothing", 1) == []
            reader = store._database._connections.connect_reader()
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM log").fetchall()
            assert await store.delete("", head.response_id)
            # More turns are written while the reader keeps its old snapshot.
            for _ in range(5):
                await complete_turn(store, "harmless")
            assert canaries_in_files(path) == canaries.remaining
            reader.execute("ROLLBACK")
            reader.close()
            # No further job is needed.
            await wait_until_scrubbed(store)
            assert canaries_in_files(path) == set()

    run(main())


async def test_scrubbing_completes_while_another_process_writes(path: Path) -> None:
    async with open_store(path, ManualClock()) as store:
        canaries = CanarySet()
        heads = [await complete_turn(store, canaries.canary() * 50) for _ in range(20)]
        with child("talk", path) as process:
            line(process)
            for head in heads:
                assert await store.delete("", head.response_id)
                line(process)
            await wait_until_scrubbed(store)
            assert canaries_in_files(path) == set()


async def test_opening_scrubs_what_a_dead_process_erased(path: Path) -> None:
    async with open_store(path, ManualClock()) as store:
        head = await complete_turn(store, "canary000001 " * 9)
    # Like a process that dies directly after its commit.
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("UPDATE texts SET body = body")
    connection.execute("DELETE FROM texts WHERE id IN (SELECT text FROM log WHERE kind IN (1, 2))")
    connection.execute("DELETE FROM log WHERE kind IN (1, 2)")
    assert canaries_in_files(path)
    async with open_store(path, ManualClock()) as store:
        assert canaries_in_files(path) == set()
        assert await store.turn("", head.response_id) is not None
    connection.close()
