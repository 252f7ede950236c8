"""Breaks lines between words while the words are still coming. No I/O."""

from __future__ import annotations

from rich.cells import cell_len

#: Back by so many columns, and clear the rest of the line.
_TAKE_BACK = "\x1b[{}D\x1b[K"


class WordWrap:
    """Text for a terminal of ``columns``, piece by piece, each shown at once.

    A word that turns out not to fit is taken back and begins the next line; only a
    word longer than a line is broken. The last column stays free: terminals differ in
    what they do after it.
    """

    def __init__(self, columns: int) -> None:
        self._room = max(columns - 1, 1)
        self._column = 0
        self._word = ""

    def feed(self, text: str) -> str:
        """What to write for ``text``."""
        return "".join(map(self._next, text))

    def _next(self, char: str) -> str:
        if char == "\n":
            self._column, self._word = 0, ""
            return char
        if char == "\t":
            char = " "
        cells = cell_len(char)
        if self._column + cells > self._room:
            return self._overflow(char, cells)
        self._column += cells
        self._word = "" if char == " " else self._word + char
        return char

    def _overflow(self, char: str, cells: int) -> str:
        """A new line for what has no room left on this one."""
        word = "" if char == " " else self._word
        taken = cell_len(word)
        if char == " ":
            # The line's end stands for the space.
            self._column, self._word = 0, ""
            return "\n"
        if taken == self._column:
            # The word is the whole line.
            word = taken_back = ""
        else:
            taken_back = _TAKE_BACK.format(taken) if taken else ""
        self._word = word + char
        self._column = cell_len(word) + cells
        return f"{taken_back}\n{word}{char}"
