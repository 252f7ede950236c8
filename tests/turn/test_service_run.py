"""``TurnService.run``: a turn by fewer steps is the turn that ``start`` runs."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.core.turns import Response, Usage
from antiphon.errors import AntiphonError, InvalidRequestError, ModelError, NotFoundError
from antiphon.models.scripted import (
    ScriptedModel,
    ScriptedReply,
    cut,
    fail,
    finish,
    hang,
    refuse,
    report_usage,
    say,
    think,
)
from antiphon.turn.running_turns import RunningTurn
from support.example_counts import examples
from support.turn_service import (
    ONE_CALL,
    TWO_CALLS,
    GatedStore,
    collect_events,
    contents,
    run_ready_tasks,
    run_turn,
    service_with,
    turn_request,
)

WORDS = st.text(max_size=5)
PARTS = st.one_of(
    st.builds(say, WORDS),
    st.builds(think, WORDS),
    st.builds(refuse, WORDS),
    st.sampled_from(
        [
            ONE_CALL,
            TWO_CALLS,
            report_usage(Usage(3, 4)),
            finish("length"),
            finish("content_filter"),
            fail(ModelError("It broke.")),
            cut(),
        ]
    ),
)


class Watcher:
    """An observer of turns: what it was told."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bool]] = []

    def turn_started(self, turn: RunningTurn) -> None:
        self.seen.append(("started", turn.done()))

    def turn_ended(self, turn: RunningTurn) -> None:
        self.seen.append(("ended", turn.done()))


def outcome(response: Response) -> Any:
    """A response without what differs from turn to turn."""
    end = response.end
    assert end is not None
    return response.header, response.output, msgspec.structs.replace(end, ended_at=0.0)


async def run_both(reply: ScriptedReply, **request: Any) -> list[Any]:
    """What a turn comes to, by ``start`` and by ``run``."""
    outcomes = []
    for runs in (False, True):
        service = service_with(ScriptedModel([reply]))
        service.registry.add_observer(watcher := Watcher())
        asked = turn_request("Well?", stream=False, **request)
        try:
            if runs:
                started: list[RunningTurn] = []
                turn = await service.run(asked, started.append)
                assert started == [turn]
            else:
                turn = await service.start(asked)
            events = [type(event) for event in await collect_events(turn)]
            ended = outcome(await turn.result()), events, turn.error and turn.error.code
        except AntiphonError as error:
            ended = error.code, [], None
        assert service.registry.all() == []
        outcomes.append((ended, watcher.seen))
        await service.close()
    return outcomes


@settings(deadline=None, max_examples=examples(25))
@given(st.lists(PARTS, min_size=1, max_size=4), st.booleans())
def test_turn_is_the_same_by_fewer_steps(parts: list[ScriptedReply], store: bool) -> None:
    reply = parts[0]
    for part in parts[1:]:
        reply += part
    started, run = asyncio.run(run_both(reply, store=store))
    assert started == run


@pytest.mark.parametrize(("model", "after"), [("nobody", None), (None, "resp_" + "0" * 32)])
async def test_invalid_request_raises_and_runs_nothing(
    model: str | None, after: str | None
) -> None:
    service = service_with(scripted := ScriptedModel())
    started: list[RunningTurn] = []
    asked = turn_request("Hi", store=False, stream=False, model=model, after=after)
    with pytest.raises((NotFoundError, InvalidRequestError)):
        await service.run(asked, started.append)
    assert not started
    assert not scripted.calls


@pytest.mark.parametrize("error", [None, ModelError("The server is being stopped.")])
async def test_stopped_turn_ends_and_leaves_its_caller_uncancelled(
    error: AntiphonError | None,
) -> None:
    service = service_with(model := ScriptedModel([say("So") + hang(reached := asyncio.Event())]))
    started: list[RunningTurn] = []

    async def call() -> tuple[RunningTurn, int]:
        turn = await service.run(turn_request("Hi", store=False, stream=False), started.append)
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        return turn, task.cancelling()

    caller = asyncio.create_task(call())
    await reached.wait()
    started[0].stop(error)
    turn, cancellations = await caller
    assert cancellations == 0
    assert model.cancelled.is_set()
    response = await turn.result()
    assert response.status == ("cancelled" if error is None else "failed")
    assert turn.error is error
    await service.close()


@pytest.mark.parametrize("is_stored", [True, False])
@pytest.mark.parametrize("continues", [True, False])
@pytest.mark.parametrize("runs", [True, False])
async def test_caller_who_got_a_stored_turn_leaves_it_running(
    runs: bool, continues: bool, is_stored: bool
) -> None:
    """However long its beginning takes to be written."""
    store = GatedStore()
    hangs = hang(reached := asyncio.Event())
    service = service_with(model := ScriptedModel([*(["One"] * continues), hangs]), store)
    after = (await run_turn(service, "Hi", stream=False)).id if continues else None
    if not is_stored:
        store.begins.close()
    started: list[RunningTurn] = []
    asked = turn_request("Go on.", after=after, store=True, stream=False)
    if runs:
        caller = asyncio.create_task(service.run(asked, started.append))
    else:
        caller = asyncio.create_task(service.start(asked, on_start=started.append))
    await reached.wait()
    if is_stored:
        await started[0].wait_until_stored()
    caller.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await caller
    await run_ready_tasks()
    assert not model.cancelled.is_set()
    store.begins.open()
    await started[0].wait_until_stored()
    await service.close()


async def test_history_that_changes_before_the_turn_is_stored_is_read_again() -> None:
    store = GatedStore()
    service = service_with(model := ScriptedModel(), store)
    first = await run_turn(service, "One", stream=False)
    second = await run_turn(service, "Two", after=first.id, stream=False)
    store.begins.close()
    store.begins.reached.clear()
    asked = turn_request("Three", after=second.id, store=True, stream=False)
    started: list[RunningTurn] = []
    caller = asyncio.create_task(service.run(asked, started.append))
    await store.begins.reached.wait()
    assert await store.delete("", first.id)
    store.begins.open()
    turn = await caller
    assert started[-1] is turn
    assert len(started) == 2
    assert (await turn.result()).status == "completed"
    assert "One" not in contents(model)
    await service.close()


async def test_turn_stopped_before_its_first_step_calls_no_model() -> None:
    service = service_with(model := ScriptedModel())
    turn = await service.run(
        turn_request("Hi", store=False, stream=False), lambda turn: turn.stop(None)
    )
    assert (await turn.result()).status == "cancelled"
    assert not model.calls
    await service.close()
