"""Tool rounds of a turn that is cancelled, cut off, or too long."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any

import pytest

from antiphon.core.context_policies import TokenBudget, Window
from antiphon.core.items import FunctionCall, Message, decode_item
from antiphon.core.tool_rules import INTERRUPTED_OUTPUT
from antiphon.core.turns import Options
from antiphon.errors import (
    AntiphonError,
    ContextLengthExceededError,
    ModelTimeoutError,
    UpstreamRateLimitError,
)
from antiphon.models.scripted import (
    ScriptedModel,
    ScriptedReply,
    cut,
    fail,
    finish,
    hang,
    say,
)
from support.manual_time_loop import ManualTimeLoop, run_with_manual_time
from support.turn_service import (
    ONE_CALL,
    TWO_CALLS,
    GatedStore,
    RecordingTools,
    contents,
    kinds,
    outputs,
    run_ready_tasks,
    run_turn,
    service_with,
    stored_turn,
    texts,
    turn_request,
    wait_forever,
)

# Truncated calls.


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (ONE_CALL + finish("length"), "incomplete"),
        (ONE_CALL + finish("content_filter"), "incomplete"),
        (ONE_CALL + cut(), "failed"),
    ],
)
async def test_truncated_call_is_not_run(reply: ScriptedReply, status: str) -> None:
    tools = RecordingTools()
    model = ScriptedModel([reply, "Fine."])
    service = service_with(model)
    response = await run_turn(service, "Go.", tools=tools)
    assert response.status == status
    assert tools.calls == []
    await run_turn(service, "Well?", after=response.id)
    assert contents(model)[-2:] == [INTERRUPTED_OUTPUT, "Well?"]


# Timeout and cancellation.


@pytest.mark.parametrize("where", ["model", "tool", "approved", "second round"])
def test_timed_out_turn_fails_and_can_be_continued(where: str) -> None:
    run_with_manual_time(partial(time_out, where))


async def time_out(where: str, loop: ManualTimeLoop) -> None:
    tools = RecordingTools(wait_forever if where in ("tool", "approved") else None)
    scripts: dict[str, list[ScriptedReply]] = {
        "model": [say("Well") + hang(), say("Fine.")],
        "tool": [TWO_CALLS, say("Fine.")],
        "approved": [ONE_CALL, say("Fine.")],
        "second round": [ONE_CALL, say("Well") + hang(), say("Fine.")],
    }
    model = ScriptedModel(scripts[where])
    store = GatedStore()
    service = service_with(model, store)
    more: dict[str, Any] = {}
    if where == "approved":
        more["after"] = (await run_turn(service, "Go.")).id
        more["approved_calls"] = (FunctionCall("a", "look", "{}"),)
    turn = await service.start(turn_request("Now.", timeout=0.25, **more), tools)
    await loop.advance(0.2)
    assert not turn.done()
    await loop.advance(0.1)
    response = await turn.result()
    assert isinstance(turn.error, ModelTimeoutError)
    assert (turn.error.code, turn.error.response_id) == ("turn_timeout", response.id)
    assert "0.25 seconds" in turn.error.message
    assert response.status == "failed"
    assert tuple(map(decode_item, (await stored_turn(store, turn)).output)) == response.output
    assert sorted(tools.cancelled_ids) == {"tool": ["a", "b"], "approved": ["a"]}.get(where, [])
    assert model.cancelled.is_set() == (where in ("model", "second round"))
    after = await run_turn(service, "Well?", after=response.id)
    assert texts(after) == ["Fine."]


async def test_turn_within_its_timeout_completes() -> None:
    response = await run_turn(
        service_with(ScriptedModel([ONE_CALL, "Done."])),
        "Go.",
        tools=RecordingTools(),
        timeout=60.0,
    )
    assert texts(response) == ["Done."]


async def test_cancelled_turn_cancels_running_tools_and_keeps_outputs() -> None:
    reached = asyncio.Event()

    async def work(call: FunctionCall) -> str:
        if call.call_id == "a":
            return "done"
        reached.set()
        return await wait_forever(call)

    store, tools = GatedStore(), RecordingTools(work)
    model = ScriptedModel([TWO_CALLS, "Fine."])
    service = service_with(model, store)
    turn = await service.start(turn_request("Go."), tools)
    await reached.wait()
    response = await turn.cancel()
    assert (response.status, outputs(response)) == ("cancelled", {"a": "done"})
    assert tools.cancelled_ids == ["b"]
    assert tuple(map(decode_item, (await stored_turn(store, turn)).output)) == response.output
    await run_turn(service, "Well?", after=response.id)
    assert contents(model) == ["Go.", "", "done", "", INTERRUPTED_OUTPUT, "Well?"]


async def test_turn_cancelled_before_its_calls_are_stored_runs_no_tool() -> None:
    store, tools = GatedStore(), RecordingTools()
    store.items.close()
    turn = await service_with(ScriptedModel([ONE_CALL]), store).start(turn_request("Go."), tools)
    await store.items.reached.wait()
    await run_ready_tasks()
    stopping = asyncio.ensure_future(turn.cancel())
    await run_ready_tasks()
    store.items.open()
    assert (await stopping).status == "cancelled"
    assert tools.calls == []


async def test_exception_in_the_tool_source_fails_the_turn(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work(call: FunctionCall) -> str:
        if call.call_id == "a":
            raise RuntimeError("the key is sk-123")
        return await wait_forever(call)

    tools = RecordingTools(work)
    turn = await service_with(ScriptedModel([TWO_CALLS])).start(turn_request("Go."), tools)
    with caplog.at_level(logging.ERROR):
        response = await turn.result()
    assert (response.status, tools.cancelled_ids) == ("failed", ["b"])
    assert type(turn.error) is AntiphonError
    assert "sk-123" not in turn.error.message
    assert len(caplog.records) == 1


async def test_model_error_after_tools_ran_keeps_their_outputs() -> None:
    model = ScriptedModel(
        [ONE_CALL, say("So") + fail(UpstreamRateLimitError("Slow down.")), "Done."]
    )
    service = service_with(model)
    turn = await service.start(turn_request("Go."), RecordingTools())
    response = await turn.result()
    assert isinstance(turn.error, UpstreamRateLimitError)
    assert kinds(response) == ["FunctionCall", "FunctionCallOutput", "Message"]
    assert response.output[-1] == Message("assistant", "So", status="incomplete")
    await run_turn(service, "Go on.", after=response.id)
    assert contents(model) == ["Go.", "", "look done", "So", "Go on."]


# Context limits.


async def test_tool_outputs_push_older_turns_out_of_the_budget() -> None:
    async def work(call: FunctionCall) -> str:
        return "word " * 20

    model = ScriptedModel(["1", "2", ONE_CALL, "Done."])
    service, after = service_with(model), None
    for number in range(2):
        after = (await run_turn(service, f"Question {number}", after=after)).id
    response = await run_turn(
        service, "Go.", after=after, tools=RecordingTools(work), context_policies=(TokenBudget(25),)
    )
    assert response.status == "completed"
    assert contents(model)[0] == "Question 1"
    assert [one["content"] for one in model.context(2)][:3] == ["Question 0", "1", "Question 1"]


async def test_window_counts_messages_of_the_current_turns_rounds() -> None:
    model = ScriptedModel(["1", "2", ONE_CALL, "Done."])
    service, after = service_with(model), None
    for number in range(2):
        after = (await run_turn(service, f"Question {number}", after=after)).id
    await run_turn(
        service, "Go.", after=after, tools=RecordingTools(), context_policies=(Window(5),)
    )
    assert [len(model.context(number)) for number in (2, 3)] == [5, 5]
    assert contents(model)[0] == "Question 1"


async def test_turn_over_its_token_budget_fails_with_its_outputs() -> None:
    async def work(call: FunctionCall) -> str:
        return "word " * 50

    store, model = GatedStore(), ScriptedModel([ONE_CALL])
    service = service_with(model, store)
    turn = await service.start(
        turn_request("Go.", context_policies=(TokenBudget(20),)), RecordingTools(work)
    )
    response = await turn.result()
    assert isinstance(turn.error, ContextLengthExceededError)
    assert turn.error.used is not None
    assert turn.error.used > 20 == turn.error.limit
    assert kinds(response) == ["FunctionCall", "FunctionCallOutput"]
    assert len((await stored_turn(store, turn)).output) == 2
    assert len(model.calls) == 1


@pytest.mark.parametrize("truncation", ["auto", "disabled"])
async def test_truncation_applies_to_a_second_round(truncation: Any) -> None:
    def script(messages: list[dict[str, Any]]) -> ScriptedReply | str:
        if len(messages) > 5:
            return fail(ContextLengthExceededError("Too long.", used=len(messages), limit=5))
        if messages[-1]["content"] == "Go.":
            return say("Let me see.") + ONE_CALL
        return "Done."

    model = ScriptedModel(script)
    service, after = service_with(model), None
    for number in range(2):
        after = (await run_turn(service, f"Question {number}", after=after)).id
    turn = await service.start(
        turn_request("Go.", after=after, options=Options(truncation=truncation)),
        RecordingTools(),
    )
    response = await turn.result()
    if truncation == "disabled":
        assert isinstance(turn.error, ContextLengthExceededError)
        assert response.status == "failed"
    else:
        assert texts(response) == ["Let me see.", "Done."]
        assert contents(model)[-3:] == ["Go.", "Let me see.", "look done"]
