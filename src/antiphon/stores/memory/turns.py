"""In-memory turns: records, threads and blobs, shared by the memory store and its side stores."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from antiphon.core.chain_fingerprints import ChainFingerprint
from antiphon.core.ids import chat_id_of, response_key
from antiphon.core.items import ERASED_SUMMARY_ITEM, is_summary
from antiphon.core.retention import DAY_SECONDS, Expiry
from antiphon.core.turns import End, Header, TurnStatus, Usage
from antiphon.errors import HistoryChangedError, StoreError
from antiphon.stores.conflict_errors import refuse_unseen
from antiphon.stores.memory.changes import MemoryChangeLog
from antiphon.turn.chat_protocols import UsageSum
from antiphon.turn.feed_protocols import Change, ChangeType
from antiphon.turn.store_protocols import Head, NewTurn, StoredTurn


class TurnRecord(msgspec.Struct):
    """A turn with its thread and depth; ``turn`` None: erased, a tombstone."""

    response_id: str
    tenant: str
    thread: int
    seq: int
    tree: int
    parent: str | None
    timestamp: float
    turn: StoredTurn | None = None
    children: list[str] = []
    fingerprint: bytes | None = None
    #: What an import knows it by again, and whether that is a hash of words.
    import_digest: bytes | None = None
    is_digest_of_words: bool = False

    @property
    def sort_key(self) -> tuple[int, int]:
        return self.thread, self.seq


class StoredBlob(msgspec.Struct):
    """A blob's bytes, and the ids of the turns that use it."""

    data: bytes
    response_ids: set[str]


class ChatEntry(msgspec.Struct):
    """What is stored of a chat besides its turns; ``response_ids`` are those not erased."""

    first_response_id: str
    tenant: str
    created_at: float
    response_ids: set[str] = set()
    conversation: str | None = None
    is_pinned: bool = False
    is_permanent: bool = False
    title: str | None = None
    is_title_generated: bool = False
    metadata: dict[str, str] = {}
    usage: Usage = Usage()
    cost: float | None = None
    #: When turns of it were last imported, and when it had been written to until then.
    imported_at: float | None = None
    updated_before: float = 0.0

    @property
    def id(self) -> str:
        return chat_id_of(response_key(self.first_response_id) or b"")


class MemoryTurns:
    """Everything there is, and the rules of its coming and going."""

    def __init__(self, expiry: Expiry) -> None:
        self.expiry = expiry
        self.records: dict[str, TurnRecord] = {}
        #: The ids of each thread's turns, in order.
        self.threads: dict[int, list[str]] = {}
        self.epochs: dict[int, int] = {}
        #: By tenant and hash.
        self.blobs: dict[tuple[str, str], StoredBlob] = {}
        #: The ids of the turns that have a fingerprint, oldest first.
        self.fingerprints: dict[bytes, dict[str, None]] = {}
        self.changes = MemoryChangeLog()
        #: The ids of imported turns, by tenant and digest.
        self.imported: dict[tuple[str, bytes], str] = {}
        #: What ended turns used, by tenant, day, model and key.
        self.sums: dict[tuple[str, int, str, str], UsageSum] = {}
        #: By tree.
        self.chats: dict[int, ChatEntry] = {}
        #: The turns that ended with calls which a person has to agree to.
        self.waiting: set[str] = set()
        self._numbers = itertools.count(1)
        self._closed = False

    def check_open(self) -> None:
        if self._closed:
            raise StoreError("The store is closed.")

    def close(self) -> None:
        self._closed = True
        self.records.clear()
        self.threads.clear()
        self.blobs.clear()
        self.fingerprints.clear()
        self.imported.clear()
        self.chats.clear()

    # Reading

    def find(self, tenant: str, response_id: str) -> tuple[TurnRecord, StoredTurn] | None:
        """A turn that its tenant may see now."""
        self.check_open()
        record = self.records.get(response_id)
        if record is None or record.turn is None or record.tenant != tenant:
            return None
        return None if self.has_expired(record) else (record, record.turn)

    def head(self, record: TurnRecord, turn: StoredTurn) -> Head:
        """Where a turn lies."""
        return Head(
            record.response_id,
            record.tenant,
            record.thread,
            record.seq,
            record.tree,
            self.epochs.get(record.tree, 0),
            is_running=turn.end is None,
            timestamp=record.timestamp,
        )

    def visible_turns(self, tenant: str) -> Iterator[tuple[TurnRecord, StoredTurn]]:
        """All turns that a tenant may see now."""
        self.check_open()
        for record in self.records.values():
            found = self.find(tenant, record.response_id)
            if found is not None:
                yield found

    def has_expired(self, record: TurnRecord) -> bool:
        cutoff = self.expiry.cutoff(record.tenant)
        return record.timestamp <= cutoff and self.latest_timestamp(record) <= cutoff

    def latest_timestamp(self, record: TurnRecord) -> float:
        """The latest timestamp among a turn and its descendants; -inf: all are erased.

        inf: their chat is permanent.
        """
        latest = max(
            (one.timestamp for one in self.subtree(record) if one.turn is not None),
            default=-math.inf,
        )
        chat = self.chats.get(record.tree)
        return math.inf if chat and chat.is_permanent and latest > -math.inf else latest

    def with_expiry(self, record: TurnRecord, turn: StoredTurn) -> StoredTurn:
        """The turn, with the time when it expires."""
        if self.expiry.retention.seconds_for(record.tenant) is None:
            return turn
        at = self.expiry.expires_at(record.tenant, self.latest_timestamp(record))
        return msgspec.structs.replace(turn, expires_at=at)

    def ancestors(self, response_id: str | None) -> Iterator[TurnRecord]:
        """A turn and its ancestors, erased ones too."""
        while response_id is not None and response_id in self.records:
            record = self.records[response_id]
            yield record
            response_id = record.parent

    def subtree(self, record: TurnRecord) -> list[TurnRecord]:
        """A turn and its descendants, each behind its parent."""
        found = [record]
        # Grows as it is walked.
        for one in found:
            found += [self.records[child] for child in one.children]
        return found

    # Writing

    def begin(self, new: NewTurn) -> None:
        self.check_open()
        if response_key(new.response_id) is None or new.response_id in self.records:
            raise StoreError(f"{new.response_id!r} is not a new response id.")
        record = self._new_record(new)
        record.turn = StoredTurn(
            response_id=new.response_id,
            created_at=new.created_at,
            header=new.header,
            input=tuple(new.input),
            output=(),
            end=None,
            previous_response_id=record.parent,
            blobs=self._share_blobs(new),
        )
        self.records[new.response_id] = record
        self.threads.setdefault(record.thread, []).append(new.response_id)
        chat = self.chats.get(record.tree)
        if chat is None:
            chat = ChatEntry(new.response_id, new.tenant, record.timestamp)
            chat.conversation = new.header.conversation
            self.chats[record.tree] = chat
        chat.response_ids.add(new.response_id)
        self.waiting.discard(record.parent or "")
        self.note("turn.started", record, new.created_at)

    def note(
        self,
        change_type: ChangeType,
        record: TurnRecord,
        at: float | None = None,
        *,
        status: TurnStatus | None = None,
        cascade: bool = False,
    ) -> None:
        """Tell those who follow along what became of a turn, unless its chat is gone."""
        chat = self.chats.get(record.tree)
        if chat is not None:
            self.changes.add(
                record.tenant,
                Change(
                    "",
                    change_type,
                    time.time() if at is None else at,
                    chat.id,
                    record.response_id,
                    record.turn.header.conversation if record.turn else None,
                    status,
                    cascade,
                ),
            )

    def note_chat(self, change_type: ChangeType, tenant: str, chat_id: str) -> None:
        """Tell what became of a chat."""
        self.changes.add(tenant, Change("", change_type, time.time(), chat_id))

    def write(
        self, response_id: str, items: Sequence[bytes], end: End | None, *, is_import: bool = False
    ) -> None:
        """Append items to a turn, and end it; an imported one used nothing."""
        self.check_open()
        record = self.records.get(response_id)
        if record is None:
            raise StoreError("This turn's beginning was not stored, so the rest cannot be.")
        turn = record.turn
        if turn is not None and turn.end is None:
            record.turn = msgspec.structs.replace(turn, output=(*turn.output, *items), end=end)
            if end is not None:
                self._end(record, end)
                if not is_import:
                    self._add_to_sums(record.tenant, turn.header, end)

    def _end(self, record: TurnRecord, end: End) -> None:
        chat = self.chats[record.tree]
        chat.usage += end.usage or Usage()
        if end.cost is not None:
            chat.cost = (chat.cost or 0.0) + end.cost
        self.note("turn.ended", record, end.ended_at, status=end.status)
        if end.approvals:
            self.waiting.add(record.response_id)
            self.note("turn.waiting", record, end.ended_at)

    def _add_to_sums(self, tenant: str, header: Header, end: End) -> None:
        usage = msgspec.structs.replace(end.usage or Usage(), reasoning_tokens=0)
        day, model, key_id = (
            int(end.ended_at // DAY_SECONDS),
            end.model or header.model,
            header.key_id,
        )
        one = UsageSum(day, model, 1, usage, end.cost, key_id)
        key = (tenant, day, model, key_id or "")
        self.sums[key] = self.sums[key] + one if key in self.sums else one

    def tombstone(self, record: TurnRecord) -> None:
        """Erase the turn but for its tombstone."""
        turn, record.turn = record.turn, None
        self.erase_fingerprint(record)
        self.erase_import(record, words_only=True)
        if turn is not None:
            self.release_blobs(record, turn.blobs)
            self._leave_chat(record)

    def drop_generated_title(self, tree: int) -> None:
        """A title that a model made of a chat's words goes with any of them."""
        chat = self.chats.get(tree)
        if chat is not None and chat.is_title_generated:
            chat.title, chat.is_title_generated = None, False

    def _leave_chat(self, record: TurnRecord) -> None:
        self.waiting.discard(record.response_id)
        self.drop_generated_title(record.tree)
        chat = self.chats[record.tree]
        chat.response_ids.discard(record.response_id)
        if not chat.response_ids:
            del self.chats[record.tree]
            self.note_chat("chat.erased", record.tenant, chat.id)

    def add_fingerprint(self, response_id: str, fingerprint: ChainFingerprint) -> None:
        self.check_open()
        record = self.records.get(response_id)
        if record is None or record.turn is None or record.turn.end is None:
            return
        if fingerprint.epoch == self.epochs.get(record.tree, 0):
            record.fingerprint = fingerprint.digest
            self.fingerprints.setdefault(fingerprint.digest, {})[response_id] = None

    def add_import(self, record: TurnRecord, digest: bytes, *, is_of_words: bool) -> None:
        """Have an imported turn known by its digest."""
        record.import_digest, record.is_digest_of_words = digest, is_of_words
        self.imported[record.tenant, digest] = record.response_id

    def erase_import(self, record: TurnRecord, *, words_only: bool) -> None:
        """An import does not know the turn any more."""
        digest = record.import_digest
        if digest is None or (words_only and not record.is_digest_of_words):
            return
        record.import_digest = None
        if self.imported.get((record.tenant, digest)) == record.response_id:
            del self.imported[record.tenant, digest]

    def erase_fingerprint(self, record: TurnRecord) -> None:
        """The turn is not found by what was said any more."""
        digest, record.fingerprint = record.fingerprint, None
        if digest is not None:
            names = self.fingerprints[digest]
            del names[record.response_id]
            if not names:
                del self.fingerprints[digest]

    def erase_derived_words(self, record: TurnRecord) -> None:
        """Erase what a turn's descendants hold of its words: summaries, and fingerprints."""
        for one in self.subtree(record):
            self.erase_fingerprint(one)
            self.erase_import(one, words_only=True)
            if one.turn is not None and any(map(is_summary, one.turn.output)):
                rest = [
                    ERASED_SUMMARY_ITEM if is_summary(item) else item for item in one.turn.output
                ]
                one.turn = msgspec.structs.replace(one.turn, output=tuple(rest))

    def release_blobs(self, record: TurnRecord, hashes: Iterable[str]) -> None:
        """The turn uses those images no more."""
        for blob_hash in hashes:
            blob = self.blobs[record.tenant, blob_hash]
            blob.response_ids.discard(record.response_id)
            if not blob.response_ids:
                del self.blobs[record.tenant, blob_hash]

    def remove(self, record: TurnRecord) -> None:
        """Leave nothing of a turn that has no children any more."""
        self.tombstone(record)
        self.erase_import(record, words_only=False)
        del self.records[record.response_id]
        self.threads[record.thread].remove(record.response_id)
        if not self.threads[record.thread]:
            del self.threads[record.thread]
        if record.parent in self.records:
            self.records[record.parent].children.remove(record.response_id)

    def bump_epoch(self, record: TurnRecord) -> None:
        self.epochs[record.tree] = self.epochs.get(record.tree, 0) + 1

    def check_sources(self, new: NewTurn) -> None:
        """Refuse a turn that was made of what is no longer as its maker saw it."""
        if new.parent is not None and new.parent.tenant != new.tenant:
            raise StoreError("A turn cannot continue another tenant's response.")
        if new.sibling is not None and new.sibling.tenant != new.tenant:
            raise StoreError("A turn cannot stand beside another tenant's response.")
        for head in (new.parent, new.sibling, *new.sources):
            if head is None:
                continue
            unchanged = self.epochs.get(head.tree, 0) == head.epoch
            if head.response_id not in self.records or not unchanged:
                raise HistoryChangedError()
        points = [self.records.get(one.head.response_id) for one in new.seen]
        children = [child for point in points if point is not None for child in point.children]
        refuse_unseen(new.seen, (one for one in children if self.records[one].turn is not None))

    def _new_record(self, new: NewTurn) -> TurnRecord:
        name, tenant, parent_head = new.response_id, new.tenant, new.parent
        own = new.created_at if new.stored_at is None else new.stored_at
        if parent_head is None:
            fresh = next(self._numbers)
            tree = fresh if new.sibling is None else new.sibling.tree
            return TurnRecord(name, tenant, fresh, 0, tree, None, own)
        parent = self.records[parent_head.response_id]
        parent.children.append(name)
        newest = self.threads[parent.thread][-1] == parent.response_id
        thread = parent.thread if newest else next(self._numbers)
        timestamp = max(own, parent_head.timestamp)
        return TurnRecord(
            name, tenant, thread, parent.seq + 1, parent.tree, parent.response_id, timestamp
        )

    def _share_blobs(self, new: NewTurn) -> dict[str, bytes]:
        """The turn's blobs, the tenant's own copies where it has sent them before."""
        shared = {}
        for blob in new.blobs:
            stored = self.blobs.setdefault((new.tenant, blob.hash), StoredBlob(blob.data, set()))
            stored.response_ids.add(new.response_id)
            shared[blob.hash] = stored.data
        return shared
