"""What several tests of the SQLite store use."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from antiphon.stores.sqlite.sql_files import migrate


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test's database lies."""
    return tmp_path / "turns.db"


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    """A database in memory, with all tables."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection)
    yield connection
    connection.close()
