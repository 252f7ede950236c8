"""The history cache: bounded, and always equal to the store."""

from __future__ import annotations

import asyncio
import gc
import random
import tracemalloc
from pathlib import Path

import msgspec
import pytest

from antiphon.core.ids import new_response_id
from antiphon.core.items import FunctionCallOutput, Message, encode_item
from antiphon.core.turns import End
from antiphon.stores.memory.store import MemoryStore
from antiphon.turn.history_cache import History, HistoryCache, render_stored_turn
from antiphon.turn.message_rendering import RenderedTurn, build_messages, render_turn
from antiphon.turn.store_protocols import Head, HistoryTurn, Store, StoredTurn
from support.store_turns import (
    DONE,
    HEADER,
    STORES,
    assistant,
    complete_turn,
    complete_turns,
    head_of,
    new_turn,
    opener,
    user,
)
from support.turn_service import run


class CountingStore(MemoryStore):
    """A store that counts reads of whole histories; ``release`` makes readers wait."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.release: asyncio.Event | None = None

    async def history(self, head: Head) -> list[HistoryTurn]:
        self.reads += 1
        turns = await super().history(head)
        if self.release is not None:
            await self.release.wait()
        return turns


async def stored_messages(store: Store, head: Head) -> bytes:
    """The messages that the store alone gives."""
    return build_messages([render_stored_turn(turn) for turn in await store.chain(head)])


async def cached_messages(history: HistoryCache, head: Head) -> bytes:
    return build_messages((await history.get(head)).turns)


NEW = RenderedTurn(b"{}")


async def test_repeated_get_reads_the_chain_once() -> None:
    store = CountingStore()
    history = HistoryCache(store)
    *_, head = await complete_turns(store, 3)
    first = await history.get(head)
    assert await history.get(head) is first
    assert store.reads == 1
    assert build_messages(first.turns) == await stored_messages(store, head)


async def test_extending_a_history_moves_its_cache_entry() -> None:
    store = CountingStore()
    history = HistoryCache(store)
    *_, head = await complete_turns(store, 2)
    past = await history.get(head)
    child = await complete_turn(store, parent=head)
    history.extend(child.response_id, past, NEW, head)
    assert (await history.get(child)).turns == (*past.turns, NEW)
    assert store.reads == 1
    # The parent's entry is gone: a branch from it reads the store, and is correct.
    assert await cached_messages(history, head) == await stored_messages(store, head)
    assert store.reads == 2


async def test_turns_of_other_processes_are_added_to_what_is_in_memory() -> None:
    store = CountingStore()
    history = HistoryCache(store)
    heads = await complete_turns(store, 30)
    await history.get(heads[20])
    assert await cached_messages(history, heads[23]) == await stored_messages(store, heads[23])
    assert store.reads == 1
    await history.get(heads[24])
    assert store.reads == 1
    # Too many to be looked at one by one.
    assert await cached_messages(history, heads[29]) == await stored_messages(store, heads[29])
    assert store.reads == 2


async def test_outputs_of_an_erased_turns_calls_stay_left_out() -> None:
    """Whether what came before was torn, a chain in memory does not tell: it is read whole."""
    store = MemoryStore()
    history = HistoryCache(store)
    heads = await complete_turns(store, 20)
    assert await store.delete("", heads[-2].response_id)
    last = await head_of(store, heads[-1].response_id)
    await history.get(last)
    answering = msgspec.structs.replace(
        new_turn("Well?", parent=last),
        input=(encode_item(FunctionCallOutput("call_0", "done")), user("Well?")),
    )
    store.begin(answering)
    await store.write(answering.response_id, [assistant("So.")], DONE)
    head = await head_of(store, answering.response_id)
    assert await cached_messages(history, head) == await cached_messages(HistoryCache(store), head)


async def test_entry_of_another_epoch_is_not_used() -> None:
    store = CountingStore()
    history = HistoryCache(store)
    heads = await complete_turns(store, 3)
    await history.get(heads[2])
    assert await store.delete("", heads[1].response_id)
    fresh = await head_of(store, heads[2].response_id)
    assert fresh.epoch != heads[2].epoch
    assert len((await history.get(fresh)).turns) == 2
    assert await cached_messages(history, fresh) == await stored_messages(store, fresh)


async def test_turn_started_before_a_deletion_does_not_restore_deleted_turns() -> None:
    store = CountingStore()
    history = HistoryCache(store)
    heads = await complete_turns(store, 2)
    past = await history.get(heads[1])
    child = await complete_turn(store, parent=heads[1])
    assert await store.delete("", heads[0].response_id)
    # The child was prepared with the parent's epoch before the deletion.
    history.extend(child.response_id, past, NEW, None, stored_head=heads[1])
    fresh = await head_of(store, child.response_id)
    assert len((await history.get(fresh)).turns) == 2
    assert await cached_messages(history, fresh) == await stored_messages(store, fresh)


async def test_full_cache_evicts_the_least_recently_used_entry() -> None:
    store = CountingStore()
    # Room for two of these.
    history = HistoryCache(store, capacity=1500)
    heads = [await complete_turn(store) for _ in range(4)]
    for head in heads[:3]:
        history.extend(head.response_id, History(), RenderedTurn(b"x" * 40), None)
    await history.get(heads[1])  # used last
    history.extend(heads[3].response_id, History(), RenderedTurn(b"x" * 40), None)
    assert store.reads == 0
    await history.get(heads[1])
    await history.get(heads[3])
    assert store.reads == 0
    await history.get(heads[0])
    await history.get(heads[2])
    assert store.reads == 2


@pytest.mark.parametrize("repeats", [1, 200])
@pytest.mark.parametrize("turns", [1, 3, 30])
def test_cache_size_is_close_to_its_allocated_memory(turns: int, repeats: int) -> None:
    entries = 240 // turns

    def fill(history: HistoryCache) -> None:
        for _ in range(entries):
            past: History = History()
            parent: Head | None = None
            for _ in range(turns):
                messages = [
                    Message("user", "Hi! " * repeats),
                    Message("assistant", "Hello. " * repeats),
                ]
                response_id, new = new_response_id(), render_turn(messages)
                history.extend(response_id, past, new, parent)
                past, parent = History((*past.turns, new)), head_at(response_id)
                history.replace(parent, past)

    history = HistoryCache(MemoryStore(), capacity=1_000_000_000)
    gc.collect()
    tracemalloc.start()
    try:
        fill(history)
        gc.collect()
        allocated, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(history._entries) == entries
    assert 0.8 < history._size / allocated < 1.25


def head_at(response_id: str) -> Head:
    return Head(response_id, "", 0, 0, 0, 0, is_running=False)


async def test_history_larger_than_the_cache_is_read_each_time() -> None:
    store = CountingStore()
    history = HistoryCache(store, capacity=500)
    head = await complete_turn(store)
    for reads in (1, 2, 3):
        assert await cached_messages(history, head) == await stored_messages(store, head)
        assert store.reads == reads


async def test_concurrent_reads_of_a_chain_count_its_size_once() -> None:
    """An entry that is added twice counts once, or the cache would end up empty and then broken."""
    store = CountingStore()
    head = await complete_turn(store, "x" * 100)
    history = HistoryCache(store, capacity=4000)
    for _ in range(30):
        store.release = asyncio.Event()
        readers = [asyncio.ensure_future(history.get(head)) for _ in range(4)]
        await asyncio.sleep(0)
        store.release.set()
        await asyncio.gather(*readers)
        # Out of the cache, for the next round to read it again.
        history.extend("another", History(), RenderedTurn(b"x" * 10), head)
    store.release = None
    await history.get(head)
    before = store.reads
    await history.get(head)
    assert store.reads == before


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", STORES)
def test_cache_agrees_with_the_store_after_random_operations(
    kind: str, seed: int, tmp_path: Path
) -> None:
    """Random turns, branches and deletions, in the order in which the service makes them."""
    generator = random.Random(seed)

    async def run_random_turns(store: Store) -> None:
        # One of a process each: what one goes on with, the other has to read.
        caches = [
            HistoryCache(
                store, capacity=generator.choice([0, 3000, 1_000_000]), min_extended_length=1
            )
            for _ in range(2)
        ]
        ids: list[str] = []
        for number in range(40):
            if ids and generator.random() < 0.2:
                await store.delete("", generator.choice(ids), cascade=generator.random() < 0.3)
            history = generator.choice(caches)
            parent = None
            if ids and generator.random() < 0.85:
                parent, newest = await history.find_head("", generator.choice(ids[-3:]))
            past = History()
            if parent is not None:
                past = history.join(parent, newest) or await history.get(parent)
                assert build_messages(past.turns) == await stored_messages(store, parent)
            turn = new_turn(f"question {number}", parent=parent, header=HEADER)
            ids.append(turn.response_id)
            store.begin(turn)
            output, end = (assistant(f"answer {number}"),), End("completed", 1.0)
            await store.write(turn.response_id, output, end)
            new = StoredTurn(
                turn.response_id, 0.0, HEADER, (user(f"question {number}"),), output, end
            )
            history.extend(turn.response_id, past, render_stored_turn(new), parent)
        for response_id in ids:
            head = await store.head("", response_id)
            for history in caches if head is not None else ():
                assert head is not None
                assert await cached_messages(history, head) == await stored_messages(store, head)

    async def main() -> None:
        async with opener(kind, tmp_path)() as store:
            await run_random_turns(store)

    run(main())


def test_only_a_completed_turn_has_open_calls() -> None:
    turn = StoredTurn("resp_", 0.0, HEADER, (user("Hi."),), (), None)
    assert not render_stored_turn(turn).completed
    for status in ("completed", "failed", "cancelled", "incomplete"):
        ended = StoredTurn("resp_", 0.0, HEADER, (user("Hi."),), (), End(status, 1.0))
        assert render_stored_turn(ended).completed is (status == "completed")
