"""Import records in SQLite: how far the import jobs of all processes of a file have got."""

from __future__ import annotations

from typing import Final

import msgspec

from antiphon.stores.sqlite.database import SqliteDatabase
from antiphon.stores.sqlite.sql_files import read_queries
from antiphon.stores.sqlite.write_transaction import WriteTransaction
from antiphon.turn.transfer_protocols import IMPORT_RECORD_LIFETIME, ImportRecord

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
        oldest = self._database.expiry.clock() - IMPORT_RECORD_LIFETIME
        rows = await self._database.read_pooled(
            lambda connection: connection.execute(
                _SQL["get"], (import_id, tenant, oldest)
            ).fetchall()
        )
        for owner, body in rows:
            return msgspec.structs.replace(
                _decode(body), node_id=f"{owner:016x}", is_alive=self._database.is_alive(owner)
            )
        return None


def _put(transaction: WriteTransaction, record: ImportRecord, now: float) -> None:
    execute = transaction.connection.execute
    execute(_SQL["delete_old"], (now - IMPORT_RECORD_LIFETIME,))
    values = (record.id, record.tenant, transaction.owner, now, _encode(record))
    execute(_SQL["put"], values)
