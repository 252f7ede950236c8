"""Large stores: filled by the writer's own statements, thousands of turns a second."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from antiphon.core.ids import conversation_key, new_response_id, response_key
from antiphon.core.items import Message, encode_item
from antiphon.core.turns import DEFAULT_TENANT, ConversationRecord, End, Header
from antiphon.stores.sqlite.connection import open_database
from antiphon.stores.sqlite.reader import CONVERSATION_SQL, read_head
from antiphon.stores.sqlite.write_transaction import WriteTransaction
from antiphon.turn.store_protocols import Head, NewTurn

_END = End("completed", 1_700_000_000.0)
_QUESTION = "what of it, and why so? " * 8
_ANSWER = encode_item(Message("assistant", "An answer of some words, as they are. " * 12))


class LargeStore:
    """A new database that is being filled."""

    def __init__(self, batch: WriteTransaction, created_at: float) -> None:
        self._batch = batch
        self._count = 0
        #: The time of each turn, a second later than that of the one before.
        self._created_at = created_at

    def add_turn(self, parent: Head | None = None, conversation: str | None = None) -> str:
        """A completed turn; its id. Its own word is ``turn`` and how many came before it."""
        self._count += 1
        turn = NewTurn(
            response_id=new_response_id(),
            tenant=DEFAULT_TENANT,
            created_at=self._created_at + self._count,
            header=Header("scripted", conversation=conversation),
            input=[encode_item(Message("user", f"common turn{self._count} {_QUESTION}"))],
            parent=parent,
        )
        self._batch.begin(turn)
        self._batch.write(turn.response_id, [_ANSWER], _END)
        return turn.response_id

    def head(self, response_id: str) -> Head:
        """The head of a chain that this response ends."""
        self._batch.flush()
        head, _ = read_head(self._batch.connection, DEFAULT_TENANT, response_id)
        assert head is not None
        return head

    def add_chains(
        self, count: int, length: int, conversation: str | None = None
    ) -> list[list[str]]:
        """So many chains of so many turns; the ids of each."""
        chains = [[self.add_turn(None, conversation)] for _ in range(count)]
        heads = [self.head(chain[0]) for chain in chains]
        for seq in range(1, length):
            for number, chain in enumerate(chains):
                chain.append(self.add_turn(heads[number], conversation))
                heads[number] = msgspec.structs.replace(
                    heads[number], response_id=chain[-1], seq=seq, timestamp=self._created_at
                )
            self._batch.flush()
        return chains

    def add_branches(self, parent: str, count: int) -> list[str]:
        """So many turns that continue one; their ids."""
        head = self.head(parent)
        return [self.add_turn(head) for _ in range(count)]

    def add_conversation(self, record: ConversationRecord, head: str | None) -> None:
        """A conversation whose newest turn this is."""
        self._batch.create_conversation(DEFAULT_TENANT, record)
        if head is not None:
            values = (None, response_key(head), conversation_key(record.id))
            self._batch.connection.execute(CONVERSATION_SQL["move_head"], values)
        self._batch.flush()


@contextlib.contextmanager
def large_store(path: Path, created_at: float = 1_700_000_000.0) -> Iterator[LargeStore]:
    """Fills a new database, in one transaction."""
    connections = open_database(path)
    connection = connections.write_connection
    try:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN IMMEDIATE")
        batch = WriteTransaction(connection, 7, {})
        yield LargeStore(batch, created_at)
        batch.flush()
        connection.execute("COMMIT")
    finally:
        connection.close()
        connections.read_connection.close()
        connections.page_file.close()
        connections.process_locks.release()
