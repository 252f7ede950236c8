"""Named queries: a ``.sql`` file holds blocks, each headed by ``-- name: its_name``.

A query takes its values in order, as ``?`` and a tuple: that is the fastest. One that needs a
value twice takes all of them by name, as ``:name`` and a dict. Not as ``?1``, of which
Python 3.12.0 to 3.12.3 warn.

Brings a SQLite database to the schema that this version knows.

``PRAGMA user_version`` is the number of the last migration applied; each is a file
``migrations/NNNN_name.sql``, applied whole or not at all.
"""

from __future__ import annotations

import sqlite3
from importlib import resources
from typing import Final

from antiphon.errors import ConfigError

_NAME_PREFIX = "-- name: "


def read_sql(path: str) -> str:
    """The text of a ``.sql`` file of this package; ``path`` is relative to it."""
    return resources.files(__package__).joinpath(path).read_text(encoding="utf-8")


def parse_queries(text: str) -> dict[str, str]:
    """The queries of a file by name, without comments. ValueError: a name comes twice."""
    queries: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(_NAME_PREFIX):
            name = line.removeprefix(_NAME_PREFIX).strip()
            if name in queries:
                raise ValueError(f"two queries are named {name!r}")
            lines = queries[name] = []
        elif line.strip() and not line.lstrip().startswith("--"):
            lines.append(line)
    return {name: "\n".join(body) for name, body in queries.items()}


#: Those of turns.
TURN_SQL: Final = parse_queries(read_sql("turns.sql"))


#: What marks a database file as ours in its header: "anti".
APPLICATION_ID: Final = 0x616E7469


def migrations() -> list[str]:
    """The names of the migration files, in order; the first one's number is 1."""
    folder = resources.files(__package__).joinpath("migrations")
    return sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))


def migrate(connection: sqlite3.Connection) -> None:
    """Apply what is missing. One caller at a time, on a connection in autocommit.

    Raises ConfigError for a newer schema or another program's database.
    """
    names = migrations()
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if not _is_antiphon_database(connection):
        raise ConfigError("it is another program's database: give another path.")
    if version > len(names):
        raise ConfigError(
            f"it was written by a newer antiphon (schema {version}, this one knows "
            f"{len(names)}): upgrade antiphon, or give another path."
        )
    for number, name in enumerate(names[version:], version + 1):
        # executescript ends a transaction that is open, so it has to begin its own.
        try:
            connection.executescript(
                f"BEGIN IMMEDIATE;\n{read_sql(f'migrations/{name}')}\n"
                f"PRAGMA application_id = {APPLICATION_ID};\n"
                f"PRAGMA user_version = {number};\nCOMMIT;"
            )
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _is_antiphon_database(connection: sqlite3.Connection) -> bool:
    mark: int = connection.execute("PRAGMA application_id").fetchone()[0]
    if mark == APPLICATION_ID:
        return True
    tables: int = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    return mark == 0 and tables == 0
