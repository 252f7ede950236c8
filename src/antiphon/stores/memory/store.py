"""In-memory store: turns, response index, search without an index, and API keys, in dicts."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from antiphon.core.chain_fingerprints import ChainFingerprint
from antiphon.core.retention import RETAIN_FOREVER, Clock, Expiry, RetentionPolicy
from antiphon.core.turns import End, with_metadata
from antiphon.errors import AntiphonError
from antiphon.stores.change_feed import LogChangeFeed
from antiphon.stores.conflict_errors import duplicate_key
from antiphon.stores.memory.chat_transfer import MemoryChatTransferStore
from antiphon.stores.memory.chats import MemoryChatStore
from antiphon.stores.memory.conversations import MemoryConversationStore
from antiphon.stores.memory.idempotency import MemoryIdempotencyStore
from antiphon.stores.memory.import_records import MemoryImportRecordStore
from antiphon.stores.memory.nodes import MemoryNodeRegistry
from antiphon.stores.memory.shares import MemoryShareStore
from antiphon.stores.memory.turns import MemoryTurns, TurnRecord
from antiphon.stores.search_tokenizer import (
    MAX_TERM_COUNT,
    SearchQuery,
    bm25_score,
    bm25_weights,
    build_excerpt,
    parse_query,
    searchable_text,
    tokenize,
)
from antiphon.turn.search_protocols import SearchHit
from antiphon.turn.store_protocols import (
    NO_FILTER,
    ApiKey,
    Head,
    HistoryEnd,
    HistoryTurn,
    NewTurn,
    ResponseFilter,
    StoredTurn,
    Stores,
    Window,
    unknown_cursor,
)


class MemoryResponseIndex:
    """A ``ResponseIndex`` in this process's memory."""

    def __init__(self, turns: MemoryTurns, conversations: MemoryConversationStore) -> None:
        self._turns = turns
        self._conversations = conversations

    async def list_responses(
        self,
        tenant: str,
        limit: int,
        *,
        after: str | None = None,
        newest_first: bool = True,
        response_filter: ResponseFilter = NO_FILTER,
    ) -> list[StoredTurn]:
        self._turns.check_open()
        mine = [
            record
            for record in self._turns.records.values()
            if record.tenant == tenant and record.turn is not None
        ]
        mine.sort(key=lambda record: (record.timestamp, record.sort_key), reverse=newest_first)
        if after is not None:
            positions = [
                position for position, record in enumerate(mine) if record.response_id == after
            ]
            if not positions:
                raise unknown_cursor(after)
            mine = mine[positions[0] + 1 :]
        return [
            self._turns.with_expiry(record, turn)
            for record in mine
            if (turn := record.turn) is not None
            and response_filter.matches(turn.header, turn.end)
            and not self._turns.has_expired(record)
        ][: max(0, limit)]

    def add_fingerprint(
        self, response_id: str, fingerprint: ChainFingerprint
    ) -> asyncio.Future[None]:
        return _completed_future(self._turns.add_fingerprint, response_id, fingerprint)

    async def find_chain(
        self, tenant: str, fingerprints: Sequence[bytes]
    ) -> tuple[int, str] | None:
        self._turns.check_open()
        for position, digest in enumerate(fingerprints):
            for name in reversed(self._turns.fingerprints.get(digest, {})):
                if self._turns.find(tenant, name) is not None:
                    return position, name
        return None

    async def update_metadata(
        self, tenant: str, response_id: str, metadata: dict[str, str]
    ) -> bool:
        found = self._turns.find(tenant, response_id)
        if found is None:
            return False
        record, turn = found
        record.turn = msgspec.structs.replace(turn, header=with_metadata(turn.header, metadata))
        return True

    async def delete_expired(self) -> int:
        self._turns.check_open()
        swept = 0
        for record in list(self._turns.records.values()):
            swept += (
                self._delete_if_expired(record) if record.response_id in self._turns.records else 0
            )
        self._conversations.delete_expired()
        return swept

    def _delete_if_expired(self, record: TurnRecord) -> int:
        """Remove a turn and its descendants, if all have expired and none of them runs."""
        subtree = self._turns.subtree(record)
        running = any(one.turn is not None and one.turn.end is None for one in subtree)
        if record.turn is None or running or not self._turns.has_expired(record):
            return 0
        swept = sum(one.turn is not None for one in subtree)
        for one in reversed(subtree):
            self._turns.remove(one)
        self._turns.note("turn.erased", record, cascade=True)
        return swept


class MemorySearchIndex:
    """A ``SearchIndex`` without an index."""

    def __init__(self, turns: MemoryTurns, chats: MemoryChatStore) -> None:
        self._turns = turns
        self._chats = chats

    async def search(
        self,
        tenant: str,
        query: str,
        limit: int,
        *,
        after: str | None = None,
        chat_id: str | None = None,
    ) -> Sequence[SearchHit]:
        parsed = parse_query(query)
        ranked = await self._rank(tenant, parsed, chat_id)
        return _page_of([found for _, found in ranked], parsed, limit, after)

    async def search_chats(
        self, tenant: str, query: str, limit: int, *, after: str | None = None
    ) -> Sequence[SearchHit]:
        parsed = parse_query(query)
        best: dict[int, tuple[StoredTurn, str]] = {}
        for tree, found in await self._rank(tenant, parsed):
            best.setdefault(tree, found)
        return _page_of(list(best.values()), parsed, limit, after)

    async def _rank(
        self, tenant: str, query: SearchQuery, chat_id: str | None = None
    ) -> list[tuple[int, tuple[StoredTurn, str]]]:
        """The turns that hold all of a query, each with its tree and text, the best first."""
        if not query.terms:
            return []
        tree = None if chat_id is None else await self._chats.find_tree(tenant, chat_id)
        found = [
            (record, turn)
            for record, turn in self._turns.visible_turns(tenant)
            if turn.end is not None and (chat_id is None or record.tree == tree)
        ]
        trees = {turn.response_id: record.tree for record, turn in found}
        ranked = _rank_turns([turn for _, turn in found], query)
        return [(trees[turn.response_id], (turn, text)) for turn, text in ranked]

    async def count_unsearched(self, tenant: str) -> int:
        """0: every search reads all turns."""
        return 0


def _page_of(
    ranked: list[tuple[StoredTurn, str]], query: SearchQuery, limit: int, after: str | None
) -> list[SearchHit]:
    if not query.terms or limit < 1:
        return []
    if after is not None:
        ids = [turn.response_id for turn, _ in ranked]
        if after not in ids:
            raise unknown_cursor(after)
        ranked = ranked[ids.index(after) + 1 :]
    hits = (_build_hit(turn, text, query) for turn, text in ranked)
    return [hit for hit in hits if hit is not None][:limit]


def _rank_turns(turns: list[StoredTurn], query: SearchQuery) -> list[tuple[StoredTurn, str]]:
    """Those that hold all terms, with their texts, the best first."""
    texts = [searchable_text((*turn.input, *turn.output)) for turn in turns]
    counts = [Counter(tokenize(text)) for text in texts]
    lengths = [term_counter.total() for term_counter in counts]
    terms = [term.encode("utf-8", "surrogatepass") for term in query.terms]
    document_counts = [sum(term in term_counter for term_counter in counts) for term in terms]
    scale = bm25_weights(sum(map(bool, counts)), sum(lengths), document_counts)
    found = []
    for turn, text, term_counter, length in zip(turns, texts, counts, lengths, strict=True):
        if all(term in term_counter for term in terms):
            term_counts = [min(term_counter[term], MAX_TERM_COUNT) for term in terms]
            found.append((-bm25_score(scale, term_counts, length), -turn.created_at, turn, text))
    found.sort(key=lambda one: one[:2])
    return [(turn, text) for _, _, turn, text in found]


def _build_hit(turn: StoredTurn, text: str, query: SearchQuery) -> SearchHit | None:
    excerpt = build_excerpt(text, query)
    if excerpt is None:
        return None
    return SearchHit(turn.response_id, turn.created_at, excerpt, turn.header.conversation)


class MemoryApiKeyStore:
    """A ``ApiKeyStore`` in this process's memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._keys: dict[bytes, ApiKey] = {}

    async def add(self, key: ApiKey, sha256: bytes) -> None:
        if sha256 in self._keys or any(known.id == key.id for known in self._keys.values()):
            raise duplicate_key(key)
        self._keys[sha256] = key

    async def find(self, sha256: bytes) -> ApiKey | None:
        key = self._keys.get(sha256)
        return None if key is None or key.revoked_at is not None else key

    async def list_keys(self, tenant: str | None = None) -> list[ApiKey]:
        found = [key for key in self._keys.values() if tenant in (None, key.tenant)]
        return sorted(found, key=lambda key: (key.created_at, key.id))

    async def revoke(self, key_id: str) -> bool:
        for sha256, key in self._keys.items():
            if key.id == key_id:
                if key.revoked_at is None:
                    revoked = msgspec.structs.replace(key, revoked_at=self._clock())
                    self._keys[sha256] = revoked
                return True
        return False

    async def has_keys(self) -> bool:
        return bool(self._keys)


class MemoryHealth:
    """A ``StoreHealth`` of this process's memory, which refuses nothing."""

    refusals = 0

    async def check_writable(self) -> None:
        """Nothing to check."""


class MemoryStore:
    """A ``Store`` without a disk. Its futures are done when it returns them."""

    def __init__(
        self, retention: RetentionPolicy = RETAIN_FOREVER, *, clock: Clock = time.time
    ) -> None:
        self._turns = turns = MemoryTurns(Expiry(retention, clock))
        self._changes = LogChangeFeed(turns.changes)
        turns.changes.on_added = self._changes.notify
        self._idempotency = MemoryIdempotencyStore(clock)
        self._conversations = MemoryConversationStore(turns, self._idempotency)
        nodes = MemoryNodeRegistry(turns, clock)
        chats = MemoryChatStore(turns, self._conversations)
        self.stores = Stores(
            response_index=MemoryResponseIndex(turns, self._conversations),
            conversations=self._conversations,
            api_keys=MemoryApiKeyStore(clock),
            idempotency=self._idempotency,
            search=MemorySearchIndex(turns, chats),
            health=MemoryHealth(),
            chats=chats,
            changes=self._changes,
            shares=MemoryShareStore(clock),
            chat_transfer=MemoryChatTransferStore(turns, self._conversations),
            imports=MemoryImportRecordStore(clock, nodes.node_id),
            nodes=nodes,
        )

    def begin(self, turn: NewTurn) -> asyncio.Future[None]:
        return _completed_future(self._begin, turn)

    def write(
        self, response_id: str, items: Sequence[bytes], end: End | None = None, inline: bool = False
    ) -> asyncio.Future[None]:
        return _completed_future(self._turns.write, response_id, items, end)

    async def head(self, tenant: str, response_id: str) -> Head | None:
        found = self._turns.find(tenant, response_id)
        if found is None:
            return None
        return self._turns.head(*found)

    async def head_with_turns(
        self, tenant: str, response_id: str
    ) -> tuple[Head | None, Iterable[HistoryTurn]]:
        # A read of its own costs no more here.
        return await self.head(tenant, response_id), ()

    async def turn(self, tenant: str, response_id: str) -> StoredTurn | None:
        found = self._turns.find(tenant, response_id)
        return self._turns.with_expiry(*found) if found else None

    async def chain(self, head: Head) -> list[StoredTurn]:
        self._turns.check_open()
        record = self._turns.records.get(head.response_id)
        if record is None or record.tenant != head.tenant or self._turns.has_expired(record):
            return []
        above = self._turns.ancestors(head.response_id)
        return [turn for record in above if (turn := record.turn)][::-1]

    async def history(self, head: Head) -> list[HistoryTurn]:
        now = await self.head(head.tenant, head.response_id)
        if now is None or now.epoch != head.epoch:
            return []
        return [
            HistoryTurn(
                turn.response_id,
                turn.input,
                turn.output,
                HistoryEnd(turn.end.status, turn.end.tokens) if turn.end else None,
                turn.previous_response_id,
                turn.blobs,
            )
            for turn in await self.chain(head)
        ]

    async def window(self, head: Head, window: Window) -> list[StoredTurn]:
        turns = await self.chain(head)
        if window.newest_first:
            turns.reverse()
        if window.at is not None:
            ids = [turn.response_id for turn in turns]
            turns = turns[ids.index(window.at) :] if window.at in ids else []
        return turns[: max(0, window.limit)]

    async def delete(self, tenant: str, response_id: str, *, cascade: bool = False) -> bool:
        found = self._turns.find(tenant, response_id)
        if found is None:
            return False
        record, _ = found
        for one in self._turns.subtree(record) if cascade else [record]:
            self._turns.tombstone(one)
        self._turns.erase_derived_words(record)
        self._turns.bump_epoch(record)
        self._turns.note("turn.erased", record, cascade=cascade)
        return True

    async def close(self) -> None:
        self._changes.close_readers()
        self._turns.close()

    def _begin(self, turn: NewTurn) -> None:
        self._turns.check_open()
        if turn.reservation is not None:
            self._idempotency.check_reservation(turn.tenant, turn.reservation)
        self._turns.check_sources(turn)
        if turn.conversation is not None and not turn.creates_conversation:
            self._conversations.check_head_unchanged(turn.tenant, turn.conversation)
        self._turns.begin(turn)
        if turn.reservation is not None:
            self._idempotency.set_result(turn.tenant, turn.reservation.key, turn.result_id)
        if turn.conversation is not None:
            if turn.creates_conversation:
                self._conversations.insert(turn.tenant, turn.conversation)
            self._conversations.begin_turn(turn.conversation.id, turn)


def _completed_future(work: Callable[..., None], *arguments: Any) -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    try:
        work(*arguments)
    except AntiphonError as error:
        future.set_exception(error)
    else:
        future.set_result(None)
    return future
