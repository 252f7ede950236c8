"""Windows of a chain: the same in every store, at a cost independent of the chain's length."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from antiphon.stores.sqlite.reader import read_window
from antiphon.turn.store_protocols import Head, Window
from support.store_turns import (
    STORES,
    Opener,
    StoreWithStores,
    complete_turn,
    complete_turns,
    head_of,
    ids,
    opener,
    sqlite,
)


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    return opener(request.param, tmp_path)


async def check_windows(store: StoreWithStores, head: Head, others: list[str]) -> None:
    """Checks that every window is a slice of the whole chain."""
    chain = await store.chain(head)
    for newest_first in (True, False):
        ordered = chain[::-1] if newest_first else chain
        for begin in [None, *range(len(ordered))]:
            at = None if begin is None else ordered[begin].response_id
            for limit in (0, 1, 2, 5, 100):
                found = await store.window(head, Window(limit, at, newest_first))
                assert found == ordered[begin or 0 :][:limit]
        for at in others:
            assert await store.window(head, Window(9, at, newest_first)) == []


async def test_window_of_a_chain_with_branches(store: Opener) -> None:
    async with store() as opened:
        trunk = await complete_turns(opened, 4)
        branch = await complete_turns(opened, 3, parent=trunk[1])
        nested_branch = await complete_turns(opened, 2, parent=branch[0])
        aside = await complete_turn(opened)
        theirs = await complete_turn(opened, tenant="other")
        unrelated = ["", "conv_1", aside.response_id, theirs.response_id]
        await check_windows(opened, trunk[-1], [*unrelated, *ids(branch)])
        await check_windows(
            opened, branch[-1], [*unrelated, *ids(nested_branch), trunk[2].response_id]
        )
        await check_windows(opened, nested_branch[-1], [*unrelated, *ids(branch[1:])])
        # A window up to an earlier turn has no later turns.
        await check_windows(opened, trunk[2], [*unrelated, trunk[3].response_id])
        chain = await opened.window(nested_branch[-1], Window(100, newest_first=False))
        parts = (*trunk[:2], *branch[:1], *nested_branch)
        assert [turn.response_id for turn in chain] == ids(parts)


async def test_window_of_a_chain_with_deleted_turns(store: Opener) -> None:
    async with store() as opened:
        heads = await complete_turns(opened, 9, parent=(await complete_turns(opened, 3))[1])
        deleted = random.Random(1).sample(ids(heads[:-1]), 4)
        for name in deleted:
            await opened.delete("", name)
        await check_windows(opened, await head_of(opened, heads[-1].response_id), deleted)


async def test_window_of_another_tenants_head_is_empty(store: Opener) -> None:
    async with store() as opened:
        head = msgspec.structs.replace(await complete_turn(opened), tenant="other")
        assert await opened.window(head, Window(9)) == []


def steps_of(path: Path, head: Head, window: Window) -> int:
    """The number of SQLite instructions that a window takes."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.set_progress_handler(count, 1)
        turns, _ = read_window(connection, head, window)
        assert len(turns) == window.limit
    return steps


@pytest.mark.parametrize("newest_first", [True, False])
async def test_window_cost_does_not_depend_on_chain_length(
    tmp_path: Path, newest_first: bool
) -> None:
    path = tmp_path / "a.db"
    async with sqlite(path) as opened:
        short, long = await complete_turns(opened, 10), await complete_turns(opened, 200)
        for begin in (None, 5):
            cost = [
                steps_of(
                    path,
                    heads[-1],
                    Window(3, None if begin is None else ids(heads)[begin], newest_first),
                )
                for heads in (short, long)
            ]
            assert cost[1] < 1.2 * cost[0]
