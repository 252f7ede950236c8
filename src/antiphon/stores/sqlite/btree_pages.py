"""B-tree pages of a SQLite file, as they are on the disk: finds slack that is not empty.

Read only and best effort: others may be writing. The file format is described at
https://www.sqlite.org/fileformat2.html#b_tree_pages
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

_INTERIOR: Final = 5
_LEAF: Final = 13
#: A page's header, by its kind. The first page of a file has another 100 bytes before it.
_HEADER_SIZES: Final = {_INTERIOR: 12, _LEAF: 8}

#: SQLite's own bookkeeping in a slack: at most so many bytes that are not 0, within so many.
_MAX_NONZERO_BYTES: Final = 6
_BOOKKEEPING_BYTES: Final = 8
#: Bytes at the end of a page that its only row, however long, does not reach.
_SINGLE_ROW_MARGIN: Final = 32

#: How many leaves on each side of a deleted row are looked at. SQLite spreads the rows of a page
#: that became too empty over it and one neighbor on each side.
_NEIGHBORS: Final = 3
_MAX_ROW_ID: Final = (1 << 63) - 1
#: No tree is deeper.
_MAX_DEPTH: Final = 20

_Inode: TypeAlias = tuple[int, int]


class LeafPage(msgspec.Struct, frozen=True):
    """A leaf page of a table: the ids of its first and last row, and the unused bytes.

    ``slack`` is the size of the gap between the cell pointers and the cells, ``free`` all unused.
    """

    first: int
    last: int
    slack: int
    free: int


class _Leaf(msgspec.Struct, frozen=True):
    """A leaf page as it was read: its number, and the range of row ids that belong in it."""

    number: int
    page: bytes
    first: int
    last: int


class _SharedFile(msgspec.Struct):
    descriptor: int
    users: int = 0


class PageFile:
    """An open database file, shared by the stores of this process.

    On POSIX a process that closes a file loses all its locks on it, SQLite's included. So all
    stores share one descriptor per file, and the last one closes it, after its connections.
    """

    _lock = threading.Lock()
    _shared_files: dict[_Inode, _SharedFile] = {}  # noqa: RUF012  shared on purpose

    def __init__(self, path: Path) -> None:
        status = path.stat()
        self._inode: _Inode = (status.st_dev, status.st_ino)
        with self._lock:
            if self._inode not in self._shared_files:
                self._shared_files[self._inode] = _SharedFile(os.open(path, os.O_RDONLY))
            self._file = self._shared_files[self._inode]
            self._file.users += 1
        self._closed = False

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                self._file.users -= 1
                if self._file.users == 0:
                    os.close(self._file.descriptor)
                    del self._shared_files[self._inode]

    def dirty_leaves(
        self, root: int, size: int, near: Sequence[int] | None = None
    ) -> Iterator[LeafPage | None]:
        """The leaf pages, of the table whose root page is ``root``, with slack that is not empty.

        ``size`` is the page size in bytes. ``near``: only of the pages where these rows were and
        around, which takes time by their number and not by the table's size. None for every other
        page, so that the caller can stop in between.
        """
        return self._all_leaves(root, size) if near is None else self._leaves_near(root, size, near)

    def _leaves_near(
        self, root: int, size: int, row_ids: Sequence[int]
    ) -> Iterator[LeafPage | None]:
        seen: set[int] = set()
        covered_to = -1
        for row_id in sorted(row_ids):
            if row_id <= covered_to:
                continue
            middle = self._leaf_of(root, size, row_id)
            if middle is None:
                continue
            covered_to = middle.last
            for leaf in (middle, *self._neighbors(root, size, middle)):
                if leaf.number not in seen:
                    seen.add(leaf.number)
                    yield _dirty_leaf(leaf.page, 100 if leaf.number == 1 else 0)

    def _neighbors(self, root: int, size: int, middle: _Leaf) -> Iterator[_Leaf]:
        """The leaves on both sides."""
        before, after = middle, middle
        for _ in range(_NEIGHBORS):
            if before.first > 0 and (found := self._leaf_of(root, size, before.first - 1)):
                before = found
                yield before
            if after.last < _MAX_ROW_ID and (found := self._leaf_of(root, size, after.last + 1)):
                after = found
                yield after

    def _leaf_of(self, root: int, size: int, row_id: int) -> _Leaf | None:
        """The leaf that a row is in or would be; None: the tree changes while it is read."""
        number, first, last = root, 0, _MAX_ROW_ID
        for _ in range(_MAX_DEPTH):
            page = os.pread(self._file.descriptor, size, (number - 1) * size)
            start = 100 if number == 1 else 0
            if len(page) < size or page[start] not in _HEADER_SIZES:
                return None
            if page[start] == _LEAF:
                return _Leaf(number, page, first, last)
            number = _read_int(page, start + 8, 4)
            cells = _cell_offsets(page, start)
            # A cell's child holds the rows up to the cell's own id.
            child = bisect_left(cells, row_id, key=lambda cell: _read_varint(page, cell + 4)[0])
            if child > 0:
                first = max(first, _read_varint(page, cells[child - 1] + 4)[0] + 1)
            if child < len(cells):
                last = min(last, _read_varint(page, cells[child] + 4)[0])
                number = _read_int(page, cells[child], 4)
        return None

    def _all_leaves(self, root: int, size: int) -> Iterator[LeafPage | None]:
        numbers = [root]
        # A tree that changes while it is walked may seem to have cycles.
        seen: set[int] = set()
        while numbers:
            number = numbers.pop()
            if number < 1 or number in seen:
                continue
            seen.add(number)
            page = os.pread(self._file.descriptor, size, (number - 1) * size)
            start = 100 if number == 1 else 0
            if len(page) < size or page[start] not in _HEADER_SIZES:
                continue
            if page[start] == _INTERIOR:
                numbers.append(_read_int(page, start + 8, 4))
                cells = _cell_offsets(page, start)
                numbers += [_read_int(page, cell, 4) for cell in cells if cell < size - 4]
                yield None
            else:
                yield _dirty_leaf(page, start)


def _dirty_leaf(page: bytes, start: int) -> LeafPage | None:
    """The page, if its slack is not empty; in the common case nothing more is read."""
    count = _read_int(page, start + 3, 2)
    if not count or not (slack := _slack_size(page, start, count)):
        return None
    cells = _cell_offsets(page, start)
    return LeafPage(
        _row_id(page, cells[0]), _row_id(page, cells[-1]), slack, slack + _free_bytes(page, start)
    )


def _read_int(page: bytes, offset: int, length: int) -> int:
    return int.from_bytes(page[offset : offset + length], "big")


def _cell_offsets(page: bytes, start: int) -> list[int]:
    """The offsets of the page's cells, by row."""
    first = start + _HEADER_SIZES[page[start]]
    count = _read_int(page, start + 3, 2)
    return [_read_int(page, first + 2 * cell, 2) for cell in range(count)]


def _slack_size(page: bytes, start: int, cells: int) -> int:
    """The size of the page's slack in bytes; 0 where it is empty.

    A few bytes at its very beginning do not count: SQLite's bookkeeping of deleted rows and
    freed blocks.
    """
    first = start + _HEADER_SIZES[_LEAF] + 2 * cells
    # In a page of 64 KiB, 65536 is written as 0.
    last = _read_int(page, start + 5, 2) or 65536
    if cells == 1:
        return max(0, last - first) if page[first + _SINGLE_ROW_MARGIN : last].strip(b"\0") else 0
    bookkeeping = page[first : min(first + _BOOKKEEPING_BYTES, last)]
    clean = len(bookkeeping) - bookkeeping.count(0) <= _MAX_NONZERO_BYTES and not page[
        first + _BOOKKEEPING_BYTES : last
    ].strip(b"\0")
    return 0 if clean else max(0, last - first)


def _free_bytes(page: bytes, start: int) -> int:
    """How many bytes are unused between the rows."""
    free = page[start + 7]
    block = _read_int(page, start + 1, 2)
    while 0 < block < len(page) - 4:
        free += _read_int(page, block + 2, 2)
        following = _read_int(page, block, 2)
        # On a sound page they are in order.
        block = following if following > block else 0
    return free


def _row_id(page: bytes, cell: int) -> int:
    """The id of the row in a leaf's cell: behind the payload's length."""
    _, after = _read_varint(page, cell)
    return _read_varint(page, after)[0]


def _read_varint(page: bytes, offset: int) -> tuple[int, int]:
    """The varint at the offset, and the offset after it."""
    value = 0
    for number, byte in enumerate(page[offset : offset + 9]):
        if number == 8:
            return value << 8 | byte, offset + 9
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, offset + number + 1
    return value, offset
