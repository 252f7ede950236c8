"""Chain fingerprints in every store: turns are found by them, until an erasure in their chain."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from antiphon.core.chain_fingerprints import ChainFingerprint
from antiphon.core.retention import RetentionPolicy
from antiphon.stores.memory.store import MemoryStore
from antiphon.stores.sqlite.store import open_sqlite
from antiphon.turn.store_protocols import Head
from support.store_turns import (
    DONE,
    STORES,
    Opener,
    StoreWithStores,
    begin_turn,
    complete_turn,
    complete_turns,
    head_of,
)

A, B, C = (letter * 16 for letter in (b"a", b"b", b"c"))


async def index(store: StoreWithStores, head: Head, digest: bytes, epoch: int = 0) -> None:
    fingerprint = ChainFingerprint(digest, epoch)
    await store.stores.response_index.add_fingerprint(head.response_id, fingerprint)


async def find(store: StoreWithStores, *digests: bytes, tenant: str = "") -> tuple[int, str] | None:
    return await store.stores.response_index.find_chain(tenant, digests)


async def test_first_known_fingerprint_is_found(store_in: Opener) -> None:
    async with store_in() as store:
        first, second = await complete_turns(store, 2)
        await index(store, first, A)
        await index(store, second, B)
        assert await find(store) is None
        assert await find(store, C) is None
        assert await find(store, C, B, A) == (1, second.response_id)
        assert await find(store, A, B) == (0, first.response_id)
        assert await find(store, A, tenant="other") is None


async def test_newest_turn_with_a_fingerprint_is_found(store_in: Opener) -> None:
    async with store_in() as store:
        root = await complete_turn(store)
        first = await complete_turn(store, parent=root)
        second = await complete_turn(store, parent=root)
        await index(store, first, A)
        await index(store, second, A)
        assert await find(store, A) == (0, second.response_id)
        await store.delete("", second.response_id)
        # The other turn's content was not erased.
        assert await find(store, A) == (0, first.response_id)


async def test_running_turn_is_not_found_by_fingerprint(store_in: Opener) -> None:
    async with store_in() as store:
        running = await begin_turn(store)
        await index(store, running, A)
        assert await find(store, A) is None
        store.write(running.response_id, [], DONE)
        await index(store, running, A)
        assert await find(store, A) == (0, running.response_id)
        await index(store, Head("resp_" + "0" * 32, "", 1, 0, 1, 0, is_running=False), B)
        assert await find(store, B) is None


async def test_deletion_removes_fingerprints_of_descendants(store_in: Opener) -> None:
    async with store_in() as store:
        heads = await complete_turns(store, 3)
        branch = await complete_turn(store, parent=heads[1])
        for head, digest in zip((*heads, branch), (A, B, C, b"d" * 16), strict=True):
            await index(store, head, digest)
        await store.delete("", heads[1].response_id)
        assert await find(store, b"d" * 16, C, B) is None
        assert await find(store, C, B, A) == (2, heads[0].response_id)
        await store.delete("", heads[0].response_id, cascade=True)
        assert await find(store, C, B, A) is None


async def test_item_erasure_removes_fingerprints(store_in: Opener) -> None:
    async with store_in() as store:
        first, second = await complete_turns(store, 2)
        await index(store, first, A)
        await index(store, second, B)
        assert await store.stores.conversations.erase_item("", first.response_id, 0)
        assert await find(store, B, A) is None


async def test_turn_ended_after_an_erasure_is_found_only_with_the_new_epoch(
    store_in: Opener,
) -> None:
    async with store_in() as store:
        first, second = await complete_turns(store, 2)
        running = await begin_turn(store, parent=second)
        await store.delete("", first.response_id)
        store.write(running.response_id, [], DONE)
        await index(store, running, A)
        assert await find(store, A) is None
        await index(store, running, A, epoch=1)
        assert await find(store, A) == (0, running.response_id)


@pytest.mark.parametrize("kind", STORES)
async def test_expired_turn_is_not_found_by_fingerprint(kind: str, tmp_path: Path) -> None:
    now = 1_700_000_000.0
    policy = RetentionPolicy(100.0)
    store: StoreWithStores = (
        MemoryStore(policy, clock=lambda: now)
        if kind == "memory"
        else await open_sqlite(tmp_path / "a.db", policy, clock=lambda: now)
    )
    try:
        head = await complete_turn(store)
        now = (await head_of(store, head.response_id)).timestamp + 50
        await index(store, head, A)
        assert await find(store, A) == (0, head.response_id)
        now += 100
        assert await find(store, A) is None
        assert await store.stores.response_index.delete_expired() == 1
        assert await find(store, A) is None
    finally:
        await store.close()


async def test_update_metadata_replaces_only_the_metadata(store_in: Opener) -> None:
    async with store_in() as store:
        response_index = store.stores.response_index
        head = await complete_turn(store)
        before = await store.turn("", head.response_id)
        assert await response_index.update_metadata("", head.response_id, {"a": "b"})
        after = await store.turn("", head.response_id)
        assert before is not None
        assert after is not None
        assert after.header.options.metadata == {"a": "b"}
        assert (after.input, after.output, after.end) == (before.input, before.output, before.end)
        assert not await response_index.update_metadata("other", head.response_id, {"a": "c"})
        assert not await response_index.update_metadata("", "resp_" + "0" * 32, {})
        await store.delete("", head.response_id)
        assert not await response_index.update_metadata("", head.response_id, {})


async def test_deleted_fingerprint_is_not_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = await open_sqlite(path)
    digest = bytes(range(200, 216))
    try:
        head = await complete_turn(store)
        await index(store, head, digest)
        await asyncio.gather(store.delete("", head.response_id))
    finally:
        await store.close()
    assert digest not in path.read_bytes()
