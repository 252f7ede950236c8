"""Copies of stores, from SQLite to PostgreSQL and back: the same for every reader."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from antiphon.bootstrap import open_copy_store
from antiphon.errors import ConfigError, StoreError
from antiphon.transfer import store_copy
from support.copied_stores import IMPORTED, copy, end_running, fill, look_at, opened
from support.postgres_database import empty_database
from support.store_turns import complete_turn, head_of

StoreNames = Callable[[], tuple[str, str]]


@pytest.fixture(params=["sqlite-sqlite", "sqlite-postgres", "postgres-sqlite"])
def names(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """The names of a store to copy, and of one to copy to."""
    kinds = request.param.split("-")
    return tuple(  # type: ignore[return-value]
        empty_database(tmp_path) if kind == "postgres" else f"sqlite:{tmp_path / name}.db"
        for name, kind in zip(("one", "other"), kinds, strict=True)
    )


async def test_a_copy_is_the_same_for_every_reader(names: tuple[str, str]) -> None:
    async with opened(names[0]) as store:
        filled = await fill(store)
        report = await copy(*names)
        assert report.changing == 0
        assert report.rows["api_keys"] == 2
        # A turn that runs is copied by the next run.
        await end_running(store, filled.running, "completed")
        filled.responses.append(filled.running)
        expected = await look_at(store, filled)
    again = await copy(*names)
    assert (again.rewritten, again.changing) == (1, 0)
    assert again.digest != report.digest
    assert await copy(*names) == report_without_changes(again)
    async with opened(names[1]) as store:
        assert await look_at(store, filled) == expected
        # What was there goes on, and goes for good.
        head = await head_of(store, filled.responses[5])
        assert len(await store.chain(await complete_turn(store, "on", "and on", head))) == 5
        assert (await store.stores.chat_transfer.import_chat(IMPORTED)).added == 0
        assert await store.delete("", filled.responses[0], cascade=True)
        assert await store.head("", filled.responses[3]) is None


def report_without_changes(report: store_copy.CopyReport) -> store_copy.CopyReport:
    return store_copy.CopyReport(report.families, report.turns, report.rows, report.digest)


@pytest.mark.slow
async def test_a_copy_that_was_killed_goes_on(names: tuple[str, str], tmp_path: Path) -> None:
    async with opened(names[0]) as store:
        filled = await fill(store)
        await end_running(store, filled.running, "failed")
        expected = await look_at(store, filled)
    done = tmp_path / "done"
    for steps in (1, 2, 2):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "support.copied_stores", *names, str(steps), str(done)),
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )
        assert await process.wait() == -signal.SIGKILL
    assert not done.exists()
    report = await copy(*names)
    assert report.changing == 0
    async with opened(names[1]) as store:
        assert await look_at(store, filled) == expected


@pytest.mark.slow
async def test_what_was_erased_after_a_copy_is_erased_by_the_next(names: tuple[str, str]) -> None:
    async with opened(names[0]) as store:
        filled = await fill(store)
        await end_running(store, filled.running, "completed")
        await copy(*names)
        await store.stores.chats.delete("", filled.responses[0])
        await store.stores.conversations.delete("", filled.conversation)
        await store.delete("acme", filled.responses[-2])
        expected = await look_at(store, filled)
    await copy(*names)
    async with opened(names[1]) as store:
        assert await look_at(store, filled) == expected
        assert await store.stores.search.search("", "forked", 9) == []


async def test_a_store_in_use_is_not_overwritten(names: tuple[str, str]) -> None:
    async with opened(names[0]) as store:
        await complete_turn(store, "mine")
    async with opened(names[1]) as store:
        head = await complete_turn(store, "of its own")
    with pytest.raises(ConfigError, match="of its own: name an empty one"):
        await copy(*names)
    async with opened(names[1]) as store:
        assert await store.head("", head.response_id) is not None


async def test_a_copy_that_is_in_use_is_written_no_more(names: tuple[str, str]) -> None:
    async with opened(names[0]) as store:
        await complete_turn(store, "mine")
    await copy(*names)
    async with open_copy_store(names[1]) as one:
        await one.end_copy()
    with pytest.raises((ConfigError, StoreError)):
        await copy(*names)
