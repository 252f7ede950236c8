"""Family builder: makes the record of a family from its threads, without the turns that run."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from antiphon.turn.copy_protocols import Family, FamilyChat, FamilyTurn, TurnPosition


class FamilyBuilder:
    """A family whose threads are added one by one, each behind the one that it branches off.

    Threads are known by the ids that the store has for them, and get numbers in the family.
    """

    def __init__(self) -> None:
        #: The number of each thread of which something is copied.
        self._numbers: dict[int, int] = {}
        self._parents: list[TurnPosition | None] = []
        self._turns: list[FamilyTurn] = []
        self._positions: set[TurnPosition] = set()

    def add_thread(
        self,
        thread: int,
        parent: tuple[int, int] | None,
        read: Callable[[int], list[FamilyTurn]],
    ) -> None:
        """Add the turns that ``read`` has of a thread when it knows the thread's number.

        ``parent`` is the thread and the depth of the turn that the first one continues.
        """
        position = None if parent is None else self._position_of(parent)
        if position is not None and position not in self._positions:
            # It continues a turn that runs.
            return
        number = len(self._parents)
        turns = read(number)
        if turns:
            self._numbers[thread] = number
            self._parents.append(position)
            self._turns += turns
            self._positions.update(turn.position for turn in turns)

    def build(self, tenant: str, epoch: int, chat: FamilyChat | None) -> Family | None:
        """The family. ``chat``: as stored, its newest turn by the thread's id. None: all runs."""
        if not self._turns:
            return None
        settled = None if chat is None else self._chat_of_turns(chat)
        return Family(tenant, epoch, tuple(self._parents), tuple(self._turns), settled)

    def _chat_of_turns(self, chat: FamilyChat) -> FamilyChat | None:
        """The chat as if what runs were not there yet. None: all its turns are erased."""
        living = {turn.position: turn.timestamp for turn in self._turns if turn.header is not None}
        if not living:
            return None
        newest, updated_at = self._position_of(chat.newest), chat.updated_at
        if newest not in living:
            timestamp, newest = max((at, position) for position, at in living.items())
            updated_at = min(updated_at, timestamp)
        branches = len({thread for thread, _ in living})
        return msgspec.structs.replace(
            chat, newest=newest, updated_at=updated_at, branches=branches
        )

    def _position_of(self, turn: tuple[int, int]) -> TurnPosition:
        thread, seq = turn
        return self._numbers.get(thread, -1), seq
