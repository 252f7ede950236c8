"""Reported frames: how servers and gateways were reported to frame chat completions."""

from __future__ import annotations

import json
from typing import Any

from support.answer_tables import HELLO, Meant, fails, says
from support.scenario import DONE, body_of, chunk, data, end, stream_of, text

A, B = text("Hello"), text(" there.")
GOOD = (A, B, end(), DONE)
MESSAGE = {"role": "assistant", "content": HELLO}
WHOLE = {"choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}]}


def line(value: Any) -> bytes:
    """An event without its end."""
    return b"data: " + json.dumps(value).encode()


def piece(words: str) -> bytes:
    return line({"choices": [{"index": 0, "delta": {"content": words}}]})


def named(name: str, event: bytes) -> bytes:
    return f"event: {name}\n".encode() + event


FRAMES = {
    "events-glued": Meant(stream_of(piece("Hello") + piece(" there."), b"\n\n", end(), DONE)),
    "events-glued-by-a-space": Meant(
        stream_of(piece("Hello") + b" " + piece(" there."), b"\n\n", end(), DONE)
    ),
    "objects-in-one-event": Meant(
        stream_of(piece("Hello") + piece(" there.")[6:] + b"\n\n", end(), DONE)
    ),
    "end-mark-glued": Meant(stream_of(A, piece(" there.") + b"[DONE]\n\n")),
    "end-mark-in-lower-case": Meant(stream_of(A, B, data(b"[done]"))),
    "end-mark-without-data": Meant(stream_of(A, B, b"[DONE]\n\n")),
    "events-named-message": Meant(stream_of(*(named("message", one) for one in GOOD))),
    "events-named-chunk": Meant(
        stream_of(*(named("chat.completion.chunk", one) for one in GOOD[:3]), DONE)
    ),
    "name-behind-the-data": Meant(
        stream_of(piece("Hello") + b"\nevent: delta\n\n", B, end(), DONE)
    ),
    "ids-and-retries": Meant(stream_of(b"retry: 3000\nid: 1\n" + A, b"id: 2\n" + B, end(), DONE)),
    "comments-before-a-document": Meant(
        body_of(b": OPENROUTER PROCESSING\n\n" * 3 + json.dumps(WHOLE).encode())
    ),
    "comments-before-a-document-in-lines": Meant(
        body_of(b": OPENROUTER PROCESSING\n" * 3 + json.dumps(WHOLE, indent=1).encode())
    ),
    "space-before-a-document": Meant(body_of(b" \n" * 400 + json.dumps(WHOLE).encode())),
    "comment-as-data": Meant(stream_of(data(b": OPENROUTER PROCESSING"), *GOOD)),
    "processing-as-data": Meant(stream_of(data(b"OPENROUTER PROCESSING"), *GOOD)),
    "null-as-data": Meant(stream_of(A, data(b"null"), B, end(), DONE)),
    "empty-text-as-data": Meant(stream_of(A, data(b'""'), B, end(), DONE)),
    "true-as-data": Meant(stream_of(A, data(b"true"), B, end(), DONE)),
    "empty-object-as-data": Meant(stream_of(A, data(b"{}"), B, end(), DONE)),
    "empty-list-as-data": Meant(stream_of(A, data(b"[]"), B, end(), DONE)),
    "colons-in-words": says('": ["', stream_of(text('": '), text('["'), end(), DONE)),
    "data-in-words": says("data: [DONE]", stream_of(text("data: "), text("[DONE]"), end(), DONE)),
    "newlines-in-words": says(
        "\n\ndata: x\n\n", stream_of(text("\n\ndata: x"), text("\n\n"), end(), DONE)
    ),
    "rest-behind-the-end": Meant(stream_of(*GOOD, text(" More."), data({"x": 1}))),
    "object-behind-the-end-mark": Meant(stream_of(A, B, DONE, data({"usage": {}}))),
    "page-behind-words": fails("HTML", stream_of(A, B, b"<html>502</html>\n", close=True), HELLO),
    "words-of-a-proxy": fails(
        "upstream connect error",
        stream_of(A, B, b"upstream connect error or disconnect/reset before headers\n", close=True),
        HELLO,
    ),
    "words-in-place-of-an-answer": fails(
        "", body_of(b"Internal Server Error", content_type="text/plain")
    ),
    "cut-within-an-object": fails("", stream_of(A, B, piece(" More")[:-9], close=True), HELLO),
    "cut-within-an-escape": fails("", stream_of(A, B, piece("\ud83d")[:-20], close=True), HELLO),
    "cut-within-the-counts": Meant(
        stream_of(A, B, end(), b'data: {"choices":[],"usage":{"prompt_tok', close=True)
    ),
    "comma-before-the-end": fails(
        "", stream_of(A, data(b'{"choices":[{"delta":{"content":" there."},}],}')), HELLO
    ),
    "stream-in-a-text": Meant(body_of(json.dumps(b"".join(GOOD).decode()).encode())),
    "body-of-a-lambda": Meant(
        body_of({"statusCode": 200, "headers": {}, "body": json.dumps(WHOLE)})
    ),
    "whole-answer-as-an-event": Meant(stream_of(data(WHOLE), DONE)),
    "whole-answer-without-an-end": Meant(stream_of(data(WHOLE))),
    "role-alone-and-nothing": says("", stream_of(chunk({"role": "assistant"}), end(), DONE)),
}
