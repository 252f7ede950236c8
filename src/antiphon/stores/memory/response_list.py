"""All turns in this process's memory: listed by time, and swept out when they have expired."""

from __future__ import annotations

from antiphon.stores.memory.conversations import MemoryConversations
from antiphon.stores.memory.turns import Kept, Turns
from antiphon.turn.protocols import StoredTurn
from antiphon.turn.store_protocols import ANYTHING, Wanted, unknown_cursor


class MemoryArchive:
    """An ``Archive``."""

    def __init__(self, turns: Turns, conversations: MemoryConversations) -> None:
        self._turns = turns
        self._conversations = conversations

    async def listing(
        self,
        tenant: str,
        limit: int,
        *,
        after: str | None = None,
        newest_first: bool = True,
        wanted: Wanted = ANYTHING,
    ) -> list[StoredTurn]:
        self._turns.check_open()
        mine = [
            kept
            for kept in self._turns.kept.values()
            if kept.tenant == tenant and kept.turn is not None
        ]
        mine.sort(key=lambda kept: (kept.stamp, kept.place), reverse=newest_first)
        if after is not None:
            places = [place for place, kept in enumerate(mine) if kept.response_id == after]
            if not places:
                raise unknown_cursor(after)
            mine = mine[places[0] + 1 :]
        return [
            self._turns.dated(kept, turn)
            for kept in mine
            if (turn := kept.turn) is not None
            and wanted.fits(turn.header, turn.end)
            and not self._turns.has_expired(kept)
        ][: max(0, limit)]

    async def sweep(self) -> int:
        self._turns.check_open()
        swept = 0
        for kept in list(self._turns.kept.values()):
            swept += self._sweep(kept) if kept.response_id in self._turns.kept else 0
        self._conversations.sweep()
        return swept

    def _sweep(self, kept: Kept) -> int:
        """Remove a turn and its descendants, if all have expired and none of them runs."""
        family = self._turns.family(kept)
        running = any(one.turn is not None and one.turn.end is None for one in family)
        if kept.turn is None or running or not self._turns.has_expired(kept):
            return 0
        swept = sum(one.turn is not None for one in family)
        for one in reversed(family):
            self._turns.remove(one)
        return swept
