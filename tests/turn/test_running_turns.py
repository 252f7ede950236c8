"""Running turns: everyone reads everything, nobody is in the way, and a stop stops."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from antiphon.core.events import Created, Ended, Event, TextDelta
from antiphon.core.turns import End, Header, Response
from antiphon.errors import ModelError, StoreError, TurnInterruptedError
from antiphon.turn.running_turns import RunningTurn, TurnRegistry
from support.turn_service import collect_events, run, run_ready_tasks


def opening(*, store: bool = True) -> Response:
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


def words(count: int) -> list[Event]:
    return [TextDelta(0, str(number)) for number in range(count)]


async def test_every_reader_sees_every_event_whenever_it_comes() -> None:
    turn = RunningTurn(opening(store=False))
    said = words(6)
    early = [asyncio.ensure_future(collect_events(turn)) for _ in range(3)]
    await run_ready_tasks()
    turn.emit(said[:2])
    await run_ready_tasks()
    turn.emit(said[2:5])
    middle = asyncio.ensure_future(collect_events(turn))
    await run_ready_tasks()
    turn.emit(said[5:])
    last = finish(turn)
    late = await collect_events(turn)
    assert late == [*said, last]
    assert await asyncio.gather(*early, middle) == [late] * 4


async def test_what_came_together_is_read_together() -> None:
    turn = RunningTurn(opening(store=False))
    batches: list[Sequence[Event]] = []

    async def read() -> None:
        async for batch in turn.events():
            batches.append(batch)

    reading = asyncio.ensure_future(read())
    await run_ready_tasks()
    turn.emit(words(3))
    turn.emit([])
    await run_ready_tasks()
    turn.emit(words(1))
    await run_ready_tasks()
    last = finish(turn)
    await reading
    assert batches == [words(3), words(1), [last]]


async def test_a_reader_may_rest_while_more_comes_but_never_beyond_the_end() -> None:
    turn = RunningTurn(opening(store=False))
    batches: list[Sequence[Event]] = []
    rests = iter([0.0, 0.001, 60.0])

    async def read() -> None:
        async for batch in turn.events(lambda: next(rests)):
            batches.append(batch)

    reading = asyncio.ensure_future(read())
    await run_ready_tasks()
    turn.emit(words(1))
    await run_ready_tasks()
    assert batches == [words(1)]
    # It rests a millisecond, and reads what came in the meantime in one.
    turn.emit(words(2))
    await run_ready_tasks()
    turn.emit(words(1))
    while len(batches) < 2:
        await run_ready_tasks()
    assert batches[1] == [*words(2), *words(1)]
    turn.emit(words(1))
    await run_ready_tasks()
    assert len(batches) == 2
    last = finish(turn)
    await reading
    assert batches[2:] == [[*words(1), last]]


async def test_a_reader_that_is_cancelled_at_rest_leaves_the_end_to_others() -> None:
    turn = RunningTurn(opening(store=False))

    async def read() -> None:
        async for _ in turn.events(lambda: 60.0):
            raise AssertionError("it should still rest")

    reading = asyncio.ensure_future(read())
    turn.emit(words(1))
    await run_ready_tasks()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    ending = asyncio.ensure_future(turn.result())
    await run_ready_tasks()
    finish(turn)
    assert (await ending).status == "completed"


async def test_events_wait_until_the_request_is_on_disk() -> None:
    turn = RunningTurn(opening())
    reading = asyncio.ensure_future(collect_events(turn))
    turn.emit([Created(turn.initial_response), *words(2)])
    await run_ready_tasks()
    first = asyncio.ensure_future(anext(aiter(turn.events())))
    await run_ready_tasks()
    assert not first.done()
    turn.on_request_stored(done())
    assert await first == [Created(turn.initial_response), *words(2)]
    last = finish(turn)
    assert await reading == [Created(turn.initial_response), *words(2), last]


async def test_a_reader_that_dawdles_or_goes_holds_nobody_up() -> None:
    turn = RunningTurn(opening(store=False))
    slow = aiter(turn.events())
    gone = asyncio.ensure_future(collect_events(turn))
    turn.emit(words(1))
    assert await anext(slow) == words(1)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    turn.emit(words(2))
    turn.emit(words(3))
    last = finish(turn)
    assert turn.done(), "although one has read but the first event"
    assert [await anext(slow)] == [[*words(2), *words(3), last]]
    assert [batch async for batch in slow] == []


async def test_a_waiting_reader_that_is_cancelled_leaves_the_end_to_others() -> None:
    turn = RunningTurn(opening(store=False))
    waiting = [asyncio.ensure_future(turn.result()) for _ in range(2)]
    await run_ready_tasks()
    waiting[0].cancel()
    await run_ready_tasks()
    finish(turn)
    assert (await waiting[1]).status == "completed"
    assert waiting[0].cancelled()


async def test_a_failed_turn_ends_like_others_and_says_why() -> None:
    turn = RunningTurn(opening(store=False))
    error = ModelError("No.")
    last = finish(turn, error)
    assert await collect_events(turn) == [last]
    assert (await turn.result()).status == "failed"
    assert turn.error is error


@pytest.mark.parametrize("released", [False, True])
async def test_what_could_not_be_kept_is_an_error_for_every_reader(released: bool) -> None:
    turn = RunningTurn(opening())
    turn.emit([Created(turn.initial_response)])
    if released:
        turn.on_request_stored(done())
    early = asyncio.ensure_future(collect_events(turn))
    await run_ready_tasks()
    lost = StoreError("The disk is full.")
    turn.fail(lost)
    for reader in (early, asyncio.ensure_future(collect_events(turn)), turn.result()):
        with pytest.raises(StoreError) as caught:
            await reader
        assert caught.value is lost
    events = turn.events()
    if released:
        assert await anext(events) == [Created(turn.initial_response)]
    with pytest.raises(StoreError):
        await anext(events)
    assert turn.error is lost


async def test_an_unread_failure_makes_no_noise() -> None:
    complaints: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: complaints.append(context))
    RunningTurn(opening()).fail(StoreError("The disk is full."))
    await run_ready_tasks()
    assert complaints == []


def test_a_turn_whose_loop_ends_before_it_begins_has_an_end() -> None:
    async def main() -> None:
        live, turn = TurnRegistry(), RunningTurn(opening())
        live.start(turn, work(turn, asyncio.Event(), []))
        assert turn.task is not None
        # As asyncio.run does it with all that still runs.
        turn.task.cancel()
        with pytest.raises(TurnInterruptedError):
            await turn.result()
        assert live.get(turn.response_id) is None

    run(main())


async def work(turn: RunningTurn, began: asyncio.Event, seen: list[object]) -> None:
    """A turn's work, reduced to how it may be stopped."""
    turn.mark_running()
    began.set()
    try:
        if turn.is_stopping:
            raise asyncio.CancelledError
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        seen.append(turn.stop_error)
    turn.mark_ending()
    await run_ready_tasks()
    finish(turn)


async def test_work_is_stopped_once_and_the_first_reason_counts() -> None:
    turn, began, seen = RunningTurn(opening(store=False)), asyncio.Event(), list[object]()
    live = TurnRegistry()
    live.start(turn, work(turn, began, seen))
    assert live.get(turn.response_id) is turn
    await began.wait()
    first, second = ModelError("First."), ModelError("Second.")
    turn.stop(first)
    turn.stop(second)
    turn.stop(None)
    await asyncio.gather(turn.cancel(), turn.cancel(), turn.cancel())
    assert seen == [first]
    await run_ready_tasks()
    assert live.get(turn.response_id) is None


async def test_work_that_has_not_begun_can_be_stopped() -> None:
    turn, began, seen = RunningTurn(opening(store=False)), asyncio.Event(), list[object]()
    TurnRegistry().start(turn, work(turn, began, seen))
    assert (await turn.cancel()).status == "completed"
    assert seen == [None]


async def test_a_stop_that_comes_while_the_end_is_kept_changes_nothing() -> None:
    turn = RunningTurn(opening(store=False))
    keeping, kept = asyncio.Event(), asyncio.Event()

    async def ends() -> None:
        turn.mark_running()
        turn.mark_ending()
        keeping.set()
        await kept.wait()
        finish(turn)

    live = TurnRegistry()
    live.start(turn, ends())
    await keeping.wait()
    stopping = asyncio.ensure_future(turn.cancel())
    closing = asyncio.ensure_future(live.close())
    await run_ready_tasks()
    assert not turn.done()
    kept.set()
    assert (await stopping).status == "completed"
    await closing


async def test_only_an_unstored_turn_ends_with_its_reader() -> None:
    for store in (True, False):
        turn, began, seen = RunningTurn(opening(store=store)), asyncio.Event(), list[object]()
        live = TurnRegistry()
        live.start(turn, work(turn, began, seen))
        await began.wait()
        await turn.detach()
        assert turn.done() is not store
        await live.close()
        assert [type(reason) for reason in seen] == [TurnInterruptedError if store else type(None)]


async def test_a_stop_after_the_end_is_harmless() -> None:
    turn = RunningTurn(opening(store=False))
    finish(turn)
    turn.stop(ModelError("Late."))
    assert not turn.is_stopping
    assert (await turn.cancel()).status == "completed"
    assert turn.error is None


async def test_a_request_that_could_not_be_kept_stops_the_work() -> None:
    turn, began, seen = RunningTurn(opening()), asyncio.Event(), list[object]()
    TurnRegistry().start(turn, work(turn, began, seen))
    await began.wait()
    lost = StoreError("The disk is full.")
    turn.on_request_stored(done(lost))
    await turn.result()
    assert seen == [lost]


async def test_everyone_who_closes_waits_until_the_turns_are_over() -> None:
    turn, began, seen = RunningTurn(opening(store=False)), asyncio.Event(), list[object]()
    live = TurnRegistry()
    live.start(turn, work(turn, began, seen))
    await began.wait()
    await asyncio.gather(live.close(), live.close())
    assert turn.done()
    assert [type(reason) for reason in seen] == [TurnInterruptedError]
    await live.close()
