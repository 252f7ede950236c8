"""Import records in memory: how far the import jobs of this process have got."""

from __future__ import annotations

import msgspec

from antiphon.core.retention import Clock
from antiphon.turn.transfer_protocols import (
    IMPORT_RECORD_LIFETIME,
    MAX_LISTED_IMPORTS,
    ImportRecord,
    sorted_imports,
)


class MemoryImportRecordStore:
    """An ``ImportRecordStore`` in this process's memory."""

    def __init__(self, clock: Clock, node_id: str) -> None:
        self._clock = clock
        self._node_id = node_id
        #: With the times when they were stored.
        self._records: dict[str, tuple[float, ImportRecord]] = {}

    async def put(self, record: ImportRecord) -> None:
        self._records = self._valid()
        own = msgspec.structs.replace(record, node_id=self._node_id, is_alive=True)
        self._records[record.id] = (self._clock(), own)

    async def get(self, tenant: str, import_id: str) -> ImportRecord | None:
        _, record = self._valid().get(import_id, (0.0, None))
        return record if record is not None and record.tenant == tenant else None

    async def list_records(self, tenant: str) -> list[ImportRecord]:
        own = [one for one in self._valid().values() if one[1].tenant == tenant]
        newest = sorted(own, key=lambda one: one[0], reverse=True)[:MAX_LISTED_IMPORTS]
        return sorted_imports([record for _, record in newest])

    def _valid(self) -> dict[str, tuple[float, ImportRecord]]:
        oldest = self._clock() - IMPORT_RECORD_LIFETIME
        return {name: one for name, one in self._records.items() if one[0] > oldest}
