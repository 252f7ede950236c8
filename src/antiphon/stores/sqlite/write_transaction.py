"""Write transaction: the jobs of one transaction of the SQLite store.

Jobs collect rows as far as they can; ``flush`` writes them table by table, which costs less
than row by row. A new image is large enough to be written by itself. Nothing here commits, and
the given map of open turns is not changed: ``changed_turns`` has the changes to make once the
commit has succeeded.

Idempotency: a request's reservation is completed in the transaction that stores its result,
so that no crash leaves one without the other.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from antiphon.core.ids import conversation_key, response_key
from antiphon.core.images import Blob
from antiphon.core.turns import ConversationRecord, End, IdempotencyReservation, with_metadata
from antiphon.errors import HistoryChangedError, StoreError, TurnTakenOverError
from antiphon.stores.change_entries import ChangeEntries
from antiphon.stores.conflict_errors import conversation_moved, conversation_not_found
from antiphon.stores.sqlite.chain_reader import check_continuations
from antiphon.stores.sqlite.change_log import write_changes
from antiphon.stores.sqlite.chat_changes import ChatChanges
from antiphon.stores.sqlite.deferred_changes import DEFERRED_COMMITS, apply_deferred
from antiphon.stores.sqlite.deletion import (
    ErasedRows,
    add_text,
    bump_epochs,
    delete_unused_blobs,
    descendant_ranges,
    erase_derived_words,
    replace_text,
    settle_chats,
    tombstone,
    trees_of,
)
from antiphon.stores.sqlite.idempotency import check_reservation, complete_reservation
from antiphon.stores.sqlite.log_rows import write_log_rows
from antiphon.stores.sqlite.multi_row_insert import insert_rows
from antiphon.stores.sqlite.reader import CONVERSATION_SQL, resolve_conversation
from antiphon.stores.sqlite.rows import (
    BLOB_USE,
    END,
    INPUT,
    MAX_ITEMS,
    MAX_SEQ,
    MAX_THREAD,
    OUTPUT,
    TURN_STRIDE,
    Row,
    decode_header,
    encode_blob_use,
    encode_end,
    header_row,
    last_of_turn,
    row_id_of,
)
from antiphon.stores.sqlite.search.removal import take_out_ranges
from antiphon.stores.sqlite.sql_files import TURN_SQL
from antiphon.turn.store_protocols import Head, NewTurn

#: A commit of more turns and chats writes what they change at once: enough of them share the pages.
_MAX_DEFERRED: Final = 8


_encode = msgspec.json.Encoder().encode
_LAST_THREAD = TURN_SQL["last_thread"]
_TURN_AT = TURN_SQL["turn_exists"]
_UNCHANGED = TURN_SQL["is_unchanged"]
_RESPONSE_EXISTS = TURN_SQL["response_exists"]
_OWNER = TURN_SQL["owner"]
_END_RUNNING = TURN_SQL["end_running"]
_ADD_THREAD = TURN_SQL["add_thread"]
_ADD_RESPONSE = TURN_SQL["add_response"]
_ADD_RUNNING = TURN_SQL["add_running"]


class OpenTurn(msgspec.Struct, frozen=True):
    """A turn that this store runs: its row id, that of its next item, its chat and conversation."""

    row_id: int
    next_row_id: int
    tree: int
    tenant: str = ""
    conversation: str | None = None
    model: str = ""
    key_id: str | None = None


class WriteTransaction:
    """The jobs of one transaction on ``connection``, which has begun it.

    ``open_turns`` are the turns this store runs, by response id, as of the last commit.
    """

    def __init__(
        self, connection: sqlite3.Connection, owner: int, open_turns: Mapping[str, OpenTurn]
    ) -> None:
        self.connection = connection
        #: The number of this store among those that are open.
        self.owner = owner
        self._open_turns = open_turns
        #: Responses that were found or written in this transaction, by an import of their chat.
        self._known_here: set[str] = set()
        #: Turns that began, got items, or (None) ended.
        self.changed_turns: dict[str, OpenTurn | None] = {}
        #: Whether something was erased, whose words the write-ahead log still holds.
        self.has_erased = False
        #: Whether something was erased by one of several transactions that follow each other.
        self.erases_more = False
        #: Where.
        self.erased = ErasedRows()
        #: What ``flush`` has written: rows, and changes as SQLite counts them, with triggers'.
        self._flushed = (0, 0)
        self._next_thread: int | None = None
        self._used_row_ids: set[int] = set()
        self._threads: list[tuple[int, str, int, int | None]] = []
        self._responses: list[tuple[bytes, str, int, float, bytes | None]] = []
        self._rows: list[Row] = []
        self._running: dict[int, int] = {}
        self._chats = ChatChanges()
        #: The changes for subscribers of the feed.
        self.changes = ChangeEntries()

    @property
    def progress(self) -> tuple[int, int]:
        """Differs after a job that has written something, at once or for ``flush``."""
        rows, changes = self._flushed
        waiting = len(self._rows) + len(self._responses) + len(self._threads)
        return self.connection.total_changes - changes, rows + waiting

    def begin(self, turn: NewTurn, cutoff: float = -math.inf) -> None:
        """Store a turn's beginning. ``cutoff``: its conversation expires at this timestamp."""
        key = response_key(turn.response_id)
        if key is None:
            raise StoreError(f"{turn.response_id!r} is not a response id.")
        if len(turn.input) + len(turn.blobs) > MAX_ITEMS:
            raise StoreError(f"A turn holds at most {MAX_ITEMS} items.")
        if turn.reservation is not None:
            check_reservation(self.connection, turn.tenant, turn.reservation, self.owner)
        is_next_taken = self._check_sources(turn)
        if turn.seen:
            self.write_rows()
            check_continuations(self.connection, turn.seen)
        if turn.conversation is not None and not turn.creates_conversation:
            self.check_head_unchanged(turn.tenant, turn.conversation, cutoff)
        row_id, tree, is_new_thread = self._allocate_row_id(turn, is_next_taken)
        header = header_row(row_id, key, turn.created_at, turn.header)
        if turn.reservation is not None:
            complete_reservation(self.connection, turn.tenant, turn.reservation.key, turn.result_id)
        if turn.conversation is not None:
            if turn.creates_conversation:
                self.create_conversation(turn.tenant, turn.conversation)
            self._move_head(turn.conversation, key, turn.parent)
        conversation_id = turn.header.conversation
        conversation = conversation_key(conversation_id) if conversation_id else None
        timestamp = turn_timestamp(turn)
        self._responses.append((key, turn.tenant, row_id, timestamp, conversation))
        if row_id == row_id_of(tree, 0):
            self._chats.add_chat(tree, key, turn.tenant, conversation)
        self._chats.add_turn(tree, (timestamp, row_id), is_new_branch=is_new_thread)
        if turn.parent is not None:
            self._chats.continue_turn(row_id_of(turn.parent.thread, turn.parent.seq))
        self._rows.append(header)
        first = row_id + 1
        if turn.blobs:
            uses = [encode_blob_use(self._store_blob(turn.tenant, blob)) for blob in turn.blobs]
            self._rows += [
                (item_row_id, BLOB_USE, use, None) for item_row_id, use in enumerate(uses, first)
            ]
            first += len(uses)
        for item_row_id, item in enumerate(turn.input, first):
            self._rows.append((item_row_id, INPUT, None, item))
        self._running[row_id] = self.owner
        self.changed_turns[turn.response_id] = OpenTurn(
            row_id,
            first + len(turn.input),
            tree,
            turn.tenant,
            conversation_id,
            turn.header.model,
            turn.header.key_id,
        )
        self.changes.add_turn(
            "turn.started", turn.tenant, turn.created_at, tree, key, conversation=conversation_id
        )

    def create_conversation(
        self,
        tenant: str,
        conversation: ConversationRecord,
        reservation: IdempotencyReservation | None = None,
    ) -> None:
        """Insert a conversation, and complete its reservation."""
        if reservation is not None:
            check_reservation(self.connection, tenant, reservation, self.owner)
            complete_reservation(self.connection, tenant, reservation.key, conversation.id)
        key = conversation_key(conversation.id)
        metadata = add_text(self.connection, _encode(conversation.metadata))
        self.connection.execute(
            CONVERSATION_SQL["create"], (key, tenant, conversation.created_at, metadata)
        )
        self.changes.add_conversation("conversation.created", tenant, conversation.id)

    def write(
        self, response_id: str, items: Sequence[bytes], end: End | None, *, is_import: bool = False
    ) -> None:
        """Append items to a turn, and end it; an imported one used nothing."""
        turn = self._require_open_turn(response_id)
        if turn is None:
            return
        after = turn.next_row_id + len(items)
        if after > last_of_turn(turn.row_id):
            raise StoreError(f"A turn holds at most {MAX_ITEMS} items.")
        if not self._is_still_running(turn.row_id, ends=end is not None):
            self.changed_turns[response_id] = None
            return
        for item_row_id, item in enumerate(items, turn.next_row_id):
            self._rows.append((item_row_id, OUTPUT, None, item))
        if end is None:
            self.changed_turns[response_id] = msgspec.structs.replace(turn, next_row_id=after)
        else:
            self._rows.append((last_of_turn(turn.row_id), END, None, encode_end(end)))
            in_sums = None if is_import else (turn.tenant, turn.model, turn.key_id)
            self._chats.end_turn(turn.tree, turn.row_id, end, in_sums)
            key = response_key(response_id)
            where = (turn.tenant, end.ended_at, turn.tree, key)
            self.changes.add_turn(
                "turn.ended", *where, conversation=turn.conversation, status=end.status
            )
            if end.approvals:
                self.changes.add_turn("turn.waiting", *where, conversation=turn.conversation)
            self.changed_turns[response_id] = None

    def add_whole_turn(self, turn: NewTurn, output: Sequence[bytes], end: End) -> int:
        """Store a turn with its end; its row id.

        Its parent, or else its sibling, was found in this transaction.
        """
        near = (turn.parent, turn.sibling)
        self._known_here = {head.response_id for head in near if head is not None}
        # One change of the chat stands for those of its turns.
        changes, self.changes = self.changes, ChangeEntries()
        self.begin(turn)
        opened = self.changed_turns[turn.response_id]
        assert opened is not None, "it has just begun"
        self.write(turn.response_id, output, end, is_import=True)
        self._known_here, self.changes = set(), changes
        return opened.row_id

    def delete(self, tenant: str, response_id: str, cascade: bool) -> bool:
        self.flush()
        row_id = self._fetch_one(TURN_SQL["row_id"], (response_key(response_id), tenant))
        if row_id is None:
            return False
        row_ranges = (
            descendant_ranges(self.connection, row_id)
            if cascade
            else [(row_id, last_of_turn(row_id))]
        )
        take_out_ranges(self.connection, row_ranges)
        delete_unused_blobs(
            self.connection,
            set().union(*[tombstone(self.connection, one, self.erased) for one in row_ranges]),
            self.erased,
        )
        if not cascade:
            erase_derived_words(self.connection, row_id, self.erased)
        bump_epochs(self.connection, [row_id])
        self.has_erased = True
        for tree in trees_of(self.connection, [row_id]):
            key = response_key(response_id)
            self.changes.add_erasure(tenant, tree, key, cascade=cascade)
        return True

    def update_metadata(self, tenant: str, response_id: str, metadata: dict[str, str]) -> bool:
        """Set a turn's metadata."""
        self.flush()
        row_id = self._fetch_one(TURN_SQL["row_id"], (response_key(response_id), tenant))
        if row_id is None:
            return False
        ((key, body),) = self.connection.execute(TURN_SQL["row"], (row_id,)).fetchall()
        header = with_metadata(decode_header(key, body).header, metadata)
        replace_text(self.connection, row_id, _encode(header), self.erased)
        self.has_erased = True
        return True

    def end_orphan(self, owner: int, row_id: int, end: End) -> None:
        """End a turn of an owner that is dead."""
        self.connection.execute(_END_RUNNING, (row_id, owner))
        self._rows.append((last_of_turn(row_id), END, None, encode_end(end)))
        for key, tenant, tree in self.connection.execute(TURN_SQL["place"], (row_id,)).fetchall():
            self.changes.add_turn("turn.ended", tenant, end.ended_at, tree, key, status=end.status)

    def find_open_turn(self, response_id: str) -> OpenTurn | None:
        """A turn that this store runs, as this transaction has it; None: it runs no such turn."""
        if response_id in self.changed_turns:
            return self.changed_turns[response_id]
        return self._open_turns.get(response_id)

    def write_rows(self) -> None:
        """Write the rows collected so far, for jobs that read turns."""
        connection = self.connection
        waiting = len(self._rows) + len(self._responses) + len(self._threads)
        before = connection.total_changes
        if self._threads:
            insert_rows(connection, _ADD_THREAD, self._threads)
            self._threads = []
        if self._responses:
            insert_rows(connection, _ADD_RESPONSE, self._responses)
            self._responses = []
        if self._rows:
            self._chats.add_pending(write_log_rows(connection, self._rows))
            self._rows = []
        if self._running:
            insert_rows(connection, _ADD_RUNNING, list(self._running.items()))
            self._running = {}
        self._chats.write_new(connection)
        self._count_flushed(before, waiting)

    def flush(self) -> None:
        """The same, and bring chats, sums of usage and pending turns up to date, for jobs that read
        or change these, or erase something.
        """
        self.write_rows()
        before = self.connection.total_changes
        apply_deferred(self.connection)
        self._chats.apply(self.connection)
        self.settle_chats()
        write_changes(self.connection, self.changes)
        self._count_flushed(before, 0)

    def finish(self) -> None:
        """Write what is left, before the commit, or defer what of that can be."""
        self.write_rows()
        # They are stored with a row of changes.
        count = self._chats.count
        if self.erased.trees or count > (_MAX_DEFERRED if len(self.changes) else 0):
            self.flush()
            return
        row_id = write_changes(self.connection, self.changes, self._chats.encode())
        if row_id and row_id % DEFERRED_COMMITS == 0:
            apply_deferred(self.connection)

    def _count_flushed(self, before: int, waiting: int) -> None:
        rows, changes = self._flushed
        changes += self.connection.total_changes - before
        self._flushed = (rows + waiting, changes)

    def settle_chats(self) -> None:
        """Bring the chats of erased turns up to date."""
        if self.erased.trees:
            for chat in settle_chats(self.connection, self.erased):
                self.changes.add_erased_chat(chat.tenant, chat.key)

    def _fetch_one(self, query: str, values: tuple[object, ...]) -> int | None:
        rows = self.connection.execute(query, values).fetchall()
        return rows[0][0] if rows else None

    def _check_sources(self, turn: NewTurn) -> bool | None:
        """Reject a turn whose parent or other sources have changed since they were read.

        Returns whether another turn follows the parent in its thread; None: not looked up.
        """
        is_next_taken: bool | None = None
        parent = turn.parent
        if parent is not None and parent.tenant != turn.tenant:
            raise StoreError("A turn cannot continue another tenant's response.")
        if parent is not None and parent.seq >= MAX_SEQ:
            raise StoreError(f"A chain holds at most {MAX_SEQ + 1} turns.")
        if turn.sibling is not None and turn.sibling.tenant != turn.tenant:
            raise StoreError("A turn cannot stand beside another tenant's response.")
        for head in (parent, turn.sibling, *turn.sources):
            if head is None or head.response_id in self._known_here:
                continue
            # The id detects a row id that was swept and reused by another turn.
            row_id = row_id_of(head.thread, head.seq)
            seen = (row_id + TURN_STRIDE, row_id, response_key(head.response_id))
            is_taken = self._fetch_one(_UNCHANGED, (*seen, head.tree, head.epoch))
            if is_taken is None:
                raise HistoryChangedError()
            if head is parent:
                is_next_taken = bool(is_taken)
        return is_next_taken

    def check_head_unchanged(self, tenant: str, seen: ConversationRecord, cutoff: float) -> None:
        """Reject a turn on a conversation whose head or active turn has changed since."""
        self.write_rows()
        now, _ = resolve_conversation(self.connection, tenant, seen.id, cutoff)
        if now is None:
            raise conversation_not_found(seen.id, "conversation")
        if now.active_response_id is not None or now.head != seen.head:
            raise conversation_moved(seen.id)

    def _move_head(
        self, conversation: ConversationRecord, active: bytes, parent: Head | None
    ) -> None:
        head = response_key(parent.response_id) if parent else None
        self.connection.execute(
            CONVERSATION_SQL["move_head"], (head, active, conversation_key(conversation.id))
        )

    def _allocate_row_id(self, turn: NewTurn, is_next_taken: bool | None) -> tuple[int, int, bool]:
        """The row id right after the parent unless it is taken, else one in a new thread.

        With its tree, and whether the thread is new.
        """
        parent = turn.parent
        if parent is None:
            thread = self._new_thread()
            tree = thread if turn.sibling is None else turn.sibling.tree
            self._threads.append((thread, turn.tenant, tree, None))
            return row_id_of(thread, 0), tree, True
        at = row_id_of(parent.thread, parent.seq)
        row_id = at + TURN_STRIDE
        if is_next_taken is None:
            is_next_taken = self._fetch_one(_TURN_AT, (row_id,)) is not None
        is_new = is_next_taken or row_id in self._used_row_ids
        if is_new:
            thread = self._new_thread()
            self._threads.append((thread, turn.tenant, parent.tree, at))
            row_id = row_id_of(thread, parent.seq + 1)
        self._used_row_ids.add(row_id)
        return row_id, parent.tree, is_new

    def _new_thread(self) -> int:
        if self._next_thread is None:
            self._next_thread = (self._fetch_one(_LAST_THREAD, ()) or 0) + 1
        thread = self._next_thread
        if thread > MAX_THREAD:
            raise StoreError("This database has no room for another conversation.")
        self._next_thread = thread + 1
        return thread

    def _require_open_turn(self, response_id: str) -> OpenTurn | None:
        """None: the turn has ended or was erased. StoreError: it never began."""
        turn = self.find_open_turn(response_id)
        if turn is not None or response_id in self.changed_turns:
            return turn
        if self._fetch_one(_RESPONSE_EXISTS, (response_key(response_id),)) is None:
            raise StoreError("This turn's beginning was not stored, so the rest cannot be.")
        return turn

    def _store_blob(self, tenant: str, blob: Blob) -> int:
        """The number of the blob's row, which is written if the tenant has none yet."""
        key = bytes.fromhex(blob.hash)
        known = self._fetch_one(TURN_SQL["blob_id"], (tenant, key))
        if known is not None:
            return known
        number = self.connection.execute(TURN_SQL["add_blob"], (tenant, key, blob.data)).lastrowid
        assert number is not None
        return number

    def _is_still_running(self, row_id: int, *, ends: bool) -> bool:
        """False: it was ended or erased. With ``ends``, it stops running now.

        Raises ``TurnTakenOverError``.
        """
        if row_id in self._running:
            if ends:
                del self._running[row_id]
            return True
        if ends and self.connection.execute(_END_RUNNING, (row_id, self.owner)).rowcount == 1:
            return True
        owner = self._fetch_one(_OWNER, (row_id,))
        if owner is not None and owner != self.owner:
            raise TurnTakenOverError("Another process runs this turn by now.")
        return owner is not None


def turn_timestamp(turn: NewTurn) -> float:
    """The time that a turn's age counts from, or its parent's timestamp if that is later."""
    own = turn.created_at if turn.stored_at is None else turn.stored_at
    return max(own, turn.parent.timestamp) if turn.parent else own
