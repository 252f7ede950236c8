"""The files of a stopped store: their size, and how much of it is the search index."""

from __future__ import annotations

import sqlite3
from pathlib import Path


def bytes_on_disk(folder: Path) -> int:
    """Bytes of all files of a store's folder."""
    return sum(file.stat().st_size for file in folder.rglob("*"))


def index_bytes(database: Path) -> float:
    """Bytes of the pages of the search index; NaN where this SQLite cannot tell."""
    connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
    try:
        ((size,),) = connection.execute(
            "SELECT total(pgsize) FROM dbstat WHERE name LIKE 'search%' AND aggregate = TRUE"
        ).fetchall()
    except sqlite3.OperationalError:
        return float("nan")
    finally:
        connection.close()
    return float(size)
