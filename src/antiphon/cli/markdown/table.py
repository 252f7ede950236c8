"""Table: the rows of a Markdown table as lines with columns of one width. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from rich.style import Style

from antiphon.cli.markdown.inline import inline_text
from antiphon.cli.markdown.line_wrapper import LineWrapper
from antiphon.cli.markdown.styled_line import Line, Span, join_spans, line_width

#: So many rows are waited for; the widths of these hold for the rest.
MAX_HELD_ROWS = 40
_HEAD = Style(bold=True)
_BORDER = Style(dim=True)
_GAP = " │ "
_MIN_WIDTH = 3
_CELL = re.compile(r"(?:\\.|`[^`]*`|[^|\\])*")
_DELIMITER = re.compile(r"\s*\|?(?:\s*:?-+:?\s*\|)*\s*:?-+:?\s*\|?\s*")


def is_delimiter_row(text: str, head: str) -> bool:
    """Whether a line makes the one before it a table's head."""
    return bool(_DELIMITER.fullmatch(text)) and len(cells_of(text)) == len(cells_of(head))


def cells_of(text: str) -> list[str]:
    """A row's cells."""
    text = text.strip().removeprefix("|")
    if text.endswith("|") and not text.endswith("\\|"):
        text = text[:-1]
    cells, at = [], 0
    while at <= len(text):
        found = _CELL.match(text, at)
        end = found.end() if found else at
        if end < len(text) and text[end] != "|":
            end += 1
            found = _CELL.match(text, end)
            end = found.end() if found else end
        cells.append(text[at:end].strip().replace("\\|", "|"))
        at = end + 1
    return cells


class Table:
    """A table: ``add_row`` until it ends, ``take_lines`` at any time; no line changes later.

    ``mark`` adds to a cell what a terminal shows in place of colours.
    """

    def __init__(
        self,
        head: str,
        delimiter: str,
        width: int,
        prefix: Line,
        *,
        mark: Callable[[Iterable[Span]], Iterable[Span]],
    ) -> None:
        self._mark = mark
        self._aligns = [(one[:1] == ":", one[-1:] == ":") for one in cells_of(delimiter)]
        self._head = self._row(head)
        self._rows: list[list[Line]] = []
        self._available = width - line_width(prefix)
        self._prefix = prefix
        self._widths: list[int] | None = None

    @property
    def held_rows(self) -> int:
        """How many rows wait for the end of the table."""
        return len(self._rows)

    def add_row(self, text: str) -> list[Line]:
        """One more row; the lines that can be shown now."""
        self._rows.append(self._row(text))
        if self._widths is None and len(self._rows) < MAX_HELD_ROWS:
            return []
        return self.take_lines()

    def take_lines(self) -> list[Line]:
        """The lines of all rows that were not shown yet."""
        lines: list[Line] = []
        if self._widths is None:
            self._widths = self._fit()
            lines += self._row_lines([[*_bold(cell)] for cell in self._head])
            rule = "─┼─".join("─" * width for width in self._widths)
            lines.append(join_spans((*self._prefix, Span(rule, _BORDER))))
        for row in self._rows:
            lines += self._row_lines(row)
        self._rows = []
        return lines

    def _row(self, text: str) -> list[Line]:
        cells = [tuple(self._mark(inline_text(cell))) for cell in cells_of(text)]
        count = len(self._aligns)
        return [*cells[:count], *([()] * (count - len(cells)))]

    def _fit(self) -> list[int]:
        """The columns' widths: the widest ones give way where the line has no room."""
        rows = [self._head, *self._rows]
        widths = [
            max(_MIN_WIDTH, *(line_width(row[index]) for row in rows))
            for index in range(len(self._aligns))
        ]
        room = max(self._available - len(_GAP) * (len(widths) - 1), _MIN_WIDTH * len(widths))
        while sum(widths) > room:
            widest = max(range(len(widths)), key=widths.__getitem__)
            second = max((one for one in widths if one < widths[widest]), default=_MIN_WIDTH)
            excess = sum(widths) - room
            widths[widest] = max(widths[widest] - excess, second, _MIN_WIDTH)
            if widths[widest] == second:
                # Several are the widest: they give way together.
                widths[widest] = max(second - 1, _MIN_WIDTH)
        return widths

    def _row_lines(self, row: Sequence[Iterable[Span]]) -> list[Line]:
        assert self._widths is not None
        columns = []
        for cell, width in zip(row, self._widths, strict=True):
            wrapper = LineWrapper(width)
            wrapper.add(cell)
            wrapper.end_line()
            columns.append(wrapper.take_lines())
        height = max(map(len, columns))
        return [self._row_line(columns, number) for number in range(height)]

    def _row_line(self, columns: Sequence[Sequence[Line]], number: int) -> Line:
        assert self._widths is not None
        spans: list[Span] = [*self._prefix]
        for index, (lines, width) in enumerate(zip(columns, self._widths, strict=True)):
            if index:
                spans.append(Span(_GAP, _BORDER))
            line = lines[number] if number < len(lines) else ()
            left, right = _padding(width - line_width(line), self._aligns[index])
            is_last = index == len(self._widths) - 1
            spans += [Span(" " * left), *line, Span("" if is_last else " " * right)]
        return join_spans(spans)


def _padding(room: int, align: tuple[bool, bool]) -> tuple[int, int]:
    """Columns before and after a cell."""
    room = max(room, 0)
    match align:
        case (True, True):
            return room // 2, room - room // 2
        case (False, True):
            return room, 0
    return 0, room


def _bold(cell: Iterable[Span]) -> list[Span]:
    return [Span(one.text, one.style + _HEAD, one.link) for one in cell]
