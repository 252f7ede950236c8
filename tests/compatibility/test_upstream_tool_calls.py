"""How upstreams write tool calls: the calls that were meant, over both APIs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.misbehaving_upstream import Behaviour
from support.scenario import (
    DONE,
    Json,
    Scenario,
    body_of,
    call,
    chunk,
    data,
    end,
    stream_of,
    text,
    whole,
)
from support.upstream_answers import (
    C1,
    C2,
    MISSING,
    ONE,
    PIECES,
    TWO,
    ask_both,
    check_argument_events,
    entry,
    first,
    of_calls,
    then,
    unmarked,
    whole_calls,
)

NO_ARGUMENTS = [("now", "{}")]
EIGHT = [("lookup", json.dumps({"c": n})) for n in range(8)]


def eight_pieces() -> list[list[Json]]:
    """Each call's pieces."""
    return [
        [
            first(name, "", index=n, id=f"call_{n}"),
            then(arguments[:3], index=n),
            then(arguments[3:], index=n),
        ]
        for n, (name, arguments) in enumerate(EIGHT)
    ]


def rows(pieces: list[list[Json]]) -> list[Json]:
    return [piece for row in zip(*pieces, strict=True) for piece in row]


def rows_backwards(pieces: list[list[Json]]) -> list[Json]:
    head, *later = zip(*pieces, strict=True)
    return [*head, *(piece for row in later for piece in reversed(row))]


def whole_choice(message: Json, **fields: Any) -> Behaviour:
    return body_of({"choices": [{"index": 0, "message": message, **fields}]})


CALLS: dict[str, tuple[Behaviour, list[tuple[str, str]]]] = {
    "name-with-namespace": (of_calls(first("functions.lookup", C1)), ONE),
    "name-with-number": (of_calls(first("functions.lookup:0", C1, id="functions.lookup:0")), ONE),
    "name-with-markup": (of_calls(first("lookup<|channel|>commentary", C1)), ONE),
    "name-with-markup-whole": (whole_calls(entry("lookup<|channel|>json", C1, id="a")), ONE),
    "name-at-the-end": (
        of_calls({"index": 0, "function": {"arguments": C1}}, first("lookup")),
        ONE,
    ),
    "arguments-in-a-fence": (of_calls(first(), then("```json\n"), then(C1), then("\n```")), ONE),
    "arguments-in-python": (of_calls(first(), then("{'c'"), then(":1}")), ONE),
    "arguments-in-python-whole": (whole_calls(entry("lookup", "{'c':1,}", id="a")), ONE),
    "arguments-in-markup": (of_calls(first("lookup", f"<arguments>{C1}</arguments>")), ONE),
    "arguments-none": (of_calls(first("now", "None")), [("now", "{}")]),
    "arguments-with-a-line-end": (
        of_calls(first(), then('{"c":"a'), then("\n"), then('b"}')),
        [("lookup", '{"c":"a\\nb"}')],
    ),
    "entries-in-a-list": (of_calls([[first("lookup", C1)]]), ONE),
    "entries-as-text": (
        stream_of(chunk({"tool_calls": json.dumps([first("lookup", C1)])}), end(), DONE),
        ONE,
    ),
    "entries-beside-a-delta": (
        stream_of(chunk({}, tool_calls=[first("lookup", C1)]), end("tool_calls"), DONE),
        ONE,
    ),
    "entries-beside-a-message": (
        whole_choice({"content": None}, tool_calls=[entry("lookup", C1, id="a")]),
        ONE,
    ),
    "function-in-a-list": (
        of_calls({"index": 0, "function": [{"name": "lookup", "arguments": C1}]}),
        ONE,
    ),
    "function-as-text": (
        of_calls({"index": 0, "function": json.dumps({"name": "lookup", "arguments": C1})}),
        ONE,
    ),
    "id-of-space": (of_calls(first("lookup", C1, id=" ")), ONE),
    "input-within-function": (
        of_calls({"index": 0, "id": "a", "function": {"name": "lookup", "input": {"c": 1}}}),
        ONE,
    ),
    "call-index-missing": (
        of_calls(*(unmarked(one, "index") for one in (first(), *PIECES))),
        ONE,
    ),
    "call-index-missing-two": (
        of_calls(
            entry("lookup", C1, id="call_a"), entry("lookup", '{"c"', id="call_b"), entry("", ":2}")
        ),
        TWO,
    ),
    "call-index-missing-two-no-ids": (of_calls(entry("lookup", C1), entry("lookup", C2)), TWO),
    "call-index-missing-two-one-chunk": (of_calls([entry("lookup", C1), entry("lookup", C2)]), TWO),
    "call-index-same-ids-differ": (of_calls(first(arguments=C1), first(arguments=C2, id="b")), TWO),
    "call-index-same-ids-differ-pieces": (
        of_calls(first(), *PIECES, first(id="b"), then('{"c"'), then(":2}")),
        TWO,
    ),
    "call-index-same-ids-empty": (
        of_calls(first(arguments=C1, id=""), first(arguments=C2, id="")),
        TWO,
    ),
    "call-index-same-no-ids": (
        of_calls(unmarked(first(arguments=C1), "id"), unmarked(first(arguments=C2), "id")),
        TWO,
    ),
    "call-index-same-no-ids-pieces": (
        of_calls(
            unmarked(first(), "id"), *PIECES, unmarked(first(), "id"), then('{"c"'), then(":2}")
        ),
        TWO,
    ),
    "call-index-same-two-functions": (
        of_calls(unmarked(first("now"), "id"), unmarked(first(arguments=C1), "id")),
        [*NO_ARGUMENTS, *ONE],
    ),
    "call-index-same-whole": (
        whole_calls(first(arguments=C1, id=""), first(arguments=C2, id="")),
        TWO,
    ),
    "call-glued-objects": (of_calls(first(), then(C1), then(C2)), TWO),
    "call-glued-objects-one-piece": (of_calls(first(arguments=C1 + C2)), TWO),
    "call-glued-objects-whole": (whole_calls(first(arguments=C1 + C2)), TWO),
    "call-index-string": (
        of_calls(first(arguments=C1, index="0"), first(arguments=C2, index="1", id="b")),
        TWO,
    ),
    "call-index-string-pieces": (
        of_calls(
            *(first(index="0"), first(index="1", id="b")),
            *(then('{"c"', index="0"), then('{"c"', index="1")),
            *(then(":1}", index="0"), then(":2}", index="1")),
        ),
        TWO,
    ),
    "call-index-float": (of_calls(first(index=0.0), *PIECES), ONE),
    "call-index-null": (of_calls(first(index=None), then(C1, index=None)), ONE),
    "call-index-from-one": (of_calls(first(index=1), then(C1, index=1)), ONE),
    "call-index-gaps": (
        of_calls(first(arguments=C1, index=0), first(arguments=C2, index=4, id="b")),
        TWO,
    ),
    "call-index-odd": (of_calls(first(index=[]), then(C1, index={})), ONE),
    "call-id-each-piece": (
        of_calls(first(), *(then(p, id="call_a") for p in ('{"c"', ":1}"))),
        ONE,
    ),
    "call-id-name-each-piece": (
        of_calls(first(), first(arguments='{"c"'), first(arguments=":1}")),
        ONE,
    ),
    "call-id-other-each-piece": (
        of_calls(first(), *(then(p, id=i) for p, i in (('{"c"', "b"), (":1}", "c")))),
        ONE,
    ),
    "call-id-number": (of_calls(first(id=7), *PIECES), ONE),
    "call-id-number-whole": (whole_calls(first(arguments=C1, id=7)), ONE),
    "call-id-number-two": (of_calls(first(arguments=C1, id=7), first(arguments=C2, id=8)), TWO),
    "call-id-missing": (of_calls(unmarked(first(), "id"), *PIECES), ONE),
    "call-id-missing-whole": (whole_calls(entry("lookup", C1)), ONE),
    "call-id-null-type-null": (of_calls(first(id=None, type=None), *PIECES), ONE),
    "call-id-later": (of_calls(first(id=None), then('{"c"', id="call_a"), then(":1}")), ONE),
    "call-id-last": (of_calls(first(id=None), then('{"c"'), then(":1}", id="call_a")), ONE),
    "call-id-long": (of_calls(first(id="i" * 300), *PIECES), ONE),
    "call-id-long-whole": (whole_calls(first(arguments=C1, id="i" * 300)), ONE),
    "call-id-same-for-two": (of_calls(first(arguments=C1), first(arguments=C2, index=1)), TWO),
    "call-id-same-for-two-whole": (
        whole_calls(first(arguments=C1), first(arguments=C2, index=1)),
        TWO,
    ),
    "call-id-same-for-two-pieces": (
        of_calls(first(), *PIECES, first(index=1), then('{"c"', index=1), then(":2}", index=1)),
        TWO,
    ),
    "call-id-object": (of_calls(first(id={"a": 1}), *PIECES), ONE),
    "call-type-odd": (of_calls(first(type="tool"), *PIECES), ONE),
    "call-type-odd-number": (of_calls(first(type=7), *PIECES), ONE),
    "call-name-pieces": (of_calls(first("look"), entry("up", "", index=0), *PIECES), ONE),
    "call-name-with-spaces": (of_calls(first(" lookup\n"), *PIECES), ONE),
    "call-name-pieces-no-arguments": (
        of_calls(first("n"), entry("ow", index=0)),
        NO_ARGUMENTS,
    ),
    "call-name-repeated": (
        of_calls(first(), *(entry("lookup", one, index=0) for one in ('{"c"', ":1}", ""))),
        ONE,
    ),
    "call-name-repeated-before": (of_calls(first(), entry("lookup", "", index=0), *PIECES), ONE),
    "call-name-empty-after": (
        of_calls(first(), *(entry("", one, index=0) for one in ('{"c"', ":1}"))),
        ONE,
    ),
    "call-name-null-after": (
        of_calls(first(), *(entry(None, one, index=0, id=None) for one in ('{"c"', ":1}"))),
        ONE,
    ),
    "call-args-object": (of_calls(first(arguments={"c": 1})), ONE),
    "call-args-object-whole": (whole_calls(first(arguments={"c": 1})), ONE),
    "call-args-string-in-string": (whole_calls(first(arguments=json.dumps(C1))), ONE),
    "call-args-null-then": (of_calls(first(arguments=None), *PIECES), ONE),
    "call-args-placeholder": (of_calls(first(arguments="{}"), then(C1)), ONE),
    "call-args-placeholder-pieces": (of_calls(first(arguments="{}"), *PIECES), ONE),
    "call-args-placeholder-object": (of_calls(first(arguments={}), *PIECES), ONE),
    "call-args-cumulative": (of_calls(first(), then('{"c"'), then(C1)), ONE),
    "call-args-extra-brace": (of_calls(first(), then(C1), then("}")), ONE),
    **{
        f"call-args-{name}{suffix}": (made, NO_ARGUMENTS)
        for name, value in {
            "empty": "",
            "null": None,
            "missing": MISSING,
            "space": " ",
            "newline": "\n",
            "empty-object": {},
            "empty-list": [],
            "word-null": "null",
            "braces": "{}",
        }.items()
        for suffix, made in {
            "": of_calls(first("now", value)),
            "-whole": whole_calls(first("now", value)),
            "-then-more": of_calls(first("now", value), then(""), then(" ")),
        }.items()
    },
    "call-whole-in-one-chunk": (of_calls(first(arguments=C1)), ONE),
    "call-whole-in-one-piece": (whole_calls(first(arguments=C1)), ONE),
    "call-whole-with-finish": (
        stream_of(chunk({"tool_calls": [first(arguments=C1)]}, "tool_calls"), DONE),
        ONE,
    ),
    "call-whole-object": (whole({"content": None, "tool_calls": first(arguments=C1)}, "stop"), ONE),
    "call-flat": (of_calls({"index": 0, "id": "a", "name": "lookup", "arguments": C1}), ONE),
    "call-legacy-call": (
        stream_of(
            chunk({"function_call": {"name": "lookup", "arguments": '{"c"'}}),
            chunk({"function_call": {"arguments": ":1}"}}),
            end("function_call"),
            DONE,
        ),
        ONE,
    ),
    "call-legacy-call-whole": (
        whole(
            {"content": None, "function_call": {"name": "lookup", "arguments": C1}}, "function_call"
        ),
        ONE,
    ),
    "call-legacy-beside": (
        whole(
            {
                "tool_calls": [first(arguments=C1)],
                "function_call": {"name": "lookup", "arguments": C1},
            },
            "tool_calls",
        ),
        ONE,
    ),
    "call-legacy-object": (
        whole({"function_call": {"name": "lookup", "arguments": {"c": 1}}}, "function_call"),
        ONE,
    ),
    "call-message-in-stream": (
        stream_of(
            data({"choices": [{"index": 0, "message": {"tool_calls": [first(arguments=C1)]}}]}),
            end("tool_calls"),
            DONE,
        ),
        ONE,
    ),
    "call-message-repeats-at-end": (
        stream_of(
            call(first()),
            *map(call, PIECES),
            data({"choices": [{"index": 0, "message": {"tool_calls": [first(arguments=C1)]}}]}),
            end("tool_calls"),
            DONE,
        ),
        ONE,
    ),
    "call-stub-first-then-call": (of_calls(entry("", "", index=0), first(), *PIECES), ONE),
    "call-stub-first-with-id": (of_calls(entry("", "", index=0, id="s"), first(), *PIECES), ONE),
    "call-stub-last": (of_calls(first(), *PIECES, entry("", "", index=0)), ONE),
    "call-stub-last-other-index": (of_calls(first(), *PIECES, entry("", "", index=1)), ONE),
    "call-eight-in-turn": (of_calls(*(one for each in eight_pieces() for one in each)), EIGHT),
    "call-eight-rows": (of_calls(*rows(eight_pieces())), EIGHT),
    "call-eight-rows-backwards": (of_calls(*rows_backwards(eight_pieces())), EIGHT),
    "call-eight-whole": (
        whole_calls(*(first(n, a, id=f"call_{i}") for i, (n, a) in enumerate(EIGHT))),
        EIGHT,
    ),
    "call-eight-one-chunk": (
        of_calls([first(n, a, index=i, id=f"call_{i}") for i, (n, a) in enumerate(EIGHT)]),
        EIGHT,
    ),
    "call-eight-one-chunk-unmarked": (of_calls([entry(n, a) for n, a in EIGHT]), EIGHT),
    "call-finish-stop": (of_calls(first(), *PIECES, reason="stop"), ONE),
    "call-finish-none": (stream_of(call(first()), *map(call, PIECES), DONE), ONE),
    "call-finish-stop-whole": (whole_calls(first(arguments=C1), reason="stop"), ONE),
    "call-finish-null-whole": (whole_calls(first(arguments=C1), reason=None), ONE),
    "call-finish-tool_use": (of_calls(first(), *PIECES, reason="tool_use"), ONE),
    "call-finish-upper": (of_calls(first(), *PIECES, reason="TOOL_CALLS"), ONE),
    "call-big-numbers": (
        of_calls(first(arguments={"c": 10**30})),
        [("lookup", f'{{"c":{10**30}}}')],
    ),
    "call-list-with-null": (of_calls([None, first(arguments=C1), 3]), ONE),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_calls_that_were_meant(world: Scenario, name: str) -> None:
    behaviour, calls = CALLS[name]
    response, completion = ask_both(world, behaviour, tools=True)
    response.expect("completed", "", calls=calls)
    completion.expect("tool_calls", "", calls=calls)
    check_argument_events(response)


MIXED = {
    "call-text-and-call": (
        stream_of(text("Let me look."), call(first()), *map(call, PIECES), end("tool_calls"), DONE),
        "Let me look.",
    ),
    "call-text-after-call": (
        stream_of(call(first()), *map(call, PIECES), text("Looking."), end("tool_calls"), DONE),
        "Looking.",
    ),
    "call-text-between-pieces": (
        stream_of(call(first()), call(PIECES[0]), text("Hm."), call(PIECES[1]), end("stop"), DONE),
        "Hm.",
    ),
    "call-text-and-call-whole": (
        whole({"content": "Let me look.", "tool_calls": [first(arguments=C1)]}, "stop"),
        "Let me look.",
    ),
    "call-text-in-the-same-chunk": (
        stream_of(chunk({"content": "Now.", "tool_calls": [first(arguments=C1)]}, "stop"), DONE),
        "Now.",
    ),
}


@pytest.mark.parametrize("name", MIXED)
def test_text_beside_calls_stays(world: Scenario, name: str) -> None:
    behaviour, words = MIXED[name]
    response, completion = ask_both(world, behaviour, tools=True)
    response.expect("completed", words, calls=ONE)
    completion.expect("tool_calls", words, calls=ONE)
