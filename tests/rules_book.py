"""What is kept and shown, when, and to whom: the rules, as plainly as they can be written."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from ledgers_kit import Clock

#: Seconds.
LIFE = 100.0
GOOD = {"completed", "incomplete"}


class Turn(msgspec.Struct, eq=False):
    """A turn as it should be. ``said`` is what a model is shown of it."""

    tenant: str
    number: int
    parent: Turn | None
    stamp: float
    id: str = ""
    status: str = "in_progress"
    answer: str = ""
    talk: Talk | None = None
    deleted: bool = False

    @property
    def said(self) -> list[str]:
        return [one for one in (f"ask {self.number}", self.answer) if one]


class Talk(msgspec.Struct, eq=False):
    """A conversation as it should be: its newest turn, and what that went on from."""

    tenant: str
    id: str
    made_at: float
    newest: Turn | None = None
    base: Turn | None = None
    deleted: bool = False


class Book:
    """All turns and conversations there ever were, and the rules about them."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.turns: list[Turn] = []
        self.talks: list[Talk] = []

    def chain(self, turn: Turn | None) -> Iterator[Turn]:
        """A turn and its ancestors, newest first, without deleted ones."""
        while turn is not None:
            if not turn.deleted:
                yield turn
            turn = turn.parent

    def family(self, turn: Turn) -> list[Turn]:
        """A turn and its descendants."""
        found = [turn]
        for one in self.turns:
            if one.parent in found:
                found.append(one)
        return found

    def is_there(self, turn: Turn) -> bool:
        living = [one for one in self.family(turn) if not one.deleted]
        return not turn.deleted and any(one.stamp > self.clock.now - LIFE for one in living)

    def head(self, talk: Talk) -> Turn | None:
        newest = talk.newest
        moved = newest is not None and self.is_there(newest) and newest.status in GOOD
        head = next(self.chain(newest if moved else talk.base), None)
        return head if head is not None and self.is_there(head) else None

    def is_open(self, talk: Talk) -> bool:
        newest = talk.newest
        return not talk.deleted and (
            talk.made_at > self.clock.now - LIFE
            or (newest is not None and self.is_there(newest))
            or self.head(talk) is not None
        )

    def is_busy(self, talk: Talk) -> bool:
        newest = talk.newest
        return newest is not None and not newest.deleted and newest.status == "in_progress"

    def shown(self, head: Turn | None) -> list[str]:
        """What a model is shown of a chain, oldest first."""
        turns = list(self.chain(head))[::-1]
        return [text for turn in turns for text in turn.said]

    def delete(self, turn: Turn, *, cascade: bool) -> None:
        for one in self.family(turn) if cascade else [turn]:
            one.deleted = True

    def delete_talk(self, talk: Talk) -> None:
        """Its turns go, but for those that a turn outside it needs."""
        outside = [turn for turn in self.turns if turn.talk is not talk and self.is_there(turn)]
        needed = {id(one) for turn in outside for one in self.chain(turn)}
        for turn in self.turns:
            if turn.talk is talk and id(turn) not in needed:
                turn.deleted = True
        talk.deleted = True
