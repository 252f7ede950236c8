"""Claims in every store: what a request made and its receipt are kept together, or neither is."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec
import pytest

from antiphon.core.ids import new_conversation_id
from antiphon.core.turns import ConversationRecord, Header, IdempotencyReservation
from antiphon.errors import ConflictError, StoreError
from antiphon.stores.sqlite.idempotency import RESERVATION_TIMEOUT
from antiphon.turn.store_protocols import IdempotencyRecord, NewTurn
from support.side_stores import AnyStore, ManualClock, Opener, openers, query_file
from support.store_turns import DONE, new_turn

CLAIM = IdempotencyReservation("key", b"print")


@pytest.fixture(params=["memory", "sqlite"])
def store_in(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    return openers(tmp_path)[request.param]


def claiming(
    claim: IdempotencyReservation = CLAIM, founded: ConversationRecord | None = None
) -> NewTurn:
    header = Header("m", conversation=founded.id if founded else None)
    turn = new_turn("Hi.", tenant="me", header=header)
    return msgspec.structs.replace(
        turn, reservation=claim, conversation=founded, creates_conversation=founded is not None
    )


async def outcome(store: AnyStore, claim: IdempotencyReservation = CLAIM) -> str | None:
    """What a receipt that there is says."""
    held = await store.stores.idempotency.reserve("me", claim.key, claim.fingerprint)
    assert held is not None
    return held.result_id


async def test_what_is_made_settles_its_receipt(store_in: Opener) -> None:
    async with store_in() as store:
        ledgers = store.stores
        await ledgers.idempotency.reserve("me", "key", b"print")
        turn = claiming()
        await store.begin(turn)
        assert await outcome(store) == turn.response_id

        other = IdempotencyReservation("other", b"print")
        await ledgers.idempotency.reserve("me", "other", b"print")
        made = await ledgers.conversations.create("me", {}, other)
        assert await outcome(store, other) == made.id


async def test_a_conversation_is_founded_with_its_first_turn(store_in: Opener) -> None:
    async with store_in() as store:
        founded = ConversationRecord(new_conversation_id(), 1_800_000_000.0, {"topic": "x"})
        await store.stores.idempotency.reserve("me", "key", b"print")
        turn = claiming(founded=founded)
        store.begin(turn)
        await store.write(turn.response_id, [], DONE)
        found = await store.stores.conversations.get("me", founded.id)
        assert found == msgspec.structs.replace(founded, head=turn.response_id)
        assert await store.stores.conversations.get("", founded.id) is None
        assert await outcome(store) == founded.id


@pytest.mark.parametrize("lost", ["dropped", "settled", "another's", "never"])
async def test_without_its_receipt_nothing_is_kept(store_in: Opener, lost: str) -> None:
    async with store_in() as store:
        idempotency_records, conversations = store.stores.idempotency, store.stores.conversations
        if lost != "never":
            await idempotency_records.reserve(
                "me", "key", b"other" if lost == "another's" else b"print"
            )
        if lost == "dropped":
            await idempotency_records.release("me", "key")
        elif lost == "settled":
            await idempotency_records.complete("me", "key", "resp_1")
        # Somebody else's receipt is none.
        await idempotency_records.reserve("them", "key", b"print")
        founded = ConversationRecord(new_conversation_id(), 1_800_000_000.0)
        for turn in (claiming(), claiming(founded=founded)):
            with pytest.raises(ConflictError) as late:
                await store.begin(turn)
            assert late.value.code == "idempotency_key_in_progress"
            assert await store.turn("me", turn.response_id) is None
        with pytest.raises(ConflictError):
            await conversations.create("me", {}, CLAIM)
        assert await conversations.list_conversations("me", 9) == []
        if lost == "settled":
            assert await outcome(store) == "resp_1"


async def test_of_one_that_was_too_slow_and_its_repeat_only_one_is_kept(store_in: Opener) -> None:
    clock = ManualClock()
    async with store_in(clock) as store:
        claim = store.stores.idempotency.reserve
        slow, repeat = claiming(), claiming()
        assert await claim("me", "key", b"print") is None
        clock.now += RESERVATION_TIMEOUT
        assert await claim("me", "key", b"print") is None
        await store.begin(slow)
        with pytest.raises(ConflictError):
            await store.begin(repeat)
        # Whoever gives up after that takes nothing away.
        await store.stores.idempotency.release("me", "key")
        assert await outcome(store) == slow.response_id


@pytest.mark.parametrize("table", ["idempotency_records", "responses", "conversations"])
async def test_a_write_that_fails_leaves_neither(tmp_path: Path, table: str) -> None:
    path = tmp_path / "turns.db"
    when = "UPDATE" if table == "idempotency_records" else "INSERT"
    breaks = f"CREATE TRIGGER broken BEFORE {when} ON {table} BEGIN SELECT RAISE(ABORT, 'x'); END"
    async with openers(tmp_path)["sqlite"]() as store:
        await store.stores.idempotency.reserve("me", "key", b"print")
        with sqlite3.connect(path) as connection:
            connection.execute(breaks)
        connection.close()
        founded = ConversationRecord(new_conversation_id(), 1_800_000_000.0)
        turn = claiming(founded=founded)
        with pytest.raises(StoreError):
            await store.begin(turn)
        assert await store.turn("me", turn.response_id) is None
        assert await store.stores.conversations.get("me", founded.id) is None
        held = await store.stores.idempotency.reserve("me", "key", b"print")
        assert held == IdempotencyRecord(b"print", 1_800_000_000.0, None)
    assert query_file(path, "SELECT count(*) FROM responses") == [(0,)]
