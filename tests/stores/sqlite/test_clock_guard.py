"""A clock that is set wrong for a moment hides turns, and erases none."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.retention import DAY_SECONDS, RetentionPolicy
from antiphon.stores.clock_guard import MAX_GAP, MAX_LEAP, WAIT_SECONDS, ClockGuard
from antiphon.stores.sqlite.reader import read_newest_time
from antiphon.stores.sqlite.store import open_sqlite
from support.store_turns import DONE, ManualClock, new_turn, sqlite

MONTH = 30 * DAY_SECONDS


class Machine:
    """A machine whose clock can be set, and whose steady clock cannot."""

    def __init__(self, newest: float | None = None) -> None:
        self.clock, self.steady = ManualClock(), ManualClock(5.0)
        self.guard = ClockGuard(newest, self.clock, self.steady)

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.steady.now += seconds


@given(st.lists(st.floats(0, 100 * DAY_SECONDS), max_size=8))
def test_clock_that_only_goes_on_is_always_believed(pauses: list[float]) -> None:
    machine = Machine()
    for seconds in pauses:
        machine.pass_time(seconds)
        assert machine.guard.is_believed()


@given(st.floats(MAX_LEAP + 1, 10 * MONTH), st.floats(0, WAIT_SECONDS - 1))
def test_clock_that_leaps_ahead_is_believed_once_that_has_lasted(
    leap: float, seconds: float
) -> None:
    machine = Machine()
    machine.clock.now += leap
    assert not machine.guard.is_believed()
    machine.pass_time(seconds)
    assert not machine.guard.is_believed()
    machine.pass_time(WAIT_SECONDS - seconds)
    assert machine.guard.is_believed()
    machine.pass_time(1)
    assert machine.guard.is_believed()


@given(st.floats(MAX_LEAP + 1, 10 * MONTH), st.integers(0, 3))
def test_clock_that_is_set_right_again_is_believed_at_once(leap: float, times: int) -> None:
    machine = Machine()
    for _ in range(times):
        machine.clock.now += leap
        assert not machine.guard.is_believed()
        machine.clock.now -= leap
        assert machine.guard.is_believed()


@given(st.floats(0, 10 * MONTH))
def test_clock_that_is_set_back_is_believed(leap: float) -> None:
    machine = Machine()
    machine.clock.now -= leap
    assert machine.guard.is_believed()


@pytest.mark.parametrize(
    ("age", "is_believed"), [(None, True), (0.0, True), (MAX_GAP, True), (MONTH, False)]
)
def test_clock_at_the_start_is_compared_with_the_newest_turn(
    age: float | None, is_believed: bool
) -> None:
    machine = Machine(None if age is None else ManualClock().now - age)
    assert machine.guard.is_believed() is is_believed


async def test_turns_that_a_wrong_clock_hides_come_back_with_the_right_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    machine = Machine()
    store = await open_sqlite(tmp_path / "turns.db", RetentionPolicy(MONTH), clock=machine.clock)
    store._database.clock_guard = machine.guard
    index = store.stores.response_index
    turn = new_turn("Hi.", created_at=machine.clock.now)
    await asyncio.gather(store.begin(turn), store.write(turn.response_id, [], DONE))
    assert await index.delete_expired() == 0
    machine.clock.now += MONTH
    with caplog.at_level(logging.WARNING):
        assert await index.delete_expired() == 0
        assert await index.delete_expired() == 0
    assert len(caplog.records) == 1
    assert await store.head("", turn.response_id) is None
    machine.clock.now -= MONTH
    assert await store.head("", turn.response_id) is not None
    machine.clock.now += MONTH
    assert await index.delete_expired() == 0
    machine.pass_time(WAIT_SECONDS)
    assert await index.delete_expired() == 1
    await store.close()


async def test_newest_turn_of_a_file_is_that_of_the_latest_id(tmp_path: Path) -> None:
    async with sqlite(tmp_path / "turns.db") as store:
        assert await store._database.read_pooled(read_newest_time) is None
        ids = [f"resp_{seconds * 1000:012x}{'0' * 20}" for seconds in (30, 50, 40)]
        for response_id in ids:
            await store.begin(new_turn("Hi.", response_id=response_id))
        assert await store._database.read_pooled(read_newest_time) == 50.0
