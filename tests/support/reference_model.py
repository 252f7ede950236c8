"""What is kept and shown, when, and to whom: the rules, as plainly as they can be written."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from support.store_turns import ManualClock

#: Seconds.
RETENTION_SECONDS = 100.0
SUCCESS_STATUSES = {"completed", "incomplete"}


class ReferenceTurn(msgspec.Struct, eq=False):
    """A turn as it should be. ``said`` is what a model is shown of it."""

    tenant: str
    number: int
    parent: ReferenceTurn | None
    created_at: float
    id: str = ""
    status: str = "in_progress"
    answer: str = ""
    conversation: ReferenceConversation | None = None
    deleted: bool = False

    @property
    def texts(self) -> list[str]:
        return [one for one in (f"ask {self.number}", self.answer) if one]


class ReferenceConversation(msgspec.Struct, eq=False):
    """A conversation as it should be: its newest turn, and what that went on from."""

    tenant: str
    id: str
    created_at: float
    latest_turn: ReferenceTurn | None = None
    base_turn: ReferenceTurn | None = None
    deleted: bool = False


class ReferenceModel:
    """All turns and conversations there ever were, and the rules about them."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.turns: list[ReferenceTurn] = []
        self.conversations: list[ReferenceConversation] = []

    def chain(self, turn: ReferenceTurn | None) -> Iterator[ReferenceTurn]:
        """A turn and its ancestors, newest first, without deleted ones."""
        while turn is not None:
            if not turn.deleted:
                yield turn
            turn = turn.parent

    def descendants(self, turn: ReferenceTurn) -> list[ReferenceTurn]:
        """A turn and its descendants."""
        found = [turn]
        for one in self.turns:
            if one.parent in found:
                found.append(one)
        return found

    def exists(self, turn: ReferenceTurn) -> bool:
        living = [one for one in self.descendants(turn) if not one.deleted]
        return not turn.deleted and any(
            one.created_at > self.clock.now - RETENTION_SECONDS for one in living
        )

    def head(self, talk: ReferenceConversation) -> ReferenceTurn | None:
        newest = talk.latest_turn
        moved = newest is not None and self.exists(newest) and newest.status in SUCCESS_STATUSES
        head = next(self.chain(newest if moved else talk.base_turn), None)
        return head if head is not None and self.exists(head) else None

    def is_open(self, talk: ReferenceConversation) -> bool:
        newest = talk.latest_turn
        return not talk.deleted and (
            talk.created_at > self.clock.now - RETENTION_SECONDS
            or (newest is not None and self.exists(newest))
            or self.head(talk) is not None
        )

    def is_busy(self, talk: ReferenceConversation) -> bool:
        newest = talk.latest_turn
        return newest is not None and not newest.deleted and newest.status == "in_progress"

    def context_texts(self, head: ReferenceTurn | None) -> list[str]:
        """What a model is shown of a chain, oldest first."""
        turns = list(self.chain(head))[::-1]
        return [text for turn in turns for text in turn.texts]

    def delete(self, turn: ReferenceTurn, *, cascade: bool) -> None:
        for one in self.descendants(turn) if cascade else [turn]:
            one.deleted = True

    def delete_conversation(self, talk: ReferenceConversation) -> None:
        """Its turns go, but for those that a turn outside it needs."""
        outside = [
            turn for turn in self.turns if turn.conversation is not talk and self.exists(turn)
        ]
        needed = {id(one) for turn in outside for one in self.chain(turn)}
        for turn in self.turns:
            if turn.conversation is talk and id(turn) not in needed:
                turn.deleted = True
        talk.deleted = True
