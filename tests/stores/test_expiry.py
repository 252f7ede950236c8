"""Retention in every store: what is too old is missing at once, and erased by a sweep."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from antiphon.core.retention import DAY_SECONDS, RETAIN_FOREVER, Expiry, RetentionPolicy
from antiphon.core.turns import Header
from antiphon.errors import HistoryChangedError, InvalidRequestError, NotFoundError
from antiphon.turn.store_protocols import Head, ResponseFilter
from support.store_turns import (
    DONE,
    STORES,
    ManualTime,
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

LIFE = 100.0


@pytest.fixture
def time() -> ManualTime:
    return ManualTime()


@pytest.fixture(params=STORES)
def store_in(request: pytest.FixtureRequest, tmp_path: Path, time: ManualTime) -> Opener:
    lifetimes = RetentionPolicy(LIFE, {"long": 3 * LIFE, "ever": None})
    return opener(request.param, tmp_path, lifetimes, time)


async def said(
    store: StoreWithStores,
    time: ManualTime,
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


async def is_there(store: StoreWithStores, head: Head) -> bool:
    """Asked in every way."""
    tenant, name = head.tenant, head.response_id
    there = await store.head(tenant, name) is not None
    assert (await store.turn(tenant, name) is not None) == there
    listed = await store.stores.response_index.list_responses(tenant, 99)
    assert (name in [turn.response_id for turn in listed]) == there
    assert (name in await ids_of(store, head)) == there
    if not there:
        assert name not in [line.response_id for line in await store.recent_threads(tenant, 99)]
        assert not await store.delete(tenant, name)
        assert not await store.stores.conversations.erase_item(tenant, name, 0)
    return there


def test_thirty_days_unless_otherwise_told() -> None:
    assert RetentionPolicy().seconds_for("anyone") == 30 * DAY_SECONDS
    mixed = RetentionPolicy(None, {"a": 5.0})
    assert (mixed.seconds_for("a"), mixed.seconds_for("b")) == (5.0, None)
    assert RETAIN_FOREVER.seconds_for("") is None
    assert Expiry(RetentionPolicy(5.0), lambda: 7.0).cutoff("") == 2.0
    assert Expiry(RETAIN_FOREVER).expires_at("", 1.0) is None


async def test_a_turn_is_missing_the_moment_it_expires(store_in: Opener, time: ManualTime) -> None:
    async with store_in() as store:
        short = await said(store, time)
        long = await said(store, time, tenant="long")
        ever = await said(store, time, tenant="ever")
        assert await expires_at(store, short) == time.now + LIFE
        assert await expires_at(store, long) == time.now + 3 * LIFE
        assert await expires_at(store, ever) is None
        time.now += LIFE - 0.5
        assert await is_there(store, short)
        time.now += 0.5
        assert not await is_there(store, short)
        assert await is_there(store, long)
        time.now += 1e9
        assert not await is_there(store, long)
        assert await is_there(store, ever)


async def test_a_chain_lives_as_long_as_its_last_turn(store_in: Opener, time: ManualTime) -> None:
    async with store_in() as store:
        heads = [await said(store, time)]
        for _ in range(5):
            time.now += 60
            heads.append(await said(store, time, heads[-1]))
        for head in heads:
            assert await is_there(store, head)
            assert await expires_at(store, head) == time.now + LIFE
        time.now += LIFE
        assert not any([await is_there(store, head) for head in heads])


async def test_a_living_branch_keeps_its_ancestors_and_no_others(
    store_in: Opener, time: ManualTime
) -> None:
    async with store_in() as store:
        first = await said(store, time)
        second = await said(store, time, first)
        third = await said(store, time, second)
        time.now += 60
        branch = await said(store, time, first)
        time.now += 60
        twig = await said(store, time, branch)
        other = await said(store, time, branch)
        time.now += 90
        left = [await is_there(store, head) for head in (first, branch, twig, other)]
        assert left == [True] * 4
        assert not await is_there(store, second)
        assert not await is_there(store, third)
        # What keeps the branch is erased: it counts no more.
        await store.delete("", twig.response_id)
        await store.delete("", other.response_id)
        assert not await is_there(store, first)


def test_a_clock_that_was_set_back_takes_nobodys_past(store_in: Opener, time: ManualTime) -> None:
    async def main() -> None:
        async with store_in() as store:
            first = await said(store, time)
            time.now -= 90
            second = await said(store, time, first)
            assert second.timestamp == first.timestamp
            time.now += LIFE + 50
            # Old by its own time, but younger than what it goes on from.
            assert await is_there(store, second)
            assert await is_there(store, first)
            time.now += 40
            assert not await is_there(store, second)
            time.now -= 1
            assert await is_there(store, second)

    run(main())


async def test_a_conversation_expires_with_its_chain(store_in: Opener, time: ManualTime) -> None:
    async with store_in() as store:
        ledger = store.stores.conversations
        empty = await ledger.create("", {})
        talk = await ledger.create("", {})
        for _ in range(3):
            time.now += 60
            now = await ledger.get("", talk.id)
            assert now is not None
            parent = await head_of(store, now.head) if now.head else None
            new = new_turn("Hi.", parent=parent, created_at=time.now)
            new = msgspec.structs.replace(new, conversation=now)
            await store.begin(new)
            await store.write(new.response_id, [], DONE)
        assert await ledger.get("", empty.id) is None
        assert await ledger.update_metadata("", empty.id, {"a": "b"}) is None
        assert not await ledger.delete("", empty.id)
        assert [one.id for one in await ledger.list_conversations("", 9)] == [talk.id]
        time.now += LIFE
        assert await ledger.get("", talk.id) is None
        assert await ledger.list_conversations("", 9) == []
        with pytest.raises(NotFoundError):
            await store.begin(msgspec.structs.replace(new_turn("x"), conversation=talk))


async def test_a_sweep_erases_what_has_expired_and_nothing_else(
    store_in: Opener, time: ManualTime
) -> None:
    async with store_in() as store:
        sweep = store.stores.response_index.delete_expired
        old = [await said(store, time)]
        for _ in range(99):
            old.append(await said(store, time, old[-1]))
        old += [await said(store, time, old[5]) for _ in range(3)]
        old += [await said(store, time, old[-1]) for _ in range(2)]
        root = await said(store, time)
        aside = await said(store, time, root)
        ever = await said(store, time, tenant="ever")
        assert await sweep() == 0
        time.now += 60
        branch = await said(store, time, root)
        time.now += 60
        assert await sweep() == len(old) + 1
        assert await sweep() == 0
        assert not any([await is_there(store, head) for head in (*old, aside)])
        assert await ids_of(store, branch) == [root.response_id, branch.response_id]
        assert await is_there(store, ever)
        later = await said(store, time, branch)
        assert (later.thread, later.seq) == (branch.thread, branch.seq + 1)


async def test_a_sweep_leaves_turns_that_still_run(store_in: Opener, time: ManualTime) -> None:
    async with store_in() as store:
        parent = await said(store, time)
        running = await said(store, time, parent, end=False)
        time.now += LIFE
        assert await store.stores.response_index.delete_expired() == 0
        await store.write(running.response_id, [assistant("At last.")], DONE)
        assert await store.turn("", running.response_id) is None
        assert await store.stores.response_index.delete_expired() == 2


async def test_nothing_goes_on_from_a_swept_turn(store_in: Opener, time: ManualTime) -> None:
    async with store_in() as store:
        first = await said(store, time)
        second = await said(store, time, first)
        time.now += 60
        branch = await said(store, time, first)
        time.now += 60
        assert await store.stores.response_index.delete_expired() == 1
        # The place is free again, and not the place of what had it before.
        third = await said(store, time, first)
        assert (third.thread, third.seq) == (second.thread, second.seq)
        with pytest.raises(HistoryChangedError):
            await said(store, time, second)
        assert await ids_of(store, third) == [first.response_id, third.response_id]
        assert await ids_of(store, branch) == [first.response_id, branch.response_id]


async def test_a_number_is_not_given_twice(store_in: Opener, time: ManualTime) -> None:
    async with store_in() as store:
        old = [await said(store, time) for _ in range(3)]
        time.now += LIFE
        assert await store.stores.response_index.delete_expired() == 3
        new = await said(store, time)
        assert new.thread not in {head.thread for head in old}


async def test_turns_are_listed_by_time(store_in: Opener, time: ManualTime) -> None:
    async with store_in() as store:
        listing = store.stores.response_index.list_responses
        heads: list[Head] = []
        for parent in (None, 0, None, 0, 1):
            time.now += 1
            heads.append(await said(store, time, None if parent is None else heads[parent]))
        await said(store, time, tenant="long")
        whole = [await store.turn("", head.response_id) for head in heads]
        assert await listing("", 9) == whole[::-1]
        assert await listing("", 2) == whole[:2:-1]
        assert await listing("", 9, newest_first=False) == whole
        after = heads[2].response_id
        assert await listing("", 9, after=after) == whole[1::-1]
        assert await listing("", 1, after=after, newest_first=False) == whole[3:4]
        assert await listing("", 0) == []
        await store.delete("", heads[3].response_id)
        del whole[3]
        assert await listing("", 9, newest_first=False) == whole
        for tenant, none in (("long", after), ("", heads[3].response_id), ("", "resp_")):
            with pytest.raises(InvalidRequestError, match="in this list"):
                await listing(tenant, 9, after=none)


async def test_a_list_shows_what_is_wanted(store_in: Opener, time: ManualTime) -> None:
    async with store_in() as store:
        options = new_turn().header.options
        marked = msgspec.structs.replace(options, metadata={"a": "b", "c": "d"})
        headers = [Header("small"), Header("large"), Header("small", options=marked)]
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
