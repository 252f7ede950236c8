"""Conversations in every store: who may go on with one, and what goes with it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from antiphon.core.ids import new_conversation_id
from antiphon.core.items import ErasedItem, encode_item
from antiphon.core.retention import RetentionPolicy
from antiphon.core.turns import ConversationRecord, End
from antiphon.errors import ConversationLockedError, InvalidRequestError, NotFoundError, StoreError
from antiphon.stores.sqlite.reader import read_conversation
from antiphon.stores.sqlite.store import SqliteStore
from antiphon.turn.store_protocols import Head, NewTurn
from support.store_turns import (
    DONE,
    HEADER,
    STORES,
    ManualTime,
    Opener,
    StoreWithStores,
    assistant,
    blobs_of,
    complete_turn,
    head_of,
    ids_of,
    new_turn,
    opener,
    sqlite,
    user,
)

FAILED = End("failed", 1_700_000_100.0)


@pytest.fixture(params=STORES)
def store_in(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    return opener(request.param, tmp_path)


def turn_on(
    conversation: ConversationRecord, parent: Head | None = None, said: str = "Hi."
) -> NewTurn:
    header = msgspec.structs.replace(HEADER, conversation=conversation.id)
    new = new_turn(said, parent=parent, header=header)
    return msgspec.structs.replace(new, conversation=conversation)


async def seen(store: StoreWithStores, conversation: ConversationRecord) -> ConversationRecord:
    found = await store.stores.conversations.get("", conversation.id)
    assert found is not None
    return found


async def said_on(
    store: StoreWithStores,
    conversation: ConversationRecord,
    end: End | None = DONE,
    said: str = "Hi.",
) -> Head:
    """A turn from the head of the conversation on."""
    now = await seen(store, conversation)
    parent = await head_of(store, now.head) if now.head else None
    new = turn_on(now, parent, said)
    await store.begin(new)
    if end is not None:
        await store.write(new.response_id, [assistant("Yes.")], end)
    return await head_of(store, new.response_id)


async def test_a_conversation_is_kept_with_its_metadata(store_in: Opener) -> None:
    async with store_in() as store:
        ledger = store.stores.conversations
        made = await ledger.create("me", {"a": "ü", "b": ""})
        assert await ledger.get("me", made.id) == made
        assert (made.head, made.active_response_id) == (None, None)
        changed = await ledger.update_metadata("me", made.id, {"c": "d"})
        assert changed == msgspec.structs.replace(made, metadata={"c": "d"})
        assert await ledger.get("me", made.id) == changed
        for tenant, name in (("you", made.id), ("me", new_conversation_id()), ("me", "x")):
            assert await ledger.get(tenant, name) is None
            assert await ledger.update_metadata(tenant, name, {}) is None
            assert not await ledger.delete(tenant, name)


async def test_the_head_follows_the_turns_that_end_well(store_in: Opener) -> None:
    async with store_in() as store:
        talk = await store.stores.conversations.create("", {})
        first = await said_on(store, talk)
        assert (await seen(store, talk)).head == first.response_id
        running = await said_on(store, talk, None)
        now = await seen(store, talk)
        assert (now.head, now.active_response_id) == (first.response_id, running.response_id)
        await store.write(running.response_id, [], End("incomplete", 1.0))
        now = await seen(store, talk)
        assert (now.head, now.active_response_id) == (running.response_id, None)
        for end in (FAILED, End("cancelled", 1.0)):
            await said_on(store, talk, end)
            assert await seen(store, talk) == now
        last = await said_on(store, talk)
        assert await ids_of(store, last) == [
            first.response_id,
            running.response_id,
            last.response_id,
        ]


async def test_of_two_turns_begun_at_once_one_is_kept(store_in: Opener) -> None:
    async with store_in() as store:
        talk = await store.stores.conversations.create("", {})
        turns = [turn_on(talk) for _ in range(5)]
        promises = [store.begin(turn) for turn in turns]
        promises += [store.write(turn.response_id, [], DONE) for turn in turns]
        results = await asyncio.gather(*promises, return_exceptions=True)
        kinds = [type(result) for result in results]
        assert kinds[:5] == [type(None)] + [ConversationLockedError] * 4
        assert kinds[5:] == [type(None)] + [StoreError] * 4
        assert (await seen(store, talk)).head == turns[0].response_id
        for turn in turns[1:]:
            assert await store.head("", turn.response_id) is None
        assert len(await store.recent_threads("", 9)) == 1


async def test_a_turn_on_an_old_view_of_a_conversation_is_refused(store_in: Opener) -> None:
    async with store_in() as store:
        talk = await store.stores.conversations.create("", {})
        await said_on(store, talk, FAILED)
        # A turn that failed has moved nothing.
        await store.begin(turn := turn_on(talk))
        with pytest.raises(ConversationLockedError):
            await store.begin(turn_on(await seen(store, talk)))
        await store.write(turn.response_id, [], DONE)
        with pytest.raises(ConversationLockedError):
            await store.begin(turn_on(talk))
        foreign = msgspec.structs.replace(turn_on(talk), tenant="other")
        gone = turn_on(ConversationRecord(new_conversation_id(), 1.0))
        for none in (foreign, gone):
            with pytest.raises(NotFoundError):
                await store.begin(none)
            assert await store.head(none.tenant, none.response_id) is None


async def test_the_head_steps_back_when_it_is_deleted(store_in: Opener) -> None:
    async with store_in() as store:
        talk = await store.stores.conversations.create("", {})
        heads = [await said_on(store, talk) for _ in range(4)]
        await store.delete("", heads[2].response_id)
        assert (await seen(store, talk)).head == heads[3].response_id
        await store.delete("", heads[3].response_id)
        assert (await seen(store, talk)).head == heads[1].response_id
        running = await said_on(store, talk, None)
        await store.delete("", running.response_id)
        now = await seen(store, talk)
        assert (now.head, now.active_response_id) == (heads[1].response_id, None)
        await store.delete("", heads[0].response_id, cascade=True)
        assert (await seen(store, talk)).head is None
        await said_on(store, talk)


async def test_conversations_are_listed_by_age(store_in: Opener) -> None:
    async with store_in() as store:
        ledger = store.stores.conversations
        made = [await ledger.create("", {"n": str(n)}) for n in range(5)]
        await ledger.create("other", {})
        made.sort(key=lambda one: (one.created_at, one.id))
        assert await ledger.list_conversations("", 9) == made[::-1]
        assert await ledger.list_conversations("", 2, newest_first=False) == made[:2]
        assert (
            await ledger.list_conversations("", 2, after=made[1].id, newest_first=False)
            == made[2:4]
        )
        assert await ledger.list_conversations("", 9, after=made[1].id) == [made[0]]
        assert await ledger.list_conversations("", 9, after=made[0].id) == []
        assert await ledger.list_conversations("", 0) == []
        with pytest.raises(InvalidRequestError, match="in this list"):
            await ledger.list_conversations("other", 9, after=made[0].id)
        with pytest.raises(InvalidRequestError, match="in this list"):
            await ledger.list_conversations("", 9, after="conv_")
        busy = await said_on(store, made[2], None)
        (now,) = await ledger.list_conversations("", 1, after=made[1].id, newest_first=False)
        assert now.active_response_id == busy.response_id


async def test_a_deleted_conversation_takes_its_turns_along(store_in: Opener) -> None:
    async with store_in() as store:
        ledger = store.stores.conversations
        talk = await ledger.create("", {})
        # A first try that failed begins another tree.
        mine = [await said_on(store, talk, FAILED), await said_on(store, talk)]
        mine += [await said_on(store, talk, FAILED), await said_on(store, talk)]
        other = await ledger.create("", {})
        theirs = await said_on(store, other)
        beside = await complete_turn(store)
        running = await said_on(store, talk, None)
        assert await ledger.delete("", talk.id)
        assert not await ledger.delete("", talk.id)
        assert await ledger.get("", talk.id) is None
        for head in (*mine, running):
            assert await store.head("", head.response_id) is None
        assert await store.head("", theirs.response_id) == theirs
        assert await store.head("", beside.response_id) == beside
        await store.write(running.response_id, [assistant("late")], DONE)
        with pytest.raises(NotFoundError):
            await store.begin(turn_on(talk))


async def test_what_a_branch_outside_needs_outlives_its_conversation(store_in: Opener) -> None:
    async with store_in() as store:
        ledger = store.stores.conversations
        talk = await ledger.create("", {})
        heads = [await said_on(store, talk) for _ in range(5)]
        branch = await complete_turn(store, parent=heads[1])
        dead = await complete_turn(store, parent=heads[3])
        await store.delete("", dead.response_id)
        epoch = (await head_of(store, branch.response_id)).epoch
        assert await ledger.delete("", talk.id)
        living = [await store.head("", head.response_id) for head in heads]
        assert [head is not None for head in living] == [True, True, False, False, False]
        assert await ids_of(store, branch) == [
            heads[0].response_id,
            heads[1].response_id,
            branch.response_id,
        ]
        assert (await head_of(store, branch.response_id)).epoch > epoch


async def test_a_deleted_turn_between_does_not_part_a_branch_from_what_it_needs(
    store_in: Opener,
) -> None:
    async with store_in() as store:
        talk = await store.stores.conversations.create("", {})
        first, second = [await said_on(store, talk) for _ in range(2)]
        aside = await complete_turn(store, parent=first)
        outside = await complete_turn(store, parent=aside)
        await store.delete("", aside.response_id)
        await store.stores.conversations.delete("", talk.id)
        assert await ids_of(store, outside) == [first.response_id, outside.response_id]
        assert await store.head("", second.response_id) is None


async def test_an_erased_item_leaves_its_place(store_in: Opener) -> None:
    async with store_in() as store:
        ledger = store.stores.conversations
        new = new_turn("one", "two", images=[b"cat", b"dog"])
        store.begin(new)
        assert not await ledger.erase_item("", new.response_id, 0)
        await store.write(new.response_id, [assistant("three")], DONE)
        before = await head_of(store, new.response_id)
        gone = encode_item(ErasedItem())
        for position in (1, 2, 4):
            assert await ledger.erase_item("", new.response_id, position)
            assert not await ledger.erase_item("", new.response_id, position)
        for position in (-1, 5, 99):
            assert not await ledger.erase_item("", new.response_id, position)
        assert not await ledger.erase_item("other", new.response_id, 0)
        turn = await store.turn("", new.response_id)
        assert turn is not None
        assert turn.input == (user("one"), gone, gone, new.input[3])
        assert turn.output == (gone,)
        assert turn.blobs == blobs_of(b"dog")
        assert (await head_of(store, new.response_id)).epoch > before.epoch
        assert await store.chain(before) == [turn]


async def test_conversations_outlive_the_store(tmp_path: Path) -> None:
    path = tmp_path / "turns.db"
    async with sqlite(path) as store:
        talk = await store.stores.conversations.create("", {"a": "b"})
        first = await said_on(store, talk)
        await said_on(store, talk, None)
    async with sqlite(path) as store, sqlite(path) as other:
        # The turn that ran was interrupted.
        now = await seen(store, talk)
        assert now == msgspec.structs.replace(talk, head=first.response_id)
        await store.begin(turn_on(now, first))
        with pytest.raises(ConversationLockedError):
            await other.begin(turn_on(now, first))
        assert (await seen(other, talk)).active_response_id is not None


async def test_a_dead_process_keeps_no_conversation(tmp_path: Path) -> None:
    """The turn of a store that is gone without a word is no reason to wait."""
    path = tmp_path / "turns.db"
    async with sqlite(path) as store:
        talk = await store.stores.conversations.create("", {})
        running = await said_on(store, talk, None)
        # As if a process that is no more had begun it.
        await store._database.submit(
            lambda batch: batch.connection.execute("UPDATE running SET owner = 1")
        )
        (listed,) = await store.stores.conversations.list_conversations("", 1)
        assert listed.active_response_id is None
        assert (await seen(store, talk)).active_response_id is None
        turn = await store.turn("", running.response_id)
        assert turn is not None
        assert turn.end is not None
        assert turn.end.status == "failed"


async def test_a_conversation_costs_the_same_however_many_branches_it_has(tmp_path: Path) -> None:
    """It is read on the event loop, and again by whoever begins a turn on it."""
    life, time = 100.0, ManualTime()
    async with opener("sqlite", tmp_path, RetentionPolicy(life), time)() as store:
        assert isinstance(store, SqliteStore)
        talk = await store.stores.conversations.create("", {})
        new = msgspec.structs.replace(turn_on(talk), created_at=time.now)
        store.begin(new)
        await store.write(new.response_id, [], DONE)
        root = await head_of(store, new.response_id)
        connection = store._database._connections.read_connection

        def steps(cutoff: float) -> int:
            """How many tens of instructions SQLite's machine took."""
            done = 0

            def count() -> None:
                nonlocal done
                done += 1

            connection.set_progress_handler(count, 10)
            found, _ = read_conversation(connection, "", talk.id, cutoff)
            connection.set_progress_handler(None, 0)
            assert found is not None
            assert found.head == root.response_id
            return done

        young = time.now - life
        at_first = steps(young)
        for _ in range(300):
            time.now += 1
            await store.begin(new_turn("Hi.", parent=root, created_at=time.now))
        # Counted in tens, from wherever the machine stands.
        assert abs(steps(young) - at_first) <= 1
        # Where only a branch keeps it alive, the first that does is enough.
        assert steps(root.timestamp) < at_first + 100
