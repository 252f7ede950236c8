"""Running turns: readers get every event, none blocks another, and a stop ends the work."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.core.events import Created, Ended, Event, TextDelta
from antiphon.core.turns import End, Header, Response
from antiphon.errors import ModelError, StoreError, TurnInterruptedError
from antiphon.turn.running_turns import RunningTurn, TurnRegistry
from support.manual_time_loop import ManualTimeLoop, run_with_manual_time
from support.turn_service import collect_events, run, run_ready_tasks


def initial_response(*, store: bool = True) -> Response:
    return Response("resp_" + "0" * 32, 0.0, Header("m"), (), store=store)


def ended(status: str = "completed") -> Response:
    return Response("resp_" + "0" * 32, 0.0, Header("m"), (), end=End(status, 1.0))  # type: ignore[arg-type]


def done(error: StoreError | None = None) -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
    return future


def finish(turn: RunningTurn, error: ModelError | None = None) -> Event:
    response = ended("failed" if error else "completed")
    last = Ended(response)
    turn.finish(response, last, error)
    return last


def text_deltas(count: int) -> list[Event]:
    return [TextDelta(0, str(number)) for number in range(count)]


async def test_every_reader_gets_every_event_whenever_it_starts() -> None:
    turn = RunningTurn(initial_response(store=False))
    events = text_deltas(6)
    early = [asyncio.ensure_future(collect_events(turn)) for _ in range(3)]
    await run_ready_tasks()
    turn.emit(events[:2])
    await run_ready_tasks()
    turn.emit(events[2:5])
    middle = asyncio.ensure_future(collect_events(turn))
    await run_ready_tasks()
    turn.emit(events[5:])
    last = finish(turn)
    late = await collect_events(turn)
    assert late == [*events, last]
    assert await asyncio.gather(*early, middle) == [late] * 4


async def test_events_emitted_together_are_read_in_one_batch() -> None:
    turn = RunningTurn(initial_response(store=False))
    batches: list[Sequence[Event]] = []

    async def read() -> None:
        async for batch in turn.events():
            batches.append(batch)

    reading = asyncio.ensure_future(read())
    await run_ready_tasks()
    turn.emit(text_deltas(3))
    turn.emit([])
    await run_ready_tasks()
    turn.emit(text_deltas(1))
    await run_ready_tasks()
    last = finish(turn)
    await reading
    assert batches == [text_deltas(3), text_deltas(1), [last]]


def test_reader_delay_batches_events_but_ends_with_the_turn() -> None:
    async def main(loop: ManualTimeLoop) -> None:
        turn = RunningTurn(initial_response(store=False))
        batches: list[Sequence[Event]] = []
        delays = iter([0.0, 1.0, 60.0])

        async def read() -> None:
            async for batch in turn.events(lambda: next(delays)):
                batches.append(batch)

        reading = asyncio.ensure_future(read())
        await run_ready_tasks()
        turn.emit(text_deltas(1))
        await run_ready_tasks()
        assert batches == [text_deltas(1)]
        # It waits a second, and reads the events of that time in one batch.
        turn.emit(text_deltas(2))
        await loop.advance(0.9)
        turn.emit(text_deltas(1))
        await run_ready_tasks()
        assert len(batches) == 1
        await loop.advance(0.2)
        assert batches[1:] == [[*text_deltas(2), *text_deltas(1)]]
        turn.emit(text_deltas(1))
        await loop.advance(59.0)
        assert len(batches) == 2
        last = finish(turn)
        await reading
        assert batches[2:] == [[*text_deltas(1), last]]

    run_with_manual_time(main)


async def test_reader_cancelled_during_its_delay_does_not_affect_others() -> None:
    turn = RunningTurn(initial_response(store=False))

    async def read() -> None:
        async for _ in turn.events(lambda: 60.0):
            raise AssertionError("it should still wait")

    reading = asyncio.ensure_future(read())
    turn.emit(text_deltas(1))
    await run_ready_tasks()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    ending = asyncio.ensure_future(turn.result())
    await run_ready_tasks()
    finish(turn)
    assert (await ending).status == "completed"


async def test_events_are_held_until_the_request_is_stored() -> None:
    turn = RunningTurn(initial_response())
    reading = asyncio.ensure_future(collect_events(turn))
    turn.emit([Created(turn.initial_response), *text_deltas(2)])
    await run_ready_tasks()
    first = asyncio.ensure_future(anext(aiter(turn.events())))
    await run_ready_tasks()
    assert not first.done()
    turn.on_request_stored(done())
    assert await first == [Created(turn.initial_response), *text_deltas(2)]
    last = finish(turn)
    assert await reading == [Created(turn.initial_response), *text_deltas(2), last]


async def test_slow_or_cancelled_reader_does_not_block_the_turn() -> None:
    turn = RunningTurn(initial_response(store=False))
    slow = aiter(turn.events())
    cancelled_reader = asyncio.ensure_future(collect_events(turn))
    turn.emit(text_deltas(1))
    assert await anext(slow) == text_deltas(1)
    cancelled_reader.cancel()
    await asyncio.gather(cancelled_reader, return_exceptions=True)
    turn.emit(text_deltas(2))
    turn.emit(text_deltas(3))
    last = finish(turn)
    assert turn.done(), "although one reader has only read the first event"
    assert [await anext(slow)] == [[*text_deltas(2), *text_deltas(3), last]]
    assert [batch async for batch in slow] == []


async def test_cancelled_result_waiter_does_not_cancel_other_waiters() -> None:
    turn = RunningTurn(initial_response(store=False))
    waiting = [asyncio.ensure_future(turn.result()) for _ in range(2)]
    await run_ready_tasks()
    waiting[0].cancel()
    await run_ready_tasks()
    finish(turn)
    assert (await waiting[1]).status == "completed"
    assert waiting[0].cancelled()


async def test_failed_turn_ends_with_its_error() -> None:
    turn = RunningTurn(initial_response(store=False))
    error = ModelError("No.")
    last = finish(turn, error)
    assert await collect_events(turn) == [last]
    assert (await turn.result()).status == "failed"
    assert turn.error is error


@pytest.mark.parametrize("released", [False, True])
async def test_store_error_is_raised_for_every_reader(released: bool) -> None:
    turn = RunningTurn(initial_response())
    turn.emit([Created(turn.initial_response)])
    if released:
        turn.on_request_stored(done())
    early = asyncio.ensure_future(collect_events(turn))
    await run_ready_tasks()
    store_error = StoreError("The disk is full.")
    turn.fail(store_error)
    for reader in (early, asyncio.ensure_future(collect_events(turn)), turn.result()):
        with pytest.raises(StoreError) as caught:
            await reader
        assert caught.value is store_error
    events = turn.events()
    if released:
        assert await anext(events) == [Created(turn.initial_response)]
    with pytest.raises(StoreError):
        await anext(events)
    assert turn.error is store_error


async def test_unread_failure_is_not_reported_to_the_event_loop() -> None:
    reported: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: reported.append(context))
    RunningTurn(initial_response()).fail(StoreError("The disk is full."))
    await run_ready_tasks()
    assert reported == []


def test_turn_cancelled_before_it_begins_is_interrupted() -> None:
    async def main() -> None:
        registry, turn = TurnRegistry(), RunningTurn(initial_response())
        registry.start(turn, run_until_stopped(turn, asyncio.Event(), []))
        assert turn.task is not None
        # As asyncio.run cancels the remaining tasks.
        turn.task.cancel()
        with pytest.raises(TurnInterruptedError):
            await turn.result()
        assert registry.get(turn.response_id) is None

    run(main())


async def close(registry: TurnRegistry) -> None:
    registry.interrupt()
    await registry.wait_all()


async def run_until_stopped(
    turn: RunningTurn, began: asyncio.Event, stop_errors: list[object]
) -> None:
    """A turn's work: waits until it is stopped, and records the stop error."""
    turn.mark_running()
    began.set()
    try:
        if turn.is_stopping:
            raise asyncio.CancelledError
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        stop_errors.append(turn.stop_error)
    turn.mark_ending()
    await run_ready_tasks()
    finish(turn)


def start_unstored_turn() -> tuple[TurnRegistry, RunningTurn, asyncio.Event, list[object]]:
    """A turn that runs until it is stopped: its registry, when it began, and why it stopped."""
    turn = RunningTurn(initial_response(store=False))
    began, stop_errors = asyncio.Event(), list[object]()
    registry = TurnRegistry()
    registry.start(turn, run_until_stopped(turn, began, stop_errors))
    return registry, turn, began, stop_errors


async def test_repeated_stops_use_the_first_error() -> None:
    registry, turn, began, stop_errors = start_unstored_turn()
    assert registry.get(turn.response_id) is turn
    await began.wait()
    first, second = ModelError("First."), ModelError("Second.")
    turn.stop(first)
    turn.stop(second)
    turn.stop(None)
    await asyncio.gather(turn.cancel(), turn.cancel(), turn.cancel())
    assert stop_errors == [first]
    await run_ready_tasks()
    assert registry.get(turn.response_id) is None


async def test_work_that_has_not_begun_can_be_stopped() -> None:
    turn, began, stop_errors = (
        RunningTurn(initial_response(store=False)),
        asyncio.Event(),
        list[object](),
    )
    TurnRegistry().start(turn, run_until_stopped(turn, began, stop_errors))
    assert (await turn.cancel()).status == "completed"
    assert stop_errors == [None]


async def test_stop_while_the_end_is_stored_has_no_effect() -> None:
    turn = RunningTurn(initial_response(store=False))
    ending, end_stored = asyncio.Event(), asyncio.Event()

    async def ends() -> None:
        turn.mark_running()
        turn.mark_ending()
        ending.set()
        await end_stored.wait()
        finish(turn)

    registry = TurnRegistry()
    registry.start(turn, ends())
    await ending.wait()
    stopping = asyncio.ensure_future(turn.cancel())
    closing = asyncio.ensure_future(close(registry))
    await run_ready_tasks()
    assert not turn.done()
    end_stored.set()
    assert (await stopping).status == "completed"
    await closing


async def test_detaching_cancels_only_an_unstored_turn() -> None:
    for store in (True, False):
        turn, began, stop_errors = (
            RunningTurn(initial_response(store=store)),
            asyncio.Event(),
            list[object](),
        )
        registry = TurnRegistry()
        registry.start(turn, run_until_stopped(turn, began, stop_errors))
        await began.wait()
        await turn.detach()
        assert turn.done() is not store
        await close(registry)
        assert [type(reason) for reason in stop_errors] == [
            TurnInterruptedError if store else type(None)
        ]


async def test_stop_after_the_end_has_no_effect() -> None:
    turn = RunningTurn(initial_response(store=False))
    finish(turn)
    turn.stop(ModelError("Late."))
    assert not turn.is_stopping
    assert (await turn.cancel()).status == "completed"
    assert turn.error is None


async def test_request_that_cannot_be_stored_stops_the_work() -> None:
    turn, began, stop_errors = RunningTurn(initial_response()), asyncio.Event(), list[object]()
    TurnRegistry().start(turn, run_until_stopped(turn, began, stop_errors))
    await began.wait()
    store_error = StoreError("The disk is full.")
    turn.on_request_stored(done(store_error))
    await turn.result()
    assert stop_errors == [store_error]


async def test_concurrent_closes_wait_until_all_turns_end() -> None:
    registry, turn, began, stop_errors = start_unstored_turn()
    await began.wait()
    await asyncio.gather(close(registry), close(registry))
    assert turn.done()
    assert [type(reason) for reason in stop_errors] == [TurnInterruptedError]
    await close(registry)


# Relays.

#: How many events come, whether the relay takes them, and how often the loop turns before that.
STEPS = st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 3)), max_size=12)


@settings(deadline=None)
@given(STEPS, st.integers(0, 12), st.booleans())
def test_each_event_comes_once_by_relay_or_reader(
    steps: list[tuple[int, bool, int]], published_at: int, yields: bool
) -> None:
    async def main() -> None:
        turn = RunningTurn(initial_response())
        takes = False
        seen: list[Event] = []

        def relay(events: Sequence[Event]) -> bool:
            if takes:
                seen.extend(events)
            return takes

        async def read() -> None:
            async for batch in turn.events(relay=relay):
                if yields:
                    # A client that is slow.
                    await asyncio.sleep(0)
                seen.extend(batch)

        readers = [asyncio.ensure_future(read()), asyncio.ensure_future(collect_events(turn))]
        sent: list[Event] = []
        for number, (count, takes, rounds) in enumerate(steps):  # noqa: B007
            if number == published_at:
                turn.on_request_stored(done())
            for _ in range(rounds):
                await asyncio.sleep(0)
            # While a batch is being written, nothing else is.
            batch: list[Event] = [TextDelta(0, f"{number}.{one}") for one in range(count)]
            turn.emit(batch)
            sent += batch
        turn.on_request_stored(done())
        sent.append(finish(turn))
        _, other = await asyncio.gather(*readers)
        assert seen == sent == other

    asyncio.run(main())


async def test_relay_of_a_reader_that_has_left_gets_nothing() -> None:
    turn = RunningTurn(initial_response(store=False))
    taken: list[Event] = []

    def relay(events: Sequence[Event]) -> bool:
        taken.extend(events)
        return True

    async def read() -> None:
        async for _ in turn.events(relay=relay):
            raise AssertionError("the relay takes all")

    reader = asyncio.ensure_future(read())
    await run_ready_tasks()
    turn.emit(text_deltas(1))
    reader.cancel()
    turn.emit(text_deltas(1))
    await asyncio.wait([reader])
    assert len(taken) == 1


def test_rhythm_of_a_queued_turn_is_that_of_one_that_did_not_wait() -> None:
    async def rhythm(loop: ManualTimeLoop, *, waits: bool) -> tuple[int, ...]:
        turn = RunningTurn(initial_response(), is_streamed=True, is_queued=waits)
        if waits:
            turn.emit([Created(turn.initial_response)])
            await loop.advance(60)
            turn.mark_begun()
        turn.emit([Created(turn.initial_response)])
        for event in text_deltas(3):
            await loop.advance(1)
            turn.emit([event])
        finish(turn)
        return turn.rhythm

    async def both(loop: ManualTimeLoop) -> None:
        assert await rhythm(loop, waits=True) == (0, 0, 1, 100, 1, 100, 1, 100)
        assert await rhythm(loop, waits=False) == (0, 0, 1, 100, 1, 100, 1, 100)

    run_with_manual_time(both)
