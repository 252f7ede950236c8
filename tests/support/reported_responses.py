"""Reported responses: answers of Responses APIs as servers were reported to send them."""

from __future__ import annotations

from typing import Any

from support.answer_tables import HELLO, Meant, calls, fails, says
from support.misbehaving_upstream import Behaviour
from support.responses_events import (
    SAID,
    WORDS,
    added,
    arguments,
    arguments_done,
    end,
    event,
    item_done,
    message,
    response,
    text,
    thought,
)
from support.responses_events import call as called
from support.scenario import body_of, data, stream_of
from support.upstream_answers import C2, ONE, TWO

CALL, OTHER = called(), called(arguments=C2, call_id="call_2")
OPEN = '{"c":"San Fra'
PIECES = arguments('{"c"') + arguments(":1}")
GAP = message("\n\n", "msg_gap")


def whole(*items: Any, **fields: Any) -> Behaviour:
    return body_of(response(*items, **fields))


CUT = called(arguments=OPEN)
#: What is cut is no call, whatever the response says of itself.
CUTS = {
    "whole": fails("lookup", whole(CUT)),
    "second": fails("lookup", whole(CALL, {**OTHER, "arguments": OPEN})),
    "streamed": fails("lookup", stream_of(added(CALL), arguments(OPEN), item_done(CUT), end(CUT))),
    "streamed-without-end": fails("lookup", stream_of(added(CALL), arguments(OPEN), end())),
    "done-with-less": fails(
        "lookup", stream_of(added(CALL), arguments_done(OPEN), item_done(CUT), end(CUT))
    ),
    "behind-words": fails(
        "lookup", stream_of(SAID, added(CUT, 1), item_done(CUT, 1), end(message(), CUT)), HELLO
    ),
    "brace-is-missing": calls(ONE, whole(called(arguments='{"c":1'))),
    "brace-is-missing-in-a-stream": calls(
        ONE,
        stream_of(added(CALL), arguments('{"c":1'), item_done(called(arguments='{"c":1')), end()),
    ),
    "no-json-but-whole": calls([("lookup", '{"c": one}')], whole(called(arguments='{"c": one}'))),
}
#: Ids, indexes and items that disagree.
MARKS = {
    "other-call-id-at-the-end": calls(
        ONE,
        stream_of(
            added(CALL), PIECES, item_done(CALL), end({**CALL, "id": "fc_x", "call_id": "call_x"})
        ),
    ),
    "other-call-ids-of-two": calls(
        TWO,
        stream_of(
            *(added(CALL), PIECES, item_done(CALL), added(OTHER, 1), item_done(OTHER, 1)),
            end({**CALL, "id": "fc_x", "call_id": "x"}, {**OTHER, "id": "fc_y", "call_id": "y"}),
        ),
    ),
    "other-call-id-in-done": calls(
        ONE, stream_of(added(CALL), PIECES, item_done({**CALL, "call_id": "call_x"}), end())
    ),
    "part-of-words-begins-a-thought": says(
        HELLO,
        stream_of(
            added(thought("", content=None)),
            event(
                "content_part.added",
                item_id="rs_1",
                output_index=0,
                content_index=0,
                part={"type": "output_text", "text": "", "annotations": []},
            ),
            event(
                "reasoning_text.delta",
                item_id="rs_1",
                output_index=0,
                content_index=0,
                delta="Let me see.",
            ),
            added(message(), 1),
            text(HELLO, index=1),
            end(),
        ),
        reasoning="Let me see.",
    ),
    "gap-beside-a-call": calls(ONE, whole(GAP, CALL), text="\n\n"),
    "empty-message-beside-a-call": calls(ONE, whole(message(""), CALL)),
    "created-at-is-a-fraction": Meant(whole(message(), created_at=1760000000.25)),
    "response-is-a-text": Meant(stream_of(SAID, event("completed", response="resp_1"))),
    "reasoning-of-nulls": Meant(
        whole({"type": "reasoning", "summary": None, "content": None, "id": None}, message())
    ),
    "hosted-tool-beside": Meant(
        stream_of(
            added({"type": "code_interpreter_call", "id": "ci_1", "code": ""}),
            event("code_interpreter_call_code.delta", item_id="ci_1", output_index=0, delta="1"),
            event("code_interpreter_call.in_progress", item_id="ci_1", output_index=0),
            *(added(message(), 1), text(HELLO, index=1), end()),
        )
    ),
}
FAILED = {"type": "response.failed", "response": {"status": "failed", "error": None}}
#: Failures within a response.
FAILURES = {
    "error-event-flat": fails(
        "not found",
        stream_of(data({"type": "error", "code": "400", "message": "not found"})),
    ),
    "error-event-in-error": fails(
        "not found",
        stream_of(WORDS, data({"type": "error", "error": {"message": "not found"}})),
        HELLO,
    ),
    "error-event-response-error": fails(
        "quota", stream_of(data({"type": "response.error", "error": {"message": "quota"}}))
    ),
    "failed-without-a-reason": fails("", stream_of(WORDS, data(FAILED)), HELLO),
    "too-long-in-a-failure": fails(
        "too long",
        stream_of(
            data(
                {
                    "type": "response.failed",
                    "response": {
                        "status": "failed",
                        "error": {
                            "code": "context_length_exceeded",
                            "message": "Your input is too long.",
                        },
                    },
                }
            )
        ),
        code="context_length_exceeded",
    ),
    "ends-without-an-end": fails("broke off", stream_of(added(message()), WORDS), HELLO),
}
