"""Search pagination in every store."""

from __future__ import annotations

import asyncio

import pytest

from antiphon.core.retention import RetentionPolicy
from antiphon.errors import InvalidRequestError
from support.store_turns import (
    DONE,
    ManualClock,
    Opener,
    StoreWithStores,
    begin_turn,
    complete_turn,
    new_turn,
)

MISSING_ID = "resp_" + "0" * 32


async def page(
    store: StoreWithStores, query: str, limit: int, after: str | None = None, tenant: str = ""
) -> list[str]:
    """The ids of the hits after one of them."""
    hits = await store.stores.search.search(tenant, query, limit, after=after)
    return [hit.response_id for hit in hits]


async def test_pages_are_slices_of_the_whole_result(store_in: Opener) -> None:
    async with store_in() as store:
        # More than fit in one segment, with different relevance.
        turns = [
            complete_turn(store, "common " * (1 + number % 3) + "filler " * (number % 5))
            for number in range(300)
        ]
        await asyncio.gather(*turns)
        all_ids = await page(store, "common", 1_000)
        assert len(set(all_ids)) == 300
        for limit in (1, 7, 100, 300):
            first = await page(store, "common", limit)
            assert first == all_ids[:limit]
            rest = await page(store, "common", limit, first[-1])
            assert rest == all_ids[limit : 2 * limit]
        assert await page(store, "common", 9, all_ids[-1]) == []
        assert await page(store, "common", 0, all_ids[0]) == []


async def test_turns_added_or_deleted_between_pages_do_not_shift_them(store_in: Opener) -> None:
    async with store_in() as store:
        old = [(await complete_turn(store, "apple pie")).response_id for _ in range(6)][::-1]
        assert await page(store, "apple", 2) == old[:2]
        # One that ranks higher, one that ranks lower, and one that is no hit.
        await complete_turn(store, "apple pie")
        worse = await complete_turn(store, "apple " + "and nothing but filler " * 9)
        await complete_turn(store, "no fruit")
        assert await page(store, "apple", 9, old[1]) == [*old[2:], worse.response_id]
        # Nor do deletions, after the cursor or before it.
        await store.delete("", old[0])
        await store.delete("", old[3])
        assert await page(store, "apple", 2, old[1]) == [old[2], old[4]]


async def test_cursor_that_is_no_hit_is_refused(store_in: Opener) -> None:
    async with store_in() as store:
        apples = [await complete_turn(store, "apple") for _ in range(3)]
        pear = await complete_turn(store, "pear")
        running = await begin_turn(store, "apple")
        theirs = await complete_turn(store, "apple", tenant="them")
        await store.delete("", apples[1].response_id)
        for after in (
            pear.response_id,
            running.response_id,
            theirs.response_id,
            apples[1].response_id,
            MISSING_ID,
            "",
            "conv_1",
        ):
            with pytest.raises(InvalidRequestError) as missing:
                await page(store, "apple", 9, after)
            error = missing.value
            assert (error.code, error.param) == ("cursor_not_found", "after")
            assert f"'{after}'" in error.message


async def test_expired_cursor_is_refused(store_in: Opener) -> None:
    clock = ManualClock(1_000.0)
    async with store_in(clock, RetentionPolicy(100.0)) as store:
        old, new = (new_turn("apple", created_at=at) for at in (1_000.0, 1_050.0))
        for turn in (old, new):
            store.begin(turn)
            await store.write(turn.response_id, [], DONE)
        assert await page(store, "apple", 1, new.response_id) == [old.response_id]
        clock.now = 1_100.0
        assert await page(store, "apple", 9, new.response_id) == []
        with pytest.raises(InvalidRequestError):
            await page(store, "apple", 9, old.response_id)
