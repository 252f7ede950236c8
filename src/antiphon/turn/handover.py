"""Handover: turns that stop here and that others go on with, and the rest of theirs, run here."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from antiphon.core.turns import End, TurnError
from antiphon.errors import (
    AntiphonError,
    HistoryChangedError,
    NotFoundError,
    ServerBusyError,
    StoreError,
    TurnInterruptedError,
    TurnTakenOverError,
)
from antiphon.turn.node_protocols import NodeRegistry, OrphanedTurn
from antiphon.turn.planning import TurnPlan, TurnPlanner
from antiphon.turn.queued_turns import QueuedTurns
from antiphon.turn.running_turns import RunningTurn, TurnRegistry
from antiphon.turn.store_protocols import Store
from antiphon.turn.turn_reader import may_be_queued

log = logging.getLogger("antiphon.turn")

#: How often a claimed turn is tried whose store fails. It answered the claim just before, so what
#: fails more often is the turn itself: its rows are damaged.
_MAX_FAILURES: Final = 10
_NOT_RUN: Final = "The process that ran this turn ended before the turn did."


class TurnHandover:
    """Gives up turns that stop here, and runs the rest of those that this node has claimed.

    ``start`` starts a planned turn; it raises ``ServerBusyError`` where this process ends.
    """

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        store: Store,
        registry: TurnRegistry,
        planner: TurnPlanner,
        queued_turns: QueuedTurns,
        start: Callable[[TurnPlan], Awaitable[RunningTurn]],
        nodes: NodeRegistry | None,
    ) -> None:
        self._store = store
        self._registry = registry
        self._planner = planner
        self._queued_turns = queued_turns
        self._start = start
        self._nodes = nodes
        #: Turns that stop here and that other processes may go on with, until the store knows it.
        self._given_up: set[str] = set()

    async def interrupt(self) -> None:
        """Stop what runs, and keep it as interrupted; give up what another process can go on with.

        Where no other one is there, the next that serves this store does.
        """
        hands_over = self._nodes is not None and self._nodes.is_shared
        # A server that stops may cancel this anywhere; what is left is done as the store closes.
        what_ends = "server" if self._registry.is_draining else "program"
        self._given_up.update(self._registry.interrupt(what_ends, hands_over=hands_over))
        await self._registry.wait_all()
        await self._release()

    async def resume(self, tenant: str, response_id: str) -> None:
        """Run the rest of a turn that this node has claimed (``NodeRegistry.recover``).

        What is stored of it stays. It ends as failed where it cannot be run here. Raises
        ``StoreError`` or ``HistoryChangedError``: it is claimed still, and can be tried again.
        """
        if (lost := self._registry.get(response_id)) is not None:
            # This process was taken for dead, and has claimed a turn of its own.
            lost.stop(TurnTakenOverError("This server runs the turn anew."))
            await lost.wait_for_end()
        try:
            stored = await self._store.turn(tenant, response_id)
            if stored is not None and may_be_queued(stored):
                await self._queued_turns.resume(tenant, stored)
                return
            plan = await self._plan(tenant, response_id)
            if plan is not None:
                await self._start(plan)
        except ServerBusyError:
            # This process ends, too.
            self._given_up.add(response_id)
            await self._release()

    async def _plan(self, tenant: str, response_id: str) -> TurnPlan | None:
        """The plan of a claimed turn; None: it could not be run here, and has been ended."""
        try:
            return await self._planner.plan_restart(tenant, response_id)
        except NotFoundError:
            # Erased meanwhile, or its parent.
            await self.end_claimed(response_id, TurnInterruptedError(_NOT_RUN))
        except (HistoryChangedError, StoreError):
            raise
        except AntiphonError as error:
            await self.end_claimed(response_id, error)
        except Exception:
            log.exception("turn %s could not be gone on with", response_id)
            await self.end_claimed(response_id, AntiphonError("The server failed at this turn."))
        return None

    async def end_claimed(self, response_id: str, error: AntiphonError) -> None:
        """End a claimed turn that does not run, as failed."""
        end = End("failed", time.time(), error=TurnError(error.code, error.message))
        await self._store.write(response_id, (), end)

    async def _release(self) -> None:
        """Have other processes go on with the turns that have stopped here for them."""
        if self._nodes is None or not self._given_up:
            return
        released = tuple(self._given_up)
        try:
            await self._nodes.release(released)
        except StoreError as error:
            # Others find them once this process has gone.
            log.warning("turns could not be handed over: %s", error.message)
        else:
            self._given_up.difference_update(released)


class OrphanResumption:
    """Claims turns and has ``handover`` run them. What it cannot begin now it tries again."""

    def __init__(self, handover: TurnHandover, nodes: NodeRegistry) -> None:
        self._handover = handover
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
                await self._handover.resume(turn.tenant, turn.response_id)
            except TurnTakenOverError:
                pass
            except (HistoryChangedError, StoreError) as error:
                failures = self._failures.get(turn, 0) + 1
                if failures < _MAX_FAILURES:
                    log.warning("a claimed turn could not be read: %s", error.message)
                    self._failures[turn] = failures
                    continue
                await self._handover.end_claimed(turn.response_id, error)
            self._failures.pop(turn, None)
