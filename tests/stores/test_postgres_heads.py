"""Heads in PostgreSQL that are wanted at the same time: one statement reads several."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest

from antiphon.core.ids import new_response_id
from antiphon.errors import StoreError
from antiphon.stores.postgres.sql_files import TURN_SQL
from antiphon.stores.postgres.store import PostgresStore, open_postgres
from antiphon.turn.store_protocols import Head
from support.postgres_database import empty_database
from support.postgres_proxy import postgres_proxy
from support.store_turns import complete_turn, complete_turns, new_turn

HEADS = (TURN_SQL["head"], TURN_SQL["heads"])


async def heads_of(store: PostgresStore, ids: list[str], tenant: str = "") -> list[Head | None]:
    return await asyncio.gather(*[store.head(tenant, one) for one in ids])


async def test_heads_that_are_wanted_at_once_share_statements(tmp_path: Path) -> None:
    uri = empty_database(tmp_path)
    if "host=/" not in uri:
        pytest.skip("needs a server on a Unix socket")
    async with postgres_proxy(uri) as proxy:
        store = await open_postgres(proxy.uri)
        heads: list[Head | None] = [*await complete_turns(store, 20)]
        theirs = await complete_turn(store, tenant="other")
        ids = [head.response_id for head in heads if head]
        unknown = [new_response_id(), "resp_", "", theirs.response_id]
        proxy.executed.clear()
        assert await heads_of(store, [*ids, *unknown, *ids]) == [*heads, *[None] * 4, *heads]
        # The first alone, and those that come meanwhile in groups of 16.
        assert len([one for one in proxy.executed if one in HEADS]) == 4
        (head, newest), alone, (none, no_turns) = await asyncio.gather(
            store.head_with_turns("", ids[-1]),
            store.head("other", theirs.response_id),
            store.head_with_turns("other", ids[-1]),
        )
        assert (head, alone) == (heads[-1], theirs)
        assert [turn.response_id for turn in newest] == ids[:-9:-1]
        assert (none, list(no_turns)) == (None, [])
        await store.close()


async def test_head_that_cannot_be_read_fails_alone(tmp_path: Path) -> None:
    store = await open_postgres(empty_database(tmp_path))
    head = await complete_turn(store)
    # No text in PostgreSQL has that character.
    tenants = ["", "\0", "", "\0", ""]
    found = await asyncio.gather(
        *[store.head(tenant, head.response_id) for tenant in tenants], return_exceptions=True
    )
    assert found[::2] == [head] * 3
    errors = found[1::2]
    assert all(isinstance(error, StoreError) for error in errors)
    assert errors[0] is not errors[1]
    await store.close()


async def test_cancelled_reader_takes_no_other_with_it(tmp_path: Path) -> None:
    store = await open_postgres(empty_database(tmp_path))
    heads = await complete_turns(store, 6)
    for cancelled in range(6):
        readers = [asyncio.ensure_future(store.head("", head.response_id)) for head in heads]
        # All of them have asked.
        await asyncio.sleep(0)
        readers[cancelled].cancel()
        found = await asyncio.gather(*readers, return_exceptions=True)
        assert isinstance(found.pop(cancelled), asyncio.CancelledError)
        assert found == [head for number, head in enumerate(heads) if number != cancelled]
    assert await store.head("", heads[0].response_id) == heads[0]
    await store.close()


async def test_head_is_found_as_soon_as_its_turn_is_stored_whoever_reads_meanwhile(
    tmp_path: Path,
) -> None:
    store = await open_postgres(empty_database(tmp_path))

    async def store_and_read() -> None:
        parent: Head | None = None
        for number in range(15):
            turn = new_turn(str(number), parent=parent)
            await store.begin(turn)
            parent = await store.head("", turn.response_id)
            assert parent is not None
            assert parent.seq == number

    await asyncio.gather(*[store_and_read() for _ in range(12)])
    await store.close()


async def test_statement_that_hangs_keeps_nobody_waiting_who_asks_later(tmp_path: Path) -> None:
    uri = empty_database(tmp_path)
    if "host=/" not in uri:
        pytest.skip("needs a server on this machine")
    store = await open_postgres(uri)
    heads = await complete_turns(store, 3)
    # Nothing but heads is read meanwhile. The connection that was given back last is taken first.
    await store._database.lease.stop()
    backend = await store._database.read(lambda it: it.fetchval("SELECT pg_backend_pid()"))
    os.kill(backend, signal.SIGSTOP)
    try:
        first, *early = [asyncio.ensure_future(store.head("", one.response_id)) for one in heads]
        await asyncio.wait([*early, asyncio.ensure_future(read_until_found(store, heads[0]))])
        assert [await one for one in early] == heads[1:]
        assert not first.done()
    finally:
        os.kill(backend, signal.SIGCONT)
    assert await first == heads[0]
    await store.close()


async def read_until_found(store: PostgresStore, head: Head) -> None:
    """Ask again and again, as requests do that come one after another."""
    while True:
        with contextlib.suppress(TimeoutError):
            assert await asyncio.wait_for(store.head("", head.response_id), 0.05) == head
            return


async def test_closed_store_refuses_all_who_ask(tmp_path: Path) -> None:
    store = await open_postgres(empty_database(tmp_path))
    head = await complete_turn(store)
    await store.close()
    found = await asyncio.gather(
        *[store.head("", head.response_id) for _ in range(5)], return_exceptions=True
    )
    assert [type(error) for error in found] == [StoreError] * 5
