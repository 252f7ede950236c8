"""SQL files: named queries, and the schema migrations of a database.

A query takes its values in order, as ``?`` and a tuple, which is the fastest. One that needs a
value twice takes all of them by name, as ``:name`` and a dict. Not as ``?1``, of which Python
3.12.0 to 3.12.3 warn.

Schema migration: ``PRAGMA user_version`` is the number of the last migration applied. Each
is a file ``migrations/NNNN_name.sql``, applied whole or not at all.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from importlib import resources
from typing import Final

from antiphon.errors import ConfigError
from antiphon.stores.sql_queries import parse_queries


def read_sql(path: str) -> str:
    """The text of a ``.sql`` file of this package; ``path`` is relative to it."""
    return resources.files(__package__).joinpath(path).read_text(encoding="utf-8")


def read_queries(path: str) -> dict[str, str]:
    """The queries of a file by name."""
    return parse_queries(read_sql(path))


#: The queries of turns.
TURN_SQL: Final = read_queries("turns.sql")
#: The queries of chats.
CHAT_SQL: Final = read_queries("chats.sql")


#: Identifies a database file of antiphon in SQLite's header: "anti".
APPLICATION_ID: Final = 0x616E7469


def migration_names() -> list[str]:
    """The names of the migration files, in order; the first one's number is 1."""
    folder = resources.files(__package__).joinpath("migrations")
    return sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))


def read_migrations() -> list[str]:
    """The migrations' SQL, in order."""
    return [read_sql(f"migrations/{name}") for name in migration_names()]


def migrate(connection: sqlite3.Connection, scripts: Sequence[str] | None = None) -> None:
    """Apply the migrations that are missing; ``scripts`` are all that exist.

    One caller at a time, on a connection in autocommit. Raises ConfigError for a newer schema
    or another program's database.
    """
    scripts = read_migrations() if scripts is None else scripts
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if not _is_antiphon_database(connection):
        raise ConfigError("it is another program's database: give another path.")
    if version > len(scripts):
        raise ConfigError(
            f"it was written by a newer antiphon (schema {version}, this one knows "
            f"{len(scripts)}): upgrade antiphon, or give another path."
        )
    for number, script in enumerate(scripts[version:], version + 1):
        # executescript ends a transaction that is open, so it has to begin its own.
        try:
            connection.executescript(
                f"BEGIN IMMEDIATE;\n{script}\n"
                f"PRAGMA application_id = {APPLICATION_ID};\n"
                f"PRAGMA user_version = {number};\nCOMMIT;"
            )
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _is_antiphon_database(connection: sqlite3.Connection) -> bool:
    """Whether the file is antiphon's, or still empty."""
    application_id: int = connection.execute("PRAGMA application_id").fetchone()[0]
    if application_id == APPLICATION_ID:
        return True
    tables: int = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    return application_id == 0 and tables == 0
