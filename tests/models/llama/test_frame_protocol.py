import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.turns import Usage
from antiphon.models.llama.frame_protocol import (
    CancelRequest,
    CountRequest,
    CountResult,
    FrameSplitter,
    FromWorker,
    GenerateRequest,
    GenerateResult,
    LoadFailed,
    Ready,
    RequestFailed,
    TextChunk,
    ToolCallChunk,
    ToWorker,
    decode_from_worker,
    decode_to_worker,
    encode_frame,
)

DOWN: list[ToWorker] = [
    GenerateRequest(1, b'[{"x": "\xc3\xa9"}]', b'{"seed":3}'),
    CancelRequest(2),
    CountRequest(3, b"[]"),
]
UP: list[FromWorker] = [
    Ready(8192),
    LoadFailed("why"),
    TextChunk(1, "é\n"),
    TextChunk(1, "", "hm"),
    ToolCallChunk(1, "f"),
    ToolCallChunk(1, None, "{}"),
    CountResult(1, 7),
    CountResult(1, None),
    GenerateResult(1, "length", Usage(3, 2, 1)),
    RequestFailed(1, "context", "", used=9, limit=8),
]


@pytest.mark.parametrize("frame", DOWN, ids=lambda frame: type(frame).__name__)
def test_frames_to_the_worker_round_trip(frame: ToWorker) -> None:
    (body,) = FrameSplitter().feed(encode_frame(frame))
    assert decode_to_worker(body) == frame


@pytest.mark.parametrize("frame", UP, ids=lambda frame: type(frame).__name__)
def test_frames_from_the_worker_round_trip(frame: FromWorker) -> None:
    (body,) = FrameSplitter().feed(encode_frame(frame))
    assert decode_from_worker(body) == frame


@given(st.lists(st.integers(1, 40), max_size=12))
def test_reads_may_be_cut_anywhere(cuts: list[int]) -> None:
    data = b"".join(encode_frame(frame) for frame in UP)
    splitter = FrameSplitter()
    bodies = []
    for cut in [*cuts, len(data)]:
        bodies += splitter.feed(data[:cut])
        data = data[cut:]
    assert [decode_from_worker(body) for body in bodies] == UP
