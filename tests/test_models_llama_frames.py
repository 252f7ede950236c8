import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.turns import Usage
from antiphon.models.llama.frame_protocol import (
    Ask,
    Broken,
    Called,
    Count,
    Counted,
    Done,
    Down,
    Drop,
    Failed,
    FrameSplitter,
    Ready,
    Said,
    Up,
    decode_down,
    decode_up,
    encode_frame,
)

DOWN: list[Down] = [Ask(1, b'[{"x": "\xc3\xa9"}]', b'{"seed":3}'), Drop(2), Count(3, b"[]")]
UP: list[Up] = [
    Ready(8192),
    Broken("why"),
    Said(1, "é\n"),
    Said(1, "", "hm"),
    Called(1, "f"),
    Called(1, None, "{}"),
    Counted(1, 7),
    Counted(1, None),
    Done(1, "length", Usage(3, 2, 1)),
    Failed(1, "context", "", used=9, limit=8),
]


@pytest.mark.parametrize("frame", DOWN, ids=lambda frame: type(frame).__name__)
def test_what_goes_down_arrives_as_it_was(frame: Down) -> None:
    (body,) = FrameSplitter().feed(encode_frame(frame))
    assert decode_down(body) == frame


@pytest.mark.parametrize("frame", UP, ids=lambda frame: type(frame).__name__)
def test_what_goes_up_arrives_as_it_was(frame: Up) -> None:
    (body,) = FrameSplitter().feed(encode_frame(frame))
    assert decode_up(body) == frame


@given(st.lists(st.integers(1, 40), max_size=12))
def test_reads_may_be_cut_anywhere(cuts: list[int]) -> None:
    data = b"".join(encode_frame(frame) for frame in UP)
    splitter = FrameSplitter()
    bodies = []
    for cut in [*cuts, len(data)]:
        bodies += splitter.feed(data[:cut])
        data = data[cut:]
    assert [decode_up(body) for body in bodies] == UP
