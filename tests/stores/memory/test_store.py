"""What is true of the memory store alone."""

from antiphon.errors import StoreError
from antiphon.stores.memory.store import MemoryStore
from support.store_turns import DONE, new_turn


async def test_its_futures_are_done_at_once() -> None:
    store = MemoryStore()
    new = new_turn("Hi.")
    begun = store.begin(new)
    written = store.write(new.response_id, [], DONE)
    refused = store.begin(new)
    assert begun.done()
    assert written.done()
    assert isinstance(refused.exception(), StoreError)


async def test_closing_forgets_everything_and_two_stores_share_nothing() -> None:
    one, two = MemoryStore(), MemoryStore()
    new = new_turn("Hi.")
    await one.begin(new)
    assert await two.head("", new.response_id) is None
    await one.close()
    assert await two.recent_threads("", 1) == []
