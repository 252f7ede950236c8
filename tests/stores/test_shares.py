"""Shared links in every store: found by hash, gone once they expire or are revoked."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from antiphon.core.ids import new_response_id
from antiphon.errors import InvalidRequestError
from antiphon.turn.transfer_protocols import ShareRecord
from support.side_stores import all_bytes
from support.store_turns import ManualClock, Opener, opener


def digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def share(name: str, tenant: str = "me", at: float = 1.0, end: float | None = None) -> ShareRecord:
    return ShareRecord(name, tenant, new_response_id(), at, end)


async def test_a_share_is_found_by_the_hash_of_its_secret_alone(store_in: Opener) -> None:
    async with store_in() as store:
        shares = store.stores.shares
        mine, theirs = share("share_1"), share("share_2", "them")
        await shares.add(mine, digest("one"))
        await shares.add(theirs, digest("two"))
        assert await shares.find(digest("one")) == mine
        assert await shares.find(digest("two")) == theirs
        assert await shares.find(digest("three")) is None
        assert await shares.find(b"") is None


async def test_an_expired_share_does_not_exist(store_in: Opener) -> None:
    clock = ManualClock(100.0)
    async with store_in(clock) as store:
        shares = store.stores.shares
        brief, lasting = share("share_1", end=110.0), share("share_2", at=2.0)
        await shares.add(brief, digest("one"))
        await shares.add(lasting, digest("two"))
        assert await shares.list_shares("me", 10) == [lasting, brief]
        clock.now = 110.0
        assert await shares.find(digest("one")) is None
        assert await shares.list_shares("me", 10) == [lasting]
        assert not await shares.revoke("me", "share_1")
        with pytest.raises(InvalidRequestError):
            await shares.list_shares("me", 10, after="share_1")


async def test_only_its_tenant_lists_and_revokes_a_share(store_in: Opener) -> None:
    async with store_in() as store:
        shares = store.stores.shares
        mine = share("share_1")
        await shares.add(mine, digest("one"))
        assert await shares.list_shares("them", 10) == []
        assert not await shares.revoke("them", "share_1")
        assert await shares.find(digest("one")) == mine
        assert await shares.revoke("me", "share_1")
        assert await shares.find(digest("one")) is None
        assert not await shares.revoke("me", "share_1")


async def test_pages_of_shares(store_in: Opener) -> None:
    async with store_in() as store:
        shares = store.stores.shares
        made = [share(f"share_{number}", at=float(number // 2)) for number in range(7)]
        for one in made:
            await shares.add(one, digest(one.id))
        for newest_first, ordered in ((True, made[::-1]), (False, made)):
            found: list[ShareRecord] = []
            after = None
            while page := await shares.list_shares("me", 3, after=after, newest_first=newest_first):
                found += page
                after = page[-1].id
            assert found == ordered
        assert await shares.list_shares("me", 0) == []


async def test_no_share_leaves_its_secret_in_the_file(tmp_path: Path) -> None:
    async with opener("sqlite", tmp_path)() as store:
        await store.stores.shares.add(share("share_1"), digest("the secret"))
    assert b"the secret" not in all_bytes(tmp_path)
