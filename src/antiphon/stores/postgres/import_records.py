"""Import records in PostgreSQL: how far the import jobs of all nodes have got."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from antiphon.stores.postgres.database import PostgresDatabase
from antiphon.stores.postgres.rows import encode_json
from antiphon.stores.postgres.sql_files import read_queries
from antiphon.stores.postgres.write_transaction import WriteTransaction
from antiphon.turn.transfer_protocols import (
    IMPORT_RECORD_LIFETIME,
    MAX_LISTED_IMPORTS,
    ImportRecord,
    sorted_imports,
)

if TYPE_CHECKING:
    from antiphon.stores.postgres.connection import Connection

_SQL: Final = read_queries("import_records.sql")
_decode = msgspec.json.Decoder(ImportRecord).decode


class PostgresImportRecordStore:
    """An ``ImportRecordStore`` in a PostgreSQL database."""

    def __init__(self, database: PostgresDatabase) -> None:
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
        async def read(connection: Connection) -> Any:
            return await connection.fetch(_SQL[query], *values)

        return [
            msgspec.structs.replace(_decode(body), node_id=f"{node:016x}", is_alive=is_alive)
            for node, body, is_alive in await self._database.read(read)
        ]


async def _put(transaction: WriteTransaction, record: ImportRecord, now: float) -> None:
    await transaction.execute(_SQL["delete_old"], now - IMPORT_RECORD_LIFETIME)
    values = (record.id, record.tenant, transaction.node, now, encode_json(record))
    await transaction.execute(_SQL["put"], *values)
