"""A terminal's screen and scrollback for tests, played back by pyte."""

from __future__ import annotations

import copy
import unicodedata
from typing import Any

import pyte
from wcwidth import wcwidth

from antiphon.cli.markdown.styled_line import Line, line_text

#: More rows than any test writes, so that nothing scrolls away.
_ROWS = 600
_MAX_SCROLLBACK = 10_000
#: The mode of a full screen that a program takes for itself (DECSET).
_ALTERNATE = 1049
#: Skin tones: part of the emoji before them, which pyte does not know.
_MODIFIERS = frozenset(map(chr, range(0x1F3FB, 0x1F400)))


class _Screen(pyte.HistoryScreen):
    """A screen with an alternate one, which leaves nothing behind."""

    #: What is on the other one, and where its cursor is.
    _left: tuple[Any, Any] | None = None

    def set_mode(self, *modes: int, **kwargs: bool) -> None:
        super().set_mode(*modes, **kwargs)
        if _ALTERNATE in modes and self._left is None:
            self._left = copy.deepcopy(self.buffer), copy.copy(self.cursor)

    def reset_mode(self, *modes: int, **kwargs: bool) -> None:
        super().reset_mode(*modes, **kwargs)
        if _ALTERNATE in modes and self._left is not None:
            (self.buffer, self.cursor), self._left = self._left, None


class TerminalScreen:
    """What a terminal shows of what was written to it."""

    def __init__(self, columns: int, rows: int = _ROWS) -> None:
        self._screen = _Screen(columns, rows, history=_MAX_SCROLLBACK)
        self._stream = pyte.Stream(self._screen)

    def write(self, text: str) -> None:
        # pyte drops what follows a joiner: terminals show nothing for it by itself.
        kept = (c for c in text if c < " " or wcwidth(c) or unicodedata.combining(c))
        self._stream.feed("".join(c for c in kept if c not in _MODIFIERS))

    def resize(self, columns: int) -> None:
        self._screen.resize(self._screen.lines, columns)

    @property
    def cursor(self) -> tuple[int, int]:
        """Its row and its column, from 0."""
        return self._screen.cursor.y, self._screen.cursor.x

    @property
    def row_to_cursor(self) -> str:
        """What stands before the cursor in its row."""
        row = self._screen.buffer[self._screen.cursor.y]
        return "".join(row[x].data for x in range(self._screen.cursor.x))

    @property
    def row_below_cursor(self) -> str:
        row = self._screen.buffer[self._screen.cursor.y + 1]
        return "".join(row[x].data for x in range(self._screen.columns)).rstrip()

    @property
    def rows(self) -> list[str]:
        """Its rows as text, scrollback first, without what is empty at their and its end."""
        buffer = self._screen.buffer
        last = max([*buffer, self._screen.cursor.y])
        lines = [*self._screen.history.top, *(buffer[y] for y in range(last + 1))]
        rows = [
            _visible("".join(row[x].data for x in range(self._screen.columns))) for row in lines
        ]
        while rows and not rows[-1]:
            rows.pop()
        return rows


def rows_of(lines: list[Line], columns: int) -> list[str]:
    """The rows that lines take on a terminal of that width."""
    rows: list[str] = []
    for line in lines:
        row, width = "", 0
        for char in line_text(line):
            if char in _MODIFIERS:
                continue
            # pyte, unlike terminals, lets a wide character begin in the last column.
            if width >= columns and wcwidth(char) > 0:
                rows.append(_visible(row))
                row, width = "", 0
            row += char
            width += max(wcwidth(char), 0)
        rows.append(_visible(row))
    while rows and not rows[-1]:
        rows.pop()
    return rows


def _visible(row: str) -> str:
    """A row without what takes no column: terminals keep or drop it."""
    composed = unicodedata.normalize("NFC", row)
    kept = "".join(char for char in composed if char == " " or wcwidth(char) > 0)
    return "".join(
        char for char in unicodedata.normalize("NFD", kept) if wcwidth(char) > 0
    ).rstrip()
