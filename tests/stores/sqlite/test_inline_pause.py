"""Pauses between commits on the event loop: by how slow the last ones were."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from antiphon.stores.sqlite.inline_pause import MAX_PAUSE, InlinePause

LIMIT = 0.005


@given(st.lists(st.floats(0.0001, 1.0), min_size=1, max_size=50))
def test_slow_commits_take_a_twentieth_of_the_time_at_most(durations: list[float]) -> None:
    pause, now, slow = InlinePause(), 0.0, 0.0
    for seconds in durations:
        now = max(now, pause.ends_at) + seconds
        pause.note(now, seconds, limit=LIMIT)
        slow += seconds if seconds > LIMIT else 0.0
    end = max(now, pause.ends_at)
    assert slow <= end / 20 + 1e-9


def test_fast_commits_need_no_pause() -> None:
    pause = InlinePause()
    pause.note(1.0, LIMIT, limit=LIMIT)
    assert pause.ends_at <= 1.0


def test_one_slow_commit_costs_a_short_pause_and_a_slow_disk_a_long_one() -> None:
    pause = InlinePause()
    for now in range(5):
        pause.note(float(now), 0.008, limit=LIMIT)
        pause.note(now + 0.5, 0.001, limit=LIMIT)
        assert pause.ends_at - now < 0.2
    for now in range(100, 120):
        pause.note(float(now), 0.01, limit=LIMIT)
    assert pause.ends_at - now == MAX_PAUSE
