"""Conversations in this process's memory."""

from __future__ import annotations

import msgspec

from antiphon.core.ids import new_conversation_id
from antiphon.core.items import ERASED, ERASED_SUMMARY
from antiphon.core.turns import Claim, Conversation
from antiphon.stores.memory.turns import Kept, Turns
from antiphon.stores.sqlite.errors import conversation_moved, no_conversation
from antiphon.stores.sqlite.idempotency import MemoryReceipts
from antiphon.turn.protocols import NewTurn, StoredTurn
from antiphon.turn.store_protocols import unknown_cursor


class _Kept(msgspec.Struct):
    """A conversation as it was left by the turn that was begun last."""

    tenant: str
    conversation: Conversation


class MemoryConversations:
    """A ``ConversationStore``."""

    def __init__(self, turns: Turns, receipts: MemoryReceipts) -> None:
        self._turns = turns
        self._receipts = receipts
        self._kept: dict[str, _Kept] = {}

    async def create(
        self, tenant: str, metadata: dict[str, str], claim: Claim | None = None
    ) -> Conversation:
        self._turns.check_open()
        if claim is not None:
            self._receipts.check_claimed(tenant, claim)
        now = self._turns.expiry.clock()
        conversation = Conversation(new_conversation_id(), now, dict(metadata))
        self.found(tenant, conversation)
        if claim is not None:
            self._receipts.put_outcome(tenant, claim.key, conversation.id)
        return conversation

    async def get(self, tenant: str, conversation_id: str) -> Conversation | None:
        return self._resolved(tenant, conversation_id)

    async def describe(
        self, tenant: str, conversation_id: str, metadata: dict[str, str]
    ) -> Conversation | None:
        if self._resolved(tenant, conversation_id) is None:
            return None
        kept = self._kept[conversation_id]
        kept.conversation = msgspec.structs.replace(kept.conversation, metadata=dict(metadata))
        return self._resolved(tenant, conversation_id)

    async def latest(
        self, tenant: str, limit: int, *, after: str | None = None, newest_first: bool = True
    ) -> list[Conversation]:
        self._turns.check_open()
        mine = [kept.conversation for kept in self._kept.values() if kept.tenant == tenant]
        mine.sort(key=lambda one: (one.created_at, one.id), reverse=newest_first)
        if after is not None:
            places = [place for place, one in enumerate(mine) if one.id == after]
            if not places:
                raise unknown_cursor(after)
            mine = mine[places[0] + 1 :]
        found = [self._resolved(tenant, one.id) for one in mine]
        return [one for one in found if one is not None][: max(0, limit)]

    async def delete(self, tenant: str, conversation_id: str) -> bool:
        if self._resolved(tenant, conversation_id) is None:
            return False
        mine = [kept for kept, turn in self._turns.of(tenant) if _names(turn, conversation_id)]
        doomed = [kept for kept in mine if not self._is_needed(kept, conversation_id)]
        for kept in doomed:
            self._turns.erase(kept)
        for kept in {kept.tree: kept for kept in doomed}.values():
            self._turns.raise_epoch(kept)
        del self._kept[conversation_id]
        return True

    async def erase_item(self, tenant: str, response_id: str, position: int) -> bool:
        found = self._turns.find(tenant, response_id)
        if found is None or found[1].end is None:
            return False
        kept, turn = found
        items = [*turn.input, *turn.output]
        if not 0 <= position < len(items) or items[position] in (ERASED, ERASED_SUMMARY):
            return False
        items[position] = ERASED
        shown = [name for name in turn.blobs if any(name.encode() in item for item in items)]
        self._turns.let_go(kept, turn.blobs.keys() - set(shown))
        kept.turn = msgspec.structs.replace(
            turn,
            input=tuple(items[: len(turn.input)]),
            output=tuple(items[len(turn.input) :]),
            blobs={name: turn.blobs[name] for name in shown},
        )
        self._turns.forget_summaries(kept)
        self._turns.raise_epoch(kept)
        return True

    def check_unmoved(self, tenant: str, seen: Conversation) -> None:
        """Refuse a turn on a conversation that is no longer as its maker saw it."""
        now = self._resolved(tenant, seen.id)
        if now is None:
            raise no_conversation(seen.id, "conversation")
        if now.busy is not None or now.head != seen.head:
            raise conversation_moved(seen.id)

    def found(self, tenant: str, conversation: Conversation) -> None:
        """It is there from now on."""
        self._kept[conversation.id] = _Kept(tenant, conversation)

    def move(self, conversation_id: str, turn: NewTurn) -> None:
        """A turn was begun on it."""
        kept = self._kept[conversation_id]
        kept.conversation = msgspec.structs.replace(
            kept.conversation,
            head=turn.parent.response_id if turn.parent else None,
            busy=turn.response_id,
        )

    def sweep(self) -> None:
        """Erase those that have expired."""
        for conversation_id, kept in list(self._kept.items()):
            if self._resolved(kept.tenant, conversation_id) is None:
                del self._kept[conversation_id]

    def _resolved(self, tenant: str, conversation_id: str) -> Conversation | None:
        """The conversation as it stands."""
        self._turns.check_open()
        kept = self._kept.get(conversation_id)
        if kept is None or kept.tenant != tenant:
            return None
        one = kept.conversation
        head, busy = one.head, one.busy
        newest = self._turns.find(tenant, busy) if busy else None
        if newest is None:
            busy = None
        elif newest[1].end is not None:
            good = newest[1].end.status in {"completed", "incomplete"}
            head, busy = (busy, None) if good else (head, None)
        head = self._living(head)
        created_at, cutoff = one.created_at, self._turns.expiry.cutoff(tenant)
        if created_at <= cutoff and newest is None and head is None:
            return None
        return msgspec.structs.replace(one, head=head, busy=busy)

    def _living(self, response_id: str | None) -> str | None:
        """The response itself, or where it was erased the nearest ancestor that was not."""
        for kept in self._turns.upwards(response_id):
            if kept.turn is not None:
                return None if self._turns.has_expired(kept) else kept.response_id
        return None

    def _is_needed(self, kept: Kept, conversation_id: str) -> bool:
        """Whether a living turn outside the conversation descends from one within."""
        return any(
            one.turn is not None
            and not _names(one.turn, conversation_id)
            and not self._turns.has_expired(one)
            for one in self._turns.family(kept)
        )


def _names(turn: StoredTurn, conversation_id: str) -> bool:
    return turn.header.conversation == conversation_id
