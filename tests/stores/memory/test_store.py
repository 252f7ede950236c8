"""The memory store: what differs from other stores."""

from antiphon.errors import StoreError
from antiphon.stores.memory.store import MemoryStore
from support.store_turns import DONE, new_turn
from support.stored_responses import response_ids


async def test_memory_store_futures_are_already_done() -> None:
    store = MemoryStore()
    new = new_turn("Hi.")
    begun = store.begin(new)
    written = store.write(new.response_id, [], DONE)
    refused = store.begin(new)
    assert begun.done()
    assert written.done()
    assert isinstance(refused.exception(), StoreError)


async def test_memory_stores_share_nothing_and_closing_erases() -> None:
    one, two = MemoryStore(), MemoryStore()
    new = new_turn("Hi.")
    await one.begin(new)
    assert await two.head("", new.response_id) is None
    await one.close()
    assert await response_ids(two) == []
