"""Reservations of processes that die: free at once, and never before."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.core.turns import IdempotencyReservation
from antiphon.errors import ConflictError, StoreError
from antiphon.stores.idempotency_keys import RESERVATION_TIMEOUT
from antiphon.stores.postgres.store import open_postgres
from antiphon.turn.store_protocols import NewTurn
from support.postgres_database import empty_database, end_lease
from support.side_stores import CHILD_PROGRAM
from support.store_turns import ManualClock, StoreWithStores, new_turn, opener, run

KEY = "key"
PRINT = b"print"


def reserved_turn() -> NewTurn:
    turn = new_turn("Hi.", tenant="me")
    return msgspec.structs.replace(turn, reservation=IdempotencyReservation(KEY, PRINT))


@contextmanager
def holding_process(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has reserved the key."""
    command = [*CHILD_PROGRAM, "hold", str(path), KEY]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "None\n"
        yield child


async def test_reservation_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    async with opener("sqlite", tmp_path)(ManualClock(time.time())) as store:
        with holding_process(tmp_path / "turns.db") as child:
            for _ in range(3):
                held = await store.stores.idempotency.reserve("me", KEY, PRINT)
                assert held is not None
                assert held.result_id is None
            with pytest.raises(ConflictError):
                await store.begin(reserved_turn())
            child.kill()
            child.wait()
        assert await store.stores.idempotency.reserve("me", KEY, PRINT) is None
        await store.begin(reserved_turn())


async def test_process_whose_lease_is_over_has_lost_its_reservation(tmp_path: Path) -> None:
    uri = empty_database(tmp_path)
    async with AsyncExitStack() as stack:
        stores = [await open_postgres(uri) for _ in range(2)]
        for store in stores:
            stack.push_async_callback(store.close)
        stalled, other = stores
        idempotency = other.stores.idempotency
        assert await stalled.stores.idempotency.reserve("me", KEY, PRINT) is None
        assert await idempotency.reserve("me", KEY, PRINT) is not None
        await end_lease(stalled)
        assert await idempotency.reserve("me", KEY, PRINT) is None
        # It is alive after all, and late: it neither stores its turn nor frees the other's key.
        await stalled._database.lease.renew()
        with pytest.raises((ConflictError, StoreError)):
            await stalled.begin(reserved_turn())
        await stalled.stores.idempotency.release("me", KEY)
        assert await stalled.stores.idempotency.reserve("me", KEY, PRINT) is not None
        await other.begin(reserved_turn())


#: Two processes open and close the store, reserve the key, store a turn for it, and time passes.
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["open", "close", "reserve", "store", "release", "wait"]),
        st.integers(0, 1),
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_a_key_has_one_living_holder_and_one_turn(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    run(check_steps(tmp_path_factory.mktemp("holders"), steps))


async def check_steps(folder: Path, steps: list[tuple[str, int]]) -> None:
    clock = ManualClock()
    open_store = opener("sqlite", folder)
    stacks: dict[int, AsyncExitStack] = {}
    stores: dict[int, StoreWithStores] = {}
    #: Who has the key and since when; a process that is opened again is another one.
    holder: tuple[StoreWithStores, float] | None = None
    is_complete = False
    for step, number in steps:
        store = stores.get(number)
        if step == "open" and store is None:
            stacks[number] = AsyncExitStack()
            stores[number] = await stacks[number].enter_async_context(open_store(clock))
        elif step == "wait":
            clock.now += RESERVATION_TIMEOUT / 2
        elif store is None:
            continue
        elif step == "close":
            del stores[number]
            await stacks.pop(number).aclose()
        elif step == "reserve":
            is_free = not is_complete and (
                holder is None
                or holder[0] not in stores.values()
                or holder[1] <= clock.now - RESERVATION_TIMEOUT
            )
            record = await store.stores.idempotency.reserve("me", KEY, PRINT)
            assert (record is None) is is_free
            if is_free:
                holder = (store, clock.now)
        elif step == "release":
            await store.stores.idempotency.release("me", KEY)
            if holder is not None and holder[0] is store and not is_complete:
                holder = None
        elif holder is not None and holder[0] is store and not is_complete:
            await store.begin(reserved_turn())
            is_complete = True
        else:
            with pytest.raises(ConflictError):
                await store.begin(reserved_turn())
    for stack in stacks.values():
        await stack.aclose()
