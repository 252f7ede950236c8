"""Upstreams of the Responses dialect: every answer with one meaning is read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from antiphon.models.retry import RetryPolicy
from support.misbehaving_upstream import Behaviour
from support.responses_events import (
    CREATED,
    HELLO,
    SAID,
    WORDS,
    Json,
    added,
    end,
    event,
    item_done,
    message,
    response,
    text,
    text_done,
    thought,
)
from support.scenario import DONE, Scenario, body_of, data, scenario, stream_of

USAGE: Json = {"input_tokens": 12, "output_tokens": 3, "total_tokens": 15}


# ---- words

GOOD_WORDS: dict[str, list[bytes]] = {
    "resp-text-done-only": [CREATED, added(message()), text_done(HELLO), end()],
    "resp-item-done-only": [CREATED, item_done(message()), end()],
    "resp-completed-only": [CREATED, end(message())],
    "resp-text-done-and-deltas": [CREATED, SAID, end(message())],
    "resp-item-null": [CREATED, added(None), WORDS, item_done(None), end()],
    "resp-response-null": [CREATED, WORDS, event("completed", response=None)],
    "resp-output-null": [CREATED, SAID, event("completed", response=response() | {"output": None})],
    "resp-annotations-odd": [
        CREATED,
        WORDS,
        event("output_text.annotation.added", annotation="none", output_index=0),
        item_done(
            message(content=[{"type": "output_text", "text": HELLO, "annotations": {"a": 1}}])
        ),
        end(message(content=[{"type": "output_text", "text": HELLO, "annotations": "none"}])),
    ],
    "hb-resp-data-colon": [CREATED, text("Hello"), data(b": keepalive"), text(" there."), end()],
    "hb-resp-event": [CREATED, text("Hello"), data({"type": "keepalive"}), text(" there."), end()],
    "hb-resp-others": [
        *(CREATED, b": ping\n\n", data(b"ping"), data(b"[KEEPALIVE]"), data(b"7"), data(b"null")),
        *(text("Hello"), data(b""), data({"type": "ping"}), data({}), text(" there."), end()),
    ],
    "finish-resp-status-null": [SAID, end(status=None)],
    "finish-resp-status-missing": [SAID, event("completed", response={"output": []})],
    "finish-resp-status-odd": [SAID, end(status=3)],
    "finish-resp-status-in-progress": [SAID, end(status="in_progress")],
    "finish-resp-status-upper": [SAID, end(status="COMPLETED")],
    "finish-resp-event-done": [SAID, end(name="done")],
    "finish-resp-error-null": [SAID, end(error=None, incomplete_details=None)],
    "finish-resp-error-empty": [SAID, end(error={}, incomplete_details={})],
    "finish-resp-details-odd": [SAID, end(incomplete_details=[])],
    "end-resp-done-marker": [SAID, DONE],
    "end-resp-done-marker-space": [SAID, data(b'"[DONE]" ')],
    "text-only-deltas": [WORDS, event("completed")],
    "text-without-ids": [text("Hello", None, None), text(" there.", None, None), end()],
    "text-ids-rotate": [
        *(added(message(name="a")), text("Hello", "b"), text(" there.", "c")),
        *(text_done(HELLO, "d"), item_done(message(name="e")), end(message(name="f"))),
    ],
    "text-ids-rotate-without-index": [
        *(added(message(name="a"), None), text("Hello", "b", None), text(" there.", "c", None)),
        *(item_done(message(name="d"), None), end(message(name="e"))),
    ],
    "text-ids-numbers": [
        added(message(name=7)),
        text("Hello", 7),
        text(" there.", 7),
        item_done(message(name=7)),
        end(message(name=7)),
    ],
    "text-index-strings": [
        added(message(), "0"),
        text("Hello", index="0"),
        text(" there.", index=0.0),
        end(message()),
    ],
    "text-index-null": [text("Hello", index=None), text(" there.", index=None), end(message())],
    "text-index-odd": [text("Hello", index=[]), text(" there.", index={}), end(message())],
    "text-index-from-one": [added(message(), 1), text("Hello", index=1), end(message())],
    "text-done-has-more": [text("Hello"), text_done(HELLO), end()],
    "text-item-has-more": [text("Hello"), item_done(message()), end()],
    "text-completed-has-more": [text("Hello"), end(message())],
    "text-item-corrects": [text("Helo their."), item_done(message()), end()],
    "text-completed-corrects": [text("Helo their."), end(message())],
    "text-done-empty": [WORDS, text_done(""), item_done(message("")), end(message(""))],
    "text-done-null": [WORDS, text_done(None), item_done(message(None)), end(message(None))],
    "text-content-null": [WORDS, item_done(message(content=None)), end(message(content=None))],
    "text-content-string": [item_done(message(content=HELLO)), end()],
    "text-content-string-and-deltas": [WORDS, end(message(content=HELLO))],
    "text-content-strings": [end(message(content=["Hello", " there."]))],
    "text-content-object": [end(message(content={"type": "output_text", "text": HELLO}))],
    "text-content-without-types": [end(message(content=[{"text": "Hello"}, {"text": " there."}]))],
    "text-output-object": [event("completed", response=response() | {"output": message()})],
    "text-output-string": [event("completed", response=response() | {"output": HELLO})],
    "text-output-text": [event("completed", response={"output": None, "output_text": HELLO})],
    "text-output-of-parts": [end({"type": "output_text", "text": HELLO})],
    "text-output-of-nulls": [end(None, message(), None)],
    "text-item-without-type": [end({"role": "assistant", "content": HELLO})],
    "text-item-type-odd": [end(message() | {"type": 3})],
    "text-item-role-odd": [end(message() | {"role": None})],
    "text-items-list": [event("output_item.done", item=[message()]), end()],
    "text-part-done-only": [
        event("content_part.done", output_index=0, part={"type": "output_text", "text": HELLO}),
        end(),
    ],
    "text-item-added-whole": [event("output_item.added", output_index=0, item=message()), end()],
    "delta-null": [text("Hello"), text(None), text(" there."), end()],
    "delta-object": [text({"type": "text", "text": "Hello"}), text([" there", "."]), end()],
    "delta-missing": [event("output_text.delta", item_id="msg_1"), WORDS, end()],
    "delta-halves": [
        *(data(b'{"type":"response.output_text.delta","delta":"Hello"}'),),
        *(data(b'{"type":"response.output_text.delta","delta":" there."}'), end()),
    ],
    "logprobs-odd": [text("Hello", logprobs={}), text(" there.", logprobs=[None, 3]), end()],
    "logprobs-null": [text("Hello", logprobs=None), text(" there.", logprobs="none"), end()],
    "sequence-odd": [text("Hello", sequence_number="7"), text(" there.", x=None), end()],
    "usage-resp-list": [SAID, end(usage=[])],
    "usage-resp-text": [SAID, end(usage="none")],
    "phase-odd": [added(message(phase=3)), WORDS, item_done(message(phase={})), end()],
    "type-word-for-word": [SAID, data({"object": "response", **response(message())})],
    "deep": [
        *(data(b'{"type":"response.x","x":' + b"[" * 300 + b"]" * 300 + b"}"), SAID),
        data(b'{"type":"response.completed","response":{"x":' + b"[" * 300 + b"]" * 300 + b"}}"),
    ],
    "nan": [
        data(b'{"type":"response.x","x":NaN}'),
        SAID,
        data(b'{"type":"response.done","x":NaN}'),
    ],
    "big-numbers": [text("Hello", x=10**30), text(" there.", output_index=10**30), end(x=10**30)],
    "raw-tab": [SAID, data(b'{"type":"response.completed","response":{"x":"a\tb"}}')],
    "foreign-item-null": [SAID, end(message(), {"type": "web_search_call"}, {})],
}


@pytest.fixture(name="world")
def responses(responses_world: Scenario) -> Scenario:
    return responses_world


@pytest.mark.parametrize("name", GOOD_WORDS)
def test_words_are_read(world: Scenario, name: str) -> None:
    events = GOOD_WORDS[name]
    expected = "Hello" if name == "text-index-from-one" else HELLO
    expected = HELLO if b"there" in b"".join(events) else expected
    world.upstream_sends(stream_of(*events))
    world.respond().expect("completed", expected, calls=[])
    world.upstream_sends(stream_of(*events))
    world.chat().expect("stop")


WHOLE: dict[str, Json] = {
    "content-string-resp-whole": response(message(content=HELLO)),
    "content-strings": response(message(content=["Hello", " there."])),
    "content-object": response(message(content={"text": HELLO})),
    "content-parts-with-nulls": response(message(content=[None, {"text": HELLO}, {}])),
    "status-null": response(message(), status=None),
    "status-unknown": response(message(), status="fine"),
    "status-upper": response(message(), status="Completed"),
    "status-missing": {"output": [message()]},
    "error-empty": response(message(), error=""),
    "output-object": {"output": message()},
    "output-string": {"output": HELLO},
    "output-text-only": {"output": [], "output_text": HELLO},
    "output-text-beside": response(message(), output_text=HELLO),
    "output-with-nulls": response(None, message()),
    "output-of-parts": response({"type": "output_text", "text": HELLO}),
    "item-without-type": response({"content": [{"text": HELLO}]}),
    "ids-odd": response(message(name=[]), id=7, object=None, created_at="now", model={}),
    "annotations-odd": response(
        message(content=[{"type": "output_text", "text": HELLO, "annotations": [3, None]}])
    ),
    "two-messages": response(message("Hello"), message(" there.")),
    "base-resp-fine": response(message(), base_resp={"status_code": 0, "status_msg": ""}),
}


@pytest.mark.parametrize("name", WHOLE)
def test_an_answer_in_one_piece_is_read(world: Scenario, name: str) -> None:
    for stream in (False, True):
        world.upstream_sends(body_of(WHOLE[name]))
        world.respond(stream=stream).expect("completed", HELLO, calls=[])
    world.upstream_sends(stream_of(data({"type": "response.completed", "response": WHOLE[name]})))
    world.respond().expect("completed", HELLO, calls=[])
    world.upstream_sends(body_of(WHOLE[name]))
    world.chat(stream=False).expect("stop", HELLO)


def test_a_number_is_text(world: Scenario) -> None:
    for given, shown in ((6, "6"), (0, "0"), (0.5, "0.5"), ({"text": "6"}, "6"), (["6"], "6")):
        world.upstream_sends(stream_of(text("Room "), text(given), text("."), end()))
        world.respond().expect("completed", f"Room {shown}.")
        parts = [{"text": "Room "}, {"text": given}, {"text": "."}]
        world.upstream_sends(body_of(response(message(content=parts))))
        world.respond(stream=False).expect("completed", f"Room {shown}.")


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        ((r"\ud83d", r"\ude00"), "\U0001f600"),
        ((r"a\ud83d", r"\ude00b"), "a\U0001f600b"),
        ((r"\ud83d", "b"), "b"),
        (("a", r"\ude00"), "a"),
        (("a", r"\ud83d"), "a"),
        (("a\\u0000", "b"), "a\0b"),
    ],
)
def test_halves_of_characters_are_joined(
    world: Scenario, pieces: tuple[str, ...], shown: str
) -> None:
    frame = '{{"type":"response.output_text.delta","item_id":"m","delta":"{}"}}'
    events = [data(frame.format(piece).encode()) for piece in pieces]
    world.upstream_sends(stream_of(*events, end()))
    world.respond().expect("completed", shown)


def test_items_are_distinguished(world: Scenario) -> None:
    """By their ids, then their indices, then the order in which they came."""
    first, second = message("Hello", "a"), message(" there.", "b")
    for events in (
        [added(first), added(second), text(" there.", "b"), text("Hello", "a"), end()],
        [added(first), text("Hel", "a"), added(second, 0), text(" there.", "b"), text("lo", "a")],
        [text("Hel", None, 0), text(" there.", None, 1), text("lo", None, 0)],
        [added(first), text("Hel", "a"), added(second, 1), text(" there.", "b", 1), end(first)],
        [item_done(first, None), item_done(second, None)],
        [item_done(first | {"id": "x"}), item_done(second | {"id": "x"}, 1)],
        [added(first | {"id": None}, None), text("Hello", None, None), end(first, second)],
    ):
        world.upstream_sends(stream_of(*events, end()))
        outcome = world.respond().expect("completed")
        shown = [one["content"][0]["text"] for one in outcome.body["output"]]
        assert sorted(shown) == [" there.", "Hello"]


@pytest.mark.parametrize("whole", [False, True])
def test_refusals(world: Scenario, whole: bool) -> None:
    said = message(content=[{"type": "refusal", "refusal": "I will not."}])
    for events in (
        [event("refusal.delta", delta="I will"), event("refusal.done", refusal="I will not.")],
        [event("refusal.delta", delta="I will not.")],
        [item_done(said)],
        [],
    ):
        answer = body_of(response(said)) if whole else stream_of(*events, end(said))
        world.upstream_sends(answer)
        outcome = world.respond(stream=not whole).expect("completed", "")
        assert outcome.refusal == "I will not."
    oddities: list[Any] = [False, {}, [], None, 3]
    for odd in oddities:
        parts = [{"type": "output_text", "text": HELLO, "refusal": odd}]
        world.upstream_sends(body_of(response(message(content=parts))))
        assert world.respond(stream=False).expect("completed", HELLO).refusal == ""


THOUGHTS: dict[str, list[bytes]] = {
    "summary-deltas": [
        added(thought()),
        event("reasoning_summary_text.delta", delta="Hm", item_id="rs_1", summary_index=0),
        event("reasoning_summary_text.done", text="Hm.", item_id="rs_1", summary_index=0),
        item_done(thought()),
    ],
    "summary-done-only": [event("reasoning_summary_text.done", text="Hm.", output_index=0)],
    "summary-part-done-only": [
        event("reasoning_summary_part.done", part={"type": "summary_text", "text": "Hm."})
    ],
    "summary-item-only": [item_done(thought())],
    "summary-strings": [item_done(thought(summary=["Hm."]))],
    "summary-string": [item_done(thought(summary="Hm."))],
    "content-item-only": [
        item_done(thought("", content=[{"type": "reasoning_text", "text": "Hm."}]))
    ],
    "content-string": [item_done(thought("", content="Hm."))],
    "content-deltas": [event("reasoning_text.delta", delta="Hm."), item_done(thought(""))],
    "content-other-name": [event("reasoning.delta", delta="Hm."), item_done(thought(""))],
    "content-done-only": [event("reasoning_text.done", text="Hm.")],
    "item-without-type": [item_done({"summary": [{"text": "Hm."}]})],
    "delta-odd": [event("reasoning_text.delta", delta={"text": "Hm."})],
    "index-odd": [event("reasoning_summary_text.delta", delta="Hm.", summary_index="0")],
    "encrypted-odd": [item_done(thought(encrypted_content={}))],
}


@pytest.mark.parametrize("name", THOUGHTS)
def test_thoughts_are_read(world: Scenario, name: str) -> None:
    said = [added(message(), 1), text("Hello", index=1), text(" there.", index=1)]
    for events in ([*THOUGHTS[name], *said], [*said, *THOUGHTS[name]]):
        world.upstream_sends(stream_of(*events, end()))
        outcome = world.respond().expect("completed", HELLO)
        assert outcome.reasoning == "Hm."


# ---- usage


@pytest.mark.parametrize(
    ("name", "usage", "counted"),
    [
        ("usage-resp-floats", {"input_tokens": 12.0, "output_tokens": 3.4}, (12, 3)),
        ("usage-resp-strings", {"input_tokens": "12", "output_tokens": "3"}, (12, 3)),
        ("usage-resp-null", None, None),
        ("usage-parts-null", {"input_tokens": None, "output_tokens": None}, None),
        ("usage-half", {"input_tokens": 12}, (12, 0)),
        ("usage-other-names", {"prompt_tokens": 12, "completion_tokens": 3}, (12, 3)),
        ("usage-details-odd", {**USAGE, "input_tokens_details": [], "x": {}}, (12, 3)),
        ("usage-details-text", {**USAGE, "output_tokens_details": "none"}, (12, 3)),
        (
            "usage-details-floats",
            {**USAGE, "input_tokens_details": {"cached_tokens": 2.5}},
            (12, 3),
        ),
        ("usage-list", [], None),
        ("usage-empty", {}, None),
        ("usage-text", "none", None),
        ("usage-negative", {"input_tokens": -12, "output_tokens": 3}, (0, 3)),
        ("usage-all-negative", {"input_tokens": -12, "output_tokens": -3}, None),
        ("usage-bools", {"input_tokens": True, "output_tokens": 3}, (0, 3)),
        ("usage-huge", {"input_tokens": 10**30, "output_tokens": 3}, (0, 3)),
    ],
)
def test_usage_never_fails_a_turn(
    world: Scenario, name: str, usage: Any, counted: tuple[int, int] | None
) -> None:
    for stream in (True, False):
        answer = stream_of(SAID, end(usage=usage)) if stream else response(message(), usage=usage)
        world.upstream_sends(answer if isinstance(answer, list) else body_of(answer))
        outcome = world.respond(stream=stream).expect("completed", HELLO)
        shown = outcome.body["usage"]
        counts = shown and (shown["input_tokens"], shown["output_tokens"])
        assert counts == counted, name


# ---- ends that are none


CUT: dict[str, tuple[Behaviour, str, str]] = {
    "end-resp-no-completed": (stream_of(CREATED, WORDS, close=True), "failed", HELLO),
    "end-resp-no-completed-done-marker": (stream_of(CREATED, WORDS, DONE), "failed", HELLO),
    "err-resp-failed": (
        stream_of(WORDS, end(name="failed", status="failed", error={"message": "Out of GPUs."})),
        *("failed", HELLO),
    ),
    "err-resp-error-event": (
        stream_of(WORDS, data({"type": "error", "code": "x", "message": "Out of GPUs."})),
        *("failed", HELLO),
    ),
    "err-error-nested": (
        stream_of(WORDS, data({"type": "error", "error": {"message": "Out of GPUs."}})),
        *("failed", HELLO),
    ),
    "err-error-string": (stream_of(WORDS, data({"error": "Out of GPUs."})), "failed", HELLO),
    "err-error-untyped": (
        stream_of(WORDS, b"event: error\n" + data({"message": "Out of GPUs."})),
        *("failed", HELLO),
    ),
    "err-error-detail": (stream_of(WORDS, data({"detail": "Out of GPUs."})), "failed", HELLO),
    "err-error-other-type": (
        stream_of(WORDS, data({"type": "server_error", "error": {"message": "Out of GPUs."}})),
        *("failed", HELLO),
    ),
    "err-response-error": (
        stream_of(WORDS, event("error", error={"message": "Out of GPUs."})),
        *("failed", HELLO),
    ),
    "err-failed-string": (
        stream_of(WORDS, end(name="failed", status=None, error="Out of GPUs.")),
        *("failed", HELLO),
    ),
    "err-failed-status-only": (
        stream_of(WORDS, end(status="failed", error={"message": "Out of GPUs."})),
        *("failed", HELLO),
    ),
    "err-failed-has-words": (
        stream_of(
            end(message(), name="failed", status="failed", error={"message": "Out of GPUs."})
        ),
        *("failed", HELLO),
    ),
    "status-cancelled": (stream_of(WORDS, end(status="cancelled")), "failed", HELLO),
    "status-aborted": (stream_of(WORDS, end(status="ABORTED")), "failed", HELLO),
    "status-incomplete": (stream_of(WORDS, end(status="incomplete")), "incomplete", HELLO),
    "incomplete-details-only": (
        stream_of(WORDS, end(status=None, incomplete_details={"reason": "max_output_tokens"})),
        *("incomplete", HELLO),
    ),
    "incomplete-reason-odd": (
        stream_of(WORDS, end(name="incomplete", status=7, incomplete_details="MAX_TOKENS")),
        *("incomplete", HELLO),
    ),
    "incomplete-no-response": (
        stream_of(WORDS, event("incomplete", response=None)),
        *("incomplete", HELLO),
    ),
    "broken-event": (
        stream_of(WORDS, data(b'{"type":"response.output_text'), end()),
        "failed",
        HELLO,
    ),
    "whole-incomplete": (
        body_of(response(message(), status="incomplete", incomplete_details=None)),
        *("incomplete", HELLO),
    ),
}


@pytest.mark.parametrize("name", CUT)
def test_what_was_cut_is_not_completed(world: Scenario, name: str) -> None:
    behaviour, status, words = CUT[name]
    world.upstream_sends(behaviour)
    outcome = world.respond(stream="whole" not in name).expect(status, words)
    if name.startswith("err-"):
        assert outcome.error is not None
        assert "Out of GPUs." in outcome.error["message"]
    if status == "incomplete":
        assert outcome.body["incomplete_details"] == {"reason": "max_output_tokens"}


@pytest.mark.parametrize("reason", ["content_filter", "SAFETY", "sensitive"])
def test_an_answer_that_was_filtered(world: Scenario, reason: str) -> None:
    details = {"reason": reason}
    world.upstream_sends(stream_of(WORDS, end(status="incomplete", incomplete_details=details)))
    outcome = world.respond().expect("incomplete", HELLO)
    assert outcome.body["incomplete_details"] == {"reason": "content_filter"}


@pytest.mark.parametrize("stream", [False, True])
def test_a_body_that_holds_no_answer(stream: bool) -> None:
    with scenario(kind="responses", retry=RetryPolicy(max_retries=0)) as world:
        for body in (
            {"error": {"message": "Out of GPUs."}},
            {"error": "Out of GPUs."},
            {"output": [], "error": {"message": "Out of GPUs."}},
            {"output": None, "status": None, "error": {"message": "Out of GPUs."}},
            {"detail": "Out of GPUs."},
            {"code": 500, "msg": "Out of GPUs."},
            {"output": None, "base_resp": {"status_code": 1008, "status_msg": "Out of GPUs."}},
            response(status="failed", error={"message": "Out of GPUs."}),
        ):
            world.upstream_sends(body_of(body))
            outcome = world.respond(stream=stream)
            assert outcome.status in ("failed", "error")
            assert "Out of GPUs." in json.dumps(outcome.error), body
