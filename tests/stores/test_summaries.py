"""Stored summaries in every store: erased when something that they may cover is erased."""

from __future__ import annotations

from antiphon.core.items import ERASED_SUMMARY_ITEM, Compaction, encode_item
from antiphon.turn.store_protocols import Head
from support.store_turns import (
    DONE,
    Opener,
    StoreWithStores,
    assistant,
    complete_turn,
    complete_turns,
    head_of,
    ids_of,
    new_turn,
)

SUMMARY = encode_item(Compaction("They spoke of a secret.", retained_turns=1, replaced_turns=2))
#: A client's own summary: it was sent as input, and covers no stored turns.
CLIENT_SUMMARY = encode_item(Compaction("Elsewhere they spoke of a secret."))


async def store_summary(store: StoreWithStores, parent: Head, *items: bytes) -> Head:
    new = new_turn(parent=parent)
    await store.begin(new)
    await store.write(new.response_id, items or [SUMMARY], DONE)
    return await head_of(store, new.response_id)


async def output(store: StoreWithStores, head: Head) -> tuple[bytes, ...]:
    turn = await store.turn("", head.response_id)
    assert turn is not None
    return tuple(turn.output)


async def test_deleting_a_turn_erases_only_later_summaries(
    store_in: Opener,
) -> None:
    async with store_in() as store:
        heads = await complete_turns(store, 3)
        first = await store_summary(store, heads[-1])
        later = await complete_turn(store, parent=first)
        second = await store_summary(store, later)
        assert await store.delete("", later.response_id)
        assert await output(store, first) == (SUMMARY,)
        assert await output(store, second) == (ERASED_SUMMARY_ITEM,)
        assert await store.delete("", heads[0].response_id)
        assert await output(store, first) == (ERASED_SUMMARY_ITEM,)
        # The summary's turn stays in the chain.
        assert first.response_id in await ids_of(store, second)


async def test_summaries_of_other_branches_and_conversations_stay(store_in: Opener) -> None:
    async with store_in() as store:
        root, middle, last = await complete_turns(store, 3)
        mine = await store_summary(store, last)
        aside = await store_summary(store, await complete_turn(store, parent=root))
        elsewhere = await store_summary(store, (await complete_turns(store, 2))[-1])
        assert await store.delete("", middle.response_id)
        assert await output(store, mine) == (ERASED_SUMMARY_ITEM,)
        assert await output(store, aside) == await output(store, elsewhere) == (SUMMARY,)


async def test_item_erasure_erases_the_summary_but_not_other_items(
    store_in: Opener,
) -> None:
    async with store_in() as store:
        heads = await complete_turns(store, 2)
        other_item = assistant("Anything else?")
        summary = await store_summary(store, heads[-1], SUMMARY, other_item, CLIENT_SUMMARY)
        erase = store.stores.conversations.erase_item
        assert await erase("", heads[0].response_id, 0)
        assert await output(store, summary) == (ERASED_SUMMARY_ITEM, other_item, CLIENT_SUMMARY)
        # An erased item cannot be erased again.
        assert not await erase("", summary.response_id, 0)
