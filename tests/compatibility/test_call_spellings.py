"""How upstreams write tool calls: marks, names and arguments in other places and spellings."""

from __future__ import annotations

import json
from typing import Any

from support.answer_tables import Meant, calls, check_answers, fails
from support.misbehaving_upstream import Behaviour
from support.scenario import DONE, Json, Scenario, body_of, call, chunk, end, stream_of, text, whole
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
    unmarked,
    whole_calls,
)

HELLO = "Hello there."
PARALLEL = "multi_tool_use.parallel"
NOW = [("now", "{}")]


def one(*pieces: Any, **expected: Any) -> Meant:
    return calls(ONE, of_calls(*pieces), **expected)


def two(*pieces: Any) -> Meant:
    return calls(TWO, of_calls(*pieces))


def one_whole(**fields: Any) -> Meant:
    return calls(ONE, whole_calls(fields))


def called(arguments: str) -> list[tuple[str, str]]:
    return [("lookup", arguments)]


def in_content(*parts: Json, reason: str = "tool_use") -> Behaviour:
    return whole({"content": list(parts)}, reason)


def uses(*arguments: str) -> str:
    """The arguments of several calls in one, as models of OpenAI's write them."""
    name = "functions.lookup"
    made = [{"recipient_name": name, "parameters": json.loads(one)} for one in arguments]
    return json.dumps({"tool_uses": made}, separators=(",", ":"))


USES, TWICE = uses(C1, C2), uses(C2, C2)
MARKS = {
    "index-below-zero": two(first(arguments=C1, index=-1), first(arguments=C2, index=-1, id="b")),
    "index-false": one(first(index=False), then(C1, index=False)),
    "index-text-and-number": one(first(index="0"), then('{"c"'), then(":1}", index="0")),
    "index-grows": one(first(), then('{"c"', index=1), then(":1}", index=2)),
    "index-turned": two(first(arguments=C1, index=1), first(arguments=C2, id="b")),
    "index-in-the-function": calls(
        TWO,
        of_calls(
            *({"id": f"c{n}", "function": {"index": n, "name": "lookup"}} for n in (0, 1)),
            *({"function": {"index": n, "arguments": it}} for n, it in enumerate((C1, C2))),
        ),
    ),
    "pieces-by-id": two(
        *(first(id=it) for it in "ab"),
        *(then('{"c"', id=it) for it in "ab"),
        *(then(f":{n}}}", id=it) for n, it in ((1, "a"), (2, "b"))),
    ),
    "pieces-by-id-without-index": two(
        *(entry("lookup", "", id=it) for it in "ab"),
        *(entry(arguments='{"c"', id=it) for it in "ab"),
        *(entry(arguments=f":{n}}}", id=it) for n, it in ((1, "a"), (2, "b"))),
    ),
    "id-then-type-then-name": one(
        {"index": 0, "id": "a"}, {"index": 0, "type": "function"}, entry("lookup", index=0), *PIECES
    ),
    "id-null-in-words": two(
        first(arguments=C1, id="null"), first(arguments=C2, index=1, id="null")
    ),
    "id-list": one(first(id=["a"]), *PIECES),
    "id-under-other-names": calls(
        TWO,
        whole_calls(
            {"call_id": "x", "function": {"name": "lookup", "arguments": C1}},
            {"toolCallId": "y", "function": {"name": "lookup", "arguments": C2}},
        ),
    ),
}
NAMES = {
    "cumulative": one(first("lo"), entry("look", index=0), entry("lookup", index=0), *PIECES),
    "letter-by-letter": one(first("l"), *(entry(it, index=0) for it in "ookup"), *PIECES),
    "pieces-of-two": two(
        *(first("look"), entry("up", C1, index=0)),
        *(first("look", index=1, id="b"), entry("up", C2, index=1)),
    ),
    "colon-behind": one(first("lookup:", C1)),
    "among-the-arguments": one_whole(
        function={"arguments": {"name": "lookup", "arguments": {"c": 1}}}
    ),
    "path": one(first("functions/lookup", C1)),
    "in-a-list": one(first(["lookup"], C1)),
    "beside-the-function": one({"index": 0, "name": "lookup", "function": {"arguments": C1}}),
    "tool_name": one_whole(tool_name="lookup", arguments=C1),
    "function_name": one_whole(function_name="lookup", arguments=C1),
    "null-in-words": calls(
        [],
        stream_of(text(HELLO), call(entry("null", "{}", index=0)), end(), DONE),
        text=HELLO,
    ),
}
ARGUMENTS = {
    "empty-beside-parameters": one_whole(
        function={"name": "lookup", "arguments": "", "parameters": {"c": 1}}
    ),
    "null-beside-parameters": one_whole(
        function={"name": "lookup", "arguments": None, "parameters": {"c": 1}}
    ),
    "beside-the-function": one({"index": 0, "function": {"name": "lookup"}, "arguments": C1}),
    "parameters-beside": one_whole(function={"name": "lookup"}, parameters={"c": 1}),
    "undefined-then": one(first(arguments="undefined"), then(C1)),
    "undefined": calls(NOW, of_calls(first("now", "undefined"))),
    "object-in-a-list": calls(ONE, whole_calls(first(arguments=[{"c": 1}]))),
    "object-in-a-list-pieces": one(first(), then('[{"c"'), then(":1}]")),
    "label": one(first(arguments="json\n" + C1)),
    "doubled-braces": one(first(arguments="{" + C1 + "}")),
    "doubled-brace-pieces": one(first(), then("{"), then(C1)),
    "encoded-thrice": calls(ONE, whole_calls(first(arguments=json.dumps(json.dumps(C1))))),
    "encoded-twice-pieces": one(first(), then('"{\\"c\\"'), then(':1}"')),
    "last-brace-missing": one(first(), then('{"c"'), then(":1")),
    "last-brace-missing-whole": calls(ONE, whole_calls(first(arguments='{"c":1'))),
    "behind-it-words": one(first(arguments=C1 + "\n\nDone.<|im_end|>")),
    "behind-it-markup": one(first(), then(C1), then("</tool_call>")),
    "repeated-with-space": one(first(), *PIECES, first(arguments='{"c": 1}')),
    "glued-three": calls(
        [*TWO, *called('{"c":3}')], of_calls(first(arguments=C1 + C2 + '{"c":3}'))
    ),
    "glued-with-comma": two(first(arguments=f"{C1}, {C2}")),
    "glued-across-pieces": two(first(), then('{"c":1}{"c"'), then(":2}")),
    "cut-at-a-backslash": calls(
        called('{"c":"a\\"b"}'), of_calls(first(), then('{"c":"a\\'), then('"b"}'))
    ),
    "halves-of-a-character": calls(
        called('{"c":"\U0001f600"}'),
        stream_of(
            call(first()),
            *(call(then("@")).replace(b"@", half) for half in (rb"{\"c\":\"\ud83d", rb"\ude00\"}")),
            end("tool_calls"),
            DONE,
        ),
    ),
    "not-at-its-end": fails("", stream_of(call(first()), call(then('{"c"')), DONE)),
}
FINAL: Json = {"tool_calls": [first(arguments=C1), first(arguments=C2, index=1, id="b")]}
PLACES = {
    "part-and-call": calls(
        ONE,
        whole(
            {
                "content": [{"type": "tool_use", "id": "t", "name": "lookup", "input": {"c": 1}}],
                "tool_calls": [entry("lookup", C1, id="t")],
            }
        ),
    ),
    "arguments-in-the-last-message": calls(
        ONE,
        stream_of(
            call(first()),
            chunk({}, "tool_calls", message={"tool_calls": [first(arguments=C1)]}),
            DONE,
        ),
    ),
    "delta-and-message": calls(
        ONE,
        stream_of(
            chunk(
                {"tool_calls": [first(arguments=C1)]}, message={"tool_calls": [first(arguments=C1)]}
            ),
            end("tool_calls"),
            DONE,
        ),
    ),
    "message-repeats-two": calls(
        TWO,
        stream_of(
            *(call(it) for it in FINAL["tool_calls"]), chunk({}, "tool_calls", message=FINAL), DONE
        ),
    ),
    "legacy-as-text": calls(
        ONE,
        stream_of(
            chunk({"function_call": json.dumps({"name": "lookup", "arguments": C1})}), end(), DONE
        ),
    ),
    "legacy-repeats-its-name": calls(
        ONE,
        stream_of(
            *(
                chunk({"function_call": {"name": "lookup", "arguments": it}})
                for it in ('{"c"', ":1}")
            ),
            end("function_call"),
        ),
    ),
    "entry-as-text": calls(ONE, whole({"tool_calls": [json.dumps(first(arguments=C1))]})),
    "entries-by-id": calls(
        ONE, whole({"tool_calls": {"a": {"function": {"name": "lookup", "arguments": C1}}}})
    ),
    "part-of-anthropic": calls(
        ONE,
        in_content(
            {"type": "text", "text": "Hm."},
            {"type": "tool_use", "id": "t", "name": "lookup", "input": {"c": 1}},
        ),
        text="Hm.",
    ),
    "part-in-a-stream": calls(
        ONE,
        stream_of(
            chunk({"content": [{"type": "tool_use", "name": "lookup", "input": {"c": 1}}]}),
            end("tool_use"),
        ),
    ),
    "part-of-two": calls(
        TWO,
        in_content(
            *(
                {"type": "tool_call", "id": i, "name": "lookup", "args": a}
                for i, a in (("a", C1), ("b", C2))
            )
        ),
    ),
    "part-of-gemini": calls(
        ONE, in_content({"functionCall": {"name": "lookup", "args": {"c": 1}}}, reason="STOP")
    ),
    "part-of-converse": calls(
        ONE,
        body_of(
            {
                "output": {
                    "message": {
                        "role": "assistant",
                        "content": [
                            {"toolUse": {"toolUseId": "t", "name": "lookup", "input": {"c": 1}}}
                        ],
                    }
                },
                "stopReason": "tool_use",
            }
        ),
    ),
    "behind-the-end": calls(ONE, stream_of(end("tool_calls"), call(first(arguments=C1)), DONE)),
    "reason-with-each": calls(
        ONE,
        stream_of(*(chunk({"tool_calls": [it]}, "tool_calls") for it in (first(), then(C1))), DONE),
    ),
    "thoughts-between": calls(
        ONE,
        stream_of(
            call(first()), chunk({"reasoning": "Hm."}), call(then(C1)), end("tool_calls"), DONE
        ),
        reasoning="Hm.",
    ),
    "of-another-choice": calls(
        [],
        body_of(
            {
                "choices": [
                    {"index": 0, "message": {"content": HELLO}, "finish_reason": "stop"},
                    {"index": 1, "message": {"tool_calls": [first(arguments=C1)]}},
                ]
            }
        ),
        text=HELLO,
    ),
    "the-same-twice": calls(
        [*ONE, *ONE], whole_calls(*(first(arguments=C1, id=it) for it in "ab"))
    ),
    "two-functions-one-index": calls(
        [*NOW, *ONE],
        of_calls(unmarked(first("now", "{}"), "id"), unmarked(first(arguments=C1), "id")),
    ),
    "parallel-in-one": calls(TWO, whole_calls(entry(PARALLEL, USES, id="a"))),
    "parallel-in-one-stream": calls(
        TWO, of_calls(first(PARALLEL), then(USES[:30]), then(USES[30:]))
    ),
    "parallel-behind-another": calls(
        [*TWO, ("lookup", C2)],
        whole_calls(entry("lookup", C1, id="a"), entry(PARALLEL, TWICE, id="b")),
    ),
    "stubs-between": one(first(), then('{"c"'), entry("", "", index=1), then(":1}")),
}


def test_calls_by_marks_of_every_kind(world: Scenario) -> None:
    check_answers(world, MARKS)


def test_names_of_calls_in_other_spellings(world: Scenario) -> None:
    check_answers(world, NAMES)


def test_arguments_of_calls_in_other_spellings(world: Scenario) -> None:
    check_answers(world, ARGUMENTS)


def test_calls_in_other_places(world: Scenario) -> None:
    check_answers(world, PLACES)
