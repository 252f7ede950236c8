"""Turns in this process's memory: the whole contract, and gone when it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from antiphon.core.retention import FOREVER, Lifetimes
from antiphon.core.turns import End
from antiphon.errors import AntiphonError
from antiphon.stores.expiry import Clock, Expiry
from antiphon.stores.health import MemoryHealth
from antiphon.stores.memory.conversations import MemoryConversations
from antiphon.stores.memory.response_list import MemoryArchive
from antiphon.stores.memory.search import MemorySearch
from antiphon.stores.memory.turns import Kept, Turns
from antiphon.stores.sqlite.api_keys import MemoryKeys
from antiphon.stores.sqlite.idempotency import MemoryReceipts
from antiphon.turn.protocols import Head, NewTurn, Recent, StoredTurn, Window
from antiphon.turn.store_protocols import Ledgers


class MemoryStore:
    """A ``Store`` without a disk. Its futures are done when it returns them."""

    def __init__(self, lifetimes: Lifetimes = FOREVER, *, clock: Clock = time.time) -> None:
        self._turns = turns = Turns(Expiry(lifetimes, clock))
        self._receipts = MemoryReceipts(clock)
        self._conversations = MemoryConversations(turns, self._receipts)
        self.ledgers = Ledgers(
            archive=MemoryArchive(turns, self._conversations),
            conversations=self._conversations,
            keys=MemoryKeys(clock),
            receipts=self._receipts,
            search=MemorySearch(lambda tenant: [turn for _, turn in turns.of(tenant)]),
            health=MemoryHealth(),
        )

    def begin(self, turn: NewTurn) -> asyncio.Future[None]:
        return _done(self._begin, turn)

    def write(
        self, response_id: str, items: Sequence[bytes], end: End | None = None
    ) -> asyncio.Future[None]:
        return _done(self._turns.write, response_id, items, end)

    async def head(self, tenant: str, response_id: str) -> Head | None:
        found = self._turns.find(tenant, response_id)
        if found is None:
            return None
        kept, turn = found
        epoch = self._turns.epochs.get(kept.tree, 0)
        return Head(
            response_id,
            tenant,
            kept.thread,
            kept.seq,
            kept.tree,
            epoch,
            running=turn.end is None,
            stamp=kept.stamp,
        )

    async def turn(self, tenant: str, response_id: str) -> StoredTurn | None:
        found = self._turns.find(tenant, response_id)
        return self._turns.dated(*found) if found else None

    async def chain(self, head: Head) -> list[StoredTurn]:
        self._turns.check_open()
        kept = self._turns.kept.get(head.response_id)
        if kept is None or kept.tenant != head.tenant or self._turns.has_expired(kept):
            return []
        above = self._turns.upwards(head.response_id)
        return [turn for kept in above if (turn := kept.turn)][::-1]

    async def window(self, head: Head, window: Window) -> list[StoredTurn]:
        turns = await self.chain(head)
        if window.newest_first:
            turns.reverse()
        if window.at is not None:
            ids = [turn.response_id for turn in turns]
            turns = turns[ids.index(window.at) :] if window.at in ids else []
        return turns[: max(0, window.limit)]

    async def recent(self, tenant: str, limit: int) -> list[Recent]:
        newest = {kept.thread: kept for kept, _ in sorted(self._turns.of(tenant), key=_place)}
        latest = sorted(newest.values(), key=lambda kept: (kept.stamp, kept.place), reverse=True)
        return [self._recent(kept) for kept in latest[: max(0, limit)]]

    async def delete(self, tenant: str, response_id: str, *, cascade: bool = False) -> bool:
        found = self._turns.find(tenant, response_id)
        if found is None:
            return False
        kept, _ = found
        for one in self._turns.family(kept) if cascade else [kept]:
            self._turns.erase(one)
        self._turns.forget_summaries(kept)
        self._turns.raise_epoch(kept)
        return True

    async def close(self) -> None:
        self._turns.close()

    def _begin(self, turn: NewTurn) -> None:
        self._turns.check_open()
        if turn.claim is not None:
            self._receipts.check_claimed(turn.tenant, turn.claim)
        self._turns.check_sources(turn)
        if turn.conversation is not None and not turn.founds:
            self._conversations.check_unmoved(turn.tenant, turn.conversation)
        self._turns.begin(turn)
        if turn.claim is not None:
            self._receipts.put_outcome(turn.tenant, turn.claim.key, turn.made)
        if turn.conversation is not None:
            if turn.founds:
                self._conversations.found(turn.tenant, turn.conversation)
            self._conversations.move(turn.conversation.id, turn)

    def _recent(self, kept: Kept) -> Recent:
        assert kept.turn is not None
        opening = None
        for above in self._turns.upwards(kept.response_id):
            if above.turn is not None and above.turn.input:
                opening = above.turn.input[0]
        return Recent(
            response_id=kept.response_id,
            created_at=kept.turn.created_at,
            model=kept.turn.header.model,
            turns=kept.seq + 1,
            opening=opening,
        )


def _place(found: tuple[Kept, StoredTurn]) -> tuple[int, int]:
    return found[0].place


def _done(work: Callable[..., None], *arguments: Any) -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    try:
        work(*arguments)
    except AntiphonError as error:
        future.set_exception(error)
    else:
        future.set_result(None)
    return future
