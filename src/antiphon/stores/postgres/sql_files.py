"""SQL files of the PostgreSQL store: named queries, and the schema migrations of a database.

A query takes its values as ``$1``. Schema migration: each is a file ``migrations/NNNN_name.sql``,
applied whole or not at all, by one process at a time. A new migration leaves what the version
before it reads and writes as it was, so that both may run while servers are replaced one by one.
"""

from __future__ import annotations

import contextlib
import zlib
from importlib import resources
from typing import TYPE_CHECKING, Final

import asyncpg

from antiphon.errors import ConfigError
from antiphon.stores.sql_queries import parse_queries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from antiphon.stores.postgres.connection import Connection

_MIGRATIONS_TABLE: Final = """
CREATE TABLE IF NOT EXISTS antiphon_migrations (
    number integer PRIMARY KEY,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""
#: Any number: it is the same in every process.
_LOCK: Final = zlib.crc32(b"antiphon migrations")


def read_sql(path: str) -> str:
    """The text of a ``.sql`` file of this package; ``path`` is relative to it."""
    return resources.files(__package__).joinpath(path).read_text(encoding="utf-8")


def read_queries(path: str) -> dict[str, str]:
    """The queries of a file by name."""
    return parse_queries(read_sql(path))


#: The queries of turns, and those of the changes of chats.
TURN_SQL: Final = read_queries("turns.sql")


def migration_names() -> list[str]:
    """The names of the migration files, in order; the first one's number is 1."""
    folder = resources.files(__package__).joinpath("migrations")
    return sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))


async def migrate(connection: Connection, names: Sequence[str] | None = None) -> None:
    """Apply the migrations that are missing; ``names`` are all that exist.

    Raises ``ConfigError`` for a newer schema.
    """
    names = migration_names() if names is None else names
    if await _version(connection) == len(names):
        return
    async with connection.transaction():
        # Where there are no advisory locks, the one on the table does it.
        with contextlib.suppress(asyncpg.FeatureNotSupportedError):
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        await connection.execute(_MIGRATIONS_TABLE)
        version = await _version(connection)
        if version > len(names):
            raise ConfigError(
                f"The database was written by a newer antiphon (schema {version}, this one knows "
                f"{len(names)}): upgrade antiphon, or give another database."
            )
        for number, name in enumerate(names[version:], version + 1):
            await connection.execute(read_sql(f"migrations/{name}"))
            await connection.execute(
                "INSERT INTO antiphon_migrations (number, name) VALUES ($1, $2)", number, name
            )


async def _version(connection: Connection) -> int:
    """The number of the last migration that was applied."""
    if await connection.fetchval("SELECT to_regclass('antiphon_migrations')") is None:
        return 0
    version: int = await connection.fetchval(
        "SELECT coalesce(max(number), 0) FROM antiphon_migrations"
    )
    return version
