"""Every store against a simple model, with a clock that moves forward and back.

Any order of turns, branches, ends, conversations, erasures and expiries.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    invariant,
    multiple,
    rule,
)

from antiphon.core.items import ErasedItem, encode_item
from antiphon.core.retention import RetentionPolicy
from antiphon.core.turns import ConversationRecord, End
from antiphon.errors import (
    ConversationLockedError,
    HistoryBranchedError,
    HistoryChangedError,
    NotFoundError,
)
from antiphon.stores.memory.store import MemoryStore
from antiphon.stores.postgres.store import open_postgres
from antiphon.stores.sqlite.store import open_sqlite
from antiphon.turn.store_protocols import Continuations, Head, ResponseFilter, StoredTurn
from support.known_turns import Known, Talk
from support.postgres_database import empty_database
from support.store_machine import StoreStateMachine, check_machine
from support.store_turns import (
    DONE,
    HEADER,
    StoreWithStores,
    assistant,
    images_in_database,
    images_in_file,
    images_in_memory,
    new_turn,
)

RETENTION_SECONDS = {"": 100.0, "other": 300.0, "keeper": None}
POLICY = RetentionPolicy(
    RETENTION_SECONDS[""], {"other": RETENTION_SECONDS["other"], "keeper": None}
)
IMAGES = (b"a cat", b"a dog", b"an owl")
ERASED = encode_item(ErasedItem())
ENDS = (None, None, DONE, DONE, End("incomplete", 1.0), End("failed", 1.0), End("cancelled", 1.0))


class StoreMachine(StoreStateMachine):
    known = Bundle("known")
    conversations = Bundle("talks")
    #: Conversation records as they were read at some time.
    records = Bundle("seen")
    tenants = st.sampled_from(sorted(RETENTION_SECONDS))
    image_lists = st.lists(st.sampled_from(IMAGES), max_size=2)

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[Known] = []
        self.all_conversations: list[Talk] = []

    def stored_images(self) -> list[tuple[str, bytes]]:
        raise NotImplementedError

    # The expected state

    def cutoff(self, tenant: str) -> float:
        life = RETENTION_SECONDS[tenant]
        return -math.inf if life is None else self.now - life

    def is_alive(self, turn: Known) -> bool:
        return not turn.erased and turn.youngest() > self.cutoff(turn.new.tenant)

    def expected_turn(self, tenant: str, turn: Known) -> StoredTurn | None:
        if turn.new.tenant != tenant or not self.is_alive(turn):
            return None
        life = RETENTION_SECONDS[tenant]
        return turn.stored(None if life is None else turn.youngest() + life)

    def expected_record(self, conversation: Talk) -> ConversationRecord | None:
        head, busy = conversation.head, conversation.busy
        kept = busy is not None and self.is_alive(busy)
        if busy is not None and (not kept or busy.end is not None):
            if kept and busy.end is not None and busy.end.status in {"completed", "incomplete"}:
                head = busy
            busy = None
        while head is not None and head.erased and not head.swept:
            head = head.parent
        if head is not None and not self.is_alive(head):
            head = None
        if conversation.gone or not (
            kept
            or head is not None
            or conversation.made.created_at > self.cutoff(conversation.tenant)
        ):
            return None
        return msgspec.structs.replace(
            conversation.made,
            head=head.id if head else None,
            active_response_id=busy.id if busy else None,
        )

    def find(self, response_id: str | None) -> Known | None:
        return next((turn for turn in self.turns if turn.id == response_id), None)

    # Turns

    @rule(target=known, tenant=tenants, items=st.integers(0, 2), images=image_lists)
    def begin_root(self, tenant: str, items: int, images: list[bytes]) -> Known:
        return self.begin(self.new(["hello"] * items, tenant, images, None))

    @rule(
        target=known, parent=known, items=st.integers(0, 2), images=image_lists, stale=st.booleans()
    )
    def continue_one(
        self, parent: Known, items: int, images: list[bytes], stale: bool
    ) -> Known | MultipleResults[Known]:
        turn = self.new(["again"] * items, parent.new.tenant, images, parent, stale=stale)
        if self.is_current(turn, parent):
            return self.begin(turn)
        self.refuse(turn, HistoryChangedError)
        return multiple()

    @rule(target=known, parent=known, is_blind=st.booleans())
    def continue_as_seen(self, parent: Known, is_blind: bool) -> Known | MultipleResults[Known]:
        """Begin a turn that only may where its maker has seen all that continues the parent."""
        turn = self.new(["yes"], parent.new.tenant, [], parent)
        there = {one.id for one in parent.children if not one.erased and not one.swept}
        head = turn.new.parent
        assert head is not None
        seen = [Continuations(head, frozenset() if is_blind else frozenset(there))]
        turn.new = msgspec.structs.replace(turn.new, seen=seen)
        if self.is_current(turn, parent) and not (is_blind and there):
            return self.begin(turn)
        self.refuse(
            turn, HistoryBranchedError if self.is_current(turn, parent) else HistoryChangedError
        )
        return multiple()

    def is_current(self, turn: Known, parent: Known | None) -> bool:
        """Whether nothing was erased in the turn's tree since its parent was read."""
        head = turn.new.parent
        if parent is None or head is None:
            return True
        return not parent.erased and not parent.swept and head.epoch == parent.tree[0]

    def refuse(self, turn: Known, error: type[Exception]) -> None:
        with pytest.raises(error):
            self.begin(turn)
        assert self.run_async(self.store.turn(turn.new.tenant, turn.id)) is None

    def new(
        self,
        texts: list[str],
        tenant: str,
        images: list[bytes],
        parent: Known | None,
        *,
        stale: bool = False,
    ) -> Known:
        head = parent.head if parent else None
        if parent and head and not stale and not parent.erased:
            head = msgspec.structs.replace(head, epoch=parent.tree[0])
        new = new_turn(*texts, tenant=tenant, parent=head, images=images, created_at=self.now)
        stamp = max(self.now, parent.stamp if parent else self.now)
        input_, blobs = list(new.input), list(new.blobs)
        if parent is None:
            return Known(new, new.response_id, 0, None, [0], stamp, input_, blobs)
        # The newest turn of a thread is continued in it, every other one branches.
        taken = any(one.thread == parent.thread and not one.swept for one in parent.children)
        thread = new.response_id if taken else parent.thread
        return Known(new, thread, parent.depth + 1, parent, parent.tree, stamp, input_, blobs)

    def begin(self, turn: Known) -> Known:
        async def begin() -> Head | None:
            await self.store.begin(turn.new)
            return await self.store.head(turn.new.tenant, turn.id)

        turn.head = self.run_async(begin())
        assert turn.head is not None
        if turn.parent is not None:
            turn.parent.children.append(turn)
        self.turns.append(turn)
        return turn

    @rule(turn=known, text=st.text(max_size=3), end=st.sampled_from(ENDS))
    def write(self, turn: Known, text: str, end: End | None) -> None:
        if turn.swept:
            return

        async def write() -> None:
            await self.store.write(turn.id, [assistant(text)], end)

        self.run_async(write())
        if not turn.erased and turn.end is None:
            turn.output.append(assistant(text))
            turn.end = end

    @rule(turn=known, tenant=tenants, cascade=st.booleans())
    def delete(self, turn: Known, tenant: str, cascade: bool) -> None:
        expected = self.is_alive(turn) and tenant == turn.new.tenant
        deleted = self.run_async(self.store.delete(tenant, turn.id, cascade=cascade))
        assert deleted == expected
        if expected:
            for one in turn.family() if cascade else [turn]:
                one.erased = True
            turn.tree[0] += 1

    @rule(turn=known, tenant=tenants, position=st.integers(0, 5))
    def erase_item(self, turn: Known, tenant: str, position: int) -> None:
        store_conversations = self.store.stores.conversations
        erased = self.run_async(store_conversations.erase_item(tenant, turn.id, position))
        items = [*turn.input, *turn.output]
        expected = self.is_alive(turn) and tenant == turn.new.tenant and turn.end is not None
        assert erased == (expected and position < len(items) and items[position] != ERASED)
        if erased:
            items[position] = ERASED
            turn.input, turn.output = items[: len(turn.input)], items[len(turn.input) :]
            turn.blobs = [
                blob for blob in turn.blobs if any(blob.hash.encode() in item for item in items)
            ]
            turn.tree[0] += 1

    # Time

    @rule(seconds=st.sampled_from([1.0, 40.0, 99.0, 100.0, 300.0, -1.0, -50.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def sweep(self) -> None:
        expired = [
            one
            for turn in self.turns
            if not turn.erased and not self.is_alive(turn)
            if not any(one.end is None and not one.erased for one in turn.family())
            for one in turn.family()
        ]
        gone = {one.id for one in expired if not one.erased}
        assert self.run_async(self.store.stores.response_index.delete_expired()) == len(gone)
        for conversation in self.all_conversations:
            conversation.gone = conversation.gone or self.expected_record(conversation) is None
        for one in expired:
            one.erased = one.swept = True
            if one.parent is not None and one in one.parent.children and not one.parent.swept:
                one.parent.children.remove(one)

    # Conversations

    @rule(target=conversations, tenant=tenants)
    def make_conversation(self, tenant: str) -> Talk:
        store_conversations = self.store.stores.conversations
        conversation = Talk(
            self.run_async(store_conversations.create(tenant, {"made": str(self.now)})), tenant
        )
        assert conversation.made.created_at == self.now
        self.all_conversations.append(conversation)
        return conversation

    @rule(target=records, conversation=conversations)
    def read_conversation(self, conversation: Talk) -> tuple[Talk, ConversationRecord]:
        now = self.expected_record(conversation)
        store_conversations = self.store.stores.conversations
        assert (
            self.run_async(store_conversations.get(conversation.tenant, conversation.made.id))
            == now
        )
        assert self.run_async(store_conversations.get("stranger", conversation.made.id)) is None
        return conversation, now or conversation.made

    @rule(target=known, conversation=conversations, images=image_lists, end=st.sampled_from(ENDS))
    def add_turn(
        self, conversation: Talk, images: list[bytes], end: End | None
    ) -> Known | MultipleResults[Known]:
        return self.add_turn_on(
            (conversation, self.expected_record(conversation) or conversation.made), images, end
        )

    @rule(target=known, one=records, images=image_lists, end=st.sampled_from(ENDS))
    def add_turn_on(
        self, one: tuple[Talk, ConversationRecord], images: list[bytes], end: End | None
    ) -> Known | MultipleResults[Known]:
        conversation, was = one
        now = self.expected_record(conversation)
        parent = self.find(was.head)
        turn = self.new(["and now"], conversation.tenant, images, parent)
        header = msgspec.structs.replace(HEADER, conversation=was.id)
        turn.new = msgspec.structs.replace(turn.new, header=header, conversation=was)
        if not self.is_current(turn, parent):
            self.refuse(turn, HistoryChangedError)
            return multiple()
        if now is None or now.active_response_id is not None or now.head != was.head:
            self.refuse(turn, NotFoundError if now is None else ConversationLockedError)
            return multiple()
        self.begin(turn)
        conversation.head, conversation.busy = parent, turn
        self.write(turn, "so", end)
        return turn

    @rule(conversation=conversations, word=st.sampled_from("abc"))
    def update_metadata(self, conversation: Talk, word: str) -> None:
        if (now := self.expected_record(conversation)) is not None:
            conversation.made = msgspec.structs.replace(conversation.made, metadata={"word": word})
            now = self.expected_record(conversation)
        store_conversations = self.store.stores.conversations
        assert (
            self.run_async(
                store_conversations.update_metadata(
                    conversation.tenant, conversation.made.id, {"word": word}
                )
            )
            == now
        )

    @rule(conversation=conversations, tenant=tenants)
    def delete_conversation(self, conversation: Talk, tenant: str) -> None:
        expected = tenant == conversation.tenant and self.expected_record(conversation) is not None
        store_conversations = self.store.stores.conversations
        assert self.run_async(store_conversations.delete(tenant, conversation.made.id)) == expected
        if not expected:
            return
        conversation.gone = True
        mine = [turn for turn in self.turns if turn.new.header.conversation == conversation.made.id]
        expired = [
            turn
            for turn in mine
            if self.is_alive(turn)
            and not any(self.is_alive(one) and one not in mine for one in turn.family())
        ]
        for tree in {id(turn.tree): turn.tree for turn in expired}.values():
            tree[0] += 1
        for turn in expired:
            turn.erased = True

    @rule(
        tenant=tenants, limit=st.integers(0, 4), newest_first=st.booleans(), place=st.integers(0, 5)
    )
    def list_conversations(self, tenant: str, limit: int, newest_first: bool, place: int) -> None:
        mine = [
            one
            for conversation in self.all_conversations
            if conversation.tenant == tenant
            and (one := self.expected_record(conversation)) is not None
        ]
        mine.sort(key=lambda one: (one.created_at, one.id), reverse=newest_first)
        after = mine[place].id if place < len(mine) else None
        expected = mine[place + 1 :] if after else mine
        store_conversations = self.store.stores.conversations
        found = store_conversations.list_conversations(
            tenant, limit, after=after, newest_first=newest_first
        )
        assert self.run_async(found) == expected[:limit]

    # Reading

    @rule(turn=known, tenant=tenants)
    def read(self, turn: Known, tenant: str) -> None:
        expected = self.expected_turn(tenant, turn)
        assert self.run_async(self.store.turn(tenant, turn.id)) == expected
        head = self.run_async(self.store.head(tenant, turn.id))
        assert (head is None) == (expected is None)
        if head is not None and turn.head is not None:
            assert (head.thread, head.seq) == (turn.head.thread, turn.depth)
            assert (head.tree, head.timestamp) == (turn.head.tree, turn.stamp)
            assert head.epoch == turn.tree[0]
            assert head.is_running == (turn.end is None)

    @rule(turn=known)
    def read_chain(self, turn: Known) -> None:
        assert turn.head is not None
        if turn.erased and not all(map(self.is_alive, turn.chain())):
            # No reader gets such a head any more.
            return
        too_old = max(turn.stamp, turn.youngest()) <= self.cutoff(turn.new.tenant)
        chain = [] if turn.swept or too_old else turn.chain()
        assert self.run_async(self.store.chain(turn.head)) == [one.stored() for one in chain]

    @rule(one=known, other=known)
    def compare(self, one: Known, other: Known) -> None:
        assert one.head is not None
        assert other.head is not None
        assert (one.head.tree == other.head.tree) == (one.tree is other.tree)
        assert (one.head.thread == other.head.thread) == (one.thread == other.thread)

    @rule(
        tenant=tenants,
        limit=st.integers(0, 4),
        newest_first=st.booleans(),
        place=st.integers(0, 9),
        status=st.sampled_from([None, "completed", "in_progress"]),
    )
    def list_turns(
        self, tenant: str, limit: int, newest_first: bool, place: int, status: Any
    ) -> None:
        mine = [one for one in self.turns if self.expected_turn(tenant, one)]
        mine.sort(key=lambda turn: turn.order, reverse=newest_first)
        after = mine[place].id if place < len(mine) else None
        expected = [
            turn
            for turn in (mine[place + 1 :] if after else mine)
            if status in (None, turn.end.status if turn.end else "in_progress")
        ]
        found = self.store.stores.response_index.list_responses(
            tenant,
            limit,
            after=after,
            newest_first=newest_first,
            response_filter=ResponseFilter(status=status),
        )
        assert self.run_async(found) == [
            self.expected_turn(tenant, turn) for turn in expected[:limit]
        ]

    @rule()
    def compare_images(self) -> None:
        used = {
            (turn.new.tenant, blob.data)
            for turn in self.turns
            if not turn.erased
            for blob in turn.blobs
        }
        assert self.stored_images() == sorted(used)

    @invariant()
    def newest_turn_matches_the_model(self) -> None:
        if self.turns:
            turn = self.turns[-1]
            tenant = turn.new.tenant
            assert self.run_async(self.store.turn(tenant, turn.id)) == self.expected_turn(
                tenant, turn
            )


class MemoryMachine(StoreMachine):
    async def open(self) -> StoreWithStores:
        self.memory = MemoryStore(POLICY, clock=self.clock)
        return self.memory

    def stored_images(self) -> list[tuple[str, bytes]]:
        return images_in_memory(self.memory)


class SqliteMachine(StoreMachine):
    async def open(self) -> StoreWithStores:
        return await open_sqlite(self.folder / "turns.db", POLICY, clock=self.clock)

    def stored_images(self) -> list[tuple[str, bytes]]:
        return images_in_file(self.folder / "turns.db")


class PostgresMachine(StoreMachine):
    async def open(self) -> StoreWithStores:
        self.uri = empty_database(self.folder)
        return await open_postgres(self.uri, POLICY, clock=self.clock)

    def stored_images(self) -> list[tuple[str, bytes]]:
        return images_in_database(self.uri)


@pytest.mark.hypothesis
@pytest.mark.parametrize(
    "machine",
    [MemoryMachine, SqliteMachine, pytest.param(PostgresMachine, marks=pytest.mark.slow)],
)
def test_store_agrees_with_its_model(machine: type[StoreMachine]) -> None:
    check_machine(machine, steps=50)
