"""SQLite turn store: turns in one file, which several processes may have open at once.

    loop thread     begin, write, delete: jobs for the writer; head: one statement
    writer thread   all waiting jobs in one transaction, one fsync  (writer.py)
    reader threads  turn, chain, window, recent threads              (reader.py)

A turn without an end is running as long as the store that began it is alive
(process_locks.py). Any store that reads a turn of a dead one ends it: as ``failed``, with
code ``interrupted``. One that can be run again is claimed by a node (turn_recovery.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from antiphon.core.erase_report import EraseReport
from antiphon.core.retention import RETAIN_FOREVER, Clock, Expiry, RetentionPolicy
from antiphon.core.turns import End
from antiphon.errors import ConfigError, StoreError
from antiphon.stores.sqlite.api_keys import SqliteApiKeyStore
from antiphon.stores.sqlite.changes import open_change_feed
from antiphon.stores.sqlite.chat_transfer import SqliteChatTransferStore
from antiphon.stores.sqlite.chats import SqliteChatStore
from antiphon.stores.sqlite.connection import open_database
from antiphon.stores.sqlite.conversations import SqliteConversationStore
from antiphon.stores.sqlite.database import SqliteDatabase
from antiphon.stores.sqlite.family_copy import SqliteCopyStore
from antiphon.stores.sqlite.idempotency import SqliteIdempotencyStore
from antiphon.stores.sqlite.import_records import SqliteImportRecordStore
from antiphon.stores.sqlite.large_deletion import erase_most, ranges_after
from antiphon.stores.sqlite.nodes import SqliteNodeRegistry
from antiphon.stores.sqlite.reader import (
    ReadLimits,
    read_chain,
    read_head,
    read_history,
    read_turn,
    read_window,
)
from antiphon.stores.sqlite.response_index import SqliteResponseIndex
from antiphon.stores.sqlite.rows import row_id_of
from antiphon.stores.sqlite.search.index import SqliteSearchIndex
from antiphon.stores.sqlite.shares import SqliteShareStore
from antiphon.stores.sqlite.write_transaction import WriteTransaction
from antiphon.turn.store_protocols import (
    Head,
    HistoryTurn,
    NewTurn,
    StoredTurn,
    Stores,
    Window,
)

#: Group commit: with this many running turns, a commit waits this many seconds for others.
_GROUP_COMMIT_THRESHOLD: Final = 4
_GROUP_COMMIT_DELAY: Final = 0.002
#: Larger items are left to the writer's thread, also of a turn that runs alone.
_MAX_ALONE_BYTES: Final = 65_536
#: Histories of up to so many turns, rows in a thread and bytes in a text are read on the loop's
#: thread.
_MAX_INLINE_TURNS: Final = 64
_INLINE_LIMITS: Final = ReadLimits(rows=400, text_bytes=16_384)
#: A turn without writes for this many seconds does not count as running.
_STALE_SECONDS: Final = 60.0
#: How often such turns are looked for.
_STALE_CHECK_SECONDS: Final = 1.0


async def open_sqlite(
    path: str | os.PathLike[str],
    retention: RetentionPolicy = RETAIN_FOREVER,
    *,
    clock: Clock | None = None,
) -> SqliteStore:
    """Open the database at ``path``, made if missing, for the running event loop.

    Ends the turns that dead processes left. What expires goes by the machine's clock, under a
    guard, or by ``clock``. Raises ConfigError, which says what to do.
    """
    connections = await asyncio.to_thread(open_database, path)
    database = SqliteDatabase(connections, Expiry(retention, clock or time.time))
    store = SqliteStore(database)
    try:
        if clock is None:
            await database.guard_clock()
        await store.end_orphans()
    except StoreError as error:
        await store.close()
        raise ConfigError(f"Cannot open the database {path}: {error.message}") from error
    except BaseException:
        await store.close()
        raise
    return store


class RecentTurns:
    """Running turns with a recent write: how many there are decides on group commit.

    One that never ends, because its runner failed, counts for a minute only.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: When each was last written to, the oldest first.
        self._seen_at: OrderedDict[str, float] = OrderedDict()
        #: When stale ones are looked for next.
        self._check_at = 0.0

    def note(self, response_id: str) -> None:
        """Record that a turn began or was written to."""
        self._seen_at[response_id] = self._clock()
        self._seen_at.move_to_end(response_id)

    def drop(self, response_id: str) -> None:
        """Record that a turn ended."""
        self._seen_at.pop(response_id, None)

    def count(self) -> int:
        """How many there are."""
        seen_at = self._seen_at
        if (now := self._clock()) >= self._check_at:
            self._check_at = now + _STALE_CHECK_SECONDS
            for response_id in [one for one, at in seen_at.items() if at < now - _STALE_SECONDS]:
                del seen_at[response_id]
        return len(seen_at)


class SqliteStore:
    """A ``Store`` in a SQLite file. Made by ``open_sqlite``, used on one event loop."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database
        self._open_turn_count = RecentTurns()
        self._search = SqliteSearchIndex(database)
        self.changes = open_change_feed(database)
        self._nodes = SqliteNodeRegistry(database)
        self.copies = SqliteCopyStore(database)
        self.stores = Stores(
            response_index=SqliteResponseIndex(database),
            conversations=SqliteConversationStore(database),
            api_keys=SqliteApiKeyStore(database),
            idempotency=SqliteIdempotencyStore(database),
            search=self._search,
            health=database,
            chats=SqliteChatStore(database),
            changes=self.changes,
            shares=SqliteShareStore(database),
            chat_transfer=SqliteChatTransferStore(database, self._search.on_turn_end),
            imports=SqliteImportRecordStore(database),
            nodes=self._nodes,
        )

    def begin(self, turn: NewTurn) -> asyncio.Future[None]:
        self._open_turn_count.note(turn.response_id)
        is_alone = not turn.blobs and self._is_alone(turn.input)
        if turn.conversation is not None:
            # Whoever takes the conversation next has to find it taken.
            cutoff = self._database.expiry.cutoff(turn.tenant)
            return self._database.submit(WriteTransaction.begin, turn, cutoff, is_alone=is_alone)
        if turn.is_awaited:
            return self._database.submit(WriteTransaction.begin, turn, is_alone=is_alone)
        # The end of a quick turn may be stored with its beginning, which costs much less.
        return self._database.hold(
            turn.response_id, WriteTransaction.begin, turn, is_alone=is_alone
        )

    def write(
        self, response_id: str, items: Sequence[bytes], end: End | None = None, inline: bool = False
    ) -> asyncio.Future[None]:
        max_delay = self._commit_delay()
        is_alone = self._is_alone(items)
        self._database.release(response_id)
        if end is None:
            self._open_turn_count.note(response_id)
        else:
            self._open_turn_count.drop(response_id)
            self._search.on_turn_end()
        return self._database.submit(
            WriteTransaction.write,
            response_id,
            tuple(items),
            end,
            max_delay=max_delay,
            is_alone=is_alone,
            at_once=inline,
        )

    def _is_alone(self, items: Sequence[bytes]) -> bool:
        """Whether no other turn runs, and the items are short."""
        return self._open_turn_count.count() <= 1 and sum(map(len, items)) <= _MAX_ALONE_BYTES

    def _commit_delay(self) -> float:
        """Seconds to wait for other turns to share a commit: only where there are many."""
        return (
            _GROUP_COMMIT_DELAY if self._open_turn_count.count() >= _GROUP_COMMIT_THRESHOLD else 0.0
        )

    async def head(self, tenant: str, response_id: str) -> Head | None:
        cutoff = self._database.expiry.cutoff(tenant)
        return await self._database.read_inline(
            partial(read_head, tenant=tenant, response_id=response_id, cutoff=cutoff)
        )

    async def head_with_turns(
        self, tenant: str, response_id: str
    ) -> tuple[Head | None, Iterable[HistoryTurn]]:
        # A read of its own costs no more here.
        return await self.head(tenant, response_id), ()

    async def turn(self, tenant: str, response_id: str) -> StoredTurn | None:
        read = partial(
            read_turn, tenant=tenant, response_id=response_id, expiry=self._database.expiry
        )
        return await self._database.read_recovered(read)

    async def chain(self, head: Head) -> list[StoredTurn]:
        cutoff = self._database.expiry.cutoff(head.tenant)
        return await self._database.read_recovered(partial(read_chain, head=head, cutoff=cutoff))

    async def history(self, head: Head) -> list[HistoryTurn]:
        cutoff = self._database.expiry.cutoff(head.tenant)
        turns: list[HistoryTurn] | None = None
        if head.seq < _MAX_INLINE_TURNS:
            # A change of threads would take longer.
            turns = await self._database.read_inline(
                partial(read_history, head=head, cutoff=cutoff, limits=_INLINE_LIMITS)
            )
        if turns is None:
            read = partial(read_history, head=head, cutoff=cutoff)
            turns = await self._database.read_recovered(read)
        return turns or []

    async def window(self, head: Head, window: Window) -> list[StoredTurn]:
        cutoff = self._database.expiry.cutoff(head.tenant)
        return await self._database.read_recovered(
            partial(read_window, head=head, window=window, cutoff=cutoff)
        )

    async def delete(self, tenant: str, response_id: str, *, cascade: bool = False) -> bool:
        # What has expired counts as erased, and cannot be deleted again.
        head = await self.head(tenant, response_id)
        if head is None:
            return False
        if cascade:
            row_id = row_id_of(head.thread, head.seq)
            await erase_most(self._database, partial(ranges_after, row_id=row_id))
        erased: bool = await self._database.submit(
            WriteTransaction.delete, tenant, response_id, cascade
        )
        return erased

    async def erase_report(self) -> EraseReport:
        """Whether erased words may still be in the file; it takes seconds at most."""
        return EraseReport(int(self._database.erasures.is_pending))

    async def close(self) -> None:
        self.changes.close_readers()
        await self._search.close()
        with contextlib.suppress(StoreError):
            # Closed already, or the disk is full: its lock says that it is gone.
            await self._nodes.leave()
        await self._database.close()

    async def end_orphans(self) -> None:
        """End the turns whose owners are dead, but for those that a node may run again."""
        await self._database.end_orphans()
