"""Conversations in every store: their head, concurrent turns, and deletion."""

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
    ManualClock,
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
from support.stored_responses import response_ids

FAILED = End("failed", 1_700_000_100.0)


def turn_on(
    conversation: ConversationRecord, parent: Head | None = None, text: str = "Hi."
) -> NewTurn:
    header = msgspec.structs.replace(HEADER, conversation=conversation.id)
    new = new_turn(text, parent=parent, header=header)
    return msgspec.structs.replace(new, conversation=conversation)


async def read_record(
    store: StoreWithStores, conversation: ConversationRecord
) -> ConversationRecord:
    found = await store.stores.conversations.get("", conversation.id)
    assert found is not None
    return found


async def add_turn(
    store: StoreWithStores,
    conversation: ConversationRecord,
    end: End | None = DONE,
    text: str = "Hi.",
) -> Head:
    """Adds a turn after the head of the conversation."""
    now = await read_record(store, conversation)
    parent = await head_of(store, now.head) if now.head else None
    new = turn_on(now, parent, text)
    await store.begin(new)
    if end is not None:
        await store.write(new.response_id, [assistant("Yes.")], end)
    return await head_of(store, new.response_id)


async def test_conversation_round_trips_with_metadata(store_in: Opener) -> None:
    async with store_in() as store:
        conversations = store.stores.conversations
        created = await conversations.create("me", {"a": "ü", "b": ""})
        assert await conversations.get("me", created.id) == created
        assert (created.head, created.active_response_id) == (None, None)
        changed = await conversations.update_metadata("me", created.id, {"c": "d"})
        assert changed == msgspec.structs.replace(created, metadata={"c": "d"})
        assert await conversations.get("me", created.id) == changed
        for tenant, name in (("you", created.id), ("me", new_conversation_id()), ("me", "x")):
            assert await conversations.get(tenant, name) is None
            assert await conversations.update_metadata(tenant, name, {}) is None
            assert not await conversations.delete(tenant, name)


async def test_head_follows_completed_and_incomplete_turns(store_in: Opener) -> None:
    async with store_in() as store:
        conversation = await store.stores.conversations.create("", {})
        first = await add_turn(store, conversation)
        assert (await read_record(store, conversation)).head == first.response_id
        running = await add_turn(store, conversation, None)
        now = await read_record(store, conversation)
        assert (now.head, now.active_response_id) == (first.response_id, running.response_id)
        await store.write(running.response_id, [], End("incomplete", 1.0))
        now = await read_record(store, conversation)
        assert (now.head, now.active_response_id) == (running.response_id, None)
        for end in (FAILED, End("cancelled", 1.0)):
            await add_turn(store, conversation, end)
            assert await read_record(store, conversation) == now
        last = await add_turn(store, conversation)
        assert await ids_of(store, last) == [
            first.response_id,
            running.response_id,
            last.response_id,
        ]


async def test_only_one_of_several_concurrent_turns_is_stored(store_in: Opener) -> None:
    async with store_in() as store:
        conversation = await store.stores.conversations.create("", {})
        turns = [turn_on(conversation) for _ in range(5)]
        futures = [store.begin(turn) for turn in turns]
        futures += [store.write(turn.response_id, [], DONE) for turn in turns]
        results = await asyncio.gather(*futures, return_exceptions=True)
        kinds = [type(result) for result in results]
        assert kinds[:5] == [type(None)] + [ConversationLockedError] * 4
        assert kinds[5:] == [type(None)] + [StoreError] * 4
        assert (await read_record(store, conversation)).head == turns[0].response_id
        for turn in turns[1:]:
            assert await store.head("", turn.response_id) is None
        assert await response_ids(store) == [turns[0].response_id]


async def test_turn_on_a_stale_conversation_record_is_refused(store_in: Opener) -> None:
    async with store_in() as store:
        conversation = await store.stores.conversations.create("", {})
        await add_turn(store, conversation, FAILED)
        # A failed turn does not move the head.
        await store.begin(turn := turn_on(conversation))
        with pytest.raises(ConversationLockedError):
            await store.begin(turn_on(await read_record(store, conversation)))
        await store.write(turn.response_id, [], DONE)
        with pytest.raises(ConversationLockedError):
            await store.begin(turn_on(conversation))
        foreign = msgspec.structs.replace(turn_on(conversation), tenant="other")
        missing_turn = turn_on(ConversationRecord(new_conversation_id(), 1.0))
        for none in (foreign, missing_turn):
            with pytest.raises(NotFoundError):
                await store.begin(none)
            assert await store.head(none.tenant, none.response_id) is None


async def test_head_moves_to_the_previous_turn_when_it_is_deleted(store_in: Opener) -> None:
    async with store_in() as store:
        conversation = await store.stores.conversations.create("", {})
        heads = [await add_turn(store, conversation) for _ in range(4)]
        await store.delete("", heads[2].response_id)
        assert (await read_record(store, conversation)).head == heads[3].response_id
        await store.delete("", heads[3].response_id)
        assert (await read_record(store, conversation)).head == heads[1].response_id
        running = await add_turn(store, conversation, None)
        await store.delete("", running.response_id)
        now = await read_record(store, conversation)
        assert (now.head, now.active_response_id) == (heads[1].response_id, None)
        await store.delete("", heads[0].response_id, cascade=True)
        assert (await read_record(store, conversation)).head is None
        await add_turn(store, conversation)


async def test_conversations_are_listed_by_creation_time(store_in: Opener) -> None:
    async with store_in() as store:
        conversations = store.stores.conversations
        created = [await conversations.create("", {"n": str(n)}) for n in range(5)]
        await conversations.create("other", {})
        created.sort(key=lambda one: (one.created_at, one.id))
        assert await conversations.list_conversations("", 9) == created[::-1]
        assert await conversations.list_conversations("", 2, newest_first=False) == created[:2]
        assert (
            await conversations.list_conversations("", 2, after=created[1].id, newest_first=False)
            == created[2:4]
        )
        assert await conversations.list_conversations("", 9, after=created[1].id) == [created[0]]
        assert await conversations.list_conversations("", 9, after=created[0].id) == []
        assert await conversations.list_conversations("", 0) == []
        with pytest.raises(InvalidRequestError, match="in this list"):
            await conversations.list_conversations("other", 9, after=created[0].id)
        with pytest.raises(InvalidRequestError, match="in this list"):
            await conversations.list_conversations("", 9, after="conv_")
        busy = await add_turn(store, created[2], None)
        (now,) = await conversations.list_conversations(
            "", 1, after=created[1].id, newest_first=False
        )
        assert now.active_response_id == busy.response_id


async def test_deleting_a_conversation_deletes_its_turns(store_in: Opener) -> None:
    async with store_in() as store:
        conversations = store.stores.conversations
        conversation = await conversations.create("", {})
        # A failed first turn begins another tree.
        mine = [await add_turn(store, conversation, FAILED), await add_turn(store, conversation)]
        mine += [await add_turn(store, conversation, FAILED), await add_turn(store, conversation)]
        other = await conversations.create("", {})
        theirs = await add_turn(store, other)
        separate = await complete_turn(store)
        running = await add_turn(store, conversation, None)
        assert await conversations.delete("", conversation.id)
        assert not await conversations.delete("", conversation.id)
        assert await conversations.get("", conversation.id) is None
        for head in (*mine, running):
            assert await store.head("", head.response_id) is None
        assert await store.head("", theirs.response_id) == theirs
        assert await store.head("", separate.response_id) == separate
        await store.write(running.response_id, [assistant("late")], DONE)
        with pytest.raises(NotFoundError):
            await store.begin(turn_on(conversation))


async def test_deleting_a_conversation_keeps_ancestors_of_outside_branches(
    store_in: Opener,
) -> None:
    async with store_in() as store:
        conversations = store.stores.conversations
        conversation = await conversations.create("", {})
        heads = [await add_turn(store, conversation) for _ in range(5)]
        branch = await complete_turn(store, parent=heads[1])
        dead = await complete_turn(store, parent=heads[3])
        await store.delete("", dead.response_id)
        epoch = (await head_of(store, branch.response_id)).epoch
        assert await conversations.delete("", conversation.id)
        living = [await store.head("", head.response_id) for head in heads]
        assert [head is not None for head in living] == [True, True, False, False, False]
        assert await ids_of(store, branch) == [
            heads[0].response_id,
            heads[1].response_id,
            branch.response_id,
        ]
        assert (await head_of(store, branch.response_id)).epoch > epoch


async def test_outside_branch_behind_a_deleted_turn_keeps_its_ancestors(
    store_in: Opener,
) -> None:
    async with store_in() as store:
        conversation = await store.stores.conversations.create("", {})
        first, second = [await add_turn(store, conversation) for _ in range(2)]
        aside = await complete_turn(store, parent=first)
        outside = await complete_turn(store, parent=aside)
        await store.delete("", aside.response_id)
        await store.stores.conversations.delete("", conversation.id)
        assert await ids_of(store, outside) == [first.response_id, outside.response_id]
        assert await store.head("", second.response_id) is None


async def test_erased_item_is_replaced_by_a_placeholder(store_in: Opener) -> None:
    async with store_in() as store:
        conversations = store.stores.conversations
        new = new_turn("one", "two", images=[b"cat", b"dog"])
        store.begin(new)
        assert not await conversations.erase_item("", new.response_id, 0)
        await store.write(new.response_id, [assistant("three")], DONE)
        before = await head_of(store, new.response_id)
        missing_turn = encode_item(ErasedItem())
        for position in (1, 2, 4):
            assert await conversations.erase_item("", new.response_id, position)
            assert not await conversations.erase_item("", new.response_id, position)
        for position in (-1, 5, 99):
            assert not await conversations.erase_item("", new.response_id, position)
        assert not await conversations.erase_item("other", new.response_id, 0)
        turn = await store.turn("", new.response_id)
        assert turn is not None
        assert turn.input == (user("one"), missing_turn, missing_turn, new.input[3])
        assert turn.output == (missing_turn,)
        assert turn.blobs == blobs_of(b"dog")
        assert (await head_of(store, new.response_id)).epoch > before.epoch
        assert await store.chain(before) == [turn]


async def test_conversations_persist_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "turns.db"
    async with sqlite(path) as store:
        conversation = await store.stores.conversations.create("", {"a": "b"})
        first = await add_turn(store, conversation)
        await add_turn(store, conversation, None)
    async with sqlite(path) as store, sqlite(path) as other:
        # The running turn was interrupted.
        now = await read_record(store, conversation)
        assert now == msgspec.structs.replace(conversation, head=first.response_id)
        await store.begin(turn_on(now, first))
        with pytest.raises(ConversationLockedError):
            await other.begin(turn_on(now, first))
        assert (await read_record(other, conversation)).active_response_id is not None


async def test_dead_process_does_not_lock_a_conversation(tmp_path: Path) -> None:
    """A running turn of a dead process does not lock its conversation."""
    path = tmp_path / "turns.db"
    async with sqlite(path) as store:
        conversation = await store.stores.conversations.create("", {})
        running = await add_turn(store, conversation, None)
        # As if a dead process had begun it.
        await store._database.submit(
            lambda batch: batch.connection.execute("UPDATE running SET owner = 1")
        )
        (listed,) = await store.stores.conversations.list_conversations("", 1)
        assert listed.active_response_id is None
        assert (await read_record(store, conversation)).active_response_id is None
        turn = await store.turn("", running.response_id)
        assert turn is not None
        assert turn.end is not None
        assert turn.end.status == "failed"


async def test_conversation_read_cost_does_not_depend_on_branches(tmp_path: Path) -> None:
    """It is read on the event loop, and again when a turn begins."""
    life, time = 100.0, ManualClock()
    async with opener("sqlite", tmp_path)(time, RetentionPolicy(life)) as store:
        assert isinstance(store, SqliteStore)
        conversation = await store.stores.conversations.create("", {})
        new = msgspec.structs.replace(turn_on(conversation), created_at=time.now)
        store.begin(new)
        await store.write(new.response_id, [], DONE)
        root = await head_of(store, new.response_id)
        connection = store._database._connections.read_connection

        def steps(cutoff: float) -> int:
            """The number of SQLite instructions that a read takes, in tens."""
            done = 0

            def count() -> None:
                nonlocal done
                done += 1

            connection.set_progress_handler(count, 10)
            found, _ = read_conversation(connection, "", conversation.id, cutoff)
            connection.set_progress_handler(None, 0)
            assert found is not None
            assert found.head == root.response_id
            return done

        young = time.now - life
        # The first read of a connection reads the schema, too.
        steps(young)
        at_first = steps(young)
        for _ in range(300):
            time.now += 1
            await store.begin(new_turn("Hi.", parent=root, created_at=time.now))
        # The count may be off by one, because it is in tens.
        assert abs(steps(young) - at_first) <= 1
        # If only a branch keeps it alive, the first such branch is enough.
        assert steps(root.timestamp) < at_first + 100
