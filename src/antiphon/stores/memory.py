"""Turns in this process's memory: the whole contract, and gone when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import msgspec

from antiphon.core.ids import response_key
from antiphon.core.turns import End
from antiphon.errors import StoreError
from antiphon.turn.ports import Head, NewTurn, Recent, StoredTurn


class _Kept(msgspec.Struct):
    """A turn and its place; ``turn`` None: erased, only id and place are left."""

    tenant: str
    thread: int
    seq: int
    tree: int
    parent: str | None
    turn: StoredTurn | None
    children: list[str]


class _Image(msgspec.Struct):
    """A blob's bytes, and the ids of the turns that use it."""

    data: bytes
    users: set[str]


class MemoryStore:
    """A ``Store`` without a disk. Its futures are done when it returns them."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}
        #: The ids of each thread's turns, in order.
        self._threads: dict[int, list[str]] = {}
        self._epochs: dict[int, int] = {}
        #: By tenant and hash.
        self._images: dict[tuple[str, str], _Image] = {}
        self._closed = False

    def begin(self, turn: NewTurn) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            self._begin(turn)
        except StoreError as error:
            future.set_exception(error)
        else:
            future.set_result(None)
        return future

    def write(
        self, response_id: str, items: Sequence[bytes], end: End | None = None
    ) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            self._write(response_id, items, end)
        except StoreError as error:
            future.set_exception(error)
        else:
            future.set_result(None)
        return future

    async def head(self, tenant: str, response_id: str) -> Head | None:
        found = self._find(tenant, response_id)
        if found is None:
            return None
        kept, turn = found
        epoch = self._epochs.get(kept.tree, 0)
        running = turn.end is None
        return Head(response_id, tenant, kept.thread, kept.seq, kept.tree, epoch, running)

    async def turn(self, tenant: str, response_id: str) -> StoredTurn | None:
        found = self._find(tenant, response_id)
        return found[1] if found else None

    async def chain(self, head: Head) -> list[StoredTurn]:
        self._check_open()
        if self._kept[head.response_id].tenant != head.tenant:
            return []
        return [turn for kept in self._upwards(head.response_id) if (turn := kept.turn)][::-1]

    async def recent(self, tenant: str, limit: int) -> list[Recent]:
        self._check_open()
        lines = [
            line
            for ids in self._threads.values()
            if self._kept[ids[0]].tenant == tenant and (line := self._recent(ids)) is not None
        ]
        lines.sort(key=lambda line: line.created_at, reverse=True)
        return lines[:limit]

    async def delete(self, tenant: str, response_id: str, *, cascade: bool = False) -> bool:
        if self._find(tenant, response_id) is None:
            return False
        doomed = [response_id]
        while doomed:
            kept = self._kept[doomed.pop()]
            self._erase(kept)
            if cascade:
                doomed += kept.children
        tree = self._kept[response_id].tree
        self._epochs[tree] = self._epochs.get(tree, 0) + 1
        return True

    async def close(self) -> None:
        self._closed = True
        self._kept.clear()
        self._threads.clear()
        self._images.clear()

    def _begin(self, new: NewTurn) -> None:
        self._check_open()
        if response_key(new.response_id) is None or new.response_id in self._kept:
            raise StoreError(f"{new.response_id!r} is not a new response id.")
        kept = self._place(new)
        kept.turn = StoredTurn(
            response_id=new.response_id,
            created_at=new.created_at,
            header=new.header,
            input=tuple(new.input),
            output=(),
            end=None,
            previous_response_id=kept.parent,
            blobs=self._share(new),
        )
        self._kept[new.response_id] = kept
        self._threads.setdefault(kept.thread, []).append(new.response_id)

    def _place(self, new: NewTurn) -> _Kept:
        fresh = len(self._threads) + 1
        if new.parent is None:
            return _Kept(new.tenant, fresh, 0, fresh, None, None, [])
        if new.parent.tenant != new.tenant:
            raise StoreError("A turn cannot continue another tenant's response.")
        above = new.parent.response_id
        parent = self._kept[above]
        parent.children.append(new.response_id)
        newest = self._threads[parent.thread][-1] == above
        thread = parent.thread if newest else fresh
        return _Kept(new.tenant, thread, parent.seq + 1, parent.tree, above, None, [])

    def _share(self, new: NewTurn) -> dict[str, bytes]:
        """The turn's blobs, the tenant's own copies where it has sent them before."""
        shared = {}
        for blob in new.blobs:
            image = self._images.setdefault((new.tenant, blob.hash), _Image(blob.data, set()))
            image.users.add(new.response_id)
            shared[blob.hash] = image.data
        return shared

    def _erase(self, kept: _Kept) -> None:
        turn, kept.turn = kept.turn, None
        if turn is None:
            return
        for digest in turn.blobs:
            image = self._images[kept.tenant, digest]
            image.users.discard(turn.response_id)
            if not image.users:
                del self._images[kept.tenant, digest]

    def _write(self, response_id: str, items: Sequence[bytes], end: End | None) -> None:
        self._check_open()
        kept = self._kept.get(response_id)
        if kept is None:
            raise StoreError("This turn's beginning was not stored, so the rest cannot be.")
        turn = kept.turn
        if turn is not None and turn.end is None:
            kept.turn = msgspec.structs.replace(turn, output=(*turn.output, *items), end=end)

    def _find(self, tenant: str, response_id: str) -> tuple[_Kept, StoredTurn] | None:
        self._check_open()
        kept = self._kept.get(response_id)
        if kept is None or kept.turn is None or kept.tenant != tenant:
            return None
        return kept, kept.turn

    def _upwards(self, response_id: str) -> Iterator[_Kept]:
        above: str | None = response_id
        while above is not None:
            kept = self._kept[above]
            yield kept
            above = kept.parent

    def _recent(self, ids: list[str]) -> Recent | None:
        for response_id in reversed(ids):
            kept = self._kept[response_id]
            if kept.turn is not None:
                return Recent(
                    response_id=response_id,
                    created_at=kept.turn.created_at,
                    model=kept.turn.header.model,
                    turns=kept.seq + 1,
                    opening=self._opening(response_id),
                )
        return None

    def _opening(self, response_id: str) -> bytes | None:
        opening = None
        for kept in self._upwards(response_id):
            if kept.turn is not None and kept.turn.input:
                opening = kept.turn.input[0]
        return opening

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("The store is closed.")
