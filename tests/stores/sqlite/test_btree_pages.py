"""B-tree pages: finding the copies of rows that SQLite leaves in free page space."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from antiphon.stores.sqlite.btree_pages import LeafPage, PageFile

SIZE = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pages.db"


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("CREATE TABLE words (id INTEGER PRIMARY KEY, word BLOB)")
    yield connection
    connection.close()


def dirty_leaves(path: Path, connection: sqlite3.Connection) -> list[LeafPage]:
    root = connection.execute("SELECT rootpage FROM sqlite_schema").fetchone()[0]
    pages = PageFile(path)
    found = [leaf for leaf in pages.dirty_leaves(root, SIZE) if leaf is not None]
    pages.close()
    return found


def insert(connection: sqlite3.Connection, number: int, length: int) -> None:
    connection.execute("INSERT INTO words VALUES (?, ?)", (number, b"w" * length))


def test_sequential_inserts_leave_no_dirty_pages(
    path: Path, connection: sqlite3.Connection
) -> None:
    for number in range(2000):
        insert(connection, number, 50)
    assert dirty_leaves(path, connection) == []


def test_random_inserts_and_deletes_leave_dirty_pages(
    path: Path, connection: sqlite3.Connection
) -> None:
    for step in (7, 6, 5, 4, 3, 2):
        for number in range(1, 900, step):
            connection.execute("DELETE FROM words WHERE id = ?", (number,))
            insert(connection, number, 40 * step + number % 90)
    found = dirty_leaves(path, connection)
    assert found
    ids = [number for (number,) in connection.execute("SELECT id FROM words ORDER BY id")]
    for leaf in found:
        assert leaf.first in ids
        assert leaf.last in ids
        assert leaf.first <= leaf.last
        assert 0 < leaf.slack < SIZE


def test_rowids_of_all_sizes_are_decoded(path: Path, connection: sqlite3.Connection) -> None:
    ids = [-(2**63), -1, 127, 128, 2**14, 2**34 + 5, 2**56, 2**63 - 1]
    for number in ids:
        insert(connection, number, 10)
    # The last byte of the free space, directly before the first row.
    page = SIZE
    with path.open("r+b") as file:
        file.seek(page + 5)
        content = int.from_bytes(file.read(2), "big")
        file.seek(page + content - 1)
        file.write(b"x")
    (leaf,) = dirty_leaves(path, connection)
    assert (leaf.first, leaf.last) == (ids[0] % 2**64, ids[-1])
    assert leaf.slack == content - 8 - 2 * len(ids)


def test_invalid_pages_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "garbage"
    path.write_bytes(os.urandom(2) * SIZE + bytes([5]) * 3 * SIZE + bytes([13]) * SIZE)
    pages = PageFile(path)
    for root in range(-1, 9):
        list(pages.dirty_leaves(root, SIZE))
    pages.close()


def test_page_file_shares_one_descriptor_closed_by_the_last(path: Path) -> None:
    path.touch()
    one, two = PageFile(path), PageFile(path)
    descriptor = one._file.descriptor
    assert two._file.descriptor == descriptor
    one.close()
    one.close()
    os.fstat(descriptor)
    two.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
