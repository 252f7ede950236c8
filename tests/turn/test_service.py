"""The turn service: continuing and branching, tool calls, and failed turns."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from antiphon.core.events import Ended
from antiphon.core.items import FunctionCall, FunctionCallOutput, InputImage, InputText, Message
from antiphon.core.tool_rules import INTERRUPTED_OUTPUT
from antiphon.core.turns import DEFAULT_TENANT, Options, Response
from antiphon.errors import (
    InvalidRequestError,
    ModelError,
    StoreError,
)
from antiphon.models.scripted import ScriptedModel, call, calls, fail, hang, say
from antiphon.stores.memory.store import MemoryStore
from antiphon.turn.protocols import ModelInfo
from antiphon.turn.service import TurnService
from antiphon.turn.store_protocols import Store
from support.stored_responses import response_ids
from support.turn_service import (
    STORES,
    GatedStore,
    assistant,
    collect_events,
    contents,
    run_turn,
    run_with_store,
    service_with,
    turn_request,
    user,
)


def tool_message(name: str, content: str) -> dict[str, Any]:
    return {"role": "tool", "content": content, "tool_call_id": name}


# Continuing.


@pytest.mark.parametrize("kind", STORES)
def test_conversation_is_sent_whole_and_in_order(kind: str, tmp_path: Path) -> None:
    async def scenario(store: Store) -> None:
        model = ScriptedModel([f"answer {number}" for number in range(4)])
        service, head, expected = service_with(model, store), None, []
        for number in range(4):
            expected.append(user(f"question {number}"))
            response = await run_turn(service, f"question {number}", after=head)
            assert model.context() == expected
            assert response.previous_response_id == head
            expected.append(assistant(f"answer {number}"))
            head = response.id
        assert head is not None
        assert await service.reader.messages(DEFAULT_TENANT, head) == expected
        chain = await service.reader.chain(DEFAULT_TENANT, head)
        assert [one.status for one in chain] == ["completed"] * 4
        assert chain[-1] == await service.reader.response(DEFAULT_TENANT, head)

    run_with_store(kind, tmp_path, scenario)


@pytest.mark.parametrize("stream", [True, False])
def test_turn_can_be_continued_immediately_after_its_end(stream: bool, tmp_path: Path) -> None:
    """Eight concurrent conversations, each next turn directly after the end of the previous one."""

    async def talk(service: TurnService, name: int) -> None:
        head = None
        for number in range(12):
            turn = await service.start(turn_request(f"{name} {number}", after=head, stream=stream))
            if stream:
                events = await collect_events(turn)
                assert isinstance(events[-1], Ended)
                assert events[-1].response.status == "completed"
            else:
                await turn.result()
            head = turn.response_id
        contents_sent = [
            one["content"] for one in await service.reader.messages(DEFAULT_TENANT, str(head))
        ]
        assert contents_sent[::2] == [f"{name} {number}" for number in range(12)]

    async def scenario(store: Store) -> None:
        service = service_with(ScriptedModel(lambda messages: messages[-1]["content"]), store)
        await asyncio.gather(*(talk(service, name) for name in range(8)))

    run_with_store("sqlite", tmp_path, scenario)


@pytest.mark.parametrize("kind", STORES)
def test_two_turns_from_one_response_are_separate_branches(kind: str, tmp_path: Path) -> None:
    async def scenario(store: Store) -> None:
        model = ScriptedModel(lambda messages: f"to {messages[-1]['content']}")
        service = service_with(model, store)
        root = await run_turn(service, "root")
        left, right = await asyncio.gather(
            run_turn(service, "left", after=root.id), run_turn(service, "right", after=root.id)
        )
        for branch, word in ((left, "left"), (right, "right")):
            response = await run_turn(service, "and?", after=branch.id)
            assert contents(model) == ["root", "to root", word, f"to {word}", "and?"]
            assert response.previous_response_id == branch.id
        # And from the first response, whose cache entry has been replaced.
        await run_turn(service, "third", after=root.id)
        assert contents(model) == ["root", "to root", "third"]

    run_with_store(kind, tmp_path, scenario)


async def test_instructions_apply_to_one_turn_and_system_messages_persist() -> None:
    model = ScriptedModel(["1", "2", "3"])
    service = service_with(model)
    request = turn_request(Message("developer", "Be kind."), "a", instructions="Be brief.")
    first = await (await service.start(request)).result()
    assert contents(model) == ["Be brief.", "Be kind.", "a"]
    second = await run_turn(service, "b", after=first.id)
    assert contents(model) == ["Be kind.", "a", "1", "b"]
    third = await run_turn(service, "c", after=second.id, instructions="Be long.")
    assert contents(model) == ["Be long.", "Be kind.", "a", "1", "b", "2", "c"]
    messages = await service.reader.messages(DEFAULT_TENANT, third.id)
    assert [one["role"] for one in messages[:2]] == ["system", "system"]
    assert (messages[0]["content"], messages[-1]["content"]) == ("Be long.", "3")


async def test_repeated_text_is_stored_each_time() -> None:
    model = ScriptedModel(["Yes.", "Yes.", "Yes."])
    service = service_with(model)
    first = await run_turn(service, "Again.")
    second = await run_turn(service, "Again.", after=first.id)
    await run_turn(service, "Again.", "Again.", after=second.id)
    assert contents(model) == ["Again.", "Yes.", "Again.", "Yes.", "Again.", "Again."]


async def test_few_shot_messages_are_sent_and_never_stored() -> None:
    primer = msgspec.json.encode(user("Primed?")) + b"," + msgspec.json.encode(assistant("Yes."))
    model = ScriptedModel(["1", "2"], info=ModelInfo("primed", few_shot=primer))
    service = service_with(model)
    first = await run_turn(service, "a", instructions="Be brief.")
    assert contents(model) == ["Be brief.", "Primed?", "Yes.", "a"]
    await run_turn(service, "b", after=first.id)
    assert contents(model) == ["Primed?", "Yes.", "a", "1", "b"]
    assert await service.reader.messages(DEFAULT_TENANT, first.id) == [
        *({"role": "system", "content": "Be brief."}, user("a"), assistant("1"))
    ]


# Calls and their outputs.


@pytest.mark.parametrize("kind", STORES)
def test_outputs_are_sent_in_the_order_of_their_calls(kind: str, tmp_path: Path) -> None:
    async def scenario(store: Store) -> None:
        wanted = [call(name, {}, call_id=f"id_{name}") for name in "abc"]
        model = ScriptedModel([calls(*wanted), "Done.", "Bye."])
        service = service_with(model, store)
        asked = await run_turn(service, "Do it.")
        outputs = [FunctionCallOutput(f"id_{name}", name.upper()) for name in "cab"]
        done = await run_turn(service, outputs[0], "By the way:", *outputs[1:], after=asked.id)
        assert model.context()[2:] == [
            *(tool_message("id_a", "A"), tool_message("id_b", "B"), tool_message("id_c", "C")),
            user("By the way:"),
        ]
        await run_turn(service, "Thanks.", after=done.id)
        assert contents(model) == [
            *("Do it.", "", "A", "B", "C", "By the way:", "Done.", "Thanks.")
        ]

    run_with_store(kind, tmp_path, scenario)


async def test_unpaired_outputs_are_refused_and_nothing_is_stored() -> None:
    store = MemoryStore()
    wanted = calls(call("f", {}, call_id="a"), call("g", {}, call_id="b"))
    service = service_with(ScriptedModel([wanted, "Fine."]), store)
    asked = await run_turn(service, "Do it.")
    for items, name in (
        (["Never mind."], "'a', 'b'"),
        ([FunctionCallOutput("a", "1")], "'b'"),
        ([FunctionCallOutput("zz", "1")], "'zz'"),
    ):
        with pytest.raises(InvalidRequestError, match=name):
            await service.start(turn_request(*items, after=asked.id))
    assert await response_ids(store) == [asked.id]
    both = [FunctionCallOutput("a", "1"), FunctionCallOutput("b", "2")]
    assert (await run_turn(service, *both, after=asked.id)).status == "completed"


async def test_call_with_a_used_id_gets_a_new_id() -> None:
    again = calls(call("f", {}, call_id="call_0"))
    model = ScriptedModel([again, again, "Both."])
    service = service_with(model)
    first = await run_turn(service, "Go.")
    second = await run_turn(service, FunctionCallOutput("call_0", "one"), after=first.id)
    (made,) = second.output
    assert isinstance(made, FunctionCall)
    assert made.call_id != "call_0"
    await run_turn(service, FunctionCallOutput(made.call_id, "two"), after=second.id)
    assert contents(model) == ["Go.", "", "one", "", "two"]


# Failed and cancelled turns.


@pytest.mark.parametrize("cancelled", [True, False])
@pytest.mark.parametrize("kind", STORES)
def test_failed_or_cancelled_turn_can_be_continued(
    kind: str, cancelled: bool, tmp_path: Path
) -> None:
    async def scenario(store: Store) -> None:
        reached = asyncio.Event()
        ending = hang(reached) if cancelled else fail(ModelError("It broke."))
        model = ScriptedModel([say("Wait.") + calls(call("f", {}, call_id="a")) + ending, "Fine."])
        service = service_with(model, store)
        turn = await service.start(turn_request("Do it."))
        if cancelled:
            await reached.wait()
            await turn.cancel()
        response = await turn.result()
        assert response.status == ("cancelled" if cancelled else "failed")
        assert response.output[-1] == FunctionCall("a", "f", "{}", "incomplete")
        # A call that may be incomplete needs no output.
        await run_turn(service, "And now?", after=response.id)
        assert contents(model) == ["Do it.", "Wait.", INTERRUPTED_OUTPUT, "And now?"]

    run_with_store(kind, tmp_path, scenario)


async def test_output_for_a_call_of_a_failed_turn_is_accepted() -> None:
    wanted = calls(call("f", {}, call_id="a"), call("g", {}, call_id="b"))
    model = ScriptedModel([wanted + fail(ModelError("It broke.")), "Fine."])
    service = service_with(model)
    failed = await run_turn(service, "Do it.")
    await run_turn(service, FunctionCallOutput("b", "two"), after=failed.id)
    assert contents(model) == ["Do it.", "", INTERRUPTED_OUTPUT, "two"]


async def test_retry_after_a_failure_repeats_no_message() -> None:
    """Continuing again from the same id leaves the failed turns on other branches."""
    broken = say("Half an ans") + fail(ModelError("It broke."))
    model = ScriptedModel(["Hi.", broken, broken, "Fine."])
    service = service_with(model)
    first = await run_turn(service, "Hello.")
    for status in ("failed", "failed", "completed"):
        response = await run_turn(service, "And?", after=first.id)
        assert response.status == status
        assert contents(model) == ["Hello.", "Hi.", "And?"]


# Reading a turn.


@pytest.mark.parametrize("kind", STORES)
def test_stored_response_equals_the_returned_response(kind: str, tmp_path: Path) -> None:
    async def scenario(store: Store) -> None:
        script = [say("Hi.") + calls(call("f", {"x": 1})), say("So") + fail(ModelError("No."))]
        service = service_with(ScriptedModel(script), store)
        options = Options(temperature=0.5, metadata={"a": "b"}, stop=("x",))
        response: Response = await run_turn(service, "a", instructions="Be.", options=options)
        assert await service.reader.response(DEFAULT_TENANT, response.id) == response
        output = FunctionCallOutput("call_1_0", (InputText("1"), InputImage("https://x/y.png")))
        failed = await run_turn(service, output, after=response.id)
        assert failed.status == "failed"
        assert await service.reader.response(DEFAULT_TENANT, failed.id) == failed
        assert re.fullmatch(r"resp_[0-9a-f]{32}", failed.id)

    run_with_store(kind, tmp_path, scenario)


async def test_turn_with_unstored_end_reads_as_failed_once_the_store_recovers() -> None:
    store = GatedStore()
    service = service_with(ScriptedModel(["Lost.", "Back."]), store)
    store.ends.error = StoreError("The disk is full.")
    turn = await service.start(turn_request("Hello."))
    with pytest.raises(StoreError):
        await turn.result()
    with pytest.raises(StoreError):
        await service.reader.response(DEFAULT_TENANT, turn.response_id)
    store.ends.error = None
    assert (await service.reader.response(DEFAULT_TENANT, turn.response_id)).status == "failed"
    again = await run_turn(service, "Hello again.", after=turn.response_id)
    assert again.status == "completed"
    await service.close()


async def test_reader_messages_include_open_calls() -> None:
    service = service_with(ScriptedModel([calls(call("look", {}, call_id="c1"))]))
    response = await run_turn(service, "Look.")
    *_, last = await service.reader.messages(DEFAULT_TENANT, response.id)
    assert [one["id"] for one in last["tool_calls"]] == ["c1"]
    await service.close()
