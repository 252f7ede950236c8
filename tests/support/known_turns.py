"""What the model of the stores' contract knows of turns and conversations."""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec

from antiphon.core.images import Blob
from antiphon.core.turns import ConversationRecord, End
from antiphon.turn.store_protocols import Head, NewTurn, StoredTurn


class Known(msgspec.Struct):
    """What the model knows of a turn. ``thread`` is the id of the thread's first turn."""

    new: NewTurn
    thread: str
    depth: int
    parent: Known | None
    tree: list[int]
    stamp: float
    input: list[bytes]
    blobs: list[Blob]
    head: Head | None = None
    output: list[bytes] = []
    end: End | None = None
    erased: bool = False
    swept: bool = False
    children: list[Known] = []

    @property
    def id(self) -> str:
        return self.new.response_id

    @property
    def order(self) -> tuple[float, int, int]:
        assert self.head is not None
        return self.stamp, self.head.thread, self.head.seq

    def family(self) -> Iterator[Known]:
        yield self
        for child in self.children:
            yield from child.family()

    def chain(self) -> list[Known]:
        above = self.parent.chain() if self.parent else []
        return above if self.erased else [*above, self]

    def youngest(self) -> float:
        return max((one.stamp for one in self.family() if not one.erased), default=-math.inf)

    def stored(self, expires_at: float | None = None) -> StoredTurn:
        return StoredTurn(
            response_id=self.id,
            created_at=self.new.created_at,
            header=self.new.header,
            input=tuple(self.input),
            output=tuple(self.output),
            end=self.end,
            previous_response_id=self.parent.id if self.parent else None,
            blobs={blob.hash: blob.data for blob in self.blobs},
            expires_at=expires_at,
        )


class Talk(msgspec.Struct):
    """What the model knows of a conversation."""

    made: ConversationRecord
    tenant: str
    head: Known | None = None
    busy: Known | None = None
    gone: bool = False
