"""Lines above a prompt: printed above an open prompt_toolkit prompt, with no layout per word.

The prompt's first row is the line that is not finished yet. prompt_toolkit lays out and compares
all of the prompt for each change, which takes milliseconds; so a line that only grows is written
where it stands, and the prompt is drawn again when a line above it is finished.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prompt_toolkit.application import Application

from antiphon.cli.markdown.line_printer import BEGIN_UPDATE, END_UPDATE
from antiphon.cli.markdown.styled_line import Line, has_certain_width, line_text, text_width

_SAVE_CURSOR, _RESTORE_CURSOR = "\x1b7", "\x1b8"
_ERASE_LINE_END = "\x1b[K"


class LinesAbovePrompt:
    """Prints above the prompt of ``app``, whose first row is ``unfinished``, where there is one."""

    def __init__(self, app: Application[Any], write: Callable[[str], None]) -> None:
        self._app = app
        self._write = write
        self._is_updating = False
        #: What the prompt's first row shows; None: not known before the next drawing of it.
        self._shown: str | None = None
        self.unfinished: Line = ()
        app.after_render += self._handle_render

    def show(self, text: str, rows: int, unfinished: Line) -> None:
        """Print whole lines, which take at most ``rows`` rows, and show the one after them."""
        self.unfinished = unfinished
        if not self._app.is_running:
            self._write(text)
        elif text:
            self._print(text, rows)
        elif self._rewrite_row(line_text(unfinished)):
            return
        self._shown = None
        self._app.invalidate()

    def end_update(self) -> None:
        """Have the terminal show what is there, drawn or not."""
        if self._is_updating:
            self._is_updating = False
            self._write(END_UPDATE)

    def _print(self, text: str, rows: int) -> None:
        # Not by run_in_terminal: what is typed meanwhile would be echoed into the text.
        if not self._is_updating:
            self._write(BEGIN_UPDATE)
        self._is_updating = True
        renderer = self._app.renderer
        room = renderer._min_available_height
        renderer.erase()
        self._write(text)
        if room:
            # How many rows are left is known, so that the terminal need not be asked, whose answer
            # has the prompt drawn once more.
            renderer._min_available_height = max(room - rows, 1)
        else:
            renderer.request_absolute_cursor_position()

    def _rewrite_row(self, text: str) -> bool:
        """Change the first row by what is new of it; False: all has to be drawn."""
        renderer, shown = self._app.renderer, self._shown
        size = self._app.output.get_size()
        if not (shown and text) or renderer._last_size != size:
            return False
        if max(text_width(text), text_width(shown)) >= size.columns:
            return False
        if text == shown:
            return True
        start = 0
        if text.startswith(shown) and has_certain_width(shown):
            start = len(shown)
        up = f"\x1b[{renderer._cursor_pos.y}A" if renderer._cursor_pos.y else ""
        right = f"\x1b[{text_width(shown)}C" if start else ""
        rest = text[start:] + ("" if start else _ERASE_LINE_END)
        self._write(f"{_SAVE_CURSOR}{up}\r\x1b[0m{right}{rest}{_RESTORE_CURSOR}")
        self._shown = text
        return True

    def _handle_render(self, _: object) -> None:
        self._shown = line_text(self.unfinished)
        self.end_update()
