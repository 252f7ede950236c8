"""Reported calls: tool calls as servers and gateways were reported to send them."""

from __future__ import annotations

from typing import Any

from support.answer_tables import HELLO, calls, fails
from support.misbehaving_upstream import Behaviour
from support.scenario import DONE, Json, body_of, call, chunk, data, end, stream_of, text
from support.upstream_answers import (
    C1,
    C2,
    ONE,
    PIECES,
    TWO,
    entry,
    first,
    of_calls,
    then,
    whole_calls,
)

CALL, OTHER = first(arguments=C1), first(arguments=C2, index=1, id="call_b")
NOTHING = [("lookup", "{}")]
THREE = [*TWO, ("lookup", '{"c":3}')]


def continued(arguments: str) -> Json:
    """A later piece with explicit nulls."""
    return {
        **then(arguments),
        "id": None,
        "type": None,
        "function": {"name": None, "arguments": arguments},
    }


def message_of(**fields: Any) -> Behaviour:
    message = {"role": "assistant", "content": None, **fields}
    return body_of({"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]})


def delta_of(**fields: Any) -> Behaviour:
    return stream_of(chunk({"role": "assistant", **fields}), end("tool_calls"), DONE)


def choice_of(**fields: Any) -> Json:
    return {"choices": [{"index": 0, "finish_reason": "tool_calls", **fields}]}


#: Pieces of arguments that are sent again, or behind a beginning that was sent too early.
REPEATED = {
    "brace-then-all": calls(ONE, of_calls(first(), then("{"), then(C1))),
    "brace-and-quote-then-all": calls(ONE, of_calls(first(), then('{"'), then(C1))),
    "brace-then-all-in-pieces": calls(ONE, of_calls(first(), then("{"), then('{"c"'), then(":1}"))),
    "doubled-beginning-in-one": calls(ONE, of_calls(first(arguments='{"{"c":1}'))),
    "doubled-beginning-whole": calls(ONE, whole_calls(first(arguments='{"{"c":1}'))),
    "all-again-at-the-end": calls(ONE, of_calls(first(), *PIECES, then(C1))),
    "all-again-beside-the-reason": calls(
        ONE,
        stream_of(
            call(first()), *map(call, PIECES), chunk({"tool_calls": [then(C1)]}, "tool_calls"), DONE
        ),
    ),
    "all-again-with-spaces": calls(ONE, of_calls(first(), *PIECES, then('{"c": 1}'))),
    "all-again-of-two": calls(
        TWO, of_calls(first(), *PIECES, {**OTHER}, then(C1), then(C2, index=1))
    ),
    "rest-beside-the-reason": calls(
        ONE,
        stream_of(
            call(first()),
            call(then('{"c"')),
            chunk({"tool_calls": [then(":1}")]}, "tool_calls"),
            DONE,
        ),
    ),
    "comment-behind": calls(ONE, of_calls(first(), *PIECES, then(" I will look that up."))),
    "comment-behind-whole": calls(ONE, whole_calls(first(arguments=C1 + "\nI will look."))),
    "fence-behind": calls(ONE, of_calls(first(), *PIECES, then("\n```"))),
    "end-of-markup-behind": calls(ONE, of_calls(first(), *PIECES, then("</tool_call>"))),
}
#: Marks of calls: nulls, ids that are missing, indexes that stay.
MARKS = {
    "no-arguments-then-arguments": calls(
        [*NOTHING, ("lookup", C2)], of_calls(first(arguments="{}"), OTHER)
    ),
    "no-arguments-twice": calls(
        [*NOTHING, ("now", "{}")],
        of_calls(first(arguments="{}"), first("now", "{}", index=1, id="call_b")),
    ),
    "arguments-never-come": calls(NOTHING, of_calls(first(arguments=None))),
    "no-id-behind-the-first": calls(TWO, of_calls(CALL, entry("lookup", C2, index=1, id=None))),
    "no-id-behind-the-first-in-pieces": calls(
        TWO,
        of_calls(CALL, entry("lookup", "", index=1), then('{"c"', index=1), then(":2}", index=1)),
    ),
    "nulls-in-later-pieces": calls(ONE, of_calls(first(), continued('{"c"'), continued(":1}"))),
    "null-arguments-then-same-id": calls(
        ONE, of_calls(first(arguments=None), entry(None, ' {"c":1}', id="call_a"))
    ),
    "one-index-three-ids": calls(
        THREE,
        of_calls(*(first(arguments=one, id=f"call_{one[-2]}") for one in (C1, C2, '{"c":3}'))),
    ),
    "one-index-three-ids-in-one-chunk": calls(
        THREE,
        of_calls([first(arguments=one, id=f"c{one[-2]}") for one in (C1, C2, '{"c":3}')]),
    ),
    "one-index-ids-in-pieces": calls(
        TWO,
        of_calls(
            first(),
            *PIECES,
            first(id="call_b"),
            then('{"c"', id="call_b"),
            then(":2}", id="call_b"),
        ),
    ),
    "no-index-in-pieces-without-ids": calls(
        ONE,
        of_calls(entry("lookup", "", id="a"), entry(arguments='{"c"'), entry(arguments=":1}")),
    ),
    "kimi-ids": calls(
        TWO,
        of_calls(
            first(arguments=C1, id="functions.lookup:0"),
            first(arguments=C2, id="functions.lookup:1", index=1),
        ),
    ),
    "empty-entry-beside": calls(ONE, whole_calls(CALL, {"id": "", "type": "function"})),
    "empty-entry-before": calls(ONE, of_calls([{"id": "", "type": "function"}, CALL])),
    "reason-in-singular": calls(ONE, of_calls(CALL, reason="tool_call")),
    "reason-null-then-done": calls(ONE, of_calls(CALL, reason=None)),
}
#: What templates leave in names.
NAMES = {
    "channel-behind": calls(ONE, of_calls(first("lookup<|channel|>commentary"), *PIECES)),
    "channel-behind-whole": calls(
        ONE, whole_calls(first("lookup<|channel|>commentary", arguments=C1))
    ),
    "constraint-behind": calls(ONE, of_calls(first("lookup<|constrain|>json"), *PIECES)),
    "mark-behind": calls(ONE, of_calls(first("lookup<|channel|>"), *PIECES)),
    "namespace-and-channel": calls(
        ONE, of_calls(first("functions.lookup<|channel|>commentary"), *PIECES)
    ),
    "namespace": calls(ONE, of_calls(first("functions.lookup"), *PIECES)),
    "recipient": calls(ONE, of_calls(first("commentary to=functions.lookup"), *PIECES)),
    "channel-in-a-piece-of-its-own": calls(
        ONE, of_calls(first(), entry("<|channel|>commentary", "", index=0), *PIECES)
    ),
    "channel-in-each-of-two": calls(
        TWO,
        of_calls(
            first("lookup<|channel|>commentary", arguments=C1),
            first("lookup<|channel|>commentary", arguments=C2, index=1, id="call_b"),
        ),
    ),
    "quotes-around": calls(ONE, of_calls(first('"lookup"'), *PIECES)),
    "number-behind": calls(ONE, of_calls(first("functions.lookup:0"), *PIECES)),
    "other-case": calls([("LOOKUP", C1)], of_calls(first("LOOKUP"), *PIECES)),
    "unknown-name": calls([("search", C1)], of_calls(first("search"), *PIECES)),
}
#: Where gateways put calls, and what they call them.
PLACES = {
    "in-the-choice": calls(ONE, body_of(choice_of(message={"content": ""}, tool_calls=[CALL]))),
    "in-the-choice-of-a-stream": calls(
        ONE, stream_of(data(choice_of(delta={}, tool_calls=[CALL])), DONE)
    ),
    "flat-with-object": calls(
        ONE, message_of(tool_calls=[{"name": "lookup", "arguments": {"c": 1}}])
    ),
    "flat-with-object-in-a-stream": calls(
        ONE, delta_of(tool_calls=[{"name": "lookup", "arguments": {"c": 1}}])
    ),
    "under-tool": calls(
        ONE, message_of(tool_calls=[{"tool": {"name": "lookup", "arguments": C1}}])
    ),
    "under-function_call": calls(
        ONE, message_of(tool_calls=[{"function_call": {"name": "lookup", "arguments": C1}}])
    ),
    "camel-case": calls(ONE, message_of(toolCalls=[CALL])),
    "camel-case-in-a-stream": calls(ONE, delta_of(toolCalls=[CALL])),
    "camel-case-in-pieces": calls(
        ONE,
        stream_of(*(chunk({"toolCalls": [one]}) for one in (first(), *PIECES)), end("tool_calls")),
    ),
    "singular": calls(ONE, message_of(tool_call=CALL)),
    "singular-list": calls(ONE, message_of(tool_call=[CALL])),
    "singular-in-a-stream": calls(ONE, delta_of(tool_call=CALL)),
    "function_calls": calls(ONE, message_of(function_calls=[{"name": "lookup", "arguments": C1}])),
    "camel-case-in-the-choice": calls(ONE, body_of(choice_of(message={}, toolCalls=[CALL]))),
    "both-names": calls(ONE, message_of(tool_calls=[CALL], toolCalls=[CALL])),
    "both-names-in-a-stream": calls(ONE, delta_of(tool_calls=[CALL], tool_call=CALL)),
    "null-beside-the-other-name": calls(ONE, message_of(tool_calls=None, toolCalls=[CALL])),
    "empty-beside-the-other-name": calls(ONE, delta_of(tool_calls=[], toolCalls=[CALL])),
    "camel-case-function": calls(
        ONE,
        message_of(toolCalls=[{"toolCallId": "a", "toolName": "lookup", "args": {"c": 1}}]),
    ),
}
#: Choices beside each other of which one is meant.
WORDS, CALLED = {"content": HELLO}, {"content": None, "tool_calls": [CALL]}
CHOICES = {
    "words-and-calls-of-one-index": calls(
        ONE,
        body_of(
            {
                "choices": [
                    {"index": 0, "message": WORDS, "finish_reason": "tool_calls"},
                    {"index": 0, "message": CALLED, "finish_reason": "tool_calls"},
                ]
            }
        ),
        text=HELLO,
    ),
    "calls-announced-and-elsewhere": calls(
        ONE,
        body_of(
            {
                "choices": [
                    {"index": 0, "message": WORDS, "finish_reason": "tool_calls"},
                    {"index": 1, "message": CALLED, "finish_reason": "tool_calls"},
                ]
            }
        ),
        text=HELLO,
    ),
    "calls-announced-and-elsewhere-in-a-stream": calls(
        ONE,
        stream_of(
            text(HELLO),
            data({"choices": [{"index": 1, "delta": {"tool_calls": [CALL]}}]}),
            end("tool_calls"),
            DONE,
        ),
        text=HELLO,
    ),
    "no-calls-announced": calls(
        [],
        body_of(
            {
                "choices": [
                    {"index": 0, "message": WORDS, "finish_reason": "stop"},
                    {"index": 1, "message": CALLED, "finish_reason": "tool_calls"},
                ]
            }
        ),
        text=HELLO,
    ),
}
#: What is cut is no call, whatever reason is given.
OPEN = '{"c":"San Fra'
CUTS = {
    f"{name}-behind-{reason}": fails("lookup", behaviour)
    for reason in ("tool_calls", "stop", "eos")
    for name, behaviour in {
        "string": of_calls(first(), then('{"c":"San'), then(" Fra"), reason=reason),
        "string-in-one": of_calls(first(arguments=OPEN), reason=reason),
        "whole": whole_calls(first(arguments=OPEN), reason=reason),
        "second": of_calls(CALL, first(arguments=OPEN, index=1, id="call_b"), reason=reason),
        "first": of_calls(first(arguments=OPEN), OTHER, reason=reason),
        "member": of_calls(first(), then('{"c":'), reason=reason),
    }.items()
}
#: Whole, but no JSON: the model has written it so, and whoever runs the function can say so.
WRITTEN = {
    "a-word": calls([("lookup", '{"c": one}')], of_calls(first(arguments='{"c": one}'))),
    "a-word-in-pieces": calls(
        [("lookup", '{"c": one}')], of_calls(first(), then('{"c"'), then(": one}"))
    ),
    "a-word-whole": calls([("lookup", '{"c": one}')], whole_calls(first(arguments='{"c": one}'))),
    "a-sentence": calls(
        [("lookup", "Rome, please")], of_calls(first(), then("Rome, "), then("please"))
    ),
}
#: Arguments within others.
WRAPPED = {
    "grammar-of-tgi": calls(
        ONE, whole_calls(first(arguments={"function": {"_name": "lookup", "c": 1}}))
    ),
    "grammar-of-tgi-in-pieces": calls(
        ONE,
        of_calls(
            first(),
            *(then(one) for one in ('{"function"', ':{"_name":"lookup"', ',"c":1}}')),
        ),
    ),
    "whole-call-as-arguments": calls(
        ONE, whole_calls(first(arguments={"name": "lookup", "arguments": {"c": 1}}))
    ),
    "whole-call-as-text": calls(
        ONE, of_calls(first(arguments='{"name": "lookup", "arguments": {"c":1}}'))
    ),
}
