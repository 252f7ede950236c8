"""Single-statement transaction: the jobs of turns, written by one statement that commits itself.

What the jobs depend on is assumed to be as it was when it was read, and the statement looks whether
it is, with the locks that a ``WriteTransaction`` takes. Where it is not, nothing is written, and
the same jobs are to be done in an ordinary transaction, which finds out whose fault it is. That is
rare, so that a commit is one round trip instead of six.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from antiphon.core.ids import response_key
from antiphon.stores.postgres.pending_rows import combine_steps
from antiphon.stores.postgres.rows import TurnKey
from antiphon.stores.postgres.sql_files import read_queries
from antiphon.stores.postgres.write_transaction import WriteTransaction, key_of

if TYPE_CHECKING:
    from antiphon.core.chain_fingerprints import ChainFingerprint
    from antiphon.turn.store_protocols import NewTurn

_SQL: Final = read_queries("single_statement.sql")
#: Where a query takes the rows that it writes from.
_ROWS: Final = re.compile(r"\b(FROM|USING) unnest\(")


class NotAsReadError(Exception):
    """Something is not, or cannot be assumed to be, as it was read. Nothing was written."""


class SingleStatementTransaction(WriteTransaction):
    """A ``WriteTransaction`` of jobs for which ``can_be_one_statement`` holds.

    ``connection`` has not begun any. ``finish`` commits.
    """

    #: Trees that are locked, and the epochs that they were read with; None: whatever it is.
    _trees: dict[int, int | None]
    #: Turns that this process runs, and those that are continued, with the keys of their responses.
    _running: set[TurnKey]
    _parents: dict[TurnKey, bytes | None]

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._trees = {}
        self._running = set()
        self._parents = {}

    async def look_at(
        self,
        turns: Sequence[NewTurn],
        writes: Sequence[tuple[str, bool]] = (),
        fingerprints: Sequence[tuple[str, ChainFingerprint]] = (),
    ) -> None:
        for turn in turns:
            if turn.parent is not None:
                self._expect(turn.parent.tree, turn.parent.epoch)
                key = response_key(turn.parent.response_id)
                self._parents[key_of(turn.parent)] = key
                self._looked_at[key_of(turn.parent)] = (key or b"", False)
        for response_id, ends in writes:
            opened = self.find_turn(response_id)
            if opened is not None and not opened.is_ended:
                self._running.add(opened.key)
                self._owners[opened.key] = self.node
                if ends:
                    self._trees.setdefault(opened.key.tree, None)
        for response_id, fingerprint in fingerprints:
            opened = self.find_turn(response_id)
            if opened is None:
                # It began among these jobs, and its row is looked for.
                raise NotAsReadError
            self._expect(opened.key.tree, fingerprint.epoch)

    def _expect(self, tree: int, epoch: int) -> None:
        if self._trees.setdefault(tree, epoch) is None:
            self._trees[tree] = epoch
        if self._trees[tree] != epoch:
            raise NotAsReadError
        self._epochs[tree] = epoch

    async def flush(self) -> None:
        raise NotAsReadError

    async def finish(self) -> None:
        """Write everything, or raise ``NotAsReadError``."""
        steps = self._rows.take_steps(self.node, self._last_steps())
        if not steps:
            return
        query = _guarded(tuple(query for query, _ in steps))
        parents = [(*turn, key) for turn, key in self._parents.items()]
        values: list[object] = [
            *(self.node, list(self._trees.items()), list(self._running), parents)
        ]
        values += [value for _, step_values in steps for value in step_values]
        if not await self.connection.fetchval(query, *values):
            raise NotAsReadError


def can_be_one_statement(turn: NewTurn) -> bool:
    """Whether the beginning of a turn depends on nothing but its parent."""
    return (
        turn.reservation is None
        and turn.conversation is None
        and turn.sibling is None
        and not turn.sources
        and not turn.seen
        and not turn.blobs
    )


@cache
def _guarded(queries: tuple[str, ...]) -> str:
    """One query of several that write: whether all was as it is expected to be, and is written."""
    guarded = [_ROWS.sub(r"\1 step0 CROSS JOIN unnest(", query) for query in queries]
    return combine_steps((_SQL["checks"], *guarded), "SELECT EXISTS (SELECT FROM step0)")
