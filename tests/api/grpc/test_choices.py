"""Choices whose client leaves while the first of them is being written."""

from __future__ import annotations

import asyncio

import pytest

from antiphon.api.common.authorization import Principal
from antiphon.api.grpc.chat import start_choices
from antiphon.api.grpc.request_codec import CompletionRequest
from antiphon.errors import StoreError
from antiphon.models.scripted import ScriptedModel, hang
from support.stored_responses import response_ids
from support.turn_service import (
    GatedStore,
    run_ready_tasks,
    run_turn,
    service_with,
    turn_request,
)


@pytest.mark.parametrize("is_kept", [True, False])
@pytest.mark.parametrize("choices", [1, 2, 3])
async def test_one_choice_runs_on_and_of_several_nothing_is_left(
    choices: int, is_kept: bool
) -> None:
    store = GatedStore()
    hangs = [hang(reached := asyncio.Event())] * choices
    service = service_with(model := ScriptedModel(["One", *hangs]), store)
    first = await run_turn(service, "Hi", stream=False)
    store.begins.close()
    asked = turn_request("Go on.", after=first.id, store=True, stream=False)
    starting = asyncio.create_task(
        start_choices(service, Principal(), CompletionRequest(asked, choices))
    )
    await reached.wait()
    starting.cancel()
    await run_ready_tasks()
    if not is_kept:
        store.begins.error = StoreError("The disk is full.")
    store.begins.open()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await run_ready_tasks()
    is_alone = choices == 1
    assert len(await response_ids(store)) == 1 + (is_alone and is_kept)
    assert model.cancelled.is_set() is not (is_alone and is_kept)
    await service.close()
