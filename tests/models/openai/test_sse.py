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


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"", []),
        (b'data: {"a":1}\n\n', [b'{"a":1}']),
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a\n\n", [b" a"]),
        (b"data\n\n", []),
        (b"data: \n\n", [b""]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
        (b": ping\n\n: ping\ndata: a\n\n", [b"a"]),
        (b"event: x\nid: 7\nretry: 9\ndata: a\n\n", [b"a"]),
        (b'data: {"a":\ndata: 1}\n\n', [b'{"a":\n1}']),
        (b'data: {\ndata:   "a":{}\ndata: }\n\n', [b'{\n  "a":{}\n}']),
        # One line end between two events.
        (b'data: {"a":1}\ndata: {"b":2}\n', [b'{"a":1}', b'{"b":2}']),
        (b"data: ping\ndata: [DONE]\n\n", [b"ping", b"[DONE]"]),
        (b'data: {"a":NaN}\ndata: {"b":2}\n\n', [b'{"a":NaN}', b'{"b":2}']),
        (b'data: {"a"\ndata: :1}\ndata: [DONE]\n\n', [b'{"a"\n:1}', b"[DONE]"]),
        (b'event: a\ndata: {"b":1}\nevent: c\ndata: {}\n', [b'{"type":"a","b":1}', b"{}"]),
        # Without a field's name.
        (b'{"a":1}\n{"b":2}\n', [b'{"a":1}', b'{"b":2}']),
        # Names of events.
        (b'event: a.b\ndata: {"c":1}\n\n', [b'{"type":"a.b","c":1}']),
        (b'event: a\ndata: {"type":"b"}\n\n', [b'{"type":"b"}']),
        (b'event: a\n\ndata: {"b":1}\n\n', [b'{"b":1}']),
        (b"event: ping\ndata: {}\n\n", [b"{}"]),
        (b'event: error\ndata: {"message":"No."}\n\n', [b'{"error":{"message":"No."}}']),
        (b'event: error\ndata: {"error":"No."}\n\n', [b'{"error":"No."}']),
        (b"event: error\ndata: No.\n\n", [b'{"error":"No."}']),
        (b'event: error\ndata: "No."\n\n', [b'{"error":"No."}']),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"data: a\n\n\n\ndata: b\n\n", [b"a", b"b"]),
        (b"database: a\n\n", []),
        (b"data: a: b\n\n", [b"a: b"]),
        (b"\n\n\n", []),
        # Written otherwise, or with bytes around that nobody meant to send.
        (b"  data: a\n\n", [b"a"]),
        (b"Data: a\n\nDATA :b\n\n", [b"a", b"b"]),
        (b"\0\0data: a\n\n", [b"a"]),
        (b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", [b"a", b"b"]),
        (b'Event: a\ndata: {"b":1}\n\n', [b'{"type":"a","b":1}']),
        (b"Error: no\n\n", []),
        (b'event: Error\ndata: "No."\n\n', [b'{"error":"No."}']),
        (b"event: error\n\n", [b'{"error":{"message":"it gives no reason"}}']),
        (b"event: error\ndata:\n\n", [b'{"error":{"message":"it gives no reason"}}']),
    ],
)
def test_the_events_of_a_stream(stream: bytes, events: list[bytes]) -> None:
    assert parse(stream) == events
    assert parse(*(stream[at : at + 1] for at in range(len(stream)))) == events


@pytest.mark.parametrize(
    "stream", [b"data: a\n\ndata: {b", b"data: a\n\ndata: {b\n", b"data: a\r\rdata: {b\r"]
)
def test_the_last_event_needs_no_blank_line(stream: bytes) -> None:
    parser = SseParser()
    assert parser.feed(stream) == [b"a"]
    assert parser.close() == [b"{b"]


def test_a_line_that_is_whole_is_an_event_at_once() -> None:
    parser = SseParser()
    assert parser.feed(b'data: {"a":1}\n') == [b'{"a":1}']
    assert parser.feed(b'data: {"a":\n') == []
    assert parser.feed(b"data: 2}\n") == []
    assert parser.feed(b"\n") == [b'{"a":\n2}']


def test_an_event_is_returned_as_soon_as_it_ends() -> None:
    parser = SseParser()
    assert parser.feed(b"data: a\r\n\r") == [b"a"]
    assert parser.feed(b"\ndata: b\r\n\r\n") == [b"b"]


def test_a_byte_order_mark_in_pieces_is_one() -> None:
    assert parse(b"\xef", b"\xbb", b"\xbfdata: a\n\n") == [b"a"]


def test_a_character_split_between_reads_stays_whole() -> None:
    text = "data: é😀\n\n".encode()
    for at in range(len(text)):
        assert parse(text[:at], text[at:]) == ["é😀".encode()]


fragments = st.lists(
    st.one_of(
        st.sampled_from(
            [b"data: ", b"data:", b"data", b"\n", b"\r", b"\r\n", b"\n\n", b": ", b"event: x",
             b"id", b" ", b"\xef\xbb\xbf", b"x", "😀".encode(), b"{", b"}", b'{"a":1}', b"[DONE]",
             b"event: error"]
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
    assert parse(*pieces, rest) == parse(stream)


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
    parser.feed(b"data: {\n")
    for _ in range(15):
        assert parser.feed(b"data:\n") == []
    with pytest.raises(ModelError):
        parser.feed(b"data:\n")
