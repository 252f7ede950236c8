"""A turn with tools: the model asks, tools run, it is asked again, and a crash hides nothing."""

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


async def never(call: FunctionCall) -> str:
    await asyncio.Event().wait()
    return "never"


# The way of a turn.


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("kind", STORES)
def test_one_response_holds_the_whole_exchange(kind: str, stream: bool, tmp_path: Path) -> None:
    async def story(store: Any) -> None:
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
        shown = ["Weather?", "Let me look.", "look done", "look done"]
        assert [len(model.context(number)) for number in range(3)] == [1, 4, 6]
        assert contents(model) == [*shown, "", "look done"]
        # And so it is shown ever after.
        fresh = ScriptedModel(["Yes."])
        await run_turn(service_with(fresh, store), "And?", after=response.id)
        assert contents(fresh) == [*shown, "", "look done", "Sunny.", "And?"]

    run_with_store(kind, tmp_path, story)


async def test_readers_hear_of_calls_and_outputs_in_their_order() -> None:
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


async def test_the_tokens_of_all_rounds_are_paid_and_the_last_says_how_long_the_turn_is() -> None:
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
    # Shown and said, less thoughts and what was there before.
    assert response.end.tokens == 50 + 7 - 4 - 12


@pytest.mark.parametrize("choice", ["required", "function:look", "none", "auto"])
async def test_what_had_to_be_called_has_been_after_one_round(choice: str) -> None:
    model = ScriptedModel([ONE_CALL, ONE_CALL, "Done."])
    options = Options(tool_choice=choice, temperature=0.5)
    response = await run_turn(service_with(model), "Go.", options=options, tools=RecordingTools())
    later = "none" if choice == "none" else "auto"
    assert [one.options.tool_choice for one in model.calls] == [choice, later, later]
    assert {one.options.temperature for one in model.calls} == {0.5}
    assert response.header.options == options, "what was asked for is what is stored"


async def test_an_unstored_turn_runs_tools_too() -> None:
    store, hands = GatedStore(), RecordingTools()
    response = await run_turn(
        service_with(ScriptedModel([ONE_CALL, "Done."]), store), "Go.", tools=hands, store=False
    )
    assert (texts(response), len(hands.calls), store.written) == (["Done."], 1, [])


# The disk comes first.


@pytest.mark.parametrize("gate", ["begins", "items"])
async def test_no_tool_runs_before_its_turn_and_its_call_are_on_disk(gate: str) -> None:
    store, hands = GatedStore(), RecordingTools()
    shut = getattr(store, gate)
    shut.close()
    service = service_with(ScriptedModel([TWO_CALLS, "Done."]), store)
    turn = await service.start(turn_request("Go."), hands)
    await shut.reached.wait()
    await run_ready_tasks()
    assert hands.calls == []
    shut.open()
    response = await turn.result()
    assert len(hands.calls) == 2
    assert texts(response) == ["Done."]


@pytest.mark.parametrize("gate", ["begins", "items"])
async def test_no_tool_runs_where_the_disk_is_full(gate: str) -> None:
    store, hands = GatedStore(), RecordingTools()
    getattr(store, gate).error = StoreError("The disk is full.")
    turn = await service_with(ScriptedModel([TWO_CALLS, "Done."]), store).start(
        turn_request("Go."), hands
    )
    with pytest.raises(StoreError):
        await turn.result()
    assert hands.calls == []


async def test_approved_calls_wait_for_the_disk_too() -> None:
    store, hands = GatedStore(), RecordingTools()
    service = service_with(ScriptedModel([ONE_CALL, "Done."]), store)
    first = await run_turn(service, "Go.")
    store.begins.close()
    starting = asyncio.create_task(
        service.start(
            turn_request(after=first.id, approved_calls=(FunctionCall("a", "look", "{}"),)), hands
        )
    )
    await store.begins.reached.wait()
    await run_ready_tasks()
    assert hands.calls == []
    store.begins.open()
    assert texts(await (await starting).result()) == ["Done."]


async def test_each_output_is_kept_as_it_comes() -> None:
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
    # The model reads them in the order of its calls.
    assert contents(model)[-2:] == ["a done", "b done"]


# How often tools may run.


@pytest.mark.parametrize("most", [0, 1, 2])
async def test_a_model_that_never_stops_calling_is_stopped(most: int) -> None:
    model, hands = (
        ScriptedModel([*([ONE_CALL] * (most + 1)), "Fine.", "Fine."]),
        RecordingTools(),
    )
    service = service_with(model)
    response = await run_turn(service, "Go.", tools=hands, max_tool_rounds=most)
    assert response.end is not None
    assert (response.end.status, response.end.reason) == ("incomplete", "max_tool_calls")
    assert (len(model.calls), len(hands.calls)) == (most + 1, most)
    assert kinds(response) == ["FunctionCall", "FunctionCallOutput"] * most + ["FunctionCall"]
    assert all(
        one.status == "completed" for one in response.output if isinstance(one, FunctionCall)
    )
    # It can be continued, with the output that is missing or without.
    await run_turn(service, "Well?", after=response.id)
    assert contents(model)[-3:] == ["", INTERRUPTED_OUTPUT, "Well?"]
    *_, last = (item for item in response.output if isinstance(item, FunctionCall))
    await run_turn(service, FunctionCallOutput(last.call_id, "Late."), after=response.id)
    assert contents(model)[-2:] == ["", "Late."]


async def test_as_many_rounds_as_there_may_be_are_no_failure() -> None:
    model = ScriptedModel([ONE_CALL, ONE_CALL, "Done."])
    response = await run_turn(service_with(model), "Go.", tools=RecordingTools(), max_tool_rounds=2)
    assert (response.status, texts(response)) == ("completed", ["Done."])


# Calls that are left open.


async def test_a_call_for_somebody_else_ends_the_turn_and_waits() -> None:
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


async def test_what_a_person_agreed_to_runs_first() -> None:
    store, model, hands = (
        GatedStore(),
        ScriptedModel([TWO_CALLS, ONE_CALL, "Done.", "Yes."]),
        RecordingTools(),
    )
    service = service_with(model, store)
    first = await run_turn(service, "Go.")
    made = [item for item in first.output if isinstance(item, FunctionCall)]
    response = await run_turn(
        service,
        *(FunctionCallOutput("b", "declined"), Message("user", "Just one.")),
        after=first.id,
        approved_calls=(made[0],),
        tools=hands,
    )
    assert (hands.calls[0], hands.approved_ids) == (made[0], ["a"])
    assert [(one.name, one.arguments) for one in hands.calls[1:]] == [("look", "{}")]
    assert response.output[0] == FunctionCallOutput("a", "look done")
    shown = ["Go.", "", "look done", "declined", "Just one."]
    assert contents(model) == [*shown, "", "look done"]
    assert [one["content"] for one in model.context(1)] == shown
    fresh = ScriptedModel(["Yes."])
    await run_turn(service_with(fresh, store), "And?", after=response.id)
    assert contents(fresh) == [*shown, "", "look done", "Done.", "And?"]


@pytest.mark.parametrize(
    ("approved", "code"), [("zz", "tool_call_not_found"), ("a", "tool_output_missing")]
)
async def test_what_is_agreed_to_has_to_wait_and_settle_all(approved: str, code: str) -> None:
    hands = RecordingTools()
    service = service_with(ScriptedModel([TWO_CALLS]))
    first = await run_turn(service, "Go.")
    with pytest.raises(InvalidRequestError) as caught:
        await service.start(
            turn_request(after=first.id, approved_calls=(FunctionCall(approved, "look", "{}"),)),
            hands,
        )
    assert caught.value.code == code
    assert hands.calls == []


# The machine's part.

_PIECES = st.builds(
    ToolCallDelta,
    st.integers(0, 2),
    st.none() | st.sampled_from(["", "a", "b"]),
    st.none() | st.just("f"),
    st.text(max_size=3),
)
_SAID: st.SearchStrategy[Delta] = st.one_of(
    st.builds(OutputTextDelta, st.text(max_size=3)),
    st.builds(ReasoningSummaryDelta, st.text(max_size=3)),
    _PIECES,
    st.builds(UsageUpdate, st.builds(Usage, st.integers(0, 9), st.integers(0, 9))),
)
_ROUNDS = st.lists(st.tuples(st.lists(_SAID, max_size=8), st.booleans()), max_size=4)


@settings(deadline=None)
@given(_ROUNDS)
def test_rounds_are_one_answer(rounds: list[tuple[list[Delta], bool]]) -> None:
    """However many: items in order, each announced, ended and taken once, all tokens paid."""
    machine, heard, taken, paid = TurnAccumulator(), list[Event](), list[Item](), Usage()
    for said, looks in rounds:
        assert machine.is_round_empty
        before = len(machine.output)
        heard += machine.feed([*said, Finish("stop")])
        wanted, ends = machine.end_round()
        heard += ends
        made = {delta.index for delta in said if isinstance(delta, ToolCallDelta)}
        assert len(wanted) == len(made)
        assert len({one.call_id for one in wanted}) == len(wanted)
        reports = [delta.usage for delta in said if isinstance(delta, UsageUpdate)]
        paid = paid + reports[-1] if reports else paid
        if looks:
            taken += machine.pop_completed_items()
        if not wanted:
            break
        assert [one for one in machine.output[before:] if isinstance(one, FunctionCall)] == wanted
        for one in reversed(wanted):
            heard += machine.add_item(FunctionCallOutput(one.call_id, "done"))
        machine.start_round()
    heard += machine.close(is_complete=True)
    taken += machine.pop_completed_items()
    assert tuple(taken) == machine.output
    assert (machine.usage or Usage()) == paid
    begun = [event.index for event in heard if isinstance(event, ItemAdded)]
    assert begun == list(range(len(machine.output)))
    done = {event.index: event.item for event in heard if isinstance(event, ItemDone)}
    assert [done[index] for index in range(len(done))] == list(machine.output)
    assert len([event for event in heard if isinstance(event, ItemDone)]) == len(done)


def test_the_tokens_of_the_last_round_are_told_apart() -> None:
    machine = TurnAccumulator()
    machine.feed([UsageUpdate(Usage(5, 1)), ToolCallDelta(0, "a", "f"), Finish("tool_calls")])
    machine.end_round()
    machine.start_round()
    assert (machine.last_usage, machine.usage, machine.finish_reason) == (None, Usage(5, 1), None)
    machine.feed([OutputTextDelta("Hi."), UsageUpdate(Usage(9, 2))])
    assert (machine.last_usage, machine.usage) == (Usage(9, 2), Usage(14, 3))


def test_a_call_that_was_cut_is_none() -> None:
    for reason in ("length", "content_filter"):
        machine = TurnAccumulator()
        machine.feed([ToolCallDelta(0, "a", "f", "{"), Finish(reason)])
        assert machine.end_round() == ([], [])
        machine.close(is_complete=True)
        assert machine.output == (FunctionCall("a", "f", "{", "incomplete"),)
