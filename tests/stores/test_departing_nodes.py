"""Nodes that go, or fail, in the midst of handing turns over or taking them: nothing is lost."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import asyncpg
import msgspec
import pytest

from antiphon.core.items import Message
from antiphon.core.turns import DEFAULT_TENANT, Header, RestartOptions, TurnRequest
from antiphon.errors import ServerBusyError, StoreError
from antiphon.models.model_registry import ModelRegistry
from antiphon.models.scripted import ScriptedModel, ScriptedReply, Wait
from antiphon.stores.postgres.store import PostgresStore, open_postgres
from antiphon.stores.sqlite.store import SqliteStore, open_sqlite
from antiphon.turn.handover import OrphanResumption
from antiphon.turn.node_protocols import OrphanedTurn
from antiphon.turn.protocols import Model
from antiphon.turn.running_turns import RunningTurn
from antiphon.turn.service import TurnService
from antiphon.turn.store_protocols import Head
from support.http_server import TIMEOUT
from support.postgres_database import empty_database, end_lease
from support.postgres_proxy import postgres_proxy
from support.store_turns import DONE, assistant, complete_turn, head_of, new_turn

SharedStore: TypeAlias = SqliteStore | PostgresStore
RESTARTABLE = Header("m", background=True, restart=RestartOptions())


async def open_store(kind: str, folder: Path, uri: str) -> SharedStore:
    return await (open_postgres(uri) if kind == "postgres" else open_sqlite(folder / "turns.db"))


@asynccontextmanager
async def stores(kind: str, folder: Path, count: int) -> AsyncIterator[Sequence[SharedStore]]:
    """Open stores of one database, of which each is a node."""
    uri = empty_database(folder) if kind == "postgres" else ""
    async with AsyncExitStack() as opened:
        found = []
        for number in range(count):
            store = await open_store(kind, folder, uri)
            opened.push_async_callback(store.close)
            await store.stores.nodes.join(f"unix:/tmp/{number}")
            found.append(store)
        yield found


@pytest.fixture(params=["sqlite", "postgres"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def service_of(store: SharedStore, model: ScriptedModel) -> TurnService:
    return TurnService(store, ModelRegistry({"m": model}, default="m"), store.stores)


async def steps(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def cancelled_after(count: int, work: asyncio.Task[None]) -> None:
    """Cancel a task after so many steps of the loop."""
    await steps(count)
    work.cancel()
    await asyncio.wait([work])


async def begun_by(store: SharedStore, parent: Head | None = None) -> str:
    turn = new_turn("Work.", parent=parent, header=RESTARTABLE)
    await store.begin(turn)
    return turn.response_id


async def released_by(store: SharedStore, parent: Head | None = None) -> str:
    response_id = await begun_by(store, parent)
    await store.stores.nodes.release([response_id])
    return response_id


async def claimed_by(store: SharedStore) -> Sequence[OrphanedTurn]:
    return await store.stores.nodes.recover()


@pytest.mark.parametrize("count", [*range(8), 20, 40])
async def test_background_turns_are_handed_over_where_a_stop_is_cut_short(
    kind: str, tmp_path: Path, count: int
) -> None:
    async with stores(kind, tmp_path, 2) as (first, second):
        begun = asyncio.Event()
        model = ScriptedModel([ScriptedReply((Wait(asyncio.Event(), begun),))])
        service = service_of(first, model)
        turn = await service.start(TurnRequest((Message("user", "Hi."),), background=True))
        await begun.wait()
        await cancelled_after(count, asyncio.create_task(service.interrupt()))
        await service.close()
        assert await claimed_by(second) == [OrphanedTurn(DEFAULT_TENANT, turn.response_id)]


@pytest.mark.parametrize("count", [0, 1, 2, 4, 8, 16])
async def test_turn_that_is_being_stored_while_its_node_stops_is_acknowledged_and_handed_over(
    kind: str, tmp_path: Path, count: int
) -> None:
    async with stores(kind, tmp_path, 2) as (first, second):
        service = service_of(first, ScriptedModel([ScriptedReply((Wait(asyncio.Event()),))]))
        turn = await service.start(TurnRequest((Message("user", "Hi."),), background=True))
        await steps(count)
        await asyncio.gather(service.interrupt(), turn.wait_until_stored())
        # At once, and not only when the store is closed.
        assert await claimed_by(second) == [OrphanedTurn(DEFAULT_TENANT, turn.response_id)]
        await service.close()


@pytest.mark.parametrize("count", [*range(0, 40, 4), 80, 160])
async def test_turns_that_a_stopping_node_has_just_claimed_go_on_at_another(
    kind: str, tmp_path: Path, count: int
) -> None:
    async with stores(kind, tmp_path, 3) as (first, second, third):
        ids = {await released_by(first) for _ in range(2)}
        service = service_of(second, ScriptedModel([ScriptedReply((Wait(asyncio.Event()),))] * 2))
        orphans = OrphanResumption(service.handover, second.stores.nodes)
        await cancelled_after(count, asyncio.create_task(orphans.run_once()))
        await service.close()
        assert {one.response_id for one in await claimed_by(third)} == ids


async def test_turns_of_a_server_that_has_gone_wait_for_the_next_which_is_no_node_at_once(
    kind: str, tmp_path: Path
) -> None:
    async with stores(kind, tmp_path, 1) as (first,):
        response_id = await released_by(first)
    store = await open_store(kind, tmp_path, empty_database(tmp_path) if kind == "postgres" else "")
    nodes = store.stores.nodes
    try:
        await store.stores.response_index.delete_expired()
        await nodes.join(None)
        turn = await store.turn(DEFAULT_TENANT, response_id)
        assert turn is not None
        assert turn.end is None
        await nodes.join("unix:/tmp/1")
        assert [node.url for node in await nodes.list_nodes()] == ["unix:/tmp/1"]
        assert await claimed_by(store) == [OrphanedTurn(DEFAULT_TENANT, response_id)]
    finally:
        await store.close()


def on_conversation(conversation_id: str) -> TurnRequest:
    return TurnRequest(
        (Message("user", "Hi."),), conversation=conversation_id, on_busy="queue", background=True
    )


async def refusals(queued: Sequence[asyncio.Task[RunningTurn]]) -> None:
    """Wait until all are refused, with nothing left of them."""
    async with asyncio.timeout(TIMEOUT):
        for error in await asyncio.gather(*queued, return_exceptions=True):
            assert isinstance(error, ServerBusyError), error
            assert error.code == "draining"


async def assert_is_free(store: SharedStore, conversation_id: str, turns: int) -> None:
    """Nothing runs on a conversation, of which so many turns are stored."""
    found = await store.stores.conversations.get("", conversation_id)
    assert found is not None
    assert found.active_response_id is None
    assert len(await store.stores.response_index.list_responses("", 10)) == turns


async def test_turns_that_wait_for_a_conversation_are_refused_by_a_node_that_stops(
    kind: str, tmp_path: Path
) -> None:
    async with stores(kind, tmp_path, 2) as (first, second):
        begun = asyncio.Event()
        service = service_of(first, ScriptedModel([ScriptedReply((Wait(asyncio.Event(), begun),))]))
        conversation = await first.stores.conversations.create("", {})
        request = on_conversation(conversation.id)
        running = await service.start(msgspec.structs.replace(request, background=False))
        await begun.wait()
        queued = [asyncio.create_task(service.start(request)) for _ in range(3)]
        await service.interrupt()
        await refusals(queued)
        assert running.done()
        # Whoever comes only now is too late as well, whether the store is closed or not.
        await refusals([asyncio.create_task(service.start(request))])
        await service.close()
        await assert_is_free(second, conversation.id, 1)


async def test_turn_that_waits_for_another_nodes_turn_is_refused_by_a_node_that_stops(
    kind: str, tmp_path: Path
) -> None:
    async with stores(kind, tmp_path, 2) as (first, second):
        begun, gate = asyncio.Event(), asyncio.Event()
        other = service_of(first, ScriptedModel([ScriptedReply((Wait(gate, begun),))]))
        service = service_of(second, ScriptedModel([]))
        conversation = await first.stores.conversations.create("", {})
        request = on_conversation(conversation.id)
        running = await other.start(request)
        await begun.wait()
        queued = [asyncio.create_task(service.start(request)) for _ in range(2)]
        await steps(10)
        await service.interrupt()
        await refusals(queued)
        await service.close()
        gate.set()
        await running.result()
        await assert_is_free(first, conversation.id, 1)
        await other.close()


class WatchedModels(ModelRegistry):
    """Models, with what is done when a turn that is being planned asks for one."""

    def __init__(self, on_get: Callable[[], object]) -> None:
        super().__init__({"m": ScriptedModel(["Done."] * 2)}, default="m")
        self._on_get = on_get

    def get(self, name: str | None) -> tuple[str, Model]:
        self._on_get()
        return super().get(name)


@pytest.mark.parametrize("way", ["on a conversation", "as a continuation", "in the request's task"])
async def test_turn_that_is_planned_while_its_node_stops_is_refused(
    kind: str, tmp_path: Path, way: str
) -> None:
    async with stores(kind, tmp_path, 2) as (first, second):
        models = WatchedModels(lambda: service.registry.interrupt(hands_over=True))
        service = TurnService(first, models, first.stores)
        conversation = await first.stores.conversations.create("", {})
        parent = await complete_turn(first)
        request = on_conversation(conversation.id)
        if way != "on a conversation":
            request = TurnRequest(request.input, previous_response_id=parent.response_id)
        if way == "in the request's task":
            await refusals([asyncio.create_task(service.run(request, on_start=lambda turn: None))])
        else:
            await refusals([asyncio.create_task(service.start(request))])
        await service.close()
        await assert_is_free(second, conversation.id, 1)


async def test_claimed_turn_that_is_planned_while_its_node_stops_goes_on_at_another(
    kind: str, tmp_path: Path
) -> None:
    async with stores(kind, tmp_path, 3) as (first, second, third):
        models = WatchedModels(lambda: service.registry.interrupt(hands_over=True))
        service = TurnService(second, models, second.stores)
        response_id = await released_by(first)
        await OrphanResumption(service.handover, second.stores.nodes).run_once()
        # Before its node has closed the store, which may wait for clients.
        assert await claimed_by(third) == [OrphanedTurn(DEFAULT_TENANT, response_id)]
        await service.close()


async def test_node_that_was_taken_for_dead_leaves_what_others_have(tmp_path: Path) -> None:
    async with stores("postgres", tmp_path, 2) as (first, second):
        begun = asyncio.Event()
        model = ScriptedModel([ScriptedReply((Wait(asyncio.Event(), begun),))])
        service = service_of(first, model)
        turn = await service.start(TurnRequest((Message("user", "Hi."),), background=True))
        await asyncio.gather(begun.wait(), turn.wait_until_stored())
        assert isinstance(first, PostgresStore)
        await end_lease(first)
        claimed = await claimed_by(second)
        assert claimed == [OrphanedTurn(DEFAULT_TENANT, turn.response_id)]
        await service.close()
        assert not await claimed_by(second)
        await second.write(turn.response_id, [assistant("Done.")], DONE)


async def execute(store: SharedStore, query: str) -> None:
    """Do something behind a store's back."""
    if isinstance(store, SqliteStore):
        connection = sqlite3.connect(store._database._connections.path, isolation_level=None)
        connection.execute(query)
        connection.close()
    else:
        database = await asyncpg.connect(store._database._uri)
        await database.execute(query)
        await database.close()


#: Makes what turns said by then unreadable, and readable again.
_DAMAGE = {
    "sqlite": "UPDATE texts SET body = CAST(x'00' || body AS BLOB)",
    "postgres": "UPDATE log SET output = '\\x00'::bytea || output",
}
_MEND = {
    "sqlite": "UPDATE texts SET body = substr(body, 2) WHERE hex(substr(body, 1, 1)) = '00'",
    "postgres": "UPDATE log SET output = substr(output, 2)"
    " WHERE substr(output, 1, 1) = '\\x00'::bytea",
}


async def orphans_of_two(
    first: SharedStore, second: SharedStore, kind: str
) -> tuple[OrphanResumption, TurnService, str, str]:
    """A node that is to claim two turns, of which the first continues a damaged one."""
    parent = await complete_turn(first)
    await execute(first, _DAMAGE[kind])
    ids = [await released_by(first, parent), await released_by(first)]
    service = service_of(second, ScriptedModel(["Done.", "Done."]))
    return OrphanResumption(service.handover, second.stores.nodes), service, ids[0], ids[1]


async def status_of(service: TurnService, response_id: str) -> str:
    running = service.registry.get(response_id)
    if running is not None:
        await running.result()
    turn = await service.reader.response(DEFAULT_TENANT, response_id)
    return turn.status


async def test_claimed_turn_that_cannot_be_read_is_tried_again_and_keeps_none_waiting(
    kind: str, tmp_path: Path
) -> None:
    async with stores(kind, tmp_path, 2) as (first, second):
        orphans, service, continued, other = await orphans_of_two(first, second, kind)
        await orphans.run_once()
        assert await status_of(service, other) == "completed"
        assert await status_of(service, continued) == "in_progress"
        await execute(first, _MEND[kind])
        await orphans.run_once()
        assert await status_of(service, continued) == "completed"


async def test_claimed_turn_that_can_never_be_read_ends_as_failed(
    kind: str, tmp_path: Path
) -> None:
    async with stores(kind, tmp_path, 2) as (first, second):
        orphans, service, continued, _ = await orphans_of_two(first, second, kind)
        for _ in range(10):
            await orphans.run_once()
        assert await status_of(service, continued) == "failed"


@pytest.mark.parametrize("column", ["header", "output"])
async def test_damaged_turn_keeps_no_other_from_being_claimed_or_read(
    kind: str, tmp_path: Path, column: str
) -> None:
    async with stores(kind, tmp_path, 2) as (first, second):
        damaged = await begun_by(first)
        await execute(first, _DAMAGE[kind].replace("output", column))
        other = await begun_by(first)
        await first.close()
        claimed = [one.response_id for one in await claimed_by(second)]
        assert other in claimed
        if column == "header":
            assert claimed == [other]
            assert not (await head_of(second, damaged)).is_running
        assert (await head_of(second, other)).is_running


async def test_turns_are_handed_over_though_the_answer_to_their_release_is_lost(
    tmp_path: Path,
) -> None:
    async with postgres_proxy(empty_database(tmp_path)) as proxy:
        first, second = [await open_postgres(proxy.uri) for _ in range(2)]
        await second.stores.nodes.join(None)
        begun = asyncio.Event()
        model = ScriptedModel([ScriptedReply((Wait(asyncio.Event(), begun),))])
        service = service_of(first, model)
        turn = await service.start(TurnRequest((Message("user", "Hi."),), background=True))
        await asyncio.gather(begun.wait(), turn.wait_until_stored())
        proxy.cuts = 1
        await service.interrupt()
        assert not proxy.cuts
        await service.close()
        assert await claimed_by(second) == [OrphanedTurn(DEFAULT_TENANT, turn.response_id)]
        await second.close()


async def test_turn_is_claimed_anew_where_the_answer_to_its_claim_is_lost(tmp_path: Path) -> None:
    async with postgres_proxy(empty_database(tmp_path)) as proxy:
        first, second = [await open_postgres(proxy.uri) for _ in range(2)]
        await second.stores.nodes.join(None)
        response_id = await released_by(first)
        proxy.cuts = 1
        with pytest.raises(StoreError):
            await claimed_by(second)
        assert not proxy.cuts
        # Behind the writer's look at what became of it.
        await complete_turn(second)
        assert await claimed_by(second) == [OrphanedTurn(DEFAULT_TENANT, response_id)]
        await first.close()
        await second.close()
