"""The turn service: other tenants' turns, deletions, and refused requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from antiphon.core.ids import new_response_id
from antiphon.core.items import FunctionCall, FunctionCallOutput, InputImage, InputText, Message
from antiphon.core.turns import DEFAULT_TENANT
from antiphon.errors import (
    ImageInputUnsupportedError,
    InvalidRequestError,
    ModelNotFoundError,
    NotFoundError,
    ResponseInProgressError,
)
from antiphon.models.model_registry import ModelRegistry
from antiphon.models.scripted import ScriptedModel, call, calls, hang, say
from antiphon.stores.memory.store import MemoryStore
from antiphon.turn.protocols import ModelInfo
from antiphon.turn.service import TurnService
from antiphon.turn.store_protocols import Store
from support.stored_responses import response_ids
from support.turn_service import (
    STORES,
    GatedStore,
    contents,
    open_store,
    run_turn,
    run_with_store,
    service_with,
    turn_request,
)

# Other tenants' responses, missing and running ones.


async def not_found_error(work: Awaitable[Any]) -> NotFoundError:
    with pytest.raises(NotFoundError) as caught:
        await work
    return caught.value


@pytest.mark.parametrize("kind", STORES)
def test_other_tenants_response_is_reported_like_a_missing_one(kind: str, tmp_path: Path) -> None:
    async def scenario(store: Store) -> None:
        model = ScriptedModel(lambda _: "Hi.")
        service = service_with(model, store)
        mine = (await run_turn(service, "Mine.", tenant="me")).id
        deleted = (await run_turn(service, "Gone.", tenant="you")).id
        await service.delete("you", deleted)
        shapes = set()
        for wrong in (mine, deleted, new_response_id(), "resp_1", "", "../../etc", "x" * 5000):
            requests: list[Awaitable[Any]] = [
                service.reader.response("you", wrong),
                service.reader.messages("you", wrong),
                service.reader.chain("you", wrong),
                service.delete("you", wrong),
                service.delete("you", wrong, cascade=True),
            ]
            for work in requests:
                error = await not_found_error(work)
                assert f"'{wrong}'" in error.message
                shapes.add((error.code, error.param, error.message.replace(f"'{wrong}'", "ID")))
        assert shapes == {("response_not_found", None, "No response found with id ID.")}
        continuing = set()
        for wrong in (mine, deleted, new_response_id(), "resp_1", ""):
            error = await not_found_error(
                service.start(turn_request("Hi.", tenant="you", after=wrong))
            )
            continuing.add((error.code, error.param, error.message.replace(f"'{wrong}'", "ID")))
        assert len(continuing) == 1
        (shape,) = continuing
        assert shape[:2] == ("previous_response_not_found", "previous_response_id")
        assert await response_ids(store, "you") == []
        assert await response_ids(store, "me") == [mine]
        assert (await service.reader.response("me", mine)).status == "completed"

    run_with_store(kind, tmp_path, scenario)


@pytest.mark.parametrize("kind", STORES)
def test_running_response_can_be_read_but_not_continued(kind: str, tmp_path: Path) -> None:
    async def scenario(store: Store) -> None:
        reached = asyncio.Event()
        service = service_with(ScriptedModel([hang(reached), "Fine."]), store)
        turn = await service.start(turn_request("Hello."))
        await anext(aiter(turn.events()))
        await reached.wait()
        with pytest.raises(ResponseInProgressError) as caught:
            await service.start(turn_request("And?", after=turn.response_id))
        assert caught.value.status == 409
        assert (
            await service.reader.response(DEFAULT_TENANT, turn.response_id)
        ).status == "in_progress"
        assert service.registry.get(turn.response_id) is turn
        await turn.cancel()
        assert (await run_turn(service, "And?", after=turn.response_id)).status == "completed"

    run_with_store(kind, tmp_path, scenario)


# Deletion.


@pytest.mark.parametrize("kind", STORES)
def test_deleted_turn_is_not_in_the_next_context(kind: str, tmp_path: Path) -> None:
    async def scenario(store: Store) -> None:
        model = ScriptedModel(lambda messages: f"to {messages[-1]['content']}")
        service = service_with(model, store)
        ids: list[str] = []
        for word in ("one", "two", "three"):
            ids.append((await run_turn(service, word, after=ids[-1] if ids else None)).id)
        await service.delete(DEFAULT_TENANT, ids[1])
        last = await run_turn(service, "four", after=ids[2])
        assert contents(model) == ["one", "to one", "three", "to three", "four"]
        await not_found_error(service.reader.response(DEFAULT_TENANT, ids[1]))
        await service.delete(DEFAULT_TENANT, ids[0])
        await run_turn(service, "five", after=last.id)
        assert contents(model) == ["three", "to three", "four", "to four", "five"]
        assert [one.id for one in await service.reader.chain(DEFAULT_TENANT, last.id)] == [
            ids[2],
            last.id,
        ]
        await service.delete(DEFAULT_TENANT, ids[2], cascade=True)
        await not_found_error(service.start(turn_request("six", after=last.id)))

    run_with_store(kind, tmp_path, scenario)


async def test_turn_deleted_by_another_process_is_not_sent(tmp_path: Path) -> None:
    async with open_store("sqlite", tmp_path) as here, open_store("sqlite", tmp_path) as there:
        model = ScriptedModel(lambda messages: f"to {messages[-1]['content']}")
        service, other = service_with(model, here), service_with(ScriptedModel(), there)
        first = await run_turn(service, "one")
        second = await run_turn(service, "two", after=first.id)
        await other.delete(DEFAULT_TENANT, first.id)
        third = await run_turn(service, "three", after=second.id)
        assert contents(model) == ["two", "to two", "three"]
        await other.delete(DEFAULT_TENANT, third.id)
        await not_found_error(service.start(turn_request("four", after=third.id)))


def test_deletion_during_a_turn_applies_to_the_next_turn(tmp_path: Path) -> None:
    async def scenario(store: Store) -> None:
        reached = asyncio.Event()
        model = ScriptedModel(["a", "b", say("c") + hang(reached), "d"])
        service = service_with(model, store)
        first = await run_turn(service, "one")
        second = await run_turn(service, "two", after=first.id)
        turn = await service.start(turn_request("three", after=second.id))
        await reached.wait()
        await service.delete(DEFAULT_TENANT, first.id)
        await turn.cancel()
        await run_turn(service, "four", after=turn.response_id)
        assert contents(model) == ["two", "b", "three", "c", "four"]

    for kind in STORES:
        run_with_store(kind, tmp_path, scenario)


async def test_output_of_a_deleted_call_is_not_sent() -> None:
    model = ScriptedModel([calls(call("f", {}, call_id="a")), "Sunny.", "Bye."])
    service = service_with(model)
    requests = await run_turn(service, "Weather?")
    answered = await run_turn(service, FunctionCallOutput("a", "sun"), after=requests.id)
    await service.delete(DEFAULT_TENANT, requests.id)
    await run_turn(service, "Thanks.", after=answered.id)
    assert contents(model) == ["Sunny.", "Thanks."]


async def test_deleting_a_running_turn_cancels_and_erases_it() -> None:
    store, reached = MemoryStore(), asyncio.Event()
    model = ScriptedModel([say("Wait.") + hang(reached)])
    service = service_with(model, store)
    turn = await service.start(turn_request("Hello.", tenant="me"))
    await reached.wait()
    await not_found_error(service.delete("you", turn.response_id))
    assert not turn.done(), "another tenant cannot stop it"
    await service.delete("me", turn.response_id)
    assert model.cancelled.is_set()
    assert (await turn.result()).status == "cancelled"
    await not_found_error(service.reader.response("me", turn.response_id))
    assert await response_ids(store, "me") == []


def test_unstored_turn_writes_nothing(tmp_path: Path) -> None:
    async def scenario(store: Store) -> None:
        model = ScriptedModel(lambda _: "Hi.")
        service = service_with(model, store)
        first = await run_turn(service, "Kept.")
        secret = await run_turn(service, "A secret.", after=first.id, store=False)
        assert secret.status == "completed"
        assert contents(model) == ["Kept.", "Hi.", "A secret."]
        await not_found_error(service.reader.response(DEFAULT_TENANT, secret.id))
        await not_found_error(service.start(turn_request("And?", after=secret.id)))
        await not_found_error(service.delete(DEFAULT_TENANT, secret.id))
        await run_turn(service, "Next.", after=first.id)
        assert contents(model) == ["Kept.", "Hi.", "Next."]
        await run_turn(service, "Alone.", store=False)
        assert len(await response_ids(store)) == 2

    run_with_store("memory", tmp_path, scenario)
    run_with_store("sqlite", tmp_path, scenario)
    written = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert b"Kept." in written
    assert b"A secret." not in written


async def test_unstored_turn_does_not_use_the_store() -> None:
    store = GatedStore()
    await run_turn(service_with(ScriptedModel(["Hi."]), store), "Hello.", store=False)
    assert not store.begins.reached.is_set()
    assert store.written == []


# What is refused before anything is stored.


@pytest.mark.parametrize(
    "items",
    [
        [],
        [""],
        ["", ""],
        [Message("user", ())],
        [Message("system", "")],
    ],
)
async def test_empty_input_is_refused(items: list[Any]) -> None:
    store = GatedStore()
    with pytest.raises(InvalidRequestError) as caught:
        await service_with(ScriptedModel(["Hi."]), store).start(turn_request(*items))
    assert (caught.value.code, caught.value.param) == ("empty_input", "input")
    assert not store.begins.reached.is_set()


@pytest.mark.parametrize("where", ["message", "output", "instructions"])
async def test_input_with_invalid_unicode_is_refused(where: str) -> None:
    store, broken = GatedStore(), "caf\udce9"
    request = {
        "message": turn_request(broken),
        "output": turn_request(FunctionCall("a", "f", "{}"), FunctionCallOutput("a", broken)),
        "instructions": turn_request("Hi.", instructions=broken),
    }[where]
    with pytest.raises(InvalidRequestError) as caught:
        await service_with(ScriptedModel(["Hi."]), store).start(request)
    assert caught.value.code == "invalid_unicode"
    assert not store.begins.reached.is_set()


async def test_image_is_refused_by_a_model_without_image_input() -> None:
    look = Message("user", (InputText("Look:"), InputImage("https://example.com/a.png")))
    store = GatedStore()
    blind = ScriptedModel(["Hi."], info=ModelInfo("blind", images=False))
    with pytest.raises(ImageInputUnsupportedError):
        await service_with(blind, store).start(turn_request(look))
    assert not store.begins.reached.is_set()
    assert (await run_turn(service_with(ScriptedModel(["A cat."])), look)).status == "completed"


async def test_unknown_model_is_refused_before_other_checks() -> None:
    service = service_with(ScriptedModel([]))
    with pytest.raises(ModelNotFoundError) as caught:
        await service.start(turn_request(model="other", after="resp_1"))
    assert caught.value.param == "model"


async def test_turns_of_one_conversation_can_use_different_models() -> None:
    first = ScriptedModel(["From the first."], info=ModelInfo("first"))
    second = ScriptedModel(["From the second."], info=ModelInfo("second"))
    catalog = ModelRegistry({"first": first, "second": second}, default="first")
    service = TurnService(MemoryStore(), catalog)
    one = await run_turn(service, "a")
    two = await run_turn(service, "b", after=one.id, model="second")
    assert (one.header.model, two.header.model) == ("first", "second")
    assert contents(second) == ["a", "From the first.", "b"]
