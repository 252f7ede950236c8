"""Full-text search in PostgreSQL: its own text search, with a GIN index over hashed terms.

    a turn ends        a row in a table of those that are to be indexed: all that its commit does
    256 have ended     they are indexed in the background, while others run
    a search           indexes up to 512 pending turns of its tenant, then ranks all that have its
                       terms by BM25, in one statement                          (search.sql)
    words are erased   what is indexed of their turn goes in the same transaction  (erasure.py)

Each node indexes what it finds; a turn that another one is at is left to that.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from antiphon.core.ids import response_id_of, response_key
from antiphon.errors import StoreError
from antiphon.stores.postgres.chat_reader import find_chat
from antiphon.stores.postgres.database import PostgresDatabase
from antiphon.stores.postgres.reader import has_expired
from antiphon.stores.postgres.rows import TurnKey, decode_header, decode_items
from antiphon.stores.postgres.search.erasure import (
    SEARCH_SQL,
    add_totals,
    columns_of,
    new_total_id,
)
from antiphon.stores.postgres.search.terms import TurnTerms, index_turn, query_lexemes
from antiphon.stores.postgres.write_transaction import WriteTransaction
from antiphon.stores.search_tokenizer import (
    SearchQuery,
    bm25_weights,
    build_excerpt,
    parse_query,
    searchable_text,
)
from antiphon.turn.search_protocols import SearchHit
from antiphon.turn.store_protocols import unknown_cursor

if TYPE_CHECKING:
    from antiphon.stores.postgres.connection import Connection

#: How many turns are indexed in one transaction.
_BATCH: Final = 256
#: How many waiting turns are counted at most, and how many turns that have a term.
_MAX_PENDING: Final = 10_000
_MAX_COUNTED: Final = 100_000
#: Turns that another node is indexing are waited for so often and so many seconds.
_WAITS: Final = 40
_WAIT_SECONDS: Final = 0.025
#: Seconds between two batches of a backlog.
_REST_SECONDS: Final = 0.02
#: How many batches a search waits for; from so many on a node indexes what others leave, too.
_MAX_BATCHES: Final = 4
_BACKLOG: Final = _MAX_BATCHES * _BATCH
#: Rows of sums of one tenant that become one.
_MAX_TOTALS: Final = 64

#: A turn to index: its tenant and key, and the revision of its text.
_Pending: TypeAlias = tuple[str, TurnKey, int]
#: What to index of it, and when it was created.
_Indexed: TypeAlias = tuple[_Pending, TurnTerms, float]


class _Request(msgspec.Struct, frozen=True):
    """One search; ``each_chat_once``: of each chat only its best turn."""

    tenant: str
    query: SearchQuery
    limit: int
    after: str | None
    chat_id: str | None = None
    each_chat_once: bool = False


class PostgresSearchIndex:
    """A ``SearchIndex`` in a PostgreSQL database. Used on one event loop."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        # Other nodes may have left as many as need indexing: the first turn looks.
        self._ended_count = _BATCH - 1
        self._background_task: asyncio.Task[None] | None = None
        #: Only one indexes at a time: two would do the same.
        self._indexing_lock = asyncio.Lock()
        self._secret: bytes | None = None

    def on_turn_end(self) -> None:
        """A turn has ended, or is about to. Has a batch's worth indexed in the background."""
        self._ended_count += 1
        if self._ended_count >= _BATCH:
            self._start_indexing()

    async def search(
        self,
        tenant: str,
        query: str,
        limit: int,
        *,
        after: str | None = None,
        chat_id: str | None = None,
    ) -> Sequence[SearchHit]:
        return await self._search(_Request(tenant, parse_query(query), limit, after, chat_id))

    async def search_chats(
        self, tenant: str, query: str, limit: int, *, after: str | None = None
    ) -> Sequence[SearchHit]:
        return await self._search(
            _Request(tenant, parse_query(query), limit, after, each_chat_once=True)
        )

    async def _search(self, request: _Request) -> Sequence[SearchHit]:
        tenant, terms = request.tenant, request.query.terms
        if not terms or request.limit < 1:
            return []
        await self._index_tenant(tenant)
        lexemes = query_lexemes(await self._read_secret(), tenant, terms)
        return await self._database.read_snapshot(
            lambda connection: self._find(connection, request, lexemes)
        )

    async def count_unsearched(self, tenant: str) -> int:
        async def count(connection: Connection) -> int:
            found: int = await connection.fetchval(
                SEARCH_SQL["count_pending"], tenant, _MAX_PENDING
            )
            return found

        return max(0, await self._database.read(count) - _BACKLOG)

    async def close(self) -> None:
        """Cancel background indexing. The database is closed after this."""
        task, self._background_task = self._background_task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    # Indexing

    def _start_indexing(self) -> None:
        if self._background_task is None:
            self._ended_count = 0
            self._background_task = asyncio.create_task(self._index_backlog())

    async def _index_backlog(self) -> None:
        try:
            # The next search meets the same error, and reports it to its caller.
            with contextlib.suppress(StoreError):
                has_more = True
                while has_more:
                    has_more = await self._index_some()
                    # Turns under way come first.
                    await asyncio.sleep(_REST_SECONDS)
        finally:
            self._background_task = None

    async def _index_some(self) -> bool:
        """Index a batch of this node's share, or of what others leave; whether more may wait."""
        if await self._index("pending_of_node", _BATCH, self._database.lease.node) >= _BATCH:
            return True

        async def count(connection: Connection) -> int:
            found: int = await connection.fetchval(SEARCH_SQL["count_pending_of_all"], _BACKLOG)
            return found

        if await self._database.read(count) < _BACKLOG:
            return False
        return await self._index("pending_of_all", _BATCH) >= _BATCH

    async def _index_tenant(self, tenant: str) -> None:
        """Index what waits of a tenant, or as much of it as a search waits for."""
        for _ in range(_MAX_BATCHES):
            if await self._index("pending", tenant, _BATCH, waits=True) < _BATCH:
                return
        self._start_indexing()

    async def _index(self, query: str, *values: object, waits: bool = False) -> int:
        """Index the turns that a query finds; how many those are.

        ``waits``: for those that another node indexes, too.
        """
        async with self._indexing_lock:
            for _ in range(_WAITS):
                pending = await self._read_pending(query, *values)
                if not pending:
                    return 0
                indexed = await self._read_terms(pending)
                is_done: bool = await self._database.submit(_apply, indexed)
                if is_done or not waits:
                    return len(pending)
                await asyncio.sleep(_WAIT_SECONDS)
            return 0

    async def _read_pending(self, query: str, *values: object) -> list[_Pending]:
        async def read(connection: Connection) -> list[Any]:
            return await connection.fetch(SEARCH_SQL[query], *values)

        rows = await self._database.read(read)
        return [(row[0], TurnKey(*row[1:4]), row[4]) for row in rows]

    async def _read_terms(self, pending: list[_Pending]) -> list[_Indexed]:
        columns = columns_of([key for _, key, _ in pending])

        async def read(connection: Connection) -> list[Any]:
            return await connection.fetch(SEARCH_SQL["texts"], *columns)

        secret = await self._read_secret()
        rows = await self._database.read(read)
        return await asyncio.to_thread(_index_turns, secret, pending, rows)

    async def _read_secret(self) -> bytes:
        if self._secret is None:
            self._secret = await self._database.submit(_make_secret)
        return self._secret

    # Searching

    async def _find(
        self, connection: Connection, request: _Request, lexemes: list[str]
    ) -> list[SearchHit]:
        tenant, limit = request.tenant, request.limit
        cutoff = self._database.expiry.cutoff(tenant)
        tree: int | None = None
        totals: tuple[Any, ...] = (SEARCH_SQL["totals"], tenant)
        if request.chat_id is not None:
            chat = await find_chat(connection, tenant, request.chat_id, self._database.expiry)
            if chat is None:
                return []
            tree = chat[1]
            totals = (SEARCH_SQL["totals_of_chat"], tenant, tree)
        cursor: tuple[int | None, ...] = (None, None, None)
        if request.after is not None:
            found_by = (tenant, lexemes, tree)
            cursor = await _find_cursor(connection, request.after, found_by, cutoff)
        ((turns, words, _),) = await connection.fetch(*totals)
        counts = await connection.fetch(SEARCH_SQL["counts"], tenant, lexemes, _MAX_COUNTED, tree)
        weights = bm25_weights(turns, words, [row[0] for row in counts])
        terms = (lexemes, list(weights.term_weights))
        values = (tenant, *terms, weights.norm, weights.norm_per_word, *cursor)
        hits: list[SearchHit] = []
        offset, step = 0, limit + 8
        while len(hits) < limit:
            more = (step, offset, tree, request.each_chat_once)
            rows = await connection.fetch(SEARCH_SQL["best"], *values, *more)
            keys = [TurnKey(*row[:3]) for row in rows]
            found = await _build_hits(connection, keys, request.query)
            for key, hit in zip(keys, found, strict=True):
                if hit is not None and not await has_expired(connection, key, cutoff):
                    hits.append(hit)
                    if len(hits) == limit:
                        break
            if len(rows) < step:
                break
            offset += step
        return hits


async def _find_cursor(
    connection: Connection,
    after: str,
    found_by: tuple[str, list[str], int | None],
    cutoff: float,
) -> TurnKey:
    """The key of the turn that a page begins behind; ``found_by``: tenant, terms and tree.

    ``InvalidRequestError``: it is no hit.
    """
    tenant, lexemes, tree = found_by
    values = (tenant, response_key(after), lexemes, tree)
    row = await connection.fetchrow(SEARCH_SQL["where"], *values)
    if row is None or await has_expired(connection, TurnKey(*row), cutoff):
        raise unknown_cursor(after)
    return TurnKey(*row)


def _index_turns(secret: bytes, pending: list[_Pending], rows: Sequence[Any]) -> list[_Indexed]:
    """What to index of turns whose rows of the log these are."""
    items: dict[TurnKey, list[bytes]] = {}
    created_at: dict[TurnKey, float] = {}
    for key, of_turn in groupby(rows, lambda row: TurnKey(*row[:3])):
        parts = list(of_turn)
        created_at[key] = parts[0][3] or 0.0
        packed = [parts[0][4], *(part[5] for part in parts)]
        items[key] = [item for one in packed if one is not None for item in _readable_items(one)]
    return [
        (one, index_turn(secret, one[0], items.get(one[1], ())), created_at.get(one[1], 0.0))
        for one in pending
    ]


def _readable_items(packed: bytes) -> Sequence[bytes]:
    """Packed items; none where they are damaged, which must not keep other turns waiting."""
    try:
        return decode_items(packed)
    except msgspec.MsgspecError:
        return ()


async def _make_secret(transaction: WriteTransaction) -> bytes:
    connection = transaction.connection
    await connection.execute(SEARCH_SQL["add_secret"], secrets.token_bytes(32))
    secret: bytes = await connection.fetchval(SEARCH_SQL["secret"])
    return secret


async def _apply(transaction: WriteTransaction, indexed: list[_Indexed]) -> bool:
    """Store what was indexed of turns that are as they were; whether those were all."""
    connection = transaction.connection
    tenants = [tenant for (tenant, _, _), _, _ in indexed]
    revisions = [revision for (_, _, revision), _, _ in indexed]
    columns = columns_of([key for (_, key, _), _, _ in indexed])
    rows = await connection.fetch(SEARCH_SQL["take_pending"], tenants, *columns, revisions)
    taken = {TurnKey(*row) for row in rows}
    found = [one for one in indexed if one[0][1] in taken and one[1].words]
    totals: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for (tenant, _, _), terms, _ in found:
        turns, words = totals[tenant]
        totals[tenant] = (turns + 1, words + terms.words)
    if found:
        await connection.execute(
            SEARCH_SQL["add_terms"],
            [tenant for (tenant, _, _), _, _ in found],
            *columns_of([key for (_, key, _), _, _ in found]),
            [created_at for _, _, created_at in found],
            [terms.words for _, terms, _ in found],
            [terms.terms for _, terms, _ in found],
        )
    await add_totals(connection, totals)
    for tenant in totals:
        ((_, _, rows_of_totals),) = await connection.fetch(SEARCH_SQL["totals"], tenant)
        if rows_of_totals > _MAX_TOTALS:
            await connection.execute(SEARCH_SQL["join_totals"], tenant, new_total_id())
    return len(taken) == len(indexed)


async def _build_hits(
    connection: Connection, keys: Sequence[TurnKey], query: SearchQuery
) -> list[SearchHit | None]:
    """The hits of turns, None: its text does not match all of the query."""
    columns = columns_of(keys)
    headers = {
        TurnKey(*row[:3]): row[3:]
        for row in await connection.fetch(SEARCH_SQL["headers"], *columns)
    }
    texts = await connection.fetch(SEARCH_SQL["texts"], *columns)
    excerpts: dict[TurnKey, str | None] = {}
    for key, of_turn in groupby(texts, lambda row: TurnKey(*row[:3])):
        parts = list(of_turn)
        packed = [parts[0][4], *(part[5] for part in parts)]
        items = [item for one in packed if one is not None for item in _readable_items(one)]
        excerpts[key] = build_excerpt(searchable_text(items), query)
    hits: list[SearchHit | None] = []
    for key in keys:
        excerpt = excerpts.get(key)
        if excerpt is None or key not in headers:
            hits.append(None)
            continue
        response, created_at, header = headers[key]
        conversation = decode_header(header).conversation
        hits.append(SearchHit(response_id_of(response), created_at, excerpt, conversation))
    return hits
