"""Departed clients: results whose clients left before they had them, for their retries.

They are remembered here, and written into the store, so that another process finds a result where
the retry comes there. Nothing is written where the client stays.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Final

from starlette.types import Scope

from antiphon.errors import AntiphonError
from antiphon.turn.store_protocols import IdempotencyStore

_HEADER: Final = b"x-stainless-retry-count"
#: Seconds for which a result is remembered.
_LIFETIME: Final = 120.0
_MAX_RESULTS: Final = 10_000
#: How many results of the same request other processes can find, and how their records' keys
#: begin, which no client can send in a header.
_MAX_RECORDS: Final = 8
_LEFT_KEY: Final = "\0client-left"
_TAKEN_KEY: Final = "\0client-left-taken"


def is_retry(scope: Scope) -> bool:
    """Whether a client says that it sends a request once more."""
    count: bytes = dict(scope["headers"]).get(_HEADER, b"")
    return bool(count.strip(b" 0"))


def digest_request(tenant: str, body: bytes, path: str = "") -> bytes:
    """What tells a request from others."""
    return hashlib.sha256(b"%b%b\n%b" % (tenant.encode(), path.encode(), body)).digest()


class DepartedClients:
    """Results by the digests of their requests; each is given to one retry."""

    def __init__(self, store: IdempotencyStore) -> None:
        self._store = store
        #: When each client left, by the digest of its request and the result's id.
        self._left: OrderedDict[tuple[bytes, str], float] = OrderedDict()
        #: Results that a retry has got since.
        self._taken: OrderedDict[str, None] = OrderedDict()

    def is_taken(self, result_id: str) -> bool:
        """Whether a retry has got this result."""
        return result_id in self._taken

    async def remember(self, tenant: str, digest: bytes, result_id: str) -> None:
        """The client of a request has left before it had the result."""
        now = time.monotonic()
        self._left[digest, result_id] = now
        while len(self._left) > _MAX_RESULTS or next(iter(self._left.values())) < now - _LIFETIME:
            self._left.popitem(last=False)
        # Nobody waits for an answer; a store that is full or being closed is no news to them.
        with contextlib.suppress(AntiphonError):
            await self._write_record(tenant, digest, result_id)

    def results(self, digest: bytes) -> list[str]:
        """What was remembered in this process, the newest first."""
        return [result_id for key, result_id in reversed(self._left) if key == digest]

    async def take(self, tenant: str, digest: bytes, result_id: str) -> None:
        """A later request of the same words is another one, and so is its retry."""
        was_left = self._left.pop((digest, result_id), None) is not None
        self._taken[result_id] = None
        if len(self._taken) > _MAX_RESULTS:
            self._taken.popitem(last=False)
        if was_left:
            for number, left_id in await self._read_records(tenant, digest):
                if left_id == result_id:
                    await self._take_record(tenant, digest, number, result_id)

    async def take_recorded(self, tenant: str, digest: bytes) -> AsyncIterator[str]:
        """What was remembered in any process, the newest first, each taken as it comes."""
        for number, result_id in reversed(await self._read_records(tenant, digest)):
            if result_id not in self._taken and await self._take_record(
                tenant, digest, number, result_id
            ):
                yield result_id

    async def _write_record(self, tenant: str, digest: bytes, result_id: str) -> None:
        for number in range(_MAX_RECORDS):
            key = _record_key(_LEFT_KEY, digest, number)
            record = await self._store.reserve(tenant, key, digest)
            # Without a result it is of somebody who looks for one at this moment.
            if record is None or record.result_id is None:
                await self._store.complete(tenant, key, result_id)
                return

    async def _read_records(self, tenant: str, digest: bytes) -> list[tuple[int, str]]:
        """The results whose clients have left of late, with their records' numbers."""
        found: list[tuple[int, str]] = []
        for number in range(_MAX_RECORDS):
            key = _record_key(_LEFT_KEY, digest, number)
            record = await self._store.reserve(tenant, key, digest)
            if record is None:
                await self._store.release(tenant, key)
                break
            if record.result_id is not None and record.created_at > time.time() - _LIFETIME:
                found.append((number, record.result_id))
        return found

    async def _take_record(self, tenant: str, digest: bytes, number: int, result_id: str) -> bool:
        """Whether this is the first retry that gets the result, in any process."""
        key = _record_key(_TAKEN_KEY, digest, number)
        if await self._store.reserve(tenant, key, digest) is not None:
            return False
        await self._store.complete(tenant, key, result_id)
        return True


def _record_key(kind: str, digest: bytes, number: int) -> str:
    return f"{kind} {digest.hex()} {number}"
