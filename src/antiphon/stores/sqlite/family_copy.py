"""Copies of a SQLite store: its families as records, and records as families."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Final

from antiphon.core.ids import conversation_key
from antiphon.errors import StoreError
from antiphon.stores.family_builder import FamilyBuilder
from antiphon.stores.sqlite.chat_changes import write_pending
from antiphon.stores.sqlite.database import SqliteDatabase
from antiphon.stores.sqlite.deletion import (
    add_text,
    delete_conversation,
    delete_rows,
    delete_texts,
    delete_unused_blobs,
)
from antiphon.stores.sqlite.log_rows import write_log_rows
from antiphon.stores.sqlite.reader import read_rows, snapshot
from antiphon.stores.sqlite.rows import (
    BLOB_USE,
    END,
    INPUT,
    OUTPUT,
    TOMBSTONE,
    TURN_STRIDE,
    Row,
    decode_blob_use,
    decode_end,
    decode_header,
    encode_blob_use,
    encode_end,
    header_row,
    last_of_thread,
    last_of_turn,
    row_id_of,
    seq_of,
    thread_of,
)
from antiphon.stores.sqlite.sql_files import TURN_SQL, read_queries
from antiphon.stores.sqlite.write_transaction import WriteTransaction
from antiphon.turn.copy_protocols import (
    CopiedRow,
    Family,
    FamilyChat,
    FamilyTurn,
    ReplacedFamily,
    TurnPosition,
)

_SQL: Final = read_queries("family_copy.sql")
#: The queries that read, write and delete rows of a table.
_READ: Final = {
    "api_keys": _SQL["read_api_keys"],
    "shares": _SQL["read_shares"],
    "conversations": _SQL["read_conversations"],
    "idempotency_records": _SQL["read_idempotency_records"],
    "usage_sums": _SQL["read_usage_sums"],
}
_WRITE: Final = {
    "api_keys": _SQL["write_api_keys"],
    "shares": _SQL["write_shares"],
    "conversations": _SQL["write_conversations"],
    "idempotency_records": _SQL["write_idempotency_records"],
    "usage_sums": _SQL["write_usage_sums"],
}
_DELETE: Final = {
    "api_keys": _SQL["delete_api_keys"],
    "shares": _SQL["delete_shares"],
    "idempotency_records": _SQL["delete_idempotency_records"],
    "usage_sums": _SQL["delete_usage_sums"],
}
#: What is before all rows of a table.
_BEFORE_FIRST: Final[Mapping[str, CopiedRow]] = {
    "api_keys": ("",),
    "shares": ("",),
    "conversations": ("", -math.inf, b""),
    "idempotency_records": ("", b""),
    "usage_sums": ("", -1, "", ""),
}


class SqliteCopyStore:
    """A ``CopyStore`` in the file of a SQLite store."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def family_numbers(self, after: int, limit: int) -> Sequence[int]:
        values = {"after": after, "limit": limit}
        return [number for (number,) in await self._fetch(_SQL["families"], values)]

    async def read_families(self, numbers: Sequence[int]) -> Sequence[Family | None]:
        await self._database.apply_deferred()
        return await self._database.read_pooled(partial(_read_families, numbers=numbers))

    async def find_families(self, keys: Sequence[tuple[str, bytes]]) -> Sequence[int | None]:
        def find(connection: sqlite3.Connection) -> list[int | None]:
            query = _SQL["family_of"]
            found = [connection.execute(query, (key, tenant)).fetchall() for tenant, key in keys]
            return [rows[0][0] if rows else None for rows in found]

        return await self._database.read_pooled(find)

    async def read_blobs(self, tenant: str, hashes: Sequence[str]) -> Mapping[str, bytes]:
        def read(connection: sqlite3.Connection) -> dict[str, bytes]:
            return {
                name: data
                for name in hashes
                for (data,) in connection.execute(_SQL["blob"], (tenant, bytes.fromhex(name)))
            }

        return await self._database.read_pooled(read)

    async def missing_blobs(self, tenant: str, hashes: Sequence[str]) -> Sequence[str]:
        def find(connection: sqlite3.Connection) -> list[str]:
            query = TURN_SQL["blob_id"]
            return [
                name
                for name in hashes
                if not connection.execute(query, (tenant, bytes.fromhex(name))).fetchall()
            ]

        return await self._database.read_pooled(find)

    async def write_families(
        self,
        families: Sequence[ReplacedFamily],
        blobs: Mapping[tuple[str, str], bytes],
        position: int | None = None,
    ) -> None:
        await self._database.submit(_write_families, families, blobs, position)

    async def delete_families(self, numbers: Sequence[int]) -> None:
        await self._database.submit(_delete_families, numbers)

    async def read_rows(
        self, table: str, after: CopiedRow | None, limit: int
    ) -> Sequence[CopiedRow]:
        await self._database.apply_deferred()
        start = _BEFORE_FIRST[table] if after is None else after
        return await self._fetch(_READ[table], (*start, limit))

    async def write_rows(
        self, table: str, rows: Sequence[CopiedRow], removed: Sequence[CopiedRow]
    ) -> None:
        await self._database.submit(_write_rows, table, rows, removed)

    async def count(self) -> int:
        ((families,),) = await self._fetch(_SQL["count"], ())
        number: int = families
        return number

    async def begin_copy(self, source: str) -> int | None:
        position: int | None = await self._database.submit(_begin_copy, source)
        return position

    async def end_copy(self) -> None:
        if await self._fetch(_SQL["is_copy"], ()):
            await self._database.submit(_end_copy)

    async def _fetch(self, query: str, values: Mapping[str, object] | tuple[object, ...]) -> list:  # type: ignore[type-arg]
        def fetch(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
            return connection.execute(query, values).fetchall()

        return await self._database.read_pooled(fetch)


def _read_families(connection: sqlite3.Connection, numbers: Sequence[int]) -> list[Family | None]:
    with snapshot(connection):
        return [_read_family(connection, number) for number in numbers]


def _read_family(connection: sqlite3.Connection, tree: int) -> Family | None:
    builder = FamilyBuilder()
    threads = connection.execute(_SQL["threads"], {"tree": tree}).fetchall()
    for thread, _, parent in threads:
        above = None if parent is None else (thread_of(parent), seq_of(parent))
        builder.add_thread(thread, above, partial(_read_thread, connection, thread))
    epochs = connection.execute(_SQL["epoch"], (tree,)).fetchall()
    epoch = epochs[0][0] if epochs else 0
    tenant = threads[0][1] if threads else ""
    return builder.build(tenant, epoch, _read_chat(connection, tree))


def _read_thread(connection: sqlite3.Connection, thread: int, number: int) -> list[FamilyTurn]:
    """The turns of a thread, up to one that runs."""
    first = row_id_of(thread, 0)
    row_range = (first, last_of_thread(first))
    marks = {
        row_id: rest for row_id, *rest in connection.execute(_SQL["marks"], row_range).fetchall()
    }
    turns: list[FamilyTurn] = []
    for _, of_turn in groupby(read_rows(connection, *row_range), lambda row: row[0] // TURN_STRIDE):
        rows = list(of_turn)
        row_id, kind, key, text = rows[0]
        timestamp, is_waiting, fingerprint, digest, is_of_words = marks[row_id]
        position = (number, seq_of(row_id))
        if kind == TOMBSTONE:
            turns.append(FamilyTurn((key or b"")[:16], position, timestamp, digest=digest))
            continue
        if rows[-1][1] != END:
            break
        header = decode_header(key or b"", text or b"")
        turns.append(
            FamilyTurn(
                header.key,
                position,
                timestamp,
                header.created_at,
                header.header,
                _texts(rows, INPUT),
                _texts(rows, OUTPUT),
                decode_end(rows[-1][3] or b""),
                _blob_hashes(connection, rows),
                bool(is_waiting),
                fingerprint,
                digest,
                bool(is_of_words),
            )
        )
    return turns


def _texts(rows: Sequence[Row], kind: int) -> tuple[bytes, ...]:
    return tuple(text or b"" for _, its_kind, _, text in rows if its_kind == kind)


def _blob_hashes(connection: sqlite3.Connection, rows: Sequence[Row]) -> tuple[str, ...]:
    numbers = [decode_blob_use(key or b"") for _, kind, key, _ in rows if kind == BLOB_USE]
    found = [connection.execute(TURN_SQL["blob_hash"], (one,)).fetchall() for one in numbers]
    return tuple(blob_hash.hex() for ((blob_hash,),) in found)


def _read_chat(connection: sqlite3.Connection, tree: int) -> FamilyChat | None:
    rows = connection.execute(_SQL["chat"], (tree,)).fetchall()
    if not rows:
        return None
    key, created_at, updated_at, newest, *tokens_and_rest = rows[0]
    tokens = tokens_and_rest[:3]
    imported_at, conversation, is_pinned, is_permanent, title, is_generated, metadata, cost = (
        tokens_and_rest[3:]
    )
    return FamilyChat(
        key,
        created_at,
        updated_at,
        (thread_of(newest), seq_of(newest)),
        0,
        (tokens[0], tokens[1], tokens[2]),
        imported_at,
        conversation,
        bool(is_pinned),
        bool(is_permanent),
        title,
        bool(is_generated),
        metadata,
        cost,
    )


def _write_families(
    transaction: WriteTransaction,
    families: Sequence[ReplacedFamily],
    blobs: Mapping[tuple[str, str], bytes],
    position: int | None,
) -> None:
    transaction.flush()
    connection = transaction.connection
    if not connection.execute(_SQL["is_copy"]).fetchall():
        raise StoreError("The store to copy to is in use: it is no copy any more.")
    for (tenant, name), data in blobs.items():
        connection.execute(TURN_SQL["add_blob"], (tenant, bytes.fromhex(name), data))
    unused: set[bytes] = set()
    for one in families:
        if one.number is not None:
            unused |= _delete_family(transaction, one.number)
        _write_family(connection, one.family)
    # What was in use before may be so again.
    delete_unused_blobs(connection, unused, transaction.erased)
    if position is not None:
        connection.execute(_SQL["move"], (position,))


def _write_family(connection: sqlite3.Connection, family: Family) -> None:
    ((last,),) = connection.execute(TURN_SQL["last_thread"]).fetchall()
    first = last + 1

    def row_id_at(position: TurnPosition) -> int:
        return row_id_of(first + position[0], position[1])

    for number, parent in enumerate(family.parents):
        at = None if parent is None else row_id_at(parent)
        connection.execute(TURN_SQL["add_thread"], (first + number, family.tenant, first, at))
    for turn in family.turns:
        _write_turn(connection, family.tenant, row_id_at(turn.position), turn)
    if family.epoch:
        connection.execute(_SQL["add_epoch"], (first, family.epoch))
    chat = family.chat
    if chat is not None:
        title, metadata = (
            None if text is None else add_text(connection, text)
            for text in (chat.title, chat.metadata)
        )
        newest = row_id_at(chat.newest)
        about = (chat.key, family.tenant, chat.created_at, chat.updated_at, newest, chat.branches)
        origin = (chat.imported_at, chat.conversation, chat.is_pinned, chat.is_permanent)
        texts = (title, chat.is_title_generated, metadata)
        values = (first, *about, *chat.tokens, *origin, *texts, chat.cost)
        connection.execute(_SQL["add_chat"], values)


def _write_turn(connection: sqlite3.Connection, tenant: str, row_id: int, turn: FamilyTurn) -> None:
    if turn.header is None or turn.end is None:
        owner, conversation = None, None
        rows: list[Row] = [(row_id, TOMBSTONE, turn.key, None)]
    else:
        name = turn.header.conversation
        owner, conversation = tenant, conversation_key(name) if name else None
        rows = [header_row(row_id, turn.key, turn.created_at, turn.header)]
        for blob in turn.blobs:
            query, values = TURN_SQL["blob_id"], (tenant, bytes.fromhex(blob))
            ((number,),) = connection.execute(query, values).fetchall()
            rows.append((row_id + len(rows), BLOB_USE, encode_blob_use(number), None))
        for kind, items in ((INPUT, turn.input), (OUTPUT, turn.output)):
            rows += [(at, kind, None, item) for at, item in enumerate(items, row_id + len(rows))]
        rows.append((last_of_turn(row_id), END, None, encode_end(turn.end)))
    response = (turn.key, owner, row_id, turn.timestamp, conversation)
    connection.execute(TURN_SQL["add_response"], response)
    write_pending(connection, write_log_rows(connection, rows))
    if turn.is_waiting:
        connection.execute(_SQL["add_waiting"], (row_id,))
    if turn.fingerprint is not None:
        connection.execute(_SQL["add_fingerprint"], (row_id, turn.fingerprint))
    if turn.digest is not None:
        known_by = (tenant, turn.digest, row_id, turn.is_digest_of_words)
        connection.execute(_SQL["add_import"], known_by)


def _delete_families(transaction: WriteTransaction, numbers: Sequence[int]) -> None:
    transaction.flush()
    for tree in numbers:
        unused = _delete_family(transaction, tree)
        delete_unused_blobs(transaction.connection, unused, transaction.erased)


def _delete_family(transaction: WriteTransaction, tree: int) -> set[bytes]:
    """Leave nothing of a family but its images; its uses of those."""
    connection, erased = transaction.connection, transaction.erased
    uses: set[bytes] = set()
    texts = connection.execute(_SQL["chat_texts"], {"tree": tree}).fetchall()
    delete_texts(connection, [text_id for (text_id,) in texts], erased)
    threads = connection.execute(_SQL["threads"], {"tree": tree}).fetchall()
    for thread, *_ in reversed(threads):
        first = row_id_of(thread, 0)
        uses |= delete_rows(connection, (first, last_of_thread(first)), erased)
        connection.execute(_SQL["delete_thread"], {"thread": thread})
    connection.execute(_SQL["delete_chat"], (tree,))
    connection.execute(_SQL["delete_epoch"], (tree,))
    erased.trees.discard(tree)
    transaction.has_erased = True
    return uses


def _write_rows(
    transaction: WriteTransaction,
    table: str,
    rows: Sequence[CopiedRow],
    removed: Sequence[CopiedRow],
) -> None:
    transaction.flush()
    connection = transaction.connection
    if table == "conversations":
        # Its metadata is a text, of which no other may be left.
        for key in [*removed, *rows]:
            delete_conversation(connection, key[2], transaction.erased)  # type: ignore[arg-type]
        rows = [(*row[:-1], add_text(connection, row[-1])) for row in rows]  # type: ignore[arg-type]
        transaction.has_erased = True
    else:
        connection.executemany(_DELETE[table], removed)
    connection.executemany(_WRITE[table], rows)


def _begin_copy(transaction: WriteTransaction, source: str) -> int | None:
    transaction.flush()
    connection = transaction.connection
    rows = connection.execute(_SQL["position"], (source,)).fetchall()
    if rows:
        position: int = rows[0][0]
        return position
    ((is_used,),) = connection.execute(_SQL["is_used"]).fetchall()
    if is_used:
        return None
    connection.execute(_SQL["mark"], (source,))
    return -1


def _end_copy(transaction: WriteTransaction) -> None:
    transaction.flush()
    transaction.connection.execute(_SQL["unmark"])
