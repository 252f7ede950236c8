"""Store health: write checks, refused writes, and damaged files."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from antiphon.core.images import restore_blobs
from antiphon.core.items import decode_item
from antiphon.errors import AntiphonError, StoreError
from antiphon.stores.health import Health
from antiphon.stores.memory.store import MemoryStore
from antiphon.stores.sqlite.errors import read_error, store_error
from antiphon.stores.sqlite.store import RecentTurns, SqliteStore
from support.http_server import ServerProcess
from support.store_turns import ManualClock, complete_turn, complete_turns, new_turn, run, sqlite

resource = pytest.importorskip("resource")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "turns.db"


async def test_memory_store_is_always_writable() -> None:
    health = MemoryStore().stores.health
    await health.check_writable()
    assert health.refusals == 0


async def test_check_writable_fails_while_the_file_is_full(path: Path) -> None:
    async with sqlite(path) as store:
        health, clock = store.stores.health, ManualClock()
        store._database._health._clock = clock
        await health.check_writable()
        connection = store._database._connections.write_connection
        pages = connection.execute("PRAGMA page_count").fetchall()[0][0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
        clock.now += 60.0
        # Pages that the first check freed can be used.
        for number in range(20):
            large = store.begin(new_turn(f"{number}" * 2000))
            await asyncio.gather(large, return_exceptions=True)
        assert health.refusals > 0
        refusals = health.refusals
        for _ in range(100):
            with pytest.raises(StoreError, match="full"):
                await health.check_writable()
        assert health.refusals == refusals, "concurrent checks share one result"
        clock.now += 60.0
        with pytest.raises(StoreError, match="full"):
            await health.check_writable()
        connection.execute("PRAGMA max_page_count = 100000")
        clock.now += 60.0
        await health.check_writable()


async def test_check_writable_does_not_write_after_recent_writes(path: Path) -> None:
    async with sqlite(path) as store:
        await complete_turn(store)
        before = store._database._connections.write_connection.total_changes
        for _ in range(10):
            await store.stores.health.check_writable()
        assert store._database._connections.write_connection.total_changes == before


async def test_write_checks_leave_no_rows(path: Path) -> None:
    async with sqlite(path) as store:
        clock = ManualClock()
        store._database._health._clock = clock
        connection = store._database._connections.read_connection

        async def pages_after_check() -> int:
            clock.now += 60.0
            await asyncio.gather(*[store.stores.health.check_writable() for _ in range(9)])
            ((pages,),) = connection.execute("PRAGMA page_count").fetchall()
            return int(pages)

        assert len({await pages_after_check() for _ in range(5)}) == 1
        assert connection.execute("SELECT count(*) FROM blobs").fetchall() == [(0,)]


def test_refused_writes_are_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    clock = ManualClock()
    health = Health((sqlite3.Error,), clock)
    refusal = store_error(sqlite3.OperationalError("No."))
    for _ in range(100):
        assert health.refuse_write(refusal) is refusal
    assert len(caplog.records) == 1
    clock.now += 61.0
    health.refuse_write(refusal)
    health.refuse_read(read_error(ValueError("odd")))
    assert len(caplog.records) == 3
    assert caplog.records[-1].exc_info
    health.note_written()
    health.note_written()
    assert len(caplog.records) == 4
    assert "again, after 101 refusals" in caplog.text
    assert (health.refusals, health.write_error) == (102, None)


def test_server_with_a_full_disk_is_not_ready(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        assert server.get("/readyz").status == 200
        assert server.respond("before").status == 200
        limit = resource.RLIMIT_FSIZE
        _, hard = resource.prlimit(server.process.pid, limit)
        log = server.database.with_name("antiphon.db-wal")
        resource.prlimit(server.process.pid, limit, (log.stat().st_size, hard))
        assert server.respond("x" * 100_000).status == 503
        refused = server.get("/readyz")
        assert (refused.status, refused.error["code"]) == (503, "store_unavailable")
        assert "disk" in refused.error["message"]
        page = server.get("/metrics").body.decode()
        (line,) = [line for line in page.splitlines() if line.startswith("antiphon_store_errors_")]
        assert float(line.split()[1]) >= 1
        resource.prlimit(server.process.pid, limit, (hard, hard))
        assert server.respond("after").status == 200
        assert server.get("/readyz").status == 200
    logged = (tmp_path / "server.log").read_text()
    assert logged.count("the store refused a write") == 1
    assert "the store writes again" in logged


#: Values that damage may have put in a column.
_DAMAGED: list[object] = [b"", b"\xff", b"\x00" * 16, b"{", "text", 7, -1.5, b"\x80" * 100]


async def read_all(store: SqliteStore, ids: list[str], conversation_id: str) -> list[AntiphonError]:
    """Reads everything in every way; returns the errors."""
    stores = store.stores
    reads = [
        *[store.turn("", one) for one in ids],
        *[store.head("", one) for one in ids],
        stores.chats.list_chats("", 10),
        stores.response_index.list_responses("", 10),
        stores.response_index.list_responses("", 10, after=ids[0]),
        stores.conversations.get("", conversation_id),
        stores.conversations.list_conversations("", 10),
        stores.api_keys.list_keys(),
        stores.api_keys.has_keys(),
        stores.search.search("", "question", 10),
        stores.conversations.erase_item("", ids[-1], 0),
        _read_chain(store, ids[-1]),
    ]
    results = await asyncio.gather(*reads, return_exceptions=True)
    failures = [result for result in results if isinstance(result, BaseException)]
    for failure in failures:
        if not isinstance(failure, AntiphonError):
            raise failure
    return [failure for failure in failures if isinstance(failure, AntiphonError)]


async def _read_chain(store: SqliteStore, response_id: str) -> None:
    """Reads the chain as a turn that continues it does."""
    head = await store.head("", response_id)
    for turn in await store.chain(head) if head else ():
        for item in (*turn.input, *turn.output):
            restore_blobs(decode_item(item), turn.blobs)


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("log", "kind"),
        ("log", "key"),
        ("log", "text"),
        ("texts", "body"),
        ("threads", "tree"),
        ("threads", "parent"),
        ("epochs", "epoch"),
        ("responses", "row_id"),
        ("responses", "created_at"),
        ("running", "owner"),
        ("blobs", "hash"),
        ("blobs", "data"),
        ("conversations", "created_at"),
        ("conversations", "head"),
        ("conversations", "active"),
        ("conversations", "metadata"),
        ("search_secrets", "secret"),
        ("search_segments", "row_ids"),
        ("search_segments", "turn_entries"),
        ("search_segments", "bucket_count"),
        ("search_buckets", "body"),
        ("search_pending", "revision"),
        ("changes", "deferred"),
    ],
)
def test_damaged_row_raises_only_antiphon_errors(path: Path, table: str, column: str) -> None:
    async def fill() -> tuple[list[str], str]:
        async with sqlite(path) as store:
            heads = await complete_turns(store, 3)
            heads.append(await complete_turn(store, parent=heads[0], images=[b"image"]))
            conversation = await store.stores.conversations.create("", {"a": "b"})
            new = msgspec.structs.replace(
                new_turn("question", parent=heads[1]), conversation=conversation
            )
            await store.begin(new)
            await store.stores.search.search("", "question", 10)
            ids = [*[head.response_id for head in heads], new.response_id]
            assert await read_all(store, ids, conversation.id) == []
            return ids, conversation.id

    async def read(damaged: Path) -> None:
        async with sqlite(damaged) as store:
            await read_all(store, ids, conversation_id)

    ids, conversation_id = run(fill())
    for number, value in enumerate(_DAMAGED):
        damaged = path.with_name(f"damaged{number}.db")
        shutil.copy(path, damaged)
        if damage(damaged, table, column, value):
            run(read(damaged))


def damage(path: Path, table: str, column: str, value: object) -> bool:
    """Puts a value in a column of all rows, without triggers; False if a constraint forbids it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        query = "SELECT name FROM sqlite_schema WHERE type = 'trigger'"
        for (trigger,) in connection.execute(query).fetchall():
            connection.execute(f"DROP TRIGGER {trigger}")
        try:
            connection.execute(f"UPDATE {table} SET {column} = ?", (value,))
        except sqlite3.IntegrityError:
            return False
        return True


def test_recent_turns_without_an_end_expire() -> None:
    clock = ManualClock()
    turns = RecentTurns(clock)
    for name in "abcd":
        turns.note(name)
    clock.now += 50.0
    turns.note("a")
    turns.drop("b")
    turns.drop("b")
    turns.drop("never begun")
    assert turns.count() == 3
    clock.now += 50.0
    assert turns.count() == 1
    clock.now += 50.0
    assert turns.count() == 0


async def test_lone_turn_is_not_delayed_by_stale_turns(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antiphon.stores.sqlite.store._STALE_CHECK_SECONDS", 0.0)
    async with sqlite(path) as store:
        for _ in range(4):
            await store.begin(new_turn("Hi."))
        assert store._commit_delay() > 0.0
        monkeypatch.setattr("antiphon.stores.sqlite.store._STALE_SECONDS", -1.0)
        assert store._commit_delay() == 0.0
