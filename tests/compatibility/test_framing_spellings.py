"""How upstreams write the frame of an answer: ends, errors and labels in other spellings."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

from support.answer_tables import HELLO, Meant, check_answers, fails, says
from support.misbehaving_upstream import CLOSE, CUT, Behaviour, answer
from support.scenario import DONE, Json, Scenario, body_of, chunk, data, end, stream_of, text

A, B = text("Hello"), text(" there.")
GOOD = (A, B, end(), DONE)
SENT = b"".join(GOOD)
OBJECTS = [one[6:].strip() for one in GOOD[:3]]
PING = b": PROCESSING\n\n"
SORRY: Json = {"error": {"message": "Sorry.", "code": 500}}
EVENT_STREAM = b"Content-Type: text/event-stream\r\n"


def indented(value: Any) -> bytes:
    return json.dumps(value, indent=2).encode()


def choice(**fields: Any) -> Json:
    return {"choices": [{"index": 0, **fields}]}


DOCUMENT = choice(message={"role": "assistant", "content": HELLO}, finish_reason="stop")


def ends_by(event: bytes) -> Meant:
    """Words, no reason to stop, and this event."""
    return Meant(stream_of(A, B, event))


def fails_behind_a_word(*events: bytes, close: bool = False) -> Meant:
    return fails("Sorry.", stream_of(A, *events, close=close), "Hello")


def is_limited(*events: bytes) -> Meant:
    return fails("Slow", stream_of(*events), code="rate_limit_exceeded")


def http(head: bytes, body: bytes = SENT) -> Behaviour:
    return [head + b"\r\n" + body, CLOSE]


ENDS = {
    f"end-{event.decode().strip()}": ends_by(event)
    for event in (
        b"data: [Done]\n\n",
        b"data: done\n\n",
        b'data: "[done]"\n\n',
        b"data: [END]\n\n",
        data({"type": "done"}),
        data({"event": "done"}),
        data({"done": True, "choices": []}),
        b"event: done\n\n",
        b"event: done\ndata:\n\n",
        b"event: end\ndata: {}\n\n",
        b"event: close\ndata: null\n\n",
        b"event: complete\ndata: Stream completed\n\n",
    )
}
OBJECTS_OVER_LINES = {
    "list-without-its-end": Meant(
        stream_of(OBJECTS[0].join((b"[", b",")), OBJECTS[1] + b",", OBJECTS[2], content_type="a/b")
    ),
    "list-indented": Meant(body_of(indented([json.loads(one) for one in OBJECTS]))),
    "answer-behind-comments": Meant(stream_of(PING, PING, b"\n" + indented(DOCUMENT))),
    "chunks-with-one-field": Meant(
        stream_of(*(b"data: " + indented(json.loads(it)) + b"\n\n" for it in OBJECTS), DONE)
    ),
    "error-without-field": fails_behind_a_word(indented(SORRY) + b"\n"),
    "error-without-field-close": fails_behind_a_word(indented(SORRY), close=True),
    "error-without-field-crlf": fails_behind_a_word(indented(SORRY).replace(b"\n", b"\r\n")),
    "error-with-one-field": fails_behind_a_word(b"data: " + indented(SORRY) + b"\n\n"),
    "error-behind-comments": fails("Sorry.", stream_of(PING, PING, b"\n" + indented(SORRY))),
    "line-end-in-words": says(
        "a\nb", stream_of(chunk({"content": "a@b"}).replace(b"@", b"\n"), end())
    ),
    "data-on-the-next-line": Meant(stream_of(*(b"data:\n" + it + b"\n\n" for it in OBJECTS))),
    "events-in-a-string": Meant(body_of(json.dumps(SENT.decode()).encode())),
}
ERRORS = {
    "words-behind-an-end-notice": Meant(stream_of(A, data({"type": "done"}), B, end(), DONE)),
    "counts-behind-an-end-notice": Meant(
        stream_of(A, B, data({"type": "done"}), data({"usage": {"prompt_tokens": 12}}), DONE),
        tokens=(12, 0),
    ),
    "chunk-in-an-event-named-as-the-end": Meant(
        stream_of(A, b"event: complete\n" + B, b"event: done\n" + end())
    ),
    **{
        f"event-{name}": fails_behind_a_word(f"event: {name}\ndata: {said}\n\n".encode(), *more)
        for name, said, more in (
            ("exception", "Sorry.", ()),
            ("Error", "Sorry.", ()),
            ("failed", '{"reason":"Sorry."}', (DONE,)),
            ("abort", '{"reason":"Sorry."}', (DONE,)),
            ("server_error", '{"message":"Sorry."}', ()),
        )
    },
    "event-named-behind": fails_behind_a_word(b'data: {"message":"Sorry."}\nevent: error\n\n'),
    "event-without-words": fails("", stream_of(A, b"event: failed\n\n", DONE), "Hello"),
    "text-of-a-proxy": fails(
        "reset reason", stream_of(A, b"upstream reset: reset reason: x\n"), "Hello"
    ),
    "page-behind-a-word": fails("HTML", stream_of(A, b"<html>502</html>", close=True), "Hello"),
    "page-behind-comments": fails("HTML", stream_of(PING, b"<!doctype html><html></html>")),
    **{
        f"status-{json.dumps(value)}": is_limited(data(value))
        for value in (
            {"error": {"type": "x", "message": "Slow"}, "status": 429},
            {"error": {"http_status": 429, "message": "Slow"}},
            {"error": {"httpCode": "429", "message": "Slow"}},
            {"error": {"code": 429.0, "message": "Slow"}},
            {"error": {"code": "Throttling.RateQuota", "message": "Slow"}},
            {"error": {"type": "TooManyRequestsException", "message": "Slow"}},
            {"statusCode": 429, "message": "Slow"},
            [{"error": {"code": 429, "message": "Slow"}}],
            choice(delta={}, finish_reason="error", error={"code": 429, "message": "Slow"}),
        )
    },
    "status-indented": is_limited(b"\n", indented({"error": {"code": 429, "message": "Slow"}})),
}
OK = b"HTTP/1.1 200 OK\r\n" + EVENT_STREAM
LENGTH = b"Content-Length: %d\r\n"
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(SENT), SENT)
HTTP = {
    "transfer-encoding-twice": Meant(http(OK + b"Transfer-Encoding: chunked\r\n" * 2, CHUNKS)),
    "transfer-encoding-identity": Meant(http(OK + b"Transfer-Encoding: identity\r\n")),
    "transfer-encoding-upper": Meant(http(OK + b"Transfer-Encoding: Chunked\r\n", CHUNKS)),
    "length-short": Meant(http(OK + LENGTH % (len(SENT) - len(DONE)))),
    "kept-alive-without-length": Meant(http(OK + b"Connection: keep-alive\r\n")),
    "status-203": Meant(http(b"HTTP/1.1 203 X\r\n" + EVENT_STREAM)),
    "status-206": Meant(http(b"HTTP/1.1 206 X\r\n" + EVENT_STREAM)),
    "processing-thrice": Meant(http(b"HTTP/1.1 102 Processing\r\n\r\n" * 3 + OK)),
    "folded-header": Meant(http(OK + b"X-A: b\r\n c\r\n")),
    "cut-in-a-size": Meant([OK + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS[:-4], CUT]),
}
FLUSHED = zlib.compressobj(wbits=31)
PIECES = [FLUSHED.compress(one) + FLUSHED.flush(zlib.Z_SYNC_FLUSH) for one in GOOD]


def labelled(coding: str, *parts: bytes) -> Meant:
    return Meant(stream_of(*parts, headers={"Content-Encoding": coding}))


CODINGS = {
    "gzip-flushed": labelled("gzip", *PIECES),
    "gzip-padded": labelled("gzip", gzip.compress(SENT) + bytes(20)),
    "gzip-quoted": labelled('"gzip"', gzip.compress(SENT)),
    "gzip-as-deflate": labelled("deflate", gzip.compress(SENT)),
    "gzip-as-br": labelled("br", gzip.compress(SENT)),
    **{f"only-{coding}": labelled(coding, *GOOD) for coding in ("br", "zstd", "deflate", "none")},
    "only-br-whole": Meant(
        answer(json.dumps(DOCUMENT).encode(), headers={"Content-Encoding": "br"})
    ),
}


def test_ends_in_any_spelling(world: Scenario) -> None:
    check_answers(world, ENDS)


def test_objects_over_many_lines(world: Scenario) -> None:
    check_answers(world, OBJECTS_OVER_LINES)


def test_errors_by_name_place_and_status(world: Scenario) -> None:
    check_answers(world, ERRORS)


def test_http_as_servers_write_it(world: Scenario) -> None:
    check_answers(world, HTTP)


def test_codings_by_what_they_are(world: Scenario) -> None:
    check_answers(world, CODINGS)
