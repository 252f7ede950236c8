"""How answers of upstreams fail: what is cut, broken or an error never passes for complete."""

from __future__ import annotations

import gzip
import json

import pytest

from antiphon.models.openai import upstream_response
from support.misbehaving_upstream import CUT, HANG, Behaviour, answer
from support.scenario import (
    DONE,
    Scenario,
    body_of,
    chunk,
    data,
    end,
    scenario,
    stream_of,
    text,
)

WORD = text("Hello")
PING = b": ping\n\n"
BROKEN = b'data: {"choices":[{"delta":{"content":" the\n\n'
RESPONSES_WORD = data({"type": "response.output_text.delta", "output_index": 0, "delta": "Hello"})


#: By name: what comes after the word "Hello", and a part of the error's message.
AFTER_A_WORD: dict[str, tuple[Behaviour, str]] = {
    "end-nothing-close": (stream_of(WORD, close=True), "broke off"),
    "end-nothing-chunked": (stream_of(WORD), "broke off"),
    "end-nothing-cut": (stream_of(WORD, CUT), "cut its answer short"),
    "end-nothing-but-life": (stream_of(WORD, PING, b"data: ping\n\n"), "broke off"),
    "end-nothing-but-words": (stream_of(WORD, b"data: It is overloaded.\n\n"), "overloaded"),
    "bad-json-chunk": (stream_of(WORD, BROKEN, text("!"), end(), DONE), "cannot be read"),
    "bad-json-last": (stream_of(WORD, BROKEN, close=True), "cannot be read"),
    "bad-json-object": (stream_of(WORD, b"data: {oops}\n\n", end(), DONE), "cannot be read"),
    "bad-json-cut-line": (stream_of(WORD, BROKEN.strip(), CUT), "cut its answer short"),
    "bad-json-single-newlines": (
        stream_of(WORD, BROKEN[:-1], text("!"), end(), DONE),
        "cannot be read",
    ),
    "bad-json-between-named": (
        stream_of(WORD, b"event: x\n" + BROKEN, end(), DONE),
        "cannot be read",
    ),
    "err-mid-object": (stream_of(WORD, data({"error": {"message": "Sorry."}})), "Sorry."),
    "err-mid-object-done": (
        stream_of(WORD, data({"error": {"message": "Sorry."}}), DONE),
        "Sorry.",
    ),
    "err-mid-string": (stream_of(WORD, data({"error": "Sorry."})), "Sorry."),
    "err-mid-event-name": (
        stream_of(WORD, b'event: error\ndata: {"message":"Sorry."}\n\n'),
        "Sorry.",
    ),
    "err-mid-event-name-nested": (
        stream_of(WORD, b'event: error\ndata: {"error":{"message":"Sorry."}}\n\n', DONE),
        "Sorry.",
    ),
    "err-mid-event-name-code": (
        stream_of(WORD, b'event: error\ndata: {"code":500,"detail":"Sorry."}\n\n'),
        "Sorry.",
    ),
    "err-mid-event-name-text": (
        stream_of(WORD, b"event: error\ndata: Sorry, no.\n\n", DONE),
        "Sorry",
    ),
    "err-mid-list": (stream_of(WORD, data([{"error": {"message": "Sorry."}}])), "Sorry."),
    "err-mid-without-field": (
        stream_of(WORD, b'{"error":{"message":"Sorry."}}\n\n'),
        "Sorry.",
    ),
    "err-mid-without-field-or-end": (
        stream_of(WORD, b'{"error":{"message":"Sorry."}}', close=True),
        "Sorry.",
    ),
    "err-mid-with-choice": (
        stream_of(
            WORD,
            data(
                {
                    "choices": [{"index": 0, "delta": {}, "finish_reason": "error"}],
                    "error": {"message": "Sorry.", "code": 502},
                }
            ),
            DONE,
        ),
        "Sorry.",
    ),
    "err-mid-finish-only": (stream_of(WORD, end("error"), DONE), "failed"),
    "enc-gzip-broken": (
        stream_of(
            gzip.compress(WORD, mtime=0),
            b"\x1f\x8bnonsense",
            headers={"Content-Encoding": "gzip"},
        ),
        "gzip",
    ),
}


@pytest.mark.parametrize("name", AFTER_A_WORD)
def test_a_stream_that_fails_keeps_its_words(world: Scenario, name: str) -> None:
    behaviour, message = AFTER_A_WORD[name]
    asked = len(world.requests)
    world.upstream_sends(behaviour)
    failed = world.respond().expect("failed", "Hello")
    assert failed.error
    assert message in failed.error["message"]
    assert len(world.requests) == asked + 1
    world.upstream_sends(behaviour)
    late = world.chat()
    assert (late.http, late.status, late.text) == (200, "error", "Hello")
    assert late.error
    assert message in late.error["message"]
    # A turn that follows the failed one.
    world.respond("And?", previous_response_id=failed.body["id"]).expect("completed")


RESPONSES_AFTER_A_WORD: dict[str, tuple[Behaviour, str]] = {
    "end-resp-no-completed": (stream_of(RESPONSES_WORD, close=True), "broke off"),
    "end-resp-cut": (stream_of(RESPONSES_WORD, CUT), "cut its answer short"),
    "bad-json-chunk": (
        stream_of(RESPONSES_WORD, b'data: {"type":"response.outp\n\n', RESPONSES_WORD),
        "cannot be read",
    ),
    "err-resp-failed": (
        stream_of(
            RESPONSES_WORD,
            data(
                {
                    "type": "response.failed",
                    "response": {"status": "failed", "error": {"message": "Sorry."}},
                }
            ),
        ),
        "Sorry.",
    ),
    "err-resp-error-event": (
        stream_of(RESPONSES_WORD, data({"type": "error", "code": "x", "message": "Sorry."})),
        "Sorry.",
    ),
    "err-resp-event-name": (
        stream_of(RESPONSES_WORD, b'event: error\ndata: {"type":"error","message":"Sorry."}\n\n'),
        "Sorry.",
    ),
    "err-resp-event-name-only": (
        stream_of(RESPONSES_WORD, b'event: error\ndata: {"message":"Sorry."}\n\n'),
        "Sorry.",
    ),
    "err-resp-object": (
        stream_of(RESPONSES_WORD, data({"error": {"message": "Sorry."}})),
        "Sorry.",
    ),
    "err-resp-string": (stream_of(RESPONSES_WORD, data({"error": "Sorry."})), "Sorry."),
}


@pytest.mark.parametrize("name", RESPONSES_AFTER_A_WORD)
def test_a_stream_of_responses_that_fails_keeps_its_words(
    responses_world: Scenario, name: str
) -> None:
    behaviour, message = RESPONSES_AFTER_A_WORD[name]
    responses_world.upstream_sends(behaviour, behaviour)
    failed = responses_world.respond().expect("failed", "Hello")
    assert failed.error
    assert message in failed.error["message"]
    late = responses_world.chat()
    assert (late.status, late.text) == ("error", "Hello")
    assert late.error
    assert message in late.error["message"]


PAGE = b"<!DOCTYPE html><html><title>Sign in</title></html>"
#: By name: an answer without any words, a part of the error, and how often it is requested.
NO_ANSWERS: dict[str, tuple[Behaviour, str, int]] = {
    "type-html-page": (body_of(PAGE, content_type="text/html"), "HTML", 1),
    "type-html-page-long": (body_of(b"\n" + PAGE * 100, content_type="text/html"), "HTML", 1),
    "type-html-page-as-stream": (stream_of(PAGE[:9], PAGE[9:]), "HTML", 1),
    "type-html-page-as-json": (body_of(PAGE), "HTML", 1),
    "type-html-page-gzip": (
        answer(
            gzip.compress(PAGE), headers={"Content-Encoding": "gzip", "Content-Type": "text/html"}
        ),
        "HTML",
        1,
    ),
    "type-text": (body_of(b"It works!", content_type="text/plain"), "It works!", 1),
    "type-json-cut": (body_of(b'{"choices":[{"message"'), "cannot be read", 1),
    "type-json-string": (body_of(b'"It works!"'), "It works!", 1),
    "empty-200": (body_of(b""), "broke off", 3),
    "empty-200-space": (body_of(b"\n\n"), "broke off", 3),
    "empty-200-stream": (stream_of(), "broke off", 3),
    "status-204": ([b"HTTP/1.1 204 No Content\r\n\r\n"], "broke off", 3),
    "hb-only-is-no-answer": (stream_of(PING, b"data: ping\n\n", PING), "broke off", 3),
    "hb-only-and-done": (stream_of(PING, b"data: : keepalive\n\n", DONE), "no answer", 1),
    "hb-only-events": (
        stream_of(b'event: ping\ndata: {"type":"ping"}\n\n', DONE),
        "no answer",
        1,
    ),
    "done-only": (stream_of(DONE), "no answer", 1),
    "enc-br-stream": (
        stream_of(b"\x1b\x0e\x00\xf8", headers={"Content-Encoding": "br"}),
        "'br'",
        1,
    ),
    "enc-compress": (
        answer(b"\x1f\x9d\x90", headers={"Content-Encoding": "compress"}),
        "'compr",
        1,
    ),
    "enc-zstd-broken": (answer(b"\x28\xb5\x2f\xfd" + b"\xff" * 40), "cannot be decompressed", 1),
    "enc-twice": (answer(b"\x1f\x8b", headers={"Content-Encoding": "gzip, br"}), "gzip, br", 1),
    "enc-gzip-cut": (
        answer(
            gzip.compress(b'{"choices":[{}' + b",{}" * 99)[:30],
            headers={"Content-Encoding": "gzip"},
        ),
        "",
        1,
    ),
    "err-first-400": (stream_of(data({"error": {"code": 400, "message": "Sorry."}})), "Sorry.", 1),
    "err-first-500": (stream_of(data({"error": {"code": 500, "message": "Sorry."}})), "Sorry.", 3),
    "err-whole-400": (body_of({"error": {"code": 400, "message": "Sorry."}}), "Sorry.", 1),
    "cut-before-the-first-byte": ([CUT], "closed the connection", 3),
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", NO_ANSWERS)
def test_what_is_no_answer_is_one_error(world: Scenario, name: str, stream: bool) -> None:
    behaviour, message, times = NO_ANSWERS[name]
    for ask in (world.respond, world.chat):
        asked = len(world.requests)
        world.upstream_sends(*[behaviour] * times)
        failed = ask(stream=stream)
        assert failed.status in ("failed", "error")
        assert failed.text == ""
        assert failed.error
        assert message in failed.error["message"]
        assert len(world.requests) == asked + times


def test_an_error_before_the_first_word_is_a_status_of_http(world: Scenario) -> None:
    for stream in (True, False):
        limited = data({"error": {"code": 429, "message": "Slow down."}})
        world.upstream_sends(*[stream_of(limited)] * 3)
        failed = world.chat(stream=stream)
        assert failed.http == 429
        assert failed.error
        assert "Slow down." in failed.error["message"]


def test_an_answer_cut_before_its_first_byte_is_requested_again(world: Scenario) -> None:
    good = stream_of(text("Hello there."), end(), DONE)
    cuts: list[Behaviour] = [
        [CUT],
        [b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", CUT],
        stream_of(PING, CUT),
        stream_of(b"data: {", CUT),
        stream_of(data({"choices": [{"index": 0, "delta": {"role": "assistant"}}]}), CUT),
        [b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", CUT],
    ]
    for cut in cuts:
        for stream in (True, False):
            world.upstream_sends(cut, good, cut, good)
            world.respond(stream=stream).expect("completed", "Hello there.")
            world.chat(stream=stream).expect("stop", "Hello there.")


# ---- ends that do not come


def test_an_answer_that_is_complete_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_response, "_END_TIMEOUT", 0.05)
    usage = data({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})
    hello = [text("Hello there."), end()]
    message = {"index": 0, "message": {"content": "Hello there."}, "finish_reason": "stop"}
    document = json.dumps({"choices": [message]}).encode()
    with scenario() as world:
        for behaviour in (
            stream_of(*hello, HANG),
            stream_of(*hello, PING, HANG),
            stream_of(chunk({"content": "Hello there."}, "stop"), HANG),
            stream_of(end(), text("Hello there."), usage, HANG),
            stream_of(*hello, usage, *[PING] * 9, HANG),
            stream_of(document, HANG),
            stream_of(document[:20], document[20:], b"\n", HANG),
        ):
            for stream in (True, False):
                world.upstream_sends(behaviour, behaviour)
                held = world.respond("Hi", conversation=_conversation(world), stream=stream)
                held.expect("completed", "Hello there.")
                if any(isinstance(move, bytes) and b"usage" in move for move in behaviour):
                    assert held.body["usage"]["total_tokens"] == 7
                # The conversation is free again.
                world.respond("And?", conversation=held.body["conversation"], stream=stream).expect(
                    "completed", "Hello there."
                )


def _conversation(world: Scenario) -> str:
    return str(world.server.request("POST", "/v1/conversations", {}).json["id"])


def test_signs_of_life_without_end_end_with_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_response, "_END_TIMEOUT", 0.05)
    for sign in (PING, b"data: ping\n\n", b'data: {"type":"ping"}\n\n', b"\n", text("")):
        with scenario() as world:
            endless = stream_of(text("Hello there."), end(), *[sign] * 100_000, HANG)
            world.upstream_sends(endless, endless)
            world.respond().expect("completed", "Hello there.")
            world.chat(stream=False).expect("stop", "Hello there.")
