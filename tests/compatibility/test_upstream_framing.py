"""How upstreams frame a stream: every form with one meaning is read."""

from __future__ import annotations

import pytest

from support.misbehaving_upstream import Behaviour
from support.scenario import DONE, chunk, end, scenario, stream_of, text

HELLO = text("Hello") + text(" there.") + end("stop")

GOOD = {
    "sse-no-space": stream_of(HELLO.replace(b"data: ", b"data:"), DONE.replace(b" ", b"")),
    "sse-done-twice": stream_of(HELLO, DONE, DONE),
    "hb-comment": stream_of(text("Hello"), b": ping\n\n", text(" there."), end(), DONE),
    "end-finish-no-done-close": stream_of(HELLO, close=True),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_answer_is_read(name: str) -> None:
    behaviour: Behaviour = GOOD[name]
    with scenario() as world:
        world.upstream_sends(behaviour)
        world.respond().expect("completed", "Hello there.")


def test_chat_completions_show_the_same() -> None:
    with scenario() as world:
        world.upstream_sends(stream_of(chunk({"content": "Hello there."}, "stop"), DONE))
        world.chat().expect("stop", "Hello there.")
