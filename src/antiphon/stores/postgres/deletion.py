"""Deletion in PostgreSQL: turns become tombstones, or go, with all that was made of their words.

All of it happens within a transaction that holds the lock of the turns' tree. Rows of running
turns go first: whoever writes to such a turn at this moment is waited for, and writes no more
afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from antiphon.core.ids import response_key
from antiphon.core.items import ERASED_SUMMARY_ITEM, is_summary
from antiphon.stores.postgres.rows import TurnKey, decode_items, encode_items
from antiphon.stores.postgres.search.erasure import forget_turns, reindex_turns
from antiphon.stores.postgres.sql_files import TURN_SQL, read_queries

if TYPE_CHECKING:
    from antiphon.stores.postgres.write_transaction import WriteTransaction

DELETION_SQL: Final = read_queries("deletion.sql")
#: Later than any turn of a thread.
END_OF_THREAD: Final = (1 << 31) - 1
#: The tables where words of turns are.
_TURN_TABLES: Final = ("log", "chain_fingerprints", "imported_turns", "chats", "search_terms")


#: The thread, the first depth and the last of each range.
Ranges: TypeAlias = Sequence[tuple[int, int, int]]


async def delete_turn(
    transaction: WriteTransaction, tenant: str, response_id: str, cascade: bool
) -> bool:
    """Erase a turn, with ``cascade`` its descendants too. False: there is none."""
    key = await lock_turn(transaction, tenant, response_id)
    if key is None:
        return False
    ranges = await descendant_ranges(transaction, key) if cascade else [(key[1], key[2], key[2])]
    await tombstone(transaction, tenant, key.tree, ranges)
    if not cascade:
        await erase_derived_words(transaction, tenant, key)
    await bump_epoch(transaction, key.tree)
    transaction.changes.add_erasure(tenant, key.tree, response_key(response_id), cascade=cascade)
    return True


async def lock_turn(transaction: WriteTransaction, tenant: str, response_id: str) -> TurnKey | None:
    """Lock the tree of a turn. None: there is no such turn."""
    await transaction.flush()
    fetchrow = transaction.connection.fetchrow
    name = response_key(response_id)
    row = await fetchrow(TURN_SQL["turn_key"], tenant, name)
    if row is None:
        return None
    await transaction.lock_tree(row["tree"])
    # It may have gone while others had the lock.
    row = await fetchrow(TURN_SQL["turn_key"], tenant, name)
    return None if row is None else TurnKey(*row)


async def descendant_ranges(
    transaction: WriteTransaction, key: TurnKey
) -> list[tuple[int, int, int]]:
    """A turn and all its descendants."""
    rows = await transaction.connection.fetch(DELETION_SQL["descendants"], *key)
    return [(thread, seq, END_OF_THREAD) for thread, seq in rows]


async def tombstone(
    transaction: WriteTransaction, tenant: str, tree: int, ranges: Ranges
) -> list[TurnKey]:
    """Erase turns but for their tombstones; those that were not erased before."""
    return await _erase(transaction, tenant, tree, ranges, leaves_tombstones=True)


async def delete_rows(
    transaction: WriteTransaction, tenant: str, tree: int, ranges: Ranges
) -> list[TurnKey]:
    """Leave nothing of turns without descendants; those that were not erased before."""
    return await _erase(transaction, tenant, tree, ranges, leaves_tombstones=False)


async def _erase(
    transaction: WriteTransaction,
    tenant: str,
    tree: int,
    ranges: Ranges,
    *,
    leaves_tombstones: bool,
) -> list[TurnKey]:
    if not ranges:
        return []
    where = (tree, *zip(*ranges, strict=True))
    await transaction.execute(DELETION_SQL["delete_running"], *where)
    rows = await transaction.fetch(DELETION_SQL["turns_in"], *where)
    living = [TurnKey(tree, row[0], row[1]) for row in rows if row[3]]
    await transaction.execute(DELETION_SQL["delete_waiting"], tenant, *where)
    await transaction.execute(DELETION_SQL["delete_fingerprints"], *where)
    names = [row[2] for row in rows]
    if leaves_tombstones:
        await transaction.execute(DELETION_SQL["delete_import_words"], *where)
        await transaction.execute(DELETION_SQL["erase_responses"], tenant, names)
        await transaction.execute(DELETION_SQL["delete_parts"], *where)
        await transaction.execute(DELETION_SQL["erase_beginnings"], *where)
    else:
        await transaction.execute(DELETION_SQL["delete_imports"], *where)
        await transaction.execute(DELETION_SQL["delete_responses"], tenant, names)
        await transaction.execute(DELETION_SQL["delete_log"], *where)
    await _delete_blobs(transaction, tenant, DELETION_SQL["delete_blob_uses"], where)
    if living:
        await forget_turns(transaction.connection, tenant, living)
        transaction.erased.update(_TURN_TABLES)
    transaction.erased_trees.add(tree)
    transaction.forget_looks()
    return living


async def delete_blob_uses_of(
    transaction: WriteTransaction, tenant: str, key: TurnKey, hashes: list[bytes]
) -> None:
    """A turn uses some images no more."""
    await _delete_blobs(transaction, tenant, DELETION_SQL["delete_uses_of"], (tenant, hashes, *key))


async def _delete_blobs(
    transaction: WriteTransaction, tenant: str, query: str, values: Sequence[object]
) -> None:
    """Delete uses of images, and the images that have no use any more."""
    rows = await transaction.fetch(query, *values)
    hashes = sorted({row[0] for row in rows})
    if hashes:
        # Held first: whoever adds a use at this moment is waited for, and then seen.
        await transaction.fetch(DELETION_SQL["hold_blobs"], tenant, hashes)
        if await transaction.fetch(DELETION_SQL["delete_unused_blobs"], tenant, hashes):
            transaction.erased.add("blobs")


async def erase_derived_words(transaction: WriteTransaction, tenant: str, key: TurnKey) -> None:
    """Erase what a turn and its descendants hold of the turn's words.

    That is the fingerprints of their chains, digests of imports, and the text of all summaries that
    may contain it.
    """
    ranges = await descendant_ranges(transaction, key)
    where = (key.tree, *zip(*ranges, strict=True))
    await transaction.execute(DELETION_SQL["delete_fingerprints"], *where)
    await transaction.execute(DELETION_SQL["delete_import_words"], *where)
    changed = []
    for thread, seq, part, packed in await transaction.fetch(DELETION_SQL["summaries"], *where):
        items = [ERASED_SUMMARY_ITEM if is_summary(item) else item for item in decode_items(packed)]
        values = (key.tree, thread, seq, part, encode_items(items))
        await transaction.execute(DELETION_SQL["set_output"], *values, False)
        changed.append(TurnKey(key.tree, thread, seq))
    if changed:
        await reindex_turns(transaction.connection, tenant, changed)
    transaction.erased.update(_TURN_TABLES)


async def bump_epoch(transaction: WriteTransaction, tree: int) -> None:
    """Invalidate caches of a tree, after an erasure."""
    await transaction.execute(DELETION_SQL["bump_epoch"], tree)
    transaction.forget_looks()


def merge_ranges(turns: Iterable[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Turns as ranges, neighbours joined. A turn: its thread and depth, in order."""
    ranges: list[tuple[int, int, int]] = []
    for thread, seq in turns:
        if ranges and ranges[-1][0] == thread and ranges[-1][2] == seq - 1:
            ranges[-1] = (thread, ranges[-1][1], seq)
        else:
            ranges.append((thread, seq, seq))
    return ranges


async def erase_tree(transaction: WriteTransaction, tenant: str, tree: int) -> None:
    """Erase all turns of a tree but for their tombstones."""
    await transaction.lock_tree(tree)
    threads = await transaction.connection.fetch(DELETION_SQL["threads"], tree)
    ranges = [(row["id"], 0, END_OF_THREAD) for row in threads]
    await tombstone(transaction, tenant, tree, ranges)
    await bump_epoch(transaction, tree)
    await transaction.flush()
