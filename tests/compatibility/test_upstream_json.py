"""How upstreams write a chat completion's JSON: what has one meaning is read, over both APIs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from support.misbehaving_upstream import Behaviour
from support.scenario import (
    DONE,
    Outcome,
    Scenario,
    body_of,
    chunk,
    data,
    end,
    scenario,
    stream_of,
    text,
    whole,
)


@pytest.fixture(scope="module")
def world() -> Iterator[Scenario]:
    with scenario() as shared:
        yield shared


def ask_both(world: Scenario, behaviour: Behaviour, *, stream: bool) -> tuple[Outcome, Outcome]:
    """What comes of an upstream's answer over the Responses API and over chat completions."""
    world.upstream_sends(behaviour, behaviour)
    return world.respond(stream=stream), world.chat(stream=stream)


def is_stream(behaviour: Behaviour) -> bool:
    return isinstance(behaviour[0], bytes) and b"event-stream" in behaviour[0]


def expect_words(
    world: Scenario, behaviour: Behaviour, words: str, status: str = "completed", chat: str = "stop"
) -> tuple[Outcome, Outcome]:
    response, completion = ask_both(world, behaviour, stream=is_stream(behaviour))
    return response.expect(status, words), completion.expect(chat, words)


HELLO = (text("Hello"), text(" there."), end("stop"), DONE)
MESSAGE = {"role": "assistant", "content": "Hello there."}


def room(content: Any) -> Behaviour:
    """An answer with a content between two others."""
    delta = {} if content is MISSING else {"content": content}
    return stream_of(text("Room "), chunk(delta), text("."), end("stop"), DONE)


MISSING = object()

CONTENTS: dict[str, tuple[Behaviour, str]] = {
    "content-number": (room(6), "Room 6."),
    "content-zero": (room(0), "Room 0."),
    "content-fraction": (room(0.5), "Room 0.5."),
    "content-number-whole": (whole({"content": 6}), "6"),
    "content-null": (room(None), "Room ."),
    "content-missing": (room(MISSING), "Room ."),
    "content-empty-list": (room([]), "Room ."),
    "content-parts": (room([{"type": "text", "text": "6"}]), "Room 6."),
    "content-strings": (room(["6", " or 7"]), "Room 6 or 7."),
    "content-object": (room({"type": "text", "text": "6"}), "Room 6."),
    "content-object-whole": (whole({"content": {"type": "text", "text": "6"}}), "6"),
    "content-none-at-all": (stream_of(chunk({"role": "assistant"}), end("stop"), DONE), ""),
    # Relatives.
    "content-zero-whole": (whole({"content": 0}), "0"),
    "content-fraction-whole": (whole({"content": 0.5}), "0.5"),
    "content-negative": (room(-6), "Room -6."),
    "content-large": (room(12345678901234567890123), "Room 12345678901234567890123."),
    "content-false": (room(False), "Room ."),
    "content-empty-object": (room({}), "Room ."),
    "content-list-with-null": (room([None, "6", None]), "Room 6."),
    "content-list-of-numbers": (room([6]), "Room 6."),
    "content-text-number": (room([{"type": "text", "text": 6}]), "Room 6."),
    "content-text-value": (room([{"type": "text", "text": {"value": "6"}}]), "Room 6."),
    "content-text-null": (room([{"type": "text", "text": None}]), "Room ."),
    "content-no-type": (room([{"text": "6"}]), "Room 6."),
    "content-output-text": (room([{"type": "output_text", "text": "6"}]), "Room 6."),
    "content-unknown-part": (room([{"type": "chart", "x": 1}, {"text": "6"}]), "Room 6."),
    "content-strings-whole": (whole({"content": ["6", " or 7"]}), "6 or 7"),
    "content-null-whole": (whole({"content": None}), ""),
    "content-missing-whole": (whole({"role": "assistant"}), ""),
    "content-none-empty": (stream_of(text(""), end("stop"), DONE), ""),
}

SHAPES: dict[str, Behaviour] = {
    "role-missing-whole": whole({"content": "Hello there."}),
    "role-odd": stream_of(chunk({"role": "model", "content": "Hello"}), *HELLO[1:]),
    "role-odd-number": stream_of(chunk({"role": 7, "content": "Hello"}), *HELLO[1:]),
    "role-null-whole": whole({"role": None, "content": "Hello there."}),
    "delta-empty-list": stream_of(chunk([]), *HELLO),
    "delta-null": stream_of(chunk(None), *HELLO),
    "delta-empty-string": stream_of(HELLO[0], chunk(""), *HELLO[1:]),
    "delta-missing": stream_of(data({"choices": [{"index": 0}]}), *HELLO),
    "delta-false": stream_of(chunk(False), *HELLO),
    "delta-zero": stream_of(chunk(0), *HELLO),
    "delta-list-at-end": stream_of(*HELLO[:2], chunk([], "stop"), DONE),
    "delta-string": stream_of(chunk("Hello"), *HELLO[1:]),
    "delta-in-list": stream_of(chunk([{"content": "Hello"}]), *HELLO[1:]),
    "legacy-text": stream_of(
        data({"choices": [{"index": 0, "text": "Hello"}]}),
        data({"choices": [{"index": 0, "text": " there.", "finish_reason": "stop"}]}),
        DONE,
    ),
    "legacy-text-whole": body_of({"choices": [{"text": "Hello there.", "finish_reason": "stop"}]}),
    "legacy-text-beside-delta": stream_of(
        data({"choices": [{"index": 0, "text": "", "delta": {"content": "Hello"}}]}), *HELLO[1:]
    ),
    "legacy-text-repeats": stream_of(
        data({"choices": [{"index": 0, "text": "Hello", "delta": {"content": "Hello"}}]}),
        *HELLO[1:],
    ),
    "delta-in-whole": body_of({"choices": [{"delta": MESSAGE, "finish_reason": "stop"}]}),
    "delta-in-whole-beside-null": body_of(
        {"choices": [{"delta": MESSAGE, "message": None, "finish_reason": "stop"}]}
    ),
    "message-in-stream": stream_of(
        data({"choices": [{"index": 0, "message": {"content": "Hello"}}]}),
        data({"choices": [{"index": 0, "message": {"content": " there."}}]}),
        end("stop"),
        DONE,
    ),
    "message-in-stream-beside-empty-delta": stream_of(
        data({"choices": [{"index": 0, "delta": {}, "message": MESSAGE}]}), end("stop"), DONE
    ),
    "message-repeats-at-end": stream_of(
        *HELLO[:2],
        data({"choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}]}),
        DONE,
    ),
    "message-beside-delta": stream_of(
        data({"choices": [{"index": 0, "delta": {"content": "Hello"}, "message": MESSAGE}]}),
        *HELLO[1:],
    ),
    "choices-azure-first": stream_of(
        data({"choices": [], "prompt_filter_results": [{"prompt_index": 0}]}), *HELLO
    ),
    "choices-usage-only": stream_of(
        *HELLO[:3], data({"choices": [], "usage": {"prompt_tokens": 1}}), DONE
    ),
    "choices-null-usage": stream_of(
        *HELLO[:3], data({"choices": None, "usage": {"prompt_tokens": 1}}), DONE
    ),
    "choices-missing-usage": stream_of(*HELLO[:3], data({"usage": {"prompt_tokens": 1}}), DONE),
    "choices-object-usage": stream_of(
        *HELLO[:3], data({"choices": {}, "usage": {"prompt_tokens": 1}}), DONE
    ),
    "choices-string": stream_of(data({"choices": ""}), *HELLO),
    "choices-with-null": stream_of(data({"choices": [None]}), *HELLO),
    "choices-with-null-before": stream_of(
        data({"choices": [None, {"index": 0, "delta": {"content": "Hello"}}]}), *HELLO[1:]
    ),
    "choices-with-string": stream_of(data({"choices": ["?"]}), *HELLO),
    "choices-with-empty-object": stream_of(data({"choices": [{}]}), *HELLO),
    "choices-one-object": body_of({"choices": {"message": MESSAGE, "finish_reason": "stop"}}),
    "choices-null-whole": body_of({"choices": [None, {"index": 0, "message": MESSAGE}]}),
    "choices-two": body_of(
        {"choices": [{"index": 0, "message": MESSAGE}, {"index": 1, "message": {"content": "No"}}]}
    ),
    "choices-two-turned": body_of(
        {"choices": [{"index": 1, "message": {"content": "No"}}, {"index": 0, "message": MESSAGE}]}
    ),
    "choices-two-unnumbered": body_of(
        {"choices": [{"message": MESSAGE}, {"message": {"content": "No"}}]}
    ),
    "choices-two-stream": stream_of(
        data({"choices": [{"index": 1, "delta": {"content": "No"}}]}),
        HELLO[0],
        data(
            {
                "choices": [
                    {"index": 1, "delta": {"content": "No"}, "finish_reason": "length"},
                    {"index": 0, "delta": {"content": " there."}},
                ]
            }
        ),
        *HELLO[2:],
    ),
    "choices-two-unnumbered-stream": stream_of(
        *(
            data({"choices": [{"delta": {"content": one}}, {"delta": {"content": "No"}}]})
            for one in ("Hello", " there.")
        ),
        *HELLO[2:],
    ),
    "choices-two-string-numbers": body_of(
        {
            "choices": [
                {"index": "1", "message": {"content": "No"}},
                {"index": "0", "message": MESSAGE},
            ]
        }
    ),
    "choice-index-string": stream_of(
        data({"choices": [{"index": "0", "delta": {"content": "Hello"}}]}), *HELLO[1:]
    ),
    "choice-index-null": stream_of(
        data({"choices": [{"index": None, "delta": {"content": "Hello"}}]}), *HELLO[1:]
    ),
    "choice-index-float": stream_of(
        data({"choices": [{"index": 0.0, "delta": {"content": "Hello"}}]}), *HELLO[1:]
    ),
    "choice-index-odd": stream_of(
        data({"choices": [{"index": "a", "delta": {"content": "Hello"}}]}), *HELLO[1:]
    ),
    "choice-index-missing-whole": body_of({"choices": [{"message": MESSAGE}]}),
    "choice-index-from-one": stream_of(
        *(data({"choices": [{"index": 1, "delta": {"content": w}}]}) for w in ("Hello", " there.")),
        data({"choices": [{"index": 1, "delta": {}, "finish_reason": "stop"}]}),
        DONE,
    ),
    "choice-index-from-one-whole": body_of({"choices": [{"index": 1, "message": MESSAGE}]}),
}

ODD_FIELDS: dict[str, Any] = {
    "null": None,
    "string": "x",
    "number": 7,
    "float": 1.5,
    "list": [1, "a", None],
    "object": {"a": {"b": [1]}},
    "true": True,
}
DEEP = '{"a":' * 300 + "1" + "}" * 300
VERY_DEEP = "[" * 800 + "]" * 800


def with_extras(value: str) -> Behaviour:
    """A stream with an unknown field of this JSON everywhere."""
    extra = f'"zz":{value}'
    chunks = [
        f'{{{extra},"choices":[{{{extra},"index":0,"delta":{{{extra},"content":"{words}"}},'
        f'"finish_reason":null,"logprobs":null}}]}}'
        for words in ("Hello", " there.")
    ]
    return stream_of(*(data(one.encode()) for one in chunks), *HELLO[2:])


def with_extras_whole(value: str) -> Behaviour:
    body = (
        f'{{"zz":{value},"choices":[{{"zz":{value},"message":{{"zz":{value},'
        f'"content":"Hello there."}},"finish_reason":"stop"}}]}}'
    )
    return body_of(body.encode())


EXTRAS: dict[str, Behaviour] = {
    **{f"extra-everywhere-{k}": with_extras(json.dumps(v)) for k, v in ODD_FIELDS.items()},
    **{f"extra-whole-{k}": with_extras_whole(json.dumps(v)) for k, v in ODD_FIELDS.items()},
    "extra-big-numbers": with_extras("123456789012345678901234567890"),
    "extra-big-numbers-whole": with_extras_whole("-123456789012345678901234567890"),
    "extra-huge-exponent": with_extras("1e999"),
    "extra-deep": with_extras(DEEP),
    "extra-deep-whole": with_extras_whole(DEEP),
    "extra-very-deep": with_extras(VERY_DEEP),
    "extra-nan": with_extras("NaN"),
    "extra-nan-whole": with_extras_whole("NaN"),
    "extra-infinity": with_extras("[Infinity,-Infinity]"),
    "extra-raw-tab": with_extras('"a\tb"'),
    "ids-odd": stream_of(
        data({"id": 7, "created": "now", "model": None, "object": [], "choices": []}), *HELLO
    ),
    **{
        f"ids-odd-{k}": body_of(
            {
                **dict.fromkeys(("id", "created", "model", "object", "system_fingerprint"), v),
                "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}],
            }
        )
        for k, v in ODD_FIELDS.items()
    },
    **{
        f"logprobs-{name}": stream_of(
            data({"choices": [{"index": 0, "delta": {"content": "Hello"}, "logprobs": value}]}),
            *HELLO[1:],
        )
        for name, value in {
            **ODD_FIELDS,
            "empty": {},
            "content-null": {"content": None},
            "empty-list": [],
            "content-odd": {"content": [None, 1, {"token": 3, "logprob": "a", "bytes": "x"}]},
            "old-shape": {"tokens": ["Hello"], "token_logprobs": [-0.1], "text_offset": [0]},
        }.items()
    },
    "logprobs-nan": stream_of(
        data(
            b'{"choices":[{"index":0,"delta":{"content":"Hello"},"logprobs":{"content":'
            b'[{"token":"Hello","logprob":-Infinity,"bytes":null,"top_logprobs":[]}]}}]}'
        ),
        *HELLO[1:],
    ),
    **{
        f"refusal-{name}": stream_of(chunk({"refusal": value, "content": "Hello"}), *HELLO[1:])
        for name, value in {
            "false": False, "object": {}, "null": None, "empty": "", "list": [], "number": 0,
        }.items()
    },
    **{
        f"annotations-odd-{name}": whole({**MESSAGE, "annotations": value})
        for name, value in {**ODD_FIELDS, "objects": [{}, {"type": 3}, {"url": 4}]}.items()
    },
    "annotations-odd-stream": stream_of(HELLO[0], chunk({"annotations": "x"}), *HELLO[1:]),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTENTS)
def test_content_of_any_type_is_its_text(world: Scenario, name: str) -> None:
    behaviour, words = CONTENTS[name]
    expect_words(world, behaviour, words)


@pytest.mark.parametrize("name", SHAPES)
def test_choices_and_messages_in_other_shapes_are_read(world: Scenario, name: str) -> None:
    expect_words(world, SHAPES[name], "Hello there.")


@pytest.mark.parametrize("name", EXTRAS)
def test_fields_that_are_not_needed_cannot_fail_a_turn(world: Scenario, name: str) -> None:
    expect_words(world, EXTRAS[name], "Hello there.")


PAIR = {"prompt_tokens": 12, "completion_tokens": 3}


def usage(*values: Any) -> Behaviour:
    """A stream whose first chunks have these usages, and the last one of its own."""
    chunks = [
        data({"choices": [{"index": 0, "delta": {"content": ""}}], "usage": value})
        for value in values[:-1]
    ]
    return stream_of(*chunks, *HELLO[:3], data({"choices": [], "usage": values[-1]}), DONE)


def usage_whole(value: Any) -> Behaviour:
    return whole(MESSAGE, usage=value)


#: The tokens of input and output, None: no usage.
USAGES: dict[str, tuple[Behaviour, tuple[int, int] | None]] = {
    "usage-floats": (usage({"prompt_tokens": 12.0, "completion_tokens": 3.0}), (12, 3)),
    "usage-fractions": (usage({"prompt_tokens": 12.4, "completion_tokens": 3.4}), (12, 3)),
    "usage-strings": (usage({"prompt_tokens": "12", "completion_tokens": "3"}), (12, 3)),
    "usage-floats-whole": (usage_whole({"prompt_tokens": 12.0, "completion_tokens": 3.0}), (12, 3)),
    "usage-half": (usage({"prompt_tokens": 12}), (12, 0)),
    "usage-half-output": (usage({"completion_tokens": 3, "prompt_tokens": None}), (0, 3)),
    "usage-other-names": (usage({"input_tokens": 12, "output_tokens": 3}), (12, 3)),
    "usage-other-names-whole": (usage_whole({"input_tokens": 12, "output_tokens": 3}), (12, 3)),
    "usage-in-choice": (stream_of(*HELLO[:2], end("stop", usage=PAIR), DONE), (12, 3)),
    "usage-in-choice-whole": (
        body_of({"choices": [{"message": MESSAGE, "finish_reason": "stop", "usage": PAIR}]}),
        (12, 3),
    ),
    "usage-details-list": (usage({**PAIR, "prompt_tokens_details": [1]}), (12, 3)),
    "usage-details-string": (usage({**PAIR, "completion_tokens_details": "x"}), (12, 3)),
    "usage-details-floats": (
        usage({**PAIR, "prompt_tokens_details": {"cached_tokens": 1.5}}),
        (12, 3),
    ),
    "usage-details-odd-inside": (
        usage({**PAIR, "completion_tokens_details": {"reasoning_tokens": ["x"]}}),
        (12, 3),
    ),
    "usage-list": (usage([]), None),
    "usage-string": (usage("12"), None),
    "usage-null-parts": (usage({"prompt_tokens": None, "completion_tokens": None}), None),
    "usage-empty": (usage({}), None),
    "usage-number": (usage(15), None),
    "usage-list-whole": (usage_whole([1]), None),
    "usage-words": (usage({"prompt_tokens": "many", "completion_tokens": [3]}), None),
    "usage-true": (usage({"prompt_tokens": True, "completion_tokens": False}), None),
    "usage-extra": (usage({**PAIR, "queue_time": 0.1, "cost": None, "x": {"y": [1]}}), (12, 3)),
    "usage-null-after-good": (usage(PAIR, None), (12, 3)),
    "usage-null-parts-after-good": (
        usage(PAIR, {"prompt_tokens": None, "completion_tokens": None}),
        (12, 3),
    ),
    "usage-halves": (usage({"prompt_tokens": 12}, {"completion_tokens": 3}), (12, 3)),
    "usage-string-after-good": (usage(PAIR, "?"), (12, 3)),
    "usage-cumulative": (usage({"prompt_tokens": 12, "completion_tokens": 1}, PAIR), (12, 3)),
    "usage-negative": (usage({"prompt_tokens": -12, "completion_tokens": -3}), None),
    "usage-negative-half": (usage({"prompt_tokens": 12, "completion_tokens": -3}), (12, 0)),
    "usage-negative-whole": (usage_whole({"prompt_tokens": -1, "completion_tokens": 3}), (0, 3)),
    "usage-huge": (usage({"prompt_tokens": 10**30, "completion_tokens": 3}), (0, 3)),
    "usage-nan": (
        body_of(
            b'{"choices":[{"message":{"content":"Hello there."},"finish_reason":"stop"}],'
            b'"usage":{"prompt_tokens":NaN,"completion_tokens":3}}'
        ),
        (0, 3),
    ),
}


@pytest.mark.parametrize("name", USAGES)
def test_usage_is_counted_or_left(world: Scenario, name: str) -> None:
    behaviour, tokens = USAGES[name]
    response, _ = expect_words(world, behaviour, "Hello there.")
    counted = response.body["usage"]
    if tokens is None:
        assert counted is None
    else:
        assert (counted["input_tokens"], counted["output_tokens"]) == tokens
    assert "antiphon_tokens_total" in world.server.get("/metrics").body.decode()


class Ending(NamedTuple):
    status: str
    chat: str
    reason: str | None = None


COMPLETED = Ending("completed", "stop")
CUT = Ending("incomplete", "length", "max_output_tokens")
FILTERED = Ending("incomplete", "content_filter", "content_filter")

FINISH_REASONS: dict[str, tuple[Any, Ending]] = {
    "max_tokens-upper": ("MAX_TOKENS", CUT),
    "max_tokens": ("max_tokens", CUT),
    "length-upper": ("LENGTH", CUT),
    "max-chat": ("max_tokens", CUT),
    "max-output": ("max_output_tokens", CUT),
    "max-mixed": ("MaxTokens", CUT),
    "max-prefixed": ("FinishReason.MAX_TOKENS", CUT),
    "max-spaces": ("max tokens", CUT),
    "model_length": ("model_length", CUT),
    "safety-upper": ("SAFETY", FILTERED),
    "sensitive": ("sensitive", FILTERED),
    "content-filter-upper": ("CONTENT_FILTER", FILTERED),
    "recitation": ("RECITATION", FILTERED),
    "prohibited": ("PROHIBITED_CONTENT", FILTERED),
    "eos": ("eos", COMPLETED),
    "stop-upper": ("STOP", COMPLETED),
    "end_turn": ("end_turn", COMPLETED),
    "stop_sequence": ("stop_sequence", COMPLETED),
    "complete": ("COMPLETE", COMPLETED),
    "unheard_of": ("sundown", COMPLETED),
    "eos_token": ("eos_token", COMPLETED),
    "empty-end": ("", COMPLETED),
    "null-end": (None, COMPLETED),
    "false": (False, COMPLETED),
    "true": (True, COMPLETED),
    "number": (1, COMPLETED),
    "object": ({"type": "length"}, CUT),
    "list": ([], COMPLETED),
}
FAILED_REASONS = (
    *("abort", "ABORT", "insufficient_system_resource", "network_error", "error", "cancelled"),
    *("Timeout", "MALFORMED_FUNCTION_CALL", "engine_overloaded"),
)


@pytest.mark.parametrize("form", ["stream", "whole"])
@pytest.mark.parametrize("name", FINISH_REASONS)
def test_finish_reasons_in_any_case(world: Scenario, name: str, form: str) -> None:
    reason, ending = FINISH_REASONS[name]
    behaviour = (
        stream_of(*HELLO[:2], end(reason), DONE) if form == "stream" else whole(MESSAGE, reason)
    )
    response, _ = expect_words(world, behaviour, "Hello there.", ending.status, ending.chat)
    details = response.body["incomplete_details"]
    assert (details and details["reason"]) == ending.reason


@pytest.mark.parametrize("value", ["", None, "null", "None", False], ids=str)
def test_a_chunk_may_have_no_finish_reason_in_many_ways(world: Scenario, value: Any) -> None:
    chunks = [chunk({"content": one}, value) for one in ("Hello", " there.")]
    expect_words(
        world, stream_of(*chunks, end("length"), DONE), "Hello there.", "incomplete", "length"
    )
    expect_words(world, stream_of(*chunks, DONE), "Hello there.")


def test_a_whole_answer_needs_no_finish_reason(world: Scenario) -> None:
    expect_words(world, body_of({"choices": [{"message": MESSAGE}]}), "Hello there.")


@pytest.mark.parametrize("reason", FAILED_REASONS)
def test_a_finish_reason_that_is_a_failure_keeps_the_words(world: Scenario, reason: str) -> None:
    response, completion = ask_both(world, stream_of(*HELLO[:2], end(reason), DONE), stream=True)
    response.expect("failed", "Hello there.")
    completion.expect("error", "Hello there.")
    for one in (response, completion):
        assert one.error is not None
        assert reason in one.error["message"]
    response, completion = ask_both(world, whole(MESSAGE, reason), stream=False)
    for one in (response.expect("error"), completion.expect("error")):
        assert one.error is not None
        assert reason in one.error["message"]
    assert response.error is not None
    stored = world.server.get(f"/v1/responses/{response.error['response_id']}").json
    assert stored["status"] == "failed"
    assert stored["output"][0]["content"][0]["text"] == "Hello there."


REFUSALS = {
    "refusal-whole": whole({"content": None, "refusal": "I will not."}),
    "refusal-stream": stream_of(
        chunk({"refusal": "I will"}), chunk({"refusal": " not."}), end("stop"), DONE
    ),
    "refusal-part": whole({"content": [{"type": "refusal", "refusal": "I will not."}]}),
    "refusal-without-finish": stream_of(chunk({"refusal": "I will not."}), DONE),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_shown(world: Scenario, name: str) -> None:
    behaviour = REFUSALS[name]
    response, completion = ask_both(world, behaviour, stream=is_stream(behaviour))
    assert response.expect("completed", "").refusal == "I will not."
    assert completion.expect("stop", "").refusal == "I will not."


def detail(words: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "reasoning.text", "text": words, **fields}


ENCRYPTED = {"type": "reasoning.encrypted", "data": "QUJD", "id": "r"}
THOUGHTS = {
    "thoughts-content": stream_of(
        chunk({"reasoning_content": "Let me"}), chunk({"reasoning_content": " see."}), *HELLO
    ),
    "thoughts-plain": stream_of(chunk({"reasoning": "Let me see."}), *HELLO),
    "thoughts-both": stream_of(
        *(chunk({"reasoning": w, "reasoning_content": w}) for w in ("Let me", " see.")), *HELLO
    ),
    "thoughts-object": stream_of(chunk({"reasoning": {"content": "Let me see."}}), *HELLO),
    "thoughts-details": stream_of(
        chunk({"reasoning_details": [detail("Let me")]}),
        chunk({"reasoning_details": [detail(" see.")]}),
        *HELLO,
    ),
    "thoughts-details-and-plain": stream_of(
        chunk({"reasoning": "Let me", "reasoning_details": [detail("Let me")]}),
        chunk({"reasoning": " see.", "reasoning_details": [detail(" see.")]}),
        *HELLO,
    ),
    "thoughts-null-beside": stream_of(
        chunk({"reasoning_content": None, "reasoning": "Let me see."}), *HELLO
    ),
    "thoughts-whole-chat": whole({**MESSAGE, "reasoning_content": "Let me see."}),
    "thoughts-between": stream_of(
        HELLO[0], chunk({"reasoning_content": "Let me see."}), *HELLO[1:]
    ),
    "thoughts-encrypted-details": stream_of(
        chunk({"reasoning_details": [None, ENCRYPTED, detail("Let me see."), {}, 3]}), *HELLO
    ),
    "thoughts-empty-beside": stream_of(
        chunk({"reasoning_content": "", "reasoning": "Let me see."}), *HELLO
    ),
    "thoughts-object-whole": whole({**MESSAGE, "reasoning": {"content": "Let me see."}}),
    "thoughts-details-whole": whole({**MESSAGE, "reasoning_details": [detail("Let me see.")]}),
    "thoughts-details-repeated-at-end": stream_of(
        chunk({"reasoning": "Let me see."}),
        *HELLO[:2],
        chunk({"reasoning_details": [detail("Let me see.", signature="s")]}),
        *HELLO[2:],
    ),
    "thoughts-summary-details": whole(
        {**MESSAGE, "reasoning_details": [{"type": "reasoning.summary", "summary": "Let me see."}]}
    ),
    "thoughts-list": whole({**MESSAGE, "reasoning": [{"text": "Let me"}, " see."]}),
    "thoughts-part": whole(
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "Let me see."}]},
                {"type": "text", "text": "Hello there."},
            ]
        }
    ),
    "thoughts-odd-beside": whole({**MESSAGE, "thinking": True, "reasoning": "Let me see."}),
}


@pytest.mark.parametrize("name", THOUGHTS)
def test_reasoning_is_shown_once(world: Scenario, name: str) -> None:
    for one in expect_words(world, THOUGHTS[name], "Hello there."):
        assert one.reasoning == "Let me see."


def test_reasoning_alone_is_an_answer(world: Scenario) -> None:
    only = chunk({"reasoning_content": "Let me see."})
    for behaviour in (stream_of(only, end("stop"), DONE), stream_of(only, DONE)):
        for one in expect_words(world, behaviour, ""):
            assert one.reasoning == "Let me see."


@pytest.mark.parametrize("value", [3, True, {"effort": "low"}, [], {"content": None}], ids=str)
def test_reasoning_without_words_is_none(world: Scenario, value: Any) -> None:
    behaviour = stream_of(chunk({"reasoning_details": value, "thinking": {}}), *HELLO)
    for one in expect_words(world, behaviour, "Hello there."):
        assert not one.reasoning


@pytest.mark.parametrize(
    "words", ["<think>Let me see.</think>Hello there.", "Let me see.</think>Hello there."]
)
def test_inline_thinking_loses_no_word(world: Scenario, words: str) -> None:
    for behaviour in (stream_of(text(words), end("stop"), DONE), whole({"content": words})):
        for one in ask_both(world, behaviour, stream=is_stream(behaviour)):
            assert "Let me see." in one.text + one.reasoning
            assert "Hello there." in one.text


S = "The balance is used up."
NO_ANSWERS: dict[str, Any] = {
    "base-resp": {"choices": None, "base_resp": {"status_code": 1008, "status_msg": S}},
    "code-msg": {"code": 500, "msg": S},
    "detail": {"detail": S},
    "error-object": {"error": {"message": S}},
    "error-string": {"error": S},
    "error-beside-choices": {"choices": [], "error": {"message": S}},
    "code-message": {"code": "x", "message": S},
    "message": {"message": S},
    "detail-list": {"detail": [{"loc": ["body"], "msg": S}]},
    "errors": {"errors": [{"message": S}]},
    "error_msg": {"error_code": 17, "error_msg": S},
    "error-in-choice": {"choices": [{"index": 0, "error": {"message": S}, "message": None}]},
    "base-resp-beside-empty-choices": {
        "choices": [],
        "base_resp": {"status_code": "1008", "status_msg": S},
    },
    "unknown-shape": {"result": {"why": S}},
    "errorMessage": {"errorCode": "E1", "errorMessage": S},
    "problem": {"type": "about:blank", "title": "Bad", "detail": S, "status": 503},
    "success-false": {"success": False, "data": None, "msg": S},
}


@pytest.mark.parametrize("form", ["whole", "stream", "whole-to-stream"])
@pytest.mark.parametrize("name", NO_ANSWERS)
def test_an_ok_that_holds_no_answer_fails_with_its_words(
    world: Scenario, name: str, form: str
) -> None:
    value = NO_ANSWERS[name]
    behaviour = stream_of(data(value), DONE) if form == "stream" else body_of(value)
    world.upstream_answers(lambda request: behaviour)
    for one in (world.respond(stream=form != "whole"), world.chat(stream=form != "whole")):
        assert one.status in ("error", "failed")
        assert one.error is not None
        assert S in one.error["message"]


GOOD_STATUS: dict[str, dict[str, Any]] = {
    "base-resp-fine": {"base_resp": {"status_code": 0, "status_msg": ""}},
    "base-resp-odd": {"base_resp": "x"},
    "error-null": {"error": None},
    "error-empty": {"error": ""},
    "error-object": {"error": {}},
    "error-word-null": {"error": "null"},
    "error-false": {"error": False},
    "error-list": {"error": []},
    "error-success": {"error": {"code": 0, "message": "success"}},
    "error-nulls": {"error": {"message": None, "code": None}},
    "code-and-msg": {"code": 200, "msg": "success"},
    "message": {"message": "ok", "detail": "fine"},
}


@pytest.mark.parametrize("name", GOOD_STATUS)
def test_a_status_beside_a_good_answer_is_nothing(world: Scenario, name: str) -> None:
    fields = GOOD_STATUS[name]
    choices = [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}]
    expect_words(world, body_of({"choices": choices, **fields}), "Hello there.")
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], **fields}
    expect_words(world, stream_of(*HELLO[:2], data(last), DONE), "Hello there.")


def test_an_error_beside_words_keeps_them(world: Scenario) -> None:
    status = {"base_resp": {"status_code": 1027, "status_msg": S}}
    event = data({"choices": [{"index": 0, "delta": {"content": " there."}}], **status})
    for one in ask_both(world, stream_of(HELLO[0], event, DONE), stream=True):
        assert one.status in ("failed", "error")
        assert one.text == "Hello there."
        assert one.error is not None
        assert S in one.error["message"]


@pytest.mark.parametrize(
    "notice",
    [
        {"type": "ping"},
        {"type": "keepalive", "message": "still here"},
        {"type": "status", "code": 0, "msg": "queued"},
        {"object": "chat.completion.chunk", "choices": [], "x_status": "queued"},
        {},
    ],
    ids=str,
)
def test_a_notice_is_no_error(world: Scenario, notice: dict[str, Any]) -> None:
    expect_words(
        world, stream_of(data(notice), *HELLO[:2], data(notice), *HELLO[2:]), "Hello there."
    )


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_a_good_end_does_not_undo_a_bad_one(world: Scenario, reason: str) -> None:
    behaviour = stream_of(*HELLO[:2], end(reason), end("stop"), DONE)
    expect_words(world, behaviour, "Hello there.", "incomplete", reason)


NOTHING = {
    "role-then-done": stream_of(chunk({"role": "assistant", "content": ""}), DONE),
    "done-only": stream_of(DONE),
    "empty-choices": stream_of(data({"choices": []}), DONE),
    "usage-only": stream_of(data({"choices": [], "usage": PAIR}), DONE),
    "whole-empty-choices": body_of({"choices": []}),
    "whole-empty-object": body_of({}),
    "whole-message-null": body_of({"choices": [{"index": 0, "message": None}]}),
    "whole-no-words": body_of({"choices": [{"index": 0, "message": {"content": ""}}]}),
    "whole-usage-only": body_of({"usage": PAIR}),
    "tool-calls-announced": stream_of(chunk({"content": None}), end("tool_calls"), DONE),
    "tool-calls-announced-whole": whole({"content": None, "tool_calls": []}, "tool_calls"),
}


@pytest.mark.parametrize("name", NOTHING)
def test_no_words_and_no_finish_reason_are_no_answer(world: Scenario, name: str) -> None:
    behaviour = NOTHING[name]
    for one in ask_both(world, behaviour, stream=is_stream(behaviour)):
        assert one.status in ("error", "failed")
        assert one.error is not None
        assert one.error["code"] == "upstream_invalid_response"
