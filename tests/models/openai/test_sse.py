import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.errors import ModelError
from antiphon.models.openai.sse import SseParser


def parse(*pieces: bytes) -> list[bytes]:
    parser = SseParser()
    events = [event for piece in pieces for event in parser.feed(piece)]
    return events + parser.close()


def by_the_book(stream: bytes) -> list[bytes]:
    """The same rules without a buffer: the whole stream, line by line."""
    events: list[bytes] = []
    data: list[bytes] = []
    lines = re.split(rb"\r\n|\r|\n", stream.removeprefix(b"\xef\xbb\xbf"))
    for line in [*lines, b""]:
        name, _, value = line.partition(b":")
        if line == b"":
            if data:
                events.append(b"\n".join(data))
            data = []
        elif name == b"data":
            data.append(value.removeprefix(b" "))
    return events


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"", []),
        (b'data: {"a":1}\n\n', [b'{"a":1}']),
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a\n\n", [b" a"]),
        (b"data\n\n", [b""]),
        (b"data: \n\n", [b""]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
        (b": ping\n\n: ping\ndata: a\n\n", [b"a"]),
        (b"event: x\nid: 7\nretry: 9\ndata: a\n\n", [b"a"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"data: a\n\n\n\ndata: b\n\n", [b"a", b"b"]),
        (b"database: a\n\n", []),
        (b"data: a: b\n\n", [b"a: b"]),
        (b"\n\n\n", []),
    ],
)
def test_the_events_of_a_stream(stream: bytes, events: list[bytes]) -> None:
    assert parse(stream) == events
    assert parse(*(stream[at : at + 1] for at in range(len(stream)))) == events


@pytest.mark.parametrize(
    "stream", [b"data: a\n\ndata: b", b"data: a\n\ndata: b\n", b"data: a\r\rdata: b\r"]
)
def test_the_last_event_needs_no_blank_line(stream: bytes) -> None:
    parser = SseParser()
    assert parser.feed(stream) == [b"a"]
    assert parser.close() == [b"b"]


def test_an_event_is_returned_as_soon_as_it_ends() -> None:
    parser = SseParser()
    assert parser.feed(b"data: a\r\n\r") == [b"a"]
    assert parser.feed(b"\ndata: b\r\n\r\n") == [b"b"]


def test_a_byte_order_mark_counts_only_at_the_start() -> None:
    assert parse(b"data: a\n\n\xef\xbb\xbfdata: b\n\n") == [b"a"]
    assert parse(b"\xef", b"\xbb", b"\xbfdata: a\n\n") == [b"a"]


def test_a_character_split_between_reads_stays_whole() -> None:
    text = "data: é😀\n\n".encode()
    for at in range(len(text)):
        assert parse(text[:at], text[at:]) == ["é😀".encode()]


fragments = st.lists(
    st.one_of(
        st.sampled_from(
            [b"data: ", b"data:", b"data", b"\n", b"\r", b"\r\n", b"\n\n", b": ", b"event: x",
             b"id", b" ", b"\xef\xbb\xbf", b"x", "😀".encode()]
        ),
        st.binary(max_size=4),
    ),
    max_size=30,
).map(b"".join)  # fmt: skip


@given(fragments, st.lists(st.integers(min_value=1, max_value=9), max_size=20))
def test_any_splitting_gives_the_same_events(stream: bytes, sizes: list[int]) -> None:
    pieces: list[bytes] = []
    rest = stream
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    expected = by_the_book(stream)
    assert parse(stream) == expected
    assert parse(*pieces, rest) == expected


@given(st.lists(st.binary(max_size=12).filter(lambda one: not re.search(rb"[\r\n]", one))))
def test_plain_streams_are_read_whole(payloads: list[bytes]) -> None:
    assert SseParser().feed(b"".join(b"data: " + one + b"\n\n" for one in payloads)) == payloads


@pytest.mark.parametrize("size", [7, 1000])
def test_an_endless_event_is_an_error(size: int) -> None:
    parser = SseParser(max_event_bytes=100)
    assert parser.feed(b"data: " + b"x" * 90 + b"\n\n") == [b"x" * 90]
    endless = (b"data: " + b"x" * 1000)[:size]

    def feed() -> None:
        for _ in range(1000 // size + 1):
            parser.feed(endless)

    with pytest.raises(ModelError, match="more than 100 bytes") as caught:
        feed()
    assert caught.value.code == "upstream_invalid_response"


def test_many_short_lines_of_one_event_are_bounded_too() -> None:
    parser = SseParser(max_event_bytes=100)
    for _ in range(16):
        assert parser.feed(b"data:\n") == []
    with pytest.raises(ModelError):
        parser.feed(b"data:\n")
