"""API keys in every store: found by hash, revoked for all processes, never stored in plain."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
from pathlib import Path

import msgspec
import pytest

from antiphon.core.api_keys import hash_api_key, new_api_key
from antiphon.errors import StoreError
from antiphon.turn.store_protocols import ApiKey
from support.side_stores import CHILD_PROGRAM, all_bytes
from support.store_turns import ManualClock, Opener, complete_turn, sqlite

ONE, TWO = hashlib.sha256(b"one").digest(), hashlib.sha256(b"two").digest()


async def test_api_key_is_found_by_its_hash(store_in: Opener) -> None:
    async with store_in() as store:
        keys = store.stores.api_keys
        mine = ApiKey("key_1", "me", 5.5, "laptop")
        theirs = ApiKey("key_2", "them", 4.25)
        assert await keys.find(ONE) is None
        await keys.add(mine, ONE)
        await keys.add(theirs, TWO)
        assert await keys.find(ONE) == mine
        assert await keys.find(TWO) == theirs
        assert await keys.find(ONE[:31]) is None
        assert await keys.find(b"") is None
        assert await keys.list_keys() == [theirs, mine]
        assert await keys.list_keys(mine.tenant) == [mine]
        assert await keys.list_keys("nobody") == []


async def test_has_keys_stays_true_after_revocation(store_in: Opener) -> None:
    async with store_in() as store:
        keys = store.stores.api_keys
        assert not await keys.has_keys()
        assert await keys.list_keys() == []
        await keys.add(ApiKey("key_1", "me", 1.0), ONE)
        assert await keys.has_keys()
        await keys.revoke("key_1")
        assert await keys.has_keys()


async def test_revoked_key_is_not_found(store_in: Opener) -> None:
    clock = ManualClock(100.0)
    async with store_in(clock) as store:
        keys = store.stores.api_keys
        mine, other = ApiKey("key_1", "me", 1.0), ApiKey("key_2", "me", 2.0)
        await keys.add(mine, ONE)
        await keys.add(other, TWO)
        assert not await keys.revoke("key_3")
        assert await keys.revoke("key_1")
        assert await keys.find(ONE) is None
        assert await keys.find(TWO) == other
        clock.now = 200.0
        # The time of the first revocation is kept.
        assert await keys.revoke("key_1")
        assert await keys.list_keys() == [
            msgspec.structs.replace(mine, revoked_at=100.0),
            other,
        ]


async def test_duplicate_key_id_or_hash_is_refused(store_in: Opener) -> None:
    async with store_in() as store:
        keys = store.stores.api_keys
        await keys.add(ApiKey("key_1", "me", 1.0), ONE)
        await keys.revoke("key_1")
        for key, digest in [(ApiKey("key_1", "x", 2.0), TWO), (ApiKey("key_2", "x", 2.0), ONE)]:
            with pytest.raises(StoreError, match="already"):
                await keys.add(key, digest)
        assert await keys.find(TWO) is None
        assert [key.tenant for key in await keys.list_keys()] == ["me"]


async def test_refused_key_does_not_affect_other_writes(tmp_path: Path) -> None:
    async with sqlite(tmp_path / "turns.db") as store:
        keys = store.stores.api_keys
        await keys.add(ApiKey("key_1", "me", 1.0), ONE)
        refused, head, _ = await asyncio.gather(
            keys.add(ApiKey("key_1", "me", 1.0), TWO),
            complete_turn(store),
            keys.add(ApiKey("key_2", "me", 1.0), TWO),
            return_exceptions=True,
        )
        assert isinstance(refused, StoreError)
        assert not isinstance(head, BaseException)
        assert await keys.find(TWO) is not None


async def test_api_keys_persist_and_their_secret_is_in_no_file(tmp_path: Path) -> None:
    raw = new_api_key()
    digest = hash_api_key(raw.encode())
    assert digest is not None
    key = ApiKey("key_1", "me", 1.0, "canary name")
    async with sqlite(tmp_path / "turns.db") as store:
        await store.stores.api_keys.add(key, digest)
        assert await store.stores.api_keys.find(digest) == key
        file_bytes = all_bytes(tmp_path)
        assert b"canary name" in file_bytes
        assert raw.encode() not in file_bytes
    async with sqlite(tmp_path / "turns.db") as store:
        assert await store.stores.api_keys.find(digest) == key
    assert raw.encode() not in all_bytes(tmp_path)


async def test_key_revoked_by_another_process_is_not_found(tmp_path: Path) -> None:
    path = tmp_path / "turns.db"
    async with sqlite(path) as store:
        keys = store.stores.api_keys
        await keys.add(ApiKey("key_1", "me", 1.0), ONE)
        assert await keys.find(ONE) is not None
        command = [*CHILD_PROGRAM, "revoke", str(path), "key_1"]
        done = await asyncio.to_thread(
            subprocess.run, command, check=True, capture_output=True, text=True
        )
        assert done.stdout == "True\n"
        assert await keys.find(ONE) is None


async def test_closed_store_refuses_api_key_operations(tmp_path: Path) -> None:
    async with sqlite(tmp_path / "turns.db") as store:
        keys = store.stores.api_keys
    for work in (keys.find(ONE), keys.has_keys(), keys.list_keys(), keys.revoke("key_1")):
        with pytest.raises(StoreError, match="closed"):
            await work
