"""How often streams write."""

from __future__ import annotations

import pytest

from antiphon.api.grpc.stream_throttle import StreamThrottle


def test_the_first_message_never_waits() -> None:
    with StreamThrottle().open_stream() as rest:
        assert rest.remaining() <= 0


def test_the_more_streams_the_longer_each_rests_up_to_a_frame() -> None:
    pace = StreamThrottle()
    with pace.open_stream():
        alone = pace.interval()
        with pace.open_stream(), pace.open_stream():
            assert pace.interval() == 3 * alone
            many = [pace.open_stream() for _ in range(100)]
            for one in many:
                one.__enter__()
            assert pace.interval() == 0.016
            for one in many:
                one.__exit__(None, None, None)
        assert pace.interval() == alone
    assert pace.interval() == 0


def test_a_stream_rests_from_its_own_last_message_on() -> None:
    now = 100.0
    pace = StreamThrottle(lambda: now)
    with pace.open_stream() as one, pace.open_stream() as other:
        one.start()
        assert one.remaining() == pytest.approx(pace.interval())
        assert other.remaining() <= 0
        now += 2 * pace.interval()
        assert one.remaining() <= 0
