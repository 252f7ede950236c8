"""A SQLite file's pages as they lie on the disk, to see what SQLite left in them.

Read only, and never to be trusted: someone may be writing. The file format is described at
https://www.sqlite.org/fileformat2.html#b_tree_pages
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

_INTERIOR: Final = 5
_LEAF: Final = 13
#: A page's header, by its kind. The first page of a file has another 100 bytes before it.
_HEADER_SIZES: Final = {_INTERIOR: 12, _LEAF: 8}

#: What SQLite itself may leave in a gap: so many bytes within so many.
_MAX_NONZERO_BYTES: Final = 6
_BOOKKEEPING_BYTES: Final = 8
#: The end of a page that its only row, however long, does not reach.
_SINGLE_ROW_MARGIN: Final = 32

_Inode: TypeAlias = tuple[int, int]


class LeafPage(msgspec.Struct, frozen=True):
    """A page of a table's rows: the ids of its first and last, and the bytes that are unused.

    ``slack`` are those between the page's index and its rows, ``free`` all that are there.
    """

    first: int
    last: int
    slack: int
    free: int


class _SharedFile(msgspec.Struct):
    descriptor: int
    users: int = 0


class PageFile:
    """An opened database file.

    POSIX takes away all locks that a process has on a file when it closes the file once,
    those of SQLite too. So all stores of this process share one opening of a file, and the
    last of them closes it, when its connections are closed.
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

    def dirty_leaves(self, root: int, size: int) -> Iterator[LeafPage | None]:
        """The leaves, of the table whose first page is ``root``, with a gap that is not empty.

        ``size`` is that of a page in bytes. None for every other page, so that whoever looks
        can stop in between.
        """
        numbers = [root]
        # A tree that changes while it is walked may seem to have circles.
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
                yield _unclean_leaf(page, start)


def _unclean_leaf(page: bytes, start: int) -> LeafPage | None:
    """The page, if its gap is not empty: as a rule it is, and nothing more is looked at."""
    count = _read_int(page, start + 3, 2)
    if not count or not (gap := _slack_size(page, start, count)):
        return None
    cells = _cell_offsets(page, start)
    return LeafPage(
        _row_id(page, cells[0]), _row_id(page, cells[-1]), gap, gap + _free_bytes(page, start)
    )


def _read_int(page: bytes, offset: int, length: int) -> int:
    return int.from_bytes(page[offset : offset + length], "big")


def _cell_offsets(page: bytes, start: int) -> list[int]:
    """Where on the page its cells are, by row."""
    first = start + _HEADER_SIZES[page[start]]
    count = _read_int(page, start + 3, 2)
    return [_read_int(page, first + 2 * place, 2) for place in range(count)]


def _slack_size(page: bytes, start: int, cells: int) -> int:
    """How large the page's gap is, if there is anything in it.

    But for a few bytes at its very beginning, where SQLite keeps its own books: the place of
    a row that was taken away, the length of a block that was freed.
    """
    first = start + _HEADER_SIZES[_LEAF] + 2 * cells
    # In a page of 64 KiB, 65536 is written as 0.
    last = _read_int(page, start + 5, 2) or 65536
    if cells == 1:
        return max(0, last - first) if page[first + _SINGLE_ROW_MARGIN : last].strip(b"\0") else 0
    books = page[first : min(first + _BOOKKEEPING_BYTES, last)]
    clean = len(books) - books.count(0) <= _MAX_NONZERO_BYTES and not page[
        first + _BOOKKEEPING_BYTES : last
    ].strip(b"\0")
    return 0 if clean else max(0, last - first)


def _free_bytes(page: bytes, start: int) -> int:
    """How many bytes are unused between the rows."""
    loose = page[start + 7]
    block = _read_int(page, start + 1, 2)
    while 0 < block < len(page) - 4:
        loose += _read_int(page, block + 2, 2)
        following = _read_int(page, block, 2)
        # They come in order, on a page that is one.
        block = following if following > block else 0
    return loose


def _row_id(page: bytes, cell: int) -> int:
    """The id of the row in a leaf's cell: behind the payload's length."""
    _, after = _read_varint(page, cell)
    return _read_varint(page, after)[0]


def _read_varint(page: bytes, offset: int) -> tuple[int, int]:
    """The number there, and where what follows begins."""
    value = 0
    for place, byte in enumerate(page[offset : offset + 9]):
        if place == 8:
            return value << 8 | byte, offset + 9
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, offset + place + 1
    return value, offset
