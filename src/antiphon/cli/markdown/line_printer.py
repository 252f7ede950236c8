"""Line printer: writes lines to a terminal, each once; only the unfinished one is rewritten. Pure.

A line that grew is written on from where it ends. Where its words changed (a mark turned out to be
none, a word moved to the next line) the terminal goes back to the first change.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.color import ColorSystem

from antiphon.cli.markdown.styled_line import (
    Line,
    Pen,
    ascii_length,
    crop,
    drop_shown_text,
    drop_text,
    has_certain_width,
    line_text,
    line_width,
    split_common,
)

#: A terminal shows what is between these at once.
BEGIN_UPDATE = "\x1b[?2026h"
END_UPDATE = "\x1b[?2026l"
#: So few characters reach a terminal in one packet, and are shown at once without these.
_ATOMIC_LENGTH = 512
_ERASE_LINE_END = "\x1b[K"


def as_one_update(text: str) -> str:
    """A text that moves the cursor, so that a terminal shows its end alone."""
    return f"{BEGIN_UPDATE}{text}{END_UPDATE}" if len(text) > _ATOMIC_LENGTH else text


class LinePrinter:
    """What to write for lines and for the unfinished one after them.

    ``colors`` None: no colours. ``moves_cursor`` False: nothing is ever rewritten, so the
    unfinished line is not shown before it is whole.
    """

    def __init__(
        self, width: int, colors: ColorSystem | None, *, moves_cursor: bool = True
    ) -> None:
        self._width = width
        self._pen = Pen(colors)
        self._moves_cursor = moves_cursor
        #: What is on the terminal's present line.
        self._shown: Line = ()
        #: The text of the unfinished line that is on a line above that one.
        self._above = ""

    def update(self, lines: Sequence[Line], unfinished: Line = ()) -> str:
        """Write ``lines``, the first of them over the unfinished line so far."""
        if not self._moves_cursor:
            return "".join(f"{self._pen.write(line)}{self._pen.lift()}\n" for line in lines)
        written, is_rewritten = "", False
        for line in lines:
            text, has_moved = self._replace(line)
            written += f"{text}{self._pen.lift()}\r\n"
            is_rewritten = is_rewritten or has_moved
            self._shown, self._above = (), self._moved_text(line)
        text, has_moved = self._replace(crop(unfinished, self._width - 1))
        written += text
        return as_one_update(written) if has_moved or is_rewritten else written

    def set_width(self, width: int) -> str:
        """The terminal has another width: what is shown stays, and is gone on with.

        A terminal may break a line that has become too long, or cut it: it is left to it.
        """
        self._width = width
        if line_width(self._shown) < width:
            return ""
        self._above, self._shown = self._above + line_text(self._shown), ()
        return f"{self._pen.lift()}\r\n"

    @property
    def width(self) -> int:
        """The terminal's, in columns."""
        return self._width

    @property
    def shown(self) -> Line:
        """What is on the terminal's present line."""
        return self._shown

    def assume(self, shown: Line) -> None:
        """The present line was written by others: this is on it."""
        self._shown = shown

    def row_of(self, unfinished: Line) -> Line:
        """What ``update`` shows of an unfinished line."""
        return self._below(crop(unfinished, self._width - 1))

    def lift(self) -> str:
        """Back to plain text, for others to write on."""
        return self._pen.lift()

    def clear_unfinished(self) -> str:
        """Take the unfinished line away, for others to show it."""
        has_line, self._shown = bool(self._shown), ()
        return f"{self._pen.lift()}\r{_ERASE_LINE_END}" if has_line else ""

    def _moved_text(self, line: Line) -> str:
        """What is above the present line, though its word has moved on to the line after it."""
        text = line_text(line)
        is_beyond = len(self._above) > len(text) and self._above.startswith(text)
        return self._above[len(text) :].strip() if is_beyond else ""

    def _below(self, line: Line) -> Line:
        """What of a line is not on the lines above."""
        return drop_shown_text(line, self._above) if self._above else line

    def _replace(self, line: Line) -> tuple[str, bool]:
        """Make the present line ``line``; whether something of it was rewritten."""
        line = self._below(line)
        shared, old, new = split_common(self._shown, line)
        self._shown = line
        if not old:
            return self._pen.write(new), False
        lifted, start = self._pen.lift(), len(line_text(shared))
        back = f"\x1b[{line_width(old)}D"
        if not has_certain_width(line_text(old)):
            # By the column of the last ASCII character before it, to which an accent may belong.
            start = max(ascii_length(line_text(shared)) - 1, 0)
            back, new = f"\r\x1b[{start}C", drop_text(line, start)
        if not start:
            back = "\r"
        return f"{lifted}{back}{_ERASE_LINE_END}{self._pen.write(new)}", True
