"""How often streams write."""

from __future__ import annotations

import time

from antiphon.api.grpc.stream_throttle import Pace


def test_the_first_message_never_waits() -> None:
    with Pace().stream() as rest:
        assert rest.left() <= 0


def test_the_more_streams_the_longer_each_rests_up_to_a_frame() -> None:
    pace = Pace()
    with pace.stream():
        alone = pace.pause()
        with pace.stream(), pace.stream():
            assert pace.pause() == 3 * alone
            many = [pace.stream() for _ in range(100)]
            for one in many:
                one.__enter__()
            assert pace.pause() == 0.016
            for one in many:
                one.__exit__(None, None, None)
        assert pace.pause() == alone
    assert pace.pause() == 0


def test_a_stream_rests_from_its_own_last_message_on() -> None:
    pace = Pace()
    with pace.stream() as one, pace.stream() as other:
        one.begin()
        left = one.left()
        assert 0 < left <= pace.pause()
        assert other.left() <= 0
        time.sleep(left)
        assert one.left() <= 0
