"""Retention in every store: an expired turn is missing, and erased by ``delete_expired``."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import msgspec
import pytest

from antiphon.core.retention import DAY_SECONDS, RETAIN_FOREVER, Expiry, RetentionPolicy
from antiphon.core.turns import Header
from antiphon.errors import (
    ConflictError,
    HistoryChangedError,
    InvalidRequestError,
    NotFoundError,
)
from antiphon.turn.chat_protocols import ChatFilter, ChatUpdate
from antiphon.turn.store_protocols import Head, ResponseFilter
from support.store_turns import (
    DONE,
    STORES,
    ManualClock,
    Opener,
    StoreWithStores,
    assistant,
    head_of,
    ids_of,
    new_turn,
    opener,
    run,
    user,
)

RETENTION = 100.0


@pytest.fixture
def time() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=STORES)
def store_in(request: pytest.FixtureRequest, tmp_path: Path, time: ManualClock) -> Opener:
    retention = RetentionPolicy(RETENTION, {"long": 3 * RETENTION, "ever": None})
    return partial(opener(request.param, tmp_path), time, retention)


async def store_turn(
    store: StoreWithStores,
    time: ManualClock,
    parent: Head | None = None,
    tenant: str = "",
    end: bool = True,
) -> Head:
    new = new_turn("Hi.", parent=parent, tenant=tenant, created_at=time.now)
    await store.begin(new)
    if end:
        await store.write(new.response_id, [assistant("Yes.")], DONE)
    return await head_of(store, new.response_id, tenant)


async def expires_at(store: StoreWithStores, head: Head) -> float | None:
    turn = await store.turn(head.tenant, head.response_id)
    assert turn is not None
    return turn.expires_at


async def is_found(store: StoreWithStores, head: Head) -> bool:
    """Whether a turn is found; every kind of read agrees."""
    tenant, name = head.tenant, head.response_id
    is_stored = await store.head(tenant, name) is not None
    assert (await store.turn(tenant, name) is not None) == is_stored
    listed = await store.stores.response_index.list_responses(tenant, 99)
    assert (name in [turn.response_id for turn in listed]) == is_stored
    assert (name in await ids_of(store, head)) == is_stored
    if not is_stored:
        heads = [chat.head for chat in await store.stores.chats.list_chats(tenant, 99)]
        assert name not in heads
        assert not await store.delete(tenant, name)
        assert not await store.stores.conversations.erase_item(tenant, name, 0)
    return is_stored


async def test_permanent_chat_does_not_expire(store_in: Opener, time: ManualClock) -> None:
    async with store_in() as store:
        chats, sweep = store.stores.chats, store.stores.response_index.delete_expired
        first = await store_turn(store, time)
        branch = await store_turn(store, time, parent=first)
        other = await store_turn(store, time)
        changed = await chats.update("", branch.response_id, ChatUpdate(is_permanent=True))
        assert changed is not None
        assert (changed.is_permanent, changed.expires_at) == (True, None)
        time.now += RETENTION
        assert await sweep() == 1
        assert await store.head("", other.response_id) is None
        for head in (first, branch):
            assert await expires_at(store, head) is None
            assert await store.head("", head.response_id) is not None
        assert await ids_of(store, branch) == [first.response_id, branch.response_id]
        (found,) = await chats.list_chats("", 9)
        assert found == changed
        assert [hit.response_id for hit in await store.stores.search.search("", "Hi", 9)] != []
        (listed,) = await chats.list_chats("", 9, chat_filter=ChatFilter(is_permanent=True))
        assert listed == changed
        # What is erased is gone all the same.
        await store.delete("", branch.response_id)
        assert await store.head("", branch.response_id) is None


async def test_permanent_chat_expires_again_once_it_is_not(
    store_in: Opener, time: ManualClock
) -> None:
    async with store_in() as store:
        chats, sweep = store.stores.chats, store.stores.response_index.delete_expired
        first = await store_turn(store, time)
        assert await chats.update("", first.response_id, ChatUpdate(is_permanent=True))
        time.now += RETENTION
        assert await sweep() == 0
        with pytest.raises(ConflictError):
            await chats.update("", first.response_id, ChatUpdate(is_permanent=False))
        second = await store_turn(store, time, parent=await head_of(store, first.response_id))
        changed = await chats.update("", first.response_id, ChatUpdate(is_permanent=False))
        assert changed is not None
        assert changed.expires_at == await expires_at(store, second) == time.now + RETENTION
        time.now += RETENTION
        assert await chats.get("", first.response_id) is None
        assert await sweep() == 2


async def test_conversation_lives_as_long_as_its_permanent_chat(
    store_in: Opener, time: ManualClock
) -> None:
    async with store_in() as store:
        conversations, index = store.stores.conversations, store.stores.response_index
        made = await conversations.create("", {})
        new = msgspec.structs.replace(new_turn("Hi.", created_at=time.now), conversation=made)
        await store.begin(new)
        await store.write(new.response_id, [], DONE)
        assert await store.stores.chats.update("", made.id, ChatUpdate(is_permanent=True))
        for _ in range(2):
            time.now += RETENTION
            assert await index.delete_expired() == 0
            found = await conversations.get("", made.id)
            assert found is not None
            assert new.response_id in {found.active_response_id, found.head}


def test_default_retention_is_thirty_days() -> None:
    assert RetentionPolicy().seconds_for("anyone") == 30 * DAY_SECONDS
    mixed = RetentionPolicy(None, {"a": 5.0})
    assert (mixed.seconds_for("a"), mixed.seconds_for("b")) == (5.0, None)
    assert RETAIN_FOREVER.seconds_for("") is None
    assert Expiry(RetentionPolicy(5.0), lambda: 7.0).cutoff("") == 2.0
    assert Expiry(RETAIN_FOREVER).expires_at("", 1.0) is None


async def test_turn_is_missing_as_soon_as_it_expires(store_in: Opener, time: ManualClock) -> None:
    async with store_in() as store:
        short = await store_turn(store, time)
        long = await store_turn(store, time, tenant="long")
        kept_forever = await store_turn(store, time, tenant="ever")
        assert await expires_at(store, short) == time.now + RETENTION
        assert await expires_at(store, long) == time.now + 3 * RETENTION
        assert await expires_at(store, kept_forever) is None
        time.now += RETENTION - 0.5
        assert await is_found(store, short)
        time.now += 0.5
        assert not await is_found(store, short)
        assert await is_found(store, long)
        time.now += 1e9
        assert not await is_found(store, long)
        assert await is_found(store, kept_forever)


async def test_chain_expires_with_its_newest_turn(store_in: Opener, time: ManualClock) -> None:
    async with store_in() as store:
        heads = [await store_turn(store, time)]
        for _ in range(5):
            time.now += 60
            heads.append(await store_turn(store, time, heads[-1]))
        for head in heads:
            assert await is_found(store, head)
            assert await expires_at(store, head) == time.now + RETENTION
        time.now += RETENTION
        assert not any([await is_found(store, head) for head in heads])


async def test_branch_keeps_only_its_ancestors_alive(store_in: Opener, time: ManualClock) -> None:
    async with store_in() as store:
        first = await store_turn(store, time)
        second = await store_turn(store, time, first)
        third = await store_turn(store, time, second)
        time.now += 60
        branch = await store_turn(store, time, first)
        time.now += 60
        nested_branch = await store_turn(store, time, branch)
        other = await store_turn(store, time, branch)
        time.now += 90
        found = [await is_found(store, head) for head in (first, branch, nested_branch, other)]
        assert found == [True] * 4
        assert not await is_found(store, second)
        assert not await is_found(store, third)
        # The turns that keep the branch alive are deleted.
        await store.delete("", nested_branch.response_id)
        await store.delete("", other.response_id)
        assert not await is_found(store, first)


def test_clock_set_back_does_not_expire_a_parent_early(store_in: Opener, time: ManualClock) -> None:
    async def main() -> None:
        async with store_in() as store:
            first = await store_turn(store, time)
            time.now -= 90
            second = await store_turn(store, time, first)
            assert second.timestamp == first.timestamp
            time.now += RETENTION + 50
            # Expired by its own time, but not by its parent's.
            assert await is_found(store, second)
            assert await is_found(store, first)
            time.now += 40
            assert not await is_found(store, second)
            time.now -= 1
            assert await is_found(store, second)

    run(main())


async def test_conversation_expires_with_its_chain(store_in: Opener, time: ManualClock) -> None:
    async with store_in() as store:
        conversations = store.stores.conversations
        empty = await conversations.create("", {})
        conversation = await conversations.create("", {})
        for _ in range(3):
            time.now += 60
            now = await conversations.get("", conversation.id)
            assert now is not None
            parent = await head_of(store, now.head) if now.head else None
            new = new_turn("Hi.", parent=parent, created_at=time.now)
            new = msgspec.structs.replace(new, conversation=now)
            await store.begin(new)
            await store.write(new.response_id, [], DONE)
        assert await conversations.get("", empty.id) is None
        assert await conversations.update_metadata("", empty.id, {"a": "b"}) is None
        assert not await conversations.delete("", empty.id)
        assert [one.id for one in await conversations.list_conversations("", 9)] == [
            conversation.id
        ]
        time.now += RETENTION
        assert await conversations.get("", conversation.id) is None
        assert await conversations.list_conversations("", 9) == []
        with pytest.raises(NotFoundError):
            await store.begin(msgspec.structs.replace(new_turn("x"), conversation=conversation))


async def test_delete_expired_deletes_only_expired_turns(
    store_in: Opener, time: ManualClock
) -> None:
    async with store_in() as store:
        delete_expired = store.stores.response_index.delete_expired
        old = [await store_turn(store, time)]
        for _ in range(99):
            old.append(await store_turn(store, time, old[-1]))
        old += [await store_turn(store, time, old[5]) for _ in range(3)]
        old += [await store_turn(store, time, old[-1]) for _ in range(2)]
        root = await store_turn(store, time)
        aside = await store_turn(store, time, root)
        kept_forever = await store_turn(store, time, tenant="ever")
        assert await delete_expired() == 0
        time.now += 60
        branch = await store_turn(store, time, root)
        time.now += 60
        assert await delete_expired() == len(old) + 1
        assert await delete_expired() == 0
        assert not any([await is_found(store, head) for head in (*old, aside)])
        assert await ids_of(store, branch) == [root.response_id, branch.response_id]
        assert await is_found(store, kept_forever)
        later = await store_turn(store, time, branch)
        assert (later.thread, later.seq) == (branch.thread, branch.seq + 1)


async def test_delete_expired_keeps_running_turns(store_in: Opener, time: ManualClock) -> None:
    async with store_in() as store:
        parent = await store_turn(store, time)
        running = await store_turn(store, time, parent, end=False)
        time.now += RETENTION
        assert await store.stores.response_index.delete_expired() == 0
        await store.write(running.response_id, [assistant("At last.")], DONE)
        assert await store.turn("", running.response_id) is None
        assert await store.stores.response_index.delete_expired() == 2


async def test_expired_and_deleted_turn_cannot_be_continued(
    store_in: Opener, time: ManualClock
) -> None:
    async with store_in() as store:
        first = await store_turn(store, time)
        second = await store_turn(store, time, first)
        time.now += 60
        branch = await store_turn(store, time, first)
        time.now += 60
        assert await store.stores.response_index.delete_expired() == 1
        # The position is free again, but the expired turn is not found there.
        third = await store_turn(store, time, first)
        assert (third.thread, third.seq) == (second.thread, second.seq)
        with pytest.raises(HistoryChangedError):
            await store_turn(store, time, second)
        assert await ids_of(store, third) == [first.response_id, third.response_id]
        assert await ids_of(store, branch) == [first.response_id, branch.response_id]


async def test_thread_number_is_not_reused(store_in: Opener, time: ManualClock) -> None:
    async with store_in() as store:
        old = [await store_turn(store, time) for _ in range(3)]
        time.now += RETENTION
        assert await store.stores.response_index.delete_expired() == 3
        new = await store_turn(store, time)
        assert new.thread not in {head.thread for head in old}


async def test_list_responses_is_ordered_by_time(store_in: Opener, time: ManualClock) -> None:
    async with store_in() as store:
        listing = store.stores.response_index.list_responses
        heads: list[Head] = []
        for parent in (None, 0, None, 0, 1):
            time.now += 1
            heads.append(await store_turn(store, time, None if parent is None else heads[parent]))
        await store_turn(store, time, tenant="long")
        turns = [await store.turn("", head.response_id) for head in heads]
        assert await listing("", 9) == turns[::-1]
        assert await listing("", 2) == turns[:2:-1]
        assert await listing("", 9, newest_first=False) == turns
        after = heads[2].response_id
        assert await listing("", 9, after=after) == turns[1::-1]
        assert await listing("", 1, after=after, newest_first=False) == turns[3:4]
        assert await listing("", 0) == []
        await store.delete("", heads[3].response_id)
        del turns[3]
        assert await listing("", 9, newest_first=False) == turns
        for tenant, unknown_id in (("long", after), ("", heads[3].response_id), ("", "resp_")):
            with pytest.raises(InvalidRequestError, match="in this list"):
                await listing(tenant, 9, after=unknown_id)


async def test_list_responses_filters_by_model_status_and_metadata(
    store_in: Opener, time: ManualClock
) -> None:
    async with store_in() as store:
        options = new_turn().header.options
        with_metadata = msgspec.structs.replace(options, metadata={"a": "b", "c": "d"})
        headers = [Header("small"), Header("large"), Header("small", options=with_metadata)]
        turns = [
            new_turn("Hi.", header=header, created_at=time.now + number)
            for number, header in enumerate(headers)
        ]
        for turn in turns:
            await store.begin(turn)
        await store.write(turns[2].response_id, [], DONE)
        for wanted, expected in (
            (ResponseFilter(), [0, 1, 2]),
            (ResponseFilter(model="small"), [0, 2]),
            (ResponseFilter(status="completed"), [2]),
            (ResponseFilter(status="in_progress"), [0, 1]),
            (ResponseFilter(metadata={"c": "d"}), [2]),
            (ResponseFilter(metadata={"c": "x"}), []),
            (ResponseFilter(model="large", status="completed"), []),
        ):
            found = await store.stores.response_index.list_responses(
                "", 9, newest_first=False, response_filter=wanted
            )
            assert [turn.response_id for turn in found] == [
                turns[number].response_id for number in expected
            ]
        assert found == []
        (one,) = await store.stores.response_index.list_responses("", 1)
        assert one.input == (user("Hi."),)
