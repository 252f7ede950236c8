"""Receipts in every store: one for a key and a tenant, for a day."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.core.retention import DAY_SECONDS
from antiphon.stores.memory.store import MemoryStore
from antiphon.turn.store_protocols import IdempotencyRecord
from support.side_stores import CHILD_PROGRAM, ManualClock, Opener, all_bytes, openers, query_file
from support.store_turns import run, sqlite


@pytest.fixture(params=["memory", "sqlite"])
def store_in(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    return openers(tmp_path)[request.param]


async def test_the_first_claim_counts(store_in: Opener) -> None:
    clock = ManualClock(100.0)
    async with store_in(clock) as store:
        idempotency_records = store.stores.idempotency
        assert await idempotency_records.reserve("me", "key", b"first") is None
        clock.now = 101.0
        assert await idempotency_records.reserve("me", "key", b"other") == IdempotencyRecord(
            b"first", 100.0
        )
        await idempotency_records.complete("me", "key", "resp_1")
        kept = IdempotencyRecord(b"first", 100.0, "resp_1")
        assert await idempotency_records.reserve("me", "key", b"first") == kept


async def test_keys_of_others_are_others(store_in: Opener) -> None:
    async with store_in() as store:
        idempotency_records = store.stores.idempotency
        for tenant, key in [("me", "key"), ("them", "key"), ("me", "Key"), ("m", "ekey")]:
            assert await idempotency_records.reserve(tenant, key, b"p") is None
        await idempotency_records.complete("them", "key", "resp_1")
        mine = await idempotency_records.reserve("me", "key", b"p")
        assert mine is not None
        assert mine.result_id is None


async def test_a_dropped_key_may_be_used_again(store_in: Opener) -> None:
    async with store_in() as store:
        idempotency_records = store.stores.idempotency
        await idempotency_records.release("me", "key")
        await idempotency_records.reserve("me", "key", b"first")
        await idempotency_records.release("me", "key")
        # Too late: there is nothing to settle.
        await idempotency_records.complete("me", "key", "resp_1")
        assert await idempotency_records.reserve("me", "key", b"second") is None
        kept = await idempotency_records.reserve("me", "key", b"second")
        assert kept is not None
        assert (kept.fingerprint, kept.result_id) == (b"second", None)
        # What was settled is no one's to drop.
        await idempotency_records.complete("me", "key", "resp_2")
        await idempotency_records.release("me", "key")
        kept = await idempotency_records.reserve("me", "key", b"second")
        assert kept is not None
        assert kept.result_id == "resp_2"


async def test_any_text_is_a_key(store_in: Opener) -> None:
    async with store_in() as store:
        idempotency_records = store.stores.idempotency
        for key in ("", " ", "'; --", "\0", "ключ", "\ud800", "k" * 100_000):
            assert await idempotency_records.reserve("", key, b"p") is None
            assert await idempotency_records.reserve("", key, b"p") is not None


async def test_a_receipt_lives_for_a_day(store_in: Opener) -> None:
    clock = ManualClock(1_000_000.0)
    async with store_in(clock) as store:
        idempotency_records = store.stores.idempotency
        await idempotency_records.reserve("", "key", b"p")
        await idempotency_records.complete("", "key", "resp_1")
        clock.now += DAY_SECONDS - 1
        assert await idempotency_records.reserve("", "key", b"p") is not None
        clock.now += 1
        assert await idempotency_records.reserve("", "key", b"p") is None
        kept = await idempotency_records.reserve("", "key", b"p")
        assert kept == IdempotencyRecord(b"p", clock.now)


async def test_a_receipt_that_says_nothing_lives_for_a_minute(store_in: Opener) -> None:
    clock = ManualClock(1_000_000.0)
    async with store_in(clock) as store:
        claim = store.stores.idempotency.reserve
        await claim("", "key", b"p")
        await claim("", "another", b"p")
        clock.now += 59
        assert await claim("", "key", b"p") == IdempotencyRecord(b"p", 1_000_000.0)
        clock.now += 1
        # Of two who find it, one gets it.
        found = await asyncio.gather(claim("", "key", b"q"), claim("", "key", b"r"))
        assert list(found) == [None, IdempotencyRecord(b"q", clock.now)]


async def test_old_receipts_are_swept_and_keys_are_in_no_file(tmp_path: Path) -> None:
    clock = ManualClock(1_000_000.0)
    async with openers(tmp_path)["sqlite"](clock) as store:
        idempotency_records = store.stores.idempotency
        for number in range(20):
            await idempotency_records.reserve("", f"canary {number}", b"p")
        clock.now += DAY_SECONDS
        await idempotency_records.reserve("", "another", b"p")
        assert query_file(tmp_path / "turns.db", "SELECT count(*) FROM idempotency_records") == [
            (1,)
        ]
        assert b"canary" not in all_bytes(tmp_path)


async def test_many_claims_at_once_have_one_winner(store_in: Opener) -> None:
    async with store_in() as store:
        claim = store.stores.idempotency.reserve
        prints = [bytes([number]) for number in range(20)]
        first, *others = await asyncio.gather(*[claim("", "key", one) for one in prints])
        assert first is None
        assert [one and one.fingerprint for one in others] == [b"\0"] * 19


def test_two_processes_never_both_win(tmp_path: Path) -> None:
    path = tmp_path / "turns.db"
    command = [*CHILD_PROGRAM, "claim", str(path), "150"]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    won = [child.communicate()[0].split() for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert sorted(won[0] + won[1], key=int) == [str(number) for number in range(150)]


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


@settings(max_examples=40, deadline=None)
@given(_STEPS)
def test_the_file_does_what_memory_does(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, object]]
) -> None:
    async def main() -> None:
        clock = ManualClock(1_000_000.0)
        model: dict[str, IdempotencyRecord] = {}
        memory = MemoryStore(clock=clock)
        async with openers(tmp_path_factory.mktemp("idempotency_records"))["sqlite"](clock) as file:
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
                        # Whoever wrote it has died by now.
                        expected = expected if expected.created_at > clock.now - 60 else None
                    model[key] = expected or IdempotencyRecord(value, clock.now)
                    for store in (file, memory):
                        assert await store.stores.idempotency.reserve("", key, value) == expected
                elif step == "settle":
                    if (kept := model.get(key)) is not None:
                        model[key] = IdempotencyRecord(
                            kept.fingerprint, kept.created_at, str(value)
                        )
                    for store in (file, memory):
                        await store.stores.idempotency.complete("", key, str(value))
                else:
                    if (kept := model.get(key)) is not None and kept.result_id is None:
                        del model[key]
                    for store in (file, memory):
                        await store.stores.idempotency.release("", key)
        await memory.close()

    run(main())


async def test_receipts_outlive_the_store(tmp_path: Path) -> None:
    async with sqlite(tmp_path / "turns.db") as store:
        await store.stores.idempotency.reserve("", "key", b"p")
        await store.stores.idempotency.complete("", "key", "resp_1")
    async with sqlite(tmp_path / "turns.db") as store:
        kept = await store.stores.idempotency.reserve("", "key", b"p")
        assert kept is not None
        assert kept.result_id == "resp_1"
