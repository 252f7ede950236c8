"""Store copy: copies everything in a store to another, while the first is in use.

The first pass writes family after family, with the position in each transaction, so that a copy
that ends half-way goes on from there. The second reads both stores and compares the hash of each
family: what has changed meanwhile is written again, and compared again. A copy that is made again
writes only what has changed since.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

import msgspec

from antiphon.errors import ConfigError, StoreError
from antiphon.turn.copy_protocols import TABLES, CopiedRow, CopyStore, Family, ReplacedFamily

#: Families that are read at once, and rows of a table.
_FAMILIES: Final = 64
_ROWS: Final = 500
#: How often what has changed in the meantime is copied again before it is left to the next time.
_ROUNDS: Final = 5

_encode = msgspec.msgpack.Encoder().encode


class CopyProgress(msgspec.Struct, frozen=True):
    """How far a copy is: families that are done, of so many, in one of two passes."""

    is_check: bool
    done: int
    total: int


class CopyReport(msgspec.Struct, frozen=True):
    """What was copied and compared. ``digest`` is the sum of the SHA-256 of all families.

    ``rewritten`` are families that changed in the meantime, ``changing`` those that still did after
    the last round. ``rows`` are those of the other tables, by table.
    """

    families: int
    turns: int
    rows: dict[str, int]
    digest: str
    rewritten: int = 0
    changing: int = 0


class StoreCopy:
    """One copy, from a store to another; ``show`` is told how far it is."""

    def __init__(
        self, source: CopyStore, target: CopyStore, show: Callable[[CopyProgress], None]
    ) -> None:
        self._source = source
        self._target = target
        self._show = show
        self._turns = 0
        #: Of hashes: they come in no certain order.
        self._sum = 0
        self._compared = 0
        self._rewritten = 0

    async def run(self, source_name: str) -> CopyReport:
        """Copy what is missing and compare all. Raises ``ConfigError``, ``StoreError``."""
        position = await self._target.begin_copy(source_name)
        if position is None:
            raise ConfigError(
                "The store to copy to has turns or keys of its own: name an empty one."
            )
        await self._write_new(position)
        changing = await self._compare_all()
        await self._remove_erased()
        rows = {table: await self._copy_table(table) for table in TABLES}
        return CopyReport(
            self._compared,
            self._turns,
            rows,
            f"{self._sum % (1 << 256):064x}",
            self._rewritten,
            len(changing),
        )

    async def _write_new(self, position: int) -> None:
        """Write the families behind a position."""
        total = await self._source.count()
        done = await self._target.count()
        async for numbers in self._batches(self._source, position):
            families = await self._source.read_families(numbers)
            found = [ReplacedFamily(one) for one in families if one is not None]
            await self._write(found, numbers[-1])
            done += len(numbers)
            self._show(CopyProgress(False, min(done, total), total))

    async def _compare_all(self) -> list[int]:
        """Compare all families, and write again what differs; those that went on changing."""
        total = await self._source.count()
        done = 0
        changing: list[int] = []
        async for numbers in self._batches(self._source, -1):
            changing += await self._compare(numbers)
            done += len(numbers)
            self._show(CopyProgress(True, min(done, total), total))
        return changing

    async def _compare(self, numbers: Sequence[int]) -> list[int]:
        """Compare some families, until they are the same; those that never were."""
        for number_of_round in range(_ROUNDS):
            families = await self._source.read_families(numbers)
            present = [one for one in families if one is not None]
            there = await self._target.find_families(
                [(one.tenant, one.turns[0].key) for one in present]
            )
            copies = await self._read(there)
            differing = []
            for number, family, its_number, copy in zip(
                [number for number, one in zip(numbers, families, strict=True) if one is not None],
                present,
                there,
                copies,
                strict=True,
            ):
                digest = _digest(family)
                if copy is not None and digest == _digest(copy):
                    self._compared += 1
                    self._turns += len(family.turns)
                    self._sum += int.from_bytes(digest)
                else:
                    differing.append((number, ReplacedFamily(family, its_number)))
            if not differing:
                return []
            self._rewritten += len(differing) if number_of_round == 0 else 0
            await self._write([family for _, family in differing])
            numbers = [number for number, _ in differing]
        return list(numbers)

    async def _read(self, numbers: Sequence[int | None]) -> list[Family | None]:
        """The families of the copy at these numbers."""
        known = [number for number in numbers if number is not None]
        found = dict(zip(known, await self._target.read_families(known), strict=True))
        return [None if number is None else found[number] for number in numbers]

    async def _write(self, families: Sequence[ReplacedFamily], position: int | None = None) -> None:
        """Write families with those of their images that are not there yet."""
        blobs: dict[tuple[str, str], bytes] = {}
        by_tenant: dict[str, dict[str, None]] = {}
        for one in families:
            used = by_tenant.setdefault(one.family.tenant, {})
            used.update(dict.fromkeys(name for turn in one.family.turns for name in turn.blobs))
        for tenant, hashes in by_tenant.items():
            missing = await self._target.missing_blobs(tenant, list(hashes)) if hashes else ()
            for name, data in (await self._source.read_blobs(tenant, missing)).items():
                if hashlib.sha256(data).hexdigest() != name:
                    raise StoreError(f"The image {name} is damaged in the store to copy from.")
                blobs[tenant, name] = data
        await self._target.write_families(families, blobs, position)

    async def _remove_erased(self) -> None:
        """Leave nothing of families that are in the copy alone: they have expired."""
        async for numbers in self._batches(self._target, -1):
            families = await self._target.read_families(numbers)
            keys = [
                (one.tenant, one.turns[0].key) if one is not None else ("", b"") for one in families
            ]
            found = await self._source.find_families(keys)
            gone = [number for number, there in zip(numbers, found, strict=True) if there is None]
            if gone:
                await self._target.delete_families(gone)

    async def _copy_table(self, table: str) -> int:
        """Make the rows of a table the same; how many there are."""
        width, count = TABLES[table], 0
        changed: list[CopiedRow] = []
        removed: list[CopiedRow] = []
        async for row, copy in _pairs(
            self._rows(self._source, table), self._rows(self._target, table), width
        ):
            count += row is not None
            if row is None and copy is not None:
                removed.append(copy[:width])
            elif row is not None and row != copy:
                changed.append(row)
            if len(changed) + len(removed) >= _ROWS:
                await self._target.write_rows(table, changed, removed)
                changed, removed = [], []
        if changed or removed:
            await self._target.write_rows(table, changed, removed)
        return count

    async def _rows(self, store: CopyStore, table: str) -> AsyncIterator[CopiedRow]:
        after: CopiedRow | None = None
        while rows := await store.read_rows(table, after, _ROWS):
            for row in rows:
                yield row
            after = rows[-1][: TABLES[table]]

    async def _batches(self, store: CopyStore, after: int) -> AsyncIterator[Sequence[int]]:
        """The numbers of all families behind one, some at a time."""
        while numbers := await store.family_numbers(after, _FAMILIES):
            yield numbers
            after = numbers[-1]


async def _pairs(
    rows: AsyncIterator[CopiedRow], copies: AsyncIterator[CopiedRow], width: int
) -> AsyncIterator[tuple[CopiedRow | None, CopiedRow | None]]:
    """Rows of two tables in the order of their identities; None: the other alone has it."""
    row, copy = await anext(rows, None), await anext(copies, None)
    while row is not None or copy is not None:
        # Identities are of the same types, column by column.
        if copy is None or (row is not None and row[:width] < copy[:width]):
            yield row, None
            row = await anext(rows, None)
        elif row is None or copy[:width] < row[:width]:
            yield None, copy
            copy = await anext(copies, None)
        else:
            yield row, copy
            row, copy = await anext(rows, None), await anext(copies, None)


def _digest(family: Family) -> bytes:
    """The hash of a family: of all its chains, word for word, and of its chat."""
    return hashlib.sha256(_encode(family)).digest()
