"""Deferred completions that nothing stores: held for a while, and for their tenant only."""

from __future__ import annotations

import asyncio

import pytest

from antiphon.api.common.deferred_completions import DeferredCompletions, DeferredResult
from antiphon.errors import RateLimitError
from antiphon.models.scripted import ScriptedModel, hang
from antiphon.turn.running_turns import RunningTurn
from antiphon.turn.service import TurnService
from support.turn_service import service_with, turn_request


class Clock:
    """Seconds, as a test wants them."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def turns(service: TurnService, number: int = 1) -> list[RunningTurn]:
    return [await service.start(turn_request("Hi", store=False)) for _ in range(number)]


async def test_they_expire_an_hour_later_but_not_while_they_run() -> None:
    clock, running = Clock(), asyncio.Event()
    service = service_with(ScriptedModel(["Done", hang(running)]))
    results = DeferredCompletions(clock=clock)
    done = await turns(service)
    await done[0].result()
    over = results.add("acme", done)
    under_way = results.add("acme", await turns(service))
    clock.now = 3599.0
    found = await results.find("acme", over)
    assert found is not None
    assert [one.status for one in found.responses] == ["completed"]
    assert await results.find("other", over) is None
    clock.now = 3600.0
    assert await results.find("acme", over) == DeferredResult(is_expired=True)
    assert await results.find("other", over) is None
    late = await results.find("acme", under_way)
    assert late is not None
    assert late.is_pending
    await service.close()


async def test_a_tenant_has_so_many_and_makes_room_for_its_own() -> None:
    service = service_with(ScriptedModel(["Done", *[hang()] * 200]))
    results = DeferredCompletions()
    first = await turns(service)
    await first[0].result()
    oldest = results.add("acme", first)
    for turn in await turns(service, 199):
        results.ensure_capacity("acme")
        results.add("acme", [turn])
    results.ensure_capacity("acme")
    assert await results.find("acme", oldest) == DeferredResult(is_expired=True)
    results.add("acme", await turns(service))
    with pytest.raises(RateLimitError):
        results.ensure_capacity("acme")
    results.ensure_capacity("other")
    await service.close()
