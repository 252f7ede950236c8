"""Chat changes: what turns change of their chats, of the sums of usage and of what waits for the
index, and what erasures change of chats.

The changes of all turns of a chat are added up, so that each chat is updated once for many. They
need not be written by the transaction that they are of: see ``deferred_changes.py``.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable
from typing import Final, TypeAlias

import msgspec

from antiphon.core.retention import DAY_SECONDS
from antiphon.core.turns import End
from antiphon.stores.sqlite.multi_row_insert import insert_rows
from antiphon.stores.sqlite.rows import first_of_thread, last_of_thread, thread_of
from antiphon.stores.sqlite.sql_files import CHAT_SQL, TURN_SQL

_ADD: Final = CHAT_SQL["add"]
_ADD_TURNS: Final = CHAT_SQL["add_turns"]
_ADD_USAGE_SUMS: Final = CHAT_SQL["add_usage_sums"]
_ADD_BRANCHES: Final = CHAT_SQL["add_branches"]
_ADD_WAITING: Final = CHAT_SQL["add_waiting"]
_HAS_WAITING: Final = CHAT_SQL["has_waiting"]
_REMOVE_WAITING: Final = CHAT_SQL["remove_waiting"]
_ADD_PENDING: Final = TURN_SQL["add_pending"]

#: A turn's timestamp and row id: the greatest of a chat is its newest turn.
_TurnKey: TypeAlias = tuple[float, int]
#: The key, the tenant and the conversation of a chat.
_NewChat: TypeAlias = tuple[bytes, str, bytes | None]
#: No turn uses so many. The sum of a few thousand turns is an integer of SQLite, whatever they say.
_MAX_TOKENS: Final = 1 << 50
_NO_TURN: Final[_TurnKey] = (-math.inf, -1)
#: A tenant, day, model and key (empty: none).
_SumKey: TypeAlias = tuple[str, int, str, str]


class _Used(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """What turns used: how many they are, their tokens, and what they cost."""

    turns: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None

    def __add__(self, other: _Used) -> _Used:
        cost = self.cost
        if other.cost is not None:
            cost = other.cost if cost is None else cost + other.cost
        return _Used(
            self.turns + other.turns,
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
            cost,
        )

    @property
    def tokens(self) -> tuple[int, int, int]:
        return self.input_tokens, self.cached_tokens, self.output_tokens


_NOTHING_USED: Final = _Used()


def _used_by(end: End) -> _Used:
    """What one turn used."""
    usage = end.usage
    if usage is None:
        return _Used(1, cost=end.cost)
    tokens = (usage.input_tokens, usage.cached_tokens, usage.output_tokens)
    if max(tokens) > _MAX_TOKENS:
        tokens = (
            min(tokens[0], _MAX_TOKENS),
            min(tokens[1], _MAX_TOKENS),
            min(tokens[2], _MAX_TOKENS),
        )
    return _Used(1, *tokens, end.cost)


class _ChatChange(msgspec.Struct, array_like=True, omit_defaults=True):
    """The changes of one chat: its newest turn, how many branches it has more, what they used."""

    newest: _TurnKey = _NO_TURN
    branches: int = 0
    used: _Used = _NOTHING_USED


class _Deferred(msgspec.Struct, frozen=True, array_like=True):
    """Changes of a transaction as they are stored until they are applied."""

    chats: dict[int, _ChatChange]
    sums: list[tuple[_SumKey, _Used]]
    pending: list[tuple[int, int]]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Deferred).decode


class ChatChanges:
    """The changes by the turns of one transaction, or of several: written by ``write_new`` and
    ``apply``, or ``encode``d to be applied later.
    """

    def __init__(self) -> None:
        #: The chats that begin, by tree.
        self._new_chats: dict[int, _NewChat] = {}
        self._changes: dict[int, _ChatChange] = {}
        self._sums: dict[_SumKey, _Used] = {}
        #: Turns that wait for the index, with their revisions.
        self._pending: list[tuple[int, int]] = []
        #: Turns that wait for a person, and turns that are continued, which wait no more.
        self._waiting: list[tuple[int]] = []
        self._continued: list[tuple[int]] = []

    def add_chat(self, tree: int, key: bytes, tenant: str, conversation: bytes | None) -> None:
        """A chat begins with the turn that is added next."""
        self._new_chats[tree] = (key, tenant, conversation)

    def add_turn(self, tree: int, turn_key: _TurnKey, *, is_new_branch: bool) -> None:
        """A turn has begun."""
        change = self._change_of(tree)
        change.branches += is_new_branch
        change.newest = max(change.newest, turn_key)

    def continue_turn(self, row_id: int) -> None:
        """A turn is continued."""
        self._continued.append((row_id,))

    def end_turn(
        self, tree: int, row_id: int, end: End, in_sums: tuple[str, str, str | None] | None
    ) -> None:
        """A turn has ended. ``in_sums``: the tenant, model and key that it counts for."""
        if end.approvals:
            self._waiting.append((row_id,))
        used = _used_by(end)
        if end.usage is not None:
            change = self._change_of(tree)
            change.used = used if change.used is _NOTHING_USED else change.used + used
        if in_sums is not None:
            tenant, model, key_id = in_sums
            day = int(end.ended_at // DAY_SECONDS)
            self._add_sum((tenant, day, end.model or model, key_id or ""), used)

    def add_pending(self, turns: Iterable[tuple[int, int]]) -> None:
        """Turns wait for the index; each has a revision."""
        self._pending += turns

    @property
    def count(self) -> int:
        """How many turns and chats there is something of to ``apply``."""
        return len(self._changes) + len(self._pending)

    def write_new(self, connection: sqlite3.Connection) -> None:
        """Write what others find by its id at once: chats that begin, and who waits for whom."""
        if self._new_chats:
            added = []
            for tree, (key, tenant, conversation) in self._new_chats.items():
                one = self._changes.pop(tree)
                at, newest = one.newest
                state = (at, at, newest, one.branches, conversation, *one.used.tokens)
                added.append((tree, key, tenant, *state, one.used.cost))
            connection.executemany(_ADD, added)
            self._new_chats = {}
        if self._continued:
            # Hardly ever is there one: one look costs less than a deletion for each turn.
            if connection.execute(_HAS_WAITING).fetchall():
                connection.executemany(_REMOVE_WAITING, self._continued)
            self._continued = []
        if self._waiting:
            connection.executemany(_ADD_WAITING, self._waiting)
            self._waiting = []

    def apply(self, connection: sqlite3.Connection) -> None:
        """Write the other changes, after which there are none."""
        if self._changes:
            rows = []
            for tree, one in self._changes.items():
                (at, newest), used = one.newest, one.used
                sums = (*used.tokens, used.cost, used.cost)
                rows.append((at, newest, newest, at, one.branches, *sums, tree))
            connection.executemany(_ADD_TURNS, rows)
            self._changes = {}
        if self._sums:
            connection.executemany(
                _ADD_USAGE_SUMS,
                [(*key, used.turns, *used.tokens, used.cost) for key, used in self._sums.items()],
            )
            self._sums = {}
        if self._pending:
            write_pending(connection, self._pending)
            self._pending = []

    def encode(self) -> bytes | None:
        """The changes to apply, after which there are none here. None: there were none."""
        if not (self._changes or self._sums or self._pending):
            return None
        body = _encode(_Deferred(self._changes, list(self._sums.items()), self._pending))
        self._changes, self._sums, self._pending = {}, {}, []
        return body

    def add_encoded(self, body: bytes) -> None:
        """Add what ``encode`` returned."""
        other = _decode(body)
        for tree, one in other.chats.items():
            change = self._change_of(tree)
            change.newest = max(change.newest, one.newest)
            change.branches += one.branches
            change.used += one.used
        for key, used in other.sums:
            self._add_sum(key, used)
        self._pending += other.pending

    def _change_of(self, tree: int) -> _ChatChange:
        change = self._changes.get(tree)
        if change is None:
            change = self._changes[tree] = _ChatChange()
        return change

    def _add_sum(self, key: _SumKey, used: _Used) -> None:
        known = self._sums.get(key)
        self._sums[key] = used if known is None else known + used


def write_pending(connection: sqlite3.Connection, turns: list[tuple[int, int]]) -> None:
    """Add turns, each with a revision, to those that wait for the index."""
    insert_rows(connection, _ADD_PENDING, turns)


def remove_turns(connection: sqlite3.Connection, row_range: tuple[int, int]) -> int:
    """Note that the turns of a range of one thread were erased; returns their tree.

    To be called when they are gone: a thread without turns is no branch any more.
    """
    first = row_range[0]
    ((tree,),) = connection.execute(TURN_SQL["tree_of"], (thread_of(first),)).fetchall()
    rest = connection.execute(
        CHAT_SQL["has_turns"], (first_of_thread(first), last_of_thread(first))
    ).fetchall()
    if not rest:
        connection.execute(_ADD_BRANCHES, (-1, tree))
    connection.execute(CHAT_SQL["remove_waiting_in"], row_range)
    found: int = tree
    return found


class ErasedChat:
    """The change for readers of a chat that was deleted with its last turn."""

    __slots__ = ("key", "tenant")

    def __init__(self, key: bytes, tenant: str) -> None:
        self.key = key
        self.tenant = tenant


def settle_chat(connection: sqlite3.Connection, tree: int) -> tuple[list[int], ErasedChat | None]:
    """Bring a chat up to date after an erasure: the ids of its texts to delete, and the chat
    itself where nothing of it is left.
    """
    rows = connection.execute(CHAT_SQL["state"], (tree,)).fetchall()
    if not rows:
        return [], None
    title, metadata, is_title_generated, kind, key, tenant = rows[0]
    if kind != 0:
        newest = connection.execute(CHAT_SQL["newest_of"], {"tree": tree}).fetchall()
        if not newest:
            connection.execute(CHAT_SQL["delete"], (tree,))
            return [one for one in (title, metadata) if one is not None], ErasedChat(key, tenant)
        connection.execute(CHAT_SQL["set_newest"], (*newest[0], tree))
    if not is_title_generated:
        return [], None
    connection.execute(CHAT_SQL["drop_title"], (tree,))
    return [] if title is None else [title], None
