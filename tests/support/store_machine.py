"""The base of state machines over a store: its event loop, folder and clock."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from support.example_counts import examples
from support.store_turns import StoreWithStores

T = TypeVar("T")


class StoreStateMachine(RuleBasedStateMachine):
    """``open`` makes the store, in ``folder`` if it needs one; ``now`` is its time, in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self._temporary.name)
        self.now = 1_000_000.0
        self.store = self.run_async(self.open())

    async def open(self) -> StoreWithStores:
        raise NotImplementedError

    def clock(self) -> float:
        return self.now

    def run_async(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def teardown(self) -> None:
        self.run_async(self.store.close())
        self._runner.close()
        self._temporary.cleanup()


def check_machine(machine: type[StoreStateMachine], *, steps: int) -> None:
    """Run a machine; a slow step is none of its failures."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples(8),
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
