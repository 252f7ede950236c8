"""Pending rows: what the jobs of a transaction collect, until it is written table by table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from antiphon.stores.postgres.chat_changes import ChatChanges
from antiphon.stores.postgres.rows import TurnKey
from antiphon.stores.postgres.sql_files import TURN_SQL

if TYPE_CHECKING:
    from antiphon.stores.postgres.write_transaction import WriteTransaction


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
    """The rows of one transaction; ``flush`` writes those of a table with one statement."""

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

    async def flush(self, transaction: WriteTransaction) -> None:
        """Write them."""
        execute = transaction.execute
        if self.threads:
            threads, self.threads = self.threads, []
            await execute(TURN_SQL["add_threads"], *zip(*threads, strict=True))
        if self.responses:
            responses, self.responses = self.responses, {}
            rows = [
                (one.tenant, one.key, *one.turn, one.timestamp, one.conversation, one.is_running)
                for one in responses.values()
            ]
            await execute(TURN_SQL["add_turns"], *zip(*rows, strict=True), transaction.node)
        if self.log:
            log, self.log = self.log, []
            self.beginnings.clear()
            columns = zip(*map(msgspec.structs.astuple, log), strict=True)
            await execute(TURN_SQL["add_log"], *columns)
        if self.ended:
            ended, self.ended = self.ended, []
            await execute(TURN_SQL["end_running"], *zip(*ended, strict=True))
        if self.fingerprints:
            fingerprints, self.fingerprints = self.fingerprints, []
            await execute(TURN_SQL["add_fingerprints"], *zip(*fingerprints, strict=True))
        if self.searchable:
            searchable, self.searchable = self.searchable, []
            tenants, turns = zip(*searchable, strict=True)
            await execute(TURN_SQL["add_searchable"], tenants, *zip(*turns, strict=True))
        await self.chats.flush(transaction)
