"""What PostgreSQL alone has: several processes at once, lost connections, leases and vacuums."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import asyncpg
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.items import Message
from antiphon.core.secrets import uri_without_password
from antiphon.core.turns import ConversationRecord, RestartOptions, TurnRequest
from antiphon.errors import (
    ConfigError,
    ConversationLockedError,
    HistoryChangedError,
    StoreError,
    TurnTakenOverError,
)
from antiphon.models.model_registry import ModelRegistry
from antiphon.models.scripted import ScriptedModel, say
from antiphon.stores.postgres.connection import SESSION_SETTINGS
from antiphon.stores.postgres.erasures import vacuum_erased
from antiphon.stores.postgres.search.erasure import SEARCH_SQL
from antiphon.stores.postgres.sql_files import TURN_SQL
from antiphon.stores.postgres.store import PostgresStore, open_postgres
from antiphon.turn.node_protocols import OrphanedTurn
from antiphon.turn.service import TurnService
from antiphon.turn.store_protocols import NewTurn, Window
from support.postgres_database import empty_database, end_lease
from support.postgres_proxy import PostgresProxy, postgres_proxy
from support.serve_process import running_server
from support.store_turns import (
    DONE,
    HEADER,
    assistant,
    begin_turn,
    complete_turn,
    complete_turns,
    head_of,
    ids_of,
    new_turn,
)

#: What is read before a turn begins.
READS = ("head", "heads", "history", "chain_parts")


@asynccontextmanager
async def opened(uri: str, count: int = 1) -> AsyncIterator[list[PostgresStore]]:
    """As many stores on one database, as of several processes."""
    # By a clock of their own, as the turns of tests have the times that they say.
    stores = [await open_postgres(uri, clock=time.time) for _ in range(count)]
    try:
        yield stores
    finally:
        for store in stores:
            await store.close()


@asynccontextmanager
async def connected(uri: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(uri)
    try:
        yield connection
    finally:
        await connection.close()


async def end_connections(uri: str) -> None:
    """The server ends all connections to the database but one."""
    async with connected(uri) as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def on_conversation(conversation: ConversationRecord) -> NewTurn:
    turn = new_turn("Hi.", header=msgspec.structs.replace(HEADER, conversation=conversation.id))
    return msgspec.structs.replace(turn, conversation=conversation)


async def test_turns_of_two_stores_on_one_parent_are_branches(tmp_path: Path) -> None:
    async with opened(empty_database(tmp_path), 2) as stores:
        parent = await complete_turn(stores[0])
        children = [new_turn(str(number), parent=parent) for number in range(20)]
        await asyncio.gather(
            *[stores[number % 2].begin(child) for number, child in enumerate(children)]
        )
        heads = [await head_of(stores[0], child.response_id) for child in children]
        assert len({(head.thread, head.seq) for head in heads}) == 20
        for head in heads:
            assert await ids_of(stores[1], head) == [parent.response_id, head.response_id]


async def test_nothing_is_lost_of_a_chat_that_two_stores_write_at_once(tmp_path: Path) -> None:
    async with opened(empty_database(tmp_path), 2) as stores:
        parent = await complete_turn(stores[0])
        turns = [new_turn(str(number), parent=parent) for number in range(20)]
        for pair in zip(turns[::2], turns[1::2], strict=True):
            # A commit of each, which wait for each other.
            both = list(zip(stores, pair, strict=True))
            await asyncio.gather(*[store.begin(turn) for store, turn in both])
            await asyncio.gather(*[store.write(turn.response_id, [], DONE) for store, turn in both])
        chat = await stores[1].stores.chats.get("", parent.response_id)
        assert chat is not None
        assert DONE.usage is not None
        assert (chat.head, chat.branches) == (turns[-1].response_id, 20)
        assert chat.usage.output_tokens == 21 * DONE.usage.output_tokens
        (used,) = await stores[0].stores.chats.usage_sums("", 0, 1 << 20)
        assert used.turns == 21


async def test_one_of_two_stores_moves_a_conversation_on(tmp_path: Path) -> None:
    async with opened(empty_database(tmp_path), 2) as stores:
        for _ in range(5):
            conversation = await stores[0].stores.conversations.create("", {})
            turns = [on_conversation(conversation) for _ in stores]
            pairs = zip(stores, turns, strict=True)
            results = await asyncio.gather(
                *[store.begin(turn) for store, turn in pairs], return_exceptions=True
            )
            refusals = [result for result in results if result is not None]
            assert [type(one) for one in refusals] == [ConversationLockedError]


async def test_turn_is_not_begun_behind_an_erasure_of_another_store(tmp_path: Path) -> None:
    async with opened(empty_database(tmp_path), 2) as (one, other):
        first, second = await complete_turns(one, 2)
        assert await other.delete("", first.response_id)
        with pytest.raises(HistoryChangedError):
            await one.begin(new_turn("And?", parent=second))
        assert len(await one.chain(second)) == 1


async def test_turns_of_a_dead_store_are_interrupted(tmp_path: Path) -> None:
    uri = empty_database(tmp_path)
    async with opened(uri, 2) as (dying, other):
        running = await begin_turn(dying)
        await dying.write(running.response_id, [assistant("Half")])
        assert (await head_of(other, running.response_id)).is_running
        await end_lease(dying)
        turn = await other.turn("", running.response_id)
        assert turn is not None
        assert turn.end is not None
        assert turn.end.error is not None
        assert (turn.end.status, turn.end.error.code) == ("failed", "interrupted")
        assert turn.output == (assistant("Half"),)
        # What it writes now fails, and it begins nothing until it has a lease again.
        with pytest.raises(TurnTakenOverError):
            await dying.write(running.response_id, [assistant("more")], DONE)
        assert await other.turn("", running.response_id) == turn
        with pytest.raises(StoreError):
            await dying.begin(new_turn("Hi."))
        await dying._database.lease.renew()
        await complete_turn(dying)


async def test_turn_of_a_dead_node_that_can_be_run_again_is_claimed_by_one_node(
    tmp_path: Path,
) -> None:
    uri = empty_database(tmp_path)
    restartable = msgspec.structs.replace(HEADER, background=True, restart=RestartOptions())
    async with opened(uri, 3) as (dying, *others):
        for number, store in enumerate((dying, *others)):
            await store.stores.nodes.join(f"unix:/run/{number}", "1.0")
        first, second = new_turn("Work.", header=restartable), new_turn("Hi.")
        await asyncio.gather(dying.begin(first), dying.begin(second))
        await dying.write(first.response_id, [assistant("Half")])
        node = await others[0].stores.nodes.node_of("", first.response_id)
        assert node is not None
        assert (node.id, node.url) == (dying.stores.nodes.node_id, "unix:/run/0")
        assert not any([await one.stores.nodes.recover() for one in others])
        await end_lease(dying)
        # A reader leaves it to the nodes.
        turn = await others[0].turn("", first.response_id)
        assert turn is not None
        assert turn.end is None
        claims = await asyncio.gather(*[one.stores.nodes.recover() for one in others])
        claimed = [one for of_node in claims for one in of_node]
        assert claimed == [OrphanedTurn("", first.response_id)]
        winner = others[0] if claims[0] else others[1]
        with pytest.raises(TurnTakenOverError):
            await dying.write(first.response_id, [assistant("late")], DONE)
        await winner.write(first.response_id, [assistant("and half")], DONE)
        turn = await winner.turn("", first.response_id)
        assert turn is not None
        assert (turn.output, turn.end) == ((assistant("Half"), assistant("and half")), DONE)
        other = await winner.turn("", second.response_id)
        assert other is not None
        assert other.end is not None
        assert other.end.status == "failed"
        assert len(await winner.stores.nodes.list_nodes()) == 2


async def test_released_turn_is_claimed_and_a_draining_node_claims_nothing(tmp_path: Path) -> None:
    restartable = msgspec.structs.replace(HEADER, background=True, restart=RestartOptions())
    async with opened(empty_database(tmp_path), 2) as (one, other):
        await one.stores.nodes.join(None)
        await other.stores.nodes.join(None)
        assert await one.stores.nodes.secret() == await other.stores.nodes.secret()
        turn = new_turn("Work.", header=restartable)
        await one.begin(turn)
        await one.stores.nodes.set_draining()
        await one.stores.nodes.release([turn.response_id])
        with pytest.raises(TurnTakenOverError):
            await one.write(turn.response_id, [], DONE)
        assert await one.stores.nodes.recover() == ()
        assert list(await other.stores.nodes.recover()) == [OrphanedTurn("", turn.response_id)]
        await other.write(turn.response_id, [assistant("Done.")], DONE)
        assert [node.is_draining for node in await other.stores.nodes.list_nodes()] == [True, False]


async def test_store_goes_on_after_its_connections_are_lost(tmp_path: Path) -> None:
    uri = empty_database(tmp_path)
    async with opened(uri) as (store,):
        heads = await complete_turns(store, 2)
        running = await begin_turn(store, "And?", heads[-1])
        await end_connections(uri)
        assert len(await store.chain(running)) == 3
        await store.write(running.response_id, [assistant("Yes.")], DONE)
        await complete_turn(store, parent=running)
        assert not store.stores.health.refusals


async def test_cancelled_read_leaves_no_transaction_to_the_next_one(tmp_path: Path) -> None:
    async with opened(empty_database(tmp_path)) as (store,):
        head = await complete_turn(store)
        database = store._database
        for steps in range(12):
            reading = asyncio.create_task(store.window(head, Window(1)))
            for _ in range(steps):
                await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])
            level = await database.read(lambda one: one.fetchval("SHOW transaction_isolation"))
            assert level == "read committed"


async def test_nothing_is_confirmed_that_the_server_has_not_committed(tmp_path: Path) -> None:
    uri = empty_database(tmp_path)
    async with opened(uri, 2) as (store, other):
        head = await complete_turn(store)
        async with connected(uri) as connection, connection.transaction():
            # Whoever begins a turn in the tree waits for this lock.
            await connection.execute("SELECT 1 FROM chats FOR UPDATE")
            lost = new_turn("And?", parent=head)
            begun = store.begin(lost)
            ended = store.write(lost.response_id, [], DONE)
            await asyncio.sleep(0)
            assert not begun.done()
            assert await other.head("", lost.response_id) is None
        await asyncio.gather(begun, ended)
        assert await other.head("", lost.response_id) is not None


async def test_erased_rows_leave_the_tables(tmp_path: Path) -> None:
    uri = empty_database(tmp_path)
    async with opened(uri) as (store,), connected(uri) as connection:
        await vacuum_erased(connection)
        head = await complete_turn(store, "secret")
        assert (await store.erase_report()).pending == 0
        await store.delete("", head.response_id)
        report = await store.erase_report()
        assert (report.pending, report.pending_since is not None) == (1, True)
        async with connected(uri) as slow, slow.transaction(isolation="repeatable_read"):
            await slow.fetch("SELECT 1 FROM log")
            other = await complete_turn(store, "also secret")
            await store.delete("", other.response_id)
            # This reader may still see what was erased since it began.
            assert await vacuum_erased(connection)
        assert not await vacuum_erased(connection)
        after = await store.erase_report()
        assert after.pending == 0
        assert after.erased_at is not None
        assert after.left_at is not None
        assert after.erased_at <= after.left_at


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://nobody:secret@127.0.0.1:1/antiphon",
        "postgresql://nobody:secret@/antiphon?host=/nowhere",
        "postgresql://nobody@/antiphon?host=/nowhere&password=secret",
        "postgresql://nobody:a/secret@127.0.0.1:1/antiphon",
        "postgresql://nobody:a#secret@127.0.0.1:1/antiphon",
        "postgresql://nobody:a?secret@127.0.0.1:1/antiphon",
        "postgresql://nobody:a@secret@127.0.0.1:1/antiphon",
    ],
)
async def test_server_that_is_not_there_is_an_error_without_the_password(uri: str) -> None:
    with pytest.raises(ConfigError) as caught:
        await open_postgres(uri)
    assert "secret" not in str(caught.value)


@given(st.text())
def test_uri_is_shown_without_its_password_whatever_that_holds(password: str) -> None:
    for uri in (
        f"postgresql://somebody:{password}@host/db?sslmode=require",
        f"postgresql://host/db?password={quote(password, safe='')}&sslmode=require",
    ):
        assert uri_without_password(uri) in {"postgresql://host/db", "postgresql://…"}


@pytest.mark.slow
def test_server_shows_its_store_without_the_password(tmp_path: Path) -> None:
    uri = empty_database(tmp_path).replace("postgres@", "postgres:secret@", 1)
    with running_server(tmp_path, "--store", uri) as (process, _, _):
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        shown = process.stderr.read()
    assert "store: postgresql://" in shown
    assert "secret" not in shown


@pytest.mark.parametrize("is_alone", [True, False], ids=["statement", "transaction"])
async def test_commit_without_an_answer_is_an_error_and_leaves_no_running_turn(
    tmp_path: Path, is_alone: bool
) -> None:
    async with (
        proxy_of(tmp_path) as proxy,
        opened(proxy.uri, 2) as (store, other),
    ):
        running = await begin_turn(store)
        conversation = await store.stores.conversations.create("", {})
        lost = new_turn("Hi.") if is_alone else on_conversation(conversation)
        proxy.cuts = 1
        with pytest.raises(StoreError):
            await store.begin(lost)
        assert not proxy.cuts
        # Nobody runs it: if it is there, it is ended.
        await complete_turn(store)
        turn = await other.turn("", lost.response_id)
        assert turn is None or turn.end is not None
        proxy.cuts = 1
        with pytest.raises(StoreError):
            await store.write(running.response_id, [assistant("Yes")])
        await store.write(running.response_id, [assistant("No")], DONE)
        turn = await other.turn("", running.response_id)
        assert turn is not None
        assert turn.end == DONE
        assert turn.output[-1] == assistant("No")


async def test_a_commit_of_turns_is_one_round_trip(tmp_path: Path) -> None:
    async with proxy_of(tmp_path) as proxy, opened(proxy.uri, 1) as (store,):
        # The statements are prepared.
        parent = await complete_turn(store, parent=await complete_turn(store))
        turns = [new_turn(str(number), parent=parent) for number in range(3)]
        turns += [new_turn(str(number)) for number in range(3)]
        proxy.executed.clear()
        await asyncio.gather(
            *[store.begin(turn) for turn in turns],
            *[store.write(turn.response_id, [assistant("Yes.")], DONE) for turn in turns],
        )
        assert len(without_upkeep(proxy.executed)) == 1
        for turn in turns:
            assert await store.head("", turn.response_id)


async def test_beginning_that_nobody_awaits_is_committed_with_its_end_or_alone(
    tmp_path: Path,
) -> None:
    uri = empty_database(tmp_path)
    quick, slow = [msgspec.structs.replace(new_turn("Hi."), is_awaited=False) for _ in range(2)]
    async with opened(uri) as (store,), connected(uri) as connection:
        slow_begun, begun = store.begin(slow), store.begin(quick)
        await store.write(quick.response_id, [assistant("Yes.")], DONE)
        assert begun.done()
        # In one row.
        assert await connection.fetchval("SELECT count(*) FROM log WHERE ending IS NOT NULL") == 1
        await slow_begun
        await store.write(slow.response_id, [], DONE)
        assert await connection.fetchval("SELECT max(part) FROM log") == 1


async def test_a_store_notifies_others_only_while_somebody_follows_there(tmp_path: Path) -> None:
    async with proxy_of(tmp_path) as proxy, opened(proxy.uri, 2) as (store, other):

        async def is_notified() -> bool:
            """Whether the next turn is, once what others do is known."""
            for one in (other, store):
                await one._database.lease.renew()
            proxy.executed.clear()
            await complete_turn(store)
            notifying = store.changes._notify_task
            if notifying is not None:
                await notifying
            return any("pg_notify" in executed for executed in proxy.executed)

        assert not await is_notified()
        own = await store.changes.subscribe("")
        assert not await is_notified()
        reader = await other.changes.subscribe("")
        assert await is_notified()
        reader.close()
        assert not await is_notified()
        own.close()


async def test_a_cold_turn_of_a_long_chain_reads_twice(tmp_path: Path) -> None:
    async with proxy_of(tmp_path) as proxy, opened(proxy.uri) as (store,):
        models = ModelRegistry({"m": ScriptedModel(lambda _: say("Yes."))}, default="m")
        head = (await complete_turns(store, 40))[-1]
        service = TurnService(store, models, store.stores)
        proxy.executed.clear()
        request = TurnRequest((Message("user", "Hi."),), previous_response_id=head.response_id)
        assert (await (await service.start(request)).result()).status == "completed"
        reads = [name for sql in proxy.executed for name in READS if TURN_SQL[name] == sql]
        assert reads == ["heads", "history"]
        await service.close()


async def test_nodes_share_the_turns_that_are_to_be_indexed(tmp_path: Path) -> None:
    uri = empty_database(tmp_path)
    async with opened(uri, 3) as (alone, *nodes), connected(uri) as connection:
        for number, store in enumerate(nodes):
            await store.stores.nodes.join(f"unix:/run/{number}", "1.0")
        for _ in range(20):
            await complete_turn(alone)
        query = SEARCH_SQL["pending_of_node"]
        shares = [
            [tuple(row) for row in await connection.fetch(query, 1000, store._database.lease.node)]
            for store in (*nodes, alone)
        ]
        assert sorted(shares[0] + shares[1]) == sorted(shares[2])
        assert len(shares[2]) == 20


async def test_a_turn_reads_once_wherever_its_chain_was_continued(tmp_path: Path) -> None:
    async with proxy_of(tmp_path) as proxy, opened(proxy.uri, 3) as stores:
        models = ModelRegistry({"m": ScriptedModel(lambda _: say("Yes."))}, default="m")
        services = [TurnService(store, models, store.stores) for store in stores]
        previous: str | None = None
        reads: list[list[str]] = []
        for number in range(12):
            proxy.executed.clear()
            request = TurnRequest((Message("user", "Hi."),), previous_response_id=previous)
            # Three turns on one node, then one on each.
            service = services[0 if number < 3 else number % 3]
            response = await (await service.start(request)).result()
            assert response.status == "completed"
            previous = response.id
            reads.append([name for name in READS if TURN_SQL[name] in proxy.executed])
        assert reads == [[], ["head"], ["head"], ["head"], *[["heads"]] * 8]
        for service in services:
            await service.close()


def without_upkeep(executed: list[str]) -> list[str]:
    """The statements that turns were the reason for: no leases, no feed, no new connections."""
    others = ("lease_until = ", "pg_notify", SESSION_SETTINGS[0])
    return [one for one in executed if not any(other in one for other in others)]


@asynccontextmanager
async def proxy_of(tmp_path: Path) -> AsyncIterator[PostgresProxy]:
    uri = empty_database(tmp_path)
    if "host=/" not in uri:
        pytest.skip("needs a server on a Unix socket")
    async with postgres_proxy(uri) as proxy:
        yield proxy


async def test_damaged_turn_keeps_no_other_from_being_found(tmp_path: Path) -> None:
    uri = empty_database(tmp_path)
    async with opened(uri) as (store,):
        await complete_turn(store, "first", "common")
        async with connected(uri) as connection:
            await connection.execute("UPDATE log SET output = '\\x00'::bytea || output")
        head = await complete_turn(store, "second", "common")
        found = await store.stores.search.search("", "common", 10)
        assert [hit.response_id for hit in found] == [head.response_id]
        assert len(await store.stores.search.search("", "first", 10)) == 1
