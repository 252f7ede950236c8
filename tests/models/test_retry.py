from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.errors import ModelError
from antiphon.models.retry import AttemptError, RetryPolicy, retry_after

POLICY = RetryPolicy(max_retries=3, base=1.0, cap=3.0, max_retry_after=20.0, deadline=40.0)
NOW = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


def failure(
    *, transient: bool = True, at_once: bool = False, retry_after: float | None = None
) -> AttemptError:
    return AttemptError(
        ModelError("No."), transient=transient, immediate=at_once, retry_after=retry_after
    )


def wait(
    one: AttemptError, failed: int = 1, elapsed: float = 0.0, luck: float = 1.0
) -> float | None:
    return POLICY.next_delay(one, failures=failed, elapsed=elapsed, jitter=luck)


def test_what_will_fail_again_is_not_tried_again() -> None:
    assert wait(failure(transient=False)) is None


def test_waiting_doubles_up_to_the_cap_and_ends() -> None:
    assert [wait(failure(), failed) for failed in (1, 2, 3, 4)] == [1.0, 2.0, 3.0, None]


def test_half_of_the_waiting_is_left_to_chance() -> None:
    assert wait(failure(), luck=0.0) == 0.5
    assert wait(failure(), luck=0.5) == 0.75


def test_a_lost_connection_is_tried_again_at_once_but_only_once() -> None:
    assert wait(failure(at_once=True), 1) == 0.0
    assert wait(failure(at_once=True), 2) == 2.0


def test_retry_after_is_respected() -> None:
    assert wait(failure(retry_after=7.0)) == 7.0
    assert wait(failure(retry_after=0.0)) == 1.0
    assert wait(failure(retry_after=20.0)) == 20.0


def test_more_than_the_users_patience_is_not_waited() -> None:
    assert wait(failure(retry_after=20.5)) is None


def test_no_retry_begins_after_the_deadline() -> None:
    assert wait(failure(), elapsed=39.0) == 1.0
    assert wait(failure(), elapsed=39.1) is None
    assert wait(failure(retry_after=15.0), elapsed=30.0) is None


@given(
    st.integers(1, 5),
    st.floats(0, 100),
    st.floats(0, 1, exclude_max=True),
    st.none() | st.floats(0, 1e9),
)
def test_every_waiting_keeps_its_limits(
    failed: int, elapsed: float, luck: float, requested: float | None
) -> None:
    delay = wait(failure(retry_after=requested), failed, elapsed, luck)
    if delay is not None:
        assert failed <= POLICY.max_retries
        assert (requested or 0.0) <= delay <= max(POLICY.cap, POLICY.max_retry_after)
        assert elapsed + delay <= POLICY.deadline


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "3"}, 3.0),
        ({"Retry-After": "0.25"}, 0.25),
        ({"Retry-After": "-3"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"retry-after-ms": "1500", "Retry-After": "2"}, 1.5),
        ({"retry-after-ms": "soon", "Retry-After": "2"}, 2.0),
        ({"Retry-After": format_datetime(datetime(2026, 1, 1, 0, 1, tzinfo=UTC), True)}, 60.0),
        ({"Retry-After": format_datetime(datetime(2025, 1, 1, tzinfo=UTC), True)}, 0.0),
        ({"Retry-After": "Thu, 01 Jan 2026 00:00:05 -0000"}, 5.0),
        ({"Retry-After": "Thu, 99 Jan 2026 00:00:05 GMT"}, None),
    ],
)
def test_how_long_an_answer_asks_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == seconds
