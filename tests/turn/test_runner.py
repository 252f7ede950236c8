"""The turn runner: what readers see is on disk first, and every failure ends the turn."""

from __future__ import annotations

import asyncio
import logging

import pytest

from antiphon.core.deltas import OutputTextDelta
from antiphon.core.events import Created, Ended, Event, ItemAdded, ItemDone
from antiphon.core.items import Message, decode_item
from antiphon.core.turns import DEFAULT_TENANT, TurnError, Usage
from antiphon.errors import (
    AntiphonError,
    ModelError,
    StoreError,
    UpstreamRateLimitError,
)
from antiphon.models.scripted import (
    ScriptedModel,
    ScriptedReply,
    call,
    calls,
    cut,
    fail,
    finish,
    hang,
    report_usage,
    say,
    think,
    wait,
)
from support.turn_service import (
    GatedStore,
    append_events,
    collect_events,
    run_ready_tasks,
    run_turn,
    service_with,
    stored_turn,
    turn_request,
    user,
)

DISK = "The disk is full."


# Order of writes.


async def test_model_is_called_while_the_request_is_written() -> None:
    store, reached = GatedStore(), asyncio.Event()
    store.begins.close()
    service = service_with(ScriptedModel([say("Hi.") + hang(reached)]), store)
    turn = await service.start(turn_request("Hello."))
    first = asyncio.ensure_future(anext(aiter(turn.events())))
    await reached.wait()
    await run_ready_tasks()
    assert await store.head(DEFAULT_TENANT, turn.response_id) is None
    assert not first.done(), "no event is sent before the request is stored"
    store.begins.open()
    batch = await first
    assert batch[0] == Created(turn.initial_response)
    assert (await stored_turn(store, turn)).end is None
    await service.close()


async def test_end_is_stored_before_readers_see_it() -> None:
    store = GatedStore()
    store.ends.close()
    service = service_with(ScriptedModel(["Hi."]), store)
    turn = await service.start(turn_request("Hello."))
    events: list[Event] = []
    reading = asyncio.ensure_future(append_events(turn, events))
    result = asyncio.ensure_future(turn.result())
    await store.ends.reached.wait()
    await run_ready_tasks()
    assert isinstance(events[-1], ItemDone), "answer items need not wait for the end"
    assert not turn.done()
    assert not result.done()
    assert (await stored_turn(store, turn)).end is None
    store.ends.open()
    await reading
    assert events[-1:] == [Ended(await result)]
    assert (await stored_turn(store, turn)).end == (await result).end


async def test_items_are_stored_as_they_complete() -> None:
    store, reached, go = GatedStore(), asyncio.Event(), asyncio.Event()
    reply = think("Hm.") + say("Hi.") + wait(go, reached) + calls(call("f", {}))
    service = service_with(ScriptedModel([reply]), store)
    turn = await service.start(turn_request("Hello."))
    await reached.wait()
    await run_ready_tasks()
    stored = await stored_turn(store, turn)
    assert [type(decode_item(item)).__name__ for item in stored.output] == ["Reasoning"]
    assert stored.end is None
    go.set()
    response = await turn.result()
    assert tuple(map(decode_item, (await stored_turn(store, turn)).output)) == response.output
    assert len(response.output) == 3


async def test_end_is_written_after_pending_items() -> None:
    store = GatedStore()
    store.items.close()
    service = service_with(ScriptedModel([think("Hm.") + say("Hi.")]), store)
    turn = await service.start(turn_request("Hello."))
    await store.items.reached.wait()
    await run_ready_tasks()
    assert store.written == [None]
    store.items.open()
    response = await turn.result()
    assert tuple(map(decode_item, (await stored_turn(store, turn)).output)) == response.output


@pytest.mark.parametrize("stream", [True, False])
async def test_turn_events_from_created_to_ended(stream: bool) -> None:
    reply = think("Hm.") + say("Hi ", "Alice.") + report_usage(Usage(7, 3, cached_tokens=5))
    model = ScriptedModel([reply])
    turn = await service_with(model).start(turn_request("I am Alice.", stream=stream))
    events = await collect_events(turn)
    response = await turn.result()
    assert isinstance(events[0], Created)
    assert events[0].response.status == "in_progress"
    assert events[-1] == Ended(response)
    assert sum(isinstance(event, Created | Ended) for event in events) == 2
    assert [event.index for event in events if isinstance(event, ItemAdded)] == [0, 1]
    assert response.output == tuple(one.item for one in events if isinstance(one, ItemDone))
    assert response.end is not None
    assert (response.status, response.end.usage) == ("completed", Usage(7, 3, cached_tokens=5))
    assert response.end.ended_at >= response.created_at
    assert model.calls[0].stream is stream
    assert turn.error is None


async def test_answer_cut_at_the_token_limit_is_incomplete() -> None:
    response = await run_turn(
        service_with(ScriptedModel([say("So") + finish("length")])), "Tell me all."
    )
    assert response.output == (Message("assistant", "So", status="incomplete"),)
    assert response.end is not None
    assert (response.status, response.end.reason) == ("incomplete", "max_output_tokens")


# Store failures.


async def test_request_that_cannot_be_stored_raises_and_stores_nothing() -> None:
    for instantly in (True, False):
        store, reached = GatedStore(), asyncio.Event()
        store.begins.error = StoreError(DISK)
        store.begins.close()
        model = ScriptedModel([say("Hi.") + hang(reached)])
        turn = await service_with(model, store).start(turn_request("Hello."))
        reading = asyncio.ensure_future(collect_events(turn))
        if not instantly:
            await reached.wait()
        store.begins.open()
        for reader in (reading, turn.result(), collect_events(turn)):
            with pytest.raises(StoreError, match=DISK) as caught:
                await reader
            assert caught.value.response_id is None
        assert model.cancelled.is_set() or not model.calls
        assert await store.head(DEFAULT_TENANT, turn.response_id) is None


async def test_short_turn_whose_request_cannot_be_stored_ends() -> None:
    """The model finishes before the write fails."""
    store = GatedStore()
    store.begins.error = StoreError(DISK)
    store.begins.close()
    turn = await service_with(ScriptedModel(["Hi."]), store).start(turn_request("Hello."))
    reading = asyncio.ensure_future(collect_events(turn))
    await run_ready_tasks()
    store.begins.open()
    with pytest.raises(StoreError, match=DISK):
        await reading
    with pytest.raises(StoreError, match=DISK):
        await turn.result()
    assert turn.error is not None
    assert turn.error.response_id is None


async def test_end_that_cannot_be_stored_is_an_error() -> None:
    store = GatedStore()
    store.ends.error = StoreError(DISK)
    turn = await service_with(ScriptedModel(["Hi."]), store).start(turn_request("Hello."))
    events: list[Event] = []
    with pytest.raises(StoreError, match=DISK):
        await append_events(turn, events)
    assert isinstance(events[0], Created)
    assert not any(isinstance(event, Ended) for event in events)
    with pytest.raises(StoreError, match=DISK):
        await turn.result()
    stored = await stored_turn(store, turn)
    assert (stored.output, stored.end) == ((), None)


async def test_turn_with_unstored_end_is_failed_once_the_store_recovers() -> None:
    store = GatedStore()
    store.ends.error = StoreError(DISK)
    model = ScriptedModel([say("Hi."), "Fine."])
    service = service_with(model, store)
    turn = await service.start(turn_request("Hello."))
    with pytest.raises(StoreError, match=DISK):
        await turn.result()
    await run_ready_tasks()
    with pytest.raises(StoreError, match=DISK):
        await service.start(turn_request("And?", after=turn.response_id))
    store.ends.error = None
    ended = await service.reader.response(DEFAULT_TENANT, turn.response_id)
    assert ended.end is not None
    assert ended.end.error is not None
    assert (ended.status, ended.end.error.code) == ("failed", "store_unavailable")
    await run_turn(service, "And?", after=turn.response_id)
    assert model.context() == [user("Hello."), user("And?")], (
        "output that was not stored is not sent"
    )


@pytest.mark.parametrize("after_the_answer", [False, True])
async def test_item_that_cannot_be_stored_fails_the_turn(after_the_answer: bool) -> None:
    """The write fails while the model still answers, or after the answer."""
    store, reached = GatedStore(), asyncio.Event()
    store.items.error = StoreError(DISK)
    store.items.close()
    talk = think("Hm.") + say("Hi.")
    model = ScriptedModel([talk if after_the_answer else talk + hang(reached)])
    turn = await service_with(model, store).start(turn_request("Hello."))
    reading = asyncio.ensure_future(collect_events(turn))
    await store.items.reached.wait()
    await run_ready_tasks()
    store.items.open()
    for reader in (reading, turn.result()):
        with pytest.raises(StoreError, match=DISK):
            await reader
    stored = await stored_turn(store, turn)
    assert stored.end is not None, "it does not stay in progress for ever"
    assert (stored.end.status, stored.end.error) == (
        "failed",
        TurnError("store_unavailable", DISK),
    )


# Model failures.


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("error", [ModelError("It broke."), UpstreamRateLimitError("Slow down.")])
async def test_model_error_fails_the_turn_and_stores_partial_output(
    error: AntiphonError, stream: bool
) -> None:
    store = GatedStore()
    model = ScriptedModel([think("Hm.") + say("It is") + fail(error)])
    turn = await service_with(model, store).start(turn_request("Well?", stream=stream))
    response = await turn.result()
    assert response.end is not None
    assert (response.status, turn.error) == ("failed", error)
    assert response.end.error == TurnError(error.code, error.message)
    assert error.response_id == turn.response_id
    if stream:
        assert response.output[-1] == Message("assistant", "It is", status="incomplete")
    stored = await stored_turn(store, turn)
    assert tuple(map(decode_item, stored.output)) == response.output
    assert stored.end == response.end
    assert (await collect_events(turn))[-1] == Ended(response)


async def test_failed_unstored_turn_has_no_response_id() -> None:
    error = ModelError("It broke.")
    turn = await service_with(ScriptedModel([fail(error)])).start(
        turn_request("Well?", store=False)
    )
    assert (await turn.result()).status == "failed"
    assert turn.error is error
    assert error.response_id is None


async def test_unexpected_exception_is_reported_without_its_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def script(_messages: object) -> ScriptedReply:
        raise ValueError("a secret detail")

    with caplog.at_level(logging.ERROR, "antiphon.turn"):
        store = GatedStore()
        turn = await service_with(ScriptedModel(script), store).start(turn_request("Well?"))
        response = await turn.result()
        assert response.end is not None
        assert response.end.error is not None
        assert response.end.error.code == "server_error"
        assert "detail" not in response.end.error.message
        assert (await stored_turn(store, turn)).end == response.end
    assert "a secret detail" in caplog.text


async def test_text_that_cannot_be_encoded_ends_the_turn() -> None:
    """No model implementation emits such text, but a turn without an end would hang its readers."""
    for store in (True, False):
        service = service_with(
            ScriptedModel([ScriptedReply((OutputTextDelta("\udcff"),)), "Fine."])
        )
        turn = await service.start(turn_request("Well?", store=store))
        if not store:
            assert (await turn.result()).status == "completed"
            continue
        with pytest.raises(AntiphonError, match="failed"):
            await turn.result()
        await run_ready_tasks()
        response = await run_turn(service, "And?", after=turn.response_id)
        assert response.status == "completed", "it does not stay in progress for ever"


async def test_answer_without_a_finish_reason_fails_the_turn() -> None:
    for reply in (say("So ") + cut(), cut()):
        turn = await service_with(ScriptedModel([reply])).start(turn_request("Well?"))
        response = await turn.result()
        assert response.status == "failed"
        assert isinstance(turn.error, ModelError)
