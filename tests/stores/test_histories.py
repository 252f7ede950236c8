"""Histories in every store: the turns of a chain, as far as a context is made of them."""

from __future__ import annotations

import pytest

from antiphon.core.turns import End
from antiphon.turn.store_protocols import Head
from support.store_turns import (
    Opener,
    StoreWithStores,
    assistant,
    begin_turn,
    complete_turn,
    complete_turns,
    head_of,
    ids,
    new_turn,
)


async def history_ids(store: StoreWithStores, head: Head) -> list[str]:
    """The ids of a history, whose turns are those of the chain."""
    chain, history = await store.chain(head), await store.history(head)
    assert len(chain) == len(history)
    for whole, turn in zip(chain, history, strict=True):
        end = (whole.end.status, whole.end.tokens) if whole.end else None
        assert (turn.response_id, turn.previous_response_id, turn.input, turn.output) == (
            whole.response_id,
            whole.previous_response_id,
            whole.input,
            whole.output,
        )
        assert dict(turn.blobs) == dict(whole.blobs)
        assert ((turn.end.status, turn.end.tokens) if turn.end else None) == end
    found, newest = await store.head_with_turns(head.tenant, head.response_id)
    assert found == await store.head(head.tenant, head.response_id)
    # As many as one read gives.
    assert (newest := list(newest)) == history[::-1][: len(newest)]
    return [turn.response_id for turn in history]


@pytest.mark.parametrize("length", [1, 3, 70])
async def test_history_has_the_turns_of_the_chain(store_in: Opener, length: int) -> None:
    async with store_in() as store:
        heads = await complete_turns(store, length)
        assert await history_ids(store, heads[-1]) == ids(heads)


async def test_history_follows_branches_and_leaves_out_erased_turns(store_in: Opener) -> None:
    async with store_in() as store:
        heads = await complete_turns(store, 4)
        branch = await complete_turns(store, 3, heads[1])
        assert await history_ids(store, branch[-1]) == ids([*heads[:2], *branch])
        await store.delete("", heads[1].response_id)
        await store.delete("", branch[0].response_id)
        newest = await head_of(store, branch[-1].response_id)
        assert await history_ids(store, newest) == ids([heads[0], *branch[1:]])
        assert await history_ids(store, await begin_turn(store, "now", newest))


async def test_history_of_a_head_from_before_an_erasure_is_empty(store_in: Opener) -> None:
    async with store_in() as store:
        heads = await complete_turns(store, 3)
        await store.delete("", heads[0].response_id)
        assert await store.history(heads[-1]) == []
        assert await store.chain(heads[-1])


async def test_history_has_long_texts_many_items_images_and_tokens(store_in: Opener) -> None:
    async with store_in() as store:
        head = await complete_turn(store, "long " * 10_000, "short")
        head = await complete_turn(store, "look", "a cat", head, images=[b"a cat"])
        new = new_turn("many", parent=await head_of(store, head.response_id))
        store.begin(new)
        items = [assistant(f"item {number}") for number in range(500)]
        await store.write(new.response_id, items, End("incomplete", 1.0, tokens=77))
        last = await head_of(store, new.response_id)
        assert len(await history_ids(store, last)) == 3
        assert [turn.end and turn.end.tokens for turn in await store.history(last)][-1] == 77


async def test_history_of_another_tenants_turn_is_empty(store_in: Opener) -> None:
    async with store_in() as store:
        head = await complete_turn(store, tenant="a")
        theirs = Head(head.response_id, "b", head.thread, head.seq, head.tree, head.epoch, False, 0)
        assert await store.history(theirs) == []
