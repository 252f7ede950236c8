"""What the tests of the stores share: turns to keep, and short ways to keep them."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

import asyncpg

from antiphon.core.ids import new_response_id
from antiphon.core.images import Blob
from antiphon.core.items import InputImage, Message, encode_item
from antiphon.core.retention import RETAIN_FOREVER, Clock, RetentionPolicy
from antiphon.core.turns import DEFAULT_TENANT, End, Header, Options, Usage
from antiphon.stores.memory.store import MemoryStore
from antiphon.stores.postgres.store import open_postgres
from antiphon.stores.sqlite.store import SqliteStore, open_sqlite
from antiphon.turn.store_protocols import Head, NewTurn, Store, Stores
from support.postgres_database import empty_database

T = TypeVar("T")


class StoreWithStores(Store, Protocol):
    """A store with those beside it, as all of ours are."""

    stores: Stores


#: Opens one of ``STORES``, again where there is a file or a database; with a clock, and retention.
Opener: TypeAlias = Callable[..., AbstractAsyncContextManager[StoreWithStores]]
STORES = ["memory", "sqlite", "postgres"]

HEADER = Header("a-model", "Be brief.", Options(temperature=0.5))
DONE = End("completed", 1_700_000_100.25, Usage(12, 34))
_ticks = itertools.count(1_700_000_000)


def run(main: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(main)


def user(text: str) -> bytes:
    return encode_item(Message("user", text))


def assistant(text: str) -> bytes:
    return encode_item(Message("assistant", text))


def blob_of(data: bytes) -> Blob:
    return Blob(hashlib.sha256(data).hexdigest(), data)


def image_message(blob: Blob) -> bytes:
    """A message that shows it, as it is stored."""
    return encode_item(Message("user", (InputImage(f"blob:{blob.hash}"),)))


def blobs_of(*images: bytes) -> dict[str, bytes]:
    """What a stored turn with these images brings."""
    return {blob.hash: blob.data for blob in map(blob_of, images)}


def new_turn(
    *texts: str,
    parent: Head | None = None,
    tenant: str = DEFAULT_TENANT,
    header: Header = HEADER,
    response_id: str | None = None,
    created_at: float | None = None,
    images: Sequence[bytes] = (),
) -> NewTurn:
    blobs = [blob_of(data) for data in images]
    return NewTurn(
        response_id=response_id or new_response_id(),
        tenant=tenant,
        created_at=float(next(_ticks)) if created_at is None else created_at,
        header=header,
        input=[*map(user, texts), *map(image_message, blobs)],
        parent=parent,
        blobs=blobs,
    )


async def head_of(store: Store, response_id: str, tenant: str = DEFAULT_TENANT) -> Head:
    head = await store.head(tenant, response_id)
    assert head is not None
    return head


async def fresh(store: Store, head: Head | None) -> Head | None:
    """A head as it is now, where it is still there."""
    now = await store.head(head.tenant, head.response_id) if head else None
    return now or head


async def begin_turn(
    store: Store,
    text: str = "Hi.",
    parent: Head | None = None,
    tenant: str = DEFAULT_TENANT,
    *,
    images: Sequence[bytes] = (),
) -> Head:
    """A turn that is running."""
    turn = new_turn(text, parent=await fresh(store, parent), tenant=tenant, images=images)
    await store.begin(turn)
    return await head_of(store, turn.response_id, tenant)


async def complete_turn(
    store: Store,
    text: str = "Hi.",
    answer: str = "Hello.",
    parent: Head | None = None,
    tenant: str = DEFAULT_TENANT,
    *,
    images: Sequence[bytes] = (),
    end: End = DONE,
) -> Head:
    """A turn that is complete."""
    turn = new_turn(text, parent=await fresh(store, parent), tenant=tenant, images=images)
    await asyncio.gather(store.begin(turn), store.write(turn.response_id, [assistant(answer)], end))
    return await head_of(store, turn.response_id, tenant)


async def complete_turns(store: Store, length: int, parent: Head | None = None) -> list[Head]:
    heads: list[Head] = []
    for number in range(length):
        parent = await complete_turn(store, f"question {number}", f"answer {number}", parent)
        heads.append(parent)
    return heads


async def ids_of(store: Store, head: Head) -> list[str]:
    """The ids of the chain that ends at ``head``."""
    return [turn.response_id for turn in await store.chain(head)]


def ids(heads: Sequence[Head]) -> list[str]:
    return [head.response_id for head in heads]


@asynccontextmanager
async def sqlite(path: Path) -> AsyncIterator[SqliteStore]:
    store = await open_sqlite(path)
    try:
        yield store
    finally:
        await store.close()


def images_in_memory(store: MemoryStore) -> list[tuple[str, bytes]]:
    """The tenants and bytes of all images that the store holds."""
    return sorted((tenant, image.data) for (tenant, _), image in store._turns.blobs.items())


def images_in_file(path: Path) -> list[tuple[str, bytes]]:
    """The same for a SQLite file."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        return sorted(connection.execute("SELECT tenant, data FROM blobs").fetchall())
    finally:
        connection.close()


def images_in_database(uri: str) -> list[tuple[str, bytes]]:
    """The same for a PostgreSQL database. There may be a loop in this thread."""

    async def read() -> list[tuple[str, bytes]]:
        connection = await asyncpg.connect(uri)
        try:
            rows = await connection.fetch("SELECT tenant, data FROM blobs")
            return sorted((row["tenant"], row["data"]) for row in rows)
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, read()).result()


class ManualClock:
    """Stands still until a test sets it."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def opener(kind: str, folder: Path) -> Opener:
    """A way to open one of ``STORES`` in a folder, each time the same one."""

    @asynccontextmanager
    async def opened(
        clock: Clock = time.time, retention: RetentionPolicy = RETAIN_FOREVER
    ) -> AsyncIterator[StoreWithStores]:
        store: StoreWithStores
        if kind == "memory":
            store = MemoryStore(retention, clock=clock)
        elif kind == "sqlite":
            store = await open_sqlite(folder / "turns.db", retention, clock=clock)
        else:
            store = await open_postgres(empty_database(folder), retention, clock=clock)
        try:
            yield store
        finally:
            await store.close()

    return opened
