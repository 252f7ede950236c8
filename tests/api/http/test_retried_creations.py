"""What a client's retry of a creation gets, and what no retry gets."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from antiphon.api.http.asgi_responses import WRITER
from antiphon.api.http.idempotency import IdempotencyKeys
from antiphon.api.http.retried_creations import RetriedCreations
from antiphon.core.turns import IdempotencyReservation
from antiphon.errors import NotFoundError
from antiphon.stores.memory.idempotency import MemoryIdempotencyStore


class Connection:
    """The writer of an answer whose client is there, or gone."""

    def __init__(self, *, is_abandoned: bool) -> None:
        self.is_abandoned = is_abandoned


class Shelf:
    """Numbered things, each created by a request."""

    def __init__(self) -> None:
        self.things: list[str] = []
        self.deleted: set[str] = set()
        self.reached = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.began = 0

    async def create(self, reservation: IdempotencyReservation | None) -> str:
        self.began += 1
        self.reached.set()
        await self.gate.wait()
        self.things.append(f"thing_{len(self.things)}")
        return self.things[-1]

    async def read(self, name: str) -> str:
        if name in self.deleted:
            raise NotFoundError("It is gone.")
        return name


def scope(count: int = 0, *, gone: bool = False, path: str = "/v1/things") -> dict[str, Any]:
    headers = [(b"x-stainless-retry-count", b"%d" % count)]
    return {
        "headers": headers,
        "path": path,
        "method": "POST",
        "antiphon.tenant": "",
        WRITER: Connection(is_abandoned=gone),
    }


class Client:
    def __init__(self, shelf: Shelf, creations: RetriedCreations) -> None:
        self._shelf = shelf
        self._creations = creations

    async def send(self, body: bytes = b"{}", **fields: Any) -> str:
        return await self._creations.run_once(
            scope(**fields), body, self._shelf.create, self._shelf.read, str
        )


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def store() -> MemoryIdempotencyStore:
    return MemoryIdempotencyStore(time.time)


@pytest.fixture
def client(shelf: Shelf, store: MemoryIdempotencyStore) -> Client:
    return Client(shelf, RetriedCreations(IdempotencyKeys(store)))


async def test_a_retry_gets_what_its_first_try_created(client: Client, shelf: Shelf) -> None:
    first = await client.send(gone=True)
    assert await client.send(count=1) == first
    assert shelf.things == [first]
    # The next one is another.
    assert await client.send() != first
    assert await client.send(count=1) not in {first}


async def test_a_retry_waits_for_what_is_being_created(client: Client, shelf: Shelf) -> None:
    shelf.gate.clear()
    first = asyncio.create_task(client.send(gone=True))
    await shelf.reached.wait()
    second = asyncio.create_task(client.send(count=1))
    await asyncio.sleep(0)
    shelf.gate.set()
    assert await first == await second
    assert shelf.began == 1


async def test_a_retry_in_another_process_gets_it_too(
    client: Client, shelf: Shelf, store: MemoryIdempotencyStore
) -> None:
    first = await client.send(gone=True)
    other = Client(shelf, RetriedCreations(IdempotencyKeys(store)))
    assert await other.send(count=2) == first
    assert await client.send(count=1, body=b"[]") != first


@pytest.mark.parametrize("gone", [True, False])
async def test_what_is_no_retry_creates(client: Client, gone: bool) -> None:
    made = [await client.send(gone=gone), await client.send(), await client.send(body=b"[]")]
    made.append(await client.send(path="/v1/others", count=1))
    made.append(await client.send(body=b"[1]", count=1))
    assert len(set(made)) == 5


async def test_a_retry_after_a_result_that_arrived_creates(client: Client) -> None:
    assert await client.send() != await client.send(count=1)


async def test_a_retry_of_what_was_deleted_creates(client: Client, shelf: Shelf) -> None:
    first = await client.send(gone=True)
    shelf.deleted.add(first)
    assert await client.send(count=1) != first


async def test_a_retry_after_a_failure_creates(client: Client, shelf: Shelf) -> None:
    shelf.gate.clear()
    first = asyncio.create_task(client.send(gone=True))
    await shelf.reached.wait()
    second = asyncio.create_task(client.send(count=1))
    await asyncio.sleep(0)
    first.cancel()
    shelf.gate.set()
    assert await second == "thing_0"
