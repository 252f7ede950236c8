"""Markdown stream: turns Markdown that is still arriving into lines for a terminal. Pure.

A line that is whole is final: ``take_lines`` hands it out once, and nothing that follows changes
it, however the text is divided. ``unfinished`` is the line after these, as things stand.

What differs from CommonMark, because models write so or a terminal needs it: the end of a line in
the source is one on the screen; emphasis ends with its line; ``---`` is a rule, never a heading;
list items nest by any indentation; HTML is text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby

import msgspec
from rich.style import Style

from antiphon.cli.markdown.code_highlighter import CodeHighlighter
from antiphon.cli.markdown.inline import CODE, scan_inline
from antiphon.cli.markdown.line_kinds import (
    Fence,
    Heading,
    LineKind,
    ListItem,
    Quote,
    Rule,
    TableRow,
    Text,
    Verbatim,
    closes_fence,
    kind_of,
    task_of,
    trim_heading,
)
from antiphon.cli.markdown.line_wrapper import LineWrapper
from antiphon.cli.markdown.styled_line import PLAIN, Line, Span, join_spans, line_text, make_safe
from antiphon.cli.markdown.table import Table, is_delimiter_row

#: Lines of prose are no longer than this, however wide the terminal is.
MAX_PROSE_WIDTH = 100
_MARKER = Style(color="blue")
_FAINT = Style(dim=True)
_HEADINGS = {1: Style(bold=True, underline=True), 2: Style(bold=True)}
_LOWER_HEADING = Style(bold=True, italic=True)
_BULLETS = "•◦▪"
_OPEN_END = re.compile(r"[ \t]+#*[ \t]*$")
_QUOTE_BAR = Span("│ ", _FAINT)


class _ListLevel(msgspec.Struct, frozen=True):
    """A list that is open: where its markers stand in the source, and how wide it is shown."""

    indent: int
    content: int
    width: int


class _CodeBlock(msgspec.Struct):
    """A code block that is open."""

    mark: str
    indent: int
    quotes: int
    prefix: Line
    highlighter: CodeHighlighter


class _Leaf(msgspec.Struct, frozen=True):
    """A line without its containers: ``first`` begins it on the screen, ``indent`` what follows."""

    kind: LineKind
    first: Line
    indent: Line
    quotes: int
    column: int


class MarkdownStream:
    """Lines of ``width`` columns of the text that ``feed`` is given.

    ``shows_marks``: code is marked by its backticks, and links by their addresses, for a terminal
    without colours.
    ``is_wrapped`` False: prose may be as long as ``width``, which is more than it will be.
    """

    def __init__(self, width: int, *, shows_marks: bool = False, is_wrapped: bool = True) -> None:
        self._width = width
        self._is_wrapped = is_wrapped
        self._shows_marks = shows_marks
        self._lines: list[Line] = []
        #: The source of the present line: all of it, or what its inline scan has left.
        self._source = ""
        self._lists: list[_ListLevel] = []
        self._quotes = 0
        #: In how many quotes both the present line and the one before it are.
        self._outer = 0
        self._code: _CodeBlock | None = None
        self._table: Table | None = None
        #: A line that is a table's head if the next one says so.
        self._head: tuple[str, _Leaf] | None = None
        self._wrapper: LineWrapper | None = None
        self._style = PLAIN
        self._is_heading = False
        self._previous = "\n"
        self._has_blank = False
        #: What the last block was; "" before the first.
        self._last = ""

    def feed(self, text: str) -> None:
        """Take in more of the text."""
        first, *others = make_safe(text).split("\n")
        self._extend(first)
        for part in others:
            self._end_source_line()
            self._extend(part)

    def finish(self) -> None:
        """The text is over."""
        if self._source or self._wrapper:
            self._end_source_line()
        self._close_table()
        self._code = None

    def set_width(self, width: int) -> None:
        """The terminal has another width from now on."""
        self._width = width
        if self._wrapper is not None:
            self._wrapper.set_width(self._prose_width)

    def take_lines(self) -> list[Line]:
        """The lines that became final since."""
        lines, self._lines = self._lines, []
        return lines

    def unfinished(self) -> Line:
        """The line that is not final yet."""
        if self._wrapper is not None:
            scan = scan_inline(self._inline_source(), self._previous, is_whole=False)
            return self._wrapper.unfinished(self._styled((*scan.settled, *scan.preview)))
        if self._code is not None:
            text = self._code_text(self._source)
            if text is None or closes_fence(text, self._code.mark[:1]):
                return ()
            return (*self._code.prefix, *self._code.highlighter.preview(text))
        if self._table is not None and self._table.held_rows:
            return (Span(f"… a table, {self._table.held_rows} rows", _FAINT),)
        return ()

    @property
    def _prose_width(self) -> int:
        # The last column stays free: terminals differ in what they do after it.
        return max(min(self._width - 1, MAX_PROSE_WIDTH if self._is_wrapped else self._width), 8)

    def _extend(self, text: str) -> None:
        if not text:
            return
        self._source += text
        if self._wrapper is None and self._code is None:
            self._begin_line(is_whole=False)
        if self._wrapper is not None:
            self._scan(is_whole=False)

    def _end_source_line(self) -> None:
        source = self._source
        if self._wrapper is None:
            if self._code is not None and self._add_code(source):
                self._source = ""
                return
            self._begin_line(is_whole=True)
        if self._wrapper is not None:
            self._scan(is_whole=True)
            self._wrapper.end_line()
            self._lines += self._wrapper.take_lines()
            self._wrapper = None
        self._source = ""

    # Inline text.

    def _inline_source(self) -> str:
        return _OPEN_END.sub("", self._source) if self._is_heading else self._source

    def _scan(self, *, is_whole: bool) -> None:
        assert self._wrapper is not None
        source = self._inline_source()
        if is_whole and self._is_heading:
            source = trim_heading(self._source)
        scan = scan_inline(source, self._previous, is_whole=is_whole)
        settled = len(source) - len(scan.rest)
        if settled:
            self._previous = source[settled - 1]
        self._source = scan.rest + self._source[len(source) :]
        self._wrapper.add(self._styled(scan.settled))
        self._lines += self._wrapper.take_lines()

    def _styled(self, spans: Iterable[Span]) -> Iterable[Span]:
        marked = self._marked(spans)
        return (Span(span.text, self._style + span.style, span.link) for span in marked)

    def _marked(self, spans: Iterable[Span]) -> Iterable[Span]:
        """Spans with what a terminal without colours shows in place of these."""
        if not self._shows_marks:
            return spans
        return (
            Span(
                f"`{one.text}`" if one.style.color == CODE.color else one.text, one.style, one.link
            )
            for one in _with_addresses(spans)
        )

    def _begin_text(self, leaf: _Leaf, text: str, block: str, style: Style = PLAIN) -> None:
        self._space_before(block)
        self._wrapper = LineWrapper(self._prose_width, leaf.first, leaf.indent)
        self._style = style
        self._is_heading = block == "heading"
        self._previous, self._source = "\n", text

    # Blocks.

    def _begin_line(self, *, is_whole: bool) -> None:
        """Find out what the present line is, if that can be known, and begin it."""
        if is_whole and not self._source.strip(" \t>"):
            self._end_head()
            self._close_table()
            self._has_blank = True
            return
        lists = [*self._lists]
        leaf = self._leaf(self._source, lists, is_whole=is_whole)
        if leaf is None:
            return
        if self._take_table_row(leaf):
            return
        self._lists, self._outer = lists, min(leaf.quotes, self._quotes)
        self._quotes = leaf.quotes
        self._begin_leaf(leaf)

    def _begin_leaf(self, leaf: _Leaf) -> None:
        match leaf.kind:
            case Heading(level, text):
                self._begin_text(leaf, text, "heading", _HEADINGS.get(level, _LOWER_HEADING))
            case Rule():
                self._space_before("rule")
                rule = Span("─" * min(self._prose_width, 60), _FAINT)
                self._lines.append(join_spans((*leaf.first, rule)))
            case Fence(mark, language):
                self._begin_code(leaf, mark, language)
            case TableRow(text):
                self._head = (text, leaf)
            case Verbatim(text):
                self._space_before("verbatim")
                self._lines.append(join_spans((*leaf.first, Span(text))))
            case Text(text):
                self._begin_text(leaf, text, "item" if leaf.first != leaf.indent else "text")

    def _space_before(self, block: str) -> None:
        """An empty line between blocks: where the source has one, and around large blocks."""
        apart = {"code", "table", "rule"}
        needs_space = self._last in apart or block in apart or block == "heading"
        if self._last and (self._has_blank or needs_space):
            self._lines.append(join_spans((_QUOTE_BAR,) * self._outer))
        self._last, self._has_blank = block, False

    # Containers.

    def _leaf(self, source: str, lists: list[_ListLevel], *, is_whole: bool) -> _Leaf | None:
        """What a line is below its quotes and lists; ``lists`` become those that are open then."""
        quotes, rest = _strip_quotes(source)
        column = _column_of(rest)
        text = rest.lstrip(" \t")
        if not text:
            return None
        kind = kind_of(text, is_whole=is_whole)
        if kind is None:
            return None
        if quotes != self._quotes:
            lists.clear()
        self._close_lists(lists, kind, column)
        if isinstance(kind, ListItem):
            return self._item_leaf(kind, quotes, column, lists, is_whole=is_whole)
        if isinstance(kind, Quote):
            return self._inner_quote(kind, quotes, lists, is_whole=is_whole)
        if isinstance(kind, Text) and column >= 4 and not lists and self._may_begin_verbatim():
            if not is_whole:
                return None
            kind = Verbatim(rest.expandtabs(4)[4:])
        return _Leaf(kind, *self._prefixes(quotes, lists), quotes, column)

    def _may_begin_verbatim(self) -> bool:
        """Whether indentation means something: it does not within a paragraph."""
        return self._has_blank or self._last in {"", "verbatim"}

    def _close_lists(self, lists: list[_ListLevel], kind: LineKind, column: int) -> None:
        is_lazy = isinstance(kind, Text) and not self._has_blank and self._last in {"item", "text"}
        if isinstance(kind, ListItem):
            while lists and column < lists[-1].content and column <= lists[-1].indent + 1:
                if column > lists[-1].indent - 2 and column >= lists[-1].indent - 1:
                    break
                lists.pop()
        elif not is_lazy:
            while lists and column < min(lists[-1].content, lists[-1].indent + 2):
                lists.pop()

    def _item_leaf(
        self,
        item: ListItem,
        quotes: int,
        column: int,
        lists: list[_ListLevel],
        *,
        is_whole: bool,
    ) -> _Leaf | None:
        task = task_of(item.text, is_whole=is_whole)
        if task is None:
            return None
        box, text = task
        if lists and column < min(lists[-1].content, lists[-1].indent + 2):
            lists.pop()
        outer, _ = self._prefixes(quotes, lists)
        shown = item.marker
        if not item.marker[:1].isdecimal():
            shown = box.strip() or _BULLETS[len(lists) % len(_BULLETS)]
            box = ""
        width = len(shown) + 1 + len(box)
        lists.append(_ListLevel(column, column + item.width, width))
        first = join_spans((*outer, Span(f"{shown} ", _MARKER), Span(box)))
        indent = join_spans((*outer, Span(" " * width)))
        inner = kind_of(text, is_whole=is_whole) if text else Text("")
        if inner is None:
            return None
        if isinstance(inner, ListItem):
            nested = self._item_leaf(inner, quotes, column + item.width, lists, is_whole=is_whole)
            if nested is None:
                return None
            return msgspec.structs.replace(
                nested, first=join_spans((*first, *nested.first[len(outer) :]))
            )
        if isinstance(inner, Quote | Rule):
            inner = Text(text)
        return _Leaf(inner, first, indent, quotes, column + item.width)

    def _inner_quote(
        self, quote: Quote, quotes: int, lists: list[_ListLevel], *, is_whole: bool
    ) -> _Leaf | None:
        """A quote within a list."""
        depth, rest = _strip_quotes(f">{quote.text}")
        inner = kind_of(rest.lstrip(), is_whole=is_whole) if rest.strip() else Text("")
        if inner is None or (not rest.strip() and not is_whole):
            return None
        if isinstance(inner, ListItem | Quote):
            inner = Text(rest.strip())
        first, _ = self._prefixes(quotes, lists)
        line = join_spans((*first, *(_QUOTE_BAR,) * depth))
        return _Leaf(inner, line, line, quotes, 0)

    def _prefixes(self, quotes: int, lists: list[_ListLevel]) -> tuple[Line, Line]:
        indent = Span(" " * sum(level.width for level in lists))
        line = join_spans((*(_QUOTE_BAR,) * quotes, indent))
        return line, line

    # Code.

    def _begin_code(self, leaf: _Leaf, mark: str, language: str) -> None:
        self._space_before("code")
        if self._shows_marks:
            self._lines.append(join_spans((*leaf.first, Span(mark + language, _FAINT))))
        elif leaf.first != leaf.indent:
            self._lines.append(leaf.first)
        self._code = _CodeBlock(
            mark, leaf.column, leaf.quotes, leaf.indent, CodeHighlighter(language)
        )

    def _add_code(self, source: str) -> bool:
        """Take a line as one of the block; False: the block ended before it."""
        assert self._code is not None
        text = self._code_text(source)
        if text is None:
            self._code = None
            return False
        if closes_fence(text, self._code.mark):
            if self._shows_marks:
                mark = Span(self._code.mark, _FAINT)
                self._lines.append(join_spans((*self._code.prefix, mark)))
            self._code = None
        else:
            line = self._code.highlighter.highlight(text)
            self._lines.append(join_spans((*self._code.prefix, *line)))
        return True

    def _code_text(self, source: str) -> str | None:
        """A line of the block without the containers that the block is in."""
        assert self._code is not None
        quotes, rest = _strip_quotes(source, self._code.quotes)
        if quotes < self._code.quotes:
            return None
        indent = min(_column_of(rest), self._code.indent)
        return rest.expandtabs(4)[indent:] if "\t" in rest[:indent] else rest[indent:]

    # Tables.

    def _take_table_row(self, leaf: _Leaf) -> bool:
        """Whether a line belongs to a table: as a row, or as what makes the one before its head."""
        if isinstance(leaf.kind, TableRow):
            if self._table is not None:
                self._lines += self._table.add_row(leaf.kind.text)
                return True
            if self._head is not None and is_delimiter_row(leaf.kind.text, self._head[0]):
                head, first = self._head
                self._head = None
                self._space_before("table")
                width = self._width - 1
                self._table = Table(head, leaf.kind.text, width, first.first, mark=self._marked)
                return True
        self._end_head()
        self._close_table()
        return False

    def _end_head(self) -> None:
        """What could have been a table's head is text."""
        if self._head is None:
            return
        (text, leaf), source = self._head, self._source
        self._head = None
        self._begin_text(leaf, text, "text")
        self._end_source_line()
        self._source = source

    def _close_table(self) -> None:
        self._end_head()
        if self._table is not None:
            self._lines += self._table.take_lines()
            self._table = None


def _strip_quotes(source: str, at_most: int = 99) -> tuple[int, str]:
    """How many quotes a line stands in, and what is left of it."""
    count, rest = 0, source
    while count < at_most:
        text = rest.lstrip(" ")
        if not text.startswith(">") or len(rest) - len(text) > 3:
            break
        rest = text[1:].removeprefix(" ")
        count += 1
    return count, rest


def _column_of(text: str) -> int:
    """How far a line is indented."""
    blank = text[: len(text) - len(text.lstrip(" \t"))]
    return len(blank.expandtabs(4))


def _with_addresses(spans: Iterable[Span]) -> list[Span]:
    """Spans with the address of each link behind its words, where these are not it."""
    shown: list[Span] = []
    for link, group in groupby(spans, key=lambda span: span.link):
        words = list(group)
        shown += words
        text = line_text(words).strip()
        if link and text not in {link, link.partition("://")[2], link.removeprefix("mailto:")}:
            shown.append(Span(f" ({make_safe(link)})"))
    return shown
