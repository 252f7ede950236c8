"""Turns in this process's memory: the whole contract, and gone when it ends.

All turns in this process's memory: listed by time, and swept out when they have expired.

The search of a store in memory: reads every turn, each time.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from antiphon.core.retention import FOREVER, Clock, Expiry, Lifetimes
from antiphon.core.turns import End
from antiphon.errors import AntiphonError
from antiphon.stores.full_text import (
    MAX_COUNT,
    Query,
    excerpt_of,
    query_of,
    scale_of,
    score,
    terms_of,
    text_of_items,
)
from antiphon.stores.health import MemoryHealth
from antiphon.stores.memory.conversations import MemoryConversations
from antiphon.stores.memory.turns import Kept, Turns
from antiphon.stores.sqlite.api_keys import MemoryKeys
from antiphon.stores.sqlite.idempotency import MemoryReceipts
from antiphon.turn.protocols import Head, NewTurn, Recent, StoredTurn, Window
from antiphon.turn.store_protocols import ANYTHING, Hit, Ledgers, Wanted, unknown_cursor


class MemoryArchive:
    """An ``Archive``."""

    def __init__(self, turns: Turns, conversations: MemoryConversations) -> None:
        self._turns = turns
        self._conversations = conversations

    async def listing(
        self,
        tenant: str,
        limit: int,
        *,
        after: str | None = None,
        newest_first: bool = True,
        wanted: Wanted = ANYTHING,
    ) -> list[StoredTurn]:
        self._turns.check_open()
        mine = [
            kept
            for kept in self._turns.kept.values()
            if kept.tenant == tenant and kept.turn is not None
        ]
        mine.sort(key=lambda kept: (kept.stamp, kept.place), reverse=newest_first)
        if after is not None:
            places = [place for place, kept in enumerate(mine) if kept.response_id == after]
            if not places:
                raise unknown_cursor(after)
            mine = mine[places[0] + 1 :]
        return [
            self._turns.dated(kept, turn)
            for kept in mine
            if (turn := kept.turn) is not None
            and wanted.fits(turn.header, turn.end)
            and not self._turns.has_expired(kept)
        ][: max(0, limit)]

    async def sweep(self) -> int:
        self._turns.check_open()
        swept = 0
        for kept in list(self._turns.kept.values()):
            swept += self._sweep(kept) if kept.response_id in self._turns.kept else 0
        self._conversations.sweep()
        return swept

    def _sweep(self, kept: Kept) -> int:
        """Remove a turn and its descendants, if all have expired and none of them runs."""
        family = self._turns.family(kept)
        running = any(one.turn is not None and one.turn.end is None for one in family)
        if kept.turn is None or running or not self._turns.has_expired(kept):
            return 0
        swept = sum(one.turn is not None for one in family)
        for one in reversed(family):
            self._turns.remove(one)
        return swept


class MemorySearch:
    """A ``SearchIndex`` without an index. ``turns_of`` gives all turns of a tenant."""

    def __init__(self, turns_of: Callable[[str], Iterable[StoredTurn]]) -> None:
        self._turns_of = turns_of

    async def search(
        self, tenant: str, query: str, limit: int, *, after: str | None = None
    ) -> Sequence[Hit]:
        wanted = query_of(query)
        if not wanted.terms or limit < 1:
            return []
        ended = [turn for turn in self._turns_of(tenant) if turn.end is not None]
        ranked = _ranked(ended, wanted)
        if after is not None:
            ids = [turn.response_id for turn, _ in ranked]
            if after not in ids:
                raise unknown_cursor(after)
            ranked = ranked[ids.index(after) + 1 :]
        hits = (_hit(turn, text, wanted) for turn, text in ranked)
        return [hit for hit in hits if hit is not None][:limit]


def _ranked(turns: list[StoredTurn], query: Query) -> list[tuple[StoredTurn, str]]:
    """Those that hold all terms, with their texts, the best first."""
    texts = [text_of_items((*turn.input, *turn.output)) for turn in turns]
    counts = [Counter(terms_of(text)) for text in texts]
    lengths = [held.total() for held in counts]
    holding = [sum(term in held for held in counts) for term in query.terms]
    scale = scale_of(sum(map(bool, counts)), sum(lengths), holding)
    found = []
    for turn, text, held, length in zip(turns, texts, counts, lengths, strict=True):
        if all(term in held for term in query.terms):
            often = [min(held[term], MAX_COUNT) for term in query.terms]
            found.append((-score(scale, often, length), -turn.created_at, turn, text))
    found.sort(key=lambda one: one[:2])
    return [(turn, text) for _, _, turn, text in found]


def _hit(turn: StoredTurn, text: str, query: Query) -> Hit | None:
    excerpt = excerpt_of(text, query)
    if excerpt is None:
        return None
    return Hit(turn.response_id, turn.created_at, excerpt, turn.header.conversation)


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
