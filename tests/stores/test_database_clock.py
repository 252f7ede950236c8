"""Stores of machines whose clocks are wrong, on one PostgreSQL database."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from antiphon.core.retention import DAY_SECONDS, RetentionPolicy
from antiphon.stores.postgres.store import open_postgres
from support.postgres_database import empty_database
from support.store_turns import DONE, complete_turn, new_turn

MONTH = 30 * DAY_SECONDS
POLICY = RetentionPolicy(MONTH)
_time = time.time


@pytest.mark.parametrize("skew", [-400 * DAY_SECONDS, 400 * DAY_SECONDS])
async def test_store_of_a_machine_with_a_wrong_clock_expires_turns_at_the_right_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skew: float, caplog: pytest.LogCaptureFixture
) -> None:
    uri = empty_database(tmp_path)
    right = await open_postgres(uri, POLICY)
    monkeypatch.setattr(time, "time", lambda: _time() + skew)
    wrong = await open_postgres(uri, POLICY)
    try:
        assert "the clock of this machine is" in caplog.text
        turns = []
        for store, clock in ((right, _time), (wrong, time.time)):
            turn = msgspec.structs.replace(new_turn("Hi."), created_at=clock())
            await store.begin(turn)
            await store.write(turn.response_id, [], DONE)
            turns.append(turn)
        child = msgspec.structs.replace(
            new_turn("On.", parent=await right.head("", turns[1].response_id)),
            created_at=_time(),
        )
        await right.begin(child)
        await right.write(child.response_id, [], DONE)
        turns.append(child)
        for store in (right, wrong):
            assert await store.stores.response_index.delete_expired() == 0
            for turn in turns:
                shown = await store.turn("", turn.response_id)
                assert shown is not None
                assert shown.expires_at == pytest.approx(_time() + MONTH, abs=300)
    finally:
        await wrong.close()
        monkeypatch.undo()
        await right.close()


async def test_clock_that_is_set_while_a_store_is_open_expires_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_postgres(empty_database(tmp_path), POLICY)
    try:
        turn = await complete_turn(store)
        monkeypatch.setattr(time, "time", lambda: _time() + 400 * DAY_SECONDS)
        assert await store.stores.response_index.delete_expired() == 0
        assert await store.turn("", turn.response_id) is not None
        await store._database.lease.renew()
        assert await store.stores.response_index.delete_expired() == 0
        assert await store.turn("", turn.response_id) is not None
    finally:
        monkeypatch.undo()
        await store.close()


#: Has a connection find another clock before the real one.
_SET_WRONG = """
CREATE SCHEMA wrong;
CREATE FUNCTION wrong.clock_timestamp() RETURNS timestamptz LANGUAGE sql
AS $$ SELECT pg_catalog.clock_timestamp() + interval '400 days' $$;
SET search_path = wrong, pg_catalog, public
"""


@pytest.mark.parametrize("has_swept", [True, False])
async def test_clock_of_the_database_that_leaps_ahead_erases_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, has_swept: bool
) -> None:
    store = await open_postgres(empty_database(tmp_path), POLICY)
    database, index = store._database, store.stores.response_index
    try:
        turn = await complete_turn(store)
        if has_swept:
            assert await index.delete_expired() == 0
        # One connection reads for all who wait for each other.
        await database.read(lambda connection: connection.execute(_SET_WRONG))
        await database.lease.renew()
        assert database.expiry.clock() > _time() + 300 * DAY_SECONDS
        assert await store.turn("", turn.response_id) is None
        assert await index.delete_expired() == 0
        assert "the clock of the database server is 9" in caplog.text
        await database.read(
            lambda connection: connection.execute("RESET search_path; DROP SCHEMA wrong CASCADE")
        )
        await database.lease.renew()
        assert await store.turn("", turn.response_id) is not None
        assert await index.delete_expired() == 0
    finally:
        await store.close()
