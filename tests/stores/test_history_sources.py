"""History sources in every store: a turn is stored only if its history has not changed."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from antiphon.errors import HistoryChangedError, StoreError
from antiphon.turn.store_protocols import NewTurn
from support.store_turns import (
    DONE,
    Opener,
    StoreWithStores,
    assistant,
    complete_turn,
    complete_turns,
    new_turn,
    run,
)


@pytest.mark.parametrize("cascade", [True, False])
def test_turn_with_an_erased_source_is_refused(store_in: Opener, cascade: bool) -> None:
    """Whichever turn of the tree was erased: its parent, an ancestor, or another turn."""

    async def check_refused(store: StoreWithStores, new: NewTurn) -> None:
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
            for deleted in range(3):
                heads = await complete_turns(store, 3)
                await store.delete("", heads[deleted].response_id, cascade=cascade)
                await check_refused(store, new_turn("And?", parent=heads[2]))
                await check_refused(store, new_turn("And?", parent=heads[0]))
                # Nor if it only refers to items of an erased history.
                with_sources = msgspec.structs.replace(
                    new_turn("And?", parent=other), sources=heads[2:]
                )
                await check_refused(store, with_sources)
            erased = await complete_turn(store)
            assert await store.stores.conversations.erase_item("", erased.response_id, 0)
            await check_refused(store, new_turn("And?", parent=erased))
            # Erasures in other trees do not matter.
            late = new_turn("And?", parent=other)
            await store.begin(msgspec.structs.replace(late, sources=[other]))
            assert await store.turn("", late.response_id) is not None

    run(main())
