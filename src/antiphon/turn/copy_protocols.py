"""Copy protocols: what a store holds as records that any other store can hold, ids and times too.

A family is all turns that descend from one first turn, with their chat. Its threads are numbered
in the order in which they began; a turn's position is its thread and its depth in its chain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol, TypeAlias

import msgspec

from antiphon.core.turns import End, Header

#: A turn's thread within its family, and its depth in its chain.
TurnPosition: TypeAlias = tuple[int, int]
#: A row of one of ``TABLES``.
CopiedRow: TypeAlias = tuple[bytes | str | float | int | None, ...]

#: What is copied besides families, each by the number of columns that identify a row: they come
#: first, and a table is read in their order.
TABLES: Final[Mapping[str, int]] = {
    # id, SHA-256, tenant, created_at, name, revoked_at
    "api_keys": 1,
    # id, SHA-256, tenant, response key, created_at, expires_at
    "shares": 1,
    # tenant, created_at, key, keys of head and active response, metadata as JSON
    "conversations": 3,
    # tenant, SHA-256, fingerprint, created_at, result_id
    "idempotency_records": 2,
    # tenant, day, model, key, turns, input, cached and output tokens, cost
    "usage_sums": 4,
}


class FamilyTurn(msgspec.Struct, frozen=True):
    """A turn of a family. ``header`` None: it is erased, and only its position is left.

    ``timestamp`` is the time that its age counts from. ``blobs`` are the hashes of its images, in
    order. ``digest`` is what an import knows it by again.
    """

    key: bytes
    position: TurnPosition
    timestamp: float
    created_at: float = 0.0
    header: Header | None = None
    input: tuple[bytes, ...] = ()
    output: tuple[bytes, ...] = ()
    end: End | None = None
    blobs: tuple[str, ...] = ()
    is_waiting: bool = False
    fingerprint: bytes | None = None
    digest: bytes | None = None
    is_digest_of_words: bool = False


class FamilyChat(msgspec.Struct, frozen=True):
    """A chat's own fields. ``newest`` is the position of its newest turn.

    Its sums are of erased turns too, so that they cannot be made of the turns.
    """

    key: bytes
    created_at: float
    updated_at: float
    newest: TurnPosition
    branches: int
    tokens: tuple[int, int, int]
    imported_at: float | None = None
    conversation: bytes | None = None
    is_pinned: bool = False
    is_permanent: bool = False
    title: bytes | None = None
    is_title_generated: bool = False
    metadata: bytes | None = None
    cost: float | None = None


class Family(msgspec.Struct, frozen=True):
    """A family. ``parents`` has for each thread the position that it branches off, None: none.

    ``chat`` None: all its turns are erased. Turns are in the order of their positions.
    """

    tenant: str
    epoch: int
    parents: tuple[TurnPosition | None, ...]
    turns: tuple[FamilyTurn, ...]
    chat: FamilyChat | None


class ReplacedFamily(msgspec.Struct, frozen=True):
    """A family to write, and the number of what is there of it, None: nothing."""

    family: Family
    number: int | None = None


class CopyStore(Protocol):
    """A store that can be copied, or be a copy. Families have numbers that grow.

    A turn that runs is left out wherever families are read: it is copied once it has ended.
    """

    async def family_numbers(self, after: int, limit: int) -> Sequence[int]:
        """The numbers of families behind one, in their order."""
        ...

    async def read_families(self, numbers: Sequence[int]) -> Sequence[Family | None]:
        """Families by their numbers; None: there is none, or all its turns run."""
        ...

    async def find_families(self, keys: Sequence[tuple[str, bytes]]) -> Sequence[int | None]:
        """The number of the family of each response, erased or not, by its tenant and key."""
        ...

    async def read_blobs(self, tenant: str, hashes: Sequence[str]) -> Mapping[str, bytes]:
        """The bytes of images, by their hashes."""
        ...

    async def missing_blobs(self, tenant: str, hashes: Sequence[str]) -> Sequence[str]:
        """Those of the images that are not there."""
        ...

    async def write_families(
        self,
        families: Sequence[ReplacedFamily],
        blobs: Mapping[tuple[str, str], bytes],
        position: int | None = None,
    ) -> None:
        """Write families in one transaction, with images by tenant and hash.

        ``position`` is stored with them (``begin_copy``), None: it stays. ``StoreError``: the
        store is no copy any more.
        """
        ...

    async def delete_families(self, numbers: Sequence[int]) -> None:
        """Leave nothing of families."""
        ...

    async def read_rows(
        self, table: str, after: CopiedRow | None, limit: int
    ) -> Sequence[CopiedRow]:
        """Rows of one of ``TABLES`` behind the one that begins so."""
        ...

    async def write_rows(
        self, table: str, rows: Sequence[CopiedRow], removed: Sequence[CopiedRow]
    ) -> None:
        """Write rows in place of those of the same identity, and delete others by theirs."""
        ...

    async def count(self) -> int:
        """The number of families that have a chat."""
        ...

    async def begin_copy(self, source: str) -> int | None:
        """Mark the store as a copy of another, by its name; the position that it has got to.

        None: it is not empty, and no copy of that one. Until ``end_copy`` nobody else writes to it.
        """
        ...

    async def end_copy(self) -> None:
        """The store is in use of its own from now on, if it was a copy."""
        ...
