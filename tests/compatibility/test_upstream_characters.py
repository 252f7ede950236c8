"""Characters that upstreams cut in two, leave half, or hide: no word is changed by them."""

from __future__ import annotations

import pytest

from support.misbehaving_upstream import Behaviour
from support.scenario import (
    DONE,
    LOOKUP,
    Scenario,
    body_of,
    data,
    end,
    scenario,
    stream_of,
    text,
)


def words(*parts: str | bytes) -> Behaviour:
    """A stream of these words, a chunk each; bytes are JSON as they are."""
    return stream_of(
        *(text(one) if isinstance(one, str) else raw(one) for one in parts), end(), DONE
    )


def raw(content: bytes) -> bytes:
    return b'data: {"choices":[{"index":0,"delta":{"content":"' + content + b'"}}]}\n\n'


def message(content: bytes) -> Behaviour:
    return body_of(
        b'{"choices":[{"message":{"content":"' + content + b'"},"finish_reason":"stop"}]}'
    )


EMOJI = "a😀b"
EMOJI_BYTES = text(EMOJI).replace(rb"\ud83d\ude00", "😀".encode())

#: By name: what the upstream sends, and the texts that are right.
ANSWERS: dict[str, tuple[Behaviour, tuple[str, ...]]] = {
    "cut-inside-emoji": (
        stream_of(*(EMOJI_BYTES[at : at + 1] for at in range(len(EMOJI_BYTES))), end()),
        (EMOJI,),
    ),
    "utf-halves": (words("a", b"\\ud83d", b"\\ude00", "b"), (EMOJI,)),
    "utf-halves-in-words": (words(b"a\\ud83d", b"\\ude00b"), (EMOJI,)),
    "utf-halves-upper-case": (words(b"a\\uD83D", b"\\uDE00b"), (EMOJI,)),
    "utf-halves-apart": (words(b"a\\ud83d", "", b"\\ude00b"), (EMOJI,)),
    "utf-halves-in-a-row": (
        words(b"a\\ud83d", b"\\ude00\\ud83d", b"\\ude00", "b"),
        ("a😀😀b",),
    ),
    "utf-halves-of-one-chunk": (words(b"a\\ud83d\\ude00b"), (EMOJI,)),
    "utf-halves-with-signs-between": (
        stream_of(raw(b"a\\ud83d"), b": ping\n\n", data({"type": "ping"}), raw(b"\\ude00b"), end()),
        (EMOJI,),
    ),
    "utf-half-alone": (words("a", b"\\ud83d", "b"), ("ab", "a\ufffdb")),
    "utf-half-alone-within": (words(b"a\\ud83db"), ("ab", "a\ufffdb")),
    "utf-half-last": (words("ab", b"\\ud83d"), ("ab", "ab\ufffd")),
    "utf-half-second-alone": (words("a", b"\\ude00", "b"), ("ab", "a\ufffdb")),
    "utf-half-second-within": (words(b"a\\ude00b"), ("ab", "a\ufffdb")),
    "utf-halves-turned-round": (words(b"ab\\ude00\\ud83d"), ("ab", "ab\ufffd\ufffd")),
    "utf-half-whole": (message(b"ab\\ud83d"), ("ab", "ab\ufffd")),
    "utf-half-within-whole": (message(b"a\\ud83db"), ("ab", "a\ufffdb")),
    "utf-half-escaped": (words(b"a\\\\ud83d", "b"), ("a\\ud83db",)),
    "utf-half-behind-a-backslash": (words(b"a\\\\\\ud83d", b"\\ude00b"), ("a\\😀b",)),
    "utf-half-in-other-field": (
        stream_of(
            data(b'{"id":"\\ud83d","choices":[{"delta":{"content":"a\\u00e9b","x":"\\ude00"}}]}'),
            end(),
        ),
        ("aéb",),
    ),
    "utf-nul": (words("a\0b"), ("a\0b",)),
    "utf-nul-whole": (message(b"a\\u0000b"), ("a\0b",)),
    "utf-bom-within": (words("a\ufeffb"), ("a\ufeffb",)),
    "utf-line-ends-within": (words("a\u2028\u2029\x85\x0b\x0cb"), ("a\u2028\u2029\x85\x0b\x0cb",)),
    "utf-line-ends-as-bytes": (words("a\u2028\x85b".encode()), ("a\u2028\x85b",)),
    "utf-private": (words("a\U0010f83d\ue000b"), ("a\U0010f83d\ue000b",)),
    "utf-bytes-that-are-none": (words(b"a\xffb"), ("ab", "a\ufffdb")),
    "utf-bytes-that-are-none-whole": (message(b"a\xffb"), ("ab", "a\ufffdb")),
    "utf-other-charset": (
        stream_of(
            raw(b"caf\xe9 "),
            raw("déjà".encode()),
            end(),
            content_type="text/event-stream; charset=latin-1",
        ),
        ("café déjà",),
    ),
    "utf-other-charset-whole": (
        body_of(
            b'{"choices":[{"message":{"content":"caf\xe9"}}]}',
            content_type="application/json; charset=iso-8859-1",
        ),
        ("café",),
    ),
    "utf-charset-unknown": (
        stream_of(raw("a😀b".encode()), end(), content_type="text/event-stream; charset=utf8mb4"),
        (EMOJI,),
    ),
    "bad-raw-tab": (words(b"a\tb"), ("a\tb",)),
    "bad-raw-tab-whole": (message(b"a\tb"), ("a\tb",)),
    "bad-raw-newline-whole": (message(b"a\nb"), ("a\nb",)),
    "line-2mb": (words("ab" * 2**20), ("ab" * 2**20,)),
    "line-2mb-escaped": (words("é" * 2**19), ("é" * 2**19,)),
    "line-2mb-whole": (message(b"ab" * 2**20), ("ab" * 2**20,)),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_characters_arrive_as_they_were_meant(world: Scenario, name: str) -> None:
    behaviour, expected = ANSWERS[name]
    world.upstream_sends(*[behaviour] * 4)
    for stream in (True, False):
        answered = world.respond(stream=stream).expect("completed")
        assert answered.text in expected
        completed = world.chat(stream=stream).expect("stop")
        assert completed.text in expected


def test_halves_are_joined_in_both_dialects() -> None:
    deltas = [
        data({"type": f"response.{kind}.delta", "output_index": index, "delta": half})
        for index, kind in ((0, "reasoning_summary_text"), (1, "output_text"))
        for half in ("a\ud83d", "\ude00b")
    ]
    last = data({"type": "response.completed", "response": {"status": "completed"}})
    with scenario("responses") as world:
        for stream in (True, False):
            world.upstream_sends(stream_of(*deltas, last), stream_of(*deltas, last))
            answered = world.respond(stream=stream).expect("completed", EMOJI)
            assert answered.reasoning == EMOJI
            world.chat(stream=stream).expect("stop", EMOJI)


def test_halves_are_joined_in_every_field(world: Scenario) -> None:
    first, second = r"a\ud83d", r"\ude00b"

    def fields(*templates: str) -> Behaviour:
        halves = zip((first, second), templates, strict=True)
        events = [template.replace("HALF", half).encode() for half, template in halves]
        return stream_of(*map(data, events), text("Hello."), end(), DONE)

    thought = '{"choices":[{"index":0,"delta":{"reasoning_content":"HALF"}}]}'
    for stream in (True, False):
        world.upstream_sends(fields(thought, thought))
        assert world.respond(stream=stream).expect("completed", "Hello.").reasoning == EMOJI
        world.upstream_sends(fields(thought, thought))
        assert world.chat(stream=stream).expect("stop", "Hello.").reasoning == EMOJI
        fragment = (
            '{"index":0,"id":"c1","function":{"name":"lookup","arguments":"{\\"c\\":\\"HALF"}}'
        )
        rest = '{"index":0,"function":{"arguments":"HALF\\"}"}}'
        calls = '{"choices":[{"index":0,"delta":{"tool_calls":[%s]}}]}'
        world.upstream_sends(fields(calls % fragment, calls % rest))
        called = world.respond(stream=stream, tools=[LOOKUP]).expect("completed")
        assert called.calls == [("lookup", '{"c":"' + EMOJI + '"}')]
