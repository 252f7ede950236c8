"""Orphan resumption: runs the rest of the turns that this node has claimed from others."""

from __future__ import annotations

import logging
from typing import Final

from antiphon.errors import HistoryChangedError, StoreError, TurnTakenOverError
from antiphon.turn.node_protocols import NodeRegistry, OrphanedTurn
from antiphon.turn.service import TurnService

log = logging.getLogger("antiphon.turn")

#: How often a claimed turn is tried whose store fails. It answered the claim just before, so what
#: fails more often is the turn itself: its rows are damaged.
_MAX_FAILURES: Final = 10


class OrphanResumption:
    """Claims turns and has ``service`` run them. What it cannot begin now it tries again."""

    def __init__(self, service: TurnService, nodes: NodeRegistry) -> None:
        self._service = service
        self._nodes = nodes
        #: What was claimed and does not run yet, and how often the store failed it.
        self._failures: dict[OrphanedTurn, int] = {}

    def forget(self) -> None:
        """Others have taken what was claimed: this process was taken for dead."""
        self._failures.clear()

    async def run_once(self) -> None:
        """Claim what there is, and begin to run it. Raises ``StoreError`` where that fails."""
        for turn in await self._nodes.recover():
            self._failures[turn] = 0
        for turn in list(self._failures):
            try:
                await self._service.resume(turn.tenant, turn.response_id)
            except TurnTakenOverError:
                pass
            except (HistoryChangedError, StoreError) as error:
                failures = self._failures.get(turn, 0) + 1
                if failures < _MAX_FAILURES:
                    log.warning("a claimed turn could not be read: %s", error.message)
                    self._failures[turn] = failures
                    continue
                await self._service.end_claimed(turn.response_id, error)
            self._failures.pop(turn, None)
