"""Change log in SQLite: one row a commit, with the ids of what it changed.

The table only grows at its end. It is trimmed in passing, to its newest rows. A chat is named by
its tree, which costs a turn nothing; whoever reads the log looks its id up.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from typing import Final, get_args

import msgspec

from antiphon.core.ids import chat_id_of, response_id_of, response_key
from antiphon.core.turns import TurnStatus
from antiphon.stores.change_feed import ChangeRow, TenantChange
from antiphon.stores.sqlite.sql_files import parse_queries, read_sql
from antiphon.turn.feed_protocols import Change, ChangeType

CHANGE_SQL: Final = parse_queries(read_sql("changes.sql"))
#: How many rows stay, and how many are deleted at once.
MAX_ROWS: Final = 10_000
_TRIM_STEP: Final = 256


class LoggedChange(msgspec.Struct, frozen=True):
    """A change to be logged. The chat is named by its tree, or where that is gone by its key."""

    type: ChangeType
    tenant: str
    at: float
    tree: int = 0
    response_id: str | None = None
    conversation: str | None = None
    status: TurnStatus | None = None
    cascade: bool = False
    chat_key: bytes | None = None


class _ChangeEntry(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """A change as it is stored, in some thirty bytes: names by their number, ids without prefix.

    ``tenant`` None: that of the change before it in the row.
    """

    type: int
    at: int
    tree: int = 0
    response: bytes | None = None
    status: int | None = None
    tenant: str | None = None
    conversation: str | None = None
    cascade: bool = False
    chat_key: bytes | None = None


_TYPES: Final[tuple[ChangeType, ...]] = get_args(ChangeType)
_STATUSES: Final[tuple[TurnStatus, ...]] = get_args(TurnStatus)
_TYPE_NUMBERS: Final = {name: number for number, name in enumerate(_TYPES)}
_STATUS_NUMBERS: Final = {name: number for number, name in enumerate(_STATUSES)}
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[_ChangeEntry]).decode


def _pack(changes: Sequence[LoggedChange]) -> list[_ChangeEntry]:
    entries: list[_ChangeEntry] = []
    tenant: str | None = None
    for change in changes:
        entries.append(
            _ChangeEntry(
                _TYPE_NUMBERS[change.type],
                int(change.at),
                change.tree,
                response_key(change.response_id) if change.response_id else None,
                _STATUS_NUMBERS[change.status] if change.status else None,
                None if change.tenant == tenant else change.tenant,
                change.conversation,
                change.cascade,
                change.chat_key,
            )
        )
        tenant = change.tenant
    return entries


class ChangeEntries:
    """The changes of one transaction, until ``flush`` writes them as a row."""

    def __init__(self) -> None:
        self._entries: list[LoggedChange] = []

    def add(self, change: LoggedChange) -> None:
        self._entries.append(change)

    def add_chat(self, change_type: ChangeType, tenant: str, tree: int) -> None:
        """Something of a chat has changed now."""
        self.add(LoggedChange(change_type, tenant, time.time(), tree))

    def add_conversation(
        self, change_type: ChangeType, tenant: str, conversation: str, tree: int = 0
    ) -> None:
        """Something of a conversation has changed now."""
        self.add(LoggedChange(change_type, tenant, time.time(), tree, conversation=conversation))

    def add_erasure(
        self, tenant: str, tree: int, response_id: str, *, cascade: bool = False
    ) -> None:
        """A turn was erased now, with its descendants where it cascades."""
        change = LoggedChange("turn.erased", tenant, time.time(), tree, response_id)
        self.add(msgspec.structs.replace(change, cascade=True) if cascade else change)

    def add_erased_chat(self, tenant: str, key: bytes) -> None:
        """A chat was erased now, or its last turn was."""
        self.add(LoggedChange("chat.erased", tenant, time.time(), chat_key=key))

    def flush(self, connection: sqlite3.Connection) -> None:
        if not self._entries:
            return
        entries, self._entries = self._entries, []
        body = _encode(_pack(entries))
        row_id = connection.execute(CHANGE_SQL["add"], (body,)).lastrowid or 0
        if row_id % _TRIM_STEP == 0 and row_id > MAX_ROWS:
            connection.execute(CHANGE_SQL["trim"], (row_id - MAX_ROWS,))


def read_bounds(connection: sqlite3.Connection) -> tuple[int, int]:
    """The first and the last row."""
    ((first, last),) = connection.execute(CHANGE_SQL["bounds"]).fetchall()
    return first, last


def read_changes(connection: sqlite3.Connection, after: int, limit: int) -> list[ChangeRow]:
    """The rows behind one. What became of a chat that is gone is left out, but for that."""
    rows = connection.execute(CHANGE_SQL["read"], (after, limit)).fetchall()
    chat_ids: dict[int, str | None] = {0: None}

    def chat_id(tree: int) -> str | None:
        if tree not in chat_ids:
            keys = connection.execute(CHANGE_SQL["chat_key"], (tree,)).fetchall()
            chat_ids[tree] = chat_id_of(keys[0][0]) if keys else None
        return chat_ids[tree]

    found: list[ChangeRow] = []
    for row_id, body in rows:
        tenant = ""
        changes: list[TenantChange] = []
        for entry in _decode(body):
            tenant = tenant if entry.tenant is None else entry.tenant
            changes.append(_change(entry, tenant, chat_id(entry.tree)))
        found.append(ChangeRow(row_id, changes))
    return found


def _change(logged: _ChangeEntry, tenant: str, chat_id: str | None) -> TenantChange:
    if logged.chat_key is not None:
        chat_id = chat_id_of(logged.chat_key)
    # Where its chat was erased since, nobody is shown the change, which keeps its place.
    viewer = None if logged.tree and chat_id is None else tenant
    return viewer, Change(
        "",
        _TYPES[logged.type],
        logged.at,
        chat_id,
        response_id_of(logged.response) if logged.response else None,
        logged.conversation,
        None if logged.status is None else _STATUSES[logged.status],
        logged.cascade,
    )
