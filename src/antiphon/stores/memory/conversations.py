"""In-memory conversations: named heads of chains."""

from __future__ import annotations

import time

import msgspec

from antiphon.core.ids import new_conversation_id
from antiphon.core.items import ERASED_ITEM, ERASED_SUMMARY_ITEM
from antiphon.core.turns import ConversationRecord, IdempotencyReservation
from antiphon.stores.conflict_errors import conversation_moved, conversation_not_found
from antiphon.stores.memory.idempotency import MemoryIdempotencyStore
from antiphon.stores.memory.turns import MemoryTurns, TurnRecord
from antiphon.turn.feed_protocols import Change, ChangeType
from antiphon.turn.store_protocols import NewTurn, StoredTurn, unknown_cursor


class _ConversationEntry(msgspec.Struct):
    """A conversation as it was left by the turn that was begun last."""

    tenant: str
    conversation: ConversationRecord


class MemoryConversationStore:
    """A ``ConversationStore``."""

    def __init__(self, turns: MemoryTurns, idempotency: MemoryIdempotencyStore) -> None:
        self._turns = turns
        self._idempotency = idempotency
        self._entries: dict[str, _ConversationEntry] = {}

    async def create(
        self,
        tenant: str,
        metadata: dict[str, str],
        reservation: IdempotencyReservation | None = None,
    ) -> ConversationRecord:
        self._turns.check_open()
        if reservation is not None:
            self._idempotency.check_reservation(tenant, reservation)
        now = self._turns.expiry.clock()
        conversation = ConversationRecord(new_conversation_id(), now, dict(metadata))
        self.insert(tenant, conversation)
        if reservation is not None:
            self._idempotency.set_result(tenant, reservation.key, conversation.id)
        return conversation

    async def get(self, tenant: str, conversation_id: str) -> ConversationRecord | None:
        return self._resolve(tenant, conversation_id)

    async def update_metadata(
        self, tenant: str, conversation_id: str, metadata: dict[str, str]
    ) -> ConversationRecord | None:
        if self._resolve(tenant, conversation_id) is None:
            return None
        entry = self._entries[conversation_id]
        entry.conversation = msgspec.structs.replace(entry.conversation, metadata=dict(metadata))
        self._note("conversation.updated", tenant, conversation_id)
        return self._resolve(tenant, conversation_id)

    async def move_head(self, tenant: str, seen: ConversationRecord, response_id: str) -> bool:
        self.check_head_unchanged(tenant, seen)
        if self._turns.find(tenant, response_id) is None:
            return False
        entry = self._entries[seen.id]
        entry.conversation = msgspec.structs.replace(
            entry.conversation, head=response_id, active_response_id=None
        )
        self._note("conversation.moved", tenant, seen.id)
        return True

    def count(self, tenant: str) -> int:
        return sum(entry.tenant == tenant for entry in self._entries.values())

    async def list_conversations(
        self, tenant: str, limit: int, *, after: str | None = None, newest_first: bool = True
    ) -> list[ConversationRecord]:
        self._turns.check_open()
        mine = [entry.conversation for entry in self._entries.values() if entry.tenant == tenant]
        mine.sort(key=lambda one: (one.created_at, one.id), reverse=newest_first)
        if after is not None:
            positions = [position for position, one in enumerate(mine) if one.id == after]
            if not positions:
                raise unknown_cursor(after)
            mine = mine[positions[0] + 1 :]
        found = [self._resolve(tenant, one.id) for one in mine]
        return [one for one in found if one is not None][: max(0, limit)]

    async def delete(self, tenant: str, conversation_id: str) -> bool:
        if self._resolve(tenant, conversation_id) is None:
            return False
        mine = [
            record
            for record, turn in self._turns.visible_turns(tenant)
            if _belongs_to(turn, conversation_id)
        ]
        erasable = [record for record in mine if not self._is_needed(record, conversation_id)]
        for record in erasable:
            self._turns.tombstone(record)
            self._turns.note("turn.erased", record)
        for record in {record.tree: record for record in erasable}.values():
            self._turns.bump_epoch(record)
        self.erase(conversation_id)
        return True

    async def erase_item(self, tenant: str, response_id: str, position: int) -> bool:
        found = self._turns.find(tenant, response_id)
        if found is None or found[1].end is None:
            return False
        record, turn = found
        items = [*turn.input, *turn.output]
        if not 0 <= position < len(items) or items[position] in (ERASED_ITEM, ERASED_SUMMARY_ITEM):
            return False
        items[position] = ERASED_ITEM
        used = [name for name in turn.blobs if any(name.encode() in item for item in items)]
        self._turns.release_blobs(record, turn.blobs.keys() - set(used))
        record.turn = msgspec.structs.replace(
            turn,
            input=tuple(items[: len(turn.input)]),
            output=tuple(items[len(turn.input) :]),
            blobs={name: turn.blobs[name] for name in used},
        )
        self._turns.erase_derived_words(record)
        self._turns.drop_generated_title(record.tree)
        self._turns.note_chat("chat.updated", tenant, self._turns.chats[record.tree].id)
        self._turns.bump_epoch(record)
        return True

    def erase(self, conversation_id: str) -> None:
        """Nothing is left of it; its turns stay."""
        entry = self._entries.pop(conversation_id, None)
        if entry is not None:
            self._note("conversation.erased", entry.tenant, conversation_id)

    def _note(self, change_type: ChangeType, tenant: str, conversation_id: str) -> None:
        change = Change("", change_type, time.time(), conversation=conversation_id)
        self._turns.changes.add(tenant, change)

    def exists(self, conversation_id: str) -> bool:
        """Whether anybody has a conversation by that id."""
        return conversation_id in self._entries

    def check_head_unchanged(self, tenant: str, seen: ConversationRecord) -> None:
        """Refuse a turn on a conversation that is no longer as its maker saw it."""
        now = self._resolve(tenant, seen.id)
        if now is None:
            raise conversation_not_found(seen.id, "conversation")
        if now.active_response_id is not None or now.head != seen.head:
            raise conversation_moved(seen.id)

    def insert(self, tenant: str, conversation: ConversationRecord) -> None:
        """It is there from now on."""
        self._entries[conversation.id] = _ConversationEntry(tenant, conversation)
        self._note("conversation.created", tenant, conversation.id)

    def begin_turn(self, conversation_id: str, turn: NewTurn) -> None:
        """A turn was begun on it."""
        entry = self._entries[conversation_id]
        entry.conversation = msgspec.structs.replace(
            entry.conversation,
            head=turn.parent.response_id if turn.parent else None,
            active_response_id=turn.response_id,
        )

    def delete_expired(self) -> None:
        """Erase those that have expired."""
        for conversation_id, entry in list(self._entries.items()):
            if self._resolve(entry.tenant, conversation_id) is None:
                self.erase(conversation_id)

    def _resolve(self, tenant: str, conversation_id: str) -> ConversationRecord | None:
        """The conversation as it stands."""
        self._turns.check_open()
        entry = self._entries.get(conversation_id)
        if entry is None or entry.tenant != tenant:
            return None
        one = entry.conversation
        head, active = one.head, one.active_response_id
        newest = self._turns.find(tenant, active) if active else None
        if newest is None:
            active = None
        elif newest[1].end is not None:
            good = newest[1].end.status in {"completed", "incomplete"}
            head, active = (active, None) if good else (head, None)
        head = self._nearest_existing(head)
        created_at, cutoff = one.created_at, self._turns.expiry.cutoff(tenant)
        if created_at <= cutoff and newest is None and head is None:
            return None
        return msgspec.structs.replace(one, head=head, active_response_id=active)

    def _nearest_existing(self, response_id: str | None) -> str | None:
        """The response itself, or where it was erased the nearest ancestor that was not."""
        for record in self._turns.ancestors(response_id):
            if record.turn is not None:
                return None if self._turns.has_expired(record) else record.response_id
        return None

    def _is_needed(self, record: TurnRecord, conversation_id: str) -> bool:
        """Whether a living turn outside the conversation descends from one within."""
        return any(
            one.turn is not None
            and not _belongs_to(one.turn, conversation_id)
            and not self._turns.has_expired(one)
            for one in self._turns.subtree(record)
        )


def _belongs_to(turn: StoredTurn, conversation_id: str) -> bool:
    return turn.header.conversation == conversation_id
