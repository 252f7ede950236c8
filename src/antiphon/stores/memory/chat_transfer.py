"""In-memory chats as a whole: imported at once, and listed with all their branches."""

from __future__ import annotations

import msgspec

from antiphon.core.ids import (
    chat_id_of,
    conversation_key,
    new_conversation_id,
    new_response_id,
    response_key,
)
from antiphon.stores.imported_conversations import header_in, new_head_of, record_of
from antiphon.stores.memory.changes import MemoryChangeLog
from antiphon.stores.memory.chats import updated_at_of
from antiphon.stores.memory.conversations import MemoryConversationStore
from antiphon.stores.memory.turns import ChatEntry, MemoryTurns, TurnRecord
from antiphon.turn.store_protocols import Head, NewTurn
from antiphon.turn.transfer_protocols import ChatImport, ChatImportResult, TreeTurn, TurnImport


class MemoryChatTransferStore:
    """A ``ChatTransferStore`` in this process's memory."""

    def __init__(self, turns: MemoryTurns, conversations: MemoryConversationStore) -> None:
        self._turns = turns
        self._conversations = conversations

    async def import_chat(self, chat: ChatImport) -> ChatImportResult:
        self._turns.check_open()
        known = [self._find_known(chat.tenant, turn) for turn in chat.turns]
        if not any(one is not None and self._is_alive(one) for one in known):
            # Nothing is left of it: whoever imports it again wants it back.
            known = [None] * len(known)
        now = self._turns.expiry.clock()
        before = next((self._turns.chats.get(one.tree) for one in known if one), None)
        updated_at = self._updated_at(before)
        name = await self._conversation_id(chat, before)
        records: list[TurnRecord] = []
        for turn, one in zip(chat.turns, known, strict=True):
            parent = None if turn.parent is None else records[turn.parent]
            first = records[0] if records else None
            changed = msgspec.structs.replace(turn, header=header_in(turn, name))
            records.append(one or self._add_turn(chat.tenant, changed, (parent, first), now))
        entry = self._turns.chats[records[0].tree]
        if None in known:
            entry.updated_before = max(updated_at, chat.updated_at)
            self._set_chat(entry, chat, is_new=before is None, now=now)
            if name is not None:
                names = [record.response_id for record in records]
                await self._set_conversation(chat, name, names, entry, is_new=before is None)
        return ChatImportResult(
            chat_id_of(response_key(entry.first_response_id) or b""),
            tuple(record.response_id for record in records),
            known.count(None),
            sum(one is not None and not self._is_alive(one) for one in known),
            name,
        )

    async def _conversation_id(self, chat: ChatImport, entry: ChatEntry | None) -> str | None:
        """The id that a chat's conversation has here, or gets; None: there is none."""
        if chat.conversation is None:
            return None
        if entry is not None:
            found = entry.conversation and await self._conversations.get(
                chat.tenant, entry.conversation
            )
            return found.id if found else None
        name = chat.conversation.id
        is_taken = conversation_key(name) is None or self._conversations.exists(name)
        return new_conversation_id() if is_taken else name

    async def _set_conversation(
        self, chat: ChatImport, name: str, names: list[str], entry: ChatEntry, *, is_new: bool
    ) -> None:
        """Create the conversation of a new chat, or move its head on to what was added."""
        assert chat.conversation is not None, "it has an id"
        if is_new:
            position = chat.conversation.head
            head = None if position is None else names[position]
            record = msgspec.structs.replace(record_of(chat.conversation, name), head=head)
            self._conversations.insert(chat.tenant, record)
            entry.conversation = name
            return
        current = await self._conversations.get(chat.tenant, name)
        head = None if current is None else new_head_of(chat, names, current)
        if current is not None and head is not None:
            await self._conversations.move_head(chat.tenant, current, head)

    def _set_chat(self, entry: ChatEntry, chat: ChatImport, *, is_new: bool, now: float) -> None:
        """Give a chat the times that it had, and one that is new its title and the rest."""
        entry.imported_at = now
        self._turns.note_chat("chat.updated", entry.tenant, entry.id)
        if is_new:
            entry.created_at = chat.created_at
            entry.title, entry.is_pinned = chat.title, chat.is_pinned
            entry.metadata = dict(chat.metadata)

    def _updated_at(self, entry: ChatEntry | None) -> float:
        """When a chat was last written to, as a list shows it."""
        if entry is None:
            return 0.0
        records = [self._turns.records[name] for name in entry.response_ids]
        return updated_at_of(entry, max(records, key=lambda one: (one.timestamp, one.sort_key)))

    async def tree(self, tenant: str, response_id: str) -> list[TreeTurn]:
        found = self._turns.find(tenant, response_id)
        if found is None:
            return []
        records = [one for one in self._turns.records.values() if one.tree == found[0].tree]
        turns: list[TreeTurn] = []
        nearest: dict[str | None, str | None] = {}
        for record in sorted(records, key=lambda one: one.sort_key):
            above = nearest.get(record.parent)
            if record.turn is not None:
                turns.append(TreeTurn(record.response_id, record.turn.created_at, above))
                above = record.response_id
            nearest[record.response_id] = above
        return turns

    def _find_known(self, tenant: str, turn: TurnImport) -> TurnRecord | None:
        """The turn that it is, or the tombstone in its place."""
        name = self._turns.imported.get((tenant, turn.digest), turn.response_id)
        record = self._turns.records.get(name)
        return record if record is not None and record.tenant == tenant else None

    def _is_alive(self, record: TurnRecord) -> bool:
        return record.turn is not None and not self._turns.has_expired(record)

    def _add_turn(
        self,
        tenant: str,
        turn: TurnImport,
        near: tuple[TurnRecord | None, TurnRecord | None],
        now: float,
    ) -> TurnRecord:
        """Write one turn. ``near`` are its parent and the first turn of its chat."""
        parent, first = near
        name = turn.response_id
        if response_key(name) is None or name in self._turns.records:
            name = new_response_id()
        # One change of the chat stands for those of its turns.
        changes, self._turns.changes = self._turns.changes, MemoryChangeLog()
        self._turns.begin(
            NewTurn(
                name,
                tenant,
                turn.created_at,
                turn.header,
                turn.input,
                parent=None if parent is None else self._head_of(parent),
                sibling=None if parent or first is None else self._head_of(first),
                blobs=turn.blobs,
                stored_at=now,
            )
        )
        self._turns.write(name, turn.output, turn.end, is_import=True)
        self._turns.changes = changes
        record = self._turns.records[name]
        self._turns.add_import(record, turn.digest, is_of_words=turn.is_of_words)
        return record

    def _head_of(self, record: TurnRecord) -> Head:
        return Head(
            record.response_id,
            record.tenant,
            record.thread,
            record.seq,
            record.tree,
            self._turns.epochs.get(record.tree, 0),
            is_running=False,
            timestamp=record.timestamp,
        )
