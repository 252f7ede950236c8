"""Idempotency reservations in every store: a result and its record are stored together or not."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec
import pytest

from antiphon.core.ids import new_conversation_id
from antiphon.core.turns import ConversationRecord, Header, IdempotencyReservation
from antiphon.errors import ConflictError, StoreError
from antiphon.stores.idempotency_keys import RESERVATION_TIMEOUT
from antiphon.turn.store_protocols import IdempotencyRecord, NewTurn
from support.side_stores import query_file
from support.store_turns import DONE, ManualClock, Opener, StoreWithStores, new_turn, opener

RESERVATION = IdempotencyReservation("key", b"print")


def reserving_turn(
    reservation: IdempotencyReservation = RESERVATION,
    new_conversation: ConversationRecord | None = None,
) -> NewTurn:
    header = Header("m", conversation=new_conversation.id if new_conversation else None)
    turn = new_turn("Hi.", tenant="me", header=header)
    return msgspec.structs.replace(
        turn,
        reservation=reservation,
        conversation=new_conversation,
        creates_conversation=new_conversation is not None,
    )


async def completed_result(
    store: StoreWithStores, reservation: IdempotencyReservation = RESERVATION
) -> str | None:
    """The result id of an existing record."""
    record = await store.stores.idempotency.reserve("me", reservation.key, reservation.fingerprint)
    assert record is not None
    return record.result_id


async def test_stored_turn_or_conversation_completes_its_record(store_in: Opener) -> None:
    async with store_in() as store:
        stores = store.stores
        await stores.idempotency.reserve("me", "key", b"print")
        turn = reserving_turn()
        await store.begin(turn)
        assert await completed_result(store) == turn.response_id

        other = IdempotencyReservation("other", b"print")
        await stores.idempotency.reserve("me", "other", b"print")
        conversation = await stores.conversations.create("me", {}, other)
        assert await completed_result(store, other) == conversation.id


async def test_conversation_is_created_with_its_first_turn(store_in: Opener) -> None:
    async with store_in() as store:
        new_conversation = ConversationRecord(
            new_conversation_id(), 1_800_000_000.0, {"topic": "x"}
        )
        await store.stores.idempotency.reserve("me", "key", b"print")
        turn = reserving_turn(new_conversation=new_conversation)
        store.begin(turn)
        await store.write(turn.response_id, [], DONE)
        found = await store.stores.conversations.get("me", new_conversation.id)
        assert found == msgspec.structs.replace(new_conversation, head=turn.response_id)
        assert await store.stores.conversations.get("", new_conversation.id) is None
        assert await completed_result(store) == new_conversation.id


@pytest.mark.parametrize("lost", ["released", "completed", "other_fingerprint", "never"])
async def test_nothing_is_stored_without_its_reservation(store_in: Opener, lost: str) -> None:
    async with store_in() as store:
        idempotency_records, conversations = store.stores.idempotency, store.stores.conversations
        if lost != "never":
            await idempotency_records.reserve(
                "me", "key", b"other" if lost == "other_fingerprint" else b"print"
            )
        if lost == "released":
            await idempotency_records.release("me", "key")
        elif lost == "completed":
            await idempotency_records.complete("me", "key", "resp_1")
        # Another tenant's reservation does not count.
        await idempotency_records.reserve("them", "key", b"print")
        new_conversation = ConversationRecord(new_conversation_id(), 1_800_000_000.0)
        for turn in (reserving_turn(), reserving_turn(new_conversation=new_conversation)):
            with pytest.raises(ConflictError) as late:
                await store.begin(turn)
            assert late.value.code == "idempotency_key_in_progress"
            assert await store.turn("me", turn.response_id) is None
        with pytest.raises(ConflictError):
            await conversations.create("me", {}, RESERVATION)
        assert await conversations.list_conversations("me", 9) == []
        if lost == "completed":
            assert await completed_result(store) == "resp_1"


async def test_only_one_of_a_slow_request_and_its_retry_is_stored(store_in: Opener) -> None:
    clock = ManualClock()
    async with store_in(clock) as store:
        reservation = store.stores.idempotency.reserve
        slow, repeat = reserving_turn(), reserving_turn()
        assert await reservation("me", "key", b"print") is None
        clock.now += RESERVATION_TIMEOUT
        assert await reservation("me", "key", b"print") is None
        await store.begin(slow)
        with pytest.raises(ConflictError):
            await store.begin(repeat)
        # A release after that changes nothing.
        await store.stores.idempotency.release("me", "key")
        assert await completed_result(store) == slow.response_id


@pytest.mark.parametrize("table", ["idempotency_records", "responses", "conversations"])
async def test_failed_write_stores_neither_result_nor_record(tmp_path: Path, table: str) -> None:
    path = tmp_path / "turns.db"
    when = "UPDATE" if table == "idempotency_records" else "INSERT"
    trigger = f"CREATE TRIGGER broken BEFORE {when} ON {table} BEGIN SELECT RAISE(ABORT, 'x'); END"
    async with opener("sqlite", tmp_path)(ManualClock(1_800_000_000.0)) as store:
        await store.stores.idempotency.reserve("me", "key", b"print")
        with sqlite3.connect(path) as connection:
            connection.execute(trigger)
        connection.close()
        new_conversation = ConversationRecord(new_conversation_id(), 1_800_000_000.0)
        turn = reserving_turn(new_conversation=new_conversation)
        with pytest.raises(StoreError):
            await store.begin(turn)
        assert await store.turn("me", turn.response_id) is None
        assert await store.stores.conversations.get("me", new_conversation.id) is None
        record = await store.stores.idempotency.reserve("me", "key", b"print")
        assert record == IdempotencyRecord(b"print", 1_800_000_000.0, None)
    assert query_file(path, "SELECT count(*) FROM responses") == [(0,)]
