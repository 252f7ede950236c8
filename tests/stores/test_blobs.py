"""Image blobs in every store: one copy per tenant, erased with the last turn that uses it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import msgspec
import pytest

from antiphon.core.images import MAX_IMAGE_BYTES
from antiphon.errors import StoreError
from antiphon.stores.memory.store import MemoryStore
from antiphon.stores.postgres.store import open_postgres
from antiphon.turn.store_protocols import Store
from support.postgres_database import empty_database
from support.side_stores import query_file
from support.store_turns import (
    DONE,
    assistant,
    begin_turn,
    blob_of,
    blobs_of,
    complete_turn,
    complete_turns,
    head_of,
    image_message,
    images_in_database,
    images_in_file,
    images_in_memory,
    new_turn,
    sqlite,
    user,
)

#: A store does not decode images.
CAT, DOG, OWL = b"a cat", b"a dog", b"an owl"

#: A store, and a function that lists its blobs: their tenants and bytes.
Opened: TypeAlias = tuple[Store, Callable[[], list[tuple[str, bytes]]]]
Opener: TypeAlias = Callable[[], AbstractAsyncContextManager[Opened]]


@asynccontextmanager
async def in_memory(folder: Path) -> AsyncIterator[Opened]:
    store = MemoryStore()
    yield store, lambda: images_in_memory(store)
    await store.close()


@asynccontextmanager
async def in_file(folder: Path) -> AsyncIterator[Opened]:
    async with sqlite(folder / "turns.db") as store:
        yield store, lambda: images_in_file(folder / "turns.db")


@asynccontextmanager
async def in_database(folder: Path) -> AsyncIterator[Opened]:
    uri = empty_database(folder)
    store = await open_postgres(uri)
    try:
        yield store, lambda: images_in_database(uri)
    finally:
        await store.close()


@pytest.fixture(params=[in_memory, in_file, in_database])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    return lambda: request.param(tmp_path)


async def images_of(store: Store, response_id: str, tenant: str = "") -> set[bytes]:
    turn = await store.turn(tenant, response_id)
    assert turn is not None
    assert turn.blobs == blobs_of(*turn.blobs.values())
    return set(turn.blobs.values())


async def test_turn_is_read_with_its_images(opener: Opener) -> None:
    async with opener() as (store, _):
        new = new_turn("Look:", images=[CAT, DOG])
        store.begin(new)
        await store.write(new.response_id, [assistant("Nice.")], DONE)
        head = await head_of(store, new.response_id)
        without = await complete_turn(store, "And?", parent=head)
        last = await complete_turn(store, "This one?", parent=without, images=[OWL])
        turns = await store.chain(last)
        assert [turn.blobs for turn in turns] == [blobs_of(CAT, DOG), {}, blobs_of(OWL)]
        assert turns[0].input == (
            user("Look:"),
            image_message(blob_of(CAT)),
            image_message(blob_of(DOG)),
        )
        assert turns[0].output == (assistant("Nice."),)
        assert [await store.turn("", turn.response_id) for turn in turns] == turns


async def test_running_turn_is_read_with_its_images(opener: Opener) -> None:
    async with opener() as (store, _):
        head = await begin_turn(store, images=[CAT])
        await store.write(head.response_id, [assistant("Hm.")])
        assert await images_of(store, head.response_id) == {CAT}
        (turn,) = await store.chain(head)
        assert turn.blobs == blobs_of(CAT)
        assert turn.output == (assistant("Hm."),)


async def test_repeated_image_is_stored_once(opener: Opener) -> None:
    async with opener() as (store, stored_images):
        first = await complete_turn(store, images=[CAT])
        second = await complete_turn(store, parent=first, images=[CAT, DOG, CAT])
        branch = await complete_turn(store, parent=first, images=[CAT])
        # Many at once go into one commit.
        others = await asyncio.gather(*[complete_turn(store, images=[CAT, OWL]) for _ in range(5)])
        assert stored_images() == [("", CAT), ("", DOG), ("", OWL)]
        for head in (first, branch):
            assert await images_of(store, head.response_id) == {CAT}
        assert await images_of(store, second.response_id) == {CAT, DOG}
        for head in others:
            assert await images_of(store, head.response_id) == {CAT, OWL}


async def test_chain_loads_each_image_once(opener: Opener) -> None:
    async with opener() as (store, _):
        head = await complete_turn(store, images=[CAT])
        head = await complete_turn(store, parent=head, images=[bytes(bytearray(CAT))])
        # The second child of its parent is in another thread.
        await complete_turn(store, parent=head)
        head = await complete_turn(store, parent=head, images=[bytes(bytearray(CAT))])
        turns = await store.chain(head)
        assert len(turns) == 3
        assert len({id(data) for turn in turns for data in turn.blobs.values()}) == 1


async def test_image_is_erased_with_its_last_turn(opener: Opener) -> None:
    async with opener() as (store, stored_images):
        first = await complete_turn(store, images=[CAT, DOG])
        second = await complete_turn(store, parent=first, images=[CAT])
        branch = await complete_turn(store, parent=first, images=[CAT])
        other = await complete_turn(store, images=[CAT])
        await store.delete("", first.response_id)
        assert stored_images() == [("", CAT)]
        await store.delete("", second.response_id)
        await store.delete("", branch.response_id)
        assert stored_images() == [("", CAT)]
        assert await images_of(store, other.response_id) == {CAT}
        await store.delete("", other.response_id)
        assert stored_images() == []
        # An erased image can be stored again.
        again = await complete_turn(store, images=[CAT])
        assert stored_images() == [("", CAT)]
        assert [turn.blobs for turn in await store.chain(again)] == [blobs_of(CAT)]


async def test_cascade_erases_images_without_other_uses(opener: Opener) -> None:
    async with opener() as (store, stored_images):
        root = await complete_turn(store, images=[OWL])
        # Two deleted turns share the cat; the dog is used by a remaining turn.
        first = await complete_turn(store, parent=root, images=[CAT, DOG])
        second = await complete_turn(store, parent=first, images=[CAT])
        await complete_turn(store, parent=first, images=[CAT, b"only here"])
        await complete_turn(store, parent=second, images=[OWL, b"and here"])
        outside = await complete_turn(store, parent=root, images=[DOG])
        assert await store.delete("", first.response_id, cascade=True)
        assert stored_images() == [("", DOG), ("", OWL)]
        assert await images_of(store, outside.response_id) == {DOG}
        assert await images_of(store, root.response_id) == {OWL}


async def test_deletion_concurrent_with_a_new_use_keeps_the_image(opener: Opener) -> None:
    async with opener() as (store, stored_images):
        old = await complete_turn(store, images=[CAT, DOG])
        before, after = new_turn(images=[CAT]), new_turn(images=[DOG])
        await asyncio.gather(
            store.begin(before), store.delete("", old.response_id), store.begin(after)
        )
        assert stored_images() == [("", CAT), ("", DOG)]
        assert await images_of(store, before.response_id) == {CAT}
        assert await images_of(store, after.response_id) == {DOG}


async def test_tenants_do_not_share_images(opener: Opener) -> None:
    async with opener() as (store, stored_images):
        mine = await complete_turn(store, tenant="me", images=[CAT])
        theirs = await complete_turn(store, tenant="them", images=[CAT])
        assert stored_images() == [("me", CAT), ("them", CAT)]
        assert not await store.delete("me", theirs.response_id)
        assert await store.chain(msgspec.structs.replace(theirs, tenant="me")) == []
        await store.delete("me", mine.response_id)
        assert stored_images() == [("them", CAT)]
        assert await images_of(store, theirs.response_id, "them") == {CAT}


async def test_refused_turn_stores_no_image(opener: Opener) -> None:
    async with opener() as (store, stored_images):
        existing = await complete_turn(store, images=[CAT])
        foreign = await complete_turn(store, tenant="other")
        refused = [
            new_turn(response_id=existing.response_id, images=[CAT, DOG]),
            new_turn(response_id="resp_nonsense", images=[CAT, DOG]),
            new_turn(parent=foreign, images=[CAT, DOG]),
        ]
        good = new_turn(images=[OWL])
        results = await asyncio.gather(
            *[store.begin(new) for new in (*refused, good)], return_exceptions=True
        )
        assert [type(result) for result in results] == [StoreError] * 3 + [type(None)]
        assert stored_images() == [("", CAT), ("", OWL)]
        await store.delete("", existing.response_id)
        assert stored_images() == [("", OWL)]


async def test_deleting_a_running_turn_erases_its_images(opener: Opener) -> None:
    async with opener() as (store, stored_images):
        head = await begin_turn(store, images=[CAT])
        await store.delete("", head.response_id)
        await store.write(head.response_id, [assistant("late")], DONE)
        assert stored_images() == []
        assert await store.turn("", head.response_id) is None


async def test_deleting_a_turn_keeps_images_of_other_turns(opener: Opener) -> None:
    async with opener() as (store, _):
        first = await complete_turn(store, images=[CAT])
        second = await complete_turn(store, parent=first, images=[DOG])
        (third,) = await complete_turns(store, 1, second)
        await store.delete("", second.response_id)
        assert [turn.blobs for turn in await store.chain(third)] == [blobs_of(CAT), {}]


async def test_largest_image_round_trips(opener: Opener) -> None:
    image = random.Random(1).randbytes(MAX_IMAGE_BYTES)
    async with opener() as (store, stored_images):
        head = await complete_turn(store, images=[image])
        later = await complete_turn(store, parent=head, images=[image])
        assert await images_of(store, later.response_id) == {image}
        await store.delete("", head.response_id, cascade=True)
        assert stored_images() == []


# The SQLite store alone


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "turns.db"


async def test_stored_image_is_not_written_again(path: Path) -> None:
    """The write-ahead log is emptied before each turn, so its size is what that turn wrote."""
    image = random.Random(2).randbytes(1_000_000)
    wal = path.with_name("turns.db-wal")
    async with sqlite(path) as store:
        written = []
        for _ in range(4):
            query_file(path, "PRAGMA wal_checkpoint(TRUNCATE)")
            await complete_turn(store, images=[image])
            written.append(wal.stat().st_size)
    assert written[0] > len(image)
    # A dozen pages, like a turn without an image.
    assert all(size < 100_000 for size in written[1:])


async def test_two_stores_on_one_file_share_images(path: Path) -> None:
    async with sqlite(path) as one, sqlite(path) as two:
        mine = await complete_turn(one, images=[CAT])
        yours = await complete_turn(two, images=[CAT])
        assert images_in_file(path) == [("", CAT)]
        await two.delete("", mine.response_id)
        assert await images_of(one, yours.response_id) == {CAT}
        await one.delete("", yours.response_id)
        assert images_in_file(path) == []


async def test_erased_image_is_in_no_file(path: Path) -> None:
    # Far larger than a page, and random.
    image = random.Random(3).randbytes(300_000)
    pieces = [image[at : at + 32] for at in range(0, len(image) - 32, 500)]
    async with sqlite(path) as store:
        first = await complete_turn(store, images=[image])
        second = await complete_turn(store, "harmless", parent=first)
        files = [path, path.with_name("turns.db-wal")]
        existing = b"".join(file.read_bytes() for file in files)
        # All except those split between two pages.
        assert sum(piece in existing for piece in pieces) > 0.9 * len(pieces)
        await store.delete("", first.response_id)
        # Erased bytes are overwritten after the deletion returns, and before the next job returns.
        await store.write(second.response_id, [], DONE)
        existing = b"".join(file.read_bytes() for file in files)
        assert b"harmless" in existing
        assert not any(piece in existing for piece in pieces)
    assert query_file(path, "SELECT count(*) FROM blobs") == [(0,)]
    assert query_file(path, "SELECT count(*) FROM log WHERE kind = 5") == [(0,)]


async def test_images_persist_after_reopening(path: Path) -> None:
    async with sqlite(path) as store:
        first = await complete_turn(store, images=[CAT])
    async with sqlite(path) as store:
        second = await complete_turn(store, parent=first, images=[DOG, CAT])
        assert [turn.blobs for turn in await store.chain(second)] == [
            blobs_of(CAT),
            blobs_of(CAT, DOG),
        ]
    assert query_file(path, "SELECT count(*) FROM blobs") == [(2,)]
    assert query_file(path, "PRAGMA integrity_check") == [("ok",)]
