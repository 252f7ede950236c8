"""What tests of what lies beside turns share: another process, and a look into files."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from antiphon.stores.sqlite.deferred_changes import apply_deferred

#: The command of the other process: a module, so that it finds what it imports.
CHILD_PROGRAM = (
    "env",
    f"PYTHONPATH={Path(__file__).parents[1]}",
    sys.executable,
    "-m",
    "support.side_stores_process",
)


def apply_deferred_in(path: Path) -> None:
    """Brings the tables up to date that commits write to later, for a test that looks at them."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        apply_deferred(connection)
        connection.execute("COMMIT")
    finally:
        connection.close()


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """While entered, no other connection can write to a file: what they write waits."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


def query_file(path: Path, sql: str, *values: object) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        return connection.execute(sql, values).fetchall()
    finally:
        connection.close()


def all_bytes(folder: Path) -> bytes:
    """Everything that is in any file of a folder."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return b"\0".join(file.read_bytes() for file in files)
