"""Lines above a prompt: printed above an open prompt_toolkit prompt, which is not drawn again.

The prompt's first row is the line that is not finished yet, written on as any other line is. Where
lines are finished, the terminal itself makes room: it scrolls below the prompt, and inserts rows
in it. prompt_toolkit lays out and compares all of the prompt for each drawing, which takes
milliseconds; that is left for what rows cannot be counted for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from prompt_toolkit.application import Application
from prompt_toolkit.data_structures import Point, Size

from antiphon.cli.markdown.line_printer import (
    BEGIN_UPDATE,
    END_UPDATE,
    LinePrinter,
    as_one_update,
)
from antiphon.cli.markdown.styled_line import Line, Span, has_certain_width, line_text, line_width

_SAVE_CURSOR, _RESTORE_CURSOR = "\x1b7", "\x1b8"


class _Drawing(msgspec.Struct, frozen=True):
    """The prompt as it was drawn last: ``height`` in rows, ``cursor`` from its first row.

    ``has_row``: its first row is that of the unfinished line. ``has_room``: there are empty rows in
    it, where the system says how far it is to the end of the screen.
    """

    size: Size
    height: int
    cursor: Point
    has_row: bool
    has_room: bool


class LinesAbovePrompt:
    """Prints above the prompt of ``app``, whose first row is ``unfinished`` if it ``has_row``."""

    def __init__(
        self, app: Application[Any], printer: LinePrinter, write: Callable[[str], None]
    ) -> None:
        self._app = app
        self._printer = printer
        self._write = write
        self._is_updating = False
        #: None: not known before the next drawing of it.
        self._drawing: _Drawing | None = None
        self.unfinished: Line = ()
        #: Whether the next drawing has a row for the unfinished line.
        self.has_row = False
        app.before_render += self._shrink
        app.after_render += self._handle_render

    def show(self, lines: Sequence[Line], unfinished: Line) -> None:
        """Print whole lines, and show the one after them."""
        printer, size = self._printer, self._app.output.get_size()
        drawing = self._drawing if self._app.is_running else None
        if drawing is None or drawing.size != size:
            drawing = None
            printer.assume(())
            printer.set_width(size.columns)
        # What a prompt cannot show comes when the line is finished.
        unfinished = _without_links(unfinished)
        if drawing is not None and _can_insert(lines, drawing):
            self._insert(lines, unfinished, drawing)
            self.unfinished = printer.shown
            return
        if lines:
            self._print(lines)
        self.unfinished = printer.row_of(unfinished)
        self._drawing = None
        self._app.invalidate()

    def end_update(self) -> None:
        """Have the terminal show what is there, drawn or not."""
        if self._is_updating:
            self._is_updating = False
            self._write(END_UPDATE)

    def _insert(self, lines: Sequence[Line], unfinished: Line, drawing: _Drawing) -> None:
        """Write on in the prompt's first row, and make rows of the prompt for what follows it."""
        printer, count, cursor = self._printer, len(lines), drawing.cursor
        shown = printer.shown
        if not lines and printer.row_of(unfinished) == shown:
            return
        if lines:
            # Scrolled by line ends below the prompt, what is above goes where one scrolls back to.
            written = "\n" * (drawing.height - 1 - cursor.y + count)
            written += _move(drawing.height - 1 + count, "A")
        else:
            written = _SAVE_CURSOR + _move(cursor.y, "A")
        if has_certain_width(line_text(shown)):
            written += _column(line_width(shown))
        else:
            written += printer.clear_unfinished()
        if lines:
            written += printer.update(lines[:1]) + _move(count, "L")
        written += printer.update(lines[1:], unfinished) + printer.lift()
        written += _move(cursor.y, "B") + _column(cursor.x) if lines else _RESTORE_CURSOR
        self._write(as_one_update(written))

    def _print(self, lines: Sequence[Line]) -> None:
        """Print above the prompt, which is taken away for that and drawn again."""
        # Not by run_in_terminal: what is typed meanwhile would be echoed into the text.
        if self._app.is_running:
            self._erase()
        self._printer.assume(())
        self._write(self._printer.update(lines))

    def _erase(self) -> None:
        """Take the prompt away, until the next drawing of it."""
        if not self._is_updating:
            self._write(BEGIN_UPDATE)
        self._is_updating = True
        self._app.renderer.erase()

    def _shrink(self, _: object) -> None:
        """Have the prompt be drawn without empty rows: it keeps its height otherwise."""
        renderer = self._app.renderer
        screen = renderer.last_rendered_screen
        if screen is None or renderer.height_is_known:
            return
        if self._wanted_height(self._app.output.get_size()) < screen.height:
            self._erase()

    def _wanted_height(self, size: Size) -> int:
        container = self._app.layout.container
        return container.preferred_height(size.columns, size.rows).preferred

    def _handle_render(self, _: object) -> None:
        app, size = self._app, self._app.output.get_size()
        screen, self._drawing = app.renderer.last_rendered_screen, None
        if screen is not None:
            self._drawing = _Drawing(
                size,
                screen.height,
                screen.get_cursor_position(app.layout.current_window),
                self.has_row,
                screen.height > self._wanted_height(size),
            )
        self._printer.assume(self.unfinished if self.has_row else ())
        self.end_update()


def _can_insert(lines: Sequence[Line], drawing: _Drawing) -> bool:
    """Whether it is known how many rows lines take, and the screen has them."""
    rows, columns = drawing.size
    return (
        drawing.has_row
        and not (lines and drawing.has_room)
        and drawing.height + len(lines) <= rows
        and all(line_width(line) < columns for line in lines)
    )


def _without_links(line: Line) -> Line:
    """A line as a prompt can show it; its links come when it is finished."""
    if not any(span.link for span in line):
        return line
    return tuple(Span(span.text, span.style) for span in line)


def _move(rows: int, command: str) -> str:
    """So many rows up (A), down (B), or inserted (L)."""
    return f"\x1b[{rows if rows > 1 else ''}{command}" if rows else ""


def _column(column: int) -> str:
    return f"\x1b[{column + 1}G" if column else "\r"
