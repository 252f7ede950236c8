"""How upstreams write a chat completion's JSON: what has one meaning is read, over both APIs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.misbehaving_upstream import Behaviour
from support.scenario import (
    DONE,
    Scenario,
    body_of,
    chunk,
    data,
    end,
    stream_of,
    text,
    whole,
)
from support.upstream_answers import HELLO, MESSAGE, MISSING, ask_both, expect_words, is_stream


def room(content: Any) -> Behaviour:
    """An answer with a content between two others."""
    delta = {} if content is MISSING else {"content": content}
    return stream_of(text("Room "), chunk(delta), text("."), end("stop"), DONE)


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
    "content-spoken": (
        stream_of(
            chunk({"audio": {"id": "a", "transcript": "6"}}),
            chunk({"audio": {"data": "UklG"}}),
            chunk({"content": None, "audio": {"transcript": " or 7"}}),
            end("stop"),
            DONE,
        ),
        "6 or 7",
    ),
    "content-spoken-whole": (whole({"content": None, "audio": {"transcript": "6"}}), "6"),
    "content-named-text": (whole({"role": "assistant", "text": "6"}), "6"),
    "content-of-another-choice": (
        stream_of(data({"choices": [{"index": 1, "delta": {"content": "6"}}]}), end("stop"), DONE),
        "6",
    ),
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
