"""How upstreams frame an answer: every form with one meaning is read, in both dialects."""

from __future__ import annotations

import gzip
import json
import sys
import zlib
from typing import Any

import pytest

from support.misbehaving_upstream import CUT, Behaviour, answer
from support.scenario import (
    DONE,
    Json,
    Scenario,
    body_of,
    chunk,
    data,
    end,
    stream_of,
    text,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PING = b": ping\n\n"


def pieces(body: bytes, size: int, **options: Any) -> Behaviour:
    """A stream in writes of so many bytes."""
    return stream_of(*(body[at : at + size] for at in range(0, len(body), size)), **options)


def unlabelled(behaviour: Behaviour) -> Behaviour:
    """The same answer without a Content-Type."""
    head = behaviour[0]
    assert isinstance(head, bytes)
    lines = [one for one in head.split(b"\r\n") if not one.lower().startswith(b"content-type")]
    return [b"\r\n".join(lines), *behaviour[1:]]


def over_many_lines(event: bytes, newline: bytes = b"\n") -> bytes:
    """An event whose JSON takes many data lines."""
    value = json.dumps(json.loads(event[6:]), indent=1).encode()
    return b"".join(b"data: " + line + newline for line in value.splitlines()) + newline


def with_single_newlines(*events: bytes) -> bytes:
    return b"".join(event.rstrip(b"\n") + b"\n" for event in events)


def field_and_end_cases(first: bytes, second: bytes, last: bytes) -> dict[str, Behaviour]:
    """How the data field and the end marker are written."""
    hello = first + second + last
    good = hello + DONE
    lines = b"".join(map(over_many_lines, (first, second, last)))
    listed = b"data: [" + first[6:].strip() + b"," + second[6:].strip() + b"]\n\n"
    return {
        "sse-no-space": stream_of(hello.replace(b"data: ", b"data:"), DONE),
        "sse-done-space": stream_of(hello, b"data: [DONE] \n\n"),
        "sse-done-nospace": stream_of(hello, b"data:[DONE]\n\n"),
        "sse-done-twice": stream_of(hello, DONE, DONE),
        "sse-done-quoted": stream_of(hello, b'data: "[DONE]"\n\n'),
        "sse-done-glued": stream_of(hello[:-1], DONE),
        "sse-done-only-newline": stream_of(hello, b"data: [DONE]\n", close=True),
        "done-without-newline": stream_of(hello, b"data: [DONE]", close=True),
        "done-quoted-and-glued": stream_of(hello[:-1], b'data:  "[DONE]" \n\n'),
        "done-behind-lines-of-json": stream_of(lines[:-1], DONE),
        "done-named": stream_of(hello, b"event: done\ndata: [DONE]\n\n"),
        "no-spaces-at-all": stream_of(good.replace(b"data: ", b"data:")),
        "three-spaces": stream_of(good.replace(b"data: ", b"data:   ")),
        "field-twice": stream_of(good.replace(b"data: ", b"data: data: ")),
        "objects-without-field": stream_of(PING, hello.replace(b"data: ", b""), DONE),
        "done-without-field": stream_of(hello, b"[DONE]\n\n"),
        "named-message": stream_of(good.replace(b"data: ", b"event: message\ndata: ")),
        "named-anyhow": stream_of(good.replace(b"data: ", b"event: chunk\ndata: ")),
        "events-in-a-list": stream_of(listed, last, DONE),
        "end-finish-no-done-close": stream_of(hello, close=True),
        "end-finish-cut": stream_of(hello, CUT),
        "end-finish-no-done": stream_of(hello),
        "end-finish-no-blank-line-close": stream_of(hello[:-2], close=True),
        "end-finish-one-newline-cut": stream_of(hello[:-1], CUT),
        "status-201": stream_of(good, status=201),
        "http10-close": [
            b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + good,
            CUT,
        ],
    }


def sign_of_life_cases(first: bytes, second: bytes, last: bytes) -> dict[str, Behaviour]:
    """Signs of life between two words, before the first and behind the last."""
    signs = {
        "hb-comment": PING,
        "hb-comment-bare": b":\n\n",
        "hb-openrouter-first": b": OPENROUTER PROCESSING\n\n",
        "hb-event-ping": b"event: ping\n\n",
        "hb-event-ping-json": b'event: ping\ndata: {"type":"ping"}\n\n',
        "hb-data-empty": b"data:\n\n",
        "hb-data-colon": b"data: : keepalive\n\n",
        "hb-data-ping": b"data: ping\n\n",
        "hb-data-bracket": b"data: [KEEPALIVE]\n\n",
        "hb-data-number": b"data: 1732790400\n\n",
        "hb-resp-event": b'data: {"type":"keepalive"}\n\n',
        "hb-comment-no-blank-line": b": ping\n",
        "hb-data-space": b"data:  \n\n",
        "hb-data-null": b"data: null\n\n",
        "hb-data-true": b"data: true\n\n",
        "hb-data-string": b'data: "ping"\n\n',
        "hb-data-list": b"data: []\n\n",
        "hb-data-object": b"data: {}\n\n",
        "hb-event-text": b"event: heartbeat\ndata: 12:00:01\n\n",
        "hb-event-no-blank-line": b"event: ping\n",
        "hb-field-only": b"data\n\n",
        "hb-newlines": b"\n\n\n",
        "hb-crlf": b": ping\r\n\r\n",
    }
    cases = {
        name: stream_of(sign, first, sign, sign, second, sign, last, sign, DONE)
        for name, sign in signs.items()
    }
    cases["hb-data-colon-first"] = stream_of(signs["hb-data-colon"], first, second, last, DONE)
    cases["hb-all-together"] = stream_of(*signs.values(), first, *signs.values(), second, last)
    return cases


def line_cases(first: bytes, second: bytes, last: bytes) -> dict[str, Behaviour]:
    """Line ends, byte order marks, further fields, and where reads end."""
    good = first + second + last + DONE
    crlf = good.replace(b"\n", b"\r\n")
    single = with_single_newlines(first, second, last, DONE)
    lines = b"".join(map(over_many_lines, (first, second, last)))
    lines_crlf = b"".join(over_many_lines(one, b"\r\n") for one in (first, second, last))
    bom = b"\xef\xbb\xbf"
    signs = with_single_newlines(b"data: : on", first, b"data: ping", second, b":", last, DONE)
    return {
        "line-crlf": stream_of(crlf),
        "line-cr": stream_of(good.replace(b"\n", b"\r")),
        "line-bom": stream_of(bom, good),
        "line-bom-crlf": stream_of(bom + crlf),
        "line-multi-data": stream_of(lines, DONE),
        "line-multi-data-crlf": stream_of(lines_crlf, DONE),
        "line-more-fields": stream_of(
            good.replace(b"data: ", b"id: 7\nretry: 10\nfoo: bar\nbaz\ndata: ")
        ),
        "line-blank-lines": stream_of(b"\n\n", good.replace(b"\n\n", b"\n\n\n\n\n")),
        "line-single-newlines": stream_of(single),
        "line-single-newlines-no-done": stream_of(
            with_single_newlines(first, second, last), close=True
        ),
        "line-single-newlines-crlf": pieces(single.replace(b"\n", b"\r\n"), 7),
        "line-single-newlines-named": stream_of(single.replace(b"data: ", b"event: x\ndata: ")),
        "line-single-newlines-signs": stream_of(signs),
        "line-mixed-ends": stream_of(first, second.replace(b"\n", b"\r\n"), last, DONE),
        "line-multi-data-pieces": pieces(lines + DONE, 3),
        "cut-byte-by-byte": pieces(good, 1),
        "cut-byte-by-byte-bom-crlf": pieces(bom + crlf, 1),
        "cut-within-line-ends": pieces(crlf, len(first) + 1),
    }


def stray_byte_cases(first: bytes, second: bytes, last: bytes) -> dict[str, Behaviour]:
    """Fields that are written otherwise, and bytes that nobody meant to send."""
    good = first + second + last + DONE
    bom = b"\xef\xbb\xbf"
    objects = [one[6:].strip() for one in (first, second, last)]
    quoted = [data(json.dumps(one.decode()).encode()) for one in objects]
    named = b"event: message\n\ndata: "
    return {
        "stray-spaces-behind": stream_of(good.replace(b"\n\n", b"  \t \n\n")),
        "stray-spaces-before": stream_of(good.replace(b"data:", b"  data:")),
        "stray-case": stream_of(good.replace(b"data:", b"Data:")),
        "stray-case-pieces": pieces(good.replace(b"data:", b"DATA :"), 5),
        "stray-space-before-colon": stream_of(good.replace(b"data:", b"data :")),
        "stray-bom-each-event": stream_of(good.replace(b"data:", bom + b"data:")),
        "stray-bom-each-event-pieces": pieces(good.replace(b"data:", bom + b"data:"), 1),
        "stray-bom-in-data": stream_of(good.replace(b"data: ", b"data: " + bom)),
        "stray-nul": stream_of(b"\0" * 16, first, b"\0\0", second, last, DONE),
        "stray-padding": stream_of(b":" + b" " * 4096 + b"\n\n", good),
        "stray-name-of-its-own": stream_of(good.replace(b"data: ", named)),
        "glued-objects": stream_of(data(objects[0] + objects[1]), last, DONE),
        "glued-events": stream_of(good.replace(b"\n", b"")),
        "glued-last-and-done": stream_of(first, second, last.rstrip() + DONE),
        "glued-separators": body_of(b"".join(b"\x1e" + one + b"\n" for one in objects)),
        "glued-document": body_of(b"".join(objects)),
        "quoted-events": stream_of(*quoted, DONE),
        "done-without-brackets": stream_of(first, second, last, b"data: DONE\n\n"),
    }


def http_cases(good: bytes) -> dict[str, Behaviour]:
    """How servers write HTTP around a stream."""
    stream_type = b"Content-Type: text/event-stream\r\n"
    length = b"Content-Length: %d\r\n"
    chunked = b"Transfer-Encoding: chunked\r\n"
    ok, size = b"HTTP/1.1 200 OK\r\n", len(good)
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (size, good)
    return {
        "http-no-reason": [b"HTTP/1.1 200\r\n" + stream_type + b"\r\n" + good, CUT],
        "http-continue": [b"HTTP/1.1 100 Continue\r\n\r\n" + ok + b"\r\n" + good, CUT],
        "http-hints": [b"HTTP/1.1 103 Hints\r\nLink: <a>\r\n\r\n" + ok + b"\r\n" + good, CUT],
        "http-length": [ok + stream_type + length % size + b"\r\n" + good],
        "http-length-too-long": [ok + length % (size + 9) + b"\r\n" + good, CUT],
        "http-length-beside-chunks": [ok + length % 5 + chunked + b"\r\n" + body],
        "http-latin-1": [ok + b"X-City: Z\xfcrich\r\n\r\n" + good, CUT],
        "http-no-space": [ok + b"Content-Type:text/event-stream\r\n\r\n" + good, CUT],
        "http-long-header": [ok + b"Set-Cookie: " + b"v" * 20_000 + b"\r\n\r\n" + good, CUT],
        "http-line-feeds": [b"HTTP/1.1 200 OK\nServer: a\n\n" + good, CUT],
        "http-chunk-extension": [ok + chunked + b"\r\n" + body.replace(b"\r\n", b";a=b\r\n", 1)],
        "http-chunk-zeros": [ok + chunked + b"\r\n000" + body],
        "http-trailer": [ok + chunked + b"\r\n" + body[:-2] + b"X-Took: 1\r\n\r\n"],
        "http-no-last-chunk": [ok + chunked + b"\r\n" + body[:-5], CUT],
    }


def compression_cases(first: bytes, second: bytes, last: bytes) -> dict[str, Behaviour]:
    """Compressed, although that was not requested, and labels that are wrong."""
    good = first + second + last + DONE
    compressed, gzip_label = gzip.compress(good), {"Content-Encoding": "gzip"}
    deflate_label = {"Content-Encoding": "deflate"}
    members = [gzip.compress(one) for one in (first, second, last, DONE)]
    return {
        "enc-gzip-stream": stream_of(compressed, headers=gzip_label),
        "enc-identity": stream_of(good, headers={"Content-Encoding": "identity"}),
        "enc-gzip-pieces": pieces(compressed, 5, headers={"Content-Encoding": "GZip"}),
        "enc-x-gzip": stream_of(compressed, headers={"Content-Encoding": "x-gzip"}),
        "enc-gzip-identity": stream_of(compressed, headers={"Content-Encoding": "gzip, identity"}),
        "enc-gzip-members": stream_of(*members, headers=gzip_label),
        "enc-gzip-cut-behind": stream_of(compressed[:-8], CUT, headers=gzip_label),
        "enc-gzip-without-label": stream_of(compressed),
        "enc-gzip-only-label": stream_of(good, headers=gzip_label),
        "enc-deflate": stream_of(zlib.compress(good), headers=deflate_label),
        "enc-deflate-raw": stream_of(zlib.compress(good)[2:-4], headers=deflate_label),
        "enc-zstd": stream_of(zstd.compress(good), headers={"Content-Encoding": "zstd"}),
        "enc-zstd-pieces": pieces(zstd.compress(good), 3, headers={"Content-Encoding": "zstd"}),
        "enc-of-characters": stream_of(good, headers={"Content-Encoding": "utf-8"}),
        "enc-empty": stream_of(good, headers={"Content-Encoding": ""}),
    }


def type_cases(first: bytes, second: bytes, last: bytes, document: bytes) -> dict[str, Behaviour]:
    """Streams and documents where the other was requested, and labels that are wrong."""
    events = (first, second, last)
    good = b"".join(events) + DONE
    objects = [one[6:].strip() for one in events]
    zipped = gzip.compress(document)
    return {
        "type-sse-as-plain": stream_of(good, content_type="text/plain"),
        "type-sse-as-octets": stream_of(good, content_type="application/octet-stream"),
        "type-sse-as-json": stream_of(good, content_type="application/json"),
        "type-sse-without": stream_of(good, content_type=None),
        "type-sse-as-html": stream_of(PING, good, content_type="text/html; charset=utf-8"),
        "type-json-to-stream": body_of(document),
        "type-json-as-plain-to-stream": body_of(document, content_type="text/plain"),
        "type-json-padded-whole": body_of(b" \r\n\t" + document + b"\n\n "),
        "type-json-as-sse": body_of(document, content_type="text/event-stream"),
        "type-json-as-html": body_of(document, content_type="text/html"),
        "type-json-without": unlabelled(body_of(document)),
        "type-json-bom": body_of(b"\xef\xbb\xbf" + document),
        "type-json-indented": body_of(json.dumps(json.loads(document), indent=2).encode()),
        "type-json-after-blank-lines": stream_of(b"\n", b"\n\n", document, content_type="a/b"),
        "type-json-quoted": body_of(json.dumps(document.decode()).encode()),
        "type-json-after-comments": body_of(b": PROCESSING\n\n: PROCESSING\n\n" + document),
        "type-json-then-text": body_of(document + b"\nInternal Server Error"),
        "type-json-twice": body_of(document + b"\n" + document),
        "type-json-in-a-list": body_of(b"[" + document + b"]"),
        "type-json-with-done": body_of(document + b"\n\ndata: [DONE]\n\n"),
        "type-json-cut-behind": stream_of(document, CUT, content_type="application/json"),
        "type-json-byte-by-byte": answer(document, size=1),
        "enc-gzip-whole": answer(zipped, headers={"Content-Encoding": "gzip"}),
        "enc-gzip-whole-pieces": answer(zipped, headers={"Content-Encoding": "gzip"}, size=9),
        "enc-gzip-whole-without-label": body_of(zipped),
        "enc-gzip-whole-only-label": answer(document, headers={"Content-Encoding": "gzip"}),
        "type-json-lines": body_of(b"\n".join(objects) + b"\n", content_type="application/jsonl"),
        "type-json-list-of-events": body_of(b"[" + b",".join(objects) + b"]"),
        "status-202-json": body_of(document, 202),
        "http10-close-json": [b"HTTP/1.0 200 OK\r\n\r\n" + document, CUT],
    }


def empty_error_cases(first: bytes, second: bytes, last: bytes) -> dict[str, Behaviour]:
    """An ``error`` that says nothing, beside good choices, is none."""
    values: Json = {"null": None, "empty": "", "object": {}, "list": [], "false": False}
    parts = {"parts-null": {"message": None, "code": None}}
    return {
        f"err-beside-{name}": stream_of(
            *(data({**json.loads(one[6:]), "error": value}) for one in (first, second, last)), DONE
        )
        for name, value in {**values, **parts}.items()
    }


def all_cases(first: bytes, second: bytes, last: bytes, document: bytes) -> dict[str, Behaviour]:
    return {
        **field_and_end_cases(first, second, last),
        **sign_of_life_cases(first, second, last),
        **line_cases(first, second, last),
        **stray_byte_cases(first, second, last),
        **http_cases(first + second + last + DONE),
        **compression_cases(first, second, last),
        **empty_error_cases(first, second, last),
        **type_cases(first, second, last, document),
    }


CHAT = [text("Hello"), text(" there."), end("stop")]
COMPLETION = json.dumps(
    {"choices": [{"index": 0, "message": {"content": "Hello there."}, "finish_reason": "stop"}]}
).encode()
CHAT_CASES = {
    **all_cases(CHAT[0], CHAT[1], CHAT[2], COMPLETION),
    # What only this dialect has: the reason may come before the end marker, or not at all.
    "end-done-no-finish": stream_of(CHAT[0], CHAT[1], DONE),
    "end-done-no-finish-no-field": stream_of(CHAT[0], CHAT[1], b"[DONE]\n", close=True),
    "end-words-after-finish": stream_of(CHAT[0], CHAT[2], CHAT[1], DONE),
    "end-words-after-finish-no-done": stream_of(CHAT[0], CHAT[2], PING, CHAT[1], close=True),
    "end-finish-with-last-word-cut": stream_of(CHAT[0], chunk({"content": " there."}, "stop"), CUT),
    "end-usage-cut": stream_of(*CHAT, b'data: {"choices":[],"usage":{"prompt', CUT),
    "end-usage-cut-close": stream_of(*CHAT, b'data: {"choices":[],"usage":{"pr', close=True),
    "end-usage-malformed": stream_of(*CHAT, data(b'{"choices":[],"usage":{"a":,}}'), DONE),
    "type-json-as-event": stream_of(data(COMPLETION), DONE),
}

MESSAGE = {
    "type": "message",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "Hello there."}],
}
RESPONSE = {"object": "response", "status": "completed", "output": [MESSAGE]}


def delta(words: str) -> bytes:
    return data({"type": "response.output_text.delta", "output_index": 0, "delta": words})


RESPONSES = [
    delta("Hello"),
    delta(" there."),
    data({"type": "response.completed", "response": RESPONSE}),
]
#: The type of each event in its name alone, as the events of this dialect have both.
NAMED = b"".join(
    b"event: " + json.loads(one[6:])["type"].encode() + b"\n" + one for one in RESPONSES
)
BARE = b"".join(
    b"event: %s\n" % json.loads(one[6:])["type"].encode()
    + data({k: v for k, v in json.loads(one[6:]).items() if k != "type"})
    for one in RESPONSES
)
RESPONSES_CASES = {
    **all_cases(RESPONSES[0], RESPONSES[1], RESPONSES[2], json.dumps(RESPONSE).encode()),
    "named-by-type": stream_of(NAMED),
    "named-by-type-pieces": pieces(NAMED.replace(b"\n", b"\r\n"), 11),
    "type-in-the-name-only": stream_of(BARE),
}


@pytest.mark.parametrize("name", CHAT_CASES)
def test_chat_completions_are_read_in_any_form(world: Scenario, name: str) -> None:
    expect_hello(world, CHAT_CASES[name])


@pytest.mark.parametrize("name", RESPONSES_CASES)
def test_responses_are_read_in_any_form(responses_world: Scenario, name: str) -> None:
    expect_hello(responses_world, RESPONSES_CASES[name])


def expect_hello(world: Scenario, behaviour: Behaviour) -> None:
    """Both APIs say the same, streamed or not, whatever was requested of the upstream."""
    world.upstream_sends(*[behaviour] * 4)
    for stream in (True, False):
        world.respond(stream=stream).expect("completed", "Hello there.")
        world.chat(stream=stream).expect("stop", "Hello there.")
