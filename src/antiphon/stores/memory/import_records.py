"""Import records in memory: how far the import jobs of this process have got."""

from __future__ import annotations

import msgspec

from antiphon.core.retention import Clock
from antiphon.turn.transfer_protocols import IMPORT_RECORD_LIFETIME, ImportRecord


class MemoryImportRecordStore:
    """An ``ImportRecordStore`` in this process's memory."""

    def __init__(self, clock: Clock, node_id: str) -> None:
        self._clock = clock
        self._node_id = node_id
        #: With the times when they were stored.
        self._records: dict[str, tuple[float, ImportRecord]] = {}

    async def put(self, record: ImportRecord) -> None:
        now = self._clock()
        self._records = {
            name: one
            for name, one in self._records.items()
            if one[0] > now - IMPORT_RECORD_LIFETIME
        }
        own = msgspec.structs.replace(record, node_id=self._node_id, is_alive=True)
        self._records[record.id] = (now, own)

    async def get(self, tenant: str, import_id: str) -> ImportRecord | None:
        found = self._records.get(import_id)
        if found is None or found[0] <= self._clock() - IMPORT_RECORD_LIFETIME:
            return None
        return found[1] if found[1].tenant == tenant else None
