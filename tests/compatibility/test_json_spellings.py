"""How upstreams write what an answer holds: contents, thoughts, counts and ends elsewhere."""

from __future__ import annotations

import json
from typing import Any

from support.answer_tables import HELLO, Meaning, Meant, check_answers, fails, says
from support.misbehaving_upstream import Behaviour
from support.scenario import DONE, Json, Scenario, body_of, chunk, data, end, stream_of, text, whole

A, B = text("Hello"), text(" there.")
GOOD = (A, B, end(), DONE)
MESSAGE: Json = {"role": "assistant", "content": HELLO}
HM = "Let me see."
S = "The balance is used up."


def choice(**fields: Any) -> Json:
    return {"choices": [{"index": 0, **fields}]}


def deltas(*given: Any) -> Behaviour:
    return stream_of(*map(chunk, given), end(), DONE)


def answer_of(**fields: Any) -> Behaviour:
    return whole({**MESSAGE, **fields})


def thinks(behaviour: Behaviour) -> Meant:
    return says(HELLO, behaviour, reasoning=HM)


CONTENTS = {
    "object-of-json": says('{"city":"Rome","n":3}', answer_of(content={"city": "Rome", "n": 3})),
    "list-of-json": says('[{"a":1},{"a":2}]', answer_of(content=[{"a": 1}, {"a": 2}])),
    "nested-json": says('{"a":{"b":[1,2]}}', answer_of(content={"a": {"b": [1, 2]}})),
    "json-of-ollama": says(
        '{"city":"Rome"}',
        body_of({"message": {"content": {"city": "Rome"}}, "done": True, "done_reason": "stop"}),
    ),
    "part-with-content": Meant(deltas({"content": [{"type": "text", "content": HELLO}]})),
    "parts-in-parts": Meant(answer_of(content={"parts": [{"text": "Hello"}, {"text": " there."}]})),
    "deltas-in-a-list": Meant(deltas([{"content": "Hello"}, {"content": " there."}])),
    "deltas-in-a-list-with-role": Meant(deltas([{"role": "assistant"}, "Hello", " there."])),
    "text-beside-content": Meant(deltas({"content": HELLO, "text": HELLO})),
    "role-twice": Meant(
        deltas({"role": "assistant", "content": ""}, {"role": "assistant"}, MESSAGE)
    ),
    "choices-in-a-list": Meant(body_of({"choices": [[{"message": MESSAGE}]]})),
    "choices-as-text": Meant(body_of({"choices": json.dumps([{"message": MESSAGE}])})),
    "choice-below-zero": Meant(body_of({"choices": [{"index": -1, "message": MESSAGE}]})),
    "refusal-of-parts": says(
        "",
        answer_of(content=None, refusal=[{"text": "I will"}, {"text": " not."}]),
        refusal="I will not.",
    ),
    "refusal-object": says("", answer_of(content=None, refusal={"text": "No."}), refusal="No."),
    "refusal-true": Meant(answer_of(refusal=True), refusal=""),
    "camel-counts": Meant(
        whole(MESSAGE, usage={"promptTokens": 12, "completionTokens": 3}), tokens=(12, 3)
    ),
    "camel-counts-of-converse": Meant(
        whole(MESSAGE, usage={"inputTokens": 12, "outputTokens": 3}), tokens=(12, 3)
    ),
    **{
        f"counts-{name}": Meant(whole(MESSAGE, usage=usage), tokens=(12, 3))
        for name, usage in {
            "of-a-total": {"prompt_tokens": 12, "total_tokens": 15},
            "of-a-total-less-words": {"completion_tokens": 3, "total_tokens": 15},
            "of-gemini": {"promptTokenCount": 12, "candidatesTokenCount": 3},
            "of-gemini-snake": {"prompt_token_count": 12, "candidates_token_count": 3},
            "in-pascal": {"PromptTokens": 12, "CompletionTokens": 3},
            "generated": {"prompt_tokens": 12, "generated_tokens": 3},
            "in-a-list": [{"prompt_tokens": 12, "completion_tokens": 3}],
            "within-usage": {"usage": {"prompt_tokens": 12, "completion_tokens": 3}},
            "within-tokens": {"tokens": {"input_tokens": 12, "output_tokens": 3}},
        }.items()
    },
    "comma-before-the-end": Meant(
        stream_of(*(one.replace(b"}\n\n", b",}\n\n") for one in GOOD[:-1]), DONE)
    ),
    "python": Meant(body_of(repr({"choices": [{"message": MESSAGE, "logprobs": None}]}).encode())),
    "python-events": Meant(
        stream_of(*(data(repr(json.loads(one[6:])).encode()) for one in GOOD[:-1]), DONE)
    ),
    "completions": Meant(body_of({"completions": [{"completion": HELLO, "finish_reason": "end"}]})),
    "predictions": Meant(body_of({"predictions": [{"choices": [{"message": MESSAGE}]}]})),
    "text_output": Meant(body_of({"model_name": "m", "text_output": HELLO})),
    "counts-before-the-end": Meant(
        stream_of(A, B, data({"choices": [], "usage": {"prompt_tokens": 12.0}}), end(), DONE),
        tokens=(12, 0),
    ),
}
THOUGHTS = {
    "summary": thinks(answer_of(reasoning={"summary": HM})),
    "summary-list": thinks(
        answer_of(reasoning={"summary": [{"type": "summary_text", "text": HM}]})
    ),
    "list": thinks(answer_of(reasoning_content=[{"type": "text", "text": HM}])),
    "beside-the-message": thinks(body_of(choice(message=MESSAGE, reasoning=HM))),
    "beside-the-delta": thinks(
        stream_of(
            chunk({}, reasoning_content="Let me"), chunk({}, reasoning_content=" see."), *GOOD
        )
    ),
    "three-names": thinks(
        deltas({"reasoning": HM, "reasoning_content": HM, "thinking": HM}, MESSAGE)
    ),
    "names-in-turn": thinks(
        deltas({"reasoning": "Let me"}, {"reasoning_content": " see."}, MESSAGE)
    ),
    "details-object": thinks(
        deltas({"reasoning_details": {"type": "reasoning.text", "text": HM}}, MESSAGE)
    ),
    "details-strings": thinks(deltas({"reasoning_details": [HM]}, MESSAGE)),
    "blocks-alone": thinks(answer_of(thinking_blocks=[{"type": "thinking", "thinking": HM}])),
    "blocks-alone-stream": thinks(
        deltas(
            {"thinking_blocks": [{"type": "thinking", "thinking": "Let me"}]},
            {"thinking_blocks": [{"type": "thinking", "thinking": " see.", "signature": "s"}]},
            MESSAGE,
        )
    ),
    "blocks-beside-words": thinks(
        deltas(
            {"reasoning_content": HM, "thinking_blocks": [{"type": "thinking", "thinking": HM}]},
            MESSAGE,
        )
    ),
    "part-reasoning_text": thinks(
        deltas({"content": [{"type": "reasoning_text", "text": HM}]}, MESSAGE)
    ),
    "part-marked": thinks(
        answer_of(
            content=[{"type": "text", "text": HM, "thought": True}, {"type": "text", "text": HELLO}]
        )
    ),
    **{
        f"named-{name}": thinks(answer_of(**{name: HM}))
        for name in ("thought", "thoughts", "reasoningContent", "reasoning_summary")
    },
    "named-in-a-stream": thinks(
        deltas({"reasoningContent": "Let me"}, {"thoughts": " see."}, MESSAGE)
    ),
    "named-beside-words": thinks(
        deltas({"thoughts": HM, "content": "Hello"}, {"content": " there."})
    ),
    "part-of-gemini": thinks(answer_of(content=[{"text": HM, "thought": True}, {"text": HELLO}])),
    "part-of-converse-itself": thinks(
        answer_of(content=[{"reasoningContent": {"reasoningText": {"text": HM}}}, {"text": HELLO}])
    ),
    "part-of-converse": thinks(
        answer_of(
            content=[
                {"type": "reasoning_content", "reasoning_content": {"text": HM}},
                {"type": "text", "text": HELLO},
            ]
        )
    ),
}
REASONS: dict[Meaning, list[Any]] = {
    "content_filter": ["ERROR_TOXIC", "MODEL_ARMOR", "stop_by_safety", "risk_control", "filtered"],
    "length": [
        *("maxOutputTokens", "too_long", "context_length_exceeded", "LENGTH_LIMIT", ["length"]),
        {"name": "MAX_TOKENS"},
    ],
    "failed": [
        *("throttled", "stopped_by_user", "broken", "invalid", "no_capacity", "bad_response"),
        *("USER_CANCEL", "ERROR_LIMIT", "node_failure"),
    ],
    "completed": ["OTHER", "pause_turn", "natural", "endoftext", "model_stop"],
}
REASON_PLACES: list[Json] = [
    choice(delta={}, finish_details={"type": "max_tokens"}),
    choice(delta={}, stopReason="max_tokens"),
    choice(delta={}, done_reason="length"),
    choice(delta={"stop_reason": "max_tokens"}),
    {**choice(delta={}), "stop_reason": "max_tokens"},
    {"choices": [], "finish_reason": "length", "usage": {"prompt_tokens": 1}},
]
ENDS = {
    **{
        f"reason-{reason}": Meant(stream_of(A, B, end(reason), DONE), meaning)
        for meaning, reasons in REASONS.items()
        for reason in reasons
    },
    **{
        f"reason-at-{place}": Meant(stream_of(A, B, data(place), DONE), "length")
        for place in REASON_PLACES
    },
    "reason-beside-whole": Meant(
        body_of({"choices": [{"message": MESSAGE}], "stop_reason": "max_tokens"}), "length"
    ),
    # What only says that more comes is no end.
    **{
        f"no-reason-{reason}": fails(
            "",
            stream_of(chunk({"content": "Hello"}, reason), chunk({}, reason), close=True),
            "Hello",
        )
        for reason in (
            "not_finished",
            "FINISH_REASON_UNSPECIFIED",
            "in_progress",
            "continue",
            "nil",
        )
    },
}
NO_ANSWERS: list[Json] = [
    {"choices": [{"message": None, "finish_reason": "error"}], "msg": S},
    choice(message={"content": ""}, finish_reason="error", error_message=S),
    choice(delta={}, finish_reason="abort", error={"reason": S}),
    {"status": "failed", "reason": S},
    {"error": {"type": S}},
    {"resultCode": "500", "resultMsg": S},
    {"baseResponse": {"errCode": 5, "errMsg": S}},
    {"error": True, "message": S},
    {"warning": S, "choices": []},
    {"error": {"errors": [{"message": S}]}},
    {"errors": {"model": [S]}},
    {"meta": {"error": S}},
]


def test_contents_and_choices_in_other_shapes(world: Scenario) -> None:
    check_answers(world, CONTENTS)


def test_thoughts_in_other_places(world: Scenario) -> None:
    check_answers(world, THOUGHTS)


def test_ends_by_other_words_and_in_other_places(world: Scenario) -> None:
    check_answers(world, ENDS)


def test_the_words_of_an_answer_that_is_none(world: Scenario) -> None:
    table = {str(value): fails(S, body_of(value)) for value in NO_ANSWERS}
    table |= {f"stream {value}": fails(S, stream_of(data(value), DONE)) for value in NO_ANSWERS}
    check_answers(world, table)
