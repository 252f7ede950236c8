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
_HEADERS: Final = {_INTERIOR: 12, _LEAF: 8}

#: What SQLite itself may leave in a gap: so many bytes within so many.
_NOTES: Final = 6
_BOOKS: Final = 8
#: The end of a page that its only row, however long, does not reach.
_LONELY: Final = 32

_Inode: TypeAlias = tuple[int, int]


class Leaf(msgspec.Struct, frozen=True):
    """A page of a table's rows: the ids of its first and last, and the bytes that are unused.

    ``gap`` are those between the page's index and its rows, ``free`` all that are there.
    """

    first: int
    last: int
    gap: int
    free: int


class _Shared(msgspec.Struct):
    descriptor: int
    users: int = 0


class PageFile:
    """An opened database file.

    POSIX takes away all locks that a process has on a file when it closes the file once,
    those of SQLite too. So all stores of this process share one opening of a file, and the
    last of them closes it, when its connections are closed.
    """

    _lock = threading.Lock()
    _shared: dict[_Inode, _Shared] = {}  # noqa: RUF012  shared on purpose

    def __init__(self, path: Path) -> None:
        status = path.stat()
        self._inode: _Inode = (status.st_dev, status.st_ino)
        with self._lock:
            if self._inode not in self._shared:
                self._shared[self._inode] = _Shared(os.open(path, os.O_RDONLY))
            self._file = self._shared[self._inode]
            self._file.users += 1
        self._closed = False

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                self._file.users -= 1
                if self._file.users == 0:
                    os.close(self._file.descriptor)
                    del self._shared[self._inode]

    def unclean(self, root: int, size: int) -> Iterator[Leaf | None]:
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
            if len(page) < size or page[start] not in _HEADERS:
                continue
            if page[start] == _INTERIOR:
                numbers.append(_number(page, start + 8, 4))
                cells = _cells(page, start)
                numbers += [_number(page, cell, 4) for cell in cells if cell < size - 4]
                yield None
            else:
                yield _unclean_leaf(page, start)


def _unclean_leaf(page: bytes, start: int) -> Leaf | None:
    """The page, if its gap is not empty: as a rule it is, and nothing more is looked at."""
    count = _number(page, start + 3, 2)
    if not count or not (gap := _gap(page, start, count)):
        return None
    cells = _cells(page, start)
    return Leaf(_row(page, cells[0]), _row(page, cells[-1]), gap, gap + _loose(page, start))


def _number(page: bytes, at: int, length: int) -> int:
    return int.from_bytes(page[at : at + length], "big")


def _cells(page: bytes, start: int) -> list[int]:
    """Where on the page its cells are, by row."""
    first = start + _HEADERS[page[start]]
    count = _number(page, start + 3, 2)
    return [_number(page, first + 2 * place, 2) for place in range(count)]


def _gap(page: bytes, start: int, cells: int) -> int:
    """How large the page's gap is, if there is anything in it.

    But for a few bytes at its very beginning, where SQLite keeps its own books: the place of
    a row that was taken away, the length of a block that was freed.
    """
    first = start + _HEADERS[_LEAF] + 2 * cells
    # In a page of 64 KiB, 65536 is written as 0.
    last = _number(page, start + 5, 2) or 65536
    if cells == 1:
        return max(0, last - first) if page[first + _LONELY : last].strip(b"\0") else 0
    books = page[first : min(first + _BOOKS, last)]
    clean = len(books) - books.count(0) <= _NOTES and not page[first + _BOOKS : last].strip(b"\0")
    return 0 if clean else max(0, last - first)


def _loose(page: bytes, start: int) -> int:
    """How many bytes are unused between the rows."""
    loose = page[start + 7]
    block = _number(page, start + 1, 2)
    while 0 < block < len(page) - 4:
        loose += _number(page, block + 2, 2)
        following = _number(page, block, 2)
        # They come in order, on a page that is one.
        block = following if following > block else 0
    return loose


def _row(page: bytes, cell: int) -> int:
    """The id of the row in a leaf's cell: behind the payload's length."""
    _, after = _varint(page, cell)
    return _varint(page, after)[0]


def _varint(page: bytes, at: int) -> tuple[int, int]:
    """The number there, and where what follows begins."""
    value = 0
    for place, byte in enumerate(page[at : at + 9]):
        if place == 8:
            return value << 8 | byte, at + 9
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + place + 1
    return value, at
