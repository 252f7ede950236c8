"""Tool rounds of a turn: call the model, run its tools, call it again, and store each step."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.core.deltas import (
    Delta,
    Finish,
    OutputTextDelta,
    ReasoningSummaryDelta,
    ToolCallDelta,
    UsageUpdate,
)
from antiphon.core.events import Created, Ended, Event, ItemAdded, ItemDone
from antiphon.core.items import (
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    Reasoning,
    SummaryText,
    decode_item,
    encode_item,
)
from antiphon.core.tool_rules import INTERRUPTED_OUTPUT
from antiphon.core.turns import Options, Usage
from antiphon.errors import (
    InvalidRequestError,
    StoreError,
)
from antiphon.models.scripted import (
    ScriptedModel,
    report_usage,
    say,
    think,
)
from antiphon.turn.turn_accumulator import TurnAccumulator
from support.turn_service import (
    ONE_CALL,
    STORES,
    TWO_CALLS,
    GatedStore,
    RecordingTools,
    collect_events,
    contents,
    kinds,
    outputs,
    run_ready_tasks,
    run_turn,
    run_with_store,
    service_with,
    stored_turn,
    texts,
    turn_request,
)

# A turn with tools.


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("kind", STORES)
def test_response_has_all_calls_outputs_and_answers(
    kind: str, stream: bool, tmp_path: Path
) -> None:
    async def scenario(store: Any) -> None:
        model = ScriptedModel([think("Hm.") + say("Let me look.") + TWO_CALLS, ONE_CALL, "Sunny."])
        service = service_with(model, store)
        turn = await service.start(turn_request("Weather?", stream=stream), RecordingTools())
        response = await turn.result()
        assert response.status == "completed"
        first = FunctionCall("a", "look", '{"at":1}')
        second = FunctionCall("b", "look", '{"at":2}')
        # The model says "a" again, and it is an id of its own.
        *_, third = (item for item in response.output if isinstance(item, FunctionCall))
        assert (third.name, third.arguments) == ("look", "{}")
        assert third.call_id not in ("a", "b")
        items: tuple[Item, ...] = (
            *(Reasoning((SummaryText("Hm."),)), Message("assistant", "Let me look.")),
            *(first, second, FunctionCallOutput("a", "look done")),
            *(FunctionCallOutput("b", "look done"), third),
            *(FunctionCallOutput(third.call_id, "look done"), Message("assistant", "Sunny.")),
        )
        assert response.output == items
        assert tuple(map(decode_item, (await stored_turn(store, turn)).output)) == items
        expected = ["Weather?", "Let me look.", "look done", "look done"]
        assert [len(model.context(number)) for number in range(3)] == [1, 4, 6]
        assert contents(model) == [*expected, "", "look done"]
        # A later turn sends the same.
        fresh = ScriptedModel(["Yes."])
        await run_turn(service_with(fresh, store), "And?", after=response.id)
        assert contents(fresh) == [*expected, "", "look done", "Sunny.", "And?"]

    run_with_store(kind, tmp_path, scenario)


async def test_events_of_calls_and_outputs_are_in_order() -> None:
    turn = await service_with(ScriptedModel([TWO_CALLS, "Done."])).start(
        turn_request("Go."), RecordingTools()
    )
    events = await collect_events(turn)
    assert isinstance(events[0], Created)
    assert isinstance(events[-1], Ended)
    done = [event for event in events if isinstance(event, ItemDone)]
    response = await turn.result()
    assert [event.item for event in done] == list(response.output)
    added = [event.index for event in events if isinstance(event, ItemAdded)]
    assert added == [event.index for event in done] == list(range(5))


async def test_usage_sums_all_rounds_and_turn_tokens_come_from_the_last() -> None:
    model = ScriptedModel(
        [
            say("Hi.") + report_usage(Usage(10, 2)),
            ONE_CALL + report_usage(Usage(30, 5, 1, 3)),
            say("Done.") + report_usage(Usage(50, 7, 2, 4)),
        ]
    )
    service = service_with(model)
    before = await run_turn(service, "Hello.")
    response = await run_turn(service, "Go.", after=before.id, tools=RecordingTools())
    assert response.end is not None
    assert response.end.usage == Usage(80, 12, 3, 7)
    # Input and output of the last call, less reasoning and the earlier turn.
    assert response.end.tokens == 50 + 7 - 4 - 12


@pytest.mark.parametrize("choice", ["required", "function:look", "none", "auto"])
async def test_required_tool_choice_becomes_auto_after_one_round(choice: str) -> None:
    model = ScriptedModel([ONE_CALL, ONE_CALL, "Done."])
    options = Options(tool_choice=choice, temperature=0.5)
    response = await run_turn(service_with(model), "Go.", options=options, tools=RecordingTools())
    later = "none" if choice == "none" else "auto"
    assert [one.options.tool_choice for one in model.calls] == [choice, later, later]
    assert {one.options.temperature for one in model.calls} == {0.5}
    assert response.header.options == options, "the requested options are stored"


async def test_unstored_turn_runs_tools() -> None:
    store, tools = GatedStore(), RecordingTools()
    response = await run_turn(
        service_with(ScriptedModel([ONE_CALL, "Done."]), store), "Go.", tools=tools, store=False
    )
    assert (texts(response), len(tools.calls), store.written) == (["Done."], 1, [])


# Stored before run.


@pytest.mark.parametrize("gate", ["begins", "items"])
async def test_tools_run_only_after_the_turn_and_call_are_stored(gate: str) -> None:
    store, tools = GatedStore(), RecordingTools()
    write_gate = getattr(store, gate)
    write_gate.close()
    service = service_with(ScriptedModel([TWO_CALLS, "Done."]), store)
    turn = await service.start(turn_request("Go."), tools)
    await write_gate.reached.wait()
    await run_ready_tasks()
    assert tools.calls == []
    write_gate.open()
    response = await turn.result()
    assert len(tools.calls) == 2
    assert texts(response) == ["Done."]


@pytest.mark.parametrize("gate", ["begins", "items"])
async def test_no_tool_runs_when_the_store_fails(gate: str) -> None:
    store, tools = GatedStore(), RecordingTools()
    getattr(store, gate).error = StoreError("The disk is full.")
    turn = await service_with(ScriptedModel([TWO_CALLS, "Done."]), store).start(
        turn_request("Go."), tools
    )
    with pytest.raises(StoreError):
        await turn.result()
    assert tools.calls == []


async def test_approved_calls_run_only_after_the_turn_is_stored() -> None:
    store, tools = GatedStore(), RecordingTools()
    service = service_with(ScriptedModel([ONE_CALL, "Done."]), store)
    first = await run_turn(service, "Go.")
    store.begins.close()
    starting = asyncio.create_task(
        service.start(
            turn_request(after=first.id, approved_calls=(FunctionCall("a", "look", "{}"),)), tools
        )
    )
    await store.begins.reached.wait()
    await run_ready_tasks()
    assert tools.calls == []
    store.begins.open()
    assert texts(await (await starting).result()) == ["Done."]


async def test_approved_call_that_nobody_can_run_is_refused() -> None:
    service = service_with(ScriptedModel([ONE_CALL, "Done."]))
    first = await run_turn(service, "Go.")
    approved: dict[str, Any] = {
        "after": first.id,
        "approved_calls": (FunctionCall("a", "look", "{}"),),
    }
    with pytest.raises(InvalidRequestError) as caught:
        await run_turn(service, **approved)
    assert (caught.value.code, caught.value.param) == ("tool_not_found", "tools")
    # It waits still.
    assert texts(await run_turn(service, **approved, tools=RecordingTools())) == ["Done."]


async def test_each_output_is_stored_as_it_completes() -> None:
    go, waiting = asyncio.Event(), asyncio.Event()

    async def work(call: FunctionCall) -> str:
        if call.call_id == "a":
            waiting.set()
            await go.wait()
        return f"{call.call_id} done"

    store, model = GatedStore(), ScriptedModel([TWO_CALLS, "Done."])
    turn = await service_with(model, store).start(turn_request("Go."), RecordingTools(work))
    await waiting.wait()
    await run_ready_tasks()
    stored = await stored_turn(store, turn)
    assert stored.output[-1] == encode_item(FunctionCallOutput("b", "b done"))
    assert stored.end is None
    go.set()
    assert list(outputs(await turn.result())) == ["b", "a"]
    # The model gets them in the order of its calls.
    assert contents(model)[-2:] == ["a done", "b done"]


# Limit of tool rounds.


@pytest.mark.parametrize("limit", [0, 1, 2])
async def test_turn_over_max_tool_rounds_is_incomplete(limit: int) -> None:
    model, tools = (
        ScriptedModel([*([ONE_CALL] * (limit + 1)), "Fine.", "Fine."]),
        RecordingTools(),
    )
    service = service_with(model)
    response = await run_turn(service, "Go.", tools=tools, max_tool_rounds=limit)
    assert response.end is not None
    assert (response.end.status, response.end.reason) == ("incomplete", "max_tool_calls")
    assert (len(model.calls), len(tools.calls)) == (limit + 1, limit)
    assert kinds(response) == ["FunctionCall", "FunctionCallOutput"] * limit + ["FunctionCall"]
    assert all(
        one.status == "completed" for one in response.output if isinstance(one, FunctionCall)
    )
    # It can be continued, with or without the missing output.
    await run_turn(service, "Well?", after=response.id)
    assert contents(model)[-3:] == ["", INTERRUPTED_OUTPUT, "Well?"]
    *_, last = (item for item in response.output if isinstance(item, FunctionCall))
    await run_turn(service, FunctionCallOutput(last.call_id, "Late."), after=response.id)
    assert contents(model)[-2:] == ["", "Late."]


async def test_turn_with_exactly_max_tool_rounds_completes() -> None:
    model = ScriptedModel([ONE_CALL, ONE_CALL, "Done."])
    response = await run_turn(service_with(model), "Go.", tools=RecordingTools(), max_tool_rounds=2)
    assert (response.status, texts(response)) == ("completed", ["Done."])


# Calls that are left open.


async def test_client_call_ends_the_turn_and_stays_open() -> None:
    async def work(call: FunctionCall) -> str | None:
        return None if call.call_id == "b" else "done"

    model = ScriptedModel([TWO_CALLS, "Fine."])
    service = service_with(model)
    response = await run_turn(service, "Go.", tools=RecordingTools(work))
    assert (response.status, outputs(response)) == ("completed", {"a": "done"})
    assert len(model.calls) == 1
    for wrong, code in (
        ([Message("user", "Well?")], "tool_output_missing"),
        ([FunctionCallOutput("a", "again")], "tool_output_missing"),
        ([FunctionCallOutput("c", "nowhere")], "tool_call_not_found"),
    ):
        with pytest.raises(InvalidRequestError) as caught:
            await run_turn(service, *wrong, after=response.id)
        assert caught.value.code == code
    await run_turn(service, FunctionCallOutput("b", "agreed"), after=response.id)
    assert contents(model) == ["Go.", "", "done", "", "agreed"]


async def test_approved_calls_run_before_the_model_is_called() -> None:
    store, model, tools = (
        GatedStore(),
        ScriptedModel([TWO_CALLS, ONE_CALL, "Done.", "Yes."]),
        RecordingTools(),
    )
    service = service_with(model, store)
    first = await run_turn(service, "Go.")
    call_indexes = [item for item in first.output if isinstance(item, FunctionCall)]
    response = await run_turn(
        service,
        *(FunctionCallOutput("b", "declined"), Message("user", "Just one.")),
        after=first.id,
        approved_calls=(call_indexes[0],),
        tools=tools,
    )
    assert (tools.calls[0], tools.approved_ids) == (call_indexes[0], ["a"])
    assert [(one.name, one.arguments) for one in tools.calls[1:]] == [("look", "{}")]
    assert response.output[0] == FunctionCallOutput("a", "look done")
    expected = ["Go.", "", "look done", "declined", "Just one."]
    assert contents(model) == [*expected, "", "look done"]
    assert [one["content"] for one in model.context(1)] == expected
    fresh = ScriptedModel(["Yes."])
    await run_turn(service_with(fresh, store), "And?", after=response.id)
    assert contents(fresh) == [*expected, "", "look done", "Done.", "And?"]


@pytest.mark.parametrize(
    ("approved", "code"), [("zz", "tool_call_not_found"), ("a", "tool_output_missing")]
)
async def test_approval_of_an_unknown_call_or_of_some_calls_is_refused(
    approved: str, code: str
) -> None:
    tools = RecordingTools()
    service = service_with(ScriptedModel([TWO_CALLS]))
    first = await run_turn(service, "Go.")
    with pytest.raises(InvalidRequestError) as caught:
        await service.start(
            turn_request(after=first.id, approved_calls=(FunctionCall(approved, "look", "{}"),)),
            tools,
        )
    assert caught.value.code == code
    assert tools.calls == []


# The turn accumulator's part.

_CALL_FRAGMENTS = st.builds(
    ToolCallDelta,
    st.integers(0, 2),
    st.none() | st.sampled_from(["", "a", "b"]),
    st.none() | st.just("f"),
    st.text(max_size=3),
)
_DELTAS: st.SearchStrategy[Delta] = st.one_of(
    st.builds(OutputTextDelta, st.text(max_size=3)),
    st.builds(ReasoningSummaryDelta, st.text(max_size=3)),
    _CALL_FRAGMENTS,
    st.builds(UsageUpdate, st.builds(Usage, st.integers(0, 9), st.integers(0, 9))),
)
_ROUNDS = st.lists(st.tuples(st.lists(_DELTAS, max_size=8), st.booleans()), max_size=4)


@settings(deadline=None)
@given(_ROUNDS)
def test_accumulator_joins_rounds_into_one_output(rounds: list[tuple[list[Delta], bool]]) -> None:
    """Items are in order, each added, done and popped once, and all usage is summed."""
    accumulator, events, popped, total_usage = (
        TurnAccumulator(),
        list[Event](),
        list[Item](),
        Usage(),
    )
    for deltas, pops_items in rounds:
        assert accumulator.is_round_empty
        before = len(accumulator.output)
        events += accumulator.feed([*deltas, Finish("stop")])
        wanted, end_events = accumulator.end_round()
        events += end_events
        call_indexes = {delta.index for delta in deltas if isinstance(delta, ToolCallDelta)}
        assert len(wanted) == len(call_indexes)
        assert len({one.call_id for one in wanted}) == len(wanted)
        reports = [delta.usage for delta in deltas if isinstance(delta, UsageUpdate)]
        total_usage = total_usage + reports[-1] if reports else total_usage
        if pops_items:
            popped += accumulator.pop_completed_items()
        if not wanted:
            break
        assert [
            one for one in accumulator.output[before:] if isinstance(one, FunctionCall)
        ] == wanted
        for one in reversed(wanted):
            events += accumulator.add_item(FunctionCallOutput(one.call_id, "done"))
        accumulator.start_round()
    events += accumulator.close(is_complete=True)
    popped += accumulator.pop_completed_items()
    assert tuple(popped) == accumulator.output
    assert (accumulator.usage or Usage()) == total_usage
    begun = [event.index for event in events if isinstance(event, ItemAdded)]
    assert begun == list(range(len(accumulator.output)))
    done = {event.index: event.item for event in events if isinstance(event, ItemDone)}
    assert [done[index] for index in range(len(done))] == list(accumulator.output)
    assert len([event for event in events if isinstance(event, ItemDone)]) == len(done)


def test_accumulator_separates_usage_of_the_last_round() -> None:
    accumulator = TurnAccumulator()
    accumulator.feed([UsageUpdate(Usage(5, 1)), ToolCallDelta(0, "a", "f"), Finish("tool_calls")])
    accumulator.end_round()
    accumulator.start_round()
    assert (accumulator.last_usage, accumulator.usage, accumulator.finish_reason) == (
        None,
        Usage(5, 1),
        None,
    )
    accumulator.feed([OutputTextDelta("Hi."), UsageUpdate(Usage(9, 2))])
    assert (accumulator.last_usage, accumulator.usage) == (Usage(9, 2), Usage(14, 3))


def test_truncated_call_is_not_run() -> None:
    for reason in ("length", "content_filter"):
        accumulator = TurnAccumulator()
        accumulator.feed([ToolCallDelta(0, "a", "f", "{"), Finish(reason)])
        assert accumulator.end_round() == ([], [])
        accumulator.close(is_complete=True)
        assert accumulator.output == (FunctionCall("a", "f", "{", "incomplete"),)
