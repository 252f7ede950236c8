"""Upstreams of the Responses dialect: every answer with one meaning is read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from antiphon.models.retry import RetryPolicy
from support.misbehaving_upstream import Behaviour
from support.scenario import DONE, LOOKUP, NOW, Scenario, body_of, data, scenario, stream_of

Json = dict[str, Any]

HELLO = "Hello there."
CALL = [("lookup", '{"c":1}')]
BOTH = [("lookup", '{"c":1}'), ("now", "{}")]
USAGE: Json = {"input_tokens": 12, "output_tokens": 3, "total_tokens": 15}


@pytest.fixture(scope="module")
def world() -> Iterator[Scenario]:
    with scenario(kind="responses") as one:
        yield one


# ---- what an upstream sends


def event(name: str, **fields: Any) -> bytes:
    """An event of the dialect, with its name."""
    kind = f"response.{name}"
    return b"event: " + kind.encode() + b"\n" + data({"type": kind, **fields})


def message(text: Any = HELLO, name: Any = "msg_1", **fields: Any) -> Json:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    fields = {"content": content, "status": "completed", **fields}
    return {"type": "message", "id": name, "role": "assistant", **fields}


def shell(item: Json) -> Json:
    """An item as it begins."""
    empty: Json = {"content": [], "arguments": "", "summary": [], "status": "in_progress"}
    return {**item, **{name: value for name, value in empty.items() if name in item}}


def call(
    name: Any = "lookup", arguments: Any = '{"c":1}', call_id: Any = "call_1", **fields: Any
) -> Json:
    given = {"id": f"fc_{call_id}", "call_id": call_id, "name": name, "arguments": arguments}
    return {"type": "function_call", "status": "completed", **given, **fields}


def thought(text: str = "Hm.", name: str = "rs_1", **fields: Any) -> Json:
    summary = [{"type": "summary_text", "text": text}] if text else []
    return {"type": "reasoning", "id": name, "summary": summary, **fields}


def added(item: Any, index: Any = 0, **fields: Any) -> bytes:
    item = shell(item) if isinstance(item, dict) else item
    return event("output_item.added", item=item, **at(index), **fields)


def item_done(item: Any, index: Any = 0, **fields: Any) -> bytes:
    return event("output_item.done", item=item, **at(index), **fields)


def at(index: Any) -> Json:
    return {} if index is None else {"output_index": index}


def text(words: Any, name: Any = "msg_1", index: Any = 0, **fields: Any) -> bytes:
    place = at(index) | ({} if name is None else {"item_id": name})
    return event("output_text.delta", delta=words, **{"content_index": 0, **place, **fields})


def text_done(words: Any, name: Any = "msg_1", index: Any = 0, **fields: Any) -> bytes:
    return event("output_text.done", text=words, **at(index), item_id=name, **fields)


def arguments(piece: Any, name: Any = "fc_call_1", index: Any = 0) -> bytes:
    place = at(index) | ({} if name is None else {"item_id": name})
    return event("function_call_arguments.delta", delta=piece, **place)


def arguments_done(whole: Any, name: Any = "fc_call_1", index: Any = 0, **fields: Any) -> bytes:
    return event("function_call_arguments.done", arguments=whole, item_id=name, **at(index)) + b""


def response(*items: Any, status: Any = "completed", **fields: Any) -> Json:
    return {"id": "resp_u", "object": "response", "status": status, "output": list(items), **fields}


def end(*items: Any, name: str = "completed", **fields: Any) -> bytes:
    return event(name, response=response(*items, **fields))


CREATED = event("created", response=response(status="in_progress"))
WORDS = text("Hello") + text(" there.")
#: A message as most servers stream it.
SAID = added(message()) + WORDS + text_done(HELLO) + item_done(message())


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


def test_items_are_told_apart(world: Scenario) -> None:
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


# ---- calls

_FIRST, _SECOND = call(), call("now", "{}", "call_2")

GOOD_CALLS: dict[str, tuple[list[bytes], list[tuple[str, str]]]] = {
    "call-resp-one-index": (
        [
            *(added(_FIRST), arguments('{"c"'), added(_SECOND, 0)),
            *(arguments("{}", "fc_call_2"), arguments(":1}"), item_done(_FIRST)),
            *(item_done(_SECOND), end(_FIRST, _SECOND)),
        ],
        BOTH,
    ),
    "call-resp-no-index": (
        [
            *(added(_FIRST, None), arguments('{"c":1}', index=None), item_done(_FIRST, None)),
            *(added(_SECOND, None), arguments("{}", "fc_call_2", None), item_done(_SECOND, None)),
            end(_FIRST, _SECOND),
        ],
        BOTH,
    ),
    "call-no-index-no-ids": (
        [
            *(added(_FIRST | {"id": None}, None), arguments('{"c":1}', None, None)),
            *(added(_SECOND | {"id": ""}, None), arguments("{}", None, None), end()),
        ],
        BOTH,
    ),
    "call-resp-arguments-done-only": ([added(_FIRST), arguments_done('{"c":1}'), end()], CALL),
    "call-resp-item-done-only": ([added(_FIRST), item_done(_FIRST), end()], CALL),
    "call-item-never-added": ([item_done(_FIRST), end()], CALL),
    "call-completed-only": ([end(_FIRST, _SECOND)], BOTH),
    "call-completed-adds-one": ([added(_FIRST), item_done(_FIRST), end(_FIRST, _SECOND)], BOTH),
    "call-deltas-before-item": ([arguments('{"c":1}'), added(_FIRST), end(_FIRST)], CALL),
    "call-deltas-only-then-completed": ([arguments('{"c":1}'), end(_FIRST)], CALL),
    "call-deltas-wrong-then-item": (
        [added(_FIRST), arguments('{"c":2'), item_done(_FIRST), end()],
        CALL,
    ),
    "call-placeholder-first": (
        [
            event("output_item.added", item=call(arguments="{}"), output_index=0),
            *(arguments("{}"), arguments_done('{"c":1}'), item_done(_FIRST), end()),
        ],
        CALL,
    ),
    "call-deltas-doubled": (
        [added(_FIRST), arguments('{"c":1}'), arguments('{"c":1}'), item_done(_FIRST), end()],
        CALL,
    ),
    "call-args-empty-resp": (
        [added(call("now", "")), item_done(call("now", "")), end()],
        [("now", "{}")],
    ),
    "call-args-null": ([item_done(call("now", None)), end()], [("now", "{}")]),
    "call-args-space": (
        [added(call("now")), arguments(" "), item_done(call("now", " ")), end()],
        [("now", "{}")],
    ),
    "call-args-never": ([added(call("now")), end()], [("now", "{}")]),
    "call-args-object": ([item_done(call(arguments={"c": 1})), end()], CALL),
    "call-args-object-in-done": ([added(_FIRST), arguments_done({"c": 1}), end()], CALL),
    "call-args-object-in-delta": ([added(_FIRST), arguments({"c": 1}), end(_FIRST)], CALL),
    "call-args-delta-null": ([added(_FIRST), arguments(None), arguments('{"c":1}'), end()], CALL),
    "call-args-item-empty": (
        [added(_FIRST), arguments('{"c":1}'), item_done(call(arguments="")), end()],
        CALL,
    ),
    "call-id-missing": ([end(call(call_id=None))], CALL),
    "call-id-number": ([added(call(call_id=7)), item_done(call(call_id=7)), end()], CALL),
    "call-id-late": (
        [added(call(call_id=None)), arguments('{"c":1}', "fc_None"), item_done(call()), end()],
        CALL,
    ),
    "call-id-long": ([item_done(call(call_id="c" * 300)), end()], CALL),
    "call-id-same-for-two": ([item_done(_FIRST), item_done(call("now", "{}"), 1), end()], BOTH),
    "call-item-id-same-for-two": (
        [
            *(added(_FIRST | {"id": "x"}), arguments('{"c":1}', "x")),
            item_done(_FIRST | {"id": "x"}),
            *(added(_SECOND | {"id": "x"}, 1), item_done(_SECOND | {"id": "x"}, 1), end()),
        ],
        BOTH,
    ),
    "call-name-late": ([added(call("")), arguments('{"c":1}'), item_done(_FIRST), end()], CALL),
    "call-name-in-arguments-done": (
        [
            *(added(call("")), arguments('{"c":1}')),
            data(
                {
                    "type": "response.function_call_arguments.done",
                    "item_id": "fc_call_1",
                    "output_index": 0,
                    "name": "lookup",
                    "arguments": '{"c":1}',
                }
            ),
            end(),
        ],
        CALL,
    ),
    "call-ids-rotate": (
        [
            *(added(_FIRST | {"id": "a"}), arguments('{"c":', "b"), arguments("1}", "c")),
            *(item_done(_FIRST | {"id": "d"}), end(_FIRST | {"id": "e"})),
        ],
        CALL,
    ),
    "call-ids-rotate-two": (
        [
            *(added(_FIRST | {"id": "a"}), added(_SECOND | {"id": "b"}, 1)),
            *(arguments('{"c":', "c"), arguments("{", "d", 1), arguments("1}", "e")),
            *(arguments("}", "f", 1), item_done(_SECOND | {"id": "g"}, 1)),
            *(item_done(_FIRST | {"id": "h"}), end(_FIRST, _SECOND)),
        ],
        BOTH,
    ),
    "call-stub": ([SAID, item_done(call("", "", ""), 1), end(message())], []),
    "call-stub-nulls": ([SAID, end(message(), call(None, None, None))], []),
    "call-item-without-type": (
        [item_done({"name": "lookup", "arguments": '{"c":1}'}), end()],
        CALL,
    ),
    "call-eight-backwards": (
        [
            *(added(call("lookup", "", f"c{n}"), n) for n in range(8)),
            *(arguments(f'{{"c":{n}', f"fc_c{n}", n) for n in reversed(range(8))),
            *(arguments("}", f"fc_c{n}", n) for n in range(8)),
            *(item_done(call("lookup", f'{{"c":{n}}}', f"c{n}"), n) for n in reversed(range(8))),
            end(),
        ],
        [("lookup", f'{{"c":{n}}}') for n in range(8)],
    ),
    "call-eight-one-index": (
        [
            *(added(call("lookup", "", f"c{n}"), 0) for n in range(8)),
            *(arguments(f'{{"c":{n}}}', f"fc_c{n}", 0) for n in reversed(range(8))),
            end(),
        ],
        [("lookup", f'{{"c":{n}}}') for n in range(8)],
    ),
}


@pytest.mark.parametrize("name", GOOD_CALLS)
def test_calls_are_read(world: Scenario, name: str) -> None:
    events, expected = GOOD_CALLS[name]
    words = HELLO if not expected else ""
    world.upstream_sends(stream_of(CREATED, *events))
    outcome = world.respond(tools=[LOOKUP, NOW]).expect("completed", words, calls=expected)
    done = [one for one in outcome.events if one["type"] == "response.function_call_arguments.done"]
    assert [(one["name"], one["arguments"]) for one in done] == expected
    world.upstream_sends(stream_of(CREATED, *events))
    tools = [{"type": "function", "function": one} for one in (LOOKUP, NOW)]
    reason = "tool_calls" if expected else "stop"
    world.chat(tools=tools).expect(reason, calls=expected)


def test_a_message_and_a_call_with_one_index(world: Scenario) -> None:
    """call-resp-text-and-call-one-index"""
    for events in (
        [added(message()), text("Hello"), added(_FIRST), arguments('{"c":1}'), text(" there.")],
        [SAID, added(_FIRST), arguments('{"c":1}'), item_done(_FIRST)],
        [text("Hello", None, None), arguments('{"c":1}', None, None), text(" there.", None, None)],
    ):
        world.upstream_sends(stream_of(CREATED, *events, end(message(), _FIRST)))
        world.respond(tools=[LOOKUP]).expect("completed", HELLO, calls=CALL)


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


def test_arguments_that_a_limit_cut_stay_as_they_are(world: Scenario) -> None:
    cut = call(arguments='{"c":', status="incomplete")
    events = [added(cut), arguments('{"c":'), item_done(cut), end(cut, status="incomplete")]
    world.upstream_sends(stream_of(*events))
    world.respond(tools=[LOOKUP]).expect("incomplete", calls=[("lookup", '{"c":')])


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
