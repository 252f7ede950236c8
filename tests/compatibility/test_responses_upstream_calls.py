"""Tool calls of upstreams of the Responses dialect: those that were meant."""

from __future__ import annotations

import pytest

from support.responses_events import (
    CREATED,
    HELLO,
    SAID,
    added,
    arguments,
    arguments_done,
    call,
    end,
    event,
    item_done,
    message,
    text,
)
from support.scenario import LOOKUP, NOW, Scenario, data, stream_of

CALL = [("lookup", '{"c":1}')]
BOTH = [("lookup", '{"c":1}'), ("now", "{}")]


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
    "call-arguments-in-pieces": ([end({**_FIRST, "arguments": ['{"c"', ":1}"]})], CALL),
    "call-arguments-listed": ([end({**_FIRST, "arguments": [{"c": 1}]})], CALL),
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


@pytest.fixture(name="world")
def responses(responses_world: Scenario) -> Scenario:
    return responses_world


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


def test_arguments_that_a_limit_cut_stay_as_they_are(world: Scenario) -> None:
    cut = call(arguments='{"c":', status="incomplete")
    events = [added(cut), arguments('{"c":'), item_done(cut), end(cut, status="incomplete")]
    world.upstream_sends(stream_of(*events))
    world.respond(tools=[LOOKUP]).expect("incomplete", calls=[("lookup", '{"c":')])
