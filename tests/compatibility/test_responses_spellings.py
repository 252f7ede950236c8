"""How upstreams of the Responses dialect write what they say: other names, places and shapes."""

from __future__ import annotations

import json
from typing import Any

from support.answer_tables import HELLO, Meaning, Meant, calls, check_answers, fails, says
from support.misbehaving_upstream import Behaviour
from support.responses_events import (
    SAID,
    WORDS,
    Json,
    added,
    arguments,
    end,
    event,
    item_done,
    message,
    response,
    text,
)
from support.responses_events import call as called
from support.scenario import Scenario, body_of, data, stream_of
from support.upstream_answers import C1, C2, ONE, TWO

HM = "Let me see."
S = "The balance is used up."
CALL, OTHER = called(), called(arguments=C2, call_id="call_2")
EVENTS: list[Json] = [
    json.loads(one[6:]) for one in (WORDS + end(message())).split(b"\n") if one[:5] == b"data:"
]


def whole(*items: Any, **fields: Any) -> Behaviour:
    return body_of(response(*items, **fields))


def of_words(content: Any) -> Behaviour:
    return whole(message(content=content))


def without(item: Json, *names: str) -> Json:
    return {name: value for name, value in item.items() if name not in names}


def unnamed(item: Json) -> Json:
    return without(item, "arguments")


FRAMES = {
    "end-in-other-case": Meant(stream_of(SAID, b"data: [Done]\n\n")),
    "end-notice": Meant(stream_of(SAID, data({"type": "done"}))),
    "end-event": Meant(stream_of(SAID, b"event: done\n\n")),
    "error-over-lines": fails(
        "Sorry.",
        stream_of(WORDS, json.dumps({"error": {"message": "Sorry."}}, indent=2).encode()),
        HELLO,
    ),
    "events-over-lines": Meant(
        stream_of(*(b"data: " + json.dumps(one, indent=1).encode() + b"\n\n" for one in EVENTS))
    ),
    "page-behind-words": fails("HTML", stream_of(WORDS, b"<html>502</html>", close=True), HELLO),
    "body-as-text": Meant(body_of({"body": json.dumps(response(message()))})),
    "events-in-a-list": Meant(body_of(EVENTS)),
    "event-within-data": Meant(
        stream_of(*(data({"event": one["type"], "data": one}) for one in EVENTS))
    ),
    "event-in-place-of-type": Meant(
        stream_of(*(data({**without(one, "type"), "event": one["type"]}) for one in EVENTS))
    ),
}
#: Events that are failures, behind words.
REASON: Json = {"message": "Sorry."}
FAILURES: list[Json] = [
    {"type": "response.failed", "response": None, "message": "Sorry."},
    {"type": "response.failed", "response": {"status": "failed", "message": "Sorry."}},
    {"type": "response.failed", "response": {"status": "failed", "detail": "Sorry."}},
    {
        "type": "response.failed",
        "response": {"status": "failed", "errors": [REASON]},
    },
    {"type": "response.failed", "response": {"status": "failed", "error": ["Sorry."]}},
    {"type": "server_error", "message": "Sorry."},
    {"type": "internal_error", "error": {"message": "Sorry."}},
    {
        "type": "response.incomplete",
        "response": {"status": "failed", "error": REASON},
    },
]
NO_ANSWERS: list[Json] = [
    {"output": [], "detail": S},
    {"output": [{"type": "error", "message": S}]},
    {"output": [{"type": "error", "error": {"message": S}}]},
    {"output": [], "base_resp": {"status_code": 1, "status_msg": S}},
    {"output": [], "status": "failed", "last_error": {"message": S}},
]
STATUSES: dict[Meaning, tuple[str, ...]] = {
    "completed": ("COMPLETE", "succeeded", "stop", "finished"),
    "length": ("INCOMPLETE", "truncated", "max_tokens_reached"),
    "failed": ("timeout", "rejected", "canceled"),
    "content_filter": ("content_filter", "blocked", "safety"),
}
REASONS: dict[Meaning, tuple[Any, ...]] = {
    "length": ("MAX_OUTPUT_TOKENS", "max_tool_calls", "length"),
    "content_filter": ("moderation", "content-filter", "policy", "guardrail", "recitation"),
    "failed": ("server_error", "interrupted"),
}
ENDS = {
    **{
        f"status-{status}": Meant(stream_of(WORDS, end(status=status)), meaning)
        for meaning, statuses in STATUSES.items()
        for status in statuses
    },
    **{
        f"reason-{reason}": Meant(
            stream_of(
                WORDS,
                end(name="incomplete", status="incomplete", incomplete_details={"reason": reason}),
            ),
            meaning,
        )
        for meaning, reasons in REASONS.items()
        for reason in reasons
    },
    "camel-counts": Meant(
        whole(message(), usage={"inputTokens": 12, "outputTokens": 3}), tokens=(12, 3)
    ),
}
THOUGHT: Json = {"type": "reasoning_text", "text": HM}
PARTS: Json = {"type": "output_text", "text": HELLO}
ITEMS = {
    "object-of-json": says('{"a":1}', of_words({"a": 1})),
    "object-in-a-part": says('{"a":1}', of_words([{"type": "output_text", "text": {"a": 1}}])),
    "items-by-number": Meant(body_of({"output": {"0": message()}})),
    "message-of-chat": Meant(whole({"type": "message", "message": {"content": HELLO}})),
    "type-in-other-case": Meant(whole(message(type="Message"))),
    "type-output_message": Meant(whole(message(type="output_message"))),
    "refusal-in-text": says("", of_words([{"type": "refusal", "text": "No."}]), refusal="No."),
    "reasoning-text": Meant(whole({"type": "reasoning", "text": HM}, message()), reasoning=HM),
    "thinking": Meant(whole({"type": "thinking", "thinking": HM}, message()), reasoning=HM),
    "reasoning-part": Meant(
        of_words([{"type": "reasoning_text", "text": HM}, PARTS]), reasoning=HM
    ),
    "thinking-part": Meant(of_words([{"type": "thinking", "thinking": HM}, PARTS]), reasoning=HM),
    "reasoning-beside": Meant(whole(message(reasoning_content=HM)), reasoning=HM),
    "reasoning-event": Meant(
        stream_of(
            event("reasoning_content.delta", delta=HM, item_id="r", output_index=0),
            text("Hello", index=1),
            text(" there.", index=1),
            end(),
        ),
        reasoning=HM,
    ),
}
CALLS = {
    "parameters": calls(ONE, whole({**unnamed(CALL), "parameters": {"c": 1}})),
    "args": calls(ONE, whole({**unnamed(CALL), "args": {"c": 1}})),
    "object-in-a-list": calls(ONE, whole({**CALL, "arguments": [{"c": 1}]})),
    "type-function": calls(ONE, whole({**CALL, "type": "function"})),
    "type-functionCall": calls(ONE, whole({**CALL, "type": "functionCall"})),
    "tool_name": calls(
        ONE, whole({"type": "tool_call", "id": "c", "tool_name": "lookup", "arguments": C1})
    ),
    "name-in-a-list": calls(ONE, whole({**CALL, "name": ["lookup"]})),
    "part-of-a-message": calls(
        ONE, of_words([{"type": "tool_use", "id": "t", "name": "lookup", "input": {"c": 1}}])
    ),
    "part-beside-words": calls(
        ONE,
        of_words([PARTS, {"type": "function_call", "name": "lookup", "arguments": C1}]),
        text=HELLO,
    ),
    "beside-the-output": calls(
        ONE,
        body_of(
            response(message())
            | {"tool_calls": [{"id": "t", "function": {"name": "lookup", "arguments": C1}}]}
        ),
        text=HELLO,
    ),
    "glued": calls(TWO, whole({**CALL, "arguments": C1 + C2})),
    "behind-it-a-fence": calls(ONE, whole({**CALL, "arguments": C1 + "\n```"})),
    "ids-empty": calls(TWO, whole(*({**it, "id": "", "call_id": ""} for it in (CALL, OTHER)))),
    "id-of-two": calls(TWO, whole(CALL, {**OTHER, "call_id": "call_1"})),
    "pieces-without-marks": calls(
        TWO,
        stream_of(
            *(added(CALL, None), arguments(C1, None, None)),
            *(added(OTHER, None), arguments(C2, None, None)),
            end(),
        ),
    ),
    "pieces-by-index": calls(
        TWO,
        stream_of(
            *(added(CALL, 0), added(OTHER, 1)),
            *(arguments('{"c"', None, it) for it in (0, 1)),
            *(arguments(f":{it + 1}}}", None, it) for it in (0, 1)),
            end(),
        ),
    ),
    "cumulative": calls(
        ONE, stream_of(added(CALL), arguments('{"c"'), arguments(C1), item_done(CALL), end(CALL))
    ),
}


def test_frames_and_wrappers(responses_world: Scenario) -> None:
    check_answers(responses_world, FRAMES)


def test_failures_keep_the_words_before_them(responses_world: Scenario) -> None:
    table = {str(one): fails("Sorry.", stream_of(WORDS, data(one)), HELLO) for one in FAILURES}
    check_answers(responses_world, table)


def test_the_words_of_an_answer_that_is_none(responses_world: Scenario) -> None:
    check_answers(responses_world, {str(one): fails(S, body_of(one)) for one in NO_ANSWERS})


def test_ends_by_other_words(responses_world: Scenario) -> None:
    check_answers(responses_world, ENDS)


def test_items_in_other_shapes(responses_world: Scenario) -> None:
    check_answers(responses_world, ITEMS)


def test_calls_in_other_shapes(responses_world: Scenario) -> None:
    check_answers(responses_world, CALLS)
