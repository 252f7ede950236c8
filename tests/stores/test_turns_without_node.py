"""Background turns while no node is there: they wait for the next one, and not for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from antiphon.api.common.node_client import NodeClient
from antiphon.core.items import Message
from antiphon.core.turns import DEFAULT_TENANT, End, Header, RestartOptions, TurnRequest
from antiphon.errors import ConflictError
from antiphon.models.model_registry import ModelRegistry
from antiphon.models.scripted import ScriptedModel, ScriptedReply, Wait
from antiphon.stores.interrupted_turns import MAX_DEATHS, NODE_WAIT_SECONDS
from antiphon.stores.postgres.store import PostgresStore, open_postgres
from antiphon.stores.sqlite.store import SqliteStore, open_sqlite
from antiphon.turn.handover import OrphanResumption
from antiphon.turn.service import TurnService
from support.postgres_database import empty_database, end_lease
from support.store_turns import new_turn

BACKGROUND = Header("m", background=True, restart=RestartOptions())
SharedStore = SqliteStore | PostgresStore


class Processes:
    """Processes that have one store open, each with the same clock."""

    def __init__(self, kind: str, folder: Path, opened: AsyncExitStack) -> None:
        self.now = time.time()
        self._uri = empty_database(folder) if kind == "postgres" else ""
        self._path = folder / "turns.db"
        self._opened = opened

    async def program(self) -> SharedStore:
        """One that is no node."""
        if self._uri:
            store: SharedStore = await open_postgres(self._uri, clock=lambda: self.now)
        else:
            store = await open_sqlite(self._path, clock=lambda: self.now)
        self._opened.push_async_callback(store.close)
        return store

    async def server(self) -> SharedStore:
        store = await self.program()
        await store.stores.nodes.join("unix:/tmp/1")
        return store

    async def kill(self, store: SharedStore) -> None:
        """Have the others take it for dead."""
        if isinstance(store, SqliteStore):
            store._database._process_locks.release()
        else:
            await end_lease(store)

    async def end(self, store: SharedStore, way: str) -> None:
        """Have a server that runs something go, in one of two ways."""
        await (store.close() if way == "stopped" else self.kill(store))


@pytest.fixture(params=["sqlite", "postgres"])
async def processes(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Processes]:
    async with AsyncExitStack() as opened:
        yield Processes(request.param, tmp_path, opened)


@pytest.fixture(params=["stopped", "killed"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def service_of(store: SharedStore, model: ScriptedModel | None = None) -> TurnService:
    models = ModelRegistry({"m": model or ScriptedModel()}, default="m")
    nodes = NodeClient(store.stores.nodes)
    return TurnService(store, models, store.stores, other_nodes=nodes)


async def begun_by(store: SharedStore) -> str:
    turn = new_turn("Work.", header=BACKGROUND)
    await store.begin(turn)
    return turn.response_id


async def end_of(store: SharedStore, response_id: str) -> End | None:
    turn = await store.turn(DEFAULT_TENANT, response_id)
    assert turn is not None
    return turn.end


async def test_program_beside_a_server_leaves_its_turns_to_the_next_one(
    processes: Processes, way: str
) -> None:
    server, program = await processes.server(), await processes.program()
    response_id = await begun_by(server)
    await processes.end(server, way)
    for _ in range(3):
        assert await end_of(program, response_id) is None
        processes.now += NODE_WAIT_SECONDS / 3 - 1
    late = await processes.program()
    assert await end_of(late, response_id) is None
    next_server = await processes.server()
    processes.now += NODE_WAIT_SECONDS
    assert await end_of(program, response_id) is None
    (claimed,) = await next_server.stores.nodes.recover()
    assert claimed.response_id == response_id
    # From now on it is that one's, and would wait as long again.
    await processes.end(next_server, way)
    assert await end_of(late, response_id) is None


async def test_program_ends_what_has_waited_for_a_server_for_long(
    processes: Processes, way: str
) -> None:
    server, program = await processes.server(), await processes.program()
    response_id = await begun_by(server)
    await processes.end(server, way)
    assert await end_of(program, response_id) is None
    processes.now += NODE_WAIT_SECONDS + 1
    # Whoever reads it, also one that has only been started.
    end = await end_of(await processes.program(), response_id)
    assert end is not None
    assert end.error is not None
    assert (end.status, end.error.code) == ("failed", "interrupted")
    assert not await (await processes.server()).stores.nodes.recover()


@pytest.mark.parametrize("asked", ["program", "server"])
async def test_turn_between_two_servers_is_cancelled_at_once(
    processes: Processes, way: str, asked: str
) -> None:
    server, other = await processes.server(), await processes.program()
    response_id = await begun_by(server)
    if asked == "server":
        await other.stores.nodes.join("unix:/tmp/2")
    await processes.end(server, way)
    cancelled = await service_of(other).cancel(DEFAULT_TENANT, response_id)
    assert cancelled.status == "cancelled"
    await other.stores.nodes.join("unix:/tmp/2")
    assert not await other.stores.nodes.recover()
    again = await service_of(other).cancel(DEFAULT_TENANT, response_id)
    assert again.status == "cancelled"


async def test_turn_of_a_program_is_not_cancelled_by_another_process(
    processes: Processes,
) -> None:
    program, other = await processes.program(), await processes.program()
    turn = new_turn("Work.", header=Header("m"))
    await program.begin(turn)
    with pytest.raises(ConflictError):
        await service_of(other).cancel(DEFAULT_TENANT, turn.response_id)


async def test_turn_with_which_processes_die_is_ended(processes: Processes) -> None:
    node = await processes.server()
    response_id = await begun_by(node)
    for death in range(1, MAX_DEATHS + 1):
        await processes.kill(node)
        if death == 2:
            # Whoever finds out, it counts once.
            assert await end_of(await processes.program(), response_id) is None
        node = await processes.server()
        assert len(await node.stores.nodes.recover()) == (death < MAX_DEATHS)
    end = await end_of(node, response_id)
    assert end is not None
    assert end.status == "failed"


async def queue_behind(service: TurnService, response_id: str) -> str:
    request = TurnRequest(
        (Message("user", "And?"),),
        previous_response_id=response_id,
        background=True,
        on_busy="queue",
    )
    turn = await service.start(request)
    await turn.wait_until_stored()
    return turn.response_id


@pytest.mark.parametrize("failed", [True, False])
async def test_queued_turn_outlives_any_number_of_processes_that_do_not_run_it(
    processes: Processes, failed: bool
) -> None:
    node = await processes.server()
    service = service_of(node)
    first = await begun_by(node)
    queued = [await queue_behind(service, first)]
    queued.append(await queue_behind(service, queued[0]))
    if failed:
        await node.write(first, (), End("cancelled", processes.now))
    for _ in range(MAX_DEATHS + 1):
        await processes.kill(node)
        service.registry.stop_lost()
        await service.registry.wait_all()
        node = await processes.server()
        service = service_of(node, ScriptedModel([ScriptedReply((Wait(asyncio.Event()),))]))
        await OrphanResumption(service.handover, node.stores.nodes).run_once()
        for turn in service.registry.all():
            await turn.wait_until_stored()
    # What it waits for has failed, if it was not stopped: it is held back in either case.
    assert await end_of(node, first) is not None
    for name in queued:
        assert (await service.reader.response(DEFAULT_TENANT, name)).status == "queued"
    await service.interrupt()
