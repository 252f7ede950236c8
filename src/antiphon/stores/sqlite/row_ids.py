"""A row's place in the SQLite log: thread, turn and position in one integer.

    bits 34-62  thread  counts from 1
    bits 15-33  seq     the turn's depth in its chain, from 0
    bits  0-14  pos     0 is the header, 32,767 the end; between lie the blobs used, then items

The integer is the table's rowid: rows of a chain are neighbours, and unlike rows of
a table keyed by three columns they leave their page only when larger than one.
"""

from __future__ import annotations

from typing import Final

#: The distance from one turn to the next, and from one thread to the next.
TURN: Final = 1 << 15
THREAD: Final = 1 << 34
#: The position of a turn's end.
LAST: Final = TURN - 1

MAX_ITEMS: Final = LAST - 1
MAX_SEQ: Final = THREAD // TURN - 1
MAX_THREAD: Final = (1 << 63) // THREAD - 1


def place_of(thread: int, seq: int) -> int:
    """Where a turn begins: the place of its header."""
    return thread * THREAD + seq * TURN


def thread_of(place: int) -> int:
    return place // THREAD


def seq_of(place: int) -> int:
    return place % THREAD // TURN


def first_of_thread(place: int) -> int:
    """The first place of the thread that ``place`` lies in."""
    return place - place % THREAD


def last_of_thread(place: int) -> int:
    return place | THREAD - 1


def last_of_turn(place: int) -> int:
    """Where the turn that ``place`` lies in has its end."""
    return place | LAST
