"""Pending rows: what the jobs of a transaction collect, until it is written table by table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from antiphon.stores.postgres.chat_changes import ChatChanges
from antiphon.stores.postgres.rows import TurnKey
from antiphon.stores.postgres.sql_files import TURN_SQL

if TYPE_CHECKING:
    from antiphon.stores.postgres.write_transaction import WriteTransaction


#: Something that writes: a query and its values.
Step: TypeAlias = tuple[str, Iterable[object]]

_PARAMETER: Final = re.compile(r"\$(\d+)")


class LogRow(msgspec.Struct):
    """A row of the log that is to be written. What comes later in the transaction is added."""

    tree: int
    thread: int
    seq: int
    part: int
    key: bytes | None = None
    previous: bytes | None = None
    created_at: float | None = None
    timestamp: float | None = None
    header: bytes | None = None
    images: bytes | None = None
    input: bytes | None = None
    output: bytes | None = None
    ending: bytes | None = None
    has_summary: bool = False


class NewResponse(msgspec.Struct):
    """A response of a turn that begins. ``is_running`` False: it has ended by now."""

    tenant: str
    key: bytes
    turn: TurnKey
    timestamp: float
    conversation: bytes | None
    is_running: bool = True


class PendingRows:
    """The rows of one transaction; ``flush`` writes them."""

    def __init__(self) -> None:
        #: Tree, thread and tenant, and the thread and depth that it branches off.
        self.threads: list[tuple[int, int, str, int | None, int | None]] = []
        #: By the key of each.
        self.responses: dict[bytes, NewResponse] = {}
        self.log: list[LogRow] = []
        #: Those rows of the log that begin a turn.
        self.beginnings: dict[TurnKey, LogRow] = {}
        #: Turns that run no more.
        self.ended: list[TurnKey] = []
        #: Turns that have ended, with their tenants.
        self.searchable: list[tuple[str, TurnKey]] = []
        #: Tenant, fingerprint, turn and the key of its response.
        self.fingerprints: list[tuple[str, bytes, int, int, int, bytes]] = []
        self.chats = ChatChanges()

    async def flush(self, transaction: WriteTransaction, last: Sequence[Step] = ()) -> None:
        """Write them, and what the ``last`` steps write: all of it in two statements at most.

        No statement changes a table twice, which not every database takes.
        """
        beginnings = self._steps_of_beginnings(transaction.node)
        if beginnings:
            await _execute(transaction, beginnings)
        rest = [*self._steps_of_log(), *self.chats.take_steps(transaction.node), *last]
        if rest:
            await _execute(transaction, rest)
        # Looks at the responses that were written.
        for query, values in self._steps_of_fingerprints():
            await transaction.execute(query, *values)

    def take_steps(self, node: int, last: Sequence[Step] = ()) -> list[Step]:
        """All steps, for one statement; the responses of fingerprints were there before it."""
        return [
            *self._steps_of_beginnings(node),
            *self._steps_of_log(),
            *self.chats.take_steps(node),
            *self._steps_of_fingerprints(),
            *last,
        ]

    def _steps_of_fingerprints(self) -> list[Step]:
        if not self.fingerprints:
            return []
        fingerprints, self.fingerprints = self.fingerprints, []
        return [(TURN_SQL["add_fingerprints"], (fingerprints,))]

    def _steps_of_beginnings(self, node: int) -> list[Step]:
        steps: list[Step] = []
        if self.threads:
            threads, self.threads = self.threads, []
            steps.append((TURN_SQL["add_threads"], (threads,)))
        if self.responses:
            responses, self.responses = self.responses, {}
            rows = [
                (one.tenant, one.key, *one.turn, one.timestamp, one.conversation)
                for one in responses.values()
            ]
            steps.append((TURN_SQL["add_responses"], (rows,)))
            running = [
                (one.tenant, one.key, *one.turn) for one in responses.values() if one.is_running
            ]
            if running:
                steps.append((TURN_SQL["add_running"], (running, node)))
        return steps + self.chats.take_new_chats()

    def _steps_of_log(self) -> list[Step]:
        steps: list[Step] = []
        if self.log:
            log, self.log = self.log, []
            self.beginnings.clear()
            steps.append((TURN_SQL["add_log"], ([*map(msgspec.structs.astuple, log)],)))
        if self.ended:
            ended, self.ended = self.ended, []
            steps.append((TURN_SQL["end_running"], (ended,)))
        if self.searchable:
            searchable, self.searchable = self.searchable, []
            rows = [(tenant, *turn) for tenant, turn in searchable]
            steps.append((TURN_SQL["add_searchable"], (rows,)))
        return steps


async def _execute(transaction: WriteTransaction, steps: Sequence[Step]) -> None:
    """Do several things in one statement."""
    queries = tuple(query for query, _ in steps)
    query = queries[0] if len(queries) == 1 else combine_steps(queries)
    await transaction.execute(query, *[value for _, values in steps for value in values])


@cache
def combine_steps(queries: tuple[str, ...], result: str = "SELECT 1") -> str:
    """One query of several, which takes the values of all, in their order.

    The first one is ``step0`` for the others and the ``result``.
    """
    offset = 0
    parts = []
    for number, query in enumerate(queries):
        parts.append(f"step{number} AS (\n{_with_offset(query, offset)}\n)")
        offset += max(map(int, _PARAMETER.findall(query)))
    return f"WITH {', '.join(parts)}\n{result}"


def _with_offset(query: str, offset: int) -> str:
    return _PARAMETER.sub(lambda found: f"${int(found[1]) + offset}", query)
