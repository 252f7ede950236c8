"""Cursors of the feed: each names what it was read from, so that no change is missed silently."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.turn.feed_protocols import Change
from support.store_turns import STORES, StoreWithStores, complete_turn, opener, run, sqlite


async def changes_behind(
    store: StoreWithStores, cursor: str | None, response_id: str
) -> list[Change]:
    """What a reader is given until it has seen this turn end, or is told to read all anew."""
    reader = await store.stores.changes.subscribe("", cursor)
    found: list[Change] = []
    async with asyncio.timeout(30):
        async for batch in reader:
            found += batch
            if any(
                one.type == "feed.reset"
                or (one.type, one.response_id) == ("turn.ended", response_id)
                for one in batch
            ):
                break
    reader.close()
    return found


async def turns_with_cursor(store: StoreWithStores, count: int) -> str:
    """The cursor behind so many new turns."""
    reader = await store.stores.changes.subscribe("")
    names = [(await complete_turn(store)).response_id for _ in range(count)]
    async with asyncio.timeout(30):
        async for batch in reader:
            if any((one.type, one.response_id) == ("turn.ended", names[-1]) for one in batch):
                break
    reader.close()
    return reader.cursor


@pytest.mark.parametrize("kind", STORES)
async def test_a_cursor_of_another_store_is_answered_with_a_reset(
    kind: str, tmp_path: Path
) -> None:
    async with opener(kind, tmp_path / "one")() as store:
        cursor = await turns_with_cursor(store, 2)
    async with opener(kind, tmp_path / "other")() as store:
        own = await turns_with_cursor(store, 5)
        last = (await complete_turn(store)).response_id
        found = await changes_behind(store, cursor, last)
        assert found[0].type == "feed.reset"
        # From where it says, nothing is missing.
        assert [one.type for one in await changes_behind(store, own, last)] == [
            "turn.started",
            "turn.ended",
        ]
        number, seen, mark = own.split(".")
        other_mark = f"{number}.{seen}.{int(mark, 16) ^ 1:08x}"
        assert (await changes_behind(store, other_mark, last))[0].type == "feed.reset"


@pytest.mark.parametrize("kind", STORES)
async def test_feed_of_a_server_that_stops_ends_at_once_for_whoever_comes_only_now(
    kind: str, tmp_path: Path
) -> None:
    async with opener(kind, tmp_path)() as store:
        cursor = await turns_with_cursor(store, 1)
        await complete_turn(store)
        store.stores.changes.close_readers()
        late = await store.stores.changes.subscribe("", cursor)
        async with asyncio.timeout(30):
            assert [batch async for batch in late] == []
        # Another server is told where to go on.
        assert late.cursor == cursor


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 3), st.integers(1, 3), st.integers(0, 6))
def test_a_cursor_behind_an_older_copy_of_the_file_is_answered_with_a_reset(
    tmp_path_factory: pytest.TempPathFactory, before: int, lost: int, after: int
) -> None:
    folder = tmp_path_factory.mktemp("copies")
    path, copy = folder / "a.db", folder / "copy.db"

    async def check() -> None:
        async with sqlite(path) as store:
            kept = await turns_with_cursor(store, before) if before else None
        shutil.copy(path, copy)
        async with sqlite(path) as store:
            gone = await turns_with_cursor(store, lost)
        for file in folder.glob("a.db-*"):
            if file.is_file():
                file.unlink()
        shutil.copy(copy, path)
        async with sqlite(path) as store:
            names = [(await complete_turn(store)).response_id for _ in range(after + 1)]
            assert (await changes_behind(store, gone, names[-1]))[0].type == "feed.reset"
            if kept is not None:
                ended = [
                    one.response_id
                    for one in await changes_behind(store, kept, names[-1])
                    if one.type == "turn.ended"
                ]
                assert ended == names

    run(check())
