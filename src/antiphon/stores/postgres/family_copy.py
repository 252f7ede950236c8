"""Copies of a PostgreSQL store: its families as records, and records as families."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import msgspec

from antiphon.core.ids import conversation_key
from antiphon.core.items import is_summary
from antiphon.errors import StoreError
from antiphon.stores.family_builder import FamilyBuilder
from antiphon.stores.postgres.database import PostgresDatabase
from antiphon.stores.postgres.rows import (
    ThreadIds,
    TurnKey,
    decode_end,
    decode_header,
    decode_items,
    encode_items,
    encode_json,
    pack_hashes,
    unpack_hashes,
)
from antiphon.stores.postgres.search.erasure import forget_turns
from antiphon.stores.postgres.sql_files import TURN_SQL, read_queries
from antiphon.stores.postgres.write_transaction import WriteTransaction
from antiphon.turn.copy_protocols import (
    CopiedRow,
    Family,
    FamilyChat,
    FamilyTurn,
    ReplacedFamily,
)

if TYPE_CHECKING:
    from antiphon.stores.postgres.connection import Connection

_SQL: Final = read_queries("family_copy.sql")
#: The tables that have a family's rows by its tree.
_BY_TREE: Final = ("log", "threads", "running", "chain_fingerprints", "imported_turns", "chats")
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
    "conversations": _SQL["delete_conversations"],
    "idempotency_records": _SQL["delete_idempotency_records"],
    "usage_sums": _SQL["delete_usage_sums"],
}
#: What is before all rows of a table.
_BEFORE_FIRST: Final[Mapping[str, CopiedRow]] = {
    "api_keys": ("",),
    "shares": ("",),
    "conversations": ("", -math.inf, b""),
    "idempotency_records": ("", b""),
    "usage_sums": ("", -1, b"", ""),
}
#: The column of ``usage_sums`` that is UTF-8 here and text elsewhere.
_MODEL: Final = 2


class PostgresCopyStore:
    """A ``CopyStore`` in a PostgreSQL database."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        self._thread_ids = ThreadIds()

    async def family_numbers(self, after: int, limit: int) -> Sequence[int]:
        return [row[0] for row in await self._fetch(_SQL["numbers"], after, limit)]

    async def read_families(self, numbers: Sequence[int]) -> Sequence[Family | None]:
        return await self._database.read_snapshot(
            lambda connection: _read_families(connection, numbers)
        )

    async def find_families(self, keys: Sequence[tuple[str, bytes]]) -> Sequence[int | None]:
        found: list[int | None] = [None] * len(keys)
        if keys:
            columns = zip(*keys, strict=True)
            for number, tree in await self._fetch(_SQL["families_of"], *columns):
                found[number - 1] = tree
        return found

    async def read_blobs(self, tenant: str, hashes: Sequence[str]) -> Mapping[str, bytes]:
        keys = [bytes.fromhex(name) for name in hashes]
        return {row[0].hex(): row[1] for row in await self._fetch(TURN_SQL["blobs"], tenant, keys)}

    async def missing_blobs(self, tenant: str, hashes: Sequence[str]) -> Sequence[str]:
        keys = [bytes.fromhex(name) for name in hashes]
        known = {row[0].hex() for row in await self._fetch(_SQL["known_blobs"], tenant, keys)}
        return [name for name in hashes if name not in known]

    async def write_families(
        self,
        families: Sequence[ReplacedFamily],
        blobs: Mapping[tuple[str, str], bytes],
        position: int | None = None,
    ) -> None:
        await self._database.submit(_write_families, self._thread_ids, families, blobs, position)

    async def delete_families(self, numbers: Sequence[int]) -> None:
        await self._database.submit(_delete_families, numbers)

    async def read_rows(
        self, table: str, after: CopiedRow | None, limit: int
    ) -> Sequence[CopiedRow]:
        start = _BEFORE_FIRST[table] if after is None else _stored(table, after)
        rows = await self._fetch(_READ[table], *start, limit)
        return [_shown(table, tuple(row)) for row in rows]

    async def write_rows(
        self, table: str, rows: Sequence[CopiedRow], removed: Sequence[CopiedRow]
    ) -> None:
        await self._database.submit(_write_rows, table, rows, removed)

    async def count(self) -> int:
        ((families,),) = await self._fetch(_SQL["count"])
        number: int = families
        return number

    async def begin_copy(self, source: str) -> int | None:
        position: int | None = await self._database.submit(_begin_copy, source)
        return position

    async def end_copy(self) -> None:
        ((is_copy,),) = await self._fetch(_SQL["is_copy"])
        if is_copy:
            await self._database.submit(_end_copy)

    async def _fetch(self, query: str, *values: object) -> list[Any]:
        async def fetch(connection: Connection) -> list[Any]:
            return await connection.fetch(query, *values)

        return await self._database.read(fetch)


class _TurnMarks:
    """What other tables have of the turns of some families."""

    def __init__(self, waiting: Iterable[Any], fingerprints: Iterable[Any], imports: Iterable[Any]):
        self.waiting = {tuple(row) for row in waiting}
        self.fingerprints = {tuple(row[:3]): row[3] for row in fingerprints}
        self.imports = {tuple(row[:3]): (row[3], row[4]) for row in imports}


async def _read_families(connection: Connection, numbers: Sequence[int]) -> list[Family | None]:
    numbers = list(numbers)
    chats = {row["tree"]: row for row in await connection.fetch(_SQL["chats"], numbers)}
    threads: dict[int, list[Any]] = {}
    for row in await connection.fetch(_SQL["threads"], numbers):
        threads.setdefault(row["tree"], []).append(row)
    names = ("waiting", "fingerprints", "imports")
    marks = _TurnMarks(*[await connection.fetch(_SQL[name], numbers) for name in names])
    turns: dict[tuple[int, int], list[list[Any]]] = {}
    log = await connection.fetch(_SQL["log"], numbers)
    for (tree, thread, _), of_turn in groupby(log, lambda row: tuple(row[:3])):
        turns.setdefault((tree, thread), []).append(list(of_turn))
    return [
        _family(chats[number], threads.get(number, []), turns, marks) if number in chats else None
        for number in numbers
    ]


def _family(
    chat: Any,
    threads: list[Any],
    rows: Mapping[tuple[int, int], list[list[Any]]],
    marks: _TurnMarks,
) -> Family | None:
    builder = FamilyBuilder()
    for thread in _parents_first(threads):
        parent = thread["parent_thread"]
        above = None if parent is None else (parent, thread["parent_seq"])
        turns = rows.get((chat["tree"], thread["id"]), [])
        builder.add_thread(thread["id"], above, partial(_thread, turns, marks))
    return builder.build(chat["tenant"], chat["epoch"], _chat(chat))


def _parents_first(threads: list[Any]) -> list[Any]:
    """The threads by their ids, which are times, but each behind the one that it branches off."""
    ids = {thread["id"] for thread in threads}
    placed: set[int] = set()
    found: list[Any] = []
    left = threads
    while left:
        later = []
        for thread in left:
            parent = thread["parent_thread"]
            if parent is None or parent in placed or parent not in ids:
                placed.add(thread["id"])
                found.append(thread)
            else:
                later.append(thread)
        left = later
    return found


def _thread(turns: list[list[Any]], marks: _TurnMarks, number: int) -> list[FamilyTurn]:
    """The turns of a thread, up to one that runs."""
    found: list[FamilyTurn] = []
    for parts in turns:
        first = parts[0]
        position = (number, first["seq"])
        at = tuple(first[:3])
        digest, is_of_words = marks.imports.get(at, (None, False))
        if first["header"] is None:
            found.append(FamilyTurn(first["key"], position, 0.0, digest=digest))
            continue
        if parts[-1]["ending"] is None:
            break
        output = [part["output"] for part in parts if part["output"] is not None]
        found.append(
            FamilyTurn(
                first["key"],
                position,
                first["timestamp"],
                first["created_at"],
                decode_header(first["header"]),
                decode_items(first["input"]),
                tuple(item for packed in output for item in decode_items(packed)),
                decode_end(parts[-1]["ending"]),
                tuple(one.hex() for one in unpack_hashes(first["images"])),
                at in marks.waiting,
                marks.fingerprints.get(at),
                digest,
                is_of_words,
            )
        )
    return found


def _chat(chat: Any) -> FamilyChat | None:
    if chat["newest_thread"] is None:
        return None
    return FamilyChat(
        chat["key"],
        chat["created_at"],
        chat["updated_at"],
        (chat["newest_thread"], chat["newest_seq"]),
        0,
        (chat["input_tokens"], chat["cached_tokens"], chat["output_tokens"]),
        chat["imported_at"],
        chat["conversation"],
        chat["is_pinned"],
        chat["is_permanent"],
        chat["title"],
        chat["is_title_generated"],
        chat["metadata"],
        chat["cost"],
    )


class _Columns(msgspec.Struct):
    """The rows of some families, by the query that writes them."""

    threads: list[tuple[Any, ...]] = []
    responses: list[tuple[Any, ...]] = []
    log: list[tuple[Any, ...]] = []
    blob_uses: list[tuple[Any, ...]] = []
    waiting: list[tuple[Any, ...]] = []
    fingerprints: list[tuple[Any, ...]] = []
    imports: list[tuple[Any, ...]] = []
    pending: list[tuple[Any, ...]] = []


async def _write_families(
    transaction: WriteTransaction,
    thread_ids: ThreadIds,
    families: Sequence[ReplacedFamily],
    blobs: Mapping[tuple[str, str], bytes],
    position: int | None,
) -> None:
    await transaction.flush()
    if not await transaction.connection.fetchval(_SQL["is_copy"]):
        raise StoreError("The store to copy to is in use: it is no copy any more.")
    if blobs:
        added = [(tenant, bytes.fromhex(name), data) for (tenant, name), data in blobs.items()]
        await transaction.execute(_SQL["add_blobs"], *zip(*added, strict=True))
    unused: dict[str, set[bytes]] = {}
    for one in families:
        if one.number is not None:
            uses = await _delete_family(transaction, one.number)
            unused.setdefault(one.family.tenant, set()).update(uses)
    columns = _Columns()
    for one in families:
        await _write_family(transaction, one.family, thread_ids, columns)
    for query, rows in (
        (TURN_SQL["add_threads"], columns.threads),
        (TURN_SQL["add_responses"], columns.responses),
        (TURN_SQL["add_log"], columns.log),
    ):
        if rows:
            await transaction.execute(query, rows)
    for query, rows in (
        (_SQL["add_blob_uses"], columns.blob_uses),
        (_SQL["add_waiting"], columns.waiting),
        (_SQL["add_fingerprints"], columns.fingerprints),
        (_SQL["add_imports"], columns.imports),
        (_SQL["add_pending"], columns.pending),
    ):
        if rows:
            await transaction.execute(query, *zip(*rows, strict=True))
    # What was in use before may be so again.
    for tenant, hashes in unused.items():
        await transaction.execute(_SQL["delete_unused_blobs"], tenant, list(hashes))
    if position is not None:
        await transaction.execute(_SQL["move"], position)


async def _write_family(
    transaction: WriteTransaction, family: Family, thread_ids: ThreadIds, columns: _Columns
) -> None:
    threads = [thread_ids.next() for _ in family.parents]
    tree = threads[0]
    keys = {turn.position: turn.key for turn in family.turns}
    for thread, parent in zip(threads, family.parents, strict=True):
        above = (None, None) if parent is None else (threads[parent[0]], parent[1])
        columns.threads.append((tree, thread, family.tenant, *above))
    for turn in family.turns:
        number, seq = turn.position
        before = (number, seq - 1)
        parent = before if before in keys else family.parents[number]
        previous = None if parent is None else keys[parent]
        _add_turn(family.tenant, TurnKey(tree, threads[number], seq), turn, previous, columns)
    chat = family.chat
    values: tuple[object, ...] = (family.turns[0].key, family.tenant, 0.0, 0.0, None, None, None, 0)
    rest: tuple[object, ...] = (None, False, False, None, False, None, 0, 0, 0, None)
    if chat is not None:
        newest = (threads[chat.newest[0]], chat.newest[1])
        times = (chat.created_at, chat.updated_at, *newest, chat.imported_at)
        values = (chat.key, family.tenant, *times, chat.branches)
        texts = (chat.title, chat.is_title_generated, chat.metadata)
        marks = (chat.is_pinned, chat.is_permanent)
        rest = (chat.conversation, *marks, *texts, *chat.tokens, chat.cost)
    await transaction.execute(_SQL["add_chat"], tree, family.epoch, *values, *rest)


def _add_turn(
    tenant: str, key: TurnKey, turn: FamilyTurn, previous: bytes | None, columns: _Columns
) -> None:
    if turn.digest is not None:
        columns.imports.append((tenant, turn.digest, *key, turn.is_digest_of_words))
    if turn.header is None or turn.end is None:
        columns.responses.append((tenant, turn.key, *key, None, None))
        nothing = (None,) * 7
        columns.log.append((*key, 0, turn.key, previous, *nothing, False))
        return
    name = turn.header.conversation
    conversation = conversation_key(name) if name else None
    columns.responses.append((tenant, turn.key, *key, turn.timestamp, conversation))
    columns.log.append(
        (
            *(*key, 0, turn.key, previous, turn.created_at, turn.timestamp),
            encode_json(turn.header),
            pack_hashes(turn.blobs),
            encode_items(turn.input),
            encode_items(turn.output) if turn.output else None,
            encode_json(turn.end),
            any(map(is_summary, turn.output)),
        )
    )
    columns.pending.append((tenant, *key))
    for blob in dict.fromkeys(turn.blobs):
        columns.blob_uses.append((tenant, bytes.fromhex(blob), *key))
    if turn.is_waiting:
        columns.waiting.append((tenant, *key))
    if turn.fingerprint is not None:
        columns.fingerprints.append((tenant, turn.fingerprint, *key, turn.key))


async def _delete_families(transaction: WriteTransaction, numbers: Sequence[int]) -> None:
    await transaction.flush()
    for tree in numbers:
        rows = await transaction.connection.fetch(_SQL["responses_of"], tree)
        uses = await _delete_family(transaction, tree)
        if rows and uses:
            values = (rows[0]["tenant"], list(uses))
            await transaction.execute(_SQL["delete_unused_blobs"], *values)


async def _delete_family(transaction: WriteTransaction, tree: int) -> set[bytes]:
    """Leave nothing of a family but its images; the hashes of those that it used."""
    rows = await transaction.fetch(_SQL["responses_of"], tree)
    if not rows:
        return set()
    tenant: str = rows[0]["tenant"]
    keys = [TurnKey(tree, row["thread"], row["seq"]) for row in rows]
    await forget_turns(transaction.connection, tenant, keys)
    uses = await transaction.fetch(_SQL["delete_uses"], tenant, tree)
    await transaction.execute(_SQL["delete_responses"], tenant, [row["key"] for row in rows])
    await transaction.execute(_SQL["delete_waiting"], tenant, tree)
    for table in _BY_TREE:
        await transaction.execute(f"DELETE FROM {table} WHERE tree = $1", tree)  # noqa: S608
    transaction.erased.update(("log", "chats", "blobs"))
    return {row["hash"] for row in uses}


async def _write_rows(
    transaction: WriteTransaction,
    table: str,
    rows: Sequence[CopiedRow],
    removed: Sequence[CopiedRow],
) -> None:
    await transaction.flush()
    stored = [_stored(table, row) for row in rows]
    width = len(_BEFORE_FIRST[table])
    gone = [*[_stored(table, name) for name in removed], *[row[:width] for row in stored]]
    # PostgreSQL has no REPLACE that goes by more than one unique column.
    await transaction.connection.executemany(_DELETE[table], gone)
    await transaction.connection.executemany(_WRITE[table], stored)
    transaction.progress += 1
    if table == "conversations":
        transaction.erased.add(table)


def _stored(table: str, row: CopiedRow) -> CopiedRow:
    """A row, or the beginning of one, as it lies here."""
    if table == "usage_sums" and isinstance(model := row[_MODEL], str):
        return (*row[:_MODEL], model.encode("utf-8", "surrogatepass"), *row[_MODEL + 1 :])
    return row


def _shown(table: str, row: CopiedRow) -> CopiedRow:
    """A row as other stores have it."""
    if table == "usage_sums" and isinstance(model := row[_MODEL], bytes):
        return (*row[:_MODEL], model.decode("utf-8", "surrogatepass"), *row[_MODEL + 1 :])
    return row


async def _begin_copy(transaction: WriteTransaction, source: str) -> int | None:
    await transaction.flush()
    connection = transaction.connection
    position: int | None = await connection.fetchval(_SQL["position"], source)
    if position is not None:
        return position
    if await connection.fetchval(_SQL["is_used"]):
        return None
    await transaction.execute(_SQL["mark"], source)
    return -1


async def _end_copy(transaction: WriteTransaction) -> None:
    await transaction.flush()
    await transaction.execute(_SQL["unmark"])
