"""Turns of dead processes: claimed by one node, ended, or left to whoever runs them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from antiphon.core.items import FunctionCall, FunctionCallOutput, Item, Message, encode_item
from antiphon.core.turns import DEFAULT_TENANT, End, Header, McpTool, Options, RestartOptions
from antiphon.errors import TurnTakenOverError
from antiphon.models.model_registry import ModelRegistry
from antiphon.models.scripted import ScriptedModel
from antiphon.stores.sqlite.store import SqliteStore, open_sqlite
from antiphon.turn.node_protocols import OrphanedTurn
from antiphon.turn.protocols import ModelCall
from antiphon.turn.running_turns import RunningTurn
from antiphon.turn.service import TurnService
from support.store_turns import DONE, assistant, new_turn

RESTARTABLE = Header("m", background=True, restart=RestartOptions())
CALL = FunctionCall("call_1", "look", "{}")


@asynccontextmanager
async def stores(path: Path, count: int) -> AsyncIterator[Sequence[SqliteStore]]:
    """Open stores of one file, of which each is a node."""
    async with AsyncExitStack() as opened:
        found = []
        for number in range(count):
            store = await open_sqlite(path / "turns.db")
            opened.push_async_callback(store.close)
            await store.stores.nodes.join(f"unix:/tmp/{number}")
            found.append(store)
        yield found


def die(store: SqliteStore) -> None:
    """Have a store count as one whose process has died."""
    store._database._process_locks.release()


async def begin(store: SqliteStore, header: Header = RESTARTABLE, *output: Item) -> str:
    turn = new_turn("Hi.", header=header)
    await store.begin(turn)
    if output:
        await store.write(turn.response_id, [encode_item(item) for item in output])
    return turn.response_id


async def test_one_node_claims_the_background_turns_of_a_dead_one(tmp_path: Path) -> None:
    async with stores(tmp_path, 3) as (first, *others):
        background, other = await begin(first), await begin(first, Header("m"))
        die(first)
        claimed = [await store.stores.nodes.recover() for store in others]
        assert claimed == [[OrphanedTurn(DEFAULT_TENANT, background)], []]
        stored = await others[1].turn(DEFAULT_TENANT, other)
        assert stored is not None
        assert stored.end is not None
        assert stored.end.error is not None
        assert stored.end.error.code == "interrupted"
        node = await others[1].stores.nodes.node_of(DEFAULT_TENANT, background)
        assert node is not None
        assert node.id == others[0].stores.nodes.node_id
        assert [one.id for one in await others[0].stores.nodes.list_nodes()] == [
            store.stores.nodes.node_id for store in others
        ]


async def test_writes_of_a_node_whose_turn_was_claimed_fail(tmp_path: Path) -> None:
    async with stores(tmp_path, 2) as (first, second):
        response_id = await begin(first)
        die(first)
        await second.stores.nodes.recover()
        for end in (None, DONE):
            with pytest.raises(TurnTakenOverError):
                await first.write(response_id, [assistant("late")], end)
        await second.write(response_id, [assistant("mine")], DONE)
        stored = await first.turn(DEFAULT_TENANT, response_id)
        assert stored is not None
        assert stored.output == (assistant("mine"),)


async def test_released_turns_are_claimed_and_draining_nodes_claim_none(tmp_path: Path) -> None:
    async with stores(tmp_path, 3) as (first, second, third):
        response_id = await begin(first)
        await second.stores.nodes.set_draining()
        await first.stores.nodes.release([response_id])
        assert await second.stores.nodes.recover() == ()
        assert len(await third.stores.nodes.recover()) == 1


async def resume(
    store: SqliteStore, response_id: str, seen: list[ModelCall]
) -> tuple[End, Sequence[Item]]:
    """Run the rest of a claimed turn by a scripted model; its end and whole output."""

    class Model(ScriptedModel):
        def generate(self, call: ModelCall):  # type: ignore[no-untyped-def]
            seen.append(call)
            return super().generate(call)

    service = TurnService(store, ModelRegistry({"m": Model(["Done."])}, default="m"), store.stores)
    await service.handover.resume(DEFAULT_TENANT, response_id)
    turn = await service.subscribe(DEFAULT_TENANT, response_id)
    assert isinstance(turn, RunningTurn)
    response = await turn.result()
    stored = await service.reader.response(DEFAULT_TENANT, response_id)
    assert stored.output == response.output
    assert response.end is not None
    return response.end, response.output


async def test_call_that_may_have_run_gets_an_error_and_is_not_run_again(tmp_path: Path) -> None:
    ran = FunctionCallOutput("call_0", "42")
    done = msgspec.structs.replace(CALL, call_id="call_0")
    async with stores(tmp_path, 2) as (first, second):
        response_id = await begin(first, RESTARTABLE, done, CALL, ran)
        die(first)
        await second.stores.nodes.recover()
        seen: list[ModelCall] = []
        end, output = await resume(second, response_id, seen)
        assert end.status == "completed"
        assert output[:3] == (done, CALL, ran)
        assert isinstance(output[3], FunctionCallOutput)
        assert output[3].is_error
        assert "not run again" in output[3].output
        assert isinstance(output[4], Message)
        assert len(seen) == 1
        assert b"42" in seen[0].messages
        assert b"not run again" in seen[0].messages


async def test_turn_that_cannot_be_run_here_fails_with_the_reason(tmp_path: Path) -> None:
    header = msgspec.structs.replace(
        RESTARTABLE, options=Options(mcp_servers=(McpTool("unknown"),))
    )
    async with stores(tmp_path, 2) as (first, second):
        response_id = await begin(first, header)
        die(first)
        await second.stores.nodes.recover()
        service = TurnService(second, ModelRegistry({"m": ScriptedModel()}), second.stores)
        await service.handover.resume(DEFAULT_TENANT, response_id)
        stored = await second.turn(DEFAULT_TENANT, response_id)
        assert stored is not None
        assert stored.end is not None
        assert stored.end.status == "failed"


async def test_secret_is_one_for_all_nodes(tmp_path: Path) -> None:
    async with stores(tmp_path, 2) as found:
        secrets = await asyncio.gather(*(store.stores.nodes.secret() for store in found))
        assert len(set(secrets)) == 1
        assert len(secrets[0]) == 64
