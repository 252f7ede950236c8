"""The turn runner when a turn is cancelled, detached, or too long for the model."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from antiphon.core.events import Created, Ended
from antiphon.core.items import FunctionCall, Message, decode_item
from antiphon.core.turns import DEFAULT_TENANT, Options
from antiphon.errors import (
    ContextLengthExceededError,
    StoreError,
)
from antiphon.models.scripted import (
    ScriptedModel,
    ScriptedReply,
    call,
    calls,
    fail,
    hang,
    say,
    think,
    wait,
)
from antiphon.turn.service import TurnService
from support.turn_service import (
    GatedStore,
    assistant,
    collect_events,
    read_until,
    run,
    run_ready_tasks,
    run_turn,
    service_with,
    stored_turn,
    texts,
    turn_request,
    user,
)

DISK = "The disk is full."


# Cancellation.


async def test_turn_cancelled_before_its_first_step_calls_no_model() -> None:
    store, model = GatedStore(), ScriptedModel(["Hi."])
    turn = await service_with(model, store).start(turn_request("Hello."))
    response = await turn.cancel()
    assert (response.status, response.output, turn.error) == ("cancelled", (), None)
    assert model.calls == []
    assert (await stored_turn(store, turn)).end == response.end
    assert await collect_events(turn) == [Created(turn.initial_response), Ended(response)]


@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize("text", ["", "One moment"])
async def test_cancelled_turn_keeps_partial_output(text: str, store: bool) -> None:
    disk, reached = GatedStore(), asyncio.Event()
    model = ScriptedModel([say(text) + hang(reached)])
    turn = await service_with(model, disk).start(turn_request("Hello.", store=store))
    await reached.wait()
    response, again = await asyncio.gather(turn.cancel(), turn.cancel())
    assert response is again
    assert model.cancelled.is_set()
    assert response.status == "cancelled"
    part = (Message("assistant", text, status="incomplete"),) if text else ()
    assert response.output == part
    stored = await disk.turn(DEFAULT_TENANT, turn.response_id)
    assert (stored is not None) is store
    assert stored is None or tuple(map(decode_item, stored.output)) == part
    assert await turn.cancel() is response, "cancelling a finished turn returns its response"


async def test_cancel_while_the_end_is_written_has_no_effect() -> None:
    store = GatedStore()
    store.ends.close()
    service = service_with(ScriptedModel(["Hi.", "Still here."]), store)
    turn = await service.start(turn_request("Hello."))
    await store.ends.reached.wait()
    stopping = asyncio.ensure_future(turn.cancel())
    await run_ready_tasks()
    store.ends.open()
    response = await stopping
    assert (response.status, texts(response)) == ("completed", ["Hi."])
    after = await run_turn(service, "And?", after=turn.response_id)
    assert texts(after) == ["Still here."]


@pytest.mark.parametrize("blocked_write", ["items", "ends"])
def test_event_loop_shutdown_does_not_interrupt_pending_writes(blocked_write: str) -> None:
    async def main() -> None:
        store = GatedStore()
        gate = getattr(store, blocked_write)
        gate.close()
        service = service_with(ScriptedModel([think("Hm.") + say("Hi.")]), store)
        turn = await service.start(turn_request("Hello."))
        await gate.reached.wait()
        await run_ready_tasks()
        assert turn.task is not None
        # As asyncio.run cancels the remaining tasks.
        turn.task.cancel()
        await run_ready_tasks()
        gate.open()
        response = await turn.result()
        assert response.status == "completed"
        assert (await stored_turn(store, turn)).end == response.end

    run(main())


async def test_turn_cancelled_before_its_request_is_stored_is_stored_as_cancelled() -> None:
    store, reached = GatedStore(), asyncio.Event()
    store.begins.close()
    turn = await service_with(ScriptedModel([hang(reached)]), store).start(turn_request("Hello."))
    await reached.wait()
    stopping = asyncio.ensure_future(turn.cancel())
    await run_ready_tasks()
    assert not stopping.done()
    store.begins.open()
    response = await stopping
    assert response.status == "cancelled"
    assert (await stored_turn(store, turn)).end == response.end


# Context length.


def limited_model(limit: int, *, reports_counts: bool, words: int = 0) -> ScriptedModel:
    """A model that takes at most ``limit`` messages; its error may report the counts."""

    def script(messages: list[dict[str, Any]]) -> ScriptedReply:
        if len(messages) <= limit:
            return say("Fine.")
        numbers = {"used": len(messages), "limit": limit} if reports_counts else {}
        return say("x" * words) + fail(ContextLengthExceededError("Too long.", **numbers))

    return ScriptedModel(script)


async def run_turns(service: TurnService, turns: int) -> str:
    """Runs a conversation of so many turns; returns its newest response id."""
    head = None
    for number in range(turns):
        head = (await run_turn(service, f"question {number}", after=head)).id
    assert head is not None
    return head


@pytest.mark.parametrize("reports_counts", [True, False])
async def test_auto_truncation_drops_the_oldest_turns(reports_counts: bool) -> None:
    store = GatedStore()
    head = await run_turns(service_with(ScriptedModel(["Fine."] * 9), store), 9)
    model = limited_model(9, reports_counts=reports_counts)
    response = await run_turn(
        service_with(model, store),
        "Still there?",
        after=head,
        options=Options(truncation="auto"),
    )
    assert response.status == "completed"
    shown = model.context()
    assert shown[-3:] == [user("question 8"), assistant("Fine."), user("Still there?")]
    assert len(shown) <= 9
    assert len(model.context(0)) == 19
    turns = await service_with(model, store).reader.chain(DEFAULT_TENANT, response.id)
    assert len(turns) == 10, "only the model's context is shorter"


async def test_too_long_context_without_truncation_fails_the_turn() -> None:
    store = GatedStore()
    head = await run_turns(service_with(ScriptedModel(["Fine."] * 5), store), 5)
    model = limited_model(5, reports_counts=True)
    turn = await service_with(model, store).start(turn_request("Still there?", after=head))
    assert (await turn.result()).status == "failed"
    assert isinstance(turn.error, ContextLengthExceededError)
    assert len(model.calls) == 1


@pytest.mark.parametrize("words", [0, 3])
async def test_context_that_cannot_be_truncated_fails_the_turn(words: int) -> None:
    """The newest turn alone is too long, or the model had already begun to answer."""
    store = GatedStore()
    head = await run_turns(service_with(ScriptedModel(["Fine."] * 3), store), 3)
    model = limited_model(0, reports_counts=False, words=words)
    turn = await service_with(model, store).start(
        turn_request("Still there?", after=head, options=Options(truncation="auto"))
    )
    assert (await turn.result()).status == "failed"
    assert isinstance(turn.error, ContextLengthExceededError)
    assert len(model.calls) == (1 if words else 3)


# Readers.


async def test_stored_turn_continues_after_its_reader_detaches() -> None:
    store, go = GatedStore(), asyncio.Event()
    service = service_with(ScriptedModel([say("One, ") + wait(go) + say("two.")]), store)
    turn = await service.start(turn_request("Count."))
    await read_until(turn, "One")
    await turn.detach()
    assert not turn.done()
    blocked_write = service.registry.get(turn.response_id)
    assert blocked_write is turn
    go.set()
    events = await collect_events(blocked_write)
    assert events[0] == Created(turn.initial_response)
    response = await turn.result()
    assert events[-1] == Ended(response)
    assert texts(response) == ["One, two."]
    await run_ready_tasks()
    assert service.registry.get(turn.response_id) is None


async def test_unstored_turn_is_cancelled_when_its_reader_detaches() -> None:
    store, reached = GatedStore(), asyncio.Event()
    model = ScriptedModel([say("One") + hang(reached)])
    turn = await service_with(model, store).start(turn_request("Count.", store=False))
    await reached.wait()
    await turn.detach()
    assert model.cancelled.is_set()
    assert (await turn.result()).status == "cancelled"
    assert not store.begins.reached.is_set()
    assert not store.ends.reached.is_set()


async def test_turn_with_client_calls_completes_with_open_calls() -> None:
    wanted = calls(call("f", {"x": 1}), call("g", {"y": 2}))
    response = await run_turn(service_with(ScriptedModel([say("So:") + wanted])), "Do it.")
    assert response.status == "completed"
    assert response.output == (
        Message("assistant", "So:"),
        FunctionCall("call_1_0", "f", '{"x":1}'),
        FunctionCall("call_1_1", "g", '{"y":2}'),
    )


async def test_closing_the_service_stores_running_turns_as_interrupted() -> None:
    store, reached = GatedStore(), asyncio.Event()
    service = service_with(ScriptedModel([say("One") + hang(reached)]), store)
    turn = await service.start(turn_request("Count."))
    await reached.wait()
    store.ends.close()
    closing = asyncio.ensure_future(service.close())
    await store.ends.reached.wait()
    await run_ready_tasks()
    assert not closing.done()
    store.ends.open()
    await closing
    response = await turn.result()
    assert response.end is not None
    assert response.end.error is not None
    assert (response.status, response.end.error.code) == ("failed", "interrupted")
    assert texts(response) == ["One"]
    with pytest.raises(StoreError):
        await service.reader.response(DEFAULT_TENANT, turn.response_id)
