"""In-memory chats: the families of turns."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from antiphon.core.chat_titles import TITLE_ITEMS, opening_of
from antiphon.core.ids import chat_key, response_id_of
from antiphon.stores.conflict_errors import expires_at_once
from antiphon.stores.memory.conversations import MemoryConversationStore
from antiphon.stores.memory.turns import ChatEntry, MemoryTurns, TurnRecord
from antiphon.turn.chat_protocols import (
    ALL_CHATS,
    MAX_COUNTED,
    ChainPart,
    ChainTurn,
    ChainWindow,
    ChatBranch,
    ChatFilter,
    ChatRecord,
    ChatStatus,
    ChatUpdate,
    StoreContents,
    TurnBranch,
    TurnOrigin,
    UsageSum,
)
from antiphon.turn.store_protocols import Head, StoredTurn, unknown_cursor


class MemoryChatStore:
    """A ``ChatStore`` in this process's memory."""

    def __init__(self, turns: MemoryTurns, conversations: MemoryConversationStore) -> None:
        self._turns = turns
        self._conversations = conversations

    async def list_chats(
        self,
        tenant: str,
        limit: int,
        *,
        after: str | None = None,
        newest_first: bool = True,
        chat_filter: ChatFilter = ALL_CHATS,
    ) -> list[ChatRecord]:
        self._turns.check_open()
        trees = [tree for tree, entry in self._turns.chats.items() if entry.tenant == tenant]
        mine = [(chat.updated_at, tree, chat) for tree in trees if (chat := await self._chat(tree))]
        mine.sort(key=lambda one: one[:2], reverse=newest_first)
        if after is not None:
            found = await self.get(tenant, after)
            if found is None:
                raise unknown_cursor(after)
            names = [chat.id for _, _, chat in mine]
            mine = mine[names.index(found.id) + 1 :]
        return [chat for _, _, chat in mine if chat_filter.matches(chat)][: max(0, limit)]

    async def get(self, tenant: str, chat_id: str) -> ChatRecord | None:
        tree = await self.find_tree(tenant, chat_id)
        return None if tree is None else await self._chat(tree)

    async def find(self, tenant: str, response_ids: Sequence[str]) -> list[ChatRecord | None]:
        return [await self.get(tenant, name) for name in response_ids]

    async def update(self, tenant: str, chat_id: str, update: ChatUpdate) -> ChatRecord | None:
        tree = await self.find_tree(tenant, chat_id)
        if tree is None:
            return None
        entry = self._turns.chats[tree]
        if update.is_permanent is False and self._would_expire(tree):
            raise expires_at_once()
        if update.title is not msgspec.UNSET:
            entry.title, entry.is_title_generated = update.title or None, False
        if update.is_pinned is not msgspec.UNSET:
            entry.is_pinned = update.is_pinned
        if update.is_permanent is not msgspec.UNSET:
            entry.is_permanent = update.is_permanent
        if update.metadata is not msgspec.UNSET:
            entry.metadata = dict(update.metadata)
        self._turns.note_chat("chat.updated", tenant, entry.id)
        return await self._chat(tree)

    async def set_generated_title(self, head: Head, title: str) -> bool:
        self._turns.check_open()
        entry = self._turns.chats.get(head.tree)
        is_unchanged = self._turns.epochs.get(head.tree, 0) == head.epoch
        if entry is None or entry.title is not None or not is_unchanged:
            return False
        entry.title, entry.is_title_generated = title, True
        self._turns.note_chat("chat.updated", head.tenant, entry.id)
        return True

    async def running_turns(self, tenant: str, chat_id: str) -> list[str]:
        tree = await self.find_tree(tenant, chat_id)
        return [
            record.response_id
            for record in self._records(tree)
            if record.turn is not None and record.turn.end is None
        ]

    async def delete(self, tenant: str, chat_id: str) -> bool:
        tree = await self.find_tree(tenant, chat_id)
        chat = None if tree is None else await self._chat(tree)
        if chat is None:
            return False
        for record in self._records(tree):
            self._turns.tombstone(record)
            self._turns.bump_epoch(record)
        if chat.conversation is not None:
            self._conversations.erase(chat.conversation)
        return True

    async def branches(self, tenant: str, chat_id: str) -> list[ChatBranch] | None:
        tree = await self.find_tree(tenant, chat_id)
        if tree is None:
            return None
        threads: dict[int, list[TurnRecord]] = {}
        for record in sorted(self._records(tree), key=lambda one: one.sort_key):
            threads.setdefault(record.thread, []).append(record)
        return [
            self._chat_branch(records)
            for records in threads.values()
            if not self._turns.has_expired(records[-1])
        ]

    def _chat_branch(self, records: list[TurnRecord]) -> ChatBranch:
        first, last = _branch(self._turns, records[0]), _branch(self._turns, records[-1])
        thread = self._turns.threads[records[0].thread]
        parent = self._turns.records[thread[0]].parent
        above = [one for one in self._turns.ancestors(parent) if one.turn is not None]
        return ChatBranch(
            leaf=last.response_id,
            forks_from=above[0].response_id if above else None,
            opening=first.opening,
            turns=records[-1].seq + 1,
            created_at=first.created_at,
            updated_at=last.created_at,
            status=last.status,
        )

    async def usage_sums(self, tenant: str, first_day: int, last_day: int) -> list[UsageSum]:
        self._turns.check_open()
        sums = sorted(self._turns.sums.items(), key=lambda one: one[0])
        return [
            one
            for (owner, day, *_), one in sums
            if owner == tenant and first_day <= day <= last_day
        ]

    async def contents(self, tenant: str) -> StoreContents:
        self._turns.check_open()
        turns = [one for one in self._turns.records.values() if one.turn is not None]
        chats = sum(one.tenant == tenant for one in self._turns.chats.values())
        counts = (
            chats,
            self._conversations.count(tenant),
            sum(one.tenant == tenant for one in turns),
        )
        return StoreContents(*(min(count, MAX_COUNTED) for count in counts))

    async def image(self, tenant: str, sha256: str) -> bytes | None:
        self._turns.check_open()
        blob = self._turns.blobs.get((tenant, sha256))
        return None if blob is None else blob.data

    async def waiting_turns(self, tenant: str) -> list[tuple[ChatRecord, StoredTurn]]:
        found = []
        for name in self._turns.waiting:
            turn = self._turns.find(tenant, name)
            chat = await self.get(tenant, name)
            if turn is not None and chat is not None:
                found.append((turn[0].timestamp, turn[0].sort_key, chat, turn[1]))
        found.sort(key=lambda one: one[:2], reverse=True)
        return [(chat, turn) for *_, chat, turn in found]

    async def chain_part(
        self, head: Head, window: ChainWindow, *, with_images: bool = True
    ) -> ChainPart:
        self._turns.check_open()
        found = self._turns.find(head.tenant, head.response_id)
        if found is None:
            return ChainPart([], False, False, 0)
        chain = [one for one in self._turns.ancestors(head.response_id) if one.turn is not None]
        chain.reverse()
        first, last = self._bounds(chain, window)
        shown = [self._chain_turn(one, with_images=with_images) for one in chain[first:last]]
        return ChainPart(shown, first > 0, last < len(chain), head.seq + 1)

    def _bounds(self, chain: list[TurnRecord], window: ChainWindow) -> tuple[int, int]:
        """The first position of a window in the living turns of a chain, and that behind it."""
        limit, end = window.limit, len(chain)
        if window.anchor is None and window.position is None:
            return max(0, end - limit), end
        if window.anchor is not None:
            ids = [one.response_id for one in chain]
            if window.anchor not in ids:
                raise unknown_cursor(window.anchor, window.anchor_name)
            at = ids.index(window.anchor)
        else:
            position = min(window.position or 0, chain[-1].seq)
            at = next(n for n, one in enumerate(chain) if one.seq >= position)
        if window.before is not None:
            return max(0, at - limit), at
        if window.after is not None:
            return at + 1, min(end, at + 1 + limit)
        right = min(end - at, limit - limit // 2)
        left = min(at, limit - right)
        return at - left, at + min(end - at, limit - left)

    def _chain_turn(self, record: TurnRecord, *, with_images: bool) -> ChainTurn:
        assert record.turn is not None
        siblings = self._siblings(record)
        turn = self._turns.with_expiry(record, record.turn)
        return ChainTurn(
            turn if with_images else msgspec.structs.replace(turn, blobs={}),
            position=record.seq,
            sibling_index=siblings.index(record),
            siblings=len(siblings),
            children=len(self._visible(record.children)),
        )

    def _siblings(self, record: TurnRecord) -> list[TurnRecord]:
        parent = self._turns.records.get(record.parent or "")
        if parent is not None:
            return self._visible(parent.children)
        beside = self._turns.records.values()
        return self._visible(
            [one.response_id for one in beside if one.tree == record.tree and one.parent is None]
        )

    def _visible(self, response_ids: Sequence[str]) -> list[TurnRecord]:
        """Those that are not erased and have not expired, oldest first."""
        found = [
            (record.turn.created_at, record.sort_key, record)
            for record in (self._turns.records[name] for name in response_ids)
            if record.turn is not None and not self._turns.has_expired(record)
        ]
        return [record for *_, record in sorted(found, key=lambda one: one[:2])]

    async def siblings(self, tenant: str, response_id: str) -> list[TurnBranch] | None:
        found = self._turns.find(tenant, response_id)
        return (
            None
            if found is None
            else [_branch(self._turns, one) for one in self._siblings(found[0])]
        )

    async def children(self, tenant: str, response_id: str) -> list[TurnBranch] | None:
        found = self._turns.find(tenant, response_id)
        if found is None:
            return None
        return [_branch(self._turns, one) for one in self._visible(found[0].children)]

    async def origin(self, tenant: str, response_id: str) -> TurnOrigin | None:
        found = self._turns.find(tenant, response_id)
        if found is None:
            return None
        record, _ = found
        above = [one for one in self._turns.ancestors(record.parent) if one.turn is not None]
        return TurnOrigin(
            self._turns.head(record, found[1]), above[0].response_id if above else None
        )

    async def find_tree(self, tenant: str, name: str) -> int | None:
        """The tree of a chat, by any of its ids."""
        self._turns.check_open()
        response_id: str | None = name
        if name.startswith("conv_"):
            conversation = await self._conversations.get(tenant, name)
            if conversation is None:
                return None
            response_id = conversation.active_response_id or conversation.head
        elif (key := chat_key(name)) is not None:
            first = response_id_of(key)
            for tree, entry in self._turns.chats.items():
                if entry.first_response_id == first and entry.tenant == tenant:
                    return tree if await self._chat(tree) else None
        found = self._turns.find(tenant, response_id) if response_id else None
        return found[0].tree if found else None

    def _would_expire(self, tree: int) -> bool:
        """Whether a chat lives only because it is permanent."""
        latest = max(record.timestamp for record in self._records(tree))
        return latest <= self._turns.expiry.cutoff(self._turns.chats[tree].tenant)

    def _records(self, tree: int | None) -> list[TurnRecord]:
        """The turns of a tree that are not erased."""
        entry = self._turns.chats.get(tree) if tree is not None else None
        return [self._turns.records[name] for name in entry.response_ids] if entry else []

    async def _chat(self, tree: int) -> ChatRecord | None:
        """The chat of a tree. None: it has expired."""
        entry = self._turns.chats[tree]
        records = self._records(tree)
        newest = max(records, key=lambda one: (one.timestamp, one.sort_key))
        timestamp = math.inf if entry.is_permanent else newest.timestamp
        if timestamp <= self._turns.expiry.cutoff(entry.tenant):
            return None
        conversation, head = await self._conversation_of(tree, entry)
        shown = head or newest
        assert shown.turn is not None
        end = shown.turn.end
        return ChatRecord(
            id=entry.id,
            created_at=entry.created_at,
            updated_at=updated_at_of(entry, newest),
            head=shown.response_id,
            turns=shown.seq + 1,
            branches=len({record.thread for record in records}),
            model=(end.model if end else None) or shown.turn.header.model,
            status=self._status(newest),
            title=self._opening(tree, newest) if entry.title is None else entry.title,
            conversation=conversation,
            expires_at=self._turns.expiry.expires_at(entry.tenant, timestamp),
            is_pinned=entry.is_pinned,
            is_permanent=entry.is_permanent,
            metadata=entry.metadata,
            usage=msgspec.structs.replace(entry.usage, reasoning_tokens=0),
            cost=entry.cost,
        )

    def _status(self, newest: TurnRecord) -> ChatStatus:
        if newest.turn is not None and newest.turn.end is None:
            return "running"
        return "waiting" if newest.response_id in self._turns.waiting else "idle"

    async def _conversation_of(
        self, tree: int, entry: ChatEntry
    ) -> tuple[str | None, TurnRecord | None]:
        """The chat's conversation and its head, where that is still in this chat."""
        if entry.conversation is not None:
            found = await self._conversations.get(entry.tenant, entry.conversation)
            head = (found.active_response_id or found.head) if found else None
            record = self._turns.records.get(head or "")
            if record is not None and record.tree == tree:
                return entry.conversation, record
        return None, None

    def _opening(self, tree: int, newest: TurnRecord) -> str | None:
        for thread in (tree, newest.thread):
            turns = [
                turn
                for name in self._turns.threads.get(thread, ())
                if (turn := self._turns.records[name].turn) is not None
            ]
            if turns:
                return opening_of(turns[0].input[:TITLE_ITEMS])
        return None


def updated_at_of(entry: ChatEntry, newest: TurnRecord) -> float:
    """When a chat was last written to, here or where it was imported from."""
    if entry.imported_at is not None and newest.timestamp <= entry.imported_at:
        return entry.updated_before
    return newest.timestamp


def _branch(turns: MemoryTurns, record: TurnRecord) -> TurnBranch:
    turn = record.turn
    assert turn is not None
    below = [one for one in turns.subtree(record) if one.turn is not None]
    leaf = max(below, key=lambda one: (one.timestamp, one.sort_key))
    return TurnBranch(
        response_id=record.response_id,
        created_at=turn.created_at,
        model=(turn.end.model if turn.end else None) or turn.header.model,
        status=turn.end.status if turn.end else "in_progress",
        opening=opening_of(turn.input[:TITLE_ITEMS]),
        leaf=leaf.response_id,
        turns=leaf.seq + 1,
    )
