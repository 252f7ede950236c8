"""Usage, ends and errors of upstreams' chat completions, over both APIs."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from support.misbehaving_upstream import Behaviour
from support.scenario import DONE, Scenario, body_of, chunk, data, end, stream_of, whole
from support.upstream_answers import HELLO, MESSAGE, ask_both, expect_words, is_stream

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
    "usage-cached-beside": (usage({**PAIR, "cached_tokens": 4}), (12, 3)),
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
MORE_CUT = (
    *("max", "max_new_tokens", "token_limit", "model_context_window_exceeded", "context_full"),
    *("budget_exceeded", "out_of_tokens", "time_limit", "num_predict", "context_exhausted"),
    *("cut-off", "overflow"),
)
MORE_FILTERED = (
    *("censored", "unsafe", "policy_violation", "harmful", "BLOCKLIST", "IMAGE_SAFETY", "LANGUAGE"),
    *("guardrail_intervened", "content-filter", "inappropriate", "denied", "illegal", "security"),
)
MORE_COMPLETED = (
    *("stop_token", "eog", "<|im_end|>", "done", "success", "StopReason.END", "end-of-turn"),
    *("matched_stop", "harmony_end", "NONE"),
)
FINISH_REASONS |= {
    reason: (reason, ending)
    for reasons, ending in (
        (MORE_CUT, CUT),
        (MORE_FILTERED, FILTERED),
        (MORE_COMPLETED, COMPLETED),
    )
    for reason in reasons
}
#: Where else a reason stands.
REASON_PLACES: dict[str, dict[str, Any]] = {
    "choice-stop_reason": {"choices": [{"index": 0, "delta": {}, "stop_reason": "max_tokens"}]},
    "choice-camel": {"choices": [{"index": 0, "delta": {}, "finishReason": "MAX_TOKENS"}]},
    "choice-native": {
        "choices": [{"delta": {}, "finish_reason": None, "native_finish_reason": "max_tokens"}]
    },
    "delta": {"choices": [{"index": 0, "delta": {"finish_reason": "length"}}]},
    "beside-choices": {"choices": [{"index": 0, "delta": {}}], "finish_reason": "length"},
}
FAILED_REASONS = (
    *("TOO_MANY_TOOL_CALLS", "UNEXPECTED_TOOL_CALL", "MISSING_THOUGHT_SIGNATURE", "OOM"),
    *("server_shutdown", "out_of_memory", "deadline_exceeded", "connection_reset", "terminated"),
    *("engine_dead", "internal"),
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


@pytest.mark.parametrize("name", REASON_PLACES)
def test_a_finish_reason_in_another_place_counts(world: Scenario, name: str) -> None:
    behaviour = stream_of(*HELLO[:2], data(REASON_PLACES[name]), DONE)
    expect_words(world, behaviour, "Hello there.", "incomplete", "length")


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
    "ok-false": {"ok": False, "reason": S},
    "text-beside-a-code": {"text": S, "error_code": 50001},
    "retmsg": {"retcode": 1001, "retmsg": S},
    "header": {"header": {"code": 10013, "message": S}, "payload": None},
    "fault": {"fault": {"faultstring": S, "detail": {"errorcode": "x"}}},
    "error-upper": {"Error": {"Code": "X", "Message": S}},
    "metadata": {"ResponseMetadata": {"RequestId": "1", "Error": {"Code": "A", "Message": S}}},
    "code-and-reason": {"code": "E", "reason": S},
    "error-in-message": {
        "choices": [{"message": {"content": "", "error": {"message": S}}, "finish_reason": "error"}]
    },
    "error-in-delta": {"choices": [{"index": 0, "delta": {"error": {"message": S}}}]},
    "message-in-data": {"code": 500, "data": {"message": S}},
    "exception": {"exception": S},
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


@pytest.mark.parametrize("name", [one for one in NO_ANSWERS if one != "unknown-shape"])
def test_what_follows_words_in_place_of_an_end_fails_with_its_words(
    world: Scenario, name: str
) -> None:
    behaviour = stream_of(HELLO[0], data(NO_ANSWERS[name]), DONE)
    for one in ask_both(world, behaviour, stream=True):
        assert one.status in ("failed", "error")
        assert one.text == "Hello"
        assert S in str(one.error)


@pytest.mark.parametrize(
    "notice",
    [
        {"type": "ping"},
        {"type": "keepalive", "message": "still here"},
        {"type": "status", "code": 0, "msg": "queued"},
        {"object": "chat.completion.chunk", "choices": [], "x_status": "queued"},
        {"object": "chat.completion.chunk", "model": "m", "choices": None, "error": None},
        {},
    ],
    ids=str,
)
def test_a_notice_is_no_error(world: Scenario, notice: dict[str, Any]) -> None:
    good = stream_of(data(notice), *HELLO[:2], data(notice), *HELLO[2:])
    expect_words(world, good, "Hello there.")
    # With the end marker alone, too.
    expect_words(world, stream_of(*HELLO[:2], data(notice), DONE), "Hello there.")


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
