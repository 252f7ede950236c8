"""Deletion: erases turns, leaves tombstones where descendants need them, deletes unused blobs.

All of it within a transaction of the writer. A range has a first and a last row id. The uses of
blobs that were in erased ranges are returned, and the blobs deleted at the end: turns that are
erased together may share one. ``ErasedRows`` collects where rows with words were deleted.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterable
from typing import Final

from antiphon.core.items import COMPACTION_PREFIX, ERASED_SUMMARY_ITEM, is_summary
from antiphon.stores.sqlite.chat_changes import ErasedChat, remove_turns, settle_chat
from antiphon.stores.sqlite.reader import CONVERSATION_SQL
from antiphon.stores.sqlite.rows import (
    RowRange,
    decode_blob_use,
    last_of_thread,
    row_id_of,
    thread_of,
)
from antiphon.stores.sqlite.search.removal import index_again
from antiphon.stores.sqlite.sql_files import CHAT_SQL, TURN_SQL

#: What else goes with the texts of turns, whose ids stay or go.
_TOMBSTONE_STEPS: Final = (
    "tombstone_responses",
    "delete_running",
    "delete_fingerprints",
    "delete_import_words",
    "delete_items",
    "tombstone_headers",
)
_DELETION_STEPS: Final = (
    "delete_responses",
    "delete_running",
    "delete_fingerprints",
    "delete_imports",
    "delete_rows",
)


class ErasedRows:
    """The ids of rows with words that were deleted, by table: pages near them need scrubbing."""

    def __init__(self) -> None:
        # Arrays: a sweep may erase a hundred thousand turns at once.
        self.texts = array("q")
        self.blobs = array("q")
        #: The trees of turns of which something was erased, until their chats are settled.
        self.trees: set[int] = set()

    def extend(self, other: ErasedRows) -> None:
        self.texts.extend(other.texts)
        self.blobs.extend(other.blobs)

    def first(self, texts: int, blobs: int) -> ErasedRows:
        """A copy of so many of the oldest."""
        copy = ErasedRows()
        copy.texts, copy.blobs = self.texts[:texts], self.blobs[:blobs]
        return copy

    def remove_first(self, texts: int, blobs: int) -> None:
        """Remove so many of the oldest."""
        del self.texts[:texts], self.blobs[:blobs]


def add_text(connection: sqlite3.Connection, body: bytes) -> int:
    """Insert a text; its id."""
    text_id = connection.execute(TURN_SQL["add_text"], (None, body)).lastrowid
    assert text_id is not None
    return text_id


def delete_texts(
    connection: sqlite3.Connection, text_ids: Iterable[int], erased: ErasedRows
) -> None:
    """Delete texts by their ids."""
    text_ids = list(text_ids)
    connection.executemany(TURN_SQL["delete_text"], [(one,) for one in text_ids])
    erased.texts.extend(text_ids)


def replace_text(
    connection: sqlite3.Connection, row_id: int, body: bytes, erased: ErasedRows
) -> None:
    """Give a row of the log another text, and delete the one that it had."""
    old = connection.execute(TURN_SQL["text_of"], (row_id,)).fetchall()
    connection.execute(TURN_SQL["replace_text"], (add_text(connection, body), row_id))
    delete_texts(connection, [text_id for (text_id,) in old], erased)


def tombstone(
    connection: sqlite3.Connection, row_range: RowRange, erased: ErasedRows
) -> set[bytes]:
    """Erase turns but for their tombstones; returns their uses of blobs."""
    if not _has_turns(connection, row_range):
        return set()
    return _erase(connection, row_range, erased, _TOMBSTONE_STEPS)


def delete_rows(
    connection: sqlite3.Connection, row_range: RowRange, erased: ErasedRows
) -> set[bytes]:
    """Delete turns without descendants; returns their uses of blobs."""
    return _erase(connection, row_range, erased, _DELETION_STEPS)


def _erase(
    connection: sqlite3.Connection,
    row_range: RowRange,
    erased: ErasedRows,
    steps: tuple[str, ...],
) -> set[bytes]:
    uses = _blob_uses(connection, row_range)
    had_turns = _has_turns(connection, row_range)
    _delete_texts_in(connection, row_range, erased)
    for step in steps:
        connection.execute(TURN_SQL[step], row_range)
    if had_turns:
        erased.trees.add(remove_turns(connection, row_range))
    return uses


def settle_chats(connection: sqlite3.Connection, erased: ErasedRows) -> list[ErasedChat]:
    """Bring the chats of erased turns up to date; those of which nothing is left."""
    gone = []
    for tree in erased.trees:
        texts, chat = settle_chat(connection, tree)
        delete_texts(connection, texts, erased)
        if chat is not None:
            gone.append(chat)
    erased.trees.clear()
    return gone


def _has_turns(connection: sqlite3.Connection, row_range: RowRange) -> bool:
    return bool(connection.execute(CHAT_SQL["has_turns"], row_range).fetchall())


def erase_derived_words(connection: sqlite3.Connection, row_id: int, erased: ErasedRows) -> None:
    """Erase what the turn at ``row_id`` and its descendants hold of its words.

    That is the fingerprints of their chains, digests of imports, and the text of all summaries that
    may contain it: one that keeps the turn in view counts turns that are not there any more.
    """
    for row_range in descendant_ranges(connection, row_id):
        connection.execute(TURN_SQL["delete_fingerprints"], row_range)
        connection.execute(TURN_SQL["delete_import_words"], row_range)
        values = {"first": row_range[0], "last": row_range[1], "start": COMPACTION_PREFIX}
        found = connection.execute(TURN_SQL["summaries"], values).fetchall()
        summaries = [item_row_id for item_row_id, body in found if is_summary(body)]
        index_again(connection, summaries)
        for item_row_id in summaries:
            replace_text(connection, item_row_id, ERASED_SUMMARY_ITEM, erased)


def delete_unused_blobs(
    connection: sqlite3.Connection, uses: Iterable[bytes], erased: ErasedRows
) -> None:
    """Erase those blobs that no turn uses any more."""
    rows = [(decode_blob_use(use), use) for use in uses]
    connection.executemany(TURN_SQL["delete_unused_blob"], rows)
    erased.blobs.extend([blob for blob, _ in rows])


def delete_conversation(connection: sqlite3.Connection, key: bytes, erased: ErasedRows) -> int:
    """Delete a conversation's row and its metadata; the number of rows."""
    metadata = connection.execute(CONVERSATION_SQL["metadata"], (key,)).fetchall()
    delete_texts(connection, [text_id for (text_id,) in metadata], erased)
    return connection.execute(CONVERSATION_SQL["delete"], (key,)).rowcount


def bump_epochs(connection: sqlite3.Connection, row_ids: Iterable[int]) -> None:
    """Invalidate caches of the trees of these turns, after an erasure."""
    trees = trees_of(connection, row_ids)
    connection.executemany(TURN_SQL["bump_epoch"], [(tree,) for tree in trees])


def trees_of(connection: sqlite3.Connection, row_ids: Iterable[int]) -> set[int]:
    """The trees of turns."""
    trees = set()
    for thread in set(map(thread_of, row_ids)):
        trees.update(connection.execute(TURN_SQL["tree_of"], (thread,)).fetchall())
    return {tree for (tree,) in trees}


def descendant_ranges(connection: sqlite3.Connection, row_id: int) -> list[RowRange]:
    """The ranges of a turn and all its descendants: a branch after its origin."""
    row_ranges = [(row_id, last_of_thread(row_id))]
    # Grows as it is walked.
    for row_range in row_ranges:
        for (thread,) in connection.execute(TURN_SQL["branches"], row_range).fetchall():
            first = row_id_of(thread, 0)
            row_ranges.append((first, last_of_thread(first)))
    return row_ranges


def _delete_texts_in(
    connection: sqlite3.Connection, row_range: RowRange, erased: ErasedRows
) -> None:
    found = connection.execute(TURN_SQL["texts_in"], row_range).fetchall()
    delete_texts(connection, [text_id for (text_id,) in found], erased)


def _blob_uses(connection: sqlite3.Connection, row_range: RowRange) -> set[bytes]:
    return {use for (use,) in connection.execute(TURN_SQL["blob_uses"], row_range)}
