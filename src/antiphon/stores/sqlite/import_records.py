"""Import records in SQLite: how far the import jobs of all processes of a file have got."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from antiphon.stores.sqlite.database import SqliteDatabase
from antiphon.stores.sqlite.sql_files import read_queries
from antiphon.stores.sqlite.write_transaction import WriteTransaction
from antiphon.turn.transfer_protocols import (
    IMPORT_RECORD_LIFETIME,
    MAX_LISTED_IMPORTS,
    ImportRecord,
    sorted_imports,
)

_SQL: Final = read_queries("import_records.sql")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(ImportRecord).decode


class SqliteImportRecordStore:
    """An ``ImportRecordStore`` in the file of a SQLite store."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def put(self, record: ImportRecord) -> None:
        await self._database.submit(_put, record, self._database.expiry.clock())

    async def get(self, tenant: str, import_id: str) -> ImportRecord | None:
        records = await self._read("get", import_id, tenant, self._oldest())
        return records[0] if records else None

    async def list_records(self, tenant: str) -> list[ImportRecord]:
        values = (tenant, self._oldest(), MAX_LISTED_IMPORTS)
        return sorted_imports(await self._read("list_records", *values))

    def _oldest(self) -> float:
        return self._database.expiry.clock() - IMPORT_RECORD_LIFETIME

    async def _read(self, query: str, *values: Any) -> list[ImportRecord]:
        rows = await self._database.read_pooled(
            lambda connection: connection.execute(_SQL[query], values).fetchall()
        )
        return [
            msgspec.structs.replace(
                _decode(body), node_id=f"{owner:016x}", is_alive=self._database.is_alive(owner)
            )
            for owner, body in rows
        ]


def _put(transaction: WriteTransaction, record: ImportRecord, now: float) -> None:
    execute = transaction.connection.execute
    execute(_SQL["delete_old"], (now - IMPORT_RECORD_LIFETIME,))
    values = (record.id, record.tenant, transaction.owner, now, _encode(record))
    execute(_SQL["put"], values)
