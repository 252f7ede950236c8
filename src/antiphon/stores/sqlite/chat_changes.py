"""Chat changes: what the turns of one transaction change of their chats, and what erasures do.

The changes of all turns of a chat are added up, so that a transaction updates each chat once.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from antiphon.core.retention import DAY_SECONDS
from antiphon.core.turns import End, Usage
from antiphon.stores.sqlite.rows import first_of_thread, last_of_thread, thread_of
from antiphon.stores.sqlite.sql_files import CHAT_SQL, TURN_SQL
from antiphon.turn.chat_protocols import UsageSum

_ADD: Final = CHAT_SQL["add"]
_MOVE: Final = CHAT_SQL["move"]
_ADD_USAGE: Final = CHAT_SQL["add_usage"]
_MOVE_AND_ADD_USAGE: Final = CHAT_SQL["move_and_add_usage"]
_ADD_USAGE_SUMS: Final = CHAT_SQL["add_usage_sums"]
_ADD_BRANCHES: Final = CHAT_SQL["add_branches"]
_ADD_WAITING: Final = CHAT_SQL["add_waiting"]
_HAS_WAITING: Final = CHAT_SQL["has_waiting"]
_REMOVE_WAITING: Final = CHAT_SQL["remove_waiting"]

#: A turn's timestamp and row id: the greatest of a chat is its newest turn.
_TurnKey: TypeAlias = tuple[float, int]
#: The key, the tenant and the conversation of a chat.
_NewChat: TypeAlias = tuple[bytes, str, bytes | None]
_NO_TURN: Final[_TurnKey] = (-math.inf, -1)
_NO_TOKENS: Final = (0, 0, 0)


class _ChatChange:
    """The changes of one chat. ``new_chat``: its key, tenant and conversation, where it begins."""

    __slots__ = ("branches", "cost", "new_chat", "newest", "tokens")

    def __init__(self, new_chat: _NewChat | None = None) -> None:
        self.new_chat = new_chat
        self.newest = _NO_TURN
        self.branches = 0
        #: Input, cached and output tokens.
        self.tokens = _NO_TOKENS
        self.cost: float | None = None


class ChatChanges:
    """The changes of the chats of one transaction, until ``flush`` writes them."""

    def __init__(self) -> None:
        self._changes: dict[int, _ChatChange] = {}
        #: By tenant, day, model and key.
        self._sums: dict[tuple[str, int, str, str], UsageSum] = {}
        #: Turns that wait for a person, and turns that are continued, which wait no more.
        self._waiting: list[tuple[int]] = []
        self._continued: list[tuple[int]] = []

    def add_chat(self, tree: int, key: bytes, tenant: str, conversation: bytes | None) -> None:
        """A chat begins with the turn that is added next."""
        self._changes[tree] = _ChatChange((key, tenant, conversation))

    def add_turn(self, tree: int, turn_key: _TurnKey, *, is_new_branch: bool) -> None:
        """A turn has begun."""
        change = self._changes.get(tree)
        if change is None:
            change = self._changes[tree] = _ChatChange()
        change.branches += is_new_branch
        change.newest = max(change.newest, turn_key)

    def continue_turn(self, row_id: int) -> None:
        """A turn is continued."""
        self._continued.append((row_id,))

    def end_turn(self, tree: int, row_id: int, end: End) -> None:
        """A turn has ended."""
        if end.approvals:
            self._waiting.append((row_id,))
        usage = end.usage
        if usage is None:
            return
        change = self._changes.get(tree)
        if change is None:
            change = self._changes[tree] = _ChatChange()
        tokens = _tokens_of(usage)
        if change.tokens is not _NO_TOKENS:
            sums = zip(change.tokens, tokens, strict=True)
            tokens = (*(one + other for one, other in sums),)  # type: ignore[assignment]
        change.tokens = tokens
        if end.cost is not None:
            change.cost = (change.cost or 0.0) + end.cost

    def add_to_sums(self, tenant: str, model: str, key_id: str | None, end: End) -> None:
        """A turn of a tenant has ended, whose header has this model and key."""
        day = int(end.ended_at // DAY_SECONDS)
        key = (tenant, day, end.model or model, key_id or "")
        one = UsageSum(day, key[2], 1, end.usage or Usage(), end.cost)
        known = self._sums.get(key)
        self._sums[key] = one if known is None else known + one

    def flush(self, connection: sqlite3.Connection) -> None:
        """Write the changes."""
        many = connection.executemany
        if self._changes:
            self._flush_chats(many)
        if self._continued:
            # Hardly ever is there one: one look costs less than a deletion for each turn.
            if connection.execute(_HAS_WAITING).fetchall():
                many(_REMOVE_WAITING, self._continued)
            self._continued = []
        if self._sums:
            rows = [
                (tenant, *key, one.turns, *_tokens_of(one.usage), one.cost)
                for (tenant, *key), one in self._sums.items()
            ]
            many(_ADD_USAGE_SUMS, rows)
            self._sums = {}
        if self._waiting:
            many(_ADD_WAITING, self._waiting)
            self._waiting = []

    def _flush_chats(self, many: Callable[[str, list[Any]], object]) -> None:
        changes, self._changes = self._changes, {}
        added, moved, used, moved_and_used, branched = [], [], [], [], []
        for tree, one in changes.items():
            at, newest = one.newest
            if one.new_chat is not None:
                key, tenant, conversation = one.new_chat
                state = (at, at, newest, one.branches, conversation, *one.tokens, one.cost)
                added.append((tree, key, tenant, *state))
                continue
            if one.branches:
                branched.append((one.branches, tree))
            if one.newest is _NO_TURN:
                used.append((*one.tokens, one.cost, one.cost, tree))
            elif one.tokens is _NO_TOKENS:
                moved.append((at, newest, tree, at, newest))
            else:
                sums = (*one.tokens, one.cost, one.cost)
                moved_and_used.append((at, newest, newest, at, *sums, tree))
        for query, rows in (
            (_ADD, added),
            (_MOVE, moved),
            (_ADD_USAGE, used),
            (_MOVE_AND_ADD_USAGE, moved_and_used),
            (_ADD_BRANCHES, branched),
        ):
            if rows:
                many(query, rows)


def _tokens_of(usage: Usage) -> tuple[int, int, int]:
    return usage.input_tokens, usage.cached_tokens, usage.output_tokens


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
