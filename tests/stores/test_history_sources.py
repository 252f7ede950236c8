"""Turns are kept only where what they were made of is still as it was read: in all stores."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from antiphon.errors import HistoryChangedError, StoreError
from antiphon.turn.store_protocols import NewTurn
from support.store_turns import (
    DONE,
    STORES,
    Opener,
    StoreWithStores,
    assistant,
    complete_turn,
    complete_turns,
    new_turn,
    opener,
    run,
)


@pytest.fixture(params=STORES)
def store_in(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    return opener(request.param, tmp_path)


@pytest.mark.parametrize("cascade", [True, False])
def test_a_turn_made_of_what_was_erased_since_is_not_kept(store_in: Opener, cascade: bool) -> None:
    """Whatever of its family was erased: its parent, an ancestor, one beside it."""

    async def refused(store: StoreWithStores, new: NewTurn) -> None:
        writing = asyncio.gather(
            store.begin(new),
            store.write(new.response_id, [assistant("secret")], DONE),
            return_exceptions=True,
        )
        errors = [type(error) for error in await writing]
        assert errors == [HistoryChangedError, StoreError]
        assert await store.turn("", new.response_id) is None

    async def main() -> None:
        async with store_in() as store:
            other = await complete_turn(store)
            for gone in range(3):
                heads = await complete_turns(store, 3)
                await store.delete("", heads[gone].response_id, cascade=cascade)
                await refused(store, new_turn("And?", parent=heads[2]))
                await refused(store, new_turn("And?", parent=heads[0]))
                # Nor where its words were only taken from there.
                taken = msgspec.structs.replace(new_turn("And?", parent=other), sources=heads[2:])
                await refused(store, taken)
            words = await complete_turn(store)
            assert await store.stores.conversations.erase_item("", words.response_id, 0)
            await refused(store, new_turn("And?", parent=words))
            # What is erased elsewhere is no reason.
            late = new_turn("And?", parent=other)
            await store.begin(msgspec.structs.replace(late, sources=[other]))
            assert await store.turn("", late.response_id) is not None

    run(main())
