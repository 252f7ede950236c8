"""Chat changes: what the turns of one transaction change of their chats, and what erasures do.

The changes of all turns of a chat are added up, so that a transaction updates each chat once.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from antiphon.core.retention import DAY_SECONDS
from antiphon.core.turns import End, Usage
from antiphon.stores.postgres.rows import TurnKey
from antiphon.stores.postgres.sql_files import read_queries
from antiphon.turn.chat_protocols import UsageSum

if TYPE_CHECKING:
    from antiphon.stores.postgres.pending_rows import Step
    from antiphon.stores.postgres.write_transaction import WriteTransaction

_SQL: Final = read_queries("chat_changes.sql")
#: Over how many rows the nodes divide the sums of one tenant, day, model and key.
_SLOTS: Final = 16
#: A turn's timestamp, thread and seq: the greatest of a chat is its newest turn.
_NO_TURN: Final = (-math.inf, -1, -1)


class _ChatChange:
    """The changes of one chat. ``is_new``: it begins."""

    __slots__ = (
        "branches",
        "conversation",
        "cost",
        "is_new",
        "key",
        "newest",
        "oldest",
        "tenant",
        "usage",
    )

    def __init__(self) -> None:
        self.is_new = False
        self.key = b""
        self.tenant = ""
        self.conversation: bytes | None = None
        self.newest: tuple[float, int, int] = _NO_TURN
        #: The least timestamp of turns of new threads; None: there is no such turn.
        self.oldest: float | None = None
        self.branches = 0
        self.usage = Usage()
        self.cost: float | None = None


class ChatChanges:
    """The changes of the chats of one transaction, until they are written."""

    def __init__(self) -> None:
        self._changes: dict[int, _ChatChange] = {}
        #: By tenant, day, model and key.
        self._sums: dict[tuple[str, int, str, str], UsageSum] = {}
        #: Turns that wait for a person, and turns that are continued, which wait no more.
        self._waiting: list[tuple[str, TurnKey]] = []
        self._continued: list[tuple[str, TurnKey]] = []

    def add_chat(self, tree: int, key: bytes, tenant: str, conversation: bytes | None) -> None:
        """A chat begins with the turn that is added next."""
        change = self._changes[tree] = _ChatChange()
        change.is_new = True
        change.key, change.tenant, change.conversation = key, tenant, conversation

    def add_turn(self, turn: TurnKey, timestamp: float, *, is_new_branch: bool) -> None:
        """A turn has begun."""
        change = self._change(turn.tree)
        change.branches += is_new_branch
        if is_new_branch:
            change.oldest = min(timestamp, timestamp if change.oldest is None else change.oldest)
        change.newest = max(change.newest, (timestamp, turn.thread, turn.seq))

    def continue_turn(self, tenant: str, turn: TurnKey) -> None:
        """A turn is continued."""
        self._continued.append((tenant, turn))

    def add_to_sums(self, tenant: str, model: str, key_id: str | None, end: End) -> None:
        """A turn of a tenant has ended, whose header has this model and key."""
        day = int(end.ended_at // DAY_SECONDS)
        key = (tenant, day, end.model or model, key_id or "")
        one = UsageSum(day, key[2], 1, end.usage or Usage(), end.cost)
        known = self._sums.get(key)
        self._sums[key] = one if known is None else known + one

    def end_turn(self, tenant: str, turn: TurnKey, end: End) -> None:
        """A turn of a tenant has ended."""
        if end.approvals:
            self._waiting.append((tenant, turn))
        if end.usage is None and end.cost is None:
            return
        change = self._change(turn.tree)
        change.usage += end.usage or Usage()
        if end.cost is not None:
            change.cost = (change.cost or 0.0) + end.cost

    def _change(self, tree: int) -> _ChatChange:
        change = self._changes.get(tree)
        if change is None:
            change = self._changes[tree] = _ChatChange()
        return change

    def take_new_chats(self) -> list[Step]:
        """What is to be written where turns begin: the chats that do, and what waits no more."""
        steps: list[Step] = []
        new = {tree: one for tree, one in self._changes.items() if one.is_new}
        if new:
            self._changes = {tree: one for tree, one in self._changes.items() if not one.is_new}
            steps.append((_SQL["add"], (_rows(new),)))
        if self._continued:
            continued, self._continued = self._continued, []
            turns = [(tenant, *turn) for tenant, turn in continued]
            steps.append((_SQL["remove_waiting"], (turns,)))
        return steps

    def take_steps(self, node: int) -> list[Step]:
        """What else is to be written."""
        steps: list[Step] = []
        if self._changes:
            changes, self._changes = self._changes, {}
            steps.append((_SQL["change"], (_rows(changes),)))
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            turns = [(tenant, *turn) for tenant, turn in waiting]
            steps.append((_SQL["add_waiting"], (turns,)))
        if self._sums:
            sums, self._sums = self._sums, {}
            rows = [
                (tenant, day, _text(model), key_id, one.turns, *_tokens(one.usage), one.cost)
                # In one order, so that two nodes never wait for each other.
                for (tenant, day, model, key_id), one in sorted(
                    sums.items(), key=lambda one: one[0]
                )
            ]
            slot = node % _SLOTS
            steps.append((_SQL["add_usage_sums"], (rows, slot)))
        return steps


def _rows(changes: dict[int, _ChatChange]) -> list[tuple[object, ...]]:
    return [
        (
            tree,
            one.key,
            one.tenant,
            one.conversation,
            *(one.newest if one.newest is not _NO_TURN else (None, None, None)),
            one.branches,
            *_tokens(one.usage),
            one.cost,
            one.oldest,
        )
        for tree, one in changes.items()
    ]


def _tokens(usage: Usage) -> tuple[int, int, int]:
    return usage.input_tokens, usage.cached_tokens, usage.output_tokens


def _text(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


async def settle_chats(transaction: WriteTransaction, trees: list[int]) -> None:
    """Bring chats up to date after erasures in them: their newest turns, titles and branches."""
    for tree in sorted(trees):
        rows = await transaction.fetch(_SQL["settle"], tree)
        if rows and rows[0]["is_gone"]:
            transaction.changes.add_erased_chat(rows[0]["tenant"], rows[0]["key"])
