"""Idempotency records in every store: one per key and tenant, for a day."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.core.retention import DAY_SECONDS
from antiphon.stores.memory.idempotency import MemoryIdempotencyStore
from antiphon.stores.memory.store import MemoryStore
from antiphon.turn.store_protocols import IdempotencyRecord
from support.example_counts import examples
from support.side_stores import CHILD_PROGRAM, all_bytes, query_file
from support.store_turns import ManualClock, Opener, opener, run, sqlite


async def test_first_reservation_of_a_key_wins(store_in: Opener) -> None:
    clock = ManualClock(100.0)
    async with store_in(clock) as store:
        idempotency_records = store.stores.idempotency
        assert await idempotency_records.reserve("me", "key", b"first") is None
        clock.now = 101.0
        assert await idempotency_records.reserve("me", "key", b"other") == IdempotencyRecord(
            b"first", 100.0
        )
        await idempotency_records.complete("me", "key", "resp_1")
        record = IdempotencyRecord(b"first", 100.0, "resp_1")
        assert await idempotency_records.reserve("me", "key", b"first") == record


async def test_keys_are_separate_per_tenant(store_in: Opener) -> None:
    async with store_in() as store:
        idempotency_records = store.stores.idempotency
        for tenant, key in [("me", "key"), ("them", "key"), ("me", "Key"), ("m", "ekey")]:
            assert await idempotency_records.reserve(tenant, key, b"p") is None
        await idempotency_records.complete("them", "key", "resp_1")
        mine = await idempotency_records.reserve("me", "key", b"p")
        assert mine is not None
        assert mine.result_id is None


async def test_released_key_can_be_reserved_again(store_in: Opener) -> None:
    async with store_in() as store:
        idempotency_records = store.stores.idempotency
        await idempotency_records.release("me", "key")
        await idempotency_records.reserve("me", "key", b"first")
        await idempotency_records.release("me", "key")
        # Too late: there is no reservation to complete.
        await idempotency_records.complete("me", "key", "resp_1")
        assert await idempotency_records.reserve("me", "key", b"second") is None
        record = await idempotency_records.reserve("me", "key", b"second")
        assert record is not None
        assert (record.fingerprint, record.result_id) == (b"second", None)
        # A completed record cannot be released.
        await idempotency_records.complete("me", "key", "resp_2")
        await idempotency_records.release("me", "key")
        record = await idempotency_records.reserve("me", "key", b"second")
        assert record is not None
        assert record.result_id == "resp_2"


async def test_any_text_can_be_a_key(store_in: Opener) -> None:
    async with store_in() as store:
        idempotency_records = store.stores.idempotency
        for key in ("", " ", "'; --", "\0", "ключ", "\ud800", "k" * 100_000):
            assert await idempotency_records.reserve("", key, b"p") is None
            assert await idempotency_records.reserve("", key, b"p") is not None


async def test_completed_record_expires_after_a_day(store_in: Opener) -> None:
    clock = ManualClock(1_000_000.0)
    async with store_in(clock) as store:
        idempotency_records = store.stores.idempotency
        await idempotency_records.reserve("", "key", b"p")
        await idempotency_records.complete("", "key", "resp_1")
        clock.now += DAY_SECONDS - 1
        assert await idempotency_records.reserve("", "key", b"p") is not None
        clock.now += 1
        assert await idempotency_records.reserve("", "key", b"p") is None
        record = await idempotency_records.reserve("", "key", b"p")
        assert record == IdempotencyRecord(b"p", clock.now)


async def test_incomplete_reservation_expires_after_a_minute(store_in: Opener) -> None:
    clock = ManualClock(1_000_000.0)
    async with store_in(clock) as store:
        reserve = store.stores.idempotency.reserve
        await reserve("", "key", b"p")
        await reserve("", "another", b"p")
        clock.now += 59
        assert await reserve("", "key", b"p") == IdempotencyRecord(b"p", 1_000_000.0)
        clock.now += 1
        # Of two concurrent reservations, one succeeds.
        found = await asyncio.gather(reserve("", "key", b"q"), reserve("", "key", b"r"))
        assert list(found) == [None, IdempotencyRecord(b"q", clock.now)]


async def test_expired_records_are_deleted_and_keys_are_in_no_file(tmp_path: Path) -> None:
    clock = ManualClock(1_000_000.0)
    async with opener("sqlite", tmp_path)(clock) as store:
        idempotency_records = store.stores.idempotency
        for number in range(20):
            await idempotency_records.reserve("", f"canary {number}", b"p")
        clock.now += DAY_SECONDS
        await idempotency_records.reserve("", "another", b"p")
        assert query_file(tmp_path / "turns.db", "SELECT count(*) FROM idempotency_records") == [
            (1,)
        ]
        assert b"canary" not in all_bytes(tmp_path)


async def test_old_records_in_memory_go_a_few_at_a_time() -> None:
    clock = ManualClock(1_000_000.0)
    idempotency_records = MemoryIdempotencyStore(clock)
    for number in range(20):
        assert await idempotency_records.reserve("", f"old {number}", b"p") is None
    clock.now += DAY_SECONDS
    for number in range(5):
        assert await idempotency_records.reserve("", f"new {number}", b"p") is None
    assert len(idempotency_records._records) == 15
    # One that is still there is as good as gone.
    assert await idempotency_records.reserve("", "old 19", b"q") is None
    for number in range(5, 10):
        assert await idempotency_records.reserve("", f"new {number}", b"p") is None
    assert len(idempotency_records._records) == 11


async def test_concurrent_reservations_have_one_winner(store_in: Opener) -> None:
    async with store_in() as store:
        reserve = store.stores.idempotency.reserve
        fingerprints = [bytes([number]) for number in range(20)]
        first, *others = await asyncio.gather(*[reserve("", "key", one) for one in fingerprints])
        assert first is None
        assert [one and one.fingerprint for one in others] == [b"\0"] * 19


def test_two_processes_never_reserve_the_same_key(tmp_path: Path) -> None:
    path = tmp_path / "turns.db"
    command = [*CHILD_PROGRAM, "claim", str(path), "150"]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    reserved = [child.communicate()[0].split() for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert sorted(reserved[0] + reserved[1], key=int) == [str(number) for number in range(150)]


_KEYS = st.sampled_from(["a", "b"])
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("claim"), _KEYS, st.binary(max_size=2)),
        st.tuples(st.just("settle"), _KEYS, st.sampled_from(["resp_1", "resp_2"])),
        st.tuples(st.just("drop"), _KEYS, st.none()),
        st.tuples(
            st.just("wait"), st.none(), st.sampled_from([1.0, 60.0, DAY_SECONDS / 2, DAY_SECONDS])
        ),
    ),
    max_size=15,
)


@settings(max_examples=examples(25), deadline=None)
@given(_STEPS)
def test_sqlite_and_memory_agree_with_the_model(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, object]]
) -> None:
    async def main() -> None:
        clock = ManualClock(1_000_000.0)
        model: dict[str, IdempotencyRecord] = {}
        memory = MemoryStore(clock=clock)
        async with opener("sqlite", tmp_path_factory.mktemp("idempotency_records"))(clock) as file:
            for step, key, value in steps:
                if step == "wait":
                    assert isinstance(value, float)
                    clock.now += value
                    model = {
                        k: r for k, r in model.items() if r.created_at > clock.now - DAY_SECONDS
                    }
                elif step == "claim":
                    assert isinstance(value, bytes)
                    expected = model.get(key)
                    if expected and expected.result_id is None:
                        # Its reservation has timed out.
                        expected = expected if expected.created_at > clock.now - 60 else None
                    model[key] = expected or IdempotencyRecord(value, clock.now)
                    for store in (file, memory):
                        assert await store.stores.idempotency.reserve("", key, value) == expected
                elif step == "settle":
                    if (record := model.get(key)) is not None:
                        model[key] = IdempotencyRecord(
                            record.fingerprint, record.created_at, str(value)
                        )
                    for store in (file, memory):
                        await store.stores.idempotency.complete("", key, str(value))
                else:
                    if (record := model.get(key)) is not None and record.result_id is None:
                        del model[key]
                    for store in (file, memory):
                        await store.stores.idempotency.release("", key)
        await memory.close()

    run(main())


async def test_records_persist_after_reopening(tmp_path: Path) -> None:
    async with sqlite(tmp_path / "turns.db") as store:
        await store.stores.idempotency.reserve("", "key", b"p")
        await store.stores.idempotency.complete("", "key", "resp_1")
    async with sqlite(tmp_path / "turns.db") as store:
        record = await store.stores.idempotency.reserve("", "key", b"p")
        assert record is not None
        assert record.result_id == "resp_1"
