"""Calls that are taken back by their ids."""

from __future__ import annotations

from antiphon.api.mcp.streamable_http import ActiveCalls, CallKey
from antiphon.models.scripted import ScriptedModel, hang, say
from antiphon.turn.running_turns import RunningTurn
from support.turn_service import service_with, turn_request

KEY = CallKey("", "s", 1)


async def test_who_takes_a_call_back_stops_its_turn() -> None:
    service = service_with(ScriptedModel([hang(), hang(), say("Two")]))
    underway = ActiveCalls()
    first = await service.start(turn_request("Hi", store=False))
    second = await service.start(turn_request("Hi", store=False))
    with underway.track(KEY, first), underway.track(None, second):
        for other in (CallKey("t", "s", 1), CallKey("", "t", 1), CallKey("", "s", "1")):
            underway.cancel(other)
        assert not first.is_stopping
        underway.cancel(KEY)
        assert (await first.result()).status == "cancelled"
    assert not second.is_stopping
    await second.cancel()
    await service.close()


async def test_an_id_that_is_used_twice_is_that_of_the_later_call() -> None:
    service = service_with(ScriptedModel([hang(), hang()]))
    underway = ActiveCalls()
    turns: list[RunningTurn] = [
        await service.start(turn_request("Hi", store=False)) for _ in range(2)
    ]
    first, second = underway.track(KEY, turns[0]), underway.track(KEY, turns[1])
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    underway.cancel(KEY)
    assert [turn.is_stopping for turn in turns] == [False, True]
    second.__exit__(None, None, None)
    await service.close()


async def test_a_stored_turn_goes_on() -> None:
    service = service_with(ScriptedModel(["One"]))
    underway = ActiveCalls()
    turn = await service.start(turn_request("Hi"))
    with underway.track(KEY, turn):
        underway.cancel(KEY)
        assert (await turn.result()).status == "completed"
    await service.close()
