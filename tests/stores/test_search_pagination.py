"""What is found, page by page, in every store."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from antiphon.core.retention import RetentionPolicy
from antiphon.errors import InvalidRequestError
from support.side_stores import AnyStore, ManualClock, Opener, openers
from support.store_turns import DONE, begin_turn, complete_turn, new_turn

GONE = "resp_" + "0" * 32


@pytest.fixture(params=["memory", "sqlite"])
def store_in(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    return openers(tmp_path)[request.param]


async def page(
    store: AnyStore, query: str, limit: int, after: str | None = None, tenant: str = ""
) -> list[str]:
    """The ids of what is found behind one of them."""
    hits = await store.stores.search.search(tenant, query, limit, after=after)
    return [hit.response_id for hit in hits]


async def test_pages_are_the_whole_in_its_order(store_in: Opener) -> None:
    async with store_in() as store:
        # More than lie in one chunk, and good in different ways.
        said = [
            complete_turn(store, "common " * (1 + number % 3) + "filler " * (number % 5))
            for number in range(300)
        ]
        await asyncio.gather(*said)
        whole = await page(store, "common", 1_000)
        assert len(set(whole)) == 300
        for limit in (1, 7, 100, 300):
            first = await page(store, "common", limit)
            assert first == whole[:limit]
            rest = await page(store, "common", limit, first[-1])
            assert rest == whole[limit : 2 * limit]
        assert await page(store, "common", 9, whole[-1]) == []
        assert await page(store, "common", 0, whole[0]) == []


async def test_who_comes_between_two_pages_shifts_nothing(store_in: Opener) -> None:
    async with store_in() as store:
        old = [(await complete_turn(store, "apple pie")).response_id for _ in range(6)][::-1]
        assert await page(store, "apple", 2) == old[:2]
        # Newer and so better, worse, and not found at all.
        await complete_turn(store, "apple pie")
        worse = await complete_turn(store, "apple " + "and nothing but filler " * 9)
        await complete_turn(store, "no fruit")
        assert await page(store, "apple", 9, old[1]) == [*old[2:], worse.response_id]
        # Nor does who goes, behind the last one shown or before it.
        await store.delete("", old[0])
        await store.delete("", old[3])
        assert await page(store, "apple", 2, old[1]) == [old[2], old[4]]


async def test_behind_what_is_not_found_there_is_no_page(store_in: Opener) -> None:
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
            GONE,
            "",
            "conv_1",
        ):
            with pytest.raises(InvalidRequestError) as missing:
                await page(store, "apple", 9, after)
            error = missing.value
            assert (error.code, error.param) == ("cursor_not_found", "after")
            assert f"'{after}'" in error.message


async def test_what_has_expired_is_no_place_to_go_on_from(store_in: Opener) -> None:
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
