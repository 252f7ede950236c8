"""Chats as a whole in PostgreSQL: imported in one transaction, and listed with all branches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from antiphon.core.ids import (
    chat_id_of,
    conversation_key,
    new_conversation_id,
    new_response_id,
    response_id_of,
    response_key,
)
from antiphon.core.retention import Expiry
from antiphon.stores.imported_conversations import header_in, new_head_of, record_of
from antiphon.stores.postgres.chat_reader import CHAT_SQL, read_records
from antiphon.stores.postgres.chats import set_chat_fields
from antiphon.stores.postgres.conversation_reader import (
    CONVERSATION_SQL,
    resolve_conversation,
)
from antiphon.stores.postgres.database import PostgresDatabase
from antiphon.stores.postgres.reader import has_expired, read_head
from antiphon.stores.postgres.rows import TurnKey
from antiphon.stores.postgres.sql_files import read_queries
from antiphon.stores.postgres.write_transaction import WriteTransaction
from antiphon.turn.chat_protocols import ChatUpdate
from antiphon.turn.store_protocols import Head, NewTurn
from antiphon.turn.transfer_protocols import ChatImport, ChatImportResult, TreeTurn, TurnImport

if TYPE_CHECKING:
    from antiphon.stores.postgres.connection import Connection

_SQL: Final = read_queries("chat_transfer.sql")


class PostgresChatTransferStore:
    """A ``ChatTransferStore`` in a PostgreSQL database.

    ``on_turn_end`` is called for each import, so that the search index looks for new turns.
    """

    def __init__(self, database: PostgresDatabase, on_turn_end: Callable[[], None]) -> None:
        self._database = database
        self._on_turn_end = on_turn_end

    async def import_chat(self, chat: ChatImport) -> ChatImportResult:
        self._on_turn_end()
        result: ChatImportResult = await self._database.submit(
            import_chat, chat, self._database.expiry
        )
        return result

    async def tree(self, tenant: str, response_id: str) -> list[TreeTurn]:
        cutoff = self._database.expiry.cutoff(tenant)
        return await self._database.read_snapshot(
            lambda connection: _read_tree(connection, tenant, response_id, cutoff)
        )


class _KnownTurn(msgspec.Struct, frozen=True):
    """A turn that was there before: it, or the tombstone in its position."""

    head: Head
    is_erased: bool


async def import_chat(
    transaction: WriteTransaction, chat: ChatImport, expiry: Expiry
) -> ChatImportResult:
    """Write the turns of a chat that are not there yet."""
    await transaction.flush()
    known = await _find_known(transaction, chat, expiry.cutoff(chat.tenant))
    if all(one is None or one.is_erased for one in known):
        # Nothing is left of it: whoever imports it again wants it back.
        known = [None] * len(known)
    now = expiry.clock()
    times = await _times_of(transaction, known)
    tree = next((one.head.tree for one in known if one is not None), None)
    conversation_id = await _conversation_id(transaction, chat, tree, expiry)
    heads: list[Head] = []
    added: list[tuple[bytes, TurnKey, bool]] = []
    for turn, one in zip(chat.turns, known, strict=True):
        parent = None if turn.parent is None else heads[turn.parent]
        if one is not None:
            head = one.head
        else:
            first = heads[0] if heads else None
            header = header_in(turn, conversation_id)
            changed = msgspec.structs.replace(turn, header=header)
            head = await _add_turn(transaction, chat.tenant, changed, (parent, first), now)
            key = TurnKey(head.tree, head.thread, head.seq)
            added.append((turn.digest, key, turn.is_of_words))
        heads.append(head)
    await transaction.flush()
    assert heads, "a chat has turns"
    if added:
        digests, keys, kinds = zip(*added, strict=True)
        columns = zip(*keys, strict=True)
        await transaction.execute(_SQL["remember"], chat.tenant, digests, *columns, kinds)
        await _set_chat(transaction, chat, heads[0], times, now)
    names = tuple(head.response_id for head in heads)
    if added and conversation_id is not None:
        if times is None:
            await _create_conversation(transaction, chat, conversation_id, heads)
        else:
            await _move_on(transaction, chat, conversation_id, names, expiry)
    return ChatImportResult(
        chat_id_of(await transaction.connection.fetchval(CHAT_SQL["key"], heads[0].tree)),
        names,
        len(added),
        sum(one is not None and one.is_erased for one in known),
        conversation_id,
    )


async def _conversation_id(
    transaction: WriteTransaction, chat: ChatImport, tree: int | None, expiry: Expiry
) -> str | None:
    """The id that a chat's conversation has here, or gets; None: there is none."""
    if chat.conversation is None:
        return None
    if tree is not None:
        records, _ = await read_records(transaction.connection, chat.tenant, [tree], expiry)
        return records[tree].conversation if tree in records else None
    key = conversation_key(chat.conversation.id)
    exists = CONVERSATION_SQL["created_at"]
    is_taken = key is None or await transaction.connection.fetchrow(exists, chat.tenant, key)
    return new_conversation_id() if is_taken else chat.conversation.id


async def _create_conversation(
    transaction: WriteTransaction, chat: ChatImport, name: str, heads: Sequence[Head]
) -> None:
    """Create the conversation of a chat that is new."""
    assert chat.conversation is not None, "it has an id"
    await transaction.create_conversation(chat.tenant, record_of(chat.conversation, name))
    position = chat.conversation.head
    head = None if position is None else response_key(heads[position].response_id)
    await transaction.move_head(chat.tenant, name, head, None)
    await transaction.execute(CHAT_SQL["set_conversation"], heads[0].tree, conversation_key(name))


async def _move_on(
    transaction: WriteTransaction,
    chat: ChatImport,
    name: str,
    response_ids: Sequence[str],
    expiry: Expiry,
) -> None:
    """Move the head of a conversation on to turns that were added, where they continue it."""
    cutoff = expiry.cutoff(chat.tenant)
    current, _ = await resolve_conversation(transaction.connection, chat.tenant, name, cutoff)
    head = None if current is None else new_head_of(chat, response_ids, current)
    if head is not None:
        await transaction.move_head(chat.tenant, name, response_key(head), None)
        transaction.changes.add_conversation("conversation.moved", chat.tenant, name)


async def _times_of(
    transaction: WriteTransaction, known: Sequence[_KnownTurn | None]
) -> tuple[float, float] | None:
    """When a chat was created and last written to; None: it is not there yet."""
    for one in known:
        if one is not None:
            await transaction.lock_tree(one.head.tree)
            row = await transaction.connection.fetchrow(CHAT_SQL["times"], one.head.tree)
            return None if row is None else (row[0], row[1])
    return None


async def _set_chat(
    transaction: WriteTransaction,
    chat: ChatImport,
    first: Head,
    times: tuple[float, float] | None,
    now: float,
) -> None:
    """Give a chat the times that it had, and one that is new its title and the rest."""
    created_at, updated_at = times or (chat.created_at, chat.updated_at)
    updated_at = max(updated_at, chat.updated_at)
    values = (first.tree, created_at, updated_at, now)
    await transaction.execute(CHAT_SQL["set_imported"], *values)
    transaction.changes.add_chat("chat.updated", chat.tenant, first.tree)
    if times is None:
        update = ChatUpdate(title=chat.title, is_pinned=chat.is_pinned, metadata=chat.metadata)
        await set_chat_fields(transaction, first.tree, update)


async def _find_known(
    transaction: WriteTransaction, chat: ChatImport, cutoff: float
) -> list[_KnownTurn | None]:
    """Which turns are there, by their digests or else their responses."""
    connection = transaction.connection
    digests = [turn.digest for turn in chat.turns]
    keys = [response_key(turn.response_id) for turn in chat.turns]
    rows = await connection.fetch(_SQL["known"], chat.tenant, digests, keys)
    found: list[_KnownTurn | None] = [None] * len(chat.turns)
    for number, tree, thread, seq, epoch, key, timestamp in rows:
        head = Head(
            response_id_of(key),
            chat.tenant,
            thread,
            seq,
            tree,
            epoch,
            is_running=False,
            timestamp=timestamp or 0.0,
        )
        is_erased = timestamp is None or (
            timestamp <= cutoff
            and await has_expired(connection, TurnKey(tree, thread, seq), cutoff)
        )
        found[number - 1] = _KnownTurn(head, is_erased)
    return found


async def _add_turn(
    transaction: WriteTransaction,
    tenant: str,
    turn: TurnImport,
    near: tuple[Head | None, Head | None],
    now: float,
) -> Head:
    """Write one turn; its head. ``near`` are its parent and the first turn of its chat."""
    parent, first = near
    key = response_key(turn.response_id)
    is_taken = key is None or await transaction.connection.fetchval(_SQL["is_taken"], key)
    new = NewTurn(
        new_response_id() if is_taken else turn.response_id,
        tenant,
        turn.created_at,
        turn.header,
        turn.input,
        parent=parent,
        sibling=first if parent is None else None,
        blobs=turn.blobs,
        stored_at=now,
    )
    position = await transaction.add_whole_turn(new, turn.output, turn.end)
    return Head(
        new.response_id,
        tenant,
        position.thread,
        position.seq,
        position.tree,
        0 if first is None else first.epoch,
        is_running=False,
        timestamp=now,
    )


async def _read_tree(
    connection: Connection, tenant: str, response_id: str, cutoff: float
) -> list[TreeTurn]:
    head, _ = await read_head(connection, tenant, response_id, cutoff)
    if head is None:
        return []
    rows = await connection.fetch(_SQL["tree"], head.tree)
    #: By the response key of a turn or a tombstone: the nearest turn that is not erased.
    nearest: dict[bytes | None, str | None] = {}
    turns: list[TreeTurn] = []
    # Threads are in the order of time, which the clocks of two nodes may not agree on.
    for _, key, previous, created_at, is_living in sorted(rows, key=lambda row: row[0]):
        above = nearest.get(previous)
        if is_living:
            turns.append(TreeTurn(response_id_of(key), created_at, above))
        nearest[key] = response_id_of(key) if is_living else above
    order = {response_id_of(row[1]): number for number, row in enumerate(rows)}
    return _parents_first(sorted(turns, key=lambda turn: order[turn.response_id]))


def _parents_first(turns: list[TreeTurn]) -> list[TreeTurn]:
    """The turns in their order, but each behind its parent."""
    waiting: dict[str | None, list[TreeTurn]] = {}
    placed: set[str | None] = {None}
    found: list[TreeTurn] = []
    for turn in turns:
        ready = [turn]
        if turn.parent not in placed:
            waiting.setdefault(turn.parent, []).append(turn)
            continue
        # Grows as it is walked.
        for one in ready:
            placed.add(one.response_id)
            found.append(one)
            ready += waiting.pop(one.response_id, [])
    return found
