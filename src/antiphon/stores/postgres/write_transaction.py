"""Write transaction: the jobs of one transaction of the PostgreSQL store.

Jobs collect rows as far as they can; ``flush`` writes them table by table, each with one statement.
Nothing here commits, and the given map of open turns is not changed: ``changed_turns`` has the
changes to make once the commit has succeeded.

Order between processes: whoever begins a turn in a tree, ends one or erases something there locks
the chat's row first, and the rows of turns that run after that. What was true when it was looked at
is true until the commit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from antiphon.core.chain_fingerprints import ChainFingerprint
from antiphon.core.ids import conversation_key, response_key
from antiphon.core.images import Blob
from antiphon.core.items import is_summary
from antiphon.core.turns import ConversationRecord, End, IdempotencyReservation
from antiphon.errors import HistoryChangedError, StoreError, TurnTakenOverError
from antiphon.stores.change_entries import ChangeEntries
from antiphon.stores.postgres.chain_reader import check_continuations
from antiphon.stores.postgres.chat_changes import settle_chats
from antiphon.stores.postgres.conversation_reader import check_head_unchanged
from antiphon.stores.postgres.idempotency import check_reservation, complete_reservation
from antiphon.stores.postgres.pending_rows import LogRow, NewResponse, PendingRows, Step
from antiphon.stores.postgres.rows import (
    MAX_ITEMS,
    MAX_SEQ,
    Row,
    ThreadIds,
    TurnKey,
    encode_items,
    encode_json,
    pack_hashes,
)
from antiphon.stores.postgres.sql_files import TURN_SQL, read_queries
from antiphon.turn.store_protocols import Head, NewTurn

if TYPE_CHECKING:
    import asyncpg

    from antiphon.stores.postgres.connection import Connection

_SQL: Final = read_queries("write_transaction.sql")


class OpenTurn(msgspec.Struct, frozen=True):
    """A turn that this store runs: where it lies, its next part, and how many items it has."""

    key: TurnKey
    response_key: bytes
    tenant: str
    model: str
    key_id: str | None
    conversation: str | None
    next_part: int
    items: int
    #: It has ended, or was erased: whatever comes is dropped.
    is_ended: bool = False
    #: Another process began it.
    is_claimed: bool = False


class WriteTransaction:
    """The jobs of one transaction on ``connection``, which has begun it.

    ``open_turns`` are the turns this store runs, by response id, as of the last commit, and
    those that ended lately.
    """

    def __init__(
        self,
        connection: Connection,
        node: int,
        open_turns: Mapping[str, OpenTurn],
        thread_ids: ThreadIds,
    ) -> None:
        self.connection = connection
        self.node = node
        self._open_turns = open_turns
        self._thread_ids = thread_ids
        #: Turns that began, got items, or ended.
        self.changed_turns: dict[str, OpenTurn] = {}
        #: What those who follow along are shown.
        self.changes = ChangeEntries()
        #: The names of the tables where words were erased.
        self.erased: set[str] = set()
        #: Trees of which something was erased, until their chats are settled.
        self.erased_trees: set[int] = set()
        #: Grows with everything that is written, at once or for ``flush``.
        self.progress = 0
        #: What was collected and is not written yet.
        self._rows = PendingRows()
        #: What was looked at, and holds until the end of the transaction.
        self._epochs: dict[int, int | None] = {}
        self._looked_at: dict[TurnKey, tuple[bytes, bool]] = {}
        self._owners: dict[TurnKey, int | None] = {}
        self._used: set[TurnKey] = set()
        self._known_here: set[str] = set()
        #: False: others took this process for dead, and ended its turns.
        self.is_node_alive = True

    # Statements

    async def execute(self, query: str, *values: Any) -> str:
        """Do something that writes; what became of it, as PostgreSQL says it."""
        self.progress += 1
        return await self.connection.execute(query, *values)

    async def fetch(self, query: str, *values: Any) -> list[asyncpg.Record]:
        """Do something that writes, and gives rows."""
        self.progress += 1
        return await self.connection.fetch(query, *values)

    # Looking

    async def look_at(
        self,
        turns: Sequence[NewTurn],
        writes: Sequence[tuple[str, bool]] = (),
        fingerprints: Sequence[tuple[str, ChainFingerprint]] = (),
    ) -> None:
        """Lock and read what turns that begin, and writes with or without an end, depend on."""
        heads = [head for turn in turns for head in sources_of(turn)]
        trees = {head.tree for head in heads}
        held: set[TurnKey] = set()
        for response_id, ends in writes:
            opened = self.find_turn(response_id)
            if opened is not None and not opened.is_ended:
                held.add(opened.key)
                if ends:
                    trees.add(opened.key.tree)
        for response_id, _ in fingerprints:
            if (opened := self.find_turn(response_id)) is not None:
                trees.add(opened.key.tree)
        if turns and not self.is_node_alive:
            raise StoreError("This process was taken for dead: its lease had run out.")
        await self._lock(trees, held - self._rows.beginnings.keys())
        if wanted := {key_of(head) for head in heads} - self._looked_at.keys():
            # In a statement of its own, which sees what was committed until the locks were there.
            rows = await self.connection.fetch(
                TURN_SQL["look_at_turns"], *zip(*sorted(wanted), strict=True)
            )
            for tree, thread, seq, key, is_taken in rows:
                self._looked_at[TurnKey(tree, thread, seq)] = (key, is_taken)

    async def _lock(self, trees: Iterable[int], turns: Iterable[TurnKey] = ()) -> None:
        """Lock the chats of trees and the rows of running turns, in one order for all."""
        missing = sorted(set(trees) - self._epochs.keys())
        running = sorted(set(turns) - self._owners.keys())
        if not missing and not running:
            return
        self._epochs |= dict.fromkeys(missing)
        self._owners |= dict.fromkeys(running)
        columns = zip(*running, strict=True) if running else ((), (), ())
        rows = await self.connection.fetch(TURN_SQL["lock"], missing, *columns)
        for tree, epoch, thread, seq, node in rows:
            if thread is None:
                self._epochs[tree] = epoch
            else:
                self._owners[TurnKey(tree, thread, seq)] = node

    async def lock_tree(self, tree: int) -> None:
        """Write what was collected, and lock a tree, of which something is about to be erased."""
        await self.lock_trees([tree])

    async def lock_trees(self, trees: Iterable[int]) -> None:
        """The same for several."""
        await self.flush()
        await self._lock(trees)

    def forget_looks(self) -> None:
        """Look again: something was erased."""
        self._epochs.clear()
        self._looked_at.clear()
        self._owners.clear()

    # Turns

    async def begin(self, turn: NewTurn, cutoff: float = -math.inf) -> None:
        """Store a turn's beginning. ``cutoff``: its conversation expires at this timestamp."""
        key = response_key(turn.response_id)
        if key is None:
            raise StoreError(f"{turn.response_id!r} is not a response id.")
        if len(turn.input) + len(turn.blobs) > MAX_ITEMS:
            raise StoreError(f"A turn holds at most {MAX_ITEMS} items.")
        if turn.reservation is not None:
            await check_reservation(self, turn.tenant, turn.reservation)
        self._check_sources(turn)
        if turn.seen:
            await self.flush()
            await check_continuations(self.connection, turn.seen)
        if turn.conversation is not None and not turn.creates_conversation:
            await self.check_head_unchanged(turn.tenant, turn.conversation, cutoff)
        if key in self._rows.responses:
            raise StoreError(f"{turn.response_id!r} is not a new response id.")
        await self._store_request(turn, key)
        turn_key, is_new_thread = self._allocate(turn)
        conversation_id = turn.header.conversation
        conversation = conversation_key(conversation_id) if conversation_id else None
        timestamp = turn_timestamp(turn)
        self._rows.responses[key] = NewResponse(turn.tenant, key, turn_key, timestamp, conversation)
        if turn_key.thread == turn_key.tree and turn_key.seq == 0:
            self._rows.chats.add_chat(turn_key.tree, key, turn.tenant, conversation)
        self._rows.chats.add_turn(turn_key, timestamp, is_new_branch=is_new_thread)
        if turn.parent is not None:
            self._rows.chats.continue_turn(turn.tenant, key_of(turn.parent))
        row = LogRow(
            *turn_key,
            part=0,
            key=key,
            previous=response_key(turn.parent.response_id) if turn.parent else None,
            created_at=turn.created_at,
            timestamp=timestamp,
            header=encode_json(turn.header),
            images=pack_hashes(blob.hash for blob in turn.blobs),
            input=encode_items(turn.input),
        )
        self._add_row(row)
        self._rows.beginnings[turn_key] = row
        for blob in turn.blobs:
            await self._store_blob(turn.tenant, blob, turn_key)
        items = len(turn.input) + len(turn.blobs)
        made_with = (turn.header.model, turn.header.key_id, conversation_id)
        opened = OpenTurn(turn_key, key, turn.tenant, *made_with, next_part=1, items=items)
        self.changed_turns[turn.response_id] = opened
        self.changes.add_turn(
            "turn.started",
            turn.tenant,
            turn.created_at,
            turn_key.tree,
            key,
            conversation=conversation_id,
        )

    async def write(
        self, response_id: str, items: Sequence[bytes], end: End | None, *, is_import: bool = False
    ) -> None:
        """Append items to a turn, and end it; an imported one used nothing."""
        turn = self._open_turn(response_id)
        if turn.is_ended:
            return
        if turn.items + len(items) > MAX_ITEMS:
            raise StoreError(f"A turn holds at most {MAX_ITEMS} items.")
        beginning = self._rows.beginnings.get(turn.key)
        if beginning is None and not await self._is_still_mine(turn):
            self.changed_turns[response_id] = msgspec.structs.replace(turn, is_ended=True)
            return
        output = encode_items(items) if items else None
        ending = None if end is None else encode_json(end)
        has_summary = any(map(is_summary, items))
        if beginning is not None and beginning.output is None and beginning.ending is None:
            # It all goes into one row.
            self.progress += 1
            beginning.output, beginning.ending = output, ending
            beginning.has_summary = has_summary
        elif items or end is not None:
            row = LogRow(*turn.key, part=turn.next_part, output=output, ending=ending)
            row.has_summary = has_summary
            self._add_row(row)
            turn = msgspec.structs.replace(turn, next_part=turn.next_part + 1)
        turn = msgspec.structs.replace(turn, items=turn.items + len(items))
        self.changed_turns[response_id] = turn
        if end is not None:
            self._end(response_id, turn, end)
            if not is_import:
                self._rows.chats.add_to_sums(turn.tenant, turn.model, turn.key_id, end)

    def _end(self, response_id: str, turn: OpenTurn, end: End) -> None:
        self.changed_turns[response_id] = msgspec.structs.replace(turn, is_ended=True)
        if (begun := self._rows.responses.get(turn.response_key)) is not None:
            begun.is_running = False
        else:
            self._rows.ended.append(turn.key)
            self._owners[turn.key] = None
        self._rows.searchable.append((turn.tenant, turn.key))
        self._rows.chats.end_turn(turn.tenant, turn.key, end)
        where = (turn.tenant, end.ended_at, turn.key.tree, turn.response_key)
        self.changes.add_turn(
            "turn.ended", *where, conversation=turn.conversation, status=end.status
        )
        if end.approvals:
            self.changes.add_turn("turn.waiting", *where, conversation=turn.conversation)

    async def add_whole_turn(self, turn: NewTurn, output: Sequence[bytes], end: End) -> TurnKey:
        """Store a turn with its end; where it lies.

        Its parent, or else its sibling, was found in this transaction.
        """
        near = [head for head in (turn.parent, turn.sibling) if head is not None]
        self._known_here = {head.response_id for head in near}
        # One change of the chat stands for those of its turns.
        changes, self.changes = self.changes, ChangeEntries()
        await self.look_at([turn])
        await self.begin(turn)
        opened = self.changed_turns[turn.response_id]
        await self.write(turn.response_id, output, end, is_import=True)
        self._known_here, self.changes = set(), changes
        return opened.key

    async def end_unfinished(self, rows: Sequence[Row], end: End) -> None:
        """End running turns. A row: tree, thread, seq, tenant, and the key of the response."""
        if not rows:
            return
        keys = [TurnKey(row[0], row[1], row[2]) for row in rows]
        columns = list(zip(*keys, strict=True))
        await self.execute(TURN_SQL["end_owned"], *columns, encode_json(end))
        await self.execute(TURN_SQL["end_running"], keys)
        for key, row in zip(keys, rows, strict=True):
            self._rows.searchable.append((row[3], key))
            self._owners[key] = None
            self.changes.add_turn(
                "turn.ended", row[3], end.ended_at, key.tree, row[4], status=end.status
            )

    async def add_fingerprint(self, response_id: str, fingerprint: ChainFingerprint) -> None:
        """Have a turn that has ended found by the fingerprint of its chain."""
        turn = self.find_turn(response_id)
        if turn is None or not turn.is_ended:
            return
        if turn.key.tree not in self._epochs:
            # It began in this transaction.
            await self.flush()
            await self._lock([turn.key.tree])
        if self._epochs.get(turn.key.tree) == fingerprint.epoch:
            row = (turn.tenant, fingerprint.digest, *turn.key, turn.response_key)
            self._rows.fingerprints.append(row)
            self.progress += 1

    # Conversations and reservations

    async def check_head_unchanged(
        self, tenant: str, seen: ConversationRecord, cutoff: float
    ) -> None:
        """Reject a turn on a conversation whose head or active turn has changed since."""
        await self.flush()
        await check_head_unchanged(self.connection, tenant, seen, cutoff)

    async def create_conversation(
        self,
        tenant: str,
        conversation: ConversationRecord,
        reservation: IdempotencyReservation | None = None,
    ) -> None:
        """Insert a conversation, and complete its reservation."""
        if reservation is not None:
            await check_reservation(self, tenant, reservation)
            await complete_reservation(self, tenant, reservation.key, conversation.id)
        await self.execute(
            _SQL["create_conversation"],
            tenant,
            conversation_key(conversation.id),
            conversation.created_at,
            encode_json(conversation.metadata),
        )
        self.changes.add_conversation("conversation.created", tenant, conversation.id)

    async def _store_request(self, turn: NewTurn, key: bytes) -> None:
        """Complete a turn's reservation, and move its conversation on."""
        if turn.reservation is not None:
            await complete_reservation(self, turn.tenant, turn.reservation.key, turn.result_id)
        if turn.conversation is None:
            return
        if turn.creates_conversation:
            await self.create_conversation(turn.tenant, turn.conversation)
        head = response_key(turn.parent.response_id) if turn.parent else None
        await self.move_head(turn.tenant, turn.conversation.id, head, key)

    async def move_head(
        self, tenant: str, conversation_id: str, head: bytes | None, active: bytes | None
    ) -> None:
        """Set the newest turn of a conversation that counts, and the newest that has begun."""
        name = conversation_key(conversation_id)
        await self.execute(_SQL["move_head"], tenant, name, head, active)

    # Writing

    async def flush(self) -> None:
        """Write the rows collected so far."""
        for one in self._rows.responses.values():
            self._owners[one.turn] = self.node if one.is_running else None
        await self._rows.flush(self)
        if self.erased_trees:
            trees, self.erased_trees = self.erased_trees, set()
            await settle_chats(self, sorted(trees))

    async def finish(self) -> None:
        """Write all that is left, before the commit."""
        if self.erased_trees:
            await self.flush()
        await self._rows.flush(self, self._last_steps())

    def _last_steps(self) -> list[Step]:
        """What was changed, for those who follow along, and where words were erased."""
        steps: list[Step] = []
        if (body := self.changes.encode()) is not None:
            steps.append((TURN_SQL["add_change"], ([body],)))
        if self.erased:
            steps.append((_SQL["add_erasure"], (sorted(self.erased),)))
        return steps

    def _add_row(self, row: LogRow) -> None:
        self.progress += 1
        self._rows.log.append(row)

    def _check_sources(self, turn: NewTurn) -> None:
        """Reject a turn whose parent or other sources have changed since they were read."""
        parent = turn.parent
        if parent is not None and parent.tenant != turn.tenant:
            raise StoreError("A turn cannot continue another tenant's response.")
        if parent is not None and parent.seq >= MAX_SEQ:
            raise StoreError(f"A chain holds at most {MAX_SEQ + 1} turns.")
        if turn.sibling is not None and turn.sibling.tenant != turn.tenant:
            raise StoreError("A turn cannot stand beside another tenant's response.")
        for head in sources_of(turn):
            if head.response_id in self._known_here:
                continue
            key, _ = self._looked_at.get(key_of(head), (None, False))
            if key != response_key(head.response_id) or self._epochs.get(head.tree) != head.epoch:
                raise HistoryChangedError()

    def _allocate(self, turn: NewTurn) -> tuple[TurnKey, bool]:
        """The place right after the parent if it is free, else one in a new thread.

        And whether the thread is new.
        """
        parent = turn.parent
        if parent is None:
            thread = self._thread_ids.next()
            tree = thread if turn.sibling is None else turn.sibling.tree
            self._rows.threads.append((tree, thread, turn.tenant, None, None))
            return TurnKey(tree, thread, 0), True
        turn_key = TurnKey(parent.tree, parent.thread, parent.seq + 1)
        _, is_taken = self._looked_at.get(key_of(parent), (b"", False))
        is_new = is_taken or turn_key in self._used
        if is_new:
            thread = self._thread_ids.next()
            self._rows.threads.append((parent.tree, thread, turn.tenant, parent.thread, parent.seq))
            turn_key = TurnKey(parent.tree, thread, parent.seq + 1)
        self._used.add(turn_key)
        return turn_key, is_new

    def find_turn(self, response_id: str) -> OpenTurn | None:
        """A turn that this store runs or ran lately, as this transaction has it."""
        return self.changed_turns.get(response_id) or self._open_turns.get(response_id)

    def _open_turn(self, response_id: str) -> OpenTurn:
        """Raises ``StoreError`` where it never began here."""
        turn = self.find_turn(response_id)
        if turn is None:
            raise StoreError("This turn's beginning was not stored, so the rest cannot be.")
        return turn

    async def _is_still_mine(self, turn: OpenTurn) -> bool:
        """False: it was erased. ``TurnTakenOverError``: another process has ended it, or runs it.

        What another has ended must not look ended otherwise to those who read it here.
        """
        owner = self._owners.get(turn.key)
        if owner == self.node:
            return True
        if owner is not None:
            raise TurnTakenOverError("Another process runs this turn by now.")
        if await self.connection.fetch(TURN_SQL["has_ended"], *turn.key):
            raise TurnTakenOverError("Another process has ended this turn.")
        return False

    async def _store_blob(self, tenant: str, blob: Blob, turn: TurnKey) -> None:
        key = bytes.fromhex(blob.hash)
        # Held, so that whoever erases its last use at this moment sees this one, or the
        # other way round.
        while not await self.connection.fetch(TURN_SQL["hold_blob"], tenant, key):
            await self.execute(TURN_SQL["add_blob"], tenant, key, blob.data)
        await self.execute(TURN_SQL["add_blob_use"], tenant, key, *turn)


def sources_of(turn: NewTurn) -> list[Head]:
    """The responses that a turn was made of."""
    return [head for head in (turn.parent, turn.sibling, *turn.sources) if head is not None]


def key_of(head: Head) -> TurnKey:
    """Where a response lies."""
    return TurnKey(head.tree, head.thread, head.seq)


def turn_timestamp(turn: NewTurn) -> float:
    """The time that a turn's age counts from, or its parent's timestamp if that is later."""
    own = turn.created_at if turn.stored_at is None else turn.stored_at
    return max(own, turn.parent.timestamp) if turn.parent else own
