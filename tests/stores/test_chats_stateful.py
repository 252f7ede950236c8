"""Chats against a full scan: any order of turns, branches, ends, renames, erasures and expiries.

The model knows turns only; what the list of chats has to show is worked out from them each time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
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

from antiphon.core.chat_titles import opening_of
from antiphon.core.retention import RetentionPolicy
from antiphon.core.turns import End, Usage
from antiphon.errors import ConflictError
from antiphon.stores.change_feed import LogChangeFeed, TenantChange
from antiphon.stores.memory.store import MemoryStore
from antiphon.stores.postgres.store import open_postgres
from antiphon.stores.sqlite.store import open_sqlite
from antiphon.turn.chat_protocols import ChainWindow, ChatFilter, ChatRecord, ChatUpdate
from antiphon.turn.store_protocols import Head, NewTurn
from support.postgres_database import changes_are_settled, empty_database
from support.store_machine import StoreStateMachine, check_machine
from support.store_turns import DONE, HEADER, StoreWithStores, assistant, new_turn

LIFETIME = 100.0
POLICY = RetentionPolicy(LIFETIME, {"keeper": None})
ENDS = [
    None,
    DONE,
    End("failed", 1.0),
    End("completed", 1.0, Usage(5, 7, 2), cost=0.25),
    End("completed", 1.0, approvals=("call_1",), model="another-model"),
]


class KnownChat(msgspec.Struct):
    """What the model knows of a chat beside its turns."""

    id: str
    tenant: str
    created_at: float
    title: str | None = None
    is_pinned: bool = False
    is_permanent: bool = False
    metadata: dict[str, str] = {}
    usage: Usage = Usage()
    cost: float | None = None


class KnownTurn(msgspec.Struct):
    """What the model knows of a turn."""

    new: NewTurn
    head: Head
    chat: KnownChat
    parent: KnownTurn | None
    end: End | None = None
    is_erased: bool = False
    is_swept: bool = False
    is_continued: bool = False

    @property
    def order(self) -> tuple[float, int, int]:
        return self.head.timestamp, self.head.thread, self.head.seq

    def chain(self) -> Iterator[KnownTurn]:
        if self.parent is not None:
            yield from self.parent.chain()
        yield self


class ChatMachine(StoreStateMachine):
    turns = Bundle("turns")
    tenants = st.sampled_from(["", "keeper"])

    def __init__(self) -> None:
        super().__init__()
        self.all_turns: list[KnownTurn] = []
        self.chats: dict[str, KnownChat] = {}
        #: What a reader of the feed knows, who reads a chat again whenever it is told of it.
        self.mirror: dict[str, ChatRecord] = {}
        self.feed_row = 0

    # What there has to be

    def living(self, chat: KnownChat) -> list[KnownTurn]:
        found = [turn for turn in self.all_turns if turn.chat is chat and not turn.is_erased]
        return sorted(found, key=lambda turn: turn.order)

    def cutoff(self, tenant: str) -> float:
        return -math.inf if tenant == "keeper" else self.now - LIFETIME

    def is_alive(self, turn: KnownTurn) -> bool:
        return not turn.is_erased and any(
            turn.chat.is_permanent or other.head.timestamp > self.cutoff(turn.new.tenant)
            for other in self.all_turns
            if not other.is_erased and turn in other.chain()
        )

    def expected(self, chat: KnownChat) -> ChatRecord | None:
        turns = self.living(chat)
        if not turns or (not chat.is_permanent and self.expires_without_mark(chat)):
            return None
        newest = turns[-1]
        first_thread = next(turn for turn in self.all_turns if turn.chat is chat).head.thread
        of_first = [turn for turn in turns if turn.head.thread == first_thread]
        opening = min(
            of_first or [turn for turn in turns if turn.head.thread == newest.head.thread],
            key=lambda turn: turn.head.seq,
        )
        status = "idle"
        if newest.end is None:
            status = "running"
        elif newest.end.approvals and not newest.is_continued:
            status = "waiting"
        at = newest.head.timestamp
        return ChatRecord(
            id=chat.id,
            created_at=chat.created_at,
            updated_at=at,
            head=newest.new.response_id,
            turns=newest.head.seq + 1,
            branches=len({turn.head.thread for turn in turns}),
            model=(newest.end.model if newest.end else None) or HEADER.model,
            status=status,  # type: ignore[arg-type]
            title=opening_of(opening.new.input) if chat.title is None else chat.title,
            expires_at=None if chat.tenant == "keeper" or chat.is_permanent else at + LIFETIME,
            is_pinned=chat.is_pinned,
            is_permanent=chat.is_permanent,
            metadata=chat.metadata,
            usage=chat.usage,
            cost=chat.cost,
        )

    # Turns

    @rule(target=turns, text=st.sampled_from(["", "Hi.", "a\nb " * 60]), tenant=tenants)
    def begin_chat(self, text: str, tenant: str) -> KnownTurn:
        turn = new_turn(text, tenant=tenant, created_at=self.now)
        chat = KnownChat(f"chat_{turn.response_id[5:]}", tenant, self.now)
        self.chats[chat.id] = chat
        return self.begin(turn, chat, None)

    @rule(target=turns, parent=turns)
    def go_on(self, parent: KnownTurn) -> KnownTurn | MultipleResults[KnownTurn]:
        head = self.head(parent)
        if head is None:
            return multiple()
        turn = new_turn("more", tenant=head.tenant, parent=head, created_at=self.now)
        parent.is_continued = True
        return self.begin(turn, parent.chat, parent)

    @rule(target=turns, sibling=turns)
    def begin_beside(self, sibling: KnownTurn) -> KnownTurn | MultipleResults[KnownTurn]:
        head = self.head(sibling)
        if head is None:
            return multiple()
        turn = new_turn("or else", tenant=head.tenant, created_at=self.now)
        turn = msgspec.structs.replace(turn, sibling=head)
        return self.begin(turn, sibling.chat, None)

    def begin(self, turn: NewTurn, chat: KnownChat, parent: KnownTurn | None) -> KnownTurn:
        async def begin() -> Head | None:
            await self.store.begin(turn)
            return await self.store.head(turn.tenant, turn.response_id)

        head = self.run_async(begin())
        assert head is not None
        known = KnownTurn(turn, head, chat, parent)
        self.all_turns.append(known)
        return known

    def head(self, turn: KnownTurn) -> Head | None:
        found = self.run_async(self.store.head(turn.new.tenant, turn.new.response_id))
        assert (found is not None) == self.is_alive(turn)
        return found

    @rule(turn=turns, end=st.sampled_from(ENDS))
    def write(self, turn: KnownTurn, end: End | None) -> None:
        if turn.is_swept:
            return

        async def write() -> None:
            await self.store.write(turn.new.response_id, [assistant("so")], end)

        self.run_async(write())
        if turn.is_erased or turn.end is not None or end is None:
            return
        turn.end = end
        turn.is_continued = False
        usage = end.usage or Usage()
        turn.chat.usage += msgspec.structs.replace(usage, reasoning_tokens=0)
        if end.cost is not None:
            turn.chat.cost = (turn.chat.cost or 0.0) + end.cost

    # Chats

    def some_id(self, turn: KnownTurn, *, by_turn: bool) -> tuple[str, bool]:
        """An id of a turn's chat, and whether there is one by it."""
        if by_turn:
            return turn.new.response_id, self.is_alive(turn)
        return turn.chat.id, self.expected(turn.chat) is not None

    @rule(turn=turns, by_turn=st.booleans(), title=st.sampled_from([None, "A title", "Täglich"]))
    def rename(self, turn: KnownTurn, by_turn: bool, title: str | None) -> None:
        name, is_there = self.some_id(turn, by_turn=by_turn)
        if is_there:
            turn.chat.title = title
        self.update(turn, name, is_there, ChatUpdate(title=title))

    @rule(turn=turns, pinned=st.booleans(), word=st.sampled_from("ab"))
    def pin(self, turn: KnownTurn, pinned: bool, word: str) -> None:
        is_there = self.expected(turn.chat) is not None
        if is_there:
            turn.chat.is_pinned, turn.chat.metadata = pinned, {"word": word}
        update = ChatUpdate(is_pinned=pinned, metadata={"word": word})
        self.update(turn, turn.chat.id, is_there, update)

    @rule(turn=turns, permanent=st.booleans())
    def keep(self, turn: KnownTurn, permanent: bool) -> None:
        chat, update = turn.chat, ChatUpdate(is_permanent=permanent)
        is_there = self.expected(chat) is not None
        if is_there and not permanent and self.expires_without_mark(chat):
            with pytest.raises(ConflictError):
                self.run_async(self.store.stores.chats.update(chat.tenant, chat.id, update))
            return
        if is_there:
            chat.is_permanent = permanent
        self.update(turn, chat.id, is_there, update)

    def expires_without_mark(self, chat: KnownChat) -> bool:
        """Whether a chat lives only because it is permanent."""
        return self.living(chat)[-1].head.timestamp <= self.cutoff(chat.tenant)

    def update(self, turn: KnownTurn, name: str, is_there: bool, update: ChatUpdate) -> None:
        chats = self.store.stores.chats
        assert self.run_async(chats.update("stranger", name, update)) is None
        changed = self.run_async(chats.update(turn.new.tenant, name, update))
        assert changed == (self.expected(turn.chat) if is_there else None)

    @rule(turn=turns, by_turn=st.booleans())
    def delete_chat(self, turn: KnownTurn, by_turn: bool) -> None:
        name, is_there = self.some_id(turn, by_turn=by_turn)
        chats = self.store.stores.chats
        assert not self.run_async(chats.delete("stranger", name))
        assert self.run_async(chats.delete(turn.new.tenant, name)) == is_there
        if is_there:
            for one in self.living(turn.chat):
                one.is_erased = True

    # Erasures and time

    @rule(turn=turns, cascade=st.booleans())
    def delete(self, turn: KnownTurn, cascade: bool) -> None:
        name, is_there = self.some_id(turn, by_turn=True)
        assert self.run_async(self.store.delete(turn.new.tenant, name, cascade=cascade)) == is_there
        if is_there:
            for one in self.living(turn.chat):
                one.is_erased = one is turn or (cascade and turn in one.chain())

    @rule(seconds=st.sampled_from([1.0, 40.0, 100.0, -1.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def sweep(self) -> None:
        gone = [
            turn
            for turn in self.all_turns
            if not turn.is_erased
            and not self.is_alive(turn)
            and not any(
                one.end is None and not one.is_erased and turn in one.chain()
                for one in self.all_turns
            )
        ]
        self.run_async(self.store.stores.response_index.delete_expired())
        for turn in gone:
            for one in self.all_turns:
                if turn in one.chain():
                    one.is_erased = one.is_swept = True

    # Reading

    @rule(
        tenant=tenants,
        limit=st.integers(0, 3),
        newest_first=st.booleans(),
        place=st.integers(0, 3),
        chat_filter=st.sampled_from(
            [
                ChatFilter(),
                ChatFilter(is_pinned=True),
                ChatFilter(status="running"),
                ChatFilter(status="waiting"),
                ChatFilter(metadata={"word": "a"}),
                ChatFilter(model="another-model"),
            ]
        ),
    )
    def list_page(
        self, tenant: str, limit: int, newest_first: bool, place: int, chat_filter: ChatFilter
    ) -> None:
        mine = self.list_of(tenant)
        if not newest_first:
            mine.reverse()
        after = mine[place].id if place < len(mine) else None
        rest = mine[place + 1 :] if after else mine
        found = self.store.stores.chats.list_chats(
            tenant, limit, after=after, newest_first=newest_first, chat_filter=chat_filter
        )
        expected = [chat for chat in rest if chat_filter.matches(chat)]
        assert self.run_async(found) == expected[:limit]

    @rule(turn=turns)
    def find(self, turn: KnownTurn) -> None:
        chats = self.store.stores.chats
        expected = self.expected(turn.chat) if self.is_alive(turn) else None
        name = turn.new.response_id
        assert self.run_async(chats.find(turn.new.tenant, [name])) == [expected]
        running = self.run_async(chats.running_turns(turn.new.tenant, turn.chat.id))
        if self.expected(turn.chat) is not None:
            assert sorted(running) == sorted(
                one.new.response_id for one in self.living(turn.chat) if one.end is None
            )

    # Chains as a tree

    def branches(self, parent: KnownTurn | None, chat: KnownChat) -> list[KnownTurn]:
        """The turns that continue one, or that a chat began with, oldest first."""
        found = [
            turn
            for turn in self.all_turns
            if turn.chat is chat and turn.parent is parent and self.is_alive(turn)
        ]
        return sorted(found, key=lambda turn: (turn.new.created_at, turn.order[1:]))

    @rule(turn=turns)
    def read_branches(self, turn: KnownTurn) -> None:
        chats, name = self.store.stores.chats, turn.new.response_id
        assert self.run_async(chats.siblings("stranger", name)) is None
        siblings = self.run_async(chats.siblings(turn.new.tenant, name))
        children = self.run_async(chats.children(turn.new.tenant, name))
        origin = self.run_async(chats.origin(turn.new.tenant, name))
        if not self.is_alive(turn):
            assert (siblings, children, origin) == (None, None, None)
            return
        for found, parent in ((siblings, turn.parent), (children, turn)):
            assert found is not None
            expected = self.branches(parent, turn.chat)
            assert [one.response_id for one in found] == [one.new.response_id for one in expected]
            for branch, one in zip(found, expected, strict=True):
                below = [other for other in self.living(turn.chat) if one in other.chain()]
                assert branch.leaf == below[-1].new.response_id
                assert branch.turns == below[-1].head.seq + 1
        above = [one for one in turn.chain() if not one.is_erased and one is not turn]
        assert origin is not None
        assert origin.parent == (above[-1].new.response_id if above else None)

    @rule(
        turn=turns,
        limit=st.integers(1, 3),
        kind=st.sampled_from(["", "before", "after", "around", "position"]),
        place=st.integers(0, 5),
    )
    def read_window(self, turn: KnownTurn, limit: int, kind: str, place: int) -> None:
        head = self.head(turn)
        if head is None:
            return
        chain = [one for one in turn.chain() if not one.is_erased]
        at = min(place, len(chain) - 1)
        anchor: dict[str, Any] = {kind: chain[at].new.response_id} if kind else {}
        first, last = max(0, len(chain) - limit), len(chain)
        if kind == "before":
            first, last = max(0, at - limit), at
        elif kind == "after":
            first, last = at + 1, min(len(chain), at + 1 + limit)
        elif kind:
            if kind == "position":
                anchor = {kind: place}
                wanted = min(place, turn.head.seq)
                at = next(n for n, one in enumerate(chain) if one.head.seq >= wanted)
            right = min(len(chain) - at, limit - limit // 2)
            left = min(at, limit - right)
            first, last = at - left, at + min(len(chain) - at, limit - left)
        part = self.run_async(
            self.store.stores.chats.chain_part(head, ChainWindow(limit, **anchor))
        )
        shown = chain[first:last]
        assert [one.turn.response_id for one in part.turns] == [
            one.new.response_id for one in shown
        ]
        assert part.total == turn.head.seq + 1
        assert (part.has_more_before, part.has_more_after) == (first > 0, last < len(chain))
        for one, known in zip(part.turns, shown, strict=True):
            beside = self.branches(known.parent, known.chat)
            assert one.position == known.head.seq
            assert (one.sibling_index, one.siblings) == (beside.index(known), len(beside))
            assert one.children == len(self.branches(known, known.chat))
            assert one.turn == self.run_async(
                self.store.turn(known.new.tenant, known.new.response_id)
            )

    @invariant()
    def list_is_what_a_full_scan_gives(self) -> None:
        for tenant in ("", "keeper", "stranger"):
            found = self.run_async(self.store.stores.chats.list_chats(tenant, 100))
            assert found == self.list_of(tenant)

    @invariant()
    def feed_replays_to_the_same_list(self) -> None:
        for tenant, change in self.new_changes():
            assert change.type != "feed.reset"
            if tenant is None or change.chat_id is None:
                continue
            chat = self.run_async(self.store.stores.chats.get(tenant, change.chat_id))
            if chat is None:
                self.mirror.pop(change.chat_id, None)
            else:
                self.mirror[chat.id] = chat
        for tenant in ("", "keeper"):
            # Nothing tells that time has passed.
            mine = [
                chat
                for chat in self.mirror.values()
                if self.chats[chat.id].tenant == tenant
                and (chat.is_permanent or chat.updated_at > self.cutoff(tenant))
            ]
            listed = self.list_of(tenant)
            assert sorted(mine, key=lambda chat: chat.id) == sorted(
                listed, key=lambda chat: chat.id
            )

    def new_changes(self) -> list[TenantChange]:
        feed = self.store.stores.changes
        assert isinstance(feed, LogChangeFeed)
        self.run_async(self.wait_for_changes())
        rows = self.run_async(feed._log.read(self.feed_row, 1000))
        self.feed_row = rows[-1].id if rows else self.feed_row
        return [change for row in rows for change in row.changes]

    async def wait_for_changes(self) -> None:
        """Return when all that was committed can be read."""

    def list_of(self, tenant: str) -> list[ChatRecord]:
        """The chats of a tenant, the newest first."""
        found = [
            (record.updated_at, number, record)
            for number, chat in enumerate(self.chats.values())
            if chat.tenant == tenant and (record := self.expected(chat)) is not None
        ]
        return [record for *_, record in sorted(found, key=lambda one: one[:2], reverse=True)]


class MemoryMachine(ChatMachine):
    async def open(self) -> StoreWithStores:
        return MemoryStore(POLICY, clock=self.clock)


class SqliteMachine(ChatMachine):
    async def open(self) -> StoreWithStores:
        return await open_sqlite(self.folder / "turns.db", POLICY, clock=self.clock)


class PostgresMachine(ChatMachine):
    async def open(self) -> StoreWithStores:
        self.uri = empty_database(self.folder)
        return await open_postgres(self.uri, POLICY, clock=self.clock)

    async def wait_for_changes(self) -> None:
        await changes_are_settled(self.uri)


@pytest.mark.hypothesis
@pytest.mark.parametrize(
    "machine",
    [MemoryMachine, SqliteMachine, pytest.param(PostgresMachine, marks=pytest.mark.slow)],
)
def test_list_of_chats_agrees_with_a_full_scan(machine: type[ChatMachine]) -> None:
    check_machine(machine, steps=40)
