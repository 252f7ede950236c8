"""Answer framing: whatever the form of a good answer and wherever its reads end, its words come."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.content_decoding import ContentDecoder
from antiphon.core.deltas import OutputTextDelta
from antiphon.models.openai.answer_framing import DONE, MAX_BODY_BYTES, AnswerFraming, HalfJoiner
from antiphon.models.openai.chat_completions_stream import ChatCompletionsParser
from antiphon.models.openai.responses_stream import ResponsesParser
from antiphon.models.openai.upstream_errors import Unreadable
from antiphon.models.openai.upstream_response import ResponseParser
from antiphon.models.retry import AttemptError

SIGNS_OF_LIFE = [
    b": ping", b":", b"event: ping", b"data:", b"data: : keepalive", b"data: ping", b"data: 7",
    b"data: [KEEPALIVE]", b"data: null", b'data: "ping"', b'data: {"type":"ping"}', b"retry: 5",
]  # fmt: skip


def cut_anywhere(text: str, places: Iterable[int]) -> list[str]:
    """The text in pieces that may end within a character, as its UTF-16 units are cut."""
    units = text.encode("utf-16-le")
    edges = sorted({0, len(units), *(2 * (one % (len(units) // 2 + 1)) for one in places)})
    return [units[a:b].decode("utf-16-le", "surrogatepass") for a, b in pairwise(edges)]


def chat_events(pieces: list[str]) -> list[Any]:
    words = [{"choices": [{"index": 0, "delta": {"content": one}}]} for one in pieces]
    return [*words, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}]


def responses_events(pieces: list[str]) -> list[Any]:
    kind = "response.output_text.delta"
    words = [{"type": kind, "output_index": 0, "item_id": "m", "delta": one} for one in pieces]
    return [*words, {"type": "response.completed", "response": {"status": "completed"}}]


@st.composite
def framed(draw: st.DrawFn, events: list[Any]) -> bytes:
    """The bytes of a stream of these events, in any framing."""
    newline = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    separator = draw(st.sampled_from(["\n\n", "\n\n\n", "\n"]))
    indent = draw(st.sampled_from([None, 1])) if separator != "\n" else None
    twice = [] if indent else ["data: data: "]
    stray = ["Data: ", "data : ", "  data: ", "\0data: ", "\ufeffdata: ", "\x1edata: "]
    twice += [] if indent else ["data: \ufeff"]
    prefix = draw(st.sampled_from(["data: ", "data:", "data:  ", *stray, *twice]))
    blocks: list[str] = []
    for event in events:
        for sign in draw(st.lists(st.sampled_from(SIGNS_OF_LIFE), max_size=2)):
            blocks.append(sign.decode())
        name = f"event: {event['type']}\n" if "type" in event and draw(st.booleans()) else ""
        value = json.dumps(event, indent=indent)
        blocks.append(name + "\n".join(prefix + line for line in value.split("\n")))
    if draw(st.booleans()):
        blocks.append(prefix + draw(st.sampled_from(["[DONE]", '"[DONE]"', "[DONE] ", "DONE"])))
    end = draw(st.sampled_from(["", "\n", "\n\n"]))
    text = draw(st.sampled_from(["", "\ufeff", "\n"])) + separator.join(blocks) + end
    return text.replace("\n", newline).encode()


@st.composite
def reads(draw: st.DrawFn, body: bytes) -> list[bytes]:
    compress = draw(st.sampled_from([None, gzip.compress, zlib.compress]))
    body = compress(body) if compress else body
    sizes = [*draw(st.lists(st.integers(1, 40), max_size=30)), len(body)]
    pieces = []
    for size in sizes:
        pieces.append(body[:size])
        body = body[size:]
    label = {None: "", gzip.compress: "gzip", zlib.compress: "deflate"}[compress]
    return [label.encode(), *filter(None, pieces)]


def read_words(label: str, pieces: Iterable[bytes], parser: ResponseParser) -> str:
    decoder, framing = ContentDecoder(label), AnswerFraming()
    deltas = [
        delta
        for piece in pieces
        for plain in decoder.feed(piece)
        for delta in parser.feed(framing.feed(plain))
    ]
    deltas += parser.feed(framing.close())
    if framing.document is not None:
        deltas += parser.parse_body(framing.document)
    deltas += parser.finish()
    assert parser.error is None
    return "".join(one.text for one in deltas if isinstance(one, OutputTextDelta))


@pytest.mark.parametrize("dialect", ["chat completions", "responses"])
@given(st.data(), st.text(min_size=1), st.lists(st.integers(0, 99), max_size=5))
def test_events_without_anything_between_them_give_the_same_words(
    dialect: str, data: st.DataObject, text: str, places: list[int]
) -> None:
    make = chat_events if dialect == "chat completions" else responses_events
    between = data.draw(st.sampled_from(["", ",", "\x1e", "data: ", "\0"]))
    start = data.draw(st.sampled_from(["data: ", ""]))
    body = start + between.join(map(json.dumps, make(cut_anywhere(text, places))))
    label, *pieces = data.draw(reads(body.encode()))
    parser = ChatCompletionsParser() if dialect == "chat completions" else ResponsesParser("m")
    assert read_words(label.decode(), pieces, parser) == text


@pytest.mark.parametrize("dialect", ["chat completions", "responses"])
@given(st.data(), st.text(min_size=1), st.lists(st.integers(0, 99), max_size=5))
def test_any_framing_and_chunking_gives_the_same_words(
    dialect: str, data: st.DataObject, text: str, places: list[int]
) -> None:
    make = chat_events if dialect == "chat completions" else responses_events
    label, *pieces = data.draw(reads(data.draw(framed(make(cut_anywhere(text, places))))))
    parser = ChatCompletionsParser() if dialect == "chat completions" else ResponsesParser("m")
    assert read_words(label.decode(), pieces, parser) == text


@given(st.data(), st.text(min_size=1))
def test_a_document_gives_the_same_words_in_any_chunking(data: st.DataObject, text: str) -> None:
    choice = {"message": {"content": text}, "finish_reason": "stop"}
    space = data.draw(st.sampled_from(["", "\n\n", " \t\r\n", "\ufeff"]))
    body = json.dumps({"choices": [choice]}, indent=data.draw(st.sampled_from([None, 2])))
    label, *pieces = data.draw(
        reads((space + body + data.draw(st.sampled_from(["", "\n"]))).encode())
    )
    assert read_words(label.decode(), pieces, ChatCompletionsParser()) == text


@given(st.lists(st.binary(max_size=30)))
def test_any_bytes_are_read_without_a_crash(pieces: list[bytes]) -> None:
    framing = AnswerFraming()
    try:
        events = [event for piece in pieces for event in framing.feed(piece)] + framing.close()
    except Unreadable:
        return
    assert all(event == DONE or event.startswith(b"{") for event in events)


@pytest.mark.parametrize(
    ("events", "joined"),
    [
        ([r'"a\ud83d"', r'"\ude00b"'], ['"a"', r'"\ud83d\ude00b"']),
        ([r'"a\uD83D"', "{}", r'"\uDE00b"'], ['"a"', "{}", r'"\uD83D\uDE00b"']),
        ([r'"\ud83d\ude00"'], [r'"\ud83d\ude00"']),
        ([r'"a\ud83db"'], ['"ab"']),
        ([r'"\ude00"'], ['""']),
        ([r'"\\ud83d"'], [r'"\\ud83d"']),
        ([r'"\\\ud83d"', r'"\ude00"'], [r'"\\"', r'"\ud83d\ude00"']),
        ([r'{"a":"\ud83d","b":"\ud83d"}', r'{"a":"\ude00","b":"\ude00"}'],
         ['{"a":"","b":""}', r'{"a":"\ud83d\ude00","b":"\ud83d\ude00"}']),
        ([r'"\ud83d"', r'"\ude00\ud83d"', r'"\ude00"'],
         ['""', r'"\ud83d\ude00"', r'"\ud83d\ude00"']),
        ([r'"\ud83d"', r'"\u00e9"', r'"\ude00"'], ['""', r'"\u00e9"', r'"\ud83d\ude00"']),
        ([r'"\"\ud83d"', r'"\"\ude00"'], [r'"\""', r'"\""']),
    ],
)  # fmt: skip
def test_halves_of_characters(events: list[str], joined: list[str]) -> None:
    joiner = HalfJoiner()
    assert [joiner.join(one.encode()).decode() for one in events] == joined


def test_a_page_is_an_error_as_soon_as_it_is_quotable() -> None:
    framing = AnswerFraming()
    assert framing.feed(b"\n <html>") == []
    with pytest.raises(Unreadable, match="HTML"):
        framing.feed(b"x" * 5000)


def test_a_document_without_end_is_an_error() -> None:
    framing = AnswerFraming()
    framing.feed(b"[" + b" " * (MAX_BODY_BYTES - 1))
    with pytest.raises(AttemptError, match="longer than"):
        framing.feed(b" ")


def test_a_document_may_be_whole_before_the_connection_ends() -> None:
    framing = AnswerFraming()
    framing.feed(b'{"a":{}')
    assert framing.may_be_whole()
    assert not framing.is_whole()
    framing.feed(b"}\n")
    assert framing.is_whole()
