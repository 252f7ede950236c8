"""What becomes of summaries when something that they may tell of is erased: in all stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from antiphon.core.items import ERASED_SUMMARY_ITEM, Compaction, encode_item
from antiphon.turn.store_protocols import Head
from support.store_turns import (
    DONE,
    STORES,
    Opener,
    StoreWithStores,
    assistant,
    complete_turn,
    complete_turns,
    head_of,
    ids_of,
    new_turn,
    opener,
)

SUMMARY = encode_item(Compaction("They spoke of a secret.", retained_turns=1, replaced_turns=2))
#: A client's own: it came with its words, and stands for nothing here.
BROUGHT = encode_item(Compaction("Elsewhere they spoke of a secret."))


@pytest.fixture(params=STORES)
def store_in(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    return opener(request.param, tmp_path)


async def summed_up(store: StoreWithStores, parent: Head, *items: bytes) -> Head:
    new = new_turn(parent=parent)
    await store.begin(new)
    await store.write(new.response_id, items or [SUMMARY], DONE)
    return await head_of(store, new.response_id)


async def output(store: StoreWithStores, head: Head) -> tuple[bytes, ...]:
    turn = await store.turn("", head.response_id)
    assert turn is not None
    return tuple(turn.output)


async def test_a_summary_goes_with_a_turn_before_it_and_stays_with_one_behind(
    store_in: Opener,
) -> None:
    async with store_in() as store:
        heads = await complete_turns(store, 3)
        first = await summed_up(store, heads[-1])
        later = await complete_turn(store, parent=first)
        second = await summed_up(store, later)
        assert await store.delete("", later.response_id)
        assert await output(store, first) == (SUMMARY,)
        assert await output(store, second) == (ERASED_SUMMARY_ITEM,)
        assert await store.delete("", heads[0].response_id)
        assert await output(store, first) == (ERASED_SUMMARY_ITEM,)
        # Its turn keeps its place in the chain.
        assert first.response_id in await ids_of(store, second)


async def test_summaries_of_other_branches_and_other_conversations_stay(store_in: Opener) -> None:
    async with store_in() as store:
        root, middle, last = await complete_turns(store, 3)
        mine = await summed_up(store, last)
        aside = await summed_up(store, await complete_turn(store, parent=root))
        elsewhere = await summed_up(store, (await complete_turns(store, 2))[-1])
        assert await store.delete("", middle.response_id)
        assert await output(store, mine) == (ERASED_SUMMARY_ITEM,)
        assert await output(store, aside) == await output(store, elsewhere) == (SUMMARY,)


async def test_a_summary_goes_with_an_item_too_and_what_stands_beside_it_stays(
    store_in: Opener,
) -> None:
    async with store_in() as store:
        heads = await complete_turns(store, 2)
        beside = assistant("Anything else?")
        summary = await summed_up(store, heads[-1], SUMMARY, beside, BROUGHT)
        erase = store.stores.conversations.erase_item
        assert await erase("", heads[0].response_id, 0)
        assert await output(store, summary) == (ERASED_SUMMARY_ITEM, beside, BROUGHT)
        # What is gone cannot be erased again.
        assert not await erase("", summary.response_id, 0)
